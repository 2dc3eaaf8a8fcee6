//! The access log: a bounded queue of records to one thread that formats and writes them. A worker never waits for
//! it: where the queue is full, the line is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::entry::Record;
use super::line;
use crate::kernel::privileges;

/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 16 << 10;
/// Bytes gathered at most before they are written.
const WRITE_AT: usize = 64 << 10;
/// The writer lets lines gather for so long: a worker that had to wake it for each line would spend more on that than on
/// all the rest of its logging. The queue has room for more than 800,000 lines a second.
const GATHER: Duration = Duration::from_millis(20);

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Off,
    Stdout,
    /// Appended to; made when it is not there.
    File(PathBuf),
}

impl From<&str> for Destination {
    /// `off`, `-` for standard output, or a path.
    fn from(text: &str) -> Self {
        match text {
            "off" => Self::Off,
            "-" => Self::Stdout,
            path => Self::File(path.into()),
        }
    }
}

/// The workers' end of the log.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    lines: SyncSender<Message>,
    shared: Arc<Shared>,
    /// Closed by the writer when it has ended.
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
enum Message {
    Line(Box<Record>),
    /// Something in [`Shared`] changed.
    Wake,
}

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    reopen: AtomicBool,
    stop: AtomicBool,
}

impl AccessLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not be started.
    pub fn open(destination: Destination) -> io::Result<Self> {
        let sink = match destination {
            Destination::Off => return Ok(Self::off()),
            Destination::Stdout => Sink::Stdout,
            Destination::File(path) => Sink::File(open_file(&path)?, path),
        };
        Self::start(sink, QUEUE_LINES)
    }

    /// Writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Lines lost since the start: the queue was full, or writing failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |queue| queue.shared.dropped.load(Relaxed))
    }

    /// Opens the file again by its path, as log rotation asks with SIGHUP.
    pub fn reopen(&self) {
        if let Some(queue) = &self.0 {
            queue.signal(&queue.shared.reopen);
        }
    }

    /// Writes what is queued and ends the writer; later lines are dropped. Returns false when that took longer
    /// than `patience`: then the destination is stuck, and its lines are lost.
    pub fn shutdown(&self, patience: Duration) -> bool {
        let Some(queue) = &self.0 else { return true };
        queue.signal(&queue.shared.stop);
        let ended = queue.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }

    /// Queues a line; `record` is called only where lines are kept.
    pub(super) fn write(&self, record: impl FnOnce() -> Record) {
        if let Some(queue) = &self.0
            && queue.lines.try_send(Message::Line(Box::new(record()))).is_err()
        {
            queue.shared.dropped.fetch_add(1, Relaxed);
        }
    }

    fn start(sink: Sink, queue_lines: usize) -> io::Result<Self> {
        let (sender, lines) = sync_channel(queue_lines);
        let (alive, ended) = channel();
        let shared = Arc::<Shared>::default();
        let writer =
            Writer { sink, lines, shared: shared.clone(), buffer: Vec::new(), buffered: 0, failing: false };
        thread::Builder::new().name("access-log".into()).spawn(move || {
            writer.run();
            drop(alive);
        })?;
        Ok(Self(Some(Arc::new(Queue { lines: sender, shared, ended: Mutex::new(ended) }))))
    }
}

impl Queue {
    fn signal(&self, flag: &AtomicBool) {
        flag.store(true, SeqCst);
        // A full queue needs no waking: its reader looks at the flags after every line.
        let _ = self.lines.try_send(Message::Wake);
    }
}

enum Sink {
    Stdout,
    File(File, PathBuf),
}

struct Writer {
    sink: Sink,
    lines: Receiver<Message>,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    /// Lines in `buffer`.
    buffered: u64,
    /// The last write failed: that has been said once.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        while let Some(message) = self.next() {
            if let Message::Line(record) = message {
                line::append(&mut self.buffer, &record);
                self.buffered += 1;
            }
            if self.buffer.len() >= WRITE_AT {
                self.flush();
            }
            if self.shared.reopen.swap(false, SeqCst) {
                self.flush();
                self.reopen();
            }
        }
        self.flush();
    }

    /// The next message; what is buffered is written before waiting for one. `None`: the end.
    fn next(&mut self) -> Option<Message> {
        loop {
            match self.lines.try_recv() {
                Ok(message) => return Some(message),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.shared.stop.load(SeqCst) => return None,
                // While lines keep coming, no worker has to wake this thread.
                Err(TryRecvError::Empty) if !self.buffer.is_empty() => {
                    self.flush();
                    thread::sleep(GATHER);
                }
                Err(TryRecvError::Empty) => {
                    let first = self.lines.recv().ok();
                    thread::sleep(GATHER);
                    return first;
                }
            }
        }
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = match &mut self.sink {
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&self.buffer).and_then(|()| stdout.flush())
            }
            Sink::File(file, _) => file.write_all(&self.buffer),
        };
        if let Err(error) = &written {
            self.shared.dropped.fetch_add(self.buffered, Relaxed);
            if !self.failing {
                tracing::warn!(%error, "access log: cannot write, lines are dropped until it works again");
            }
        }
        self.failing = written.is_err();
        self.buffer.clear();
        self.buffered = 0;
    }

    fn reopen(&mut self) {
        if let Sink::File(file, path) = &mut self.sink {
            match open_file(path) {
                Ok(new) => *file = new,
                Err(error) => tracing::warn!(%error, "cannot reopen it, writing goes on to the old file"),
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened
        .map_err(privileges::explained)
        .map_err(|error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::UNIX_EPOCH;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn write(log: &AccessLog, path: &str) {
        log.write(|| {
            let mut record = Record::new(UNIX_EPOCH);
            record.path = path.into();
            record
        });
    }

    fn paths(file: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["path"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_last_lines_are_written_at_shutdown_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let log = AccessLog::open(Destination::File(file.clone())).unwrap();
        let expected: Vec<_> = (0..1_000).map(|index| format!("/{index}")).collect();
        expected.iter().for_each(|path| write(&log, path));
        assert!(log.shutdown(PATIENCE));
        assert_eq!(paths(&file), expected);
        assert_eq!(log.dropped(), 0);
        write(&log, "/late");
        assert_eq!(log.dropped(), 1);
        assert!(log.shutdown(PATIENCE));
    }

    #[test]
    fn lines_appear_without_waiting_for_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let log = AccessLog::open(Destination::File(file.clone())).unwrap();
        write(&log, "/one");
        let deadline = std::time::Instant::now() + PATIENCE;
        while paths(&file).is_empty() && std::time::Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(paths(&file), ["/one"]);
    }

    #[test]
    fn a_rotated_file_is_left_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::open(Destination::File(file.clone())).unwrap();
        write(&log, "/before");
        while paths(&file).is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        std::fs::rename(&file, &rotated).unwrap();
        log.reopen();
        while !file.exists() {
            thread::sleep(Duration::from_millis(1));
        }
        write(&log, "/after");
        assert!(log.shutdown(PATIENCE));
        assert_eq!(paths(&rotated), ["/before"]);
        assert_eq!(paths(&file), ["/after"]);
    }

    /// A full pipe whose reader reads nothing.
    fn stuck() -> (AccessLog, io::PipeReader) {
        let (reader, mut writer) = io::pipe().unwrap();
        // The capacity of a pipe, pipe(7).
        writer.write_all(&[b'\n'; 64 << 10]).unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        (AccessLog::start(Sink::File(file, PathBuf::new()), 16).unwrap(), reader)
    }

    #[test]
    fn a_stuck_destination_drops_lines_and_holds_nobody_up() {
        let (log, mut reader) = stuck();
        let path = "/x".repeat(1_000);
        // More than buffer and queue can hold.
        (0..1_000).for_each(|_| write(&log, &path));
        let dropped = log.dropped();
        assert!(dropped > 0);
        assert!(!log.shutdown(Duration::from_millis(20)));
        // Once the reader reads, every line that was not dropped comes whole.
        let lines = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text.lines().filter(|line| line.ends_with('}')).count() as u64
        });
        assert!(log.shutdown(PATIENCE));
        drop(log);
        assert_eq!(lines.join().unwrap(), 1_000 - dropped);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (log, reader) = stuck();
        drop(reader);
        write(&log, "/broken-pipe");
        log.shutdown(PATIENCE);
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_named() {
        let error = AccessLog::open(Destination::from("/nowhere/at/all.log")).unwrap_err();
        assert!(error.to_string().starts_with("access log /nowhere/at/all.log: "), "{error}");
    }
}
