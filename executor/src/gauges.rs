//! What is true at the moment of a scrape: what lives, waits and grows old.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::executor::Executor;

/// Asks the executor on each scrape.
pub(crate) struct Gauges(pub(crate) Arc<Executor>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.0.status();
        let failing = status.sources.iter().filter(|source| !source.ok).count() as u64;
        let missing = status.unconfined.len() as u64;
        let absent = status.tiers.iter().filter(|tier| tier.missing.is_some()).count() as u64;
        let lateness = self.0.runtime().take_epoch_lateness_micros();
        let draining = u64::from(status.draining_since.is_some());
        let asked = self.0.asked();
        let known = [
            ("mentatlab_agents_loaded", "Agents that are loaded", status.agents),
            ("mentatlab_audit_sequence", "Last durable record of the audit log", status.audit_sequence),
            ("mentatlab_callers_waiting", "Calls that wait for a place", self.0.waiting_callers()),
            ("mentatlab_executor_draining", "1 while no calls are taken", draining),
            ("mentatlab_epoch_lateness_microseconds", "Latest tick since the last scrape", lateness),
            ("mentatlab_evidence_sources_failing", "Sources whose last attempt failed", failing),
            ("mentatlab_instances_live", "Instances that run now", status.live_instances),
            (
                "mentatlab_ocsp_certificates",
                "Certificates that responders are asked about",
                asked.certificates,
            ),
            ("mentatlab_log_forked", "1 once a log contradicted itself", u64::from(self.0.knows_a_fork())),
            ("mentatlab_ocsp_unanswered", "Those of them without a current answer", asked.unanswered),
            ("mentatlab_pool_slots", "Instances that can live at once", status.pool_slots),
            ("mentatlab_tiers_missing", "Levels of trust that do not run on this host", absent),
            ("mentatlab_workers_running", "Worker processes that run now", self.0.running_workers()),
            ("mentatlab_sandbox_mechanisms_missing", "Mechanisms that this host lacks", missing),
        ];
        // Evidence that was never complete has no age; an alert looks for the missing series.
        let age = status
            .evidence_age_s
            .map(|age| ("mentatlab_evidence_age_seconds", "Since every source was last fetched", age));
        let maps = self.0.runtime().memory_maps();
        let needed =
            ("mentatlab_memory_maps_needed", "Memory maps of a process whose pool is full", maps.needed);
        let allowed = maps
            .allowed
            .map(|allowed| ("mentatlab_memory_maps_allowed", "Memory maps that the kernel allows", allowed));
        let maps = [Some(needed), allowed].into_iter().flatten();
        let pool = self.0.runtime().pool_in_use();
        for (name, help, value) in known.into_iter().chain(age).chain(maps).chain(pool) {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
