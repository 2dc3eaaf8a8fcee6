use super::*;
use crate::account::mapped;

/// A process in `/1/7/9`, where the root is 1.
fn ancestor(level: u64) -> u64 {
    [1, 7, 9].get(level as usize).copied().unwrap_or(0)
}

fn control(within: Cgroup, except: &[Cgroup]) -> Control {
    let mut control = Control { own: 100, within, ..Control::default() };
    control.except[..except.len()].copy_from_slice(except);
    control
}

const ROOT: Cgroup = Cgroup { id: 1, level: 0 };

#[test]
fn the_gateways_own_connects_are_left_alone_and_those_of_the_other_one() {
    assert!(control(ROOT, &[]).admits(101, ancestor));
    assert!(!control(ROOT, &[]).admits(100, ancestor));
    assert!(!Control { other: 101, ..control(ROOT, &[]) }.admits(101, ancestor));
}

#[test]
fn a_cgroup_holds_what_is_in_it_and_below_and_nothing_else() {
    for (cgroup, holds) in
        [(7, 1, true), (9, 2, true), (9, 1, false), (8, 1, false), (5, 7, false), (0, 3, false)]
            .map(|(id, level, holds)| (Cgroup { id, level }, holds))
    {
        assert_eq!(control(cgroup, &[]).admits(101, ancestor), holds, "{cgroup:?}");
        assert_eq!(control(ROOT, &[cgroup]).admits(101, ancestor), !holds, "{cgroup:?}");
    }
}

#[test]
fn where_nobody_is_meant_nobody_is_intercepted() {
    assert!(!Control::default().admits(101, ancestor));
    assert!(!Control::default().admits(101, |_| 0));
}

#[test]
fn the_dialled_address_is_shown_only_while_the_peer_is_the_gateway() {
    let at = |last, port| Target { ip: mapped([127, 0, 0, last]), port, reserved: 0 };
    let kept = Kept { dialled: at(9, 80), target: at(1, 4000) };
    assert_eq!(kept.shown(&at(1, 4000)), Some(at(9, 80)));
    assert_eq!(kept.shown(&at(1, 4001)), None);
    assert_eq!(kept.shown(&at(2, 4000)), None);
}

#[test]
fn no_value_has_padding() {
    assert_eq!(size_of::<Dialled>(), 16 + 8 + 2 + 6);
    assert_eq!(size_of::<Kept>(), 2 * (16 + 2 + 2));
    assert_eq!(size_of::<Control>(), 8 * (3 + 2 + 2 * EXCEPT + 3 + 2 + 1));
}
