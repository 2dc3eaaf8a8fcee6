//! ClientTrafficPolicy: limits toward clients.

use std::time::Duration;

use super::target::{TargetKind, Targets};
use super::{Kind, Spec};
use crate::config::fields::Fields;

/// Fields are `None` where the policy is silent; a duration of zero disables its limit.
#[derive(Debug)]
pub(crate) struct ClientTrafficPolicy {
    pub(crate) targets: Targets,
    pub(crate) buffer_limit: Option<u64>,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) receive_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) stream_idle_timeout: Option<Duration>,
    pub(crate) max_connections: Option<u32>,
}

impl Spec for ClientTrafficPolicy {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        let targets = Targets::read(&spec, &[TargetKind::Gateway]);
        spec.unsupported(&["tls", "enableProxyProtocol", "proxyProtocol", "clientIPDetection"]);
        spec.unsupported(&["path", "headers", "healthCheck"]);
        spec.no_effect(&["http1", "http2", "tcpKeepalive"], "Penstock's own limits hold");
        spec.no_effect(&["http3"], "HTTP/3 is not offered");
        let connection = spec.fields("connection");
        let connection = connection.as_ref();
        if let Some(connection) = connection {
            let why = "the kernel's own settings hold";
            connection.no_effect(&["socketBufferLimit", "maxAcceptPerSocketEvent"], why);
        }
        let limit = connection.and_then(|connection| connection.fields("connectionLimit"));
        let max_connections = limit.and_then(|limit| {
            limit.no_effect(&["closeDelay"], "connections over the limit are closed at once");
            let value = limit.require("value")?.integer(1..=i64::from(u32::MAX))?;
            u32::try_from(value).ok()
        });
        let timeout = spec.fields("timeout");
        if let Some(timeout) = &timeout {
            timeout.no_effect(&["tcp"], "the timeouts of HTTP hold");
        }
        let http = timeout.as_ref().and_then(|timeout| timeout.fields("http"));
        let timeout = |key| http.as_ref().and_then(|http: &Fields<'_>| http.duration(key));
        Some(Self {
            targets,
            buffer_limit: connection.and_then(|c| c.get("bufferLimit")?.quantity(u64::from(u32::MAX))),
            head_timeout: timeout("requestHeadersReceivedTimeout"),
            receive_timeout: timeout("requestReceivedTimeout"),
            idle_timeout: timeout("idleTimeout"),
            stream_idle_timeout: timeout("streamIdleTimeout"),
            max_connections,
        })
    }
}
