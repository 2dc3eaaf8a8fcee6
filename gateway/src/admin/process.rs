//! What the kernel says of this process: proc(5).

use std::fs;

/// Ticks per second of the times in `/proc/self/stat`: fixed for user space on every architecture that Linux
/// runs Rust on (`USER_HZ`).
const USER_HZ: f64 = 100.0;

/// Figures of this process; `None` where `/proc` is not there.
#[derive(Debug, Default)]
pub(super) struct ProcessReading {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_descriptors: Option<usize>,
}

impl ProcessReading {
    pub(super) fn take() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds(&stat),
            resident_bytes: resident_bytes(&status),
            // One of them is the folder that is being read.
            open_descriptors: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|folder| folder.count().saturating_sub(1)),
        }
    }
}

/// Fields 14 and 15 of `stat`. The name in field 2 may hold spaces and parentheses, so counting starts behind it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / USER_HZ)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) R 1 (x) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a"), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let reading = ProcessReading::take();
        assert!(reading.cpu_seconds.is_some());
        assert!(reading.resident_bytes > Some(100_000));
        assert!(reading.open_descriptors > Some(2));
    }
}
