//! Counters, under the names that dashboards of the first product already read.

mod series;

use std::sync::{Arc, OnceLock};
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

pub(crate) use series::Series;

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

/// The executor's metrics. Cheap to clone: it is one pointer.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    admissions: Family<Reason, Counter>,
    cache: Family<Reason, Counter>,
    clock_jumps: Family<Reason, Counter>,
    endings: Family<Status, Counter>,
    /// The one of `endings` that nearly every call counts, once there was one.
    succeeded: OnceLock<Counter>,
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
    agents: Mutex<Vec<String>>,
    settings: MetricsSettings,
}

fn microseconds_up() -> Histogram {
    Histogram::new(exponential_buckets(1e-6, 4.0, 14)) // 1 µs to 67 s
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            admissions: Family::default(),
            cache: Family::default(),
            clock_jumps: Family::default(),
            endings: Family::default(),
            succeeded: OnceLock::new(),
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
            agents: Mutex::default(),
            settings: MetricsSettings::default(),
        }
    }
}

impl Metrics {
    /// With what the operator chose.
    pub fn new(settings: MetricsSettings) -> Self {
        Self(Arc::new(Inner { settings, ..Inner::default() }))
    }

    /// Puts the metrics into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("mentatlab_admissions", "Admission decisions by reason", self.0.admissions.clone());
        registry.register(
            "mentatlab_artifact_cache",
            "Loads of machine code by outcome",
            self.0.cache.clone(),
        );
        registry.register(
            "mentatlab_clock_jumps",
            "How often the wall clock was set, by direction",
            self.0.clock_jumps.clone(),
        );
        registry.register("wasm_instances", "Ended instances by status", self.0.endings.clone());
        registry.register(
            "mentatlab_wasm_execution_seconds",
            "Time of one execution",
            self.0.execution.clone(),
        );
        registry.register(
            "mentatlab_attestation_verify_seconds",
            "Time of one attestation verification",
            self.0.verification.clone(),
        );
        registry.register(
            "wasm_execution_duration_seconds",
            "Time of one execution, of every agent",
            self.0.execution_of_all.clone(),
        );
        registry.register(
            "mentatlab_wasm_instantiation_seconds",
            "Time from a call's beginning to a complete instance",
            self.0.instantiation.clone(),
        );
        // Where instances have series of their own, a scrape asks what each has.
        if !self.0.settings.instances {
            registry.register(
                MEMORY_BY_AGENT,
                "Largest memory of the agent's last execution",
                self.0.memory.clone(),
            );
        }
        registry.register(
            "mentatlab_capability_requests",
            "Capabilities that running guests asked for",
            self.0.capability_requests.clone(),
        );
        registry.register(
            "mentatlab_egress_refusals",
            "Requests of guests that were not sent or not answered",
            self.0.egress.clone(),
        );
        registry.register(
            "mentatlab_egress_bytes",
            "Bytes of bodies that guests sent and received",
            self.0.egress_bytes.clone(),
        );
        registry.register(
            "mentatlab_extension_refusals",
            "Operations of extensions that were not done",
            self.0.extensions.clone(),
        );
        registry.register(
            "mentatlab_host_call_refusals",
            "Host calls of guests that came too fast",
            self.0.host_calls.clone(),
        );
        registry.register(
            "wasm_compile_duration_seconds",
            "Time to get machine code that was not in the cache",
            self.0.compilation.clone(),
        );
        registry.register("wasm_fuel_consumed", "Fuel used by guests", self.0.fuel.clone());
        registry.register(
            "mentatlab_policy_changes",
            "Looks at a changed policy file",
            self.0.policies.clone(),
        );
        registry.register(
            "mentatlab_agents_lacking",
            "Agents that lack what will be demanded of them",
            self.0.lacking.clone(),
        );
        registry.register("mentatlab_instances_stopped", "Instances told to stop", self.0.stopped.clone());
        registry.register(
            "mentatlab_agents_withdrawn",
            "Loaded agents that were found to be no longer allowed to run, by reason",
            self.0.withdrawn.clone(),
        );
        registry.register("mentatlab_deployment_changes", "Changes of routes", self.0.deployments.clone());
        registry.register(
            "mentatlab_workers",
            "Worker processes by what became of them",
            self.0.workers.clone(),
        );
        registry.register(
            "mentatlab_callers_refused",
            "Requests of callers who are unknown or may not do this",
            self.0.callers_refused.clone(),
        );
        registry.register(
            "mentatlab_keyed_calls",
            "Calls with an idempotency key by what they were answered",
            self.0.keyed_calls.clone(),
        );
        registry.register(
            "mentatlab_resumable_streams",
            "Streams of resumable calls by what became of them and of who came to read them",
            self.0.streams.clone(),
        );
        registry.register(
            "mentatlab_traced_calls",
            "Calls whose trace was exported, dropped for want of room, or not taken",
            self.0.traces.clone(),
        );
    }

    /// What became of traces of calls.
    #[cfg(feature = "telemetry")]
    pub(crate) fn traces(&self, what: &'static str, count: u64) {
        self.0.traces.get_or_create(&reason(what)).inc_by(count);
    }

    /// How many there were.
    #[cfg(all(test, feature = "telemetry"))]
    pub(crate) fn traces_of(&self, what: &'static str) -> u64 {
        self.0.traces.get_or_create(&reason(what)).get()
    }

    /// Somebody who may not do what he asked for.
    pub(crate) fn caller_refused(&self, code: &'static str) {
        self.0.callers_refused.get_or_create(&reason(code)).inc();
    }

    /// A call with an idempotency key.
    pub(crate) fn keyed_call(&self, answered: &'static str) {
        self.0.keyed_calls.get_or_create(&reason(answered)).inc();
    }

    /// Streams of resumable calls.
    pub(crate) fn resumable(&self, what: &'static str, count: u64) {
        self.0.streams.get_or_create(&reason(what)).inc_by(count);
    }

    pub(crate) fn worker(&self, event: &'static str) {
        self.0.workers.get_or_create(&reason(event)).inc();
    }

    #[cfg(feature = "deployments")]
    pub(crate) fn deployment(&self, change: &'static str) {
        self.0.deployments.get_or_create(&reason(change)).inc();
    }

    pub(crate) fn admission(&self, denied: Option<&'static str>) {
        self.0.admissions.get_or_create(&reason(denied.unwrap_or("admitted"))).inc();
    }

    pub(crate) fn cache(&self, event: &CacheEvent, took: Duration) {
        let outcome = match event {
            CacheEvent::Compiled => "compiled",
            CacheEvent::Hit => "hit",
            CacheEvent::Replaced { .. } => "refused",
        };
        self.0.cache.get_or_create(&reason(outcome)).inc();
        if !matches!(event, CacheEvent::Hit) {
            self.0.compilation.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn lacking(&self, agents: usize) {
        self.0.lacking.set(i64::try_from(agents).unwrap_or(i64::MAX));
    }

    pub(crate) fn policy(&self, change: &'static str) {
        self.0.policies.get_or_create(&reason(change)).inc();
    }

    /// A verification. No text of a certificate is a label that the operator did not list, and none of one that did not verify.
    pub(crate) fn verified(&self, took: Duration, admitted: bool, signer: SignerOrg<'_>) {
        let result = if admitted { "valid" } else { "invalid" };
        let signer_org = match signer {
            SignerOrg::Named(org) if self.0.settings.signer_orgs.iter().any(|listed| listed == org) => org,
            SignerOrg::Named(_) => OTHER,
            SignerOrg::Nameless => NAMELESS,
            SignerOrg::Unverified => UNVERIFIED,
        };
        let labels = Verified { result, signer_org: signer_org.to_owned() };
        self.0.verification.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A call that is over.
    pub(crate) fn ended(&self, agent: &LoadedAgent, result: &'static str, ended: &Ended) {
        let series = agent.series.get_or_init(|| self.series_of(agent.id()));
        let took = Duration::from_micros(ended.usage.wall_us).as_secs_f64();
        self.ending(result);
        self.0.execution_of_all.observe(took);
        series.execution.observe(took);
        if let Some(fuel) = ended.usage.fuel {
            self.0.fuel.inc_by(fuel);
        }
        if let Some(took) = ended.instantiation {
            self.instantiation_of(series, agent.size_bucket).observe(took.as_secs_f64());
        }
        // No scrape shows it where instances have series of their own.
        if ended.usage.memory_bytes > 0 && !self.0.settings.instances {
            let bytes = i64::try_from(ended.usage.memory_bytes).unwrap_or(i64::MAX);
            self.memory_of(series).set(bytes);
        }
        if let Some(conduct) = &ended.conduct {
            self.conduct(&series.label, conduct);
        }
    }

    fn conduct(&self, agent_id: &str, conduct: &Conduct) {
        for (kind, asked, count) in conduct.requests() {
            let labels = CapabilityRequest {
                agent_id: agent_id.to_owned(),
                capability_type: kind.map_or("none", |kind| kind.as_str()),
                result: asked.as_str(),
            };
            self.0.capability_requests.get_or_create(&labels).inc_by(*count);
        }
        for (why, count) in conduct.refusals().iter().filter(|(why, _)| is_of_network(why)) {
            self.0.egress.get_or_create(&reason(why)).inc_by(*count);
        }
        for (why, count) in conduct.refusals().iter().filter(|(why, _)| is_of_extension(why)) {
            self.0.extensions.get_or_create(&reason(why)).inc_by(*count);
        }
        for (what, calls) in conduct.too_fast.each() {
            self.0.host_calls.get_or_create(&HostCall { interface: what.as_str() }).inc_by(calls);
        }
        for (direction, bytes) in [("sent", conduct.network.sent), ("received", conduct.network.received)] {
            if bytes > 0 {
                self.0.egress_bytes.get_or_create(&reason(direction)).inc_by(bytes);
            }
        }
    }

    /// The wall clock went `back` or `ahead`.
    pub(crate) fn clock_jump(&self, direction: &'static str) {
        self.0.clock_jumps.get_or_create(&reason(direction)).inc();
    }

    pub(crate) fn stopped(&self, count: u64) {
        self.0.stopped.inc_by(count);
    }

    /// A loaded agent may run no longer.
    pub(crate) fn withdrawn(&self, why: &'static str) {
        self.0.withdrawn.get_or_create(&reason(why)).inc();
    }

    /// The label of an agent: its id, or `other` where there are many already.
    pub(crate) fn agent_label(&self, agent: &str) -> String {
        let mut known = self.0.agents.lock();
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
