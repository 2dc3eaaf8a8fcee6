//! The process's own log: a bounded queue of lines to one thread that writes them to standard error. Whoever logs
//! never waits for who reads: where the queue is full, the line is dropped and counted.

pub mod journal;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 1_024;

/// The end that lines are written to.
#[derive(Clone, Debug)]
pub struct Log(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    /// An empty line only wakes the writer.
    lines: SyncSender<Box<[u8]>>,
    shared: Arc<Shared>,
    /// Closed by the writer when it has ended.
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Lines lost since the writer last said so.
    dropped: AtomicU64,
    stop: AtomicBool,
}

/// The other end: lines wait in the queue until it is started.
#[derive(Debug)]
pub struct Writer {
    inbox: Receiver<Box<[u8]>>,
    shared: Arc<Shared>,
    /// Dropped by the end.
    alive: Sender<()>,
}

impl Log {
    /// The queue, with no thread yet.
    #[must_use]
    pub fn new() -> (Self, Writer) {
        let (lines, inbox) = sync_channel(QUEUE_LINES);
        let (alive, ended) = channel();
        let shared = Arc::<Shared>::default();
        let writer = Writer { inbox, shared: shared.clone(), alive };
        (Self(Arc::new(Queue { lines, shared, ended: Mutex::new(ended) })), writer)
    }

    /// Writes what is queued and ends the writer. Returns false when that took longer than `patience`: then
    /// standard error is stuck, and who writes to it would be too.
    #[must_use]
    pub fn shutdown(&self, patience: Duration) -> bool {
        self.0.shared.stop.store(true, SeqCst);
        // A full queue needs no waking: its reader looks at the flag when it is empty.
        let _ = self.0.lines.try_send(Box::default());
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Writer {
    /// Starts writing to standard error, with what was queued before.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(self) -> io::Result<()> {
        self.start_to(io::stderr())
    }

    fn start_to(self, sink: impl Write + Send + 'static) -> io::Result<()> {
        let Self { inbox, shared, alive } = self;
        thread::Builder::new().name("log".into()).spawn(move || {
            write_all(&inbox, &shared, sink);
            drop(alive);
        })?;
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Log;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// The subscriber writes each line whole.
impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.lines.try_send(line.into()).is_err() {
            self.0.shared.dropped.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(inbox: &Receiver<Box<[u8]>>, shared: &Shared, mut sink: impl Write) {
    loop {
        let line = match inbox.try_recv() {
            Err(TryRecvError::Empty) if !shared.stop.load(SeqCst) => match inbox.recv() {
                Ok(line) => line,
                Err(_) => return,
            },
            Err(_) => return,
            Ok(line) => line,
        };
        // Standard error is where one would say that it cannot be written.
        let _ = sink.write_all(&line);
        let dropped = shared.dropped.swap(0, Relaxed);
        if dropped > 0 {
            let _ =
                writeln!(sink, "penstock: {dropped} lines of this log were dropped: it was read too slowly");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn every_line_is_written_before_the_end_also_those_from_before_the_start() {
        let (mut reader, sink) = io::pipe().unwrap();
        let (log, writer) = Log::new();
        let lines: Vec<String> = (0..100).map(|i| format!("line {i}\n")).collect();
        let (early, late) = lines.split_at(50);
        early.iter().for_each(|line| (&log).write_all(line.as_bytes()).unwrap());
        writer.start_to(sink).unwrap();
        late.iter().for_each(|line| (&log).write_all(line.as_bytes()).unwrap());
        assert!(log.shutdown(PATIENCE));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, lines.concat());
    }

    #[test]
    fn a_reader_that_reads_nothing_holds_nobody_up_and_is_told_what_it_missed() {
        let (mut reader, sink) = io::pipe().unwrap();
        let (log, writer) = Log::new();
        writer.start_to(sink).unwrap();
        // More than the pipe (64 KiB, pipe(7)) and the queue hold.
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        (0..2_000).for_each(|_| (&log).write_all(&line).unwrap());
        assert!(!log.shutdown(Duration::from_millis(20)));
        let text = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        assert!(log.shutdown(PATIENCE));
        let text = text.join().unwrap();
        let notices = text.lines().filter(|line| line.ends_with("read too slowly"));
        let dropped: Vec<usize> =
            notices.map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        let dropped: usize = dropped.iter().sum();
        assert!(dropped > 0);
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count() + dropped, 2_000);
    }
}
