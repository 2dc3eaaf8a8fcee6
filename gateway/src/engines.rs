//! No manifests yet: asks the engines named on the command line what they serve, and writes the manifests.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::config;
use crate::discovery;
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
    let mut asking = JoinSet::new();
    for (index, engine) in engines.iter().enumerate() {
        let engine =
            Engine::read(engine).with_context(|| format!("--engine {engine}: write it as HOST:PORT"))?;
        asking.spawn(async move { anyhow::Ok((index, ask(engine).await?)) });
    }
    let mut serving = Vec::new();
    while let Some(asked) = asking.join_next().await {
        serving.push(asked??);
    }
    serving.sort_by_key(|(index, _)| *index);
    let serving: Vec<_> = serving.into_iter().map(|(_, serving)| serving).collect();
    Ok(write(&serving, listen))
}

/// An engine as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Engine {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    /// Resolved again and again: first here, then by the Backend that names it.
    Name(String),
}

impl Engine {
    fn read(text: &str) -> anyhow::Result<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Ip(address.ip()), port: address.port() });
        }
        let (name, port) = text.rsplit_once(':').context("it has no port")?;
        let port = port.parse().with_context(|| format!("{port:?} is no port"))?;
        if name.is_empty() || name.contains([':', '/']) {
            bail!("{name:?} is no host");
        }
        Ok(Self { host: Host::Name(name.to_ascii_lowercase()), port })
    }

    async fn resolve(&self) -> anyhow::Result<Vec<IpAddr>> {
        match &self.host {
            Host::Ip(ip) => Ok(vec![*ip]),
            Host::Name(name) => {
                let resolved = discovery::resolve(name).await;
                resolved.with_context(|| format!("--engine {self}: the name cannot be resolved"))
            }
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Asks until the engine lists its models. Only a name that cannot be resolved at the first time is an error.
async fn ask(mut engine: Engine) -> anyhow::Result<(Engine, Vec<Box<str>>)> {
    let mut addresses = engine.resolve().await?;
    let mut said: Option<Instant> = None;
    loop {
        let error = match models(&addresses, engine.port).await {
            Ok((ip, models)) => {
                // A name that no manifest can spell, as with an underscore, stands for what it is now.
                if matches!(&engine.host, Host::Name(name) if !config::is_hostname(name)) {
                    engine.host = Host::Ip(ip);
                }
                return Ok((engine, models));
            }
            Err(e) => e,
        };
        if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            said = Some(Instant::now());
            tracing::warn!(%engine, error = format!("{error:#}"), "waiting for the engine to list its models");
        }
        sleep(AGAIN).await;
        addresses = engine.resolve().await.unwrap_or(addresses);
    }
}

/// What the first address says that says anything.
async fn models(addresses: &[IpAddr], port: u16) -> anyhow::Result<(IpAddr, Vec<Box<str>>)> {
    let mut error = anyhow::anyhow!("it has no address");
    for ip in addresses {
        error = match probe::models(&Address::Tcp(SocketAddr::new(*ip, port))).await {
            Ok(models) if !models.is_empty() => return Ok((*ip, models)),
            Ok(_) => anyhow::anyhow!("it serves no model"),
            Err(e) => e,
        };
    }
    Err(error)
}

fn write(serving: &[(Engine, Vec<Box<str>>)], listen: SocketAddr) -> String {
    let pools: BTreeSet<&str> = serving.iter().flat_map(|(_, models)| models).map(|model| &**model).collect();
    let mut yaml = gateway(listen);
    for (index, (engine, models)) in serving.iter().enumerate() {
        let labels = pools.iter().enumerate().filter(|(_, model)| models.iter().any(|m| &**m == **model));
        let labels = labels.fold(String::new(), |mut labels, (pool, _)| {
            let _ = write!(labels, "\n    penstock.dev/model-{pool}: \"true\"");
            labels
        });
        let (kind, key, host) = match &engine.host {
            Host::Ip(ip) => ("ip", "address", ip.to_string()),
            Host::Name(name) => ("fqdn", "hostname", name.clone()),
        };
        let _ = write!(
            yaml,
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata:\n  name: engine-{index}\n  \
             labels:{labels}\nspec:\n  endpoints:\n  - {kind}:\n      {key}: \"{host}\"\n      port: {}\n",
            engine.port,
        );
    }
    for (index, model) in pools.iter().enumerate() {
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

    fn engine(text: &str) -> Engine {
        Engine::read(text).unwrap()
    }

    #[test]
    fn engines_that_serve_the_same_model_share_its_pool() {
        let serving = [
            (engine("127.0.0.1:8000"), vec!["a".into(), "b \"quoted\"".into()]),
            (engine("gpu-1:8001"), vec!["a".into()]),
        ];
        let yaml = write(&serving, ([127, 0, 0, 1], 8080).into());
        assert_eq!(yaml.matches("kind: InferencePool\nmetadata").count(), 2, "{yaml}");
        assert_eq!(yaml.matches("penstock.dev/model-0: \"true\"").count(), 3, "{yaml}");
        assert_eq!(yaml.matches("penstock.dev/model-1: \"true\"").count(), 2, "{yaml}");
        assert!(yaml.contains(r#"modelName: "b \"quoted\"""#), "{yaml}");
        assert!(yaml.contains("- fqdn:\n      hostname: \"gpu-1\"\n      port: 8001\n"), "{yaml}");
    }

    #[test]
    fn an_engine_is_an_address_or_a_name_with_a_port() {
        let ip = |ip: &str| Host::Ip(ip.parse().unwrap());
        assert_eq!(engine("127.0.0.1:80"), Engine { host: ip("127.0.0.1"), port: 80 });
        assert_eq!(engine("[::1]:80"), Engine { host: ip("::1"), port: 80 });
        assert_eq!(engine("Localhost:80"), Engine { host: Host::Name("localhost".into()), port: 80 });
        for wrong in ["", "localhost", "127.0.0.1", ":80", "a:b", "a:99999", "::1:80", "http://a:80"] {
            assert!(Engine::read(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn all_engines_are_asked_at_once_and_localhost_is_where_ipv4_says() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::TcpListener;

        let a = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let b = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names: Vec<_> = [&a, &b].map(|l| format!("localhost:{}", l.local_addr().unwrap().port())).into();
        let answers = async {
            // Neither is answered before both have asked.
            for (mut stream, _) in [a.accept().await.unwrap(), b.accept().await.unwrap()] {
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                let body = r#"{"data": [{"id": "m"}]}"#;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let both = async { tokio::join!(manifests(&names, ([127, 0, 0, 1], 8080).into()), answers).0 };
        let yaml = tokio::time::timeout(Duration::from_secs(4), both).await.expect("asked at once").unwrap();
        assert_eq!(yaml.matches("hostname: \"localhost\"").count(), 2, "{yaml}");
    }
}
