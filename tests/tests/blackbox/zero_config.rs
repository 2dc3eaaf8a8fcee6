//! No manifests yet: engines by address.

use std::net::SocketAddr;

use penstock_tests::client::{CHAT, ask, chat, get, post};
use penstock_tests::engine::{Engine, Persona};
use penstock_tests::eventually;
use penstock_tests::gateway::{Gateway, command};

async fn serving(name: &str, model: &str) -> Engine {
    let persona = Persona { model: model.to_owned(), ..Persona::named(name) };
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    Engine::start_at(any, persona).await.expect("a free port")
}

#[tokio::test]
async fn engines_are_asked_what_they_serve() {
    let (a, b) = (serving("a", "qwen").await, serving("b", "deepseek-r1").await);
    let gateway = Gateway::start_without_manifests(&[a.address, b.address]).await;
    for (model, text) in [("qwen", "I am a"), ("deepseek-r1", "I am b")] {
        eventually("the engine's models", async || {
            let answer = ask(gateway.address, post(CHAT, chat(model))).await;
            (answer.status() == 200).then(|| assert_eq!(answer.content(), text))
        })
        .await;
    }
    assert_eq!(ask(gateway.address, post(CHAT, chat("other"))).await.status(), 404);
    let models = get(gateway.address, "/v1/models").await.text();
    assert!(models.contains("qwen") && models.contains("deepseek-r1"), "{models}");
}

#[tokio::test]
async fn the_manifests_that_say_the_same_are_printed() {
    let engine = serving("a", "qwen").await;
    let gateway = Gateway::start_without_manifests(&[engine.address]).await;
    gateway.says("modelName:").await;
    let text = gateway.said();
    // Behind a comment line, up to the first line of the log.
    let yaml: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("apiVersion:"))
        .take_while(|line| {
            !line.starts_with(|c: char| c.is_ascii_digit()) && !line.starts_with("penstock ready")
        })
        .collect();
    let yaml = yaml.join("\n");
    assert!(yaml.contains("kind: InferencePool") && yaml.contains("kind: Backend"), "{yaml}");
    let check = command(&["check", "-f", "-"], &yaml).await;
    assert!(check.status.success(), "{yaml}\n{}", String::from_utf8_lossy(&check.stderr));
}
