//! Which connections are the gateway's own, so that they can be taken out of what others do.
//!
//! A socket is marked between its creation and its connect. With the programs loaded the mark is an entry in
//! socket-local storage, which ends with the socket and needs no privilege; an SO_MARK would need CAP_NET_ADMIN, which is
//! dropped. Without them the socket's cookie is remembered until sock_diag no longer lists it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use penstock_common::account::Socket;
use tokio::net::{TcpSocket, TcpStream};

use super::sys;

/// Where marks go.
enum Book {
    /// Socket-local storage, and this gateway's number.
    Storage(OwnedFd, u8),
    Cookies(Mutex<HashMap<u64, Page>>),
}

/// What is known of an own socket.
struct Page {
    marked: Instant,
    listed: bool,
}

/// A connect may take this long before its socket is listed.
const UNLISTED: Duration = Duration::from_secs(120);

static BOOK: RwLock<Option<Book>> = RwLock::new(None);

/// Marks a socket that is not connected yet as the gateway's own; costs one system call.
///
/// Without a kernel half to tell it to, nothing happens. A mark that fails makes the connection count as foreign.
pub fn mark(socket: &impl AsFd) {
    let book = BOOK.read().unwrap_or_else(PoisonError::into_inner);
    let outcome = match book.as_ref() {
        None => Ok(()),
        Some(Book::Storage(map, owner)) => {
            let value = Socket { owner: *owner, ..Socket::default() };
            sys::store(map.as_fd(), socket.as_fd(), &value)
        }
        Some(Book::Cookies(pages)) => sys::socket_option_u64(socket.as_fd(), libc::SO_COOKIE).map(|cookie| {
            let page = Page { marked: Instant::now(), listed: false };
            pages.lock().unwrap_or_else(PoisonError::into_inner).insert(cookie, page);
        }),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection of ours cannot be marked and counts as foreign");
    }
}

/// A connection of the gateway's own.
///
/// # Errors
/// When it cannot be made.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    socket(address)?.connect(address).await
}

/// A socket of the gateway's own for an address, still to be connected.
///
/// # Errors
/// When descriptors have run out.
pub fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    mark(&socket);
    Ok(socket)
}

pub(super) fn into_storage(map: OwnedFd, owner: u8) {
    set(Some(Book::Storage(map, owner)));
}

pub(super) fn into_cookies() {
    set(Some(Book::Cookies(Mutex::default())));
}

pub(super) fn nowhere() {
    set(None);
}

/// Tells which of the listed cookies are our own, and forgets those that are gone.
pub(super) fn among(listed: impl Iterator<Item = u64>) -> Vec<u64> {
    let book = BOOK.read().unwrap_or_else(PoisonError::into_inner);
    let Some(Book::Cookies(pages)) = book.as_ref() else { return Vec::new() };
    let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
    let mut own = Vec::new();
    for cookie in listed {
        if pages.contains_key(&cookie) {
            own.push(cookie);
        }
    }
    let here: std::collections::HashSet<u64> = own.iter().copied().collect();
    pages.retain(|cookie, page| {
        let listed = here.contains(cookie);
        let keep = listed || (!page.listed && page.marked.elapsed() < UNLISTED);
        page.listed |= listed;
        keep
    });
    own
}

fn set(book: Option<Book>) {
    *BOOK.write().unwrap_or_else(PoisonError::into_inner) = book;
}
