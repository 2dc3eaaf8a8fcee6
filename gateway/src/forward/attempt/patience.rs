//! How long a try may wait, and whose fault it is when that is over.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::{AttemptError, Seen, Terms};
use crate::alarm::Alarm;
use crate::failure::{Failure, Reason, request_timeout};

/// Who a try waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    /// More of the body; how long that may take is the upload's own affair.
    Client,
    /// The engine does not take what there is; since when.
    Engine(Instant),
    /// The engine has the whole request; since when.
    Answer(Instant),
}

/// Ready when a bound is reached; `alarm` is armed only when there is something to wait for.
pub(super) fn poll(
    alarm: &mut Alarm,
    cx: &mut Context<'_>,
    terms: Terms<'_>,
    waiting: Waiting,
) -> Poll<AttemptError> {
    let traffic = terms.traffic;
    let (idle, attempt) = match waiting {
        Waiting::Client => (None, None),
        Waiting::Engine(since) => (Some(since + traffic.stream_idle_timeout), None),
        Waiting::Answer(since) => {
            let attempt = traffic.attempt_timeout.map(|limit| since + limit);
            (Some(since + traffic.stream_idle_timeout), attempt)
        }
    };
    let Some(next) = [terms.deadline, idle, attempt].into_iter().flatten().min() else {
        return Poll::Pending;
    };
    ready!(alarm.poll(cx, next));
    Poll::Ready(match waiting {
        Waiting::Client => AttemptError { failure: body_slow(), seen: Seen::Final },
        _ if terms.deadline == Some(next) => AttemptError { failure: request_timeout(), seen: Seen::Final },
        _ => AttemptError { failure: engine_slow(), seen: Seen::Request },
    })
}

fn body_slow() -> Failure {
    let message = "the request's time was over before its body was complete (timeouts.request)";
    Failure::new(Reason::BodySlow, message)
}

fn engine_slow() -> Failure {
    Failure::new(Reason::EngineSlow, "the engine did not begin to answer in time")
}
