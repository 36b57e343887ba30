//! Counters, under the names that dashboards of the first product already read.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::agents::Agent as LoadedAgent;
use crate::artifact::CacheEvent;
use crate::runtime::{Conduct, Ended, is_of_extension, is_of_network};

/// Most agent ids that appear as labels; further ones are counted as `other`.
const MAX_AGENT_LABELS: usize = 64;

/// Memory of guests, by agent, and by instance where the operator asked for that.
pub(crate) const MEMORY_BY_AGENT: &str = "mentatlab_wasm_memory_bytes";

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
struct Instantiated {
    agent_id: String,
    engine: &'static str,
    module_size_bucket: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Agent {
    agent_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CapabilityRequest {
    agent_id: String,
    capability_type: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HostCall {
    interface: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verified {
    result: &'static str,
    signer_org: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

/// Labels in the place of an organisation's name.
pub(crate) const RESERVED_ORGS: [&str; 3] = [OTHER, NAMELESS, UNVERIFIED];

pub(crate) const OTHER: &str = "other";
const NAMELESS: &str = "none";
const UNVERIFIED: &str = "unverified";

/// What the operator chose about metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Organisations that are labels; each other one is `other`.
    pub signer_orgs: Vec<String>,
    /// Whether each running instance has a series of its own.
    pub instances: bool,
}

/// Whose certificate an attestation was verified by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignerOrg<'a> {
    /// The certificate was found in order, and names this organisation.
    Named(&'a str),
    /// It was, and names none; or a key signed that has no certificate.
    Nameless,
    /// What the certificate says was not found to be true.
    Unverified,
}

/// The executor's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    admissions: Family<Reason, Counter>,
    cache: Family<Reason, Counter>,
    clock_jumps: Family<Reason, Counter>,
    endings: Family<Status, Counter>,
    execution: Family<Operation, Histogram>,
    execution_of_all: Histogram,
    instantiation: Family<Instantiated, Histogram>,
    memory: Family<Agent, Gauge>,
    capability_requests: Family<CapabilityRequest, Counter>,
    egress: Family<Reason, Counter>,
    egress_bytes: Family<Reason, Counter>,
    extensions: Family<Reason, Counter>,
    host_calls: Family<HostCall, Counter>,
    compilation: Histogram,
    fuel: Counter,
    policies: Family<Reason, Counter>,
    lacking: Gauge,
    verification: Family<Verified, Histogram>,
    stopped: Counter,
    withdrawn: Family<Reason, Counter>,
    deployments: Family<Reason, Counter>,
    traces: Family<Reason, Counter>,
    workers: Family<Reason, Counter>,
    callers_refused: Family<Reason, Counter>,
    keyed_calls: Family<Reason, Counter>,
    streams: Family<Reason, Counter>,
    agents: Arc<Mutex<Vec<String>>>,
    settings: Arc<MetricsSettings>,
}

fn microseconds_up() -> Histogram {
    Histogram::new(exponential_buckets(1e-6, 4.0, 14)) // 1 µs to 67 s
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            admissions: Family::default(),
            cache: Family::default(),
            clock_jumps: Family::default(),
            endings: Family::default(),
            execution: Family::new_with_constructor(microseconds_up),
            execution_of_all: microseconds_up(),
            instantiation: Family::new_with_constructor(microseconds_up),
            memory: Family::default(),
            capability_requests: Family::default(),
            egress: Family::default(),
            egress_bytes: Family::default(),
            extensions: Family::default(),
            host_calls: Family::default(),
            compilation: Histogram::new(exponential_buckets(1e-3, 2.0, 17)), // 1 ms to 65 s
            fuel: Counter::default(),
            policies: Family::default(),
            lacking: Gauge::default(),
            verification: Family::new_with_constructor(microseconds_up),
            stopped: Counter::default(),
            withdrawn: Family::default(),
            deployments: Family::default(),
            traces: Family::default(),
            workers: Family::default(),
            callers_refused: Family::default(),
            keyed_calls: Family::default(),
            streams: Family::default(),
            agents: Arc::default(),
            settings: Arc::default(),
        }
    }
}

impl Metrics {
    /// With what the operator chose.
    pub fn new(settings: MetricsSettings) -> Self {
        Self { settings: Arc::new(settings), ..Self::default() }
    }

    /// Puts the metrics into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("mentatlab_admissions", "Admission decisions by reason", self.admissions.clone());
        registry.register("mentatlab_artifact_cache", "Loads of machine code by outcome", self.cache.clone());
        registry.register(
            "mentatlab_clock_jumps",
            "How often the wall clock was set, by direction",
            self.clock_jumps.clone(),
        );
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
        registry.register(
            "wasm_execution_duration_seconds",
            "Time of one execution, of every agent",
            self.execution_of_all.clone(),
        );
        registry.register(
            "mentatlab_wasm_instantiation_seconds",
            "Time from a call's beginning to a complete instance",
            self.instantiation.clone(),
        );
        // Where instances have series of their own, a scrape asks what each has.
        if !self.settings.instances {
            registry.register(
                MEMORY_BY_AGENT,
                "Largest memory of the agent's last execution",
                self.memory.clone(),
            );
        }
        registry.register(
            "mentatlab_capability_requests",
            "Capabilities that running guests asked for",
            self.capability_requests.clone(),
        );
        registry.register(
            "mentatlab_egress_refusals",
            "Requests of guests that were not sent or not answered",
            self.egress.clone(),
        );
        registry.register(
            "mentatlab_egress_bytes",
            "Bytes of bodies that guests sent and received",
            self.egress_bytes.clone(),
        );
        registry.register(
            "mentatlab_extension_refusals",
            "Operations of extensions that were not done",
            self.extensions.clone(),
        );
        registry.register(
            "mentatlab_host_call_refusals",
            "Host calls of guests that came too fast",
            self.host_calls.clone(),
        );
        registry.register(
            "wasm_compile_duration_seconds",
            "Time to get machine code that was not in the cache",
            self.compilation.clone(),
        );
        registry.register("wasm_fuel_consumed", "Fuel used by guests", self.fuel.clone());
        registry.register(
            "mentatlab_policy_changes",
            "Looks at a changed policy file",
            self.policies.clone(),
        );
        registry.register(
            "mentatlab_agents_lacking",
            "Agents that lack what will be demanded of them",
            self.lacking.clone(),
        );
        registry.register("mentatlab_instances_stopped", "Instances told to stop", self.stopped.clone());
        registry.register(
            "mentatlab_agents_withdrawn",
            "Loaded agents that were found to be no longer allowed to run, by reason",
            self.withdrawn.clone(),
        );
        registry.register("mentatlab_deployment_changes", "Changes of routes", self.deployments.clone());
        registry.register(
            "mentatlab_workers",
            "Worker processes by what became of them",
            self.workers.clone(),
        );
        registry.register(
            "mentatlab_callers_refused",
            "Requests of callers who are unknown or may not do this",
            self.callers_refused.clone(),
        );
        registry.register(
            "mentatlab_keyed_calls",
            "Calls with an idempotency key by what they were answered",
            self.keyed_calls.clone(),
        );
        registry.register(
            "mentatlab_resumable_streams",
            "Streams of resumable calls by what became of them and of who came to read them",
            self.streams.clone(),
        );
        registry.register(
            "mentatlab_traced_calls",
            "Calls whose trace was exported, dropped for want of room, or not taken",
            self.traces.clone(),
        );
    }

    /// What became of traces of calls.
    #[cfg(feature = "telemetry")]
    pub(crate) fn traces(&self, what: &'static str, count: u64) {
        self.traces.get_or_create(&reason(what)).inc_by(count);
    }

    /// How many there were.
    #[cfg(all(test, feature = "telemetry"))]
    pub(crate) fn traces_of(&self, what: &'static str) -> u64 {
        self.traces.get_or_create(&reason(what)).get()
    }

    /// Somebody who may not do what he asked for.
    pub(crate) fn caller_refused(&self, code: &'static str) {
        self.callers_refused.get_or_create(&reason(code)).inc();
    }

    /// A call with an idempotency key.
    pub(crate) fn keyed_call(&self, answered: &'static str) {
        self.keyed_calls.get_or_create(&reason(answered)).inc();
    }

    /// Streams of resumable calls.
    pub(crate) fn resumable(&self, what: &'static str, count: u64) {
        self.streams.get_or_create(&reason(what)).inc_by(count);
    }

    pub(crate) fn worker(&self, event: &'static str) {
        self.workers.get_or_create(&reason(event)).inc();
    }

    #[cfg(feature = "deployments")]
    pub(crate) fn deployment(&self, change: &'static str) {
        self.deployments.get_or_create(&reason(change)).inc();
    }

    pub(crate) fn admission(&self, denied: Option<&'static str>) {
        self.admissions.get_or_create(&reason(denied.unwrap_or("admitted"))).inc();
    }

    pub(crate) fn cache(&self, event: &CacheEvent, took: Duration) {
        let outcome = match event {
            CacheEvent::Compiled => "compiled",
            CacheEvent::Hit => "hit",
            CacheEvent::Replaced { .. } => "refused",
        };
        self.cache.get_or_create(&reason(outcome)).inc();
        if !matches!(event, CacheEvent::Hit) {
            self.compilation.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn lacking(&self, agents: usize) {
        self.lacking.set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    pub(crate) fn policy(&self, change: &'static str) {
        self.policies.get_or_create(&reason(change)).inc();
    }

    /// A verification. No text of a certificate is a label that the operator did not list, and none of one that did not verify.
    pub(crate) fn verified(&self, took: Duration, admitted: bool, signer: SignerOrg<'_>) {
        let result = if admitted { "valid" } else { "invalid" };
        let signer_org = match signer {
            SignerOrg::Named(org) if self.settings.signer_orgs.iter().any(|listed| listed == org) => org,
            SignerOrg::Named(_) => OTHER,
            SignerOrg::Nameless => NAMELESS,
            SignerOrg::Unverified => UNVERIFIED,
        };
        let labels = Verified { result, signer_org: signer_org.to_owned() };
        self.verification.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A call that is over.
    pub(crate) fn ended(&self, agent: &LoadedAgent, result: &'static str, ended: &Ended) {
        let agent_id = self.agent_label(agent.id());
        let took = Duration::from_micros(ended.usage.wall_us).as_secs_f64();
        self.endings.get_or_create(&Status { status: result }).inc();
        self.execution_of_all.observe(took);
        let labels = Operation { agent_id: agent_id.clone(), operation: "process".into() };
        self.execution.get_or_create(&labels).observe(took);
        if let Some(fuel) = ended.usage.fuel {
            self.fuel.inc_by(fuel);
        }
        if let Some(took) = ended.instantiation {
            let labels = Instantiated {
                agent_id: agent_id.clone(),
                engine: "wasmtime",
                module_size_bucket: agent.size_bucket,
            };
            self.instantiation.get_or_create(&labels).observe(took.as_secs_f64());
        }
        if ended.usage.memory_bytes > 0 {
            let bytes = i64::try_from(ended.usage.memory_bytes).unwrap_or(i64::MAX);
            self.memory.get_or_create(&Agent { agent_id: agent_id.clone() }).set(bytes);
        }
        if let Some(conduct) = &ended.conduct {
            self.conduct(&agent_id, conduct);
        }
    }

    fn conduct(&self, agent_id: &str, conduct: &Conduct) {
        for (kind, asked, count) in conduct.requests() {
            let labels = CapabilityRequest {
                agent_id: agent_id.to_owned(),
                capability_type: kind.map_or("none", |kind| kind.as_str()),
                result: asked.as_str(),
            };
            self.capability_requests.get_or_create(&labels).inc_by(*count);
        }
        for (why, count) in conduct.refusals().iter().filter(|(why, _)| is_of_network(why)) {
            self.egress.get_or_create(&reason(why)).inc_by(*count);
        }
        for (why, count) in conduct.refusals().iter().filter(|(why, _)| is_of_extension(why)) {
            self.extensions.get_or_create(&reason(why)).inc_by(*count);
        }
        for (what, calls) in conduct.too_fast.each() {
            self.host_calls.get_or_create(&HostCall { interface: what.as_str() }).inc_by(calls);
        }
        for (direction, bytes) in [("sent", conduct.network.sent), ("received", conduct.network.received)] {
            if bytes > 0 {
                self.egress_bytes.get_or_create(&reason(direction)).inc_by(bytes);
            }
        }
    }

    /// The wall clock went `back` or `ahead`.
    pub(crate) fn clock_jump(&self, direction: &'static str) {
        self.clock_jumps.get_or_create(&reason(direction)).inc();
    }

    pub(crate) fn stopped(&self, count: u64) {
        self.stopped.inc_by(count);
    }

    /// A loaded agent may run no longer.
    pub(crate) fn withdrawn(&self, why: &'static str) {
        self.withdrawn.get_or_create(&reason(why)).inc();
    }

    /// The label of an agent: its id, or `other` where there are many already.
    pub(crate) fn agent_label(&self, agent: &str) -> String {
        let mut known = self.agents.lock();
        if known.iter().any(|name| name == agent) {
            return agent.to_owned();
        }
        if known.len() < MAX_AGENT_LABELS {
            known.push(agent.to_owned());
            return agent.to_owned();
        }
        OTHER.to_owned()
    }
}

/// The range that a module's size lies in, for a label.
pub(crate) fn size_bucket(bytes: usize) -> &'static str {
    match bytes {
        0..=0xffff => "up to 64 KiB",
        0x1_0000..=0xf_ffff => "up to 1 MiB",
        0x10_0000..=0x7f_ffff => "up to 8 MiB",
        _ => "up to 64 MiB",
    }
}

fn reason(text: &str) -> Reason {
    Reason { reason: text.to_owned() }
}

#[cfg(test)]
mod tests;
