//! The commands that start nothing: check, explain, doctor.

use std::process::Output;

use penstock_tests::gateway::command;
use penstock_tests::manifests::{ack, backends, gateway, model, pool, route, rule};

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), b"\n", &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Manifests with a port, from standard input.
async fn penstock(arguments: &[&str], manifests: &str) -> (bool, String) {
    let output = command(&[arguments, &["-f", "-"]].concat(), &manifests.replace("$PORT", "8080")).await;
    (output.status.success(), said(&output))
}

fn whole() -> String {
    ack()
        + &backends("qwen", &[([127, 0, 0, 1], 9001).into()])
        + &backends("deepseek-r1", &[([127, 0, 0, 1], 9003).into()])
}

#[tokio::test]
async fn check_accepts_the_reference_manifests_and_shows_their_status() {
    let (fine, said) = penstock(&["check"], &whole()).await;
    assert!(fine, "{said}");
    for part in ["Accepted", "ResolvedRefs", "inference-gateway", "inference-route", "qwen-pool"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
}

#[tokio::test]
async fn check_names_file_line_and_field_of_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pool.yaml");
    std::fs::write(&path, "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata:\n  name: p\nspec:\n  selector: {app: x}\n  targetPortNumber: many\n").expect("writing");
    let output = command(&["check", "-f", path.to_str().expect("UTF-8")], "").await;
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("pool.yaml:7") && said.contains("targetPortNumber"), "{said}");
}

#[tokio::test]
async fn check_warns_of_unknown_fields_and_skips_other_kinds() {
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n---\n";
    let typo =
        whole().replace("  selector:\n    app: qwen\n", "  selector:\n    app: qwen\n  selektor: {}\n");
    let (_, said) = penstock(&["check"], &(typo + other)).await;
    assert!(said.contains("selektor"), "{said}");
    assert!(said.contains("ConfigMap"), "{said}");
}

#[tokio::test]
async fn check_shows_conflicts_and_unresolved_references() {
    let two = gateway()
        + &pool("qwen")
        + &model("qwen", "qwen", &[])
        + &model("qwen", "qwen", &[]).replacen("metadata: {name: qwen}", "metadata: {name: again}", 1);
    let (_, said) = penstock(&["check"], &two).await;
    assert!(said.contains("ModelNameInUse") || said.contains("twice") || said.contains("overrid"), "{said}");
    let dangling = gateway() + &route("r", &rule("qwen", &[("nowhere", 1)]));
    let (fine, said) = penstock(&["check"], &dangling).await;
    assert!(!fine && said.contains("nowhere"), "{said}");
}

#[tokio::test]
async fn explain_says_which_way_a_model_goes() {
    let (fine, said) = penstock(&["explain", "--model", "qwen"], &whole()).await;
    assert!(fine, "{said}");
    for part in ["inference-route", "qwen-pool", "127.0.0.1:9001"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert!(!said.contains("127.0.0.1:9003"), "{said}");
    let (fine, said) = penstock(&["explain", "--model", "gpt-9"], &whole()).await;
    assert!(!fine || said.contains("404"), "{said}");
}

#[tokio::test]
async fn nothing_to_read_is_an_error() {
    for name in ["check", "run"] {
        let output = command(&[name, "-f", "/no/such/folder"], "").await;
        assert!(!output.status.success());
        assert!(said(&output).contains("/no/such/folder"), "{}", said(&output));
    }
    let output = command(&["run"], "").await;
    assert!(!output.status.success());
}

#[tokio::test]
async fn doctor_says_what_the_host_allows() {
    let said = said(&command(&["doctor"], "").await);
    assert!(said.lines().count() > 3, "{said}");
}
