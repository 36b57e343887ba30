//! What the operating system says of a process, and of the disk.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// CPU time of a process, user and system.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux reports in hundredths of a second on every architecture it supports today.
    Duration::from_millis(ticks * 10)
}

/// Bytes that a process caused to be written to storage.
pub(crate) fn write_bytes(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

/// Resident memory of a process in MiB.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// Median of a 64 KiB append with fdatasync, in milliseconds: what decides which bar applies.
pub(crate) fn sync_ms(folder: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("sync")).unwrap();
    let block = vec![7; 64 * 1024];
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&block).unwrap();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[50].as_secs_f64() * 1000.0
}

/// CPU and written bytes of a server over the measured part of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) written: u64,
}

impl Usage {
    /// So far.
    pub(crate) fn of(pid: u32) -> Self {
        Self { cpu: cpu(pid), written: write_bytes(pid) }
    }

    /// Since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu - earlier.cpu, written: self.written - earlier.written }
    }
}

/// Refuses a folder whose syncs reach no disk: every durable figure measured there would be another one.
pub(crate) fn demand_disk(folder: &std::path::Path) {
    let folder = folder.canonicalize().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((std::path::Path::new(fields.next()?), fields.next()?))
    });
    // Of mounts on one place the last one is seen.
    let (place, kind) = holding
        .filter(|(place, _)| folder.starts_with(place))
        .max_by_key(|(place, _)| place.components().count())
        .expect("the root is mounted");
    assert!(
        !["tmpfs", "ramfs", "devtmpfs"].contains(&kind),
        "{} is {kind}, which is no disk: set TMPDIR to a folder on one",
        place.display()
    );
}
