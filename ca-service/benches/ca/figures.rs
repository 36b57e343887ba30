//! Figures, their bounds, and the verdict.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::machine::FAST_SYNC_MS;

/// A promise about a figure.
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Where a promise holds.
enum Holds {
    Everywhere,
    /// Where a sync takes less than [`crate::machine::FAST_SYNC_MS`]; elsewhere the figure is printed beside what the syncs take that
    /// one operation waits for.
    OnFastDisks {
        syncs: u32,
    },
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Run {
    /// Every part.
    Whole,
    /// Parts that were named.
    Parts,
}

const BOUNDS: [(&str, Bound, Holds); 19] = [
    ("issued_per_s", Bound::AtLeast(3_500.0), Holds::OnFastDisks { syncs: 4 }),
    ("issued_sct_per_s", Bound::AtLeast(2_400.0), Holds::OnFastDisks { syncs: 6 }),
    ("issue_p99_ms_at_64", Bound::AtMost(50.0), Holds::OnFastDisks { syncs: 4 }),
    ("issue_p50_ms_at_1", Bound::AtMost(1.8), Holds::OnFastDisks { syncs: 4 }),
    ("cpu_ms_per_certificate", Bound::AtMost(0.5), Holds::Everywhere),
    ("db_bytes_per_certificate", Bound::AtMost(4_096.0), Holds::Everywhere),
    ("lint_us", Bound::AtMost(100.0), Holds::Everywhere),
    ("ocsp_cached_per_s", Bound::AtLeast(50_000.0), Holds::Everywhere),
    ("ocsp_nonce_per_s", Bound::AtLeast(10_000.0), Holds::Everywhere),
    ("revoke_ms_at_1m", Bound::AtMost(2.0), Holds::OnFastDisks { syncs: 1 }),
    ("crl_100k_ms", Bound::AtMost(80.0), Holds::Everywhere),
    ("crl_1m_s", Bound::AtMost(1.0), Holds::Everywhere),
    ("issue_ratio_1m_vs_empty", Bound::AtLeast(0.9), Holds::OnFastDisks { syncs: 4 }),
    ("issue_ratio_10m_vs_empty", Bound::AtLeast(0.9), Holds::OnFastDisks { syncs: 4 }),
    ("revoke_full_ms", Bound::AtMost(2.0), Holds::OnFastDisks { syncs: 1 }),
    ("start_ms", Bound::AtMost(100.0), Holds::Everywhere),
    ("start_full_ms", Bound::AtMost(2_000.0), Holds::Everywhere),
    ("idle_mib", Bound::AtMost(24.0), Holds::Everywhere),
    ("revoked_seen_ms", Bound::AtMost(2.0), Holds::OnFastDisks { syncs: 1 }),
];

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<&'static str, f64>);

impl Figures {
    pub(crate) fn set(&mut self, name: &'static str, value: f64) {
        // At once, so that a run that is cut off has said something.
        println!("{name:<40} {value:>14.3}");
        self.0.insert(name, value);
    }

    /// Writes the file; says what was missed. In a whole run everything promised is there; parts add theirs to what is there.
    pub(crate) fn finish(self, run: Run) -> ExitCode {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("ca.json");
        let mut written: BTreeMap<String, f64> = match std::fs::read(&file) {
            Ok(text) if run == Run::Parts => serde_json::from_slice(&text).unwrap_or_default(),
            _ => BTreeMap::new(),
        };
        written.extend(self.0.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        std::fs::write(file, serde_json::to_vec_pretty(&written).unwrap()).unwrap();
        let sync_ms = self.0["sync_ms"];
        let fast = sync_ms < FAST_SYNC_MS;
        let mut missed = 0;
        for (name, bound, holds) in BOUNDS {
            let Some(value) = self.0.get(name) else {
                // One run stores one million certificates or ten.
                if run == Run::Whole && !name.starts_with("issue_ratio_") {
                    println!("MISSED: {name} was not measured");
                    missed += 1;
                }
                continue;
            };
            let (kept, text) = match bound {
                Bound::AtLeast(least) => (*value >= least, format!("at least {least}")),
                Bound::AtMost(most) => (*value <= most, format!("at most {most}")),
            };
            if kept {
                continue;
            }
            match holds {
                Holds::OnFastDisks { syncs } if !fast => println!(
                    "not judged: {name} = {value:.3} ({text} where a sync takes less than {FAST_SYNC_MS} ms; \
                     here {syncs} x {sync_ms:.3} ms = {:.3} ms of syncs each)",
                    f64::from(syncs) * sync_ms,
                ),
                _ => {
                    println!("MISSED: {name} = {value:.3}, promised {text}");
                    missed += 1;
                }
            }
        }
        if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Median of some runs.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
