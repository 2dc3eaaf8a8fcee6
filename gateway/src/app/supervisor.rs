//! What the process says to whoever supervises it, by the protocol of sd_notify(3): datagrams to the socket that
//! `NOTIFY_SOCKET` names. systemd waits for them with `Type=notify`, and `systemctl status` shows the last status.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// For a supervisor that does not read. Past it the word is lost, and what the process does goes on.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the process may take from the end of its drain until it has ended.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Says nothing where nobody listens.
#[derive(Debug)]
pub(super) struct Supervisor(Option<(UnixDatagram, SocketAddr)>);

impl Supervisor {
    /// The one that started this process.
    pub(super) fn of_process() -> Self {
        Self(env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let opened = open(&name);
            let failed = |error: &io::Error| tracing::warn!(?name, %error, "cannot speak to NOTIFY_SOCKET");
            opened.inspect_err(failed).ok()
        }))
    }

    /// The start, or the reload that was announced, is over.
    pub(super) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    pub(super) fn status(&self, status: &str) {
        self.say(&format!("STATUS={}", one_line(status)));
    }

    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // By the time systemd tells the answer to its signal from one that was under way.
        let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reading the manifests"));
    }

    /// A drain of at most `limit` begins: the supervisor must not kill us before, whatever limit of its own it has.
    pub(super) fn stopping(&self, limit: Duration) {
        let within_us = limit.saturating_add(LAST_STEPS).as_micros();
        let limit_s = limit.as_secs_f64();
        self.say(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={within_us}\nSTATUS=draining for at most {limit_s} s: requests in flight go on"
        ));
    }

    fn say(&self, words: &str) {
        let Some((socket, supervisor)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(words.as_bytes(), supervisor) {
            tracing::warn!(%error, ?words, "the supervisor (NOTIFY_SOCKET) was not told");
        }
    }
}

fn open(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let supervisor = match name.as_bytes() {
        [b'@', hidden @ ..] => SocketAddr::from_abstract_name(hidden)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is neither a path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, supervisor))
}

/// A line would end the status, and begin a word that nobody meant.
fn one_line(status: &str) -> String {
    status.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut words = [0; 4096];
        let count = socket.recv(&mut words).unwrap();
        String::from_utf8(words[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_supervisor_is_spoken_to_by_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let hidden = format!("penstock-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&hidden).unwrap()).unwrap();
        for (name, ear) in [(path.into_os_string(), by_path), (format!("@{hidden}").into(), by_name)] {
            let supervisor = Supervisor(Some(open(&name).unwrap()));
            supervisor.ready("serves\n\n  a lot\nREADY=0");
            assert_eq!(heard(&ear), "READY=1\nSTATUS=serves; a lot; READY=0");
        }
    }

    #[test]
    fn a_drain_is_given_its_time_however_long() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("notify").into_os_string();
        let ear = UnixDatagram::bind(&name).unwrap();
        let supervisor = Supervisor(Some(open(&name).unwrap()));
        supervisor.stopping(Duration::from_secs(300));
        assert!(heard(&ear).starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=310000000\n"));
        supervisor.stopping(Duration::MAX);
        assert!(heard(&ear).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn names_of_other_kinds_and_supervisors_that_are_gone_harm_nobody() {
        for name in ["", "vsock:2:1234", "run/notify"] {
            assert!(open(&name.into()).is_err(), "{name:?}");
        }
        Supervisor(Some(open(&"/nowhere/notify".into()).unwrap())).ready("x");
        Supervisor(None).reloading();
    }
}
