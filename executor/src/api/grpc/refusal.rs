//! A refusal as gRPC status.

use executor_api::{REASON_METADATA, STEP_METADATA, status_details, v1};
use tonic::{Code, Status};

use crate::abi::sinks::{Level, MetricRecord};
use crate::admission::Denied;
use crate::records::last_lines;
use crate::runtime::Said;

/// Bytes of a guest's log in a status. It is a header, and clients take 8 KiB of all of them.
const MAX_SAID: usize = 3 << 10;
/// Metric values in a status.
const MAX_METRICS: usize = 16;

pub(super) fn invalid(text: &str) -> Status {
    refuse(&Denied::new("invalid_argument", text))
}

/// A refusal as status: reason and step in metadata, the caller's text as message, what the guest said as detail.
pub(super) fn refuse(denied: &Denied) -> Status {
    if !denied.operator.is_empty() {
        tracing::info!(code = denied.code, operator = %denied.operator, "request refused");
    }
    let code = code_of(denied);
    let mut status = match &denied.said {
        Some(said) => {
            let details = status_details::of_failed_call(code as i32, &denied.message, &failed_call(said));
            Status::with_details(code, denied.message.clone(), details.into())
        }
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

fn code_of(denied: &Denied) -> Code {
    match denied.code {
        _ if denied.is_about_evidence() => Code::FailedPrecondition,
        "too_large"
        | "malformed"
        | "unsupported"
        | "invalid_module"
        | "native_code_refused"
        | "abi_signature_mismatch"
        | "export_missing"
        | "import_not_granted"
        | "invalid_argument"
        | "ambiguous_digest"
        | "compile_budget"
        | "input_too_large" => Code::InvalidArgument,
        "not_loaded" | "no_deployment" | "hold_unknown" | "receipt_unknown" => Code::NotFound,
        "agent_taken"
        | "already_deployed"
        | "deployment_in_progress"
        | "in_service"
        | "nothing_to_promote"
        | "record_unreadable"
        | "rollback_refused"
        | "step_not_loaded"
        | "withheld" => Code::FailedPrecondition,
        "too_many_deployments" | "too_many_holds" => Code::ResourceExhausted,
        "compile_queue_full"
        | "memory_limit"
        | "pipeline_output_limit"
        | "pool_exhausted"
        | "pool_limit"
        | "storage_full" => Code::ResourceExhausted,
        "audit_unavailable"
        | "receipts_unavailable"
        | "receipt_pending"
        | "state_unavailable"
        | "restoring"
        | "compiler_unavailable"
        | "worker_lost"
        | "draining"
        | "evidence_stale"
        | "shutdown" => Code::Unavailable,
        "deadline_exceeded" | "cpu_budget" => Code::DeadlineExceeded,
        "trap" | "guest_error" | "stopped" | "caller_gone" => Code::Aborted,
        "container_engine_unavailable"
        | "engine_not_supported"
        | "feature_not_built"
        | "profile_unavailable"
        | "rules_unsupported"
        | "tier_unavailable" => Code::Unimplemented,
        "internal" | "engine_mismatch" | "compile_failed" => Code::Internal,
        _ => Code::PermissionDenied,
    }
}
