//! Asks engines which models they serve: for `/v1/models`, and for `--engine`.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Buf, BytesMut};
use http::Method;
use penstock_common::framing::Piece;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::endpoint::Address;
use crate::gate::answer;
use crate::kernel::own;

/// Connecting, asking and reading, together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer; a thousand LoRA adapters take a tenth of it.
const ANSWER_LIMIT: usize = 4 << 20;
/// Models taken from one engine.
const MODELS_LIMIT: usize = 10_000;
/// Bytes of a model's name, as the scanner bounds it.
const NAME_LIMIT: usize = 256;

#[derive(Deserialize)]
struct ModelList {
    data: Vec<ModelCard>,
}

#[derive(Deserialize)]
struct ModelCard {
    id: Box<str>,
}

/// The models that the engine at `address` says it serves.
///
/// # Errors
/// When it cannot be reached in five seconds, or its answer is not a model list.
pub async fn models(address: &Address) -> anyhow::Result<Vec<Box<str>>> {
    let body = timeout(TIMEOUT, get(address, "/v1/models")).await.context("no answer in time")??;
    let list: ModelList = serde_json::from_slice(&body).context("the answer is not a list of models")?;
    let names = list.data.into_iter().map(|card| card.id);
    Ok(names.filter(|name| !name.is_empty() && name.len() <= NAME_LIMIT).take(MODELS_LIMIT).collect())
}

async fn get(address: &Address, path: &str) -> anyhow::Result<Vec<u8>> {
    match address {
        Address::Tcp(tcp) => ask(own::connect(*tcp).await?, &address.to_string(), path).await,
        Address::Unix(unix) => ask(UnixStream::connect(unix).await?, "localhost", path).await,
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> anyhow::Result<Vec<u8>> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut inbox = BytesMut::new();
    let answer = loop {
        if let Some(answer) = answer::parse(&inbox, &Method::GET)? {
            inbox.advance(answer.len);
            if !answer.status.is_informational() {
                break answer;
            }
        } else if stream.read_buf(&mut inbox).await? == 0 {
            bail!("the connection closed before an answer");
        }
    };
    if !answer.status.is_success() {
        bail!("GET {path} was answered with {}", answer.status);
    }
    read_body(&mut stream, inbox, answer.framing).await
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    mut inbox: BytesMut,
    mut framing: penstock_common::framing::Framing,
) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while !framing.is_done() {
        if inbox.is_empty() && stream.read_buf(&mut inbox).await? == 0 {
            if !framing.end_of_input() {
                bail!("the answer was cut short");
            }
            break;
        }
        match framing.next(&inbox).map_err(|e| anyhow::anyhow!("the answer breaks its framing: {e}"))? {
            Piece::Body(n) => body.extend_from_slice(&inbox.split_to(n)),
            Piece::Framing(n) | Piece::Trailer(n) => inbox.advance(n),
            Piece::Done => break,
        }
        if body.len() > ANSWER_LIMIT {
            bail!("the answer is larger than {ANSWER_LIMIT} bytes");
        }
    }
    Ok(body)
}
