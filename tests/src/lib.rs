//! Black-box tests of the built binary: a fake engine behind it, a raw client in front of it, real sockets
//! between them. Nothing here links the gateway's code, so nothing here can share its mistakes.
#![forbid(unsafe_code)]

pub mod client;
pub mod engine;
pub mod gateway;
pub mod h2c;
pub mod manifests;
pub mod network;
pub mod wire;

use std::future::Future;
use std::time::Duration;

/// Nothing that a test waits for may take longer, on a machine that does three other things at a time; a test that expects
/// a time limit of Penstock's says so itself.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for what must happen, and says what did not.
///
/// # Panics
/// When it takes longer than [`DEADLINE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(DEADLINE, what, future).await
}

/// As [`within`], with a limit of the caller's.
///
/// # Panics
/// When it takes longer.
pub async fn within_time<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// Asks again every few milliseconds until there is an answer.
///
/// # Panics
/// When there is none within [`DEADLINE`].
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
