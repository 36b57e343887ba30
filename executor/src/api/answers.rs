//! What a refusal is over HTTP and over gRPC: one list for both, so that neither says what the other does not.
//!
//! A caller may ask again by itself where there is a time to wait; everywhere else something must change first. That a call
//! may have begun is never hidden behind `UNAVAILABLE`, which clients of gRPC repeat without asking.

use http::StatusCode;
use tonic::Code;

use crate::admission::Denied;

/// How a refusal is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) http: StatusCode,
    pub(super) grpc: Code,
    /// Seconds after which the same request may be answered otherwise.
    pub(super) retry_after: Option<u32>,
}

const fn once(http: StatusCode, grpc: Code) -> Answer {
    Answer { http, grpc, retry_after: None }
}

const fn again(http: StatusCode, grpc: Code, seconds: u32) -> Answer {
    Answer { http, grpc, retry_after: Some(seconds) }
}

/// By the reason code.
pub(super) fn answer_of(denied: &Denied) -> Answer {
    match denied.code {
        "unauthorized" => once(StatusCode::UNAUTHORIZED, Code::Unauthenticated),
        "agent_not_allowed" | "foreign_origin" | "role_not_allowed" => {
            once(StatusCode::FORBIDDEN, Code::PermissionDenied)
        }
        "host_not_local" => once(StatusCode::MISDIRECTED_REQUEST, Code::PermissionDenied),
        "unsupported_media_type" => once(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument),
        "too_large" | "input_too_large" => once(StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument),
        "malformed"
        | "unsupported"
        | "invalid_module"
        | "native_code_refused"
        | "abi_signature_mismatch"
        | "export_missing"
        | "import_not_granted"
        | "invalid_argument"
        | "idempotency_key_reused"
        | "compile_budget" => once(StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidArgument),
        "pool_limit" => once(StatusCode::UNPROCESSABLE_ENTITY, Code::ResourceExhausted),
        "not_loaded" | "no_deployment" | "hold_unknown" | "receipt_unknown" | "stream_unknown" => {
            once(StatusCode::NOT_FOUND, Code::NotFound)
        }
        "answer_not_kept" => once(StatusCode::GONE, Code::FailedPrecondition),
        "agent_taken"
        | "already_deployed"
        | "ambiguous_digest"
        | "deployment_in_progress"
        | "in_service"
        | "nothing_to_promote"
        | "record_unreadable"
        | "rollback_refused"
        | "step_not_loaded" => once(StatusCode::CONFLICT, Code::FailedPrecondition),
        "withheld" => once(StatusCode::LOCKED, Code::FailedPrecondition),
        "memory_limit" | "pipeline_output_limit" | "too_many_deployments" | "too_many_holds" => {
            once(StatusCode::CONFLICT, Code::ResourceExhausted)
        }
        "trap" | "guest_error" | "reader_replaced" | "stopped" | "caller_gone" => {
            once(StatusCode::CONFLICT, Code::Aborted)
        }
        "compile_queue_full" => again(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, 10),
        "pool_exhausted" => again(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, 1),
        "idempotency_keys_full" | "streams_full" => {
            again(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, 10)
        }
        "storage_full" => again(StatusCode::INSUFFICIENT_STORAGE, Code::ResourceExhausted, 30),
        "receipt_pending" => again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, 1),
        "audit_unavailable" | "receipts_unavailable" | "restoring" | "state_unavailable" => {
            again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, 5)
        }
        "compiler_unavailable" | "draining" => again(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, 30),
        // Calls that had begun.
        "evidence_stale" | "shutdown" | "worker_lost" => once(StatusCode::SERVICE_UNAVAILABLE, Code::Aborted),
        "tuf_expired" => once(StatusCode::SERVICE_UNAVAILABLE, Code::FailedPrecondition),
        "deadline_exceeded" | "cpu_budget" => once(StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
        "container_engine_unavailable"
        | "engine_not_supported"
        | "extension_unavailable"
        | "feature_not_built"
        | "profile_unavailable"
        | "rules_unsupported"
        | "tier_unavailable" => once(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented),
        "internal" | "engine_mismatch" | "compile_failed" => {
            once(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal)
        }
        // Everything else is a denial by a numbered step.
        _ if denied.is_about_evidence() => once(StatusCode::FORBIDDEN, Code::FailedPrecondition),
        _ => once(StatusCode::FORBIDDEN, Code::PermissionDenied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/operations/denials.md");

    /// A row of the page: code, HTTP status, gRPC code, seconds.
    fn row(line: &str) -> Option<(String, String)> {
        let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
        let code = cells.next()?.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some((code, cells.take(3).collect::<Vec<_>>().join(" | ")))
    }

    /// Every code of the executor, and what the page says of it.
    fn rows() -> Vec<(&'static str, String)> {
        let section = PAGE.split_once("## The executor").unwrap().1.split_once("\n## ").unwrap().0;
        let rows: Vec<_> = section.lines().filter_map(row).collect();
        assert!(rows.len() > 50, "the table was not found");
        rows.into_iter().map(|(code, told)| (&*code.leak(), told)).collect()
    }

    /// A release that was denied for what may pass is neither taken back nor left alone until there is newer evidence.
    #[test]
    fn whoever_may_ask_again_is_denied_by_what_may_pass() {
        // Answers to callers, which no release is judged by.
        const OF_CALLS: [&str; 4] = ["draining", "idempotency_keys_full", "receipt_pending", "streams_full"];
        for (code, _) in rows() {
            let denied = Denied::new(code, "");
            let may_ask_again = answer_of(&denied).retry_after.is_some();
            if OF_CALLS.contains(&code) {
                assert!(may_ask_again && !denied.may_pass(), "{code} is no exception");
            } else {
                assert!(!may_ask_again || denied.may_pass(), "{code}");
            }
        }
        // Those after which nobody asks again by himself; what is about evidence stands in the other table.
        let others = rows().into_iter().map(|(code, _)| code).filter(|code| {
            let denied = Denied::new(code, "");
            denied.may_pass() && answer_of(&denied).retry_after.is_none()
        });
        let expected = ["compile_failed", "internal", "tuf_expired", "worker_lost"];
        assert_eq!(others.collect::<std::collections::BTreeSet<_>>(), expected.into());
    }

    #[test]
    fn the_page_for_operators_says_what_is_answered() {
        let mut codes = std::collections::BTreeSet::new();
        for (code, told) in rows() {
            assert!(codes.insert(code), "{code} stands there twice");
            let Answer { http, grpc, retry_after } = answer_of(&Denied::new(code, ""));
            let name = format!("{grpc:?}").chars().fold(String::new(), |mut name, c| {
                if c.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.extend(c.to_uppercase());
                name
            });
            let wait = retry_after.map_or(String::new(), |seconds| format!("{seconds} s"));
            assert_eq!(told, format!("{} | `{name}` | {wait}", http.as_u16()), "{code}");
        }
    }

    #[test]
    fn denials_are_told_apart_by_whether_evidence_may_change_them() {
        for (code, grpc) in [
            ("revoked", Code::PermissionDenied),
            ("capability_denied", Code::PermissionDenied),
            ("revocation_stale", Code::FailedPrecondition),
            ("checkpoint_stale", Code::FailedPrecondition),
        ] {
            let answer = answer_of(&Denied::in_step(11, code, ""));
            assert_eq!(answer, once(StatusCode::FORBIDDEN, grpc), "{code}");
        }
    }
}
