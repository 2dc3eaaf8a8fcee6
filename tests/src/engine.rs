//! A fake engine: OpenAI-shaped, strict in what it takes, and able to misbehave on purpose.
//!
//! Written on raw sockets: an HTTP library would hide the very bytes that the tests are about. What it sees is
//! kept whole ([`Log`]); a head that a strict engine refuses fails the test when the engine is dropped.

mod answers;
mod behaviour;
mod ear;
mod log;
mod mouth;
mod strict;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

pub use behaviour::{Behaviour, Then, pattern};
pub use log::{Connection, Left, Log, Seen, State};

/// Lives until dropped; its port stays its own even while it refuses connections.
#[derive(Debug)]
pub struct Engine {
    pub name: String,
    pub address: SocketAddr,
    inner: Arc<Inner>,
    /// Replaced by [`Engine::refuse`] with a socket that holds the port and does not listen.
    port: Port,
    /// Violations are expected: the test sends past Penstock.
    lenient: bool,
}

#[derive(Debug)]
enum Port {
    Listening(JoinHandle<()>),
    Held(TcpSocket),
    Lost,
}

/// What an engine says and how fast.
#[derive(Clone, Debug)]
pub struct Persona {
    pub name: String,
    /// What `/v1/models` lists.
    pub model: String,
    /// The tokens of each answer.
    pub words: Vec<String>,
    /// Between the events of a stream.
    pub pace: Duration,
}

impl Persona {
    /// Answers "I am NAME", without a pause, and serves `qwen`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let words = ["I".to_owned(), " am".to_owned(), format!(" {name}")].to_vec();
        Self { name: name.to_owned(), model: "qwen".to_owned(), words, pace: Duration::ZERO }
    }
}

#[derive(Debug)]
struct Inner {
    name: String,
    model: String,
    words: Vec<String>,
    pace: Duration,
    log: Arc<Log>,
    behaviour: watch::Sender<Behaviour>,
    steps: Semaphore,
    /// Counts the deaths: each ends the connections that were open.
    deaths: watch::Sender<u64>,
}

impl Inner {
    fn behaviour(&self) -> Behaviour {
        self.behaviour.borrow().clone()
    }

    async fn stepped(&self) {
        self.steps.acquire().await.expect("never closed").forget();
    }
}

impl Engine {
    /// Starts on a free port of the loopback.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start(name: &str) -> Self {
        let any = ([127, 0, 0, 1], 0).into();
        Self::start_at(any, Persona::named(name)).await.expect("no free port on 127.0.0.1")
    }

    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start_at(address: SocketAddr, persona: Persona) -> io::Result<Self> {
        let listener = bind(address)?.listen(1024)?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            name: persona.name.clone(),
            model: persona.model,
            words: persona.words,
            pace: persona.pace,
            log: Arc::default(),
            behaviour: watch::Sender::default(),
            steps: Semaphore::new(0),
            deaths: watch::Sender::new(0),
        });
        let port = Port::Listening(tokio::spawn(accept(listener, inner.clone())));
        Ok(Self { name: persona.name, address, inner, port, lenient: false })
    }

    /// Changes how the requests that come from now on are treated.
    pub fn behave(&self, behaviour: Behaviour) {
        self.inner.behaviour.send_replace(behaviour);
    }

    /// Lets one more event of a [`Behaviour::Stepped`] stream go, or one [`Behaviour::Held`] answer.
    pub fn step(&self) {
        self.steps(1);
    }

    pub fn steps(&self, count: usize) {
        self.inner.steps.add_permits(count);
    }

    /// Refuses connections from now on; those that are open live on.
    ///
    /// # Panics
    /// When the port was lost to another process.
    pub async fn refuse(&mut self) {
        if let Port::Listening(task) = std::mem::replace(&mut self.port, Port::Lost) {
            task.abort();
            _ = task.await;
        }
        self.port = Port::Held(bind(self.address).expect("the port of a stopped engine"));
    }

    /// As if its process were killed: refuses, and resets what is open.
    pub async fn die(&mut self) {
        self.refuse().await;
        self.inner.deaths.send_modify(|deaths| *deaths += 1);
    }

    /// Listens again after [`Engine::refuse`] or [`Engine::die`].
    ///
    /// # Panics
    /// When the port was lost to another process.
    pub async fn restart(&mut self) {
        if let Port::Held(socket) = std::mem::replace(&mut self.port, Port::Lost) {
            let listener = socket.listen(1024).expect("the port of a stopped engine");
            self.port = Port::Listening(tokio::spawn(accept(listener, self.inner.clone())));
        }
    }

    /// What it saw, live.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// The POSTs that came so far, whole or not.
    #[must_use]
    pub fn posts(&self) -> Vec<Seen> {
        self.log().read(|state| state.posts().cloned().collect())
    }

    /// Waits for the POST number `index`, counted from 0, to be whole.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn post(&self, index: usize) -> Seen {
        let what = format!("whole POST {index} at engine {}", self.name);
        self.log().until(&what, |state| state.posts().nth(index).filter(|s| s.is_complete()).cloned()).await
    }

    /// Waits until the other side leaves the connection of the POST number `index`, counted from 0.
    ///
    /// # Panics
    /// When it is not left in time.
    pub async fn left(&self, index: usize) -> (Left, Instant) {
        let what = format!("the end of the connection of POST {index} at engine {}", self.name);
        self.log().until(&what, |state| state.left(state.posts().nth(index)?)).await
    }

    /// Waits for the first byte of the body of the POST number `index`, counted from 0.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn body_began(&self, index: usize) {
        let what = format!("the first bytes of POST {index} at engine {}", self.name);
        self.log().until(&what, |state| state.posts().nth(index)?.first_body_at).await;
    }

    /// Allows heads that a strict engine refuses.
    pub fn allow_violations(&mut self) {
        self.lenient = true;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Port::Listening(task) = &self.port {
            task.abort();
        }
        self.inner.deaths.send_modify(|deaths| *deaths += 1);
        let violations = self.log().read(|state| state.violations.clone());
        if !self.lenient && !std::thread::panicking() {
            assert!(
                violations.is_empty(),
                "engine {} was sent what it must refuse: {violations:?}",
                self.name
            );
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, engine: Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept().await {
        // Events leave as they are written.
        _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream, engine.clone()));
    }
}

async fn serve(stream: TcpStream, engine: Arc<Inner>) {
    let connection = engine.log.write(|state| {
        state.connections.push(Connection::default());
        state.connections.len() - 1
    });
    if matches!(engine.behaviour(), Behaviour::ResetsAtAccept) {
        _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return;
    }
    let (read, mut write) = stream.into_split();
    let (heard, hears) = mpsc::unbounded_channel();
    let ear = tokio::spawn(ear::listen(read, engine.log.clone(), connection, heard));
    let then = mouth::speak(&mut write, &engine, connection, hears).await;
    if then == Then::Reset {
        _ = SockRef::from(write.as_ref()).set_linger(Some(Duration::ZERO));
        // Dropping the half would say goodbye with a FIN first.
        write.forget();
    }
    ear.abort();
    _ = ear.await;
}

#[cfg(test)]
mod tests;
