use penstock_common::framing::Framing;

use super::*;
use crate::gate::MAX_HEAD_BYTES as MAX_HEAD;
use crate::gate::head::tests::ACCEPTED;

const QUICK: GateLimits = GateLimits {
    head_timeout: Duration::from_millis(60),
    idle_timeout: Duration::from_millis(60),
    stall_timeout: Duration::from_secs(5),
};

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let requests = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\
            GET /b HTTP/1.1\r\nHost: h\r\n\r\n\
            POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nde\r\n0\r\nx: y\r\n\r\n\
            GET /d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        client.write_all(requests.as_bytes()).await.unwrap();
        let answers = read_all(&mut client).await;
        let at: Vec<_> = ["/a=abc", "/b=", "/c=de", "/d="].map(|body| answers.find(body)).into();
        assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{answers}");
        assert_eq!((count(&answers, "HTTP/1.1 200 OK"), seen.requests.get()), (4, 4));
    });
}

#[test]
fn requests_may_come_byte_by_byte() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let requests = "\r\nPOST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\n\r\n\
            \r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nde";
        for byte in requests.bytes() {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answers = read_all(&mut client).await;
        assert!(answers.contains("/a=abc") && answers.ends_with("/b=de"), "{answers}");
    });
}

#[test]
fn a_body_of_declared_length_passes_hyper_by_wherever_a_large_read_was_cut() {
    let released_in = |held: &str, behind: &str| {
        let mut turn = Turn { behind: Bytes::copy_from_slice(behind.as_bytes()), ..Turn::default() };
        let mut held = BytesMut::from(held);
        assert!(turn.release_head(&mut held).unwrap());
        let head = String::from_utf8_lossy(&held[..turn.released]).into_owned();
        let body =
            turn.body.map(|body| String::from_utf8_lossy(&[&body.0[..], &body.1].concat()).into_owned());
        (head, body, String::from_utf8_lossy(&held[turn.released..]).into_owned())
    };
    let released = |text: &str| {
        let whole = released_in(text, "");
        for (held, behind) in (0..text.len()).map(|at| text.split_at(at)) {
            assert_eq!(released_in(held, behind), whole);
        }
        whole
    };
    let head = |length| format!("POST / HTTP/1.1\r\nHost: h\r\ncontent-length: \t{length} \r\nA: 12\r\n\r\n");
    let body = "0123456789ab";
    let whole = released(&format!("{}{body}GET", head("12")));
    assert_eq!(whole, (head("00"), Some(body.into()), "GET".into()));
    for part in ["", "0", "0123456789a"] {
        let text = format!("{}{part}", head("12"));
        assert_eq!(released(&text), (head("00"), Some(part.into()), String::new()));
    }
    assert_eq!(released(&format!("{}GET", head("0"))), (head("0"), None, "GET".into()));
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n012";
    assert_eq!(released(chunked), (chunked.into(), None, String::new()));
}

#[test]
fn bytes_behind_a_body_are_the_next_request() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc{\"surplus\": 1}";
        client.write_all(request).await.unwrap();
        let answers = read_all(&mut client).await;
        assert!(answers.contains("/a=abcHTTP/1.1 400 Bad Request"), "{answers}");
        assert!(answers.contains("x-penstock-reason: head_invalid"), "{answers}");
        assert_eq!(seen.requests.get(), 1);
    });
}

#[test]
fn an_answer_is_whole_before_the_next_head_is_refused() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let requests =
            b"GET /large HTTP/1.1\r\nHost: h\r\n\r\nGET /v1/messages HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        client.write_all(requests).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answers = read_all(&mut client).await;
        let (_, rest) = answers.split_once("\r\n\r\n").unwrap();
        let (body, refusal) = rest.split_at(LARGE_BYTES);
        assert!(body.bytes().all(|byte| byte == b'x'));
        assert!(refusal.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{refusal}");
        assert!(refusal.contains(r#"{"type":"error""#), "in Anthropic's shape: {refusal}");
    });
}

#[test]
fn a_client_that_leaves_cancels_its_request_at_once() {
    let stuck = "POST /stuck HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let pipelined = stuck.repeat(2);
    for (how, request, reset) in
        [("FIN", stuck, false), ("RST", stuck, true), ("FIN behind a pipelined request", &pipelined, false)]
    {
        with_server(LIMITS, async |address, seen| {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            until(|| seen.requests.get() == 1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(seen.cancelled.get(), 0, "{how}");
            if reset {
                client.set_zero_linger().unwrap();
            }
            let left = std::time::Instant::now();
            drop(client);
            until(|| seen.cancelled.get() == 1).await;
            assert!(left.elapsed() < Duration::from_millis(50), "{how}: {:?}", left.elapsed());
            until(|| seen.closed.get() == 1).await;
            assert_eq!(seen.requests.get(), 1, "{how}");
        });
    }
}

#[test]
fn a_slow_head_gets_408_and_a_silent_client_nothing() {
    for (sent, dialect) in [
        ("GET /v1/messages HTTP/1.1\r\nHost: h\r\nX-", "\"type\":\"error\""),
        ("P", "invalid_request_error"),
        ("PRI * HTTP/2.0\r\n\r\nS", "invalid_request_error"),
    ] {
        with_server(QUICK, async |address, seen| {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            let answer = read_all(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{sent:?}: {answer}");
            assert!(answer.contains(dialect), "{sent:?}: {answer}");
            assert_eq!(seen.requests.get(), 0);
        });
    }
    with_server(QUICK, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(read_all(&mut client).await, "");
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.ends_with("/a="), "no 408 on an idle connection: {answer}");
    });
}

#[test]
fn dripping_bytes_do_not_stretch_the_time_of_a_head() {
    with_server(QUICK, async |address, _| {
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let begun = std::time::Instant::now();
        tokio::task::spawn_local(async move {
            for byte in "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ".bytes().chain(std::iter::repeat_n(b'x', 1000))
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
        });
        let mut answer = String::new();
        read.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("x-penstock-reason: head_slow"), "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}

#[test]
fn what_cannot_become_a_request_is_refused_at_once() {
    for sent in ["\x16\x03\x01\x02\x00", "GET /\r\n", "GET / HTTP/1.1\nHost", "GET / HTTP/3\r\n", "\r\n\r\n"]
    {
        with_server(LIMITS, async |address, _| {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            let begun = std::time::Instant::now();
            let answer = read_until(&mut client, "}}").await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{sent:?}: {answer}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{sent:?}");
        });
    }
}

#[test]
fn a_head_over_64_kib_gets_431() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = |n: usize| format!("GET /a HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(n - 33));
        client.write_all(head(MAX_HEAD).as_bytes()).await.unwrap();
        read_until(&mut client, "/a=").await;
        client.write_all(head(MAX_HEAD + 1).as_bytes()).await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    });
}

#[test]
fn a_body_that_breaks_its_framing_gets_400() {
    for body in ["5\r\nhelloX\r\n", "5\nhello", "zz\r\n", "0\r\n folded\r\n\r\n"] {
        with_server(LIMITS, async |address, _| {
            let mut client = TcpStream::connect(address).await.unwrap();
            let request = format!("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            client.write_all(request.as_bytes()).await.unwrap();
            let answer = read_all(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{body:?}: {answer}");
            assert!(answer.contains("body_invalid"), "{body:?}: {answer}");
        });
    }
}

#[test]
fn a_client_that_cuts_its_body_short_is_gone_and_not_at_fault() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
        client.shutdown().await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 499 "), "{answer}");
    });
}

#[test]
fn a_client_that_is_still_sending_reads_its_413() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let length = 10 << 20;
        let head = format!("POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..length >> 16 {
            client.write_all(&[b'x'; 1 << 16]).await.unwrap();
        }
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        drop(client);
        until(|| seen.closed.get() == 1).await;
    });
}

#[test]
fn a_body_that_an_answer_did_not_wait_for_ends_the_connection_unless_it_is_here() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let body = "x".repeat(40_000);
        let early = format!("POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        let late = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nde";
        client.write_all(format!("{early}{body}{late}").as_bytes()).await.unwrap();
        assert!(read_until(&mut client, "/a=de").await.starts_with("HTTP/1.1 413 "));
        client.write_all(format!("{early}{late}").as_bytes()).await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && !answer.contains("/a="), "{answer}");
        assert_eq!(seen.requests.get(), 3);
    });
}

#[test]
fn nobody_reads_the_body_of_another_message() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = |path| format!("POST /{path} HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\n\r\n");
        let (kept, stuck, body) = (head("kept"), head("stuck"), "x".repeat(40_000));
        client.write_all(format!("{kept}{body}{stuck}{body}").as_bytes()).await.unwrap();
        until(|| seen.requests.get() == 2).await;
        let mut kept = seen.kept.take().unwrap();
        assert!(poll_fn(|cx| kept.poll_chunk(cx)).await.unwrap().is_ok(), "what came with its head");
        assert!(poll_fn(|cx| kept.poll_chunk(cx)).await.unwrap().is_err());
    });
}

#[test]
fn pipelined_requests_of_any_size_are_told_apart() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let sizes = [0, 1, 5_000, 31_000, 33_000, 65_536, 0, 80_000, 90_000, 300_000, 2];
        let mut requests = String::new();
        for size in sizes {
            let (cookie, body) = ("c".repeat(size % 60_000), "x".repeat(size));
            let head = format!("POST /a HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\nContent-Length: {size}");
            requests += &format!("{head}\r\n\r\n{body}");
        }
        requests += "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let (mut reads, mut writes) = client.split();
        let mut answers = String::new();
        let (_, read) =
            tokio::join!(writes.write_all(requests.as_bytes()), reads.read_to_string(&mut answers));
        read.unwrap();
        let mut rest = &*answers;
        for size in sizes.into_iter().chain([0]) {
            let (_, behind) = rest.split_once("\r\n\r\n").unwrap();
            let (answer, next) = behind.split_at("/a=".len() + size);
            assert!(answer == format!("/a={}", "x".repeat(size)), "of {size}");
            rest = next;
        }
        assert_eq!(rest, "");
    });
}

#[test]
fn bytes_behind_a_large_body_stay_behind_it_however_they_come() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let body = "x".repeat(300_000);
        let first = format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let second = "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nde";
        client.write_all((first + second).as_bytes()).await.unwrap();
        let answers = read_all(&mut client).await;
        assert!(answers.contains(&format!("/a={body}HTTP/1.1 200 OK")) && answers.ends_with("/b=de"));
        assert_eq!(seen.requests.get(), 2);
    });
}

#[test]
fn a_client_that_leaves_within_a_large_body_is_gone() {
    with_server(LIMITS, async |address, seen| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n";
        client.write_all(&[&head[..], &[b'x'; 100_000]].concat()).await.unwrap();
        until(|| seen.requests.get() == 1).await;
        drop(client);
        until(|| seen.closed.get() == 1).await;
    });
}

#[test]
fn a_large_body_passes_whole() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let body = "0123456789abcdef".repeat(20_000);
        let chunks: String = body
            .as_bytes()
            .chunks(70_001)
            .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)))
            .collect();
        let head = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(format!("{head}{chunks}0\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_until(&mut client, "f").await;
        let mut got = answer.split_once("/a=").unwrap().1.to_owned();
        while got.len() < body.len() {
            got.push_str(&read_until(&mut client, "f").await);
        }
        assert!(got == body);
    });
}

#[test]
fn a_continue_is_sent_once_the_body_is_wanted() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head).await.unwrap();
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"abc").await.unwrap();
        read_until(&mut client, "/a=abc").await;
    });
}

#[test]
fn old_clients_and_h2c_offers_are_served() {
    with_server(LIMITS, async |address, _| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /a HTTP/1.0\r\n\r\n").await.unwrap();
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("/a="), "{answer}");

        let mut client = TcpStream::connect(address).await.unwrap();
        let offer = b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
        for _ in 0..2 {
            client.write_all(offer).await.unwrap();
            let answer = read_until(&mut client, "/a=").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    });
}

#[test]
fn hyper_takes_every_head_that_the_gate_lets_through() {
    for (name, head, framing) in ACCEPTED {
        with_server(LIMITS, async |address, seen| {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            let chunked = *framing == Framing::chunked();
            let body = if chunked { "3\r\nabc\r\n0\r\n\r\n" } else { "abcdefghijkl" };
            let mut left = *framing;
            let mut sent = 0;
            while !left.is_done() {
                use penstock_common::framing::Piece::*;
                if let Ok(Body(n) | Framing(n) | Trailer(n)) = left.next(&body.as_bytes()[sent..]) {
                    sent += n;
                }
            }
            client.write_all(&body.as_bytes()[..sent]).await.unwrap();
            let echoed = format!("={}", if chunked { "abc" } else { &body[..sent] });
            let answer = read_until(&mut client, &echoed).await;
            assert!(answer.contains(" 200 OK\r\n"), "{name}: {answer}");
            assert_eq!(seen.requests.get(), 1, "{name}");
        });
    }
}
