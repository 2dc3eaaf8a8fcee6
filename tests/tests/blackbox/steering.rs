//! Which worker gets a new connection: the one with the fewest where the kernel half steers, any where a hash decides.

use penstock_tests::client::{CHAT, Client, chat_stream, get, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::{Gateway, Kernel, may_load};
use penstock_tests::manifests::qwen;
use rustix::process::Signal;
use std::net::SocketAddr;
use tokio::net::TcpStream;

const WORKERS: usize = 4;
/// Long streams on one of the workers.
const PINNED: usize = 8;

async fn start(engine: &Engine, kernel: Kernel) -> Gateway {
    engine.behave(Behaviour::Stepped);
    let workers = WORKERS.to_string();
    Gateway::start_with(qwen(&[engine]), &["--workers", &workers, "--kernel", kernel.word()]).await
}

/// Client connections of each worker.
async fn connections(gateway: &Gateway) -> Vec<usize> {
    let page = gateway.admin("/metrics").await.text();
    let of = |worker: usize| {
        let name = format!("penstock_worker_connections{{worker=\"{worker}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("a worker")
    };
    (0..WORKERS).map(of).collect()
}

async fn stream(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    client
}

/// Long streams on one worker and none on the others; which worker it is.
async fn pin(gateway: &Gateway) -> (usize, Vec<Client>) {
    let mut clients: Vec<Vec<Client>> = (0..WORKERS).map(|_| Vec::new()).collect();
    loop {
        let before = connections(gateway).await;
        let client = stream(gateway.address).await;
        let after = connections(gateway).await;
        let took = (0..WORKERS).find(|worker| after[*worker] > before[*worker]).expect("a worker took it");
        clients[took].push(client);
        if clients[took].len() == PINNED {
            let pinned = clients.swap_remove(took);
            drop(clients);
            eventually("the others to leave", async || {
                (connections(gateway).await.iter().sum::<usize>() == PINNED).then_some(())
            })
            .await;
            return (took, pinned);
        }
    }
}

#[tokio::test]
async fn new_connections_leave_the_worker_alone_that_has_the_long_streams() {
    if !may_load() {
        return eprintln!("NOT RUN: not (whole) root, and this test loads eBPF programs");
    }
    let engine = Engine::start("qwen-a").await;
    let gateway = start(&engine, Kernel::Account).await;
    gateway.says("steer=on").await;
    assert_eq!(gateway.metric("penstock_kernel_program", &["steer"]).await, 1.0);
    let (busy, _pinned) = pin(&gateway).await;
    let mut others = Vec::new();
    for _ in 0..PINNED * (WORKERS - 1) {
        others.push(stream(gateway.address).await);
        assert_eq!(connections(&gateway).await[busy], PINNED);
    }
    assert_eq!(connections(&gateway).await, [PINNED; WORKERS], "all have as many now");
}

#[tokio::test]
async fn by_hash_the_worker_with_the_long_streams_gets_more() {
    let engine = Engine::start("qwen-a").await;
    let gateway = start(&engine, Kernel::Off).await;
    let steer = gateway.admin("/readyz").await.json()["kernel"]["programs"]["steer"].to_string();
    assert!(steer.contains("off: "), "{steer}");
    let (busy, _pinned) = pin(&gateway).await;
    let mut others = Vec::new();
    for _ in 0..PINNED * (WORKERS - 1) {
        others.push(stream(gateway.address).await);
    }
    // By chance none once in 1000 times.
    assert!(connections(&gateway).await[busy] > PINNED);
}

#[tokio::test]
async fn a_listener_of_a_reload_and_a_successor_are_steered_too() {
    if !may_load() {
        return eprintln!("NOT RUN: not (whole) root, and this test loads eBPF programs");
    }
    let engine = Engine::start("qwen-a").await;
    let old = start(&engine, Kernel::Account).await;
    let second = SocketAddr::from(([127, 0, 0, 1], old.address.port() + 1));
    let listener =
        format!("listeners: [{{name: second, protocol: HTTP, port: {}}}, {{name: web,", second.port());
    old.rewrite(&qwen(&[&engine]).replace("listeners: [{name: web,", &listener));
    old.signal(Signal::HUP);
    eventually("the second listener", async || TcpStream::connect(second).await.ok().map(drop)).await;
    let evenly = async |gateway: &Gateway| {
        eventually("all to have left", async || (connections(gateway).await == [0; WORKERS]).then_some(()))
            .await;
        let mut streams = Vec::new();
        for address in [second, gateway.address].repeat(WORKERS) {
            streams.push(stream(address).await);
        }
        assert_eq!(connections(gateway).await, [2; WORKERS]);
    };
    evenly(&old).await;
    let new = old.successor(&["--workers", "4", "--kernel", "account"]).ready().await;
    new.says("steer=on").await;
    old.says("a successor serves").await;
    evenly(&new).await;
    assert_eq!(get(new.address, "/v1/models").await.status(), 200);
}
