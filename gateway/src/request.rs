//! One request, from its head to the first byte of its answer. Read `exchange` from top to bottom: each step is a
//! module of its own, and the first one that refuses ends it.

mod engine;
mod head;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::admit::admit;
use crate::failure::{self, Failure, Reason};
use crate::gate::head::check_h2;
use crate::gate::io::Gate;
use crate::inspect::{self, Scan};
use crate::kernel::splice;
use crate::ledger::Entry;
use crate::relay::{self, Answer, Bounds, Heir, Relay};
use crate::route::filters::{self, Arrived};
use crate::route::models;
use crate::route::{Action, Asked, Forward, Host, Table};
use crate::scan::{JsonScanner, MultipartScanner, Scanner};
use crate::snapshot::ClientPolicy;
use crate::upload::{ClientBody, Sender, Upload, scan_failure};
use crate::worker::Worker;

/// The connection that a request came in on.
pub struct Client {
    pub worker: Rc<Worker>,
    pub gate: Gate<TcpStream>,
    pub peer: SocketAddr,
    /// The peer as an entry of X-Forwarded-For: written once for all of its requests.
    pub forwarded_for: HeaderValue,
    /// The address of the listening socket.
    pub local: SocketAddr,
    /// Whether the connection must end with a reset.
    pub reset: Cell<bool>,
    /// The connection as the kernel half knows it, once an answer wanted to be spliced to it; `None`: it cannot be.
    pub spliced: OnceCell<Option<splice::Client>>,
    /// Of the current answer, where it may go on without hyper.
    pub heir: RefCell<Heir>,
}

impl Client {
    fn splice(&self) -> Option<splice::Client> {
        let known = || {
            let splice = self.worker.shared.splice.as_ref()?;
            self.gate.with_socket(|socket| splice.client(socket))?.ok()
        };
        *self.spliced.get_or_init(known)
    }
}

impl Sender for Client {
    fn fault(&self) -> Option<Failure> {
        self.gate.fault()
    }

    fn is_gone(&self) -> bool {
        self.gate.is_gone()
    }
}

/// A client that does not take an answer of our own, a few hundred bytes, for so long is given up.
const OWN_STALL: Duration = Duration::from_secs(10);

/// What answers a request: the gateway's own bytes or an engine's.
enum Served {
    Own(Bytes),
    Engine(Box<Relay>),
}

/// The response's side of a request on its connection.
struct Downstream {
    client: Rc<Client>,
    version: Version,
}

impl relay::Downstream for Downstream {
    fn over(&self, cut: bool) {
        // What ends with its connection must not look whole.
        self.client.reset.set(cut && self.version == Version::HTTP_10);
        self.client.heir.take();
        self.client.gate.set_deadline(None);
        self.client.gate.answered();
    }

    fn is_ended(&self) -> bool {
        self.client.worker.is_ended()
    }
}

/// Tells the gate that a request is over that never got as far as a response.
struct Turn(Option<Rc<Client>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(client) = &self.0 {
            client.gate.answered();
        }
    }
}

/// Answers one request, whatever happens to it.
pub async fn serve(client: &Rc<Client>, request: Request<Incoming>) -> Response<Answer> {
    client.gate.opened();
    let mut turn = Turn(Some(client.clone()));
    let (mut parts, body) = request.into_parts();
    let body = match client.gate.take_body() {
        Some(body) => {
            // hyper was told that there is none. Not `insert`, which may let the map grow first.
            if let Some(length) = parts.headers.get_mut(CONTENT_LENGTH) {
                *length = body.bytes().into();
            }
            ClientBody::Declared(body)
        }
        None => ClientBody::Coming(body),
    };
    let (version, without_body) = (parts.version, parts.method == Method::HEAD);
    let tables = client.worker.shared.tables.load_full();
    let mut entry = open(client, &parts, tables.meter());
    let dialect = inspect::dialect(&parts);
    let request_id = head::request_id(&parts.headers);
    entry.request_id = request_id.to_str().unwrap_or_default().into();

    let mut bounds = Bounds { stall: ClientPolicy::default().stream_idle_timeout, deadline: None };
    let served = match tables.at(client.local) {
        None => {
            Err(Failure::new(Reason::NoRoute, "this port is no longer served; it was taken out by a reload"))
        }
        Some(table) => {
            // Pinned where they are made: awaiting them as they are, or in `select!`, copies them twice, and they are large.
            let mut exchange =
                pin!(exchange(client, &mut parts, body, &request_id, &mut entry, table, &mut bounds));
            let mut ended = pin!(client.worker.ended());
            poll_fn(|cx| match exchange.as_mut().poll(cx) {
                Poll::Pending => ended.as_mut().poll(cx).map(|()| Err(draining())),
                served => served,
            })
            .await
        }
    };
    let mut response = served.unwrap_or_else(|failure| {
        entry.fail(failure.reason);
        failure::respond(&failure, dialect).map(Served::Own)
    });
    head::describe(&mut response, &request_id);
    // The one goodbye of HTTP/1.1 that no request can cross; and how one answer to HTTP/1.0 ends.
    if version != Version::HTTP_2 && client.worker.is_succeeded()
        || version == Version::HTTP_10 && head::is_of_unknown_length(&response)
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        // To an answer of HTTP/1.1 hyper would add `keep-alive` where a client of HTTP/1.0 wants that.
        *response.version_mut() = version;
    }
    if without_body {
        head::without_body(&mut response);
    }
    entry.status = response.status().as_u16();
    // hyper writes the trailers that a head announces, and ends a connection after its last answer.
    let needs_hyper = version != Version::HTTP_11
        || response.headers().contains_key(CONNECTION)
        || response.headers().contains_key(TRAILER);
    turn.0 = None;
    let downstream = Rc::new(Downstream { client: client.clone(), version });
    response.map(|served| {
        let (mut answer, bounds) = match served {
            // What is over for the engine is not for the client: a refusal may take its time to be read.
            Served::Own(body) => {
                (Answer::own(body, entry, downstream), Bounds { stall: OWN_STALL, deadline: None })
            }
            Served::Engine(relay) => {
                let answer = Answer::engine(relay, entry, downstream);
                if !needs_hyper {
                    *client.heir.borrow_mut() = answer.heir();
                }
                (answer, bounds)
            }
        };
        match version {
            Version::HTTP_2 => answer.guard(bounds),
            _ => client.gate.set_deadline(bounds.deadline),
        }
        answer
    })
}

fn draining() -> Failure {
    Failure::new(Reason::Draining, "the gateway is shutting down")
}

/// Writes the entry of a request whose head the gate refused: it never became a request.
pub fn refuse_head(client: &Client, failure: &Failure) {
    let tables = client.worker.shared.tables.load();
    let mut entry = client.worker.shared.ledger.open(tables.meter());
    entry.client = Some(client.peer);
    entry.protocol = "HTTP/1.1";
    entry.fail(failure.reason);
}

fn open(client: &Client, parts: &Parts, meter: &Arc<crate::ledger::Meter>) -> Entry {
    let mut entry = client.worker.shared.ledger.open(meter);
    entry.client = Some(client.peer);
    entry.protocol = match parts.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    };
    entry.method = Some(parts.method.clone());
    entry.path = parts.uri.path().into();
    entry
}

/// The steps of a request.
async fn exchange(
    client: &Rc<Client>,
    parts: &mut Parts,
    body: ClientBody,
    request_id: &HeaderValue,
    entry: &mut Entry,
    table: &Table,
    bounds: &mut Bounds,
) -> Result<Response<Served>, Failure> {
    if parts.version == Version::HTTP_2 {
        check_h2(parts, !body.is_ended())?;
    }
    let facts = inspect::inspect(parts)?;
    let client_host = head::host(parts);
    inspect::strip_internal(&mut parts.headers);

    let host = Host::of(parts);
    let routes = table.listener(host)?;
    entry.set_meter(&routes.listener().meter);
    if let Some(answer) = models::answer(routes, parts) {
        return answer.map(|response| response.map(Served::Own));
    }

    let policy = &routes.listener().client;
    bounds.stall = policy.stream_idle_timeout;
    let scanner = scanner(facts.scan, parts)?;
    let upload = Upload::new(body, scanner, !facts.inference, &client.worker.shared.budget, client.clone());
    let upload = Rc::new(RefCell::new(upload));
    upload.borrow_mut().set_receive_timeout(policy.receive_timeout);
    upload.borrow_mut().set_limit(routes.body_limit())?;
    let read = poll_fn(|cx| upload.borrow_mut().poll_routable(cx, policy.buffer_limit)).await;
    entry.bytes_in = upload.borrow().received();
    read?;
    let model = upload.borrow().model().map(|model| Box::from(&*model.name));
    entry.model.clone_from(&model);
    if model.is_none() && facts.inference {
        return Err(Failure::new(
            Reason::ModelMissing,
            "the body has no \"model\"; name the model to be used",
        ));
    }

    let asked = Asked::of_host(host, parts, model.as_deref());
    let routed = routes.route(&asked)?;
    entry.route = Some(routed.matched.rule.clone());
    let forward = match routed.action {
        Action::Redirect(redirect) => {
            let arrived = Arrived { tls: false, port: client.local.port() };
            let mut response = filters::redirect(redirect, &routed.matched.path, &asked, arrived)?;
            filters::on_response(response.headers_mut(), &routed.matched.rule, None);
            return Ok(response.map(Served::Own));
        }
        Action::Forward(forward) => forward,
    };
    note_forward(entry, &forward);
    let traffic = &routed.matched.rule.traffic;
    upload.borrow_mut().set_limit(traffic.body_limit)?;
    admit(forward.pool, traffic)?;
    if let Some(target) = forward.rewrite {
        upload.borrow_mut().rewrite_model(target);
    }
    let head = head::Outgoing::new(
        client,
        parts,
        &client_host,
        request_id,
        model.as_deref(),
        routed.matched,
        &forward,
    )?;

    let deadline = traffic.request_timeout.map(|limit| Instant::from_std(entry.started()) + limit);
    let answer = pin!(engine::try_endpoints(client, &head, &upload, traffic, &forward, deadline, entry));
    let mut response = answer.await?;
    // Its try may have less time.
    bounds.deadline = response.body().deadline();
    head::edit_response(&mut response, routed.matched, &forward);
    Ok(response.map(Served::Engine))
}

/// The scanner that the head asks for.
fn scanner(scan: Scan, parts: &Parts) -> Result<Option<Scanner>, Failure> {
    Ok(match scan {
        Scan::None => None,
        Scan::Json { .. } => Some(Scanner::Json(JsonScanner::new())),
        Scan::Multipart { .. } => match parts.headers.get(CONTENT_TYPE) {
            None => None,
            Some(content_type) => {
                let scanner = MultipartScanner::new(content_type).map_err(scan_failure)?;
                Some(Scanner::Multipart(Box::new(scanner)))
            }
        },
    })
}

fn note_forward(entry: &mut Entry, forward: &Forward<'_>) {
    entry.pool = Some(forward.pool.clone());
    entry.target_model = forward.rewrite.map(Into::into);
    entry.set_meter(forward.model.map_or(&forward.pool.meter, |model| &model.meter));
}
