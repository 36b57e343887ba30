//! How much memory some work takes at its peak, as Linux counts it; 0 elsewhere.

/// Resident memory in KiB before the work. Forgets the peak so far.
pub(crate) struct Mark(f64);

pub(crate) fn mark() -> Mark {
    // 5: reset the peak of the resident set (proc(5), clear_refs).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    Mark(kibibytes("VmRSS:"))
}

pub(crate) fn peak_mib_since(mark: Mark) -> f64 {
    (kibibytes("VmHWM:") - mark.0).max(0.0) / 1024.0
}

fn kibibytes(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}
