//! Signals: what the operator asks of the running process.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What an operator may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGHUP: read the manifests again and reopen the access log.
    Reload,
    /// SIGTERM or SIGINT: finish what is in flight and go. Asked twice: go now.
    Stop,
}

/// The signals that the process answers.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from their default actions.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one asked for.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
        }
    }

    /// Ready when [`Asked::Stop`] is asked; a [`Asked::Reload`] meanwhile waits for [`Self::next`].
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Does `work` unless the operator asks for the end: the resolver may take longer than anyone wants to wait.
    /// `None`: it was asked for, and the work is dropped.
    pub async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop() => None,
            done = work => Some(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::time::timeout;

    use super::*;

    /// One test, since signals belong to the whole process.
    #[tokio::test]
    async fn work_that_hangs_is_left_for_the_end_and_a_reload_waits_for_it() {
        let mut signals = Signals::new().unwrap();
        assert_eq!(signals.unless_stopped(async { 1 }).await, Some(1));
        kill_process(getpid(), Signal::HUP).unwrap();
        let hangs = signals.unless_stopped(pending::<()>());
        assert!(timeout(Duration::from_millis(100), hangs).await.is_err(), "a reload is no end");
        kill_process(getpid(), Signal::TERM).unwrap();
        let hangs = signals.unless_stopped(pending::<()>());
        assert_eq!(timeout(Duration::from_secs(5), hangs).await, Ok(None));
        assert_eq!(signals.next().await, Asked::Reload);
    }
}
