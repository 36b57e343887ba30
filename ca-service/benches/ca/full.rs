//! What many stored certificates change: the rate of issuance against that of an empty store, the start, revocation and a list.

use std::time::{Duration, Instant};

use crate::figures::{Figures, median};
use crate::issuance::{CONNECTIONS, RUNS, issue};
use crate::stack::Stack;
use crate::status::{list_ms, revoke};
use crate::stored::{self, Revoked};

/// One in so many of the stored certificates is revoked: of ten million, a hundred thousand.
const REVOKED: i64 = 100;

pub(crate) async fn measure(figures: &mut Figures, lasting: Duration, stored: i64) {
    let (mut empty, mut full) = (Stack::new("ecdsa-p256"), Stack::new("ecdsa-p256"));
    full.start_ca();
    let (_, _) = issue(&full, "plain", 8, Duration::from_secs(1)).await;
    full.stop_ca();
    let began = Instant::now();
    stored::write(&full.database(), (0, stored), stored, Revoked::OneIn(REVOKED));
    figures.set("load_s", began.elapsed().as_secs_f64());
    let bytes = std::fs::metadata(full.database()).unwrap().len();
    figures.set("stored_bytes_per_certificate", bytes as f64 / stored as f64);
    let starts = (0..3).map(|_| full.start_ca().start_ms).collect();
    figures.set("start_full_ms", median(starts));
    figures.set("idle_full_mib", crate::machine::resident_mib(full.ca.as_ref().unwrap().id()));
    empty.start_ca();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        with.push(issue(&full, "plain", CONNECTIONS, lasting).await.0.per_s());
        without.push(issue(&empty, "plain", CONNECTIONS, lasting).await.0.per_s());
        println!("with: {:.0}/s, without: {:.0}/s", with[with.len() - 1], without[without.len() - 1]);
    }
    let name = match stored {
        10_000_000 => "issue_ratio_10m_vs_empty",
        1_000_000 => "issue_ratio_1m_vs_empty",
        _ => "issue_ratio_full_vs_empty",
    };
    figures.set("issued_full_per_s", median(with.clone()));
    figures.set(name, median(with) / median(without));
    let (revoked, _) = revoke(&full).await;
    figures.set("revoke_full_ms", median(revoked));
    // The list of those that were revoked among them.
    full.stop_ca();
    let times = vec![list_ms(&full).await, list_ms(&full).await, list_ms(&full).await];
    figures.set("crl_full_ms", median(times));
}
