//! Backend: addresses by hand, the way to name engines on a host without a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Kind, Spec};
use crate::config::fields::{Field, Fields};
use crate::config::units;
use crate::endpoint::Address;
use crate::snapshot::Hostname;

/// `sun_path` holds 108 bytes with its NUL.
const MAX_UNIX_PATH: usize = 107;

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) endpoints: Vec<BackendEndpoint>,
}

#[derive(Debug)]
pub(crate) enum BackendEndpoint {
    Address(Address),
    /// Resolved again and again by the control side.
    Fqdn {
        hostname: Box<str>,
        port: u16,
    },
}

impl Backend {
    /// The names to resolve.
    pub(crate) fn hostnames(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().filter_map(|endpoint| match endpoint {
            BackendEndpoint::Fqdn { hostname, .. } => Some(&**hostname),
            BackendEndpoint::Address(_) => None,
        })
    }
}

impl Spec for Backend {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        if let Some(kind) = spec.get("type").filter(|field| field.string() != Some("Endpoints")) {
            kind.unsupported("only the type Endpoints is supported");
        }
        for protocol in spec.items("appProtocols", 8) {
            protocol.unsupported("only HTTP/1.1 is supported toward engines so far; leave appProtocols out");
        }
        if let Some(field) = spec.get("fallback").filter(|field| field.boolean() == Some(true)) {
            field.unsupported("fallback is not supported yet");
        }
        spec.unsupported(&["tls"]);
        let items = spec.require("endpoints").map(|field| field.items(64)).unwrap_or_default();
        if items.is_empty() {
            spec.error("endpoints must not be empty");
        }
        Some(Self { endpoints: items.iter().filter_map(endpoint).collect() })
    }
}

fn endpoint(item: &Field<'_>) -> Option<BackendEndpoint> {
    let fields = item.fields()?;
    fields.skip(&["hostname", "zone"]);
    match (fields.fields("ip"), fields.fields("fqdn"), fields.get("unix")) {
        (Some(ip), None, None) => {
            let address = ip.require("address").and_then(|field| field.ip());
            let port = ip.require("port").and_then(|field| field.port());
            Some(BackendEndpoint::Address(Address::Tcp(SocketAddr::new(address?, port?))))
        }
        (None, Some(fqdn), None) => {
            let name = fqdn.require("hostname")?;
            let exact = name.ok(units::hostname(name.string()?));
            let port = fqdn.require("port").and_then(|field| field.port());
            match exact? {
                Hostname::Exact(hostname) => Some(BackendEndpoint::Fqdn { hostname, port: port? }),
                Hostname::Any | Hostname::Suffix(_) => {
                    name.error("must be one host, not a wildcard");
                    None
                }
            }
        }
        (None, None, Some(unix)) => {
            let unix = unix.fields()?;
            let path = unix.require("path")?;
            let text = path.string()?;
            if !text.starts_with('/') || text.len() > MAX_UNIX_PATH || text.contains('\0') {
                path.error(format!("must be an absolute path of at most {MAX_UNIX_PATH} bytes"));
                return None;
            }
            Some(BackendEndpoint::Address(Address::Unix(PathBuf::from(text))))
        }
        _ => {
            fields.error("must have exactly one of ip, fqdn and unix");
            None
        }
    }
}
