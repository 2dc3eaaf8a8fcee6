//! Manifests that change while requests flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, get, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{model, pool, qwen};
use rustix::process::Signal;
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
    let failed = gateway.metric("penstock_config_reloads_total", &["result=\"failure\""]).await;
    assert!(failed >= 1.0);
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
    eventually("the second listener", async || tokio::net::TcpStream::connect(address).await.ok().map(drop))
        .await;
    assert_eq!(get(address, "/v1/models").await.status(), 200);
    gateway.rewrite(&(qwen(&[&engine]) + &pool("marker") + &model("marker", "marker", &[])));
    until_status(&gateway, "marker", 503).await;
    eventually("the second listener to go", async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
}
