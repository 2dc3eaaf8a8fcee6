//! CPU time, to the nanosecond: the scheduler's own sum of each thread (/proc/PID/task/TID/schedstat).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Stat, processes, tree};

/// PF_KTHREAD of linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Whose time is told apart.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) proxies: Vec<u32>,
    pub(crate) engines: Vec<u32>,
    pub(crate) loads: Vec<u32>,
}

/// Seconds of CPU; of a moment since some start, or of a window.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) proxy: f64,
    pub(crate) engine: f64,
    pub(crate) load: f64,
    /// Kernel threads that work for any process: ksoftirqd, kworkers.
    pub(crate) kernel: f64,
    /// Time that every core was not idle, by /proc/stat, less all of the above: the noise of others.
    pub(crate) others: f64,
}

/// Reads of a moment.
#[derive(Clone, Debug)]
pub(crate) struct Cpus {
    cpu: Cpu,
    /// Each thread for itself, for they come and go.
    kernel: BTreeMap<u32, f64>,
    busy: f64,
}

impl Cpus {
    pub(crate) fn read(watched: &Watched) -> Self {
        let of = |roots: &[u32]| roots.iter().flat_map(|root| tree(*root)).map(process_seconds).sum();
        let is_kernels = |pid: &u32| Stat::of(*pid).is_some_and(|stat| stat.flags & KERNEL_THREAD != 0);
        let kernel = processes().filter(is_kernels).map(|pid| (pid, process_seconds(pid))).collect();
        let (proxy, engine, load) = (of(&watched.proxies), of(&watched.engines), of(&watched.loads));
        let cpu = Cpu { proxy, engine, load, ..Cpu::default() };
        Self { cpu, kernel, busy: busy_seconds().unwrap_or(0.0) }
    }

    /// The time since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Cpu {
        let (to, from) = (&self.cpu, &earlier.cpu);
        let mut cpu = Cpu {
            proxy: to.proxy - from.proxy,
            engine: to.engine - from.engine,
            load: to.load - from.load,
            kernel: self.kernel.iter().map(|(pid, to)| to - earlier.kernel.get(pid).unwrap_or(&0.0)).sum(),
            others: 0.0,
        };
        let ours = cpu.proxy + cpu.engine + cpu.load + cpu.kernel;
        cpu.others = (self.busy - earlier.busy - ours).max(0.0);
        cpu
    }
}

fn process_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    tasks.filter_map(|task| thread_seconds(&task.path())).sum()
}

fn thread_seconds(task: &Path) -> Option<f64> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    let on_cpu_ns: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(on_cpu_ns / 1e9)
}

/// All but idle and iowait of the first line of /proc/stat.
fn busy_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let busy: f64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|field| ticks.get(*field)).sum();
    Some(busy / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_costs_and_an_absent_one_does_not() {
        let watched = Watched { proxies: vec![std::process::id()], engines: vec![u32::MAX], loads: vec![] };
        let before = Cpus::read(&watched);
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 50 {
            std::hint::spin_loop();
        }
        let cpu = Cpus::read(&watched).since(&before);
        assert!(cpu.proxy > 0.0);
        assert_eq!((cpu.engine, cpu.load), (0.0, 0.0));
    }
}
