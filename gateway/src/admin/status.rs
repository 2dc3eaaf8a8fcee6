//! How the process as a whole stands: written by whoever runs it, read by the admin address.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Starting,
    Ready,
    /// No new request is taken; those in flight end.
    Draining,
}

impl Phase {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

#[derive(Debug)]
pub struct Status(Mutex<StatusReading>);

/// The status at one moment.
#[derive(Clone, Debug)]
pub struct StatusReading {
    pub started: SystemTime,
    pub phase: Phase,
    /// The rung of the kernel half that the process stands on.
    pub rung: &'static str,
    /// Why it stands on no higher one.
    pub rung_reason: String,
    /// Programs of the kernel half beside the rungs, each with the reason where it is not at work.
    pub programs: BTreeMap<&'static str, Result<(), String>>,
    /// Connects that were intercepted so far; `None` where none can be.
    pub intercepted: Option<u64>,
    pub reloads_succeeded: u64,
    pub reloads_failed: u64,
    pub last_reload_success: Option<SystemTime>,
    /// Why the last reload was refused; `None` when it was not.
    pub last_reload_error: Option<String>,
}

impl Default for Status {
    fn default() -> Self {
        Self(Mutex::new(StatusReading {
            started: SystemTime::now(),
            phase: Phase::Starting,
            rung: "off",
            rung_reason: "not tried yet".into(),
            programs: BTreeMap::new(),
            intercepted: None,
            reloads_succeeded: 0,
            reloads_failed: 0,
            last_reload_success: None,
            last_reload_error: None,
        }))
    }
}

impl Status {
    pub fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    pub fn set_rung(&self, rung: &'static str, reason: impl Into<String>) {
        let mut status = self.lock();
        status.rung = rung;
        status.rung_reason = reason.into();
    }

    pub fn set_program(&self, name: &'static str, works: Result<(), String>) {
        self.lock().programs.insert(name, works);
    }

    pub fn set_intercepted(&self, connects: u64) {
        self.lock().intercepted = Some(connects);
    }

    /// The manifests were read, at the start or later, and a snapshot was published.
    pub fn reload_succeeded(&self) {
        let mut status = self.lock();
        status.reloads_succeeded += 1;
        status.last_reload_success = Some(SystemTime::now());
        status.last_reload_error = None;
    }

    /// They could not be used; the snapshot before them stays.
    pub fn reload_failed(&self, why: impl Into<String>) {
        let mut status = self.lock();
        status.reloads_failed += 1;
        status.last_reload_error = Some(why.into());
    }

    #[must_use]
    pub fn read(&self) -> StatusReading {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, StatusReading> {
        // Each field is true by itself, whatever panicked between two.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
