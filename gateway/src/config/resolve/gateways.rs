//! Which listeners of which Gateways are ours and can be bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::board::Board;
use crate::config::objects::gateway::{Address, From, Gateway, Listener};
use crate::config::objects::{Kind, Object, Objects};
use crate::config::report::Condition;
use crate::discovery::Names;
use crate::snapshot::{Hostname, ObjectName};

/// A listener that can be programmed.
pub(crate) struct Bound<'a> {
    pub(crate) gateway: &'a Object<Gateway>,
    pub(crate) listener: &'a Listener,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Bound<'_> {
    /// The listener as conditions name it.
    pub(crate) fn about(&self) -> String {
        format!("listener {}", self.listener.name)
    }
}

pub(crate) fn bound<'a>(objects: &'a Objects, names: &Names, board: &mut Board) -> Vec<Bound<'a>> {
    for class in &objects.classes {
        if class.spec.is_ours() {
            board.holds(Kind::GatewayClass, &class.meta, "", "Accepted", "");
        } else {
            let message = format!("belongs to the controller {}, skipped", class.spec.controller);
            board.report.info(&class.meta.place, message);
        }
    }
    let mut all = Vec::new();
    for gateway in
        objects.gateways.iter().filter(|gateway| is_ours(objects, gateway, board)).collect::<Vec<_>>()
    {
        for name in gateway.spec.hostnames().filter(|name| names.get(name).is_empty()) {
            let message = format!("the address {name} is not resolved yet; nothing listens there");
            board.report.warning(&gateway.meta.place, message);
        }
        all.extend(listeners(gateway, names));
    }
    let conflicts = conflicts(&all);
    let mut accepted = Vec::new();
    for (bound, conflict) in all.into_iter().zip(conflicts) {
        if let Some(condition) = conflict.or_else(|| unsupported(&bound)) {
            let place = &bound.listener.place;
            board.refuse(Kind::Gateway, &bound.gateway.meta, place, condition);
            continue;
        }
        if !bound.listener.other_kinds.is_empty() {
            let message =
                format!("{} cannot be served, only HTTPRoute", bound.listener.other_kinds.join(", "));
            let condition =
                Condition::new(&bound.about(), "ResolvedRefs", false, "InvalidRouteKinds", message);
            board.refuse(Kind::Gateway, &bound.gateway.meta, &bound.listener.place, condition);
        }
        board.holds(Kind::Gateway, &bound.gateway.meta, &bound.about(), "Accepted", "");
        accepted.push(bound);
    }
    accepted
}

fn is_ours(objects: &Objects, gateway: &Object<Gateway>, board: &mut Board) -> bool {
    let name = ObjectName { namespace: "".into(), name: (&*gateway.spec.class).into() };
    let class = objects.classes.iter().find(|class| class.meta.name == name);
    let meta = &gateway.meta;
    match class {
        Some(class) if class.spec.is_ours() => {
            board.holds(Kind::Gateway, meta, "", "Accepted", "");
            true
        }
        Some(_) => {
            board.report.info(&meta.place, "belongs to another controller, skipped");
            false
        }
        None => {
            let refused = objects.is_refused(Kind::GatewayClass, &name);
            let class = &gateway.spec.class;
            let message = match refused {
                true => format!("its GatewayClass {class} is not accepted"),
                false => format!("there is no GatewayClass {class}; add it to the manifests"),
            };
            let condition = Condition::new("", "Accepted", false, "Pending", message);
            board.refuse(Kind::Gateway, meta, &meta.place, condition);
            false
        }
    }
}

fn listeners<'a>(gateway: &'a Object<Gateway>, names: &Names) -> impl Iterator<Item = Bound<'a>> {
    let ips = ips(&gateway.spec.addresses, names);
    gateway.spec.listeners.iter().map(move |listener| {
        let addresses = ips.iter().map(|ip| SocketAddr::new(*ip, listener.port)).collect();
        Bound { gateway, listener, addresses }
    })
}

/// Each once, whoever names it.
fn ips(addresses: &[Address], names: &Names) -> BTreeSet<IpAddr> {
    if addresses.is_empty() {
        return [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].into();
    }
    let mut ips = BTreeSet::new();
    for address in addresses {
        match address {
            Address::Ip(ip) => _ = ips.insert(*ip),
            Address::Name(name) => ips.extend(names.get(name)),
        }
    }
    ips
}

fn unsupported(bound: &Bound<'_>) -> Option<Condition> {
    let refuse = |reason, message| Some(Condition::new(&bound.about(), "Accepted", false, reason, message));
    if &*bound.listener.protocol != "HTTP" {
        let protocol = &bound.listener.protocol;
        return refuse("UnsupportedProtocol", format!("protocol {protocol} is not supported yet; use HTTP"));
    }
    if bound.listener.from == From::Selector {
        let message = "allowedRoutes.namespaces.from: Selector needs Namespace objects, which are not read; \
                       use Same or All";
        return refuse("UnsupportedValue", message.to_owned());
    }
    None
}

/// Listeners on one address and port must speak one protocol and differ by host name. All of those that do not
/// are refused, since any choice between them would be a guess.
fn conflicts(all: &[Bound<'_>]) -> Vec<Option<Condition>> {
    let mut by_address: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (i, bound) in all.iter().enumerate().filter(|(_, bound)| &*bound.listener.protocol != "UDP") {
        bound.addresses.iter().for_each(|address| by_address.entry(*address).or_default().push(i));
    }
    let mut conflicts: Vec<Option<Condition>> = all.iter().map(|_| None).collect();
    let named = |i: &usize| {
        all.get(*i)
            .map(|bound| format!("{} of {}", bound.about(), bound.gateway.meta.name))
            .unwrap_or_default()
    };
    let mut condition = |i: usize, reason, message: String| {
        if let (Some(slot), Some(bound)) = (conflicts.get_mut(i), all.get(i)) {
            slot.get_or_insert_with(|| Condition::new(&bound.about(), "Conflicted", true, reason, message));
        }
    };
    for group in by_address.values().filter(|group| group.len() > 1) {
        let mut by_hostname: HashMap<&Hostname, Vec<usize>> = HashMap::new();
        let mut protocols = Vec::new();
        for (i, bound) in group.iter().filter_map(|i| Some((*i, all.get(*i)?))) {
            by_hostname.entry(&bound.listener.hostname).or_default().push(i);
            protocols.push(&*bound.listener.protocol);
        }
        protocols.sort_unstable();
        protocols.dedup();
        if protocols.len() > 1 {
            let message = format!("one port with the protocols {}", protocols.join(" and "));
            group.iter().for_each(|i| condition(*i, "ProtocolConflict", message.clone()));
        }
        for same in by_hostname.values().filter(|same| same.len() > 1) {
            let message =
                format!("same port and host name: {}", same.iter().map(named).collect::<Vec<_>>().join(", "));
            same.iter().for_each(|i| condition(*i, "HostnameConflict", message.clone()));
        }
    }
    conflicts
}
