//! hyper's builders, with every limit named: the crates' defaults are for trusted peers.

use std::future::Future;

use ::hyper::rt::Executor;
use ::hyper::server::conn::{http1, http2};

use super::MAX_HEAD_BYTES;

/// hyper reads a head into this buffer: larger than any head that the gate lets through. It also bounds what is
/// buffered of a response toward a slow reader.
const H1_BUFFER_BYTES: usize = 2 * MAX_HEAD_BYTES;
/// As Envoy Gateway has it.
const H2_STREAMS: u32 = 100;
/// Bytes in flight toward us on one stream: a few round trips of a fast upload.
const H2_STREAM_WINDOW: u32 = 256 << 10;
/// On the whole connection: what 100 slow streams can make us hold.
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes buffered of one response toward a slow reader.
const H2_SEND_BUFFER_BYTES: usize = 64 << 10;
/// Streams that were reset before we looked at them (rapid reset, CVE-2023-44487).
const H2_PENDING_RESETS: usize = 20;
/// Streams that we reset for the client's errors (CVE-2025-8671), over the life of a connection.
const H2_ERROR_RESETS: usize = 256;

/// Runs the streams of an HTTP/2 connection on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExec;

impl<F> Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// HTTP/1.1 as the gate expects it.
#[must_use]
pub fn hyper_http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The gate watches for a client that leaves. hyper would read for it, and have a new buffer of 8 KiB for each
        // request, because the head of the one in flight is in the old.
        .half_close(true)
        .keep_alive(true)
        .title_case_headers(false)
        // Each piece of a response goes out at once.
        .pipeline_flush(false)
        .max_buf_size(H1_BUFFER_BYTES)
        // The gate keeps this deadline.
        .header_read_timeout(None);
    builder
}

/// HTTP/2 with the limits of SEMANTICS.md; `executor` runs its streams.
#[must_use]
pub fn hyper_http2_builder<E: Clone>(executor: E) -> http2::Builder<E> {
    let mut builder = http2::Builder::new(executor);
    builder
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_local_error_reset_streams(H2_ERROR_RESETS)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .adaptive_window(false)
        // What the gate's frame walk counts on.
        .max_frame_size(16 << 10)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        // A dead client is noticed by TCP, a silent one by the idle timeout.
        .keep_alive_interval(None);
    builder
}
