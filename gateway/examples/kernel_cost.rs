//! What the accounting costs: connections per second with the programs on and off, and the time of one read.
//!
//! `cargo run --release --example kernel_cost`, as root. Prints one line for each figure.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use penstock::kernel::account::{Account, Place};
use penstock::kernel::diag::SockDiag;
use penstock::kernel::{Counts, own};

fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let found = Place::find().map_err(|e| anyhow!(e))?;
    let place =
        Place { pins: found.pins.with_file_name(format!("penstock-cost-{}", std::process::id())), ..found };

    for round in 0..3 {
        let off = connects(&listener, address)?;
        let mut account = Account::load(&place).map_err(|e| anyhow!(e))?;
        account.track(&[([127, 0, 0, 1], 1).into()])?;
        let unrelated = connects(&listener, address)?;
        account.track(&[address])?;
        let counted = connects(&listener, address)?;
        println!("{round}: ns per connection: off {off}, on {unrelated}, on and counted {counted}");
        let counted = exchanges(&listener, address)?;
        runs(&place, "account")?;
        drop(account);
        println!(
            "{round}: ns per request and answer: off {}, counted {counted}",
            exchanges(&listener, address)?
        );
    }

    let mut account = Account::load(&place).map_err(|e| anyhow!(e))?;
    account.track(&[address])?;
    let mut diag = SockDiag::open()?;
    diag.track(&[address])?;
    let mut kept = Vec::new();
    for sockets in [0, 100, 1000, 4000] {
        while kept.len() < sockets {
            kept.push((TcpStream::connect(address)?, listener.accept()?.0));
        }
        println!(
            "{sockets} connections: read by the programs {:?}, by sock_diag {:?}",
            read(&mut account)?,
            read(&mut diag)?
        );
    }
    runs(&place, "look")?;
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let sockets: Vec<_> = (0..1000).map(|_| socket()).collect::<Result<_, _>>()?;
    drop(diag);
    let again = Account::load(&place).map_err(|e| anyhow!(e))?;
    let started = Instant::now();
    for socket in &sockets {
        own::mark(socket);
    }
    println!("mark: {:?}", started.elapsed() / 1000);
    drop(again);
    for map in ["ENDPOINTS", "OWN", "ROWS", "SOCKETS", "AYA_LOGS"] {
        let data = aya::maps::MapData::from_pin(place.pins.join(map))?;
        println!("map {map}: {} bytes", of(data.fd().as_fd().as_raw_fd(), "memlock:")?);
    }
    Ok(())
}

fn connects(listener: &TcpListener, address: SocketAddr) -> Result<u128> {
    let (started, mut n) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(2) {
        let client = TcpStream::connect(address)?;
        let engine = listener.accept()?.0;
        // No TIME_WAIT, or the ports run out.
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        drop((client, engine));
        n += 1;
    }
    Ok(started.elapsed().as_nanos() / n)
}

fn exchanges(listener: &TcpListener, address: SocketAddr) -> Result<u128> {
    let (mut client, mut engine) = (TcpStream::connect(address)?, listener.accept()?.0);
    client.set_nodelay(true)?;
    engine.set_nodelay(true)?;
    let (started, mut n) = (Instant::now(), 0);
    let mut buffer = [0; 200];
    while started.elapsed() < Duration::from_secs(1) {
        client.write_all(&buffer)?;
        engine.read_exact(&mut buffer)?;
        engine.write_all(&buffer)?;
        client.read_exact(&mut buffer)?;
        n += 1;
    }
    Ok(started.elapsed().as_nanos() / n)
}

/// How often a program ran and for how long; all zero unless `sysctl kernel.bpf_stats_enabled=1`.
fn runs(place: &Place, program: &str) -> Result<()> {
    let pinned = aya::programs::ProgramInfo::from_pin(place.pins.join(format!("program-{program}")))?;
    let fd = pinned.fd()?;
    let fd = fd.as_fd().as_raw_fd();
    println!("program {program}: {} ns in {} runs", of(fd, "run_time_ns:")?, of(fd, "run_cnt:")?);
    Ok(())
}

/// What the kernel says of a descriptor.
fn of(fd: i32, key: &str) -> Result<String> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    Ok(info.lines().find_map(|line| line.strip_prefix(key)).map_or("?", str::trim).to_owned())
}

fn read(source: &mut dyn Counts) -> Result<Duration> {
    let mut counts = Vec::new();
    source.read(&mut counts)?;
    let started = Instant::now();
    for _ in 0..20 {
        source.read(&mut counts)?;
    }
    Ok(started.elapsed() / 20)
}
