//! Which of the tried settings it should be, and why: the cheapest that is not clearly worse.

use super::sweep::{Figures, Setting, Sweep, Tried, median};

/// A difference of figures that is less is none: rounds differ by as much.
const CLEARLY: f64 = 1.10;
/// Nobody sees a token come so much later, whatever the ratio.
const EVENT_SLACK_US: f64 = 500.0;
/// What knowing the true load of engines may cost.
const KERNEL_MAY_COST: f64 = 1.05;

#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) setting: Setting,
    pub(crate) why: String,
}

/// The fewest that do as well as any: a host's cores belong to its engines.
pub(crate) fn workers(sweep: &Sweep) -> Option<Choice> {
    let sound = || sweep.tried.iter().filter(|tried| tried.errors.is_empty());
    let most = sound().filter_map(|tried| tried.median(requests)).reduce(f64::max);
    let soonest = sound().filter_map(|tried| tried.median(events)).reduce(f64::min);
    let keeps_up = |tried: &&Tried| {
        let serves =
            most.is_none_or(|most| tried.median(requests).is_some_and(|requests| requests * CLEARLY >= most));
        let in_time = soonest.is_none_or(|soonest| {
            tried
                .median(events)
                .is_some_and(|event| event <= (soonest * CLEARLY).max(soonest + EVENT_SLACK_US))
        });
        serves && in_time
    };
    let all_rounds = sound().min_by_key(|tried| tried.setting.workers);
    let chosen = sound().filter(keeps_up).min_by_key(|tried| tried.setting.workers).or(all_rounds)?;
    let mut why = "the fewest with which".to_owned();
    if let Some(most) = most {
        why += &format!(" requests per second are within a tenth of the most ({most:.0})");
    }
    if let Some(soonest) = soonest {
        let and = if most.is_some() { " and" } else { "" };
        why += &format!("{and} the p99 of events is next to the least ({soonest:.0} µs)");
    }
    Some(Choice { setting: chosen.setting, why })
}

/// The highest rung that costs next to nothing: what it gives, a load like this one does not show.
pub(crate) fn kernel(sweep: &Sweep) -> Option<Choice> {
    let off = sweep.tried.iter().find(|tried| tried.setting.kernel == "off")?;
    let sound = sweep.tried.iter().rev().filter(|tried| tried.errors.is_empty());
    for tried in sound {
        if tried.setting == off.setting {
            break;
        }
        let costs = [cost(tried, off, |f| f.cpu_per_request), cost(tried, off, |f| f.cpu_per_event)];
        let most = costs.into_iter().flatten().reduce(f64::max);
        if let Some(cost) = most.filter(|cost| *cost <= KERNEL_MAY_COST) {
            let why = format!(
                "it sees what others send to the engines, and costs ×{cost:.2} of the CPU of `off`; up to \
                 ×{KERNEL_MAY_COST} is worth it"
            );
            return Some(Choice { setting: tried.setting, why });
        }
    }
    let why = format!("each higher rung failed or cost more than ×{KERNEL_MAY_COST} of its CPU");
    off.errors.is_empty().then_some(Choice { setting: off.setting, why })
}

/// The ratio of a figure to that of another setting, each round with its own.
fn cost(tried: &Tried, base: &Tried, of: fn(&Figures) -> Option<f64>) -> Option<f64> {
    let pairs = tried.rounds.iter().zip(&base.rounds);
    median(pairs.filter_map(|(figures, base)| Some(of(figures)? / of(base)?)).collect())
}

fn requests(figures: &Figures) -> Option<f64> {
    figures.requests_per_s
}

fn events(figures: &Figures) -> Option<f64> {
    figures.event_p99_us
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(workers: usize, kernel: &'static str, figures: Figures) -> Tried {
        Tried { setting: Setting { workers, kernel }, rounds: vec![figures; 3], errors: Vec::new() }
    }

    fn with_workers(figures: [(f64, f64); 3]) -> Sweep {
        let tried = figures.into_iter().enumerate().map(|(n, (requests, event))| {
            let figures =
                Figures { requests_per_s: Some(requests), event_p99_us: Some(event), ..Figures::default() };
            tried(1 << n, "off", figures)
        });
        Sweep { option: "--workers", tried: tried.collect() }
    }

    #[test]
    fn more_workers_are_chosen_only_where_they_serve_clearly_more_or_sooner() {
        let chosen = |figures| workers(&with_workers(figures)).unwrap().setting.workers;
        assert_eq!(chosen([(95.0, 100.0), (100.0, 100.0), (100.0, 100.0)]), 1);
        assert_eq!(chosen([(50.0, 100.0), (100.0, 100.0), (100.0, 100.0)]), 2);
        assert_eq!(chosen([(100.0, 9_000.0), (100.0, 9_000.0), (100.0, 100.0)]), 4);
        // None is best at both: the fewest.
        assert_eq!(chosen([(100.0, 9_000.0), (50.0, 100.0), (50.0, 100.0)]), 1);
    }

    #[test]
    fn a_setting_with_errors_is_not_chosen() {
        let mut sweep = with_workers([(100.0, 100.0); 3]);
        sweep.tried[0].errors.push("no answer".to_owned());
        assert_eq!(workers(&sweep).unwrap().setting.workers, 2);
    }

    #[test]
    fn the_highest_rung_that_is_cheap_is_chosen() {
        let rung = |account: f64, sock_diag: f64| {
            let rungs = [("off", 10.0), ("sock-diag", sock_diag), ("account", account)];
            let tried = rungs.map(|(kernel, cpu)| {
                tried(1, kernel, Figures { cpu_per_request: Some(cpu), ..Figures::default() })
            });
            kernel(&Sweep { option: "--kernel", tried: tried.into() }).unwrap().setting.kernel
        };
        assert_eq!(rung(10.2, 10.0), "account");
        assert_eq!(rung(12.0, 10.0), "sock-diag");
        assert_eq!(rung(12.0, 12.0), "off");
    }
}
