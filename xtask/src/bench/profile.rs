//! `--profile CASE`: perf records Penstock's stacks in each window of the case, and one flame graph shows all of them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustc_demangle::demangle;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::ask::Pool;
use super::cases::{Case, Point};
use super::children::Engine;
use super::flame::Stacks;
use super::peers::{penstock, tail};
use super::rounds::UnderLoad;
use super::{Bench, folder};
use crate::child::spawn_on;

/// Not a divisor of any timer's rate.
const PER_SECOND: &str = "499";
/// By the unwind tables that each build has: frame pointers would make another program of it. So many bytes of stack are
/// kept for each sample; deeper calls lose their outermost frames.
const STACKS: &str = "dwarf,16384";

/// Before minutes go into a build.
pub(super) fn ensure_perf() -> Result<()> {
    let found = Command::new("perf").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(found.is_ok_and(|status| status.success()), "perf is missing: apt-get install linux-perf");
    Ok(())
}

pub(super) async fn run(bench: &Bench, case: &Case) -> Result<()> {
    let engines =
        [Engine::start(Pool::A, &bench.layout).await?, Engine::start(Pool::B, &bench.layout).await?];
    let mut stacks = Stacks::default();
    for point in (case.points)(&bench.scale) {
        eprint!("{}, {} … ", case.name, point.label);
        let recorded = recorded(bench, &engines, &point).await?;
        let samples = add(&mut stacks, &point.label, &recorded);
        eprintln!("{samples} samples");
    }
    let title = format!("penstock, cargo xtask bench --profile {}: {}", case.name, case.about);
    let svg = stacks.draw(&title).with_context(|| {
        format!(
            "perf saw no CPU time of Penstock in {} s: give more --seconds",
            bench.scale.window.as_secs_f64()
        )
    })?;
    let path = folder().join(format!("profile-{}.svg", case.name));
    std::fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    println!("Written to {}: open it in a browser, a click on a frame zooms.", path.display());
    Ok(())
}

/// What `perf script` tells of one window.
async fn recorded(bench: &Bench, engines: &[Engine; 2], point: &Point) -> Result<String> {
    let (file, said) = (bench.folder.join("perf.data"), bench.folder.join("perf.log"));
    let mut under_load = UnderLoad::start(bench, engines, point, &penstock::peer()).await?;
    let pid = under_load.running.pids().first().copied().context("penstock ended at once")?;
    under_load.load.begin().await?;
    let mut perf = Command::new("perf");
    // Cycles where the machine counts them, else its clock: perf chooses.
    perf.args(["record", "--quiet", "--freq", PER_SECOND, "--call-graph", STACKS, "--pid", &pid.to_string()]);
    perf.arg("--output").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    perf.stderr(std::fs::File::create(&said)?);
    let mut perf = spawn_on(perf, &bench.layout.load)?;
    under_load.load.end().await?;
    finish(&mut perf, &said).await?;
    under_load.stop().await?;
    let mut script = tokio::process::Command::new("perf");
    // Inlined calls would take an addr2line of the whole binary for each address: minutes.
    script.args(["script", "--no-inline", "--fields", "comm,ip,sym,dso", "--input"]).arg(&file);
    let output = script.kill_on_drop(true).output().await.context("cannot start `perf script`")?;
    ensure!(output.status.success(), "`perf script` failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// perf writes its file when it is interrupted.
async fn finish(perf: &mut Child, said: &Path) -> Result<()> {
    if let Some(pid) = perf.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        kill_process(pid, Signal::INT)?;
        perf.wait().await?;
        return Ok(());
    }
    bail!("perf could not record (as root it may, or with kernel.perf_event_paranoid at 1):\n{}", tail(said))
}

/// Samples are apart by an empty line: the thread's name, then its frames from the innermost out, each an address, a
/// symbol and in brackets the file that has it.
fn add(stacks: &mut Stacks, point: &str, script: &str) -> usize {
    let mut samples = 0;
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let mut frames: Vec<String> = lines.filter_map(frame).collect();
        if frames.is_empty() {
            continue;
        }
        frames.extend([thread.trim().to_owned(), point.to_owned()]);
        frames.reverse();
        stacks.add(&frames);
        samples += 1;
    }
    samples
}

fn frame(line: &str) -> Option<String> {
    let (_address, rest) = line.trim().split_once(' ')?;
    let (symbol, file) = rest.rsplit_once(" (").unwrap_or((rest, ""));
    let name = format!("{:#}", demangle(symbol.trim()));
    // As other flame graphs mark them.
    let kernel = if file.starts_with("[kernel") || file.ends_with(".ko)") { "_[k]" } else { "" };
    Some(name + kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_stacks_from_the_outermost_frame_in() {
        let script = "penstock-0 \n\
            \t    ffff81 tcp_sendmsg ([kernel.kallsyms])\n\
            \t    55d1 _ZN8penstock5relay4send17h0123456789abcdefE (/x/penstock)\n\
            \n\
            penstock-0 \n\
            \t    55d1 [unknown] (/x/penstock)\n\n";
        let mut stacks = Stacks::default();
        assert_eq!(add(&mut stacks, "64 KiB", script), 2);
        let svg = stacks.draw("t").unwrap();
        for name in ["64 KiB", "penstock-0", "penstock::relay::send", "tcp_sendmsg_[k]", "[unknown]"] {
            assert!(svg.contains(&format!("<title>{name}, ")), "{name} in {svg}");
        }
    }
}
