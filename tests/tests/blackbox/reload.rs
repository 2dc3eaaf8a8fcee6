//! Manifests that change while requests flow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, get, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{self, backend, gateway_at, model, pool, qwen};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::one_engine;

/// Waits until a model is routed, or no longer.
async fn until_status(gateway: &Gateway, model: &str, status: u16) {
    eventually("a reload to be seen", async || {
        let answer = ask(gateway.address, post(CHAT, chat(model))).await;
        (answer.status() == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_changed_file_is_read_and_sighup_reads_at_once() {
    let (engine, gateway) = one_engine().await;
    gateway.rewrite(&(qwen(&[&engine]) + &model("second", "qwen", &[])));
    until_status(&gateway, "second", 200).await;
    gateway.rewrite(&qwen(&[&engine]));
    gateway.signal(Signal::HUP);
    until_status(&gateway, "second", 404).await;
    gateway.write("more.yaml", &model("third", "qwen", &[]));
    until_status(&gateway, "third", 200).await;
}

#[tokio::test]
async fn no_request_is_lost_while_endpoints_come_and_go() {
    let [a, b, c] = ["a", "b", "c"].map(Engine::start);
    let (a, b, c) = (a.await, b.await, c.await);
    let gateway = Gateway::start(qwen(&[&a, &b])).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (address, stop, asked) = (gateway.address, stop.clone(), asked.clone());
        clients.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            while !stop.load(Relaxed) {
                client.send(post(CHAT, chat_stream("qwen"))).await;
                let answer = client.answer().await;
                assert_eq!((answer.status(), answer.ended), (200, Ended::Whole), "{}", answer.text());
                asked.fetch_add(1, Relaxed);
            }
        }));
    }
    for endpoints in [vec![&b], vec![&b, &c], vec![&c], vec![&a, &b, &c], vec![&a]] {
        gateway.rewrite(&qwen(&endpoints));
        gateway.signal(Signal::HUP);
        sleep(Duration::from_millis(500)).await;
    }
    stop.store(true, Relaxed);
    for client in clients {
        client.await.expect("every request of a client is answered");
    }
    let posts = a.posts().len() + b.posts().len() + c.posts().len();
    assert_eq!(posts, asked.load(Relaxed));
    assert!(!c.posts().is_empty() && posts > 50, "{posts} requests");
}

#[tokio::test]
async fn a_stream_goes_on_under_the_manifests_that_it_began_with() {
    let (engine, gateway) = one_engine().await;
    engine.behave(Behaviour::Stepped);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    gateway.rewrite(&(qwen(&[]) + &model("marker", "qwen", &[])));
    until_status(&gateway, "marker", 503).await;
    engine.steps(20);
    assert_eq!(client.events(&mut body, 6).await.last().map(String::as_str), Some("data: [DONE]"));
    assert_eq!(client.more(&mut body).await, Err(Ended::Whole));
}

#[tokio::test]
async fn a_bad_edit_keeps_the_old_manifests_and_says_why() {
    let (engine, gateway) = one_engine().await;
    gateway.rewrite("apiVersion: v1\nkind: [unclosed\n");
    gateway.signal(Signal::HUP);
    let said = gateway.says("cannot be used").await;
    assert!(said.contains("all.yaml:"), "with the line: {said}");
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
    // It says so a moment before it counts.
    eventually("the failure to be counted", async || {
        let failed = gateway.metric("penstock_config_reloads_total", &["result=\"failure\""]).await;
        (failed >= 1.0).then_some(())
    })
    .await;
    let successful = gateway.metric("penstock_config_last_reload_successful", &[]).await;
    assert!(successful < 1.0);
    let shown = gateway.admin("/snapshot").await.text() + &gateway.admin("/readyz").await.text();
    assert!(shown.contains("all.yaml"), "{shown}");
    gateway.rewrite(&(qwen(&[&engine]) + &model("mended", "qwen", &[])));
    until_status(&gateway, "mended", 200).await;
}

#[tokio::test]
async fn a_listener_comes_with_a_reload() {
    let (engine, gateway) = one_engine().await;
    let port = gateway.address.port();
    // Two ports above the first: the harness keeps to every port by chance, so a neighbour is most likely free.
    let second = port + 1;
    let listener = format!("listeners: [{{name: second, protocol: HTTP, port: {second}}}, {{name: web,");
    let manifests = qwen(&[&engine]).replace("listeners: [{name: web,", &listener);
    gateway.rewrite(&manifests);
    gateway.signal(Signal::HUP);
    let address = (std::net::Ipv4Addr::LOCALHOST, second).into();
    eventually("the second listener", async || TcpStream::connect(address).await.ok().map(drop)).await;
    assert_eq!(get(address, "/v1/models").await.status(), 200);
    gateway.rewrite(&(qwen(&[&engine]) + &pool("marker") + &model("marker", "marker", &[])));
    until_status(&gateway, "marker", 503).await;
    eventually("the second listener to go", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
}

/// `qwen` on other addresses than 127.0.0.1 alone.
fn qwen_at(addresses: &[&str], list: &[&Engine]) -> String {
    qwen(list).replace(&manifests::gateway(), &gateway_at(addresses))
}

/// Asks on one connection until told to stop, and on another where the gateway closes it between two answers.
async fn keeps_asking(address: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut answers = 0;
    let mut client = Client::connect(address).await;
    while !stop.load(Relaxed) {
        let sent = client.try_send(post(CHAT, chat("qwen"))).await;
        if sent.is_err() || !client.is_answered().await {
            client = Client::connect(address).await;
            continue;
        }
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.ended), (200, Ended::Whole), "{}", answer.text());
        answers += 1;
    }
    answers
}

#[tokio::test]
async fn a_port_may_move_between_all_addresses_and_one_under_load() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(qwen_at(&["0.0.0.0"], &[&engine])).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(keeps_asking(gateway.address, stop.clone()))).collect();
    for (address, marker) in [("127.0.0.1", "one"), ("0.0.0.0", "two"), ("127.0.0.1", "three")] {
        gateway.rewrite(&(qwen_at(&[address], &[&engine]) + &model(marker, "qwen", &[])));
        gateway.signal(Signal::HUP);
        until_status(&gateway, marker, 200).await;
        let shown = gateway.admin("/snapshot").await.json()["listeners"][0]["addresses"].to_string();
        assert!(shown.contains(&format!("{address}:")), "{shown}");
        sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Relaxed);
    for client in clients {
        assert!(client.await.expect("every request of a client is answered") > 10);
    }
    assert_eq!(gateway.metric("penstock_config_last_reload_successful", &[]).await, 1.0);
}

#[tokio::test]
async fn a_removed_port_serves_what_it_has_and_closes() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(qwen(&[&engine])).await;
    let second = gateway.address.port() + 1;
    let listener = format!("listeners: [{{name: second, protocol: HTTP, port: {second}}}, {{name: web,");
    gateway.rewrite(&qwen(&[&engine]).replace("listeners: [{name: web,", &listener));
    gateway.signal(Signal::HUP);
    let address = (std::net::Ipv4Addr::LOCALHOST, second).into();
    eventually("the second listener", async || TcpStream::connect(address).await.ok().map(drop)).await;

    let mut kept = Client::connect(address).await;
    kept.send(post(CHAT, chat("qwen"))).await;
    assert_eq!(kept.answer().await.status(), 200);
    engine.behave(Behaviour::Stepped);
    let mut streaming = Client::connect(address).await;
    streaming.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = streaming.head().await;
    streaming.events(&mut body, 1).await;
    // Its second request waits behind the stream.
    let mut pipelined = Client::connect(address).await;
    pipelined.send([post(CHAT, chat_stream("qwen")), post(CHAT, chat("qwen"))].concat()).await;
    engine.post(2).await;

    let stop = Arc::new(AtomicBool::new(false));
    let newcomers: Vec<_> = (0..2).map(|_| tokio::spawn(newcomer(address, stop.clone()))).collect();
    gateway.rewrite(&(qwen(&[&engine]) + &model("marker", "qwen", &[])));
    gateway.signal(Signal::HUP);
    until_status(&gateway, "marker", 200).await;
    eventually("the second listener to go", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    stop.store(true, Relaxed);
    for newcomer in newcomers {
        newcomer.await.expect("answers, or none");
    }
    if kept.try_send(post(CHAT, chat("qwen"))).await.is_ok() && kept.is_answered().await {
        assert_eq!(kept.answer().await.status(), 200);
    }
    engine.steps(40);
    assert_eq!(streaming.events(&mut body, 6).await.last().map(String::as_str), Some("data: [DONE]"));
    assert_eq!(streaming.more(&mut body).await, Err(Ended::Whole));
    let first = pipelined.answer().await;
    assert_eq!((first.status(), first.ended), (200, Ended::Whole));
    if pipelined.is_answered().await {
        assert_eq!(pipelined.answer().await.status(), 200);
    }
}

/// Comes with a plain question again and again, on a connection of its own each time.
async fn newcomer(address: SocketAddr, stop: Arc<AtomicBool>) {
    while !stop.load(Relaxed) {
        let Some(mut client) = Client::try_connect(address).await else { return };
        let sent = client.try_send("GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        if sent.is_ok() && client.is_answered().await {
            assert_eq!(client.answer().await.status(), 200);
        }
    }
}

#[tokio::test]
async fn a_refused_edit_stays_shown_until_it_is_mended() {
    let engine = Engine::start("qwen-a").await;
    let name = format!("{{fqdn: {{hostname: localhost, port: {}}}}}", engine.address.port());
    let good = manifests::gateway() + &pool("qwen") + &model("qwen", "qwen", &[]) + &backend("qwen", &name);
    let gateway = Gateway::start(&good).await;
    gateway.rewrite("apiVersion: v1\nkind: [unclosed\n");
    let refused = || async { gateway.metric("penstock_config_last_reload_successful", &[]).await == 0.0 };
    eventually("the edit to be refused", async || refused().await.then_some(())).await;
    for _ in 0..3 {
        gateway.signal(Signal::HUP);
        sleep(Duration::from_millis(700)).await;
        assert!(refused().await);
        let shown = gateway.admin("/readyz").await.json()["last_reload_error"].to_string();
        assert!(shown.contains("all.yaml"), "{shown}");
        assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
    }
    gateway.rewrite(&good);
    eventually("the mended edit", async || (!refused().await).then_some(())).await;
    assert!(gateway.admin("/readyz").await.json()["last_reload_error"].is_null());
}
