use ::hyper::client::conn::http2;
use http_body_util::{Empty, Full};

use super::*;

/// hyper's traits over tokio's, for the client.
struct ClientIo(TcpStream);

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut scratch = vec![0; out.remaining().min(64 << 10)];
        let mut buffer = tokio::io::ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        out.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn connect<B>(address: std::net::SocketAddr) -> http2::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let io = ClientIo(stream);
    let (sender, connection) = http2::handshake(LocalExec, io).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends raw frames behind the preface; the error code of the GOAWAY that comes last.
async fn goaway_of(address: std::net::SocketAddr, frames: Vec<u8>) -> Option<u32> {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    tokio::task::spawn_local(async move {
        let _ = write.write_all(&[&PREFACE[..], &frame(4, 0, 0, &[]), &frames].concat()).await;
        // Kept open: the server is to close.
        std::future::pending::<()>().await;
    });
    let mut all = Vec::new();
    let _ = read.read_to_end(&mut all).await;
    let mut rest = &all[..];
    let mut code = None;
    while let [l0, l1, l2, kind, _, _, _, _, _, behind @ ..] = rest {
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        if *kind == 7 {
            code = Some(u32::from_be_bytes(behind[4..8].try_into().unwrap()));
        }
        rest = behind.get(length..)?;
    }
    code
}

#[test]
fn prior_knowledge_is_served_beside_http_1_1() {
    with_server(LIMITS, async |address, _| {
        let mut sender = connect(address).await;
        for n in 0..300 {
            let request =
                Request::post(format!("http://h/{n}")).body(Full::new(Bytes::from_static(b"abc"))).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, format!("/{n}=abc").as_bytes());
        }
    });
}

#[test]
fn many_requests_at_once_and_long_streams_are_no_flood() {
    with_server(LIMITS, async |address, seen| {
        let sender = connect(address).await;
        let mut tasks = Vec::new();
        for n in 0..2000 {
            let mut sender = sender.clone();
            let path = if n < 4 { "/tokens" } else { "/x" };
            tasks.push(tokio::task::spawn_local(async move {
                let request = Request::get(format!("http://h{path}")).body(Empty::new()).unwrap();
                sender
                    .send_request(request)
                    .await
                    .unwrap()
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .len()
            }));
        }
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), if n < 4 { TOKENS * TOKEN_BYTES } else { 3 });
        }
        assert_eq!(seen.requests.get(), 2000);
    });
}

#[test]
fn a_cancelled_stream_cancels_its_request() {
    with_server(LIMITS, async |address, seen| {
        let mut sender = connect::<Empty<Bytes>>(address).await;
        let request = Request::get("http://h/stuck").body(Empty::new()).unwrap();
        let response = sender.send_request(request);
        let waiting = tokio::task::spawn_local(response);
        until(|| seen.requests.get() == 1).await;
        waiting.abort();
        until(|| seen.cancelled.get() == 1).await;
    });
}

#[test]
fn floods_are_closed_with_enhance_your_calm() {
    let headers = || frame(1, 0, 1, &[0x82]);
    for (name, frames, code) in [
        ("PING", frame(6, 0, 0, &[0; 8]).repeat(3000), 11),
        ("SETTINGS", frame(4, 0, 0, &[]).repeat(3000), 11),
        ("PRIORITY", frame(2, 0, 1, &[0; 5]).repeat(3000), 11),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(3000), 11),
        ("unknown frames", frame(99, 0, 0, &[]).repeat(3000), 11),
        ("CONTINUATION", [headers(), frame(9, 0, 1, &[]).repeat(9)].concat(), 11),
        ("header block", [headers(), frame(9, 0, 1, &[0; 16 << 10]).repeat(4)].concat(), 11),
        ("interleaved", [headers(), frame(6, 0, 0, &[0; 8])].concat(), 1),
        ("stray CONTINUATION", frame(9, 4, 1, &[]), 1),
        ("large frame", frame(0, 0, 1, &[0; (16 << 10) + 1]), 6),
    ] {
        with_server(LIMITS, async |address, seen| {
            assert_eq!(goaway_of(address, frames).await, Some(code), "{name}");
            assert_eq!(seen.requests.get(), 0, "{name}");
        });
    }
}

#[test]
fn rapid_resets_are_bounded() {
    with_server(LIMITS, async |address, seen| {
        // GET http://h/stuck: three indexed fields, then :authority and :path as literals.
        let head = [&[0x82, 0x86][..], b"\x41\x01h", b"\x44\x06/stuck"].concat();
        let frames: Vec<u8> = (0..5000)
            .flat_map(|n| [frame(1, 5, 2 * n + 1, &head), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat())
            .collect();
        assert_eq!(goaway_of(address, frames).await, Some(11));
        assert!(seen.requests.get() <= 600, "{}", seen.requests.get());
        until(|| seen.cancelled.get() == seen.requests.get()).await;
    });
}

#[test]
fn an_idle_connection_ends_politely_and_half_a_frame_does_not() {
    let quick = GateLimits {
        head_timeout: Duration::from_millis(60),
        idle_timeout: Duration::from_millis(200),
        stall_timeout: Duration::from_secs(5),
    };
    with_server(quick, async |address, _| {
        assert_eq!(goaway_of(address, Vec::new()).await, Some(0));
        assert_eq!(goaway_of(address, vec![0, 0, 8, 6]).await, Some(11));
        assert_eq!(goaway_of(address, frame(1, 0, 1, &[0x82])).await, Some(11));
    });
    // A request in flight keeps its connection.
    with_server(quick, async |address, seen| {
        let mut sender = connect::<Empty<Bytes>>(address).await;
        let request = Request::get("http://h/stuck").body(Empty::new()).unwrap();
        let waiting = tokio::task::spawn_local(sender.send_request(request));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!waiting.is_finished());
        assert_eq!(seen.closed.get(), 0);
    });
}
