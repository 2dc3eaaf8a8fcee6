//! What the control side owes its operators: reloads that hold, ports that move, ends that come.

use penstock_tests::client::{CHAT, ask, chat, post};
use penstock_tests::engine::Engine;
use penstock_tests::eventually;
use penstock_tests::gateway::{Gateway, command_after};
use penstock_tests::manifests::{model, qwen};
use rustix::process::Signal;

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
async fn workers_that_cannot_be_made_fail_the_start() {
    let run = ["run", "-f", "-", "--workers", "64", "--admin", "127.0.0.1:0"];
    // It fails before it binds the port.
    let manifests = qwen(&[]).replace("$PORT", "17999");
    let output = command_after("ulimit -n 40", &run, &manifests).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot start the workers"), "{said}");
}
