//! The bench's own engine, a process of its own (`cargo xtask bench-engine`): reads requests on raw sockets, compares each
//! byte of their bodies with what the load says it sent, and answers as asked.

mod connection;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;

use super::answer::{Events, Json};
use super::ask::{Ask, Pool};
use super::body::Body;

/// Where an engine says what it counted.
pub(crate) const STATS_PATH: &str = "/bench/stats";
const BACKLOG: u32 = 8192;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose model it serves: a or b
    #[arg(long)]
    pool: String,
}

/// What an engine counted since its start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) connections: u64,
    /// Answered as asked, streams included.
    pub(crate) requests: u64,
    /// With other bytes than the load sent, or for another pool.
    pub(crate) wrong: u64,
    /// Of bodies.
    pub(crate) bytes: u64,
}

/// What one kind of request should look like, and its answer.
struct Expected {
    body: Body,
    json: Json,
    events: Events,
}

struct Engine {
    pool: Pool,
    expected: Mutex<HashMap<Ask, Arc<Expected>>>,
    connections: AtomicU64,
    requests: AtomicU64,
    wrong: AtomicU64,
    bytes: AtomicU64,
}

/// Serves until it is killed; its port is the first line of standard output.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let pool = Pool::BOTH.into_iter().find(|pool| pool.name() == arguments.pool);
    ensure!(pool.is_some(), "no pool {:?}", arguments.pool);
    let engine = Arc::new(Engine {
        pool: pool.unwrap_or(Pool::A),
        expected: Mutex::default(),
        connections: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(listen(engine))
}

async fn listen(engine: Arc<Engine>) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        engine.connections.fetch_add(1, Relaxed);
        tokio::spawn(connection::serve(stream, Arc::clone(&engine)));
    }
}

impl Engine {
    /// Rendered once for each kind of request.
    fn expected(&self, ask: &Ask) -> Result<Arc<Expected>> {
        let mut known = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expected) = known.get(ask) {
            return Ok(Arc::clone(expected));
        }
        let body = Body::of(ask)?;
        let json = Json::new(self.pool, &body);
        let expected = Arc::new(Expected { body, json, events: Events::new(self.pool) });
        known.insert(*ask, Arc::clone(&expected));
        Ok(expected)
    }

    fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
            wrong: self.wrong.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}
