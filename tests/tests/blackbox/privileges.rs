//! What a gateway that was started as root keeps of it, and what it does without the rest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use penstock_tests::client::{CHAT, Client, ask, chat, get, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::{Gateway, Kernel, command, command_copied_after, may_load};
use penstock_tests::manifests::{model, qwen};
use rustix::process::Signal;

/// CAP_NET_BIND_SERVICE is number 10.
const ONE: &str = "0000000000000400";
const NONE: &str = "0000000000000000";
/// Somebody who is not root.
const SOMEBODY: u32 = 65_534;

fn is_root() -> bool {
    let root = may_load();
    if !root {
        eprintln!("NOT RUN: not (whole) root, and this test is about what root gives back");
    }
    root
}

/// What all of its threads have of one kind.
fn each(gateway: &Gateway, kind: &str) -> BTreeSet<String> {
    let of = |status: &String| {
        status.lines().find_map(|line| line.strip_prefix(kind)).map(str::trim).map(str::to_owned)
    };
    gateway.threads().iter().filter_map(of).collect()
}

fn assert_one_is_kept(gateway: &Gateway, when: &str) {
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(each(gateway, set), [ONE.to_owned()].into(), "{set} {when}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(each(gateway, set), [NONE.to_owned()].into(), "{set} {when}");
    }
    assert_eq!(each(gateway, "NoNewPrivs:"), ["1".to_owned()].into(), "{when}");
}

#[tokio::test]
async fn every_thread_keeps_one_capability_on_every_rung() {
    if !is_root() {
        return;
    }
    let engine = Engine::start("qwen-a").await;
    for kernel in Kernel::ALL {
        let gateway = Gateway::start_with(qwen(&[&engine]), &["--kernel", kernel.word()]).await;
        assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
        // Two workers, the control side, both logs, and who started them.
        assert!(gateway.threads().len() >= 6, "{:?}", gateway.threads().len());
        assert_one_is_kept(&gateway, kernel.word());
    }
}

/// Waits until the kernel is seen to count so many requests of others on an engine.
async fn until_busy(gateway: &Gateway, engine: &Engine, busy: usize) {
    let endpoint = engine.address.to_string();
    eventually("the load of others", async || {
        let counted = gateway.metric("penstock_endpoint_kernel_foreign_busy", &[&endpoint]).await;
        (counted == busy as f64).then_some(())
    })
    .await;
}

/// Asks an engine past the gateway, and is not answered.
async fn asks_aside(engine: &Engine) -> Client {
    engine.behave(Behaviour::Hangs);
    let mut client = Client::connect(engine.address).await;
    client.send(post(CHAT, chat("qwen"))).await;
    client
}

/// Reads the manifests again, with a model of this name as the sign that they are in use.
async fn reload(gateway: &Gateway, manifests: &str, marker: &str) {
    gateway.rewrite(&(manifests.to_owned() + &model(marker, "qwen", &[])));
    gateway.signal(Signal::HUP);
    eventually("a reload to be seen", async || {
        let models = get(gateway.address, "/v1/models").await.text();
        models.contains(marker).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_load_of_others_is_counted_without_privileges_also_for_endpoints_of_a_reload_and_nothing_is_left()
{
    if !is_root() {
        return;
    }
    let (first, second) = (Engine::start("qwen-a").await, Engine::start("qwen-b").await);
    let mut gateway = Gateway::start_counting(qwen(&[&first])).await;
    // Outlives the gateway's mount namespace.
    let bpffs = File::open(gateway.proc("root/sys/fs/bpf")).expect("the gateway's BPF file system");
    let pins = format!("/proc/self/fd/{}/penstock", bpffs.as_raw_fd());
    assert!(fs::exists(&pins).expect("a folder"));
    let _aside = asks_aside(&first).await;
    until_busy(&gateway, &first, 1).await;

    reload(&gateway, &qwen(&[&first, &second]), "both").await;
    let _aside_too = (asks_aside(&second).await, asks_aside(&second).await);
    until_busy(&gateway, &second, 2).await;
    until_busy(&gateway, &first, 1).await;
    assert_one_is_kept(&gateway, "after a reload");

    gateway.signal(Signal::TERM);
    assert!(gateway.exited().await.success());
    assert!(!gateway.said().contains("WARN"), "{}", gateway.said());
    assert!(!fs::exists(&pins).expect("a folder"));
}

#[tokio::test]
async fn a_port_below_1024_may_come_with_a_reload() {
    if !is_root() {
        return;
    }
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(qwen(&[&engine])).await;
    let port = (600..1024)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port");
    let second = format!("listeners: [{{name: second, protocol: HTTP, port: {port}}}, {{name: web,");
    reload(&gateway, &qwen(&[&engine]).replace("listeners: [{name: web,", &second), "both").await;
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    assert_eq!(ask(address, post(CHAT, chat("qwen"))).await.status(), 200);
}

fn give_to_somebody(path: &Path) {
    chown(path, Some(SOMEBODY), Some(SOMEBODY)).expect("chown");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
}

#[tokio::test]
async fn doctor_tells_a_user_with_capabilities_whether_the_pins_can_be_made() {
    if !is_root() {
        return;
    }
    // In a mount namespace of its own, where the BPF file system is `mode`, as SOMEBODY with what loading needs.
    let doctor = async |mode: &str| {
        let prepare = format!(
            "exec unshare --mount sh -c 'mount -t bpf -o {mode} none /sys/fs/bpf && exec setpriv --reuid {SOMEBODY} \
             --clear-groups --inh-caps +bpf,+net_admin,+perfmon --ambient-caps +bpf,+net_admin,+perfmon \"$@\"' sh \"$@\""
        );
        // In a folder that everybody may enter, which a build's need not be.
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let output = command_copied_after(folder.path(), &prepare, &["doctor"]).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let line = |said: &str| said.lines().find(|line| line.contains("a BPF file system")).map(str::to_owned);
    let closed = doctor("mode=0700").await;
    let lacks = line(&closed).expect("a line");
    assert!(lacks.contains("lacks") && lacks.contains(&format!("uid={SOMEBODY}")), "{closed}");
    assert!(closed.contains("\nrung                  sock_diag"), "{closed}");
    let open = doctor(&format!("mode=0700,uid={SOMEBODY}")).await;
    assert!(line(&open).is_some_and(|line| line.contains("has")), "{open}");
}

#[tokio::test]
async fn manifests_that_only_another_user_may_read_are_an_error_that_says_how_to_mend_it() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("all.yaml");
    fs::write(&file, qwen(&[])).expect("writing");
    give_to_somebody(&file);
    let output = command(&["run", "-f", file.to_str().expect("UTF-8"), "--admin", "127.0.0.1:0"], "").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("all.yaml") && said.contains("Permission denied") && said.contains("chown"),
        "{said}"
    );
    // Nothing is given back where nothing is served.
    let output = command(&["check", "-f", file.to_str().expect("UTF-8")], "").await;
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
}

#[tokio::test]
async fn the_access_log_is_reopened_and_one_of_another_user_is_not() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let engine = Engine::start("qwen-a").await;
    let gateway =
        Gateway::start_with(qwen(&[&engine]), &["--access-log", log.to_str().expect("UTF-8")]).await;
    let old = folder.path().join("access.log.1");
    fs::rename(&log, &old).expect("renaming");
    gateway.signal(Signal::HUP);
    eventually("a new file", async || log.exists().then_some(())).await;
    fs::rename(&log, &old).expect("renaming");
    fs::write(&log, "").expect("writing");
    give_to_somebody(&log);
    gateway.signal(Signal::HUP);
    let said = gateway.says("cannot reopen it").await;
    assert!(said.contains("access.log") && said.contains("chown"), "{said}");
    ask(gateway.address, post(CHAT, chat("qwen"))).await;
    eventually("the line in the old file", async || {
        fs::read_to_string(&old).expect("the old file").contains(CHAT).then_some(())
    })
    .await;
}
