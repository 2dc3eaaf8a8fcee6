//! Penstock as its users meet it: the built binary between real sockets.
//!
//! One program for all topics: it links once, and tests that wait do so side by side.

mod answers;
mod bodies;
mod cancel;
mod commands;
mod control;
mod drain;
mod early_routing;
mod endpoints;
mod engines;
mod first_steps;
mod foreign_load;
mod h2;
mod hung;
mod intercept;
mod models;
mod operators;
mod parked;
mod privileges;
mod reload;
mod retry;
mod routing;
mod slow_readers;
mod smuggling;
mod splicing;
mod stalls;
mod status_table;
mod steering;
mod supervisor;
mod takeover;
mod uploads;
mod zero_config;

use penstock_tests::engine::Engine;
use penstock_tests::gateway::Gateway;
use penstock_tests::manifests;

/// One engine of the pool `qwen` behind a gateway.
async fn one_engine() -> (Engine, Gateway) {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(manifests::qwen(&[&engine])).await;
    (engine, gateway)
}

/// Two engines of the pool `qwen` behind a gateway.
async fn two_engines() -> (Engine, Engine, Gateway) {
    let (a, b) = (Engine::start("qwen-a").await, Engine::start("qwen-b").await);
    let gateway = Gateway::start(manifests::qwen(&[&a, &b])).await;
    (a, b, gateway)
}

/// One engine of the pool `qwen` behind a gateway with further manifests.
async fn one_engine_with(more: &str) -> (Engine, Gateway) {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start(manifests::qwen(&[&engine]) + more).await;
    (engine, gateway)
}
