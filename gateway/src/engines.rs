//! No manifests yet: asks the engines named on the command line what they serve, and writes the manifests.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};

use crate::endpoint::Address;
use crate::probe;

/// Between two questions to an engine that is not up yet.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two lines that say what is waited for.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Waits until every engine has said which models it serves; returns the manifests that route to them.
///
/// # Errors
/// When an address cannot be read or resolved.
pub async fn manifests(engines: &[String], listen: SocketAddr) -> anyhow::Result<String> {
    let mut serving = Vec::new();
    for engine in engines {
        let address = lookup_host(engine)
            .await
            .with_context(|| format!("--engine {engine}: write it as HOST:PORT"))?
            .next()
            .with_context(|| format!("--engine {engine}: the name has no address"))?;
        serving.push((address, ask(engine, address).await));
    }
    Ok(write(&serving, listen))
}

async fn ask(engine: &str, address: SocketAddr) -> Vec<Box<str>> {
    let mut said: Option<Instant> = None;
    loop {
        let error = match probe::models(&Address::Tcp(address)).await {
            Ok(models) if !models.is_empty() => return models,
            Ok(_) => anyhow::anyhow!("it serves no model"),
            Err(e) => e,
        };
        if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            said = Some(Instant::now());
            tracing::warn!(%engine, error = format!("{error:#}"), "waiting for the engine to list its models");
        }
        sleep(AGAIN).await;
    }
}

fn write(serving: &[(SocketAddr, Vec<Box<str>>)], listen: SocketAddr) -> String {
    let mut pools: BTreeMap<&str, Vec<SocketAddr>> = BTreeMap::new();
    for (engine, models) in serving {
        for model in models {
            let engines = pools.entry(model).or_default();
            if !engines.contains(engine) {
                engines.push(*engine);
            }
        }
    }
    let mut yaml = gateway(listen);
    for (index, (engine, models)) in serving.iter().enumerate() {
        let labels = pools.keys().enumerate().filter(|(_, model)| models.iter().any(|m| &**m == **model));
        let labels = labels.fold(String::new(), |mut labels, (pool, _)| {
            let _ = write!(labels, "\n    penstock.dev/model-{pool}: \"true\"");
            labels
        });
        let _ = write!(
            yaml,
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata:\n  name: engine-{index}\n  \
             labels:{labels}\nspec:\n  endpoints:\n  - ip:\n      address: \"{}\"\n      port: {}\n",
            engine.ip(),
            engine.port(),
        );
    }
    for (index, model) in pools.keys().enumerate() {
        yaml.push_str(&pool(index, model));
    }
    yaml
}

fn gateway(listen: SocketAddr) -> String {
    let address = if listen.ip().is_unspecified() {
        String::new()
    } else {
        format!("  addresses:\n  - type: IPAddress\n    value: \"{}\"\n", listen.ip())
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata:\n  name: penstock\nspec:\n  \
         controllerName: penstock.dev/gateway-controller\n---\napiVersion: gateway.networking.k8s.io/v1\n\
         kind: Gateway\nmetadata:\n  name: penstock\nspec:\n  gatewayClassName: penstock\n{address}  listeners:\n  \
         - name: llm\n    protocol: HTTP\n    port: {}\n",
        listen.port()
    )
}

fn pool(index: usize, model: &str) -> String {
    // A JSON string is a YAML string, whatever the engine calls its model.
    let model = serde_json::Value::from(model);
    format!(
        "---\napiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferencePool\nmetadata:\n  \
         name: pool-{index}\nspec:\n  selector:\n    penstock.dev/model-{index}: \"true\"\n  targetPortNumber: 8000\n  \
         extensionRef:\n    name: built-in\n---\napiVersion: inference.networking.x-k8s.io/v1alpha2\n\
         kind: InferenceModel\nmetadata:\n  name: model-{index}\nspec:\n  modelName: {model}\n  poolRef:\n    \
         name: pool-{index}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_that_serve_the_same_model_share_its_pool() {
        let engine = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let serving = [
            (engine(8000), vec!["a".into(), "b \"quoted\"".into()]),
            (engine(8001), vec!["a".into()]),
        ];
        let yaml = write(&serving, ([127, 0, 0, 1], 8080).into());
        assert_eq!(yaml.matches("kind: InferencePool\nmetadata").count(), 2, "{yaml}");
        assert_eq!(yaml.matches("penstock.dev/model-0: \"true\"").count(), 3, "{yaml}");
        assert_eq!(yaml.matches("penstock.dev/model-1: \"true\"").count(), 2, "{yaml}");
        assert!(yaml.contains(r#"modelName: "b \"quoted\"""#), "{yaml}");
    }
}
