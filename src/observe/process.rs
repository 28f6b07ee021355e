//! What the kernel says about this process.

use std::fs;
use std::time::Duration;

/// Linux reports times to user space in hundredths of a second on every architecture that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// Processor time, memory and descriptors of this process; zero where /proc can't be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Processor time, user and system together.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
}

impl Process {
    /// Reads /proc/self.
    pub fn read() -> Self {
        let text = |file| fs::read_to_string(file).unwrap_or_default();
        Self {
            cpu: cpu(&text("/proc/self/stat")),
            resident_bytes: resident(&text("/proc/self/status")),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        }
    }
}

/// Fields 14 and 15 of proc_pid_stat(5); the name in field 2 may hold blanks and brackets.
fn cpu(stat: &str) -> Duration {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u32 =
        fields.split_ascii_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process name with brackets would otherwise shift the fields and report nonsense.
    #[test]
    fn the_kernel_s_lines_are_read() {
        let stat = "7 (tide ) gate) S 1 7 7 0 -1 4194560 99 0 0 0 250 50 3 4 20 0 9 0 100 5000 300";
        assert_eq!(cpu(stat), Duration::from_secs(3));
        assert_eq!(cpu("garbage"), Duration::ZERO);
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\n"), 2 * 1024 * 1024);
        let own = Process::read();
        assert!(own.resident_bytes > 0 && own.open_fds > 0);
    }
}
