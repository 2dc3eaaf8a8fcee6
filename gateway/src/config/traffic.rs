//! Traffic settings as policies and rules leave them: what is silent falls through to the next level, and at
//! last to the defaults.

use std::time::Duration;

use super::objects::client_policy::ClientTrafficPolicy;
use crate::snapshot::{ClientPolicy, Retry, Traffic};

/// Stands for "no limit" where the data path wants one: longer than any process lives.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Zero in a duration disables that limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrafficPatch {
    pub(crate) body_limit: Option<u64>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) stream_idle_timeout: Option<Duration>,
    pub(crate) retry: Option<RetryPatch>,
    /// 0: no bound.
    pub(crate) max_parallel_requests: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetryPatch {
    pub(crate) attempts: Option<u32>,
    pub(crate) on: Option<RetryOn>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) backoff: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetryOn {
    pub(crate) reset: bool,
    pub(crate) statuses: Vec<u16>,
}

impl TrafficPatch {
    /// This, and where it is silent, `under`.
    pub(crate) fn over(&self, under: &Self) -> Self {
        Self {
            body_limit: self.body_limit.or(under.body_limit),
            connect_timeout: self.connect_timeout.or(under.connect_timeout),
            request_timeout: self.request_timeout.or(under.request_timeout),
            attempt_timeout: self.attempt_timeout.or(under.attempt_timeout),
            stream_idle_timeout: self.stream_idle_timeout.or(under.stream_idle_timeout),
            retry: match (&self.retry, &under.retry) {
                (Some(retry), Some(under)) => Some(retry.over(under)),
                (retry, under) => retry.as_ref().or(under.as_ref()).cloned(),
            },
            max_parallel_requests: self.max_parallel_requests.or(under.max_parallel_requests),
        }
    }

    pub(crate) fn resolve(&self) -> Traffic {
        let default = Traffic::default();
        let request_timeout = match self.request_timeout {
            None => default.request_timeout,
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
        };
        let attempt = self.attempt_timeout.or(self.retry.as_ref().and_then(|retry| retry.attempt_timeout));
        // An engine may stay silent for as long as the whole request may take.
        let patience = default.stream_idle_timeout.max(request_timeout.unwrap_or_default());
        Traffic {
            body_limit: self.body_limit.unwrap_or(default.body_limit),
            connect_timeout: limit(self.connect_timeout, default.connect_timeout),
            request_timeout,
            attempt_timeout: attempt.filter(|timeout| !timeout.is_zero()),
            stream_idle_timeout: limit(self.stream_idle_timeout, patience),
            retry: self.retry.as_ref().map(RetryPatch::resolve).unwrap_or_default(),
            max_parallel_requests: self.max_parallel_requests.filter(|max| *max != 0),
            splice: default.splice,
        }
    }
}

impl RetryPatch {
    fn over(&self, under: &Self) -> Self {
        Self {
            attempts: self.attempts.or(under.attempts),
            on: self.on.as_ref().or(under.on.as_ref()).cloned(),
            attempt_timeout: self.attempt_timeout.or(under.attempt_timeout),
            backoff: self.backoff.or(under.backoff),
        }
    }

    fn resolve(&self) -> Retry {
        let default = Retry::default();
        let on = self.on.clone().unwrap_or_default();
        Retry {
            attempts: self.attempts.unwrap_or(default.attempts),
            on_reset: on.reset,
            on_status: on.statuses,
            backoff: self.backoff.unwrap_or(default.backoff),
        }
    }
}

/// The client side of a listener. `longest_request`: the longest request timeout of its rules; a client whose
/// engine may stay silent that long must not be cut off earlier, unless the policy says so.
pub(crate) fn client_policy(policy: Option<&ClientTrafficPolicy>, longest_request: Duration) -> ClientPolicy {
    let default = ClientPolicy::default();
    let patience = default.stream_idle_timeout.max(longest_request);
    let Some(policy) = policy else {
        return ClientPolicy { stream_idle_timeout: patience, ..default };
    };
    ClientPolicy {
        buffer_limit: policy.buffer_limit.unwrap_or(default.buffer_limit),
        head_timeout: limit(policy.head_timeout, default.head_timeout),
        receive_timeout: policy.receive_timeout.filter(|timeout| !timeout.is_zero()),
        idle_timeout: limit(policy.idle_timeout, default.idle_timeout),
        stream_idle_timeout: limit(policy.stream_idle_timeout, patience),
        max_connections: policy.max_connections,
    }
}

fn limit(wanted: Option<Duration>, default: Duration) -> Duration {
    match wanted {
        None => default,
        Some(Duration::ZERO) => FOREVER,
        Some(wanted) => wanted,
    }
}
