//! One gateway after another on the same sockets: nobody is refused, and nobody is reset.

use std::collections::HashSet;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use penstock_tests::client::{CHAT, Client, Ended, ask, chat, chat_stream, get, post};
use penstock_tests::engine::{Behaviour, Engine};
use penstock_tests::eventually;
use penstock_tests::gateway::{Gateway, may_load};
use penstock_tests::manifests::{gateway_at, model, qwen};
use penstock_tests::wire::Body;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::one_engine;

const MODELS: &str = "GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Clients that come again and again, until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    /// Some with a new connection for each request, some that keep theirs for as long as they may.
    pub(crate) fn on(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let once = (0..6).map(|_| tokio::spawn(asks_once_each(address, stop.clone())));
        let kept = (0..3).map(|_| tokio::spawn(keeps_asking(address, stop.clone())));
        Self { clients: once.chain(kept).collect(), stop }
    }

    /// How many requests were answered, which all of them were.
    pub(crate) async fn end(self) -> usize {
        self.stop.store(true, Relaxed);
        let mut answered = 0;
        for client in self.clients {
            answered += client.await.expect("every connection is accepted, and every request answered");
        }
        answered
    }
}

async fn asks_once_each(address: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !stop.load(Relaxed) {
        let answer = ask(address, MODELS).await;
        assert_eq!((answer.status(), answer.ended), (200, Ended::Whole));
        answered += 1;
    }
    answered
}

/// Leaves a connection only where the gateway says so with an answer: a close between two would be an error.
async fn keeps_asking(address: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    let mut client = Client::connect(address).await;
    while !stop.load(Relaxed) {
        client.send(post(CHAT, chat("qwen"))).await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.ended), (200, Ended::Whole), "{}", answer.text());
        answered += 1;
        if answer.head.field("connection") == Some("close") {
            client = Client::connect(address).await;
        }
    }
    answered
}

pub(crate) async fn stream(address: SocketAddr) -> (Client, Body) {
    let mut client = Client::connect(address).await;
    client.send(post(CHAT, chat_stream("qwen"))).await;
    let (_, mut body) = client.head().await;
    client.events(&mut body, 1).await;
    (client, body)
}

pub(crate) async fn assert_whole(streams: Vec<(Client, Body)>) {
    for (mut client, mut body) in streams {
        assert_eq!(client.events(&mut body, 6).await.last().map(String::as_str), Some("data: [DONE]"));
        assert_eq!(client.more(&mut body).await, Err(Ended::Whole));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_or_reset_over_three_hand_overs_with_other_numbers_of_workers() {
    let [quick, stepped] = ["qwen-a", "slow-a"].map(Engine::start);
    let (quick, stepped) = (quick.await, stepped.await);
    stepped.behave(Behaviour::Stepped);
    let slow = qwen(&[&stepped]).replace("qwen", "slow");
    let slow = slow.split_once("---\n").and_then(|(_, rest)| rest.split_once("---\n")).expect("a Gateway").1;
    let mut gateway = Gateway::start(qwen(&[&quick]) + slow).await;
    let load = Load::on(gateway.address);
    let mut streams = Vec::new();
    let mut before = Vec::new();
    for workers in ["3", "1", "2"] {
        sleep(Duration::from_millis(300)).await;
        for _ in 0..3 {
            let mut client = Client::connect(gateway.address).await;
            client.send(post(CHAT, chat_stream("slow"))).await;
            let (_, mut body) = client.head().await;
            client.events(&mut body, 1).await;
            streams.push((client, body));
        }
        let next = gateway.successor(&["--workers", workers]).ready().await;
        gateway.says("a successor serves").await;
        assert_eq!(get(next.address, "/v1/models").await.status(), 200);
        before.push(std::mem::replace(&mut gateway, next));
    }
    sleep(Duration::from_millis(300)).await;
    let answered = load.end().await;
    assert!(answered > 100, "{answered} answers");
    // Each of the three that went before still has its streams, and ends with them.
    for gateway in &before {
        assert!(gateway.threads().len() > 1);
    }
    stepped.steps(20 * streams.len());
    assert_whole(streams).await;
    for mut gateway in before {
        assert_eq!(gateway.exited().await.code(), Some(0), "{}", gateway.said());
    }
}

#[tokio::test]
async fn the_admin_port_goes_over_with_the_listeners() {
    let (engine, old) = one_engine().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (admin, stopped) = (old.admin, stop.clone());
    let probes = tokio::spawn(async move {
        let mut answered = 0;
        while !stopped.load(Relaxed) {
            assert_eq!(get(admin, "/healthz").await.status(), 200);
            answered += 1;
        }
        answered
    });
    engine.behave(Behaviour::Stepped);
    let streaming = stream(old.address).await;
    let new = old.successor(&[]).ready().await;
    assert_eq!(new.admin, old.admin);
    old.says("a successor serves").await;
    for _ in 0..20 {
        let ready = new.admin("/readyz").await;
        assert_eq!(
            (ready.status(), ready.json()["phase"].as_str()),
            (200, Some("ready")),
            "the old one never answers"
        );
    }
    stop.store(true, Relaxed);
    assert!(probes.await.expect("every probe is answered") > 0);
    engine.steps(20);
    assert_whole(vec![streaming]).await;
}

#[tokio::test]
async fn an_idle_kept_connection_is_served_once_more_and_told_to_go() {
    let (_engine, mut old) = one_engine().await;
    let mut kept = Client::connect(old.address).await;
    kept.send(post(CHAT, chat("qwen"))).await;
    assert_eq!(kept.answer().await.head.field("connection"), None);
    let mut silent = Client::connect(old.address).await;
    eventually("both to be accepted", async || {
        (old.metric("penstock_connections", &["client"]).await == 2.0).then_some(())
    })
    .await;
    let _new = old.successor(&[]).ready().await;
    old.says("a successor serves").await;
    for client in [&mut kept, &mut silent] {
        client.send(post(CHAT, chat("qwen"))).await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.head.field("connection")), (200, Some("close")));
        assert_eq!(client.closed().await.0, Ended::Cut);
    }
    assert_eq!(old.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_successor_that_fails_changes_nothing() {
    let (_engine, old) = one_engine().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let cannot = gateway_at(&["127.0.0.1"]).replace("port: $PORT", &format!("port: {port}"));
    let load = Load::on(old.address);
    // One before it asks, one after it has the sockets, one that cannot know where to listen.
    assert!(old.successor(&["--access-log", "/nowhere/log"]).fails().await.contains("/nowhere/log"));
    assert!(old.successor_on(&cannot, &[]).fails().await.contains("cannot listen on"));
    assert!(old.successor_on("kind: [unclosed", &[]).fails().await.contains("all.yaml"));
    old.says("this gateway goes on").await;
    assert!(load.end().await > 0);
    assert_eq!(old.admin("/readyz").await.status(), 200);
    // It can be taken over all the same.
    let new = old.successor(&[]).ready().await;
    assert_eq!(get(new.address, "/v1/models").await.status(), 200);
}

#[tokio::test]
async fn listeners_may_change_with_the_successor() {
    let engine = Engine::start("qwen-a").await;
    let listeners = |also: u16| {
        let also = format!("listeners: [{{name: also, protocol: HTTP, port: {also}}}, {{name: web,");
        qwen(&[&engine]).replace("listeners: [{name: web,", &also)
    };
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let (gone, fresh) = (free(), free());
    let old = Gateway::start(listeners(gone.port())).await;
    engine.behave(Behaviour::Stepped);
    let streams = vec![stream(gone).await, stream(old.address).await];
    let load = Load::on(old.address);
    let new = old.successor_on(&listeners(fresh.port()), &["--workers", "3"]).ready().await;
    old.says("a successor serves").await;
    eventually("the listener that is gone to refuse", async || {
        TcpStream::connect(gone).await.is_err().then_some(())
    })
    .await;
    assert_eq!(get(fresh, "/v1/models").await.status(), 200);
    engine.steps(1_000_000);
    assert!(load.end().await > 10);
    assert_whole(streams).await;
    assert_eq!(get(new.address, "/v1/models").await.status(), 200);
}

#[tokio::test]
async fn a_gateway_that_is_killed_before_it_gave_its_sockets_is_followed_by_a_plain_start() {
    let (_engine, old) = one_engine().await;
    old.signal(Signal::STOP);
    let new = old.successor(&[]);
    // It has asked, and waits for who cannot answer.
    sleep(Duration::from_millis(500)).await;
    old.signal(Signal::KILL);
    drop(old);
    let new = new.ready().await;
    assert_eq!(get(new.address, "/v1/models").await.status(), 200);
    let next = new.successor(&[]).ready().await;
    new.says("a successor serves").await;
    assert_eq!(get(next.address, "/v1/models").await.status(), 200);
}

/// A gateway that dies in the middle of a hand-over, played: real sockets, with clients in their queues.
#[tokio::test]
async fn what_waits_in_the_queues_is_served_though_the_old_one_dies_before_it_lets_go() {
    let (_engine, mut gateway) = one_engine().await;
    let place = gateway.place();
    let address = gateway.address;
    let start = gateway.successor(&[]);
    drop(start);
    gateway.signal(Signal::TERM);
    assert!(gateway.exited().await.success());
    assert!(!place.exists(), "an orderly exit leaves nothing behind");

    let old = UnixListener::bind(&place).expect("the place of the one that was");
    let sockets = [(); 2].map(|()| {
        let kind =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        kind.set_reuse_address(true).expect("SO_REUSEADDR");
        kind.set_reuse_port(true).expect("SO_REUSEPORT");
        kind.bind(&address.into()).expect("the port");
        kind.listen(1024).expect("listening");
        TcpListener::from(kind)
    });
    let mut queued = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(address).await;
        client.send(MODELS).await;
        queued.push(client);
    }
    let new = gateway.successor(&[]);
    let (mut successor, _) = old.accept().await.expect("it asks");
    let mut asked = [0; 20];
    successor.read_exact(&mut asked).await.expect("its greeting");
    assert_eq!(&asked, b"penstock takeover 1\n");
    for socket in &sockets {
        give(&successor, socket);
    }
    successor.write_all(b"A").await.expect("a word");
    let mut serves = String::new();
    BufReader::new(&mut successor).read_line(&mut serves).await.expect("its word");
    let served: HashSet<&str> = serves.trim_end().split(' ').skip(1).collect();
    assert!(served.contains(&*address.to_string()), "{serves}");
    drop((successor, sockets));
    let new = new.ready().await;
    for client in &mut queued {
        assert_eq!(client.answer().await.status(), 200);
    }
    new.says("the gateway before has ended").await;
    assert_eq!(get(address, "/v1/models").await.status(), 200);
}

fn give(successor: &UnixStream, socket: &TcpListener) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sockets)));
    sendmsg(successor, &[IoSlice::new(b"S")], &mut ancillary, SendFlags::empty())
        .expect("a socket to be sent");
}

#[tokio::test]
async fn who_only_asks_gets_no_client_and_the_place_is_for_this_user_alone() {
    let (_engine, old) = one_engine().await;
    let mode = std::fs::metadata(old.place()).expect("the place").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let folder =
        std::fs::metadata(old.place().parent().expect("a folder")).expect("its folder").permissions();
    assert_eq!(folder.mode() & 0o777, 0o700);
    for said in ["", "penstock takeover 9\n", "penstock takeover 1\nnonsense\n"] {
        let mut stream = UnixStream::connect(old.place()).await.expect("the place");
        stream.write_all(said.as_bytes()).await.expect("a word");
        stream.shutdown().await.expect("the end");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(answer.last(), Some(&b'N'), "{said:?}");
    }
    assert_eq!(get(old.address, "/v1/models").await.status(), 200);
    let new = old.successor(&[]).ready().await;
    assert_eq!(get(new.address, "/v1/models").await.status(), 200);
}

#[tokio::test]
async fn with_nobody_to_take_over_from_it_starts_as_usual() {
    let engine = Engine::start("qwen-a").await;
    let gateway = Gateway::start_with(qwen(&[&engine]), &["--takeover"]).await;
    gateway.says("nothing to take over").await;
    assert_eq!(get(gateway.address, "/v1/models").await.status(), 200);
}

#[tokio::test]
async fn a_gateway_goes_on_reloading_after_it_has_taken_over() {
    let (engine, old) = one_engine().await;
    let new = old.successor(&[]).ready().await;
    old.says("a successor serves").await;
    new.rewrite(&(qwen(&[&engine]) + &model("second", "qwen", &[])));
    new.signal(Signal::HUP);
    eventually("the reload", async || {
        (ask(new.address, post(CHAT, chat("second"))).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn counting_in_the_kernel_goes_on_over_a_hand_over() {
    if !may_load() {
        return eprintln!("NOT RUN: not (whole) root, and this test loads eBPF programs");
    }
    let engine = Engine::start("qwen-a").await;
    engine.behave(Behaviour::Stepped);
    let mut old = Gateway::start_counting(qwen(&[&engine])).await;
    let streaming = stream(old.address).await;
    let new = old.successor(&["--kernel", "account"]).ready().await;
    new.says("shared with another gateway").await;
    // What the one that leaves still streams is load of another's to the one that stays.
    let foreign = async |busy: f64| {
        let endpoint = engine.address.to_string();
        eventually("the streams of the old one", async || {
            let open = new.metric("penstock_endpoint_kernel_foreign_open", &[&endpoint]).await;
            (open == busy).then_some(())
        })
        .await;
    };
    foreign(1.0).await;
    engine.steps(20);
    assert_whole(vec![streaming]).await;
    assert_eq!(old.exited().await.code(), Some(0));
    foreign(0.0).await;
    let mut straight = Client::connect(engine.address).await;
    straight.send(post(CHAT, chat_stream("qwen"))).await;
    foreign(1.0).await;
}

#[tokio::test]
async fn a_socket_that_a_supervisor_passes_is_listened_on_by_every_worker() {
    let engine = Engine::start("qwen-a").await;
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (copy, address) = (socket.try_clone().expect("a copy"), socket.local_addr().expect("bound"));
    // A client that came before the gateway did.
    let mut early = Client::connect(address).await;
    early.send(MODELS).await;
    let mut gateway = Gateway::start_with_socket(qwen(&[&engine]), socket).await;
    assert_eq!(gateway.address, address);
    assert_eq!(early.answer().await.status(), 200);
    for _ in 0..20 {
        assert_eq!(get(address, "/v1/models").await.status(), 200);
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exited().await.code(), Some(0));
    // The supervisor's copy keeps who comes now, for the next gateway.
    let late = std::net::TcpStream::connect(address).expect("the queue of the socket");
    drop(copy);
    let closed = (&late).read(&mut [0]);
    assert!(closed.is_err() || closed.is_ok_and(|count| count == 0));
}

#[tokio::test]
async fn a_socket_that_a_supervisor_passes_may_be_the_admin_ports() {
    let engine = Engine::start("qwen-a").await;
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let copy = socket.try_clone().expect("a copy");
    let gateway = Gateway::start_with_admin_socket(qwen(&[&engine]), socket).await;
    assert_eq!(gateway.admin("/readyz").await.status(), 200);
    assert_eq!(gateway.admin, copy.local_addr().expect("bound"));
    // Written after the warnings of the start.
    gateway.signal(Signal::HUP);
    gateway.says("the manifests were read again").await;
    assert!(!gateway.said().contains("LISTEN_FDS"), "{}", gateway.said());
}
