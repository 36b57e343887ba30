//! The promises: which figure must not fall short of, or exceed, what.

use std::collections::BTreeMap;

/// One promise.
pub(crate) struct Bound {
    /// The part of the bench that measures it.
    part: &'static str,
    pub(crate) figure: &'static str,
    limit: Limit,
    /// Applies where a sync takes at least, and less than, so many milliseconds.
    sync_ms: std::ops::Range<f64>,
}

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// Below this many milliseconds a sync counts as fast.
const FAST: f64 = 0.5;
/// Above this nothing that waits for a sync is promised.
const SLOW: f64 = 6.0;

/// Every promise of the log. Durable rates and latencies hold where syncs are fast.
pub(crate) fn promised() -> Vec<Bound> {
    use Limit::{AtLeast, AtMost};
    let anywhere = || 0.0..f64::INFINITY;
    let fast = || 0.0..FAST;
    [
        ("adds_per_s", AtLeast(60_000.0), fast(), "adds"),
        ("adds_per_s", AtLeast(20_000.0), FAST..SLOW, "adds"),
        ("add_cpu_us", AtMost(18.0), anywhere(), "adds"),
        ("bytes_written_per_entry_saturated", AtMost(1300.0), anywhere(), "adds"),
        ("dedup_cost_ratio", AtMost(1.10), anywhere(), "adds"),
        ("ack_p99_ms_at_500", AtMost(10.0), fast(), "at500"),
        ("publish_p99_ms_at_500", AtMost(100.0), fast(), "at500"),
        ("bytes_written_per_entry_at_500", AtMost(6000.0), anywhere(), "at500"),
        ("signing_adds_per_s", AtLeast(8_000.0), fast(), "signing"),
        ("tile_reads_per_s", AtLeast(60_000.0), anywhere(), "tiles"),
        ("witness_cosigns_per_s", AtLeast(2_000.0), fast(), "witness"),
        ("adds_ratio_to_tessera", AtLeast(2.5), anywhere(), "tessera"),
        ("cpu_ratio_to_tessera", AtMost(0.35), anywhere(), "tessera"),
        ("large_adds_ratio", AtLeast(0.9), anywhere(), "large"),
        ("large_restart_s", AtMost(2.0), anywhere(), "large"),
        ("large_resident_mib", AtMost(512.0), anywhere(), "large"),
    ]
    .into_iter()
    .map(|(figure, limit, sync_ms, part)| Bound { part, figure, limit, sync_ms })
    .collect()
}

impl Bound {
    fn holds(&self, value: f64) -> bool {
        match self.limit {
            Limit::AtLeast(limit) => value >= limit,
            Limit::AtMost(limit) => value <= limit,
        }
    }

    fn text(&self) -> String {
        match self.limit {
            Limit::AtLeast(limit) => format!("at least {limit}"),
            Limit::AtMost(limit) => format!("at most {limit}"),
        }
    }
}

/// Prints every figure beside its bound; returns those that miss it, and those of a part that ran and did not make them.
pub(crate) fn report(figures: &BTreeMap<&'static str, f64>, parts: &[&str]) -> Vec<&'static str> {
    let (promised, mut missed) = (promised(), Vec::new());
    let sync_ms = figures.get("sync_ms").copied().unwrap_or(f64::INFINITY);
    for (name, value) in figures {
        let applies = promised.iter().find(|bound| bound.figure == *name && bound.sync_ms.contains(&sync_ms));
        let judged = match applies {
            Some(bound) if bound.holds(*value) => bound.text(),
            Some(bound) => {
                missed.push(*name);
                format!("{}: MISSED", bound.text())
            }
            None => String::new(),
        };
        println!("{name:<36} {value:>14.3}   {judged}");
    }
    for bound in promised.iter().filter(|bound| parts.contains(&bound.part)) {
        if !figures.contains_key(bound.figure) && !missed.contains(&bound.figure) {
            println!("{:<36} {:>14}   {}: NOT MEASURED", bound.figure, "-", bound.text());
            missed.push(bound.figure);
        }
    }
    missed
}
