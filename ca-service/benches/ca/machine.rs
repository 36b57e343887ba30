//! What the operating system says of a process, and what a sync of the disk costs.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// A sync that takes less, in milliseconds, is that of a fast disk.
pub(crate) const FAST_SYNC_MS: f64 = 0.5;

/// CPU time of a process, user and system.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux reports in hundredths of a second on every architecture it supports today.
    Duration::from_millis(ticks * 10)
}

/// Resident memory of a process in MiB.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Median of a 64 KiB append with fdatasync, in milliseconds: what decides which bounds apply.
pub(crate) fn sync_ms(folder: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("sync")).unwrap();
    let block = vec![7; 64 * 1024];
    let mut times: Vec<f64> = (0..101)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&block).unwrap();
            file.sync_data().unwrap();
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
