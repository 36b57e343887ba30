//! What each call of an agent is counted in: found by its labels once, and not again for each call.

use std::sync::OnceLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::{Agent, Instantiated, Metrics, Operation, Status};

/// How nearly every call ends.
const SUCCESS: &str = "success";

/// The series of one agent. Those that not every call is counted in begin with the first one that is.
#[derive(Debug)]
pub(crate) struct Series {
    /// The agent's id, or that of all for whom there is no label of their own.
    pub(super) label: String,
    pub(super) execution: Histogram,
    instantiation: OnceLock<Histogram>,
    memory: OnceLock<Gauge>,
}

impl Metrics {
    /// The series of an agent of this id.
    pub(super) fn series_of(&self, agent: &str) -> Series {
        let label = self.agent_label(agent);
        let labels = Operation { agent_id: label.clone(), operation: "process".into() };
        let execution = self.0.execution.get_or_create_owned(&labels);
        Series { label, execution, instantiation: OnceLock::new(), memory: OnceLock::new() }
    }

    pub(super) fn instantiation_of<'a>(
        &self,
        series: &'a Series,
        module_size_bucket: &'static str,
    ) -> &'a Histogram {
        series.instantiation.get_or_init(|| {
            let labels =
                Instantiated { agent_id: series.label.clone(), engine: "wasmtime", module_size_bucket };
            self.0.instantiation.get_or_create_owned(&labels)
        })
    }

    pub(super) fn memory_of<'a>(&self, series: &'a Series) -> &'a Gauge {
        series
            .memory
            .get_or_init(|| self.0.memory.get_or_create_owned(&Agent { agent_id: series.label.clone() }))
    }

    /// Counts how a call ended.
    pub(super) fn ending(&self, result: &'static str) {
        let counter = || -> Counter { self.0.endings.get_or_create_owned(&Status { status: result }) };
        if result == SUCCESS {
            self.0.succeeded.get_or_init(counter).inc();
        } else {
            counter().inc();
        }
    }
}
