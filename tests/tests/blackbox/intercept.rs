//! Gateway addresses that this host has not: what its processes connect to there comes to the gateway, for as long as there
//! is one.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use penstock_tests::client::{CHAT, Client, ask, chat, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::gateway::{Gateway, may_load};
use penstock_tests::manifests::{backends, gateway, model, pool, qwen};
use penstock_tests::network::Network;
use penstock_tests::{DEADLINE, eventually, within};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::takeover::{Load, assert_whole, stream};

const EVERYONE: &[&str] = &["--kernel", "account", "--intercept"];

fn is_root() -> bool {
    let root = may_load();
    if !root {
        eprintln!("NOT RUN: not (whole) root, and this test loads eBPF programs");
    }
    root
}

/// An address that no host has (RFC 2544) and no other test, on a port that the gateway does not listen on.
fn nowhere() -> SocketAddr {
    (Ipv4Addr::new(198, 18, fastrand::u8(..), fastrand::u8(1..)), 80).into()
}

/// A second Gateway, on these addresses.
fn away(addresses: &[SocketAddr]) -> String {
    let items: Vec<String> = addresses.iter().map(|each| format!("{{value: \"{}\"}}", each.ip())).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: away}}
spec:
  gatewayClassName: penstock
  addresses: [{}]
  listeners: [{{name: web, protocol: HTTP, port: 80}}]
---
",
        items.join(", ")
    )
}

/// Whether a connect there comes to a gateway: it then answers what nobody else would. On a host with a way to the whole
/// world, somebody else may.
async fn reaches(address: SocketAddr) -> bool {
    let asked = timeout(Duration::from_secs(2), async {
        TcpStream::connect(address).await?;
        std::io::Result::Ok(ask(address, post(CHAT, chat("qwen"))).await)
    });
    matches!(asked.await, Ok(Ok(answer)) if answer.status() == 200)
}

#[tokio::test]
async fn a_process_that_dials_an_address_of_the_old_cluster_is_served_and_sees_that_address() {
    if !is_root() {
        return;
    }
    let (engine, address) = (Engine::start("qwen-a").await, nowhere());
    let gateway = Gateway::start_with(qwen(&[&engine]) + &away(&[address]), EVERYONE).await;
    let ready = gateway.says("intercept=on").await;
    assert!(ready.contains(&format!("{address} (intercepted)")), "{ready}");
    let stream = TcpStream::connect(address).await.expect("it is intercepted");
    assert_eq!(stream.peer_addr().expect("a peer"), address);
    let answer = ask(address, post(CHAT, chat("qwen"))).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(reaches(gateway.address).await);

    let curl = Command::new("curl").args(["-s", "-m", "5", &format!("http://{address}/v1/models")]).output();
    if let Ok(output) = curl {
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"qwen\""), "{output:?}");
    }
    assert_eq!(gateway.metric("penstock_kernel_program", &["intercept"]).await, 1.0);
    let counted = async || gateway.metric("penstock_intercepted_connects_total", &[]).await >= 2.0;
    eventually("the connects to be counted", async || counted().await.then_some(())).await;
    // Interception ran its course without what only loading needs.
    let capabilities = |status: &String| status.contains("CapEff:\t0000000000000400");
    assert!(gateway.threads().iter().all(capabilities), "{:?}", gateway.threads());
}

#[tokio::test]
async fn without_interception_such_an_address_is_an_error_that_says_so() {
    let (engine, address) = (Engine::start("qwen-a").await, nowhere());
    let manifests = qwen(&[&engine]) + &away(&[address]);
    let said = Gateway::begin(&manifests, &[]).fails().await;
    assert!(
        said.contains(&format!("cannot listen on {address}")) && said.contains("no --intercept"),
        "{said}"
    );
    let said = Gateway::begin(&manifests, &["--kernel", "off", "--intercept"]).fails().await;
    assert!(said.contains("not intercepted: --kernel asks for no programs"), "{said}");
}

#[tokio::test]
async fn what_is_asked_for_and_not_to_be_had_is_off_with_the_reason_where_no_address_needs_it() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start_with(qwen(&[&engine]), &["--kernel", "off", "--intercept"]).await;
    gateway.says("intercept=off (--kernel asks for no programs)").await;
    let ready = gateway.admin("/readyz").await.json();
    assert_eq!(ready["kernel"]["programs"]["intercept"], "off: --kernel asks for no programs");
    assert_eq!(gateway.metric("penstock_kernel_program", &["intercept"]).await, 0.0);
}

#[tokio::test]
async fn a_reload_adds_addresses_and_takes_them_out_again() {
    if !is_root() {
        return;
    }
    let engine = Engine::start("qwen-a").await;
    let (first, second) = (nowhere(), nowhere());
    let gateway = Gateway::start_with(qwen(&[&engine]) + &away(&[first]), EVERYONE).await;
    assert!(reaches(first).await && !reaches(second).await);
    let mut kept = Client::connect(first).await;
    for (addresses, here, gone) in [(&[first, second][..], second, None), (&[second], second, Some(first))] {
        gateway.rewrite(&(qwen(&[&engine]) + &away(addresses)));
        gateway.signal(Signal::HUP);
        eventually("the new address to be served", async || reaches(here).await.then_some(())).await;
        if let Some(gone) = gone {
            eventually("the old one to be left alone", async || (!reaches(gone).await).then_some(())).await;
        } else {
            assert!(reaches(first).await);
            kept.send(post(CHAT, chat("qwen"))).await;
            assert_eq!(kept.answer().await.status(), 200);
        }
    }
}

#[tokio::test]
async fn connects_go_back_to_where_they_went_when_the_gateway_is_killed_and_while_it_drains() {
    if !is_root() {
        return;
    }
    let (engine, address) = (Engine::start("qwen-a").await, nowhere());
    let manifests = qwen(&[&engine]) + &away(&[address]);
    let gateway = Gateway::start_with(&manifests, EVERYONE).await;
    assert!(reaches(address).await);
    gateway.signal(Signal::KILL);
    drop(gateway);
    assert!(!reaches(address).await);

    let gateway = Gateway::start_with(&manifests, EVERYONE).await;
    engine.behave(Behaviour::Stepped);
    let streaming = stream(address).await;
    gateway.signal(Signal::TERM);
    gateway.says("draining").await;
    engine.behave(Behaviour::default());
    eventually("connects to be left alone", async || (!reaches(address).await).then_some(())).await;
    engine.steps(20);
    assert_whole(vec![streaming]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_has_the_address_without_a_gap_and_streams_of_the_old_one_end_whole() {
    if !is_root() {
        return;
    }
    let (engine, address) = (Engine::start("qwen-a").await, nowhere());
    let slow = Engine::start("slow-a").await;
    slow.behave(Behaviour::Stepped);
    let more = pool("slow") + &model("slow", "slow", &[]) + &backends("slow", &[slow.address]);
    let mut old = Gateway::start_with(qwen(&[&engine]) + &more + &away(&[address]), EVERYONE).await;
    let load = Load::on(address);
    let mut long = TcpStream::connect(address).await.expect("it is intercepted");
    let ask = post(CHAT, penstock_tests::client::chat_stream("slow"));
    tokio::io::AsyncWriteExt::write_all(&mut long, &ask).await.expect("a request");
    within("the request to arrive", slow.body_began(0)).await;

    let options: Vec<&str> = ["--workers", "3"].iter().chain(EVERYONE).copied().collect();
    let new = old.successor(&options).ready().await;
    new.says("intercept=on").await;
    old.says("a successor serves").await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(long.peer_addr().expect("a peer"), address, "the old one's client still sees what it dialled");
    slow.steps(1_000);
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut long, &mut rest);
    timeout(DEADLINE, read).await.expect("its end").expect("no reset");
    assert!(String::from_utf8_lossy(&rest).contains("[DONE]"));
    assert_eq!(old.exited().await.code(), Some(0), "{}", old.said());
    assert!(load.end().await > 10);
    assert!(reaches(address).await);
    drop(new);
    assert!(!reaches(address).await);
}

#[tokio::test]
async fn a_second_gateway_cannot_have_the_address_of_the_first_but_another() {
    if !is_root() {
        return;
    }
    let engine = Engine::start("qwen-a").await;
    let (first, second) = (nowhere(), nowhere());
    let one = Gateway::start_with(qwen(&[&engine]) + &away(&[first]), EVERYONE).await;
    let said = Gateway::begin(qwen(&[&engine]) + &away(&[first]), EVERYONE).fails().await;
    assert!(
        said.contains(&format!("cannot listen on {first}")) && said.contains("already sent to"),
        "{said}"
    );
    let two = Gateway::start_with(qwen(&[&engine]) + &away(&[second]), EVERYONE).await;
    assert!(reaches(first).await && reaches(second).await);
    drop(one);
    assert!(!reaches(first).await && reaches(second).await);
    drop(two);
}

#[tokio::test]
async fn an_address_that_the_host_gets_later_is_served_for_others_too_where_it_may_be_listened_on_before() {
    if !is_root() {
        return;
    }
    let network = Network::new();
    let set = network.enter("sysctl -q -w net.ipv4.ip_nonlocal_bind=1").status().expect("sysctl");
    assert!(set.success());
    let address = nowhere();
    let manifests = qwen(&[]) + &away(&[address]);
    let models = |scope: &str| {
        let words = format!("curl -s -m 5 http://{address}/v1/models");
        let output = match scope {
            "" => network.enter(&words).output(),
            // In a cgroup that is left alone, as who comes from elsewhere is.
            cgroup => network
                .enter("sh -c")
                .arg(format!("echo $$ > {cgroup}/cgroup.procs && exec {words}"))
                .output(),
        };
        output.expect("curl").status.success()
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs");
    let root =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let cgroup = format!("{}/penstock-test-{}", root.expect("cgroup v2"), fastrand::u32(..));
    std::fs::create_dir(&cgroup).expect("a cgroup");
    let except = format!("--intercept-except={cgroup}");
    let options: Vec<&str> = EVERYONE.iter().copied().chain([&*except]).collect();
    let gateway = Gateway::begin_in(network.process(), manifests, &options).ready().await;
    let (within, outside) = (models(""), models(&cgroup));
    network.ip(&format!("addr add {}/32 dev lo", address.ip()));
    let later = (models(""), models(&cgroup));
    drop(gateway);
    eventually("an empty cgroup", async || std::fs::remove_dir(&cgroup).is_ok().then_some(())).await;
    assert_eq!((within, outside, later), (true, false, (true, true)));
}

/// Ends what it runs.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn clients_may_dial_the_very_address_that_the_engine_has_and_the_gateway_stands_between() {
    if !is_root() {
        return;
    }
    let (here, there) = (Network::new(), Network::new());
    here.ip(&format!("link add cable type veth peer name cable netns {}", there.process()));
    for (network, n) in [(&here, 1), (&there, 2)] {
        network.ip(&format!("addr add 10.9.0.{n}/24 dev cable"));
        network.ip("link set cable up");
    }
    let fake = std::env::current_exe().expect("this test").with_file_name("../fake-engine");
    let engine: SocketAddr = "10.9.0.2:8001".parse().expect("an address");
    let words = format!("{} --name far --model qwen --port 8001 --address 10.9.0.2", fake.display());
    let _engine = Running(there.enter(&words).spawn().expect("the engine"));
    let manifests = gateway() + &pool("qwen") + &model("qwen", "qwen", &[]) + &backends("qwen", &[engine]);
    let manifests = manifests + &away(&[engine]).replace("port: 80}", "port: 8001}");

    let curl = |path: &str| {
        let body = chat("qwen").replace(' ', "");
        let words = format!("curl -s -i -m 5 http://{engine}{path} -d {body}");
        let output = here.enter(&words).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let came_to_the_engine = |answer: &str| answer.contains("I am far");
    eventually("the engine", async || came_to_the_engine(&curl(CHAT)).then_some(())).await;
    assert!(!curl(CHAT).contains("x-request-id"));

    let gateway = Gateway::begin_in(here.process(), manifests, EVERYONE).ready().await;
    gateway.says("intercept=on").await;
    for _ in 0..5 {
        let answer = curl(CHAT);
        assert!(came_to_the_engine(&answer), "{answer}");
    }
    let loop_of_curl = format!(
        "for i in $(seq 150); do curl -s -m 5 -w '%{{http_code}}\\n' -o /dev/null http://{engine}{CHAT} -d '{}'; done",
        chat("qwen")
    );
    let mut many = here.enter("sh -c");
    let many = many.arg(loop_of_curl).stdout(Stdio::piped()).spawn().expect("a shell");
    sleep(Duration::from_millis(300)).await;
    let successor = gateway.successor(EVERYONE).ready().await;
    let output =
        tokio::task::spawn_blocking(|| many.wait_with_output()).await.expect("a thread").expect("the loop");
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(answers, "200\n".repeat(150));
    let lines = || (gateway.access_log().len(), successor.access_log().len());
    let once = async || (lines().0 + lines().1 == 155).then_some(());
    eventually("each request to have come by once", once).await;
    assert!(lines().0 > 5 && lines().1 > 0, "both serve: {:?}", lines());
    successor.signal(Signal::KILL);
    drop((successor, gateway));
    assert!(came_to_the_engine(&curl(CHAT)), "and straight again");
}
