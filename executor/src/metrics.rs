//! Counters, under the names that dashboards of the first product already read.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::artifact::CacheEvent;

/// Most agent ids that appear as labels; further ones are counted as `other`.
const MAX_AGENT_LABELS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    agent_id: String,
    operation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verified {
    result: String,
}

/// The executor's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    admissions: Family<Reason, Counter>,
    cache: Family<Reason, Counter>,
    endings: Family<Reason, Counter>,
    execution: Family<Operation, Histogram>,
    verification: Family<Verified, Histogram>,
    stopped: Counter,
    deployments: Family<Reason, Counter>,
    agents: Arc<Mutex<Vec<String>>>,
}

fn microseconds_up() -> Histogram {
    Histogram::new(exponential_buckets(1e-6, 4.0, 14)) // 1 µs to 67 s
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            admissions: Family::default(),
            cache: Family::default(),
            endings: Family::default(),
            execution: Family::new_with_constructor(microseconds_up),
            verification: Family::new_with_constructor(microseconds_up),
            stopped: Counter::default(),
            deployments: Family::default(),
            agents: Arc::default(),
        }
    }
}

impl Metrics {
    /// Puts the metrics into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("mentatlab_admissions", "Admission decisions by reason", self.admissions.clone());
        registry.register("mentatlab_artifact_cache", "Loads of machine code by outcome", self.cache.clone());
        registry.register("wasm_instances", "Ended instances by status", self.endings.clone());
        registry.register(
            "mentatlab_wasm_execution_seconds",
            "Time of one execution",
            self.execution.clone(),
        );
        registry.register(
            "mentatlab_attestation_verify_seconds",
            "Time of one attestation verification",
            self.verification.clone(),
        );
        registry.register("mentatlab_instances_stopped", "Instances told to stop", self.stopped.clone());
        registry.register("mentatlab_deployment_changes", "Changes of routes", self.deployments.clone());
    }

    pub(crate) fn deployment(&self, change: &'static str) {
        self.deployments.get_or_create(&reason(change)).inc();
    }

    pub(crate) fn admission(&self, denied: Option<&'static str>) {
        self.admissions.get_or_create(&reason(denied.unwrap_or("admitted"))).inc();
    }

    pub(crate) fn cache(&self, event: &CacheEvent) {
        let outcome = match event {
            CacheEvent::Compiled => "compiled",
            CacheEvent::Hit => "hit",
            CacheEvent::Replaced { .. } => "refused",
        };
        self.cache.get_or_create(&reason(outcome)).inc();
    }

    pub(crate) fn verified(&self, took: Duration, admitted: bool) {
        let result = if admitted { "valid" } else { "invalid" }.to_owned();
        self.verification.get_or_create(&Verified { result }).observe(took.as_secs_f64());
    }

    pub(crate) fn execution(&self, agent: &str, result: &'static str, took: Duration) {
        self.endings.get_or_create(&reason(result)).inc();
        let labels = Operation { agent_id: self.agent_label(agent), operation: "process".into() };
        self.execution.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn stopped(&self, count: u64) {
        self.stopped.inc_by(count);
    }

    fn agent_label(&self, agent: &str) -> String {
        let mut known = self.agents.lock();
        if known.iter().any(|name| name == agent) {
            return agent.to_owned();
        }
        if known.len() < MAX_AGENT_LABELS {
            known.push(agent.to_owned());
            return agent.to_owned();
        }
        "other".to_owned()
    }
}

fn reason(text: &str) -> Reason {
    Reason { reason: text.to_owned() }
}
