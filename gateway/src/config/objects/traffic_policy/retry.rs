//! `retry` of a BackendTrafficPolicy.

use std::collections::BTreeSet;

use crate::config::fields::Fields;
use crate::config::traffic::{RetryOn, RetryPatch};

pub(super) fn read(fields: &Fields<'_>) -> RetryPatch {
    fields.no_effect(&["numAttemptsPerPriority"], "there is one priority");
    let attempts = fields.get("numRetries").and_then(|field| field.integer(0..=i64::from(u32::MAX)));
    let per_retry = fields.fields("perRetry");
    let back_off = per_retry.as_ref().and_then(|fields| fields.fields("backOff"));
    if let Some(back_off) = &back_off {
        back_off.no_effect(&["maxInterval"], "it is ten times the baseInterval");
    }
    RetryPatch {
        attempts: attempts.and_then(|n| u32::try_from(n).ok()),
        on: Some(fields.fields("retryOn").map_or_else(default_triggers, |on| triggers(&on))),
        attempt_timeout: per_retry.as_ref().and_then(|fields| fields.duration("timeout")),
        backoff: back_off.and_then(|fields| fields.duration("baseInterval")),
    }
}

/// Envoy Gateway's: connect-failure, refused-stream, unavailable, cancelled, retriable-status-codes (503).
fn default_triggers() -> RetryOn {
    RetryOn { reset: false, statuses: vec![503] }
}

/// What each trigger adds. connect-failure is always on. refused-stream and reset-before-request say that the
/// engine has not seen the request, which is always safe too; the rest of the list is gRPC's.
fn triggers(on: &Fields<'_>) -> RetryOn {
    let listed = super::statuses(on, "httpStatusCodes");
    let mut statuses = BTreeSet::new();
    let mut reset = false;
    let mut by_status = false;
    for item in on.items("triggers", 32) {
        match item.string().unwrap_or_default() {
            "5xx" => {
                // Envoy counts an engine that does not answer at all among them.
                reset = true;
                statuses.extend(500..=599);
            }
            "gateway-error" => statuses.extend([502, 503, 504]),
            "reset" => reset = true,
            "retriable-4xx" => statuses.extend([409]),
            "retriable-status-codes" => by_status = true,
            "connect-failure" | "refused-stream" | "reset-before-request" => {}
            "cancelled" | "deadline-exceeded" | "internal" | "resource-exhausted" | "unavailable" => {}
            other => item.error(format!("{other:?} is not a trigger")),
        }
    }
    if by_status {
        statuses.extend(listed);
    } else if let Some(field) = on.get("httpStatusCodes") {
        field.warning("has no effect without the trigger retriable-status-codes");
    }
    RetryOn { reset, statuses: statuses.into_iter().collect() }
}
