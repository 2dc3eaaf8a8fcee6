//! What a run of the program `splice` costs under paced streams, where cache misses rule.
//!
//! `cargo run --release --example splice_cost -- [STREAMS [GAP_US]]`, as root. 512 streams of an event each 40 ms unless told
//! otherwise. Other work on the machine is counted with a run that it interrupts: the quietest sixteenth says what one costs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use penstock::kernel::account::Place;
use penstock::kernel::splice::{Binding, Slot, Splice, Terms, now_ns};
use socket2::{Domain, Socket, Type};

/// Of all streams together.
const EVENTS: usize = 64_000;
const WINDOWS: usize = 16;
/// `BPF_PROG_TYPE_SK_MSG`.
const SK_MSG: u64 = 16;

fn main() -> Result<()> {
    let mut told = std::env::args().skip(1);
    let mut number = |usual: usize| told.next().map_or(Ok(usual), |n| n.parse());
    let (streams, gap_us) = (number(512)?, number(40_000)?);
    let splice = Splice::load(&Place::find().map_err(|e| anyhow!(e))?, 4096).map_err(|e| anyhow!(e))?;
    let mut all = (0..streams).map(|_| Stream::begin(&splice)).collect::<Result<Vec<_>>>()?;
    let payload =
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(150));
    let event = format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes();
    let rounds = EVENTS / streams;
    let clients: Vec<TcpStream> =
        all.iter().map(|stream| stream.client.try_clone()).collect::<Result<_, _>>()?;
    let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime)?;
    let program = Program::find()?;
    let before = program.runs()?;
    let windows = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&clients, event.len(), rounds));
        let windows =
            write(&splice, &program, &mut all, &event, rounds, Duration::from_micros(gap_us as u64));
        reader.join().map_err(|_| anyhow!("the reader panicked"))??;
        windows
    })?;
    let all_runs = program.runs()?.since(before);
    println!("{streams} streams: {} runs of {} ns, by windows {windows:?}", all_runs.count, all_runs.each());
    let spliced: u64 = all.iter().map(|stream| stream.slot.progress().events).sum();
    ensure!(spliced == (streams * rounds) as u64, "{spliced} of {} events were spliced", streams * rounds);
    Ok(())
}

/// A client and an engine whose events go to it.
struct Stream {
    client: TcpStream,
    engine: TcpStream,
    slot: Slot,
    _between: (TcpStream, TcpStream),
}

impl Stream {
    fn begin(splice: &Arc<Splice>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (client, front) = (TcpStream::connect(address)?, listener.accept()?.0);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let mut slot = splice.slot(&socket)?.context("no slot is free")?;
        socket.connect(&address.into())?;
        let engine = listener.accept()?.0;
        engine.set_nodelay(true)?;
        let end = Instant::now() + Duration::from_secs(1);
        while slot.binding() != Binding::Bound {
            ensure!(Instant::now() < end, "the engine's end was not found");
        }
        let known = splice.client(&front)?;
        let terms = Terms { client: known, taken: 0, budget: u64::MAX, since_ns: now_ns() };
        slot.arm(&front, &terms)?;
        Ok(Self { client, engine, slot, _between: (front, socket.into()) })
    }
}

fn read(clients: &[TcpStream], length: usize, rounds: usize) -> Result<()> {
    let mut buffer = vec![0; length];
    for _ in 0..rounds {
        for mut client in clients {
            client.read_exact(&mut buffer)?;
        }
    }
    Ok(())
}

/// Nanoseconds of a run, window by window, the quietest first.
fn write(
    splice: &Splice,
    program: &Program,
    streams: &mut [Stream],
    event: &[u8],
    rounds: usize,
    gap: Duration,
) -> Result<Vec<u64>> {
    let begun = Instant::now();
    let count = streams.len() as u32;
    let (mut windows, mut last) = (Vec::new(), program.runs()?);
    for round in 0..rounds {
        splice.beat();
        if round > 0 && round % (rounds / WINDOWS).max(1) == 0 {
            let now = program.runs()?;
            windows.push(now.since(last).each());
            last = now;
        }
        for (n, stream) in (0..count).zip(streams.iter_mut()) {
            let at = gap * round as u32 + gap * n / count;
            std::thread::sleep(at.saturating_sub(begun.elapsed()));
            stream.engine.write_all(event)?;
        }
    }
    windows.sort_unstable();
    Ok(windows)
}

/// The program, as this process holds it: other gateways of the host have their own.
struct Program(PathBuf);

impl Program {
    fn find() -> Result<Self> {
        for entry in std::fs::read_dir("/proc/self/fdinfo")? {
            let path = entry?.path();
            // The descriptor of the folder itself is gone by now.
            let info = std::fs::read_to_string(&path).unwrap_or_default();
            if number(&info, "prog_type:").is_ok_and(|kind| kind == SK_MSG) {
                return Ok(Self(path));
            }
        }
        Err(anyhow!("no program of the type sk_msg is loaded"))
    }

    fn runs(&self) -> Result<Runs> {
        let info = std::fs::read_to_string(&self.0)?;
        Ok(Runs { count: number(&info, "run_cnt:")?, time_ns: number(&info, "run_time_ns:")? })
    }
}

fn number(info: &str, name: &str) -> Result<u64> {
    let found = info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.with_context(|| format!("the kernel does not say {name}"))
}

/// How often it ran and how long that took.
#[derive(Clone, Copy)]
struct Runs {
    count: u64,
    time_ns: u64,
}

impl Runs {
    fn since(self, before: Self) -> Self {
        Self { count: self.count - before.count, time_ns: self.time_ns - before.time_ns }
    }

    fn each(self) -> u64 {
        self.time_ns / self.count.max(1)
    }
}
