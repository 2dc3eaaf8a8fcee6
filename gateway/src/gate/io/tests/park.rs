use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

/// A client that was answered once, and whose connection has been parked since.
async fn parked(address: std::net::SocketAddr, seen: &Seen) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut client, "/a=").await;
    assert_eq!(seen.parked.get(), 0, "not while the client may have more to ask");
    until(|| seen.parked.get() == 1).await;
    client
}

#[test]
fn a_parked_connection_takes_the_next_requests() {
    with_server(LIMITS, async |address, seen| {
        let mut client = parked(address, &seen).await;
        let two = "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy".to_owned() + GET;
        client.write_all(two.as_bytes()).await.unwrap();
        let answers = read_until(&mut client, "/a=").await;
        assert!(answers.contains("/b=xy"), "{answers}");
        until(|| seen.parked.get() == 2).await;
        client.set_nodelay(true).unwrap();
        for byte in GET.bytes() {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        read_until(&mut client, "/a=").await;
        assert_eq!((seen.requests.get(), seen.closed.get()), (4, 0));
    });
}

#[test]
fn a_connection_is_not_parked_while_its_answer_is_read() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!((seen.requests.get(), seen.parked.get()), (1, 0));
    });
}

#[test]
fn a_parked_client_that_leaves_is_noticed() {
    for reset in [false, true] {
        with_server(LIMITS, async |address, seen| {
            let client = parked(address, &seen).await;
            if reset {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            until(|| seen.closed.get() == 1).await;
            assert_eq!(seen.requests.get(), 1);
        });
    }
}

#[test]
fn a_parked_connection_ends_with_its_idle_time() {
    let limits = GateLimits { idle_timeout: Duration::from_millis(1500), ..LIMITS };
    with_server(limits, async |address, seen| {
        let begun = std::time::Instant::now();
        let mut client = parked(address, &seen).await;
        assert_eq!(read_all(&mut client).await, "", "no 408 on an idle connection");
        assert!(begun.elapsed() >= limits.idle_timeout, "{:?}", begun.elapsed());
    });
}

#[test]
fn behind_a_park_heads_are_as_strict_and_as_quick_as_before() {
    let limits = GateLimits { head_timeout: Duration::from_millis(100), ..LIMITS };
    for (sent, reason) in [("GET /a HTTP/1.1\r\nHost: h\r\nX-", "head_slow"), ("\n", "head_invalid")] {
        with_server(limits, async |address, seen| {
            let mut client = parked(address, &seen).await;
            client.write_all(sent.as_bytes()).await.unwrap();
            let answer = read_all(&mut client).await;
            assert!(answer.contains(&format!("x-penstock-reason: {reason}")), "{sent:?}: {answer}");
            assert_eq!(seen.requests.get(), 1);
        });
    }
}
