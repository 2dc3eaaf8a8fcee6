//! A client that sends any bytes and reads what comes back without being kind to it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::{Body, Framing, Head, Piece, head_end};
use crate::{DEADLINE, within, within_time};

/// How an answer or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As its framing says.
    Whole,
    /// By a FIN before that.
    Cut,
    /// By a RST before that.
    Reset,
}

/// A response, and how much of it there was.
#[derive(Clone, Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub ended: Ended,
}

impl Answer {
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.word(1).parse().unwrap_or(0)
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// When the body is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The reason word of a refusal.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.head.field("x-penstock-reason")
    }

    /// The status and the reason word, to compare with a row of the table.
    #[must_use]
    pub fn verdict(&self) -> (u16, Option<&str>) {
        (self.status(), self.reason())
    }

    /// The text that the engine put into a whole chat completion.
    #[must_use]
    pub fn content(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// # Panics
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap_or_else(|| panic!("nobody listens on {address}"))
    }

    /// `None` where nobody listens.
    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = within("a connection", TcpStream::connect(address)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self::on(stream))
    }

    #[must_use]
    pub fn on(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// # Panics
    /// When the bytes cannot be sent.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("sending");
    }

    /// Sends, as far as the other side takes it.
    ///
    /// # Errors
    /// When the connection is closed or reset.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("bytes to be taken", self.stream.write_all(bytes.as_ref())).await
    }

    /// Sends until the other side answers or leaves, as every client does that reads while it sends.
    pub async fn send_until_answered(&mut self, bytes: impl AsRef<[u8]>) {
        let mut rest = bytes.as_ref();
        let sending = async {
            while !rest.is_empty() {
                tokio::select! {
                    biased;
                    _ = self.stream.readable() => return,
                    _ = self.stream.writable() => match self.stream.try_write(rest) {
                        Ok(count) => rest = &rest[count..],
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    },
                }
            }
        };
        within("a request to be taken or answered", sending).await;
    }

    /// Sends so many bytes a second, in steps of a tenth, until all are sent or the other side answers or leaves.
    pub async fn send_slowly(&mut self, bytes: impl AsRef<[u8]>, per_second: usize) {
        for part in bytes.as_ref().chunks(per_second.div_ceil(10)) {
            if self.try_send(part).await.is_err() {
                return;
            }
            if timeout(Duration::from_millis(100), self.stream.readable()).await.is_ok() {
                return;
            }
        }
    }

    /// Sends one byte at a time, each in a segment of its own as far as the kernel lets us.
    pub async fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Reads one answer to its end. `method` says whether a body follows at all.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        self.answer_within(DEADLINE, method).await
    }

    /// Reads the answer to a POST or GET.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("POST").await
    }

    /// Reads one answer to its end, with a limit of the caller's.
    pub async fn answer_within(&mut self, limit: Duration, method: &str) -> Answer {
        within_time(limit, "an answer", async {
            let head = self.read_head().await;
            let mut answer = Answer { head, body: Vec::new(), trailers: Vec::new(), ended: Ended::Whole };
            let Some(mut body) = body_of(&answer.head, method) else { return answer };
            loop {
                match self.read_piece(&mut body).await {
                    Ok(Piece::Bytes(bytes)) => answer.body.extend(bytes),
                    Ok(Piece::End(trailers)) => {
                        answer.trailers = trailers;
                        return answer;
                    }
                    Err(ended) => {
                        answer.ended = ended;
                        return answer;
                    }
                }
            }
        })
        .await
    }

    /// Reads a head alone; its body is then read with [`Client::more`].
    pub async fn head(&mut self) -> (Head, Body) {
        within("the head of an answer", async {
            let head = self.read_head().await;
            let body = body_of(&head, "POST").expect("an answer with a body");
            (head, body)
        })
        .await
    }

    /// The next bytes of a body, whatever has come; `Err`: it ended.
    ///
    /// # Errors
    /// With how the body ended.
    pub async fn more(&mut self, body: &mut Body) -> Result<Vec<u8>, Ended> {
        match within("more of a body", self.read_piece(body)).await? {
            Piece::Bytes(bytes) => Ok(bytes),
            Piece::End(_) => Err(Ended::Whole),
        }
    }

    /// Reads a body to its end; how it ended.
    pub async fn rest(&mut self, body: &mut Body) -> Ended {
        loop {
            if let Err(ended) = self.more(body).await {
                return ended;
            }
        }
    }

    /// Reads the events of a stream until there are `count` in all.
    ///
    /// # Panics
    /// When the stream ends before.
    pub async fn events(&mut self, body: &mut Body, count: usize) -> Vec<String> {
        let mut text = String::new();
        while text.matches("\n\n").count() < count {
            let more = self.more(body).await.unwrap_or_else(|ended| panic!("{ended:?} after {text:?}"));
            text.push_str(&String::from_utf8_lossy(&more));
        }
        text.split_terminator("\n\n").map(str::to_owned).collect()
    }

    /// Waits until the other side closes; says how, and what came before.
    pub async fn closed(&mut self) -> (Ended, Vec<u8>) {
        within("the connection to be closed", async {
            loop {
                match self.fill().await {
                    Ok(()) => {}
                    Err(ended) => return (ended, std::mem::take(&mut self.buffer)),
                }
            }
        })
        .await
    }

    /// Waits for the first byte of an answer; false: the connection ended without one.
    pub async fn is_answered(&mut self) -> bool {
        !self.buffer.is_empty() || within("an answer or the end", self.fill()).await.is_ok()
    }

    /// Leaves with a RST, as a killed process with unread bytes does.
    pub fn reset(self) {
        _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    async fn read_head(&mut self) -> Head {
        loop {
            if let Some(end) = head_end(&self.buffer) {
                let raw: Vec<u8> = self.buffer.drain(..end).collect();
                return Head::parse(&raw);
            }
            if let Err(ended) = self.fill().await {
                let got = String::from_utf8_lossy(&self.buffer).into_owned();
                panic!("the connection ended ({ended:?}) before an answer's head: {got:?}");
            }
        }
    }

    async fn read_piece(&mut self, body: &mut Body) -> Result<Piece, Ended> {
        loop {
            match body.take(&mut self.buffer) {
                Ok(Some(piece)) => return Ok(piece),
                Ok(None) => {}
                Err(why) => panic!("an answer with bad framing: {why}"),
            }
            if let Err(ended) = self.fill().await {
                let whole = ended == Ended::Cut && body.may_end_here();
                return if whole { Ok(Piece::End(Vec::new())) } else { Err(ended) };
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Ended> {
        let mut bytes = vec![0; 64 * 1024];
        match self.stream.read(&mut bytes).await {
            Ok(0) => Err(Ended::Cut),
            Err(_) => Err(Ended::Reset),
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(())
            }
        }
    }
}

fn body_of(head: &Head, method: &str) -> Option<Body> {
    let status = head.word(1);
    if method == "HEAD" || status.starts_with('1') || status == "204" || status == "304" {
        return None;
    }
    let framing = match (head.field("transfer-encoding"), head.field("content-length")) {
        (Some("chunked"), None) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length.parse().expect("a Content-Length of digits")),
        (None, None) => Framing::UntilClose,
        both => panic!("an answer with the framing {both:?}"),
    };
    Some(Body::new(framing))
}

/// A POST of JSON with its Content-Length, as curl sends it.
#[must_use]
pub fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with(path, "", body)
}

/// [`post`] with further field lines, each ending in CRLF.
#[must_use]
pub fn post_with(path: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: penstock.test\r\nContent-Type: application/json\r\n{fields}\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The head of a chunked POST.
#[must_use]
pub fn chunked_head(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: penstock.test\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    )
}

/// One chunk of a body.
#[must_use]
pub fn chunk(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Where chat completions are asked for.
pub const CHAT: &str = "/v1/chat/completions";

/// A chat request for a model.
#[must_use]
pub fn chat(model: &str) -> String {
    format!(r#"{{"model": "{model}", "messages": [{{"role": "user", "content": "who are you?"}}]}}"#)
}

/// A chat request whose answer is streamed.
#[must_use]
pub fn chat_stream(model: &str) -> String {
    format!(
        r#"{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "who are you?"}}]}}"#
    )
}

/// Sends raw bytes on a connection of their own and reads the answer.
pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut client = Client::connect(address).await;
    client.send(request).await;
    client.answer().await
}

/// A GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: penstock.test\r\nConnection: close\r\n\r\n")).await
}
