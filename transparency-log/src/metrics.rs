//! Figures of the logs for Prometheus.

use std::sync::Arc;

use log_store::MetricsSnapshot;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::logs::ServedLog;

/// Reads every log's figures at each scrape.
pub(crate) struct LogCollector(pub(crate) Vec<Arc<ServedLog>>);

impl std::fmt::Debug for LogCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogCollector({} logs)", self.0.len())
    }
}

type Figure = (&'static str, &'static str, fn(&MetricsSnapshot) -> u64);

const COUNTERS: [Figure; 7] = [
    ("mentat_log_publications", "Checkpoints published", |m| m.publications),
    ("mentat_log_batches", "Batches committed", |m| m.batches),
    ("mentat_log_appended", "Entries appended", |m| m.appended),
    ("mentat_log_refused", "Entries refused for want of space", |m| m.refused),
    ("mentat_log_publication_failures", "Attempts to publish that failed", |m| m.publication_failures),
    ("mentat_log_damaged_reads", "Reads that found damage and were refused", |m| m.damaged_reads),
    ("mentat_log_scrubbed_entries", "Entries re-verified by the self-check", |m| m.scrubbed),
];

const GAUGES: [Figure; 6] = [
    ("mentat_log_size", "Committed entries", |m| m.size),
    ("mentat_log_published_size", "Entries covered by the published checkpoint", |m| m.published),
    ("mentat_log_queued", "Entries waiting for the sequencer", |m| m.queued),
    ("mentat_log_waiting", "Submitters waiting for a checkpoint", |m| m.waiting),
    ("mentat_log_tile_backlog", "Full tiles waiting to be written", |m| m.tile_backlog),
    ("mentat_log_failed", "1 when the log has stopped taking entries", |m| u64::from(m.failed)),
];

impl Collector for LogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshots: Vec<_> =
            self.0.iter().map(|log| (log.settings.name.as_str(), log.log.metrics())).collect();
        for (name, help, figure) in COUNTERS {
            let kind = ConstCounter::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (log, snapshot) in &snapshots {
                ConstCounter::new(figure(snapshot)).encode(family.encode_family(&[("log", *log)])?)?;
            }
        }
        for (name, help, figure) in GAUGES {
            let kind = ConstGauge::new(0_i64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (log, snapshot) in &snapshots {
                let value = i64::try_from(figure(snapshot)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&[("log", *log)])?)?;
            }
        }
        let help = "Entries that searches cover";
        let kind = ConstGauge::new(0_i64).metric_type();
        let mut family = encoder.encode_descriptor("mentat_log_indexed_size", help, None, kind)?;
        for log in &self.0 {
            if let Some(lookup) = &log.lookup {
                let covered = i64::try_from(lookup.covered()).unwrap_or(i64::MAX);
                let labels = [("log", log.settings.name.as_str())];
                ConstGauge::new(covered).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
