//! What the control side owes its operators: reloads that hold, ports that move, ends that come.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::{Gateway, command_after};
use penstock_tests::manifests::{model, qwen};
use rustix::process::Signal;
use tokio::net::TcpStream;

/// Reads these manifests, with a model of this name as the sign that they are in use.
async fn reload(gateway: &Gateway, manifests: &str, marker: &str) {
    gateway.rewrite(&(manifests.to_owned() + &model(marker, "qwen", &[])));
    gateway.signal(Signal::HUP);
    eventually("a reload to be seen", async || {
        let answer = ask(gateway.address, post(CHAT, chat(marker))).await;
        (answer.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_port_moves_to_all_addresses_and_back() {
    let engine = Engine::start("qwen-a").await;
    let narrow = qwen(&[&engine]);
    let gateway = Gateway::start(&narrow).await;
    let wide = narrow.replace("value: 127.0.0.1}]", "value: 0.0.0.0}]");
    assert_ne!(narrow, wide);
    reload(&gateway, &wide, "wide").await;
    reload(&gateway, &narrow, "narrow").await;
}

#[tokio::test]
async fn a_start_with_too_few_descriptors_fails_with_what_to_do_on_every_rung_and_does_not_climb_down() {
    let manifests = qwen(&[]).replace("$PORT", "17999");
    for kernel in ["off", "auto", "full"] {
        for limit in [10, 40, 127] {
            let run = ["run", "-f", "-", "--workers", "2", "--admin", "127.0.0.1:0", "--kernel", kernel];
            let output = command_after(&format!("ulimit -n {limit}"), &run, &manifests).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{kernel} {limit}: {said}");
            let why = format!("the limit of open files is {limit}, and 2 workers take 128 to start");
            assert!(said.contains(&why) && said.contains("ulimit -Hn"), "{kernel} {limit}: {said}");
        }
    }
    // Each worker takes some.
    let run = ["run", "-f", "-", "--workers", "64", "--admin", "127.0.0.1:0", "--kernel", "off"];
    let output = command_after("ulimit -n 512", &run, &manifests).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("64 workers take 1120"), "{said}");
}

/// The manifests with a second listener, one port above the first.
fn with_second(manifests: &str, gateway: &Gateway) -> (String, SocketAddr) {
    let port = gateway.address.port() + 1;
    let both = format!("listeners: [{{name: second, protocol: HTTP, port: {port}}}, {{name: web,");
    (manifests.replace("listeners: [{name: web,", &both), (Ipv4Addr::LOCALHOST, port).into())
}

#[tokio::test]
async fn a_port_that_is_taken_out_ends_its_connections_with_the_answers_that_they_wait_for() {
    let engine = Engine::start("qwen-a").await;
    let one = qwen(&[&engine]);
    let gateway = Gateway::start(&one).await;
    let (both, second) = with_second(&one, &gateway);
    reload(&gateway, &both, "both").await;

    let mut kept = Client::connect(second).await;
    kept.send(post(CHAT, chat("qwen"))).await;
    assert_eq!(kept.answer().await.status(), 200);
    let mut slow = Client::connect(second).await;
    let request = post(CHAT, chat("qwen"));
    let (first, rest) = request.split_at(request.len() - 9);
    slow.send(first).await;
    engine.behave(Behaviour::Stepped);
    let mut streaming = Client::connect(second).await;
    streaming.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = streaming.head().await;
    streaming.events(&mut body, 1).await;
    engine.behave(Behaviour::Normal);

    reload(&gateway, &one, "one").await;
    eventually("the second listener to go", async || TcpStream::connect(second).await.is_err().then_some(()))
        .await;
    assert!(kept.closed().await.1.is_empty(), "an idle connection is closed without a word");
    slow.send(rest).await;
    let answer = slow.answer().await;
    assert_eq!((answer.status(), answer.head.field("connection")), (200, Some("close")), "{}", answer.text());
    engine.steps(20);
    assert_eq!(streaming.events(&mut body, 6).await.last().map(String::as_str), Some("data: [DONE]"));
    assert_eq!(streaming.more(&mut body).await, Err(Ended::Whole));
}

#[tokio::test]
async fn a_lack_of_descriptors_is_counted_and_said_once() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(qwen(&[&engine])).await;
    gateway.limit_open_files(gateway.open_files() + 3);
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(Client::connect(gateway.address).await);
    }
    gateway.says("connections cannot be accepted").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(clients);
    eventually("connections to be accepted again", async || {
        let mut client = Client::connect(gateway.address).await;
        client.try_send(post(CHAT, chat("qwen"))).await.ok()?;
        (client.answer().await.status() == 200).then_some(())
    })
    .await;
    let refused = "penstock_connections_refused_total";
    assert!(gateway.metric(refused, &["reason=\"no_descriptor\""]).await >= 3.0);
    // Once for each of the two workers.
    assert!(gateway.said().matches("connections cannot be accepted").count() <= 2, "{}", gateway.said());
}

#[tokio::test]
async fn an_engine_on_localhost_is_found_where_it_listens() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start_without_manifests(&[format!("localhost:{}", engine.address.port())]).await;
    gateway.says("hostname: \"localhost\"").await;
    assert_eq!(ask(gateway.address, post(CHAT, chat("qwen"))).await.status(), 200);
}
