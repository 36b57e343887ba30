//! What is true at the moment of a scrape: what lives, waits and grows old.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::executor::Executor;
use crate::metrics::{MEMORY_BY_AGENT, OTHER};
use crate::runtime::Held;

/// Most instances that have series of their own.
pub(crate) const MAX_INSTANCES: usize = 256;

/// Asks the executor on each scrape.
pub(crate) struct Gauges {
    pub(crate) executor: Arc<Executor>,
    /// Whether each running instance has a series of its own.
    pub(crate) instances: bool,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = self.executor.status();
        let failing = status.sources.iter().filter(|source| !source.ok).count() as u64;
        let missing = status.unconfined.len() as u64;
        let absent = status.tiers.iter().filter(|tier| tier.missing.is_some()).count() as u64;
        let lateness = self.executor.runtime().take_epoch_lateness_micros();
        let draining = u64::from(status.draining_since.is_some());
        let asked = self.executor.asked();
        let held = self.executor.runtime().live().held();
        let (streams, stream_bytes) = self.executor.kept_streams();
        let known = [
            ("mentatlab_agents_loaded", "Agents that are loaded", status.agents),
            ("mentatlab_audit_sequence", "Last durable record of the audit log", status.audit_sequence),
            ("mentatlab_callers_waiting", "Calls that wait for a place", self.executor.waiting_callers()),
            ("mentatlab_executor_draining", "1 while no calls are taken", draining),
            ("mentatlab_epoch_lateness_microseconds", "Latest tick since the last scrape", lateness),
            ("mentatlab_evidence_sources_failing", "Sources whose last attempt failed", failing),
            ("mentatlab_instances_live", "Instances that run now", status.live_instances),
            (
                "mentatlab_ocsp_certificates",
                "Certificates that responders are asked about",
                asked.certificates,
            ),
            (
                "mentatlab_log_forked",
                "1 once a log contradicted itself",
                u64::from(self.executor.knows_a_fork()),
            ),
            ("mentatlab_ocsp_unanswered", "Those of them without a current answer", asked.unanswered),
            ("mentatlab_pool_slots", "Instances that can live at once", status.pool_slots),
            (
                "mentatlab_results_unread_bytes",
                "Results of streamed calls whose readers have not come so far",
                self.executor.unread_results(),
            ),
            ("mentatlab_streams_kept", "Streams of resumable calls that are kept", streams),
            ("mentatlab_streams_kept_bytes", "What they take, with inputs and results", stream_bytes),
            ("mentatlab_tiers_missing", "Levels of trust that do not run on this host", absent),
            ("mentatlab_workers_running", "Worker processes that run now", self.executor.running_workers()),
            ("mentatlab_sandbox_mechanisms_missing", "Mechanisms that this host lacks", missing),
            ("wasm_memory_usage_bytes", "Memory of the guests that run in this process now", total(&held)),
        ];
        // Evidence that was never complete has no age; an alert looks for the missing series.
        let age = status
            .evidence_age_s
            .map(|age| ("mentatlab_evidence_age_seconds", "Since every source was last fetched", age));
        let maps = self.executor.runtime().memory_maps();
        let needed =
            ("mentatlab_memory_maps_needed", "Memory maps of a process whose pool is full", maps.needed);
        let allowed = maps
            .allowed
            .map(|allowed| ("mentatlab_memory_maps_allowed", "Memory maps that the kernel allows", allowed));
        let maps = [Some(needed), allowed].into_iter().flatten();
        let pool = self.executor.runtime().pool_in_use();
        for (name, help, value) in known.into_iter().chain(age).chain(maps).chain(pool) {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        self.memory_by_instance(&mut encoder, held)
    }
}

impl Gauges {
    /// What each running instance has, where the operator asked for that: the largest by themselves, all others in one series.
    fn memory_by_instance(&self, encoder: &mut DescriptorEncoder<'_>, mut held: Vec<Held>) -> fmt::Result {
        if !self.instances {
            return Ok(());
        }
        held.retain(|held| held.memory > 0);
        held.sort_by_key(|held| std::cmp::Reverse(held.memory));
        let rest = held.split_off(held.len().min(MAX_INSTANCES));
        let help = "Memory of running instances";
        let mut metric = encoder.encode_descriptor(MEMORY_BY_AGENT, help, None, MetricType::Gauge)?;
        let mut tell = |agent: &str, instance: &str, bytes: u64| {
            let labels = [("agent_id", agent), ("instance_id", instance)];
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(metric.encode_family(&labels)?)
        };
        for held in held {
            let agent = self.executor.metrics().agent_label(&held.owner.agent);
            tell(&agent, &held.id.to_string(), held.memory)?;
        }
        match total(&rest) {
            0 => Ok(()),
            bytes => tell(OTHER, OTHER, bytes),
        }
    }
}

fn total(held: &[Held]) -> u64 {
    held.iter().map(|held| held.memory).sum()
}
