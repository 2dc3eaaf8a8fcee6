//! A fake engine as a process: what `cargo xtask run` puts behind Penstock.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use penstock_tests::engine::{Engine, Persona};

/// Answers in the shape of the OpenAI API, names itself, and streams visibly.
#[derive(Parser)]
struct Arguments {
    /// What it calls itself in its answers.
    #[arg(long)]
    name: String,
    /// What it lists under /v1/models.
    #[arg(long)]
    model: String,
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Milliseconds between two events of a stream.
    #[arg(long, default_value_t = 120)]
    pace_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { name, model, port, address, pace_ms } = Arguments::parse();
    let text = format!("I am {name} , a fake engine that serves {model} . Each of these words is an event .");
    let words = text.split(' ').map(|word| format!("{word} ")).collect();
    let pace = Duration::from_millis(pace_ms);
    let persona = Persona { name: name.clone(), model, words, pace };
    let engine = Engine::start_at((address, port).into(), persona)
        .await
        .with_context(|| format!("engine {name} cannot listen on {address}:{port}"))?;
    eprintln!("engine {name} listens on {}", engine.address);
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}
