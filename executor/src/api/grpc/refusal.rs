//! A refusal as gRPC status.

use executor_api::status_details::Details;
use executor_api::{REASON_METADATA, STEP_METADATA, v1};
use tonic::Status;

use crate::abi::sinks::{Level, MetricRecord};
use crate::admission::Denied;
use crate::api::answers::{Answer, answer_of};
use crate::records::last_lines;
use crate::runtime::Said;

/// Bytes of a guest's log in a status. It is a header, and clients take 8 KiB of all of them.
const MAX_SAID: usize = 3 << 10;
/// Metric values in a status.
const MAX_METRICS: usize = 16;

pub(super) fn invalid(text: &str) -> Status {
    refuse(&Denied::new("invalid_argument", text))
}

/// A refusal as status: reason and step in metadata, the caller's text as message, what the guest said and when to ask again
/// as details.
pub(super) fn refuse(denied: &Denied) -> Status {
    if !denied.operator.is_empty() {
        tracing::info!(code = denied.code, operator = %denied.operator, "request refused");
    }
    let Answer { grpc: code, retry_after, .. } = answer_of(denied);
    let details = Details { failed: denied.said.as_deref().map(failed_call), retry_after };
    let mut status = match details.encode(code as i32, &denied.message) {
        Some(details) => Status::with_details(code, denied.message.clone(), details.into()),
        None => Status::new(code, denied.message.clone()),
    };
    let metadata = status.metadata_mut();
    if let Ok(reason) = denied.code.parse() {
        metadata.insert(REASON_METADATA, reason);
    }
    metadata.insert(STEP_METADATA, u32::from(denied.step).into());
    status
}

fn failed_call(said: &Said) -> v1::FailedCall {
    let (earlier, lines) = last_lines(&said.log, MAX_SAID);
    let line =
        |(level, text): (Level, &str)| v1::LogLine { level: level.as_str().into(), text: text.to_owned() };
    let metric = |metric: &MetricRecord| v1::Metric { name: metric.name.clone(), value: metric.value };
    v1::FailedCall {
        instance_id: said.instance.to_string(),
        log: lines.into_iter().map(line).collect(),
        metrics: said.metrics.iter().take(MAX_METRICS).map(metric).collect(),
        earlier_log_lines: earlier as u64,
    }
}
