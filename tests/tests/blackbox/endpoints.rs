//! The ways to name an engine in manifests: each serves.

use std::time::Duration;

use penstock_tests::client::{CHAT, ask, chat, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests::{self, backend, gateway, model, pool};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};

/// A pool of the model `qwen` whose port is the engine's, and what names the engine.
async fn serves(engine: &Engine, endpoints: &str) {
    let port = format!("targetPortNumber: {}", engine.address.port());
    let pool = pool("qwen").replace("targetPortNumber: 8000", &port);
    let gateway = Gateway::start(gateway() + &pool + &model("qwen", "qwen", &[]) + endpoints).await;
    for _ in 0..3 {
        let answer = ask(gateway.address, post(CHAT, chat("qwen"))).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.content(), "I am qwen-a");
    }
    assert_eq!(engine.posts().len(), 3);
}

#[tokio::test]
async fn a_backend_may_be_a_unix_socket() {
    let engine = Engine::start("qwen-a").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("engine.sock");
    let door = UnixListener::bind(&path).expect("a unix socket");
    let address = engine.address;
    let doorkeeper = tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            tokio::spawn(async move {
                let mut inside = TcpStream::connect(address).await.expect("the engine");
                _ = copy_bidirectional(&mut client, &mut inside).await;
            });
        }
    });
    serves(&engine, &backend("qwen", &format!("{{unix: {{path: {}}}}}", path.display()))).await;
    doorkeeper.abort();
}

#[tokio::test]
async fn a_backend_may_be_a_host_name() {
    let engine = Engine::start("qwen-a").await;
    let port = engine.address.port();
    serves(&engine, &backend("qwen", &format!("{{fqdn: {{hostname: localhost, port: {port}}}}}"))).await;
}

#[tokio::test]
async fn the_endpoint_slices_of_a_service_are_read() {
    let engine = Engine::start("qwen-a").await;
    let port = engine.address.port();
    let slices = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: vllm}}
spec: {{selector: {{app: qwen}}, ports: [{{port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: vllm-x7k2p, labels: {{kubernetes.io/service-name: vllm}}}}
addressType: IPv4
endpoints:
- {{addresses: [127.0.0.1], conditions: {{ready: true}}}}
- {{addresses: [127.0.0.2], conditions: {{ready: false}}}}
ports: [{{port: {port}}}]
"
    );
    serves(&engine, &slices).await;
}

#[tokio::test]
async fn a_list_of_pods_is_read_as_kubectl_prints_it() {
    let engine = Engine::start("qwen-a").await;
    let pod = |name: &str, ip: &str, ready: &str| {
        format!(
            "- apiVersion: v1
  kind: Pod
  metadata: {{name: {name}, namespace: default, labels: {{app: qwen, pod-template-hash: x}}}}
  spec: {{containers: [{{name: vllm, image: vllm/vllm-openai}}]}}
  status:
    phase: Running
    podIP: {ip}
    conditions: [{{type: Ready, status: \"{ready}\"}}]
"
        )
    };
    let pods = pod("qwen-0", "127.0.0.1", "True") + &pod("qwen-1", "127.0.0.2", "False");
    serves(
        &engine,
        &format!("apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n{pods}"),
    )
    .await;
}

/// An engine that loads its model, or outlives it, refuses at once: idle and swift, it would get nearly every request.
#[tokio::test]
async fn an_engine_that_refuses_everything_does_not_draw_the_requests_of_its_peers() {
    for status in [500, 503] {
        let (refuses, serves) = (Engine::start("qwen-a").await, Engine::start("qwen-b").await);
        refuses.behave(Behaviour::Status(status));
        serves.behave(Behaviour::Slow(Duration::from_millis(20)));
        let gateway = Gateway::start(manifests::qwen(&[&refuses, &serves])).await;
        let client = || async {
            for _ in 0..25 {
                _ = ask(gateway.address, post(CHAT, chat("qwen"))).await;
            }
        };
        tokio::join!(client(), client(), client(), client());
        // Each client may have a request there when the third in a row fails.
        assert!(refuses.posts().len() <= 10, "{} of 100 got {status}", refuses.posts().len());
    }
}
