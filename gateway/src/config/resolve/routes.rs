//! Which routes attach to which listeners, under which host names.

use std::collections::HashSet;

use super::board::Board;
use super::gateways::Bound;
use crate::config::objects::gateway::From;
use crate::config::objects::http_route::{HttpRoute, ParentRef};
use crate::config::objects::{Kind, Object, Objects};
use crate::config::report::Condition;
use crate::snapshot::{Hostname, ObjectName};

/// A route on one listener.
pub(crate) struct Attachment<'a> {
    /// Position among the bound listeners.
    pub(crate) listener: usize,
    pub(crate) route: &'a Object<HttpRoute>,
    /// Never empty.
    pub(crate) hostnames: Vec<Hostname>,
}

pub(crate) fn attach<'a>(
    objects: &'a Objects,
    bound: &[Bound<'a>],
    board: &mut Board,
) -> Vec<Attachment<'a>> {
    let mut attachments: Vec<Attachment<'a>> = Vec::new();
    for route in &objects.routes {
        let mut seen = HashSet::new();
        for parent in &route.spec.parents {
            let about = about(parent);
            if !parent.is_gateway {
                board.report.info(&parent.place, "this parent is not a Gateway, skipped");
                continue;
            }
            match attach_to(objects, route, parent, bound) {
                Ok(found) => {
                    board.holds(Kind::HttpRoute, &route.meta, &about, "Accepted", "");
                    attachments.extend(found.into_iter().filter(|found| seen.insert(found.listener)));
                }
                Err((reason, message)) => {
                    let condition = Condition::new(&about, "Accepted", false, reason, message);
                    board.refuse(Kind::HttpRoute, &route.meta, &parent.place, condition);
                }
            }
        }
    }
    for (i, bound) in bound.iter().enumerate() {
        let count = attachments.iter().filter(|attachment| attachment.listener == i).count();
        let note = format!("attached routes: {count}");
        board.holds(Kind::Gateway, &bound.gateway.meta, &bound.about(), "Programmed", note);
    }
    attachments
}

/// The parent as conditions name it.
pub(crate) fn about(parent: &ParentRef) -> String {
    let mut text = format!("parent {}", parent.name);
    if let Some(section) = &parent.section {
        text = format!("{text}/{section}");
    }
    match parent.port {
        Some(port) => format!("{text}:{port}"),
        None => text,
    }
}

/// Whether a listener lets objects of this namespace in.
pub(crate) fn admits(bound: &Bound<'_>, namespace: &str) -> bool {
    match bound.listener.from {
        From::All => true,
        From::Same => &*bound.gateway.meta.name.namespace == namespace,
        From::Selector => false,
    }
}

type Refused = (&'static str, String);

fn attach_to<'a>(
    objects: &Objects,
    route: &'a Object<HttpRoute>,
    parent: &ParentRef,
    bound: &[Bound<'a>],
) -> Result<Vec<Attachment<'a>>, Refused> {
    let own = &route.meta.name.namespace;
    let namespace = parent.namespace.as_deref().unwrap_or(own);
    let gateway = ObjectName { namespace: namespace.into(), name: (&*parent.name).into() };
    let of_gateway = |(_, bound): &(usize, &Bound<'_>)| bound.gateway.meta.name == gateway;
    let named = |(_, bound): &(usize, &Bound<'_>)| {
        let section = parent.section.as_ref().is_none_or(|section| *section == bound.listener.name);
        section && parent.port.is_none_or(|port| port == bound.listener.port)
    };
    let candidates: Vec<_> = bound.iter().enumerate().filter(of_gateway).filter(named).collect();
    if candidates.is_empty() {
        return Err(("NoMatchingParent", why_no_parent(objects, parent, &gateway)));
    }
    let admitted = |(_, bound): &(usize, &Bound<'_>)| bound.listener.takes_http_routes && admits(bound, own);
    let allowed: Vec<_> = candidates.into_iter().filter(admitted).collect();
    if allowed.is_empty() {
        let message = format!("allowedRoutes of {gateway} does not let HTTPRoutes of the namespace {own} in");
        return Err(("NotAllowedByListeners", message));
    }
    let attachment = |(listener, bound): (usize, &Bound<'_>)| {
        let hostnames = intersect(&bound.listener.hostname, &route.spec.hostnames);
        (!hostnames.is_empty()).then_some(Attachment { listener, route, hostnames })
    };
    let attached: Vec<_> = allowed.into_iter().filter_map(attachment).collect();
    if attached.is_empty() {
        let message = format!("no listener of {gateway} serves any of the route's host names");
        return Err(("NoMatchingListenerHostname", message));
    }
    Ok(attached)
}

fn why_no_parent(objects: &Objects, parent: &ParentRef, name: &ObjectName) -> String {
    if objects.is_refused(Kind::Gateway, name) {
        return format!("the Gateway {name} is not accepted");
    }
    let Some(gateway) = objects.gateways.iter().find(|gateway| gateway.meta.name == *name) else {
        return format!("there is no Gateway {name}");
    };
    match &parent.section {
        Some(section) if gateway.spec.listeners.iter().all(|listener| listener.name != *section) => {
            format!("the Gateway {name} has no listener {section}")
        }
        _ => format!("the Gateway {name} has no accepted listener that fits"),
    }
}

/// Host names under which a route is served on a listener; empty: none.
fn intersect(listener: &Hostname, route: &[Hostname]) -> Vec<Hostname> {
    if route.is_empty() {
        return vec![listener.clone()];
    }
    let mut found = Vec::new();
    for hostname in route {
        let both = match (listener, hostname) {
            (Hostname::Any, other) | (other, Hostname::Any) => Some(other),
            (Hostname::Exact(a), Hostname::Exact(b)) => (a == b).then_some(hostname),
            (Hostname::Exact(a), Hostname::Suffix(suffix)) => a.ends_with(&**suffix).then_some(listener),
            (Hostname::Suffix(suffix), Hostname::Exact(b)) => b.ends_with(&**suffix).then_some(hostname),
            (Hostname::Suffix(a), Hostname::Suffix(b)) if b.ends_with(&**a) => Some(hostname),
            (Hostname::Suffix(a), Hostname::Suffix(b)) => a.ends_with(&**b).then_some(listener),
        };
        found.extend(both.filter(|both| !found.contains(*both)).cloned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::hostname;

    #[test]
    fn host_names_intersect_as_the_gateway_api_says() {
        let cases = [
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "b.example.com", None),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None),
            ("a.example.com", "*.example.com", Some("a.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.b.example.com", "*.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.badexample.com", None),
        ];
        for (listener, route, both) in cases {
            let found = intersect(&hostname(listener).unwrap(), &[hostname(route).unwrap()]);
            let wanted: Vec<_> = both.map(|both| hostname(both).unwrap()).into_iter().collect();
            assert_eq!(found, wanted, "{listener} and {route}");
        }
        assert_eq!(intersect(&Hostname::Any, &[]), [Hostname::Any]);
    }
}
