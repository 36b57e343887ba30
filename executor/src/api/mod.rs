//! The two transports over one set of operations, and who may use which.

mod access;
mod answers;
#[cfg(test)]
mod caller_tests;
pub mod grpc;
#[cfg(test)]
mod holding_tests;
pub mod http;
#[cfg(test)]
mod left_out_tests;
#[cfg(test)]
mod receipt_tests;
#[cfg(test)]
mod resuming_tests;
#[cfg(test)]
mod role_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

pub use access::Access;

use executor_api::{Base64Bytes, Executed as WireExecuted, LogLine, Metric, Said as WireSaid, Usage};

use crate::abi::sinks::{LogRecord, MetricRecord};
use crate::admission::Denied;
use crate::executor::Executed;
use crate::runtime::Said;

/// The wire form of a finished call.
fn executed(done: Executed) -> WireExecuted {
    let outcome = done.outcome;
    WireExecuted {
        digest: done.digest.to_string(),
        repeated: done.repeated,
        receipt: done.receipt.and_then(|proof| String::from_utf8(proof.into()).ok()),
        instance_id: outcome.instance.to_string(),
        text: core::str::from_utf8(&outcome.output).ok().map(str::to_owned),
        output: Base64Bytes(outcome.output),
        exit_code: outcome.exit_code,
        usage: Usage {
            wall_us: outcome.usage.wall_us,
            memory_bytes: outcome.usage.memory_bytes,
            epoch_ticks: outcome.usage.epoch_ticks,
            fuel: outcome.usage.fuel,
            dropped_log_lines: outcome.usage.dropped_log_lines,
            refused_growths: outcome.usage.refused_growths,
        },
        log: lines(outcome.log),
        metrics: values(outcome.metrics),
    }
}

/// Why a reader hears nothing more of a call that goes on.
fn replaced() -> Denied {
    Denied::new("reader_replaced", "another reader goes on with this stream")
}

/// The wire form of what a guest said in a call that has no result.
fn said(said: Said) -> WireSaid {
    WireSaid { instance_id: said.instance.to_string(), log: lines(said.log), metrics: values(said.metrics) }
}

fn lines(log: Vec<LogRecord>) -> Vec<LogLine> {
    log.into_iter().map(line).collect()
}

fn line(LogRecord { level, text }: LogRecord) -> LogLine {
    LogLine { level: level.as_str().into(), text }
}

fn values(metrics: Vec<MetricRecord>) -> Vec<Metric> {
    metrics.into_iter().map(|metric| Metric { name: metric.name, value: metric.value }).collect()
}
