//! Draws a destination and a rewrite target by weight.

use std::sync::Arc;

use super::{Action, Forward};
use crate::failure::{Failure, Reason};
use crate::snapshot::{Model, Pool, Rule, Target};

/// What a matched rule does with a request for `model`.
pub(super) fn action<'s>(rule: &'s Rule, model: Option<&str>) -> Result<Action<'s>, Failure> {
    if let Some(redirect) = &rule.filters.redirect {
        return Ok(Action::Redirect(redirect));
    }
    let destination = by_weight(&rule.destinations, |destination| destination.weight).ok_or_else(|| {
        Failure::new(Reason::RouteInvalid, "the matching rule has no destination with a weight above 0")
    })?;
    let pool = match &destination.target {
        Target::Pool(pool) => pool,
        Target::Invalid(why) => return Err(Failure::new(Reason::RouteInvalid, why.to_string())),
    };
    let model = model.and_then(|name| pool.models.get(name));
    let rewrite = match model {
        Some(model) => rewrite(model)?,
        None => None,
    };
    Ok(Action::Forward(Forward { destination, pool, model, rewrite }))
}

/// Whether a request for `model` can end in the pool: false for a name that is only reserved.
pub(super) fn serves(pool: &Pool, model: &str) -> bool {
    pool.models.get(model).is_none_or(|model| !is_reserved(model))
}

/// The pools that a rule sends a share to.
pub(super) fn pools(rule: &Rule) -> impl Iterator<Item = &Arc<Pool>> {
    rule.destinations.iter().filter(|destination| destination.weight > 0).filter_map(|destination| {
        match &destination.target {
            Target::Pool(pool) => Some(pool),
            Target::Invalid(_) => None,
        }
    })
}

fn rewrite(model: &Arc<Model>) -> Result<Option<&str>, Failure> {
    if is_reserved(model) {
        return Err(Failure::new(
            Reason::ModelNotFound,
            format!("the model \"{}\" is reserved: all of its targetModels have weight 0", model.name),
        ));
    }
    let target = by_weight(&model.targets, |target| target.weight).map(|target| &*target.name);
    // Its own name needs no rewrite: the client's bytes stay, however they spell it.
    Ok(target.filter(|target| *target != &*model.name))
}

fn is_reserved(model: &Model) -> bool {
    !model.targets.is_empty() && model.targets.iter().all(|target| target.weight == 0)
}

/// `None` where all weights are 0.
fn by_weight<T>(items: &[T], weight: impl Fn(&T) -> u32) -> Option<&T> {
    let total: u64 = items.iter().map(|item| u64::from(weight(item))).sum();
    if total == 0 {
        return None;
    }
    let mut left = fastrand::u64(..total);
    items.iter().find(|item| {
        let share = u64::from(weight(item));
        let drawn = left < share;
        left = left.saturating_sub(share);
        drawn
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fixtures::{destination, invalid, model, pool, rule};
    use crate::snapshot::Redirect;

    fn forward<'s>(rule: &'s Rule, model: Option<&str>) -> Result<Forward<'s>, Reason> {
        match action(rule, model) {
            Ok(Action::Forward(forward)) => Ok(forward),
            Ok(Action::Redirect(_)) => panic!("redirected"),
            Err(failure) => Err(failure.reason),
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        fastrand::seed(7);
        let (a, b, c) = (pool("a", 1), pool("b", 1), pool("c", 1));
        let rule = rule(vec![destination(&a, 90), destination(&b, 0), destination(&c, 10)]);
        let mut counts = [0_u32; 3];
        for _ in 0..10_000 {
            match &*forward(&rule, None).unwrap().pool.name.name {
                "a" => counts[0] += 1,
                "b" => counts[1] += 1,
                _ => counts[2] += 1,
            }
        }
        assert_eq!(counts[1], 0);
        assert!((800..1200).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let a = pool("a", 1);
        let rule = rule(vec![destination(&a, u32::MAX), destination(&a, u32::MAX)]);
        assert!(forward(&rule, None).is_ok());
    }

    #[test]
    fn no_weight_and_no_destination_are_the_routes_fault() {
        let a = pool("a", 1);
        assert_eq!(forward(&rule(vec![]), None).unwrap_err(), Reason::RouteInvalid);
        assert_eq!(forward(&rule(vec![destination(&a, 0)]), None).unwrap_err(), Reason::RouteInvalid);
    }

    #[test]
    fn an_invalid_destinations_share_says_why() {
        let rule = rule(vec![invalid("InferencePool default/x does not exist", 1)]);
        let failure = action(&rule, Some("m")).unwrap_err();
        assert_eq!(failure.reason, Reason::RouteInvalid);
        assert!(failure.message.contains("default/x"));
    }

    #[test]
    fn a_redirect_needs_no_destination() {
        let mut rule = rule(vec![]);
        rule.filters.redirect =
            Some(Redirect { scheme: None, hostname: None, path: None, port: None, status: 301 });
        assert!(matches!(action(&rule, None), Ok(Action::Redirect(_))));
    }

    #[test]
    fn a_model_is_rewritten_by_weight_and_its_own_name_is_kept() {
        let mut qwen = pool("qwen", 1);
        let pool = Arc::get_mut(&mut qwen).unwrap();
        pool.models.insert("split".into(), model("split", &[("v1", 1), ("split", 1)]));
        pool.models.insert("plain".into(), model("plain", &[]));
        pool.models.insert("reserved".into(), model("reserved", &[("x", 0)]));
        let rule = rule(vec![destination(&qwen, 1)]);
        let drawn: std::collections::BTreeSet<_> =
            (0..100).map(|_| forward(&rule, Some("split")).unwrap().rewrite).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [None, Some("v1")]);
        let plain = forward(&rule, Some("plain")).unwrap();
        assert!(plain.model.is_some() && plain.rewrite.is_none());
        let unnamed = forward(&rule, Some("unnamed")).unwrap();
        assert!(unnamed.model.is_none() && unnamed.rewrite.is_none());
        assert_eq!(forward(&rule, Some("reserved")).unwrap_err(), Reason::ModelNotFound);
    }
}
