//! Whether a peer serves: one request to each pool, asked again until it is answered as it should be.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::answer::Json;
use super::ask::{Ask, HEADER, POOL_HEADER};
use super::body::Body;
use super::http::Head;

const AGAIN_AFTER: Duration = Duration::from_millis(25);
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Waits for a right answer; the error is that of the last try.
pub(crate) async fn answers(peer: SocketAddr, ask: &Ask, within: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        let asked = timeout(ANSWERS_WITHIN, once(peer, ask)).await;
        match asked.context("no answer to the first request").and_then(|asked| asked) {
            Ok(()) => return Ok(()),
            Err(error) if begin.elapsed() > within => return Err(error),
            Err(_) => sleep(AGAIN_AFTER).await,
        }
    }
}

async fn once(peer: SocketAddr, ask: &Ask) -> Result<()> {
    let body = Body::of(ask)?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench.local\r\nContent-Type: application/json\r\n\
         {POOL_HEADER}: {}\r\n{HEADER}: {ask}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        ask.pool.name(),
        body.len()
    );
    let mut stream = TcpStream::connect(peer).await?;
    stream.write_all(request.as_bytes()).await?;
    stream.write_all(&body.render()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let Some(head) = Head::find(&answer)? else { bail!("{} bytes and no head", answer.len()) };
    let (mut rest, mut framing) = (answer.get(head.len()..).unwrap_or_default(), head.framing()?);
    let status = String::from_utf8_lossy(head.first_line()).into_owned();
    let mut payload = Vec::new();
    while !framing.done() && !rest.is_empty() {
        let piece = framing.take(rest)?;
        payload.extend_from_slice(piece.payload);
        rest = rest.get(piece.used..).unwrap_or_default();
    }
    ensure!(status.starts_with("HTTP/1.1 200"), "{status}: {}", String::from_utf8_lossy(&payload));
    Json::new(ask.pool, &body).read(&payload).map(drop)
}
