//! Under systemd: what it is told, what its journal reads, and whether it reads the units that we ship.

use std::path::Path;
use std::process::Command;

use penstock_tests::client::{CHAT, Client, ask, chat, chat_stream, get, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::gateway::{Gateway, command};
use penstock_tests::manifests::qwen;
use penstock_tests::within;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

/// Systemd's end.
struct Ear {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Ear {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        Self { socket, folder }
    }

    /// The next words that it is told.
    async fn hears(&self) -> Vec<String> {
        let mut words = vec![0; 64 << 10];
        let count = within("a word for systemd", self.socket.recv(&mut words)).await.expect("a datagram");
        let words = String::from_utf8(words[..count].to_vec()).expect("text");
        words.lines().map(str::to_owned).collect()
    }

    /// Whether it is told nothing any more.
    fn hears_nothing(&self) -> bool {
        self.socket.try_recv(&mut [0; 1024]).is_err()
    }

    fn begin(&self, manifests: &str, options: &[&str]) -> penstock_tests::gateway::Starting {
        Gateway::begin_under_systemd(manifests, &self.folder.path().join("notify"), options)
    }
}

fn serves(gateway: &Gateway) -> String {
    format!("STATUS=serves {}", gateway.address)
}

#[tokio::test]
async fn systemd_is_told_when_it_serves_reloads_and_drains() {
    let (ear, engine) = (Ear::new(), Engine::start("qwen-a").await);
    let starting = ear.begin(&qwen(&[&engine]), &["--drain-timeout", "7m"]);
    let ready = ear.hears().await;
    let mut gateway = starting.ready().await;
    assert_eq!(ready, ["READY=1", &serves(&gateway)]);
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);

    gateway.signal(Signal::HUP);
    let reloading = ear.hears().await;
    assert_eq!(reloading[0], "RELOADING=1");
    let since = reloading[1].strip_prefix("MONOTONIC_USEC=").map(str::parse::<u64>);
    assert!(matches!(since, Some(Ok(1..))), "{reloading:?}");
    assert_eq!(ear.hears().await, ["READY=1", &serves(&gateway)]);

    gateway.rewrite("not: [closed\n");
    // Found by a look at the files: nobody waits for this one.
    let status = ear.hears().await;
    let [status] = &status[..] else { panic!("{status:?}") };
    let place = status.strip_prefix(&format!("{} as before: ", serves(&gateway)));
    assert!(place.is_some_and(|why| why.contains("all.yaml:2:1")), "{status}");
    gateway.signal(Signal::HUP);
    assert_eq!(ear.hears().await[0], "RELOADING=1");
    assert_eq!(ear.hears().await, ["READY=1", status]);

    engine.behave(Behaviour::Stepped);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    gateway.signal(Signal::TERM);
    let stopping = ear.hears().await;
    assert_eq!(stopping[..2], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=430000000"]);
    engine.steps(100);
    gateway.exited().await;
    assert!(ear.hears_nothing());
}

#[tokio::test]
async fn a_gateway_that_cannot_start_never_says_that_it_serves() {
    let ear = Ear::new();
    let said = ear.begin("not: [closed\n", &[]).fails().await;
    assert!(ear.hears_nothing());
    // What keeps it from starting is an error in the journal, too.
    assert!(said.lines().any(|line| line.starts_with("<3>penstock: ")), "{said}");
}

#[tokio::test]
async fn a_supervisor_that_is_gone_keeps_nobody_from_serving() {
    let (ear, engine) = (Ear::new(), Engine::start("qwen-a").await);
    let place = ear.folder.path().join("notify");
    drop(ear);
    let gateway = Gateway::begin_under_systemd(qwen(&[&engine]), &place, &[]).ready().await;
    assert_eq!(get(gateway.address, "/v1/models").await.status(), 200);
    gateway.says("the supervisor (NOTIFY_SOCKET) was not told").await;
}

#[tokio::test]
async fn lines_for_the_journal_begin_with_their_level_and_others_with_the_time() {
    let (ear, engine) = (Ear::new(), Engine::start("qwen-a").await);
    let under = ear.begin(&qwen(&[&engine]), &[]).ready().await;
    let alone = Gateway::start(qwen(&[&engine])).await;
    for (gateway, level) in [(&under, "<6>"), (&alone, "20")] {
        gateway.signal(Signal::HUP);
        let line = gateway.says("the manifests were read again").await;
        assert!(line.starts_with(level), "{line}");
        gateway.rewrite("not: [closed\n");
    }
    assert!(under.says("cannot be used").await.starts_with("<3>ERROR "));
}

#[tokio::test]
async fn the_units_that_we_ship_are_read_by_systemd_and_their_options_by_penstock() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let unit = std::fs::read_to_string(deploy.join("penstock.service")).expect("a unit");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart=");
    let (binary, options) = start.split_once(' ').expect("options");
    let asked: Vec<&str> = options.split(' ').chain(["--help"]).collect();
    let output = command(&asked, "").await;
    assert!(output.status.success(), "{start}: {}", String::from_utf8_lossy(&output.stderr));

    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["penstock.service", "penstock@.service"] {
        // Systemd wants the binary to be there.
        std::fs::write(folder.path().join(name), unit.replace(binary, "/bin/true")).expect("writing");
        let drop_ins = folder.path().join(format!("{name}.d"));
        std::fs::create_dir(&drop_ins).expect("a folder");
        std::fs::copy(deploy.join("ebpf.conf"), drop_ins.join("ebpf.conf")).expect("a copy");
    }
    std::fs::copy(deploy.join("penstock.socket"), folder.path().join("penstock.socket")).expect("a copy");
    for name in ["penstock.service", "penstock@b.service", "penstock.socket"] {
        let verified = Command::new("systemd-analyze").arg("verify").arg(folder.path().join(name)).output();
        let Ok(verified) = verified else { return eprintln!("NOT RUN: no systemd-analyze here") };
        let said = String::from_utf8_lossy(&verified.stderr);
        // Of this unit alone: the host's own units may be anything.
        let complains = said.lines().any(|line| line.contains("penstock"));
        assert!(!complains, "{name}: {said}");
    }
}
