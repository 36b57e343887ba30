//! How a call or a load ended, as it travels from a worker. What comes back is one of a fixed list, or nonsense.

use executor_engine::frames::{End, Ended};

use crate::features::Feature;
use crate::runtime::{CallError, EXPORTS, PrepareError, Stop, trap_named};

/// The reason and the rest of it.
pub(super) fn of_call(error: &CallError) -> (&'static str, String) {
    match error {
        CallError::Boundary { detail } => ("boundary", detail.clone()),
        CallError::Trapped { trap } => ("trap", (*trap).to_owned()),
        CallError::Pool { detail }
        | CallError::Host { detail }
        | CallError::InWorker { detail, .. }
        | CallError::WorkerLost { detail } => (error.code(), detail.clone()),
        CallError::Stopped(Stop::Killed(_)) => ("killed", String::new()),
        // No worker runs a pipeline.
        CallError::Step { .. } => ("internal", String::new()),
        CallError::InputTooLarge { .. } | CallError::MemoryLimit | CallError::Stopped(_) => {
            (error.code(), String::new())
        }
    }
}

/// What a worker's reason means; nothing for one that no worker of this build gives, and for a stop that it was not told of.
/// What it says of itself is its word alone: it says something about the guest, which may have chosen it.
pub(super) fn read_call(reason: &str, detail: &str) -> Option<CallError> {
    let detail = || cut(detail);
    Some(match reason {
        "boundary" => CallError::Boundary { detail: detail() },
        "trap" => CallError::Trapped { trap: trap_named(&detail()) },
        "pool_exhausted" => CallError::InWorker { code: "pool_exhausted", detail: detail() },
        "internal" => CallError::InWorker { code: "internal", detail: detail() },
        "memory_limit" => CallError::MemoryLimit,
        "cpu_budget" => CallError::Stopped(Stop::CpuBudget),
        "deadline_exceeded" => CallError::Stopped(Stop::WallDeadline),
        _ => return None,
    })
}

/// The name that a refusal is about, and the rest of it.
pub(super) fn of_preparation(error: &PrepareError) -> (String, String) {
    match error {
        PrepareError::AbiSignatureMismatch { name, hint } => (name.clone(), hint.clone()),
        PrepareError::ExportMissing { name } => ((*name).to_owned(), String::new()),
        PrepareError::FeatureNotBuilt { feature } => ((*feature).to_owned(), String::new()),
        PrepareError::ImportNotGranted { name } => (name.clone(), String::new()),
        PrepareError::PoolLimit { detail } | PrepareError::Worker { detail, .. } => {
            (String::new(), detail.clone())
        }
    }
}

/// What a worker's refusal of a module means.
pub(super) fn read_preparation(reason: &str, name: &str, detail: &str) -> PrepareError {
    let (name, detail) = (cut(name), cut(detail));
    match reason {
        "abi_signature_mismatch" => PrepareError::AbiSignatureMismatch { name, hint: detail },
        "export_missing" => {
            let known = EXPORTS.iter().find(|known| **known == name);
            PrepareError::ExportMissing { name: known.copied().unwrap_or("what the executor calls") }
        }
        // A worker is of this build, and only what a component exports depends on one.
        "feature_not_built" => PrepareError::FeatureNotBuilt { feature: Feature::HttpHandler.name() },
        "import_not_granted" => PrepareError::ImportNotGranted { name },
        "pool_limit" => PrepareError::PoolLimit { detail },
        "engine_mismatch" => PrepareError::Worker { code: "engine_mismatch", detail },
        _ => PrepareError::Worker { code: "worker_lost", detail },
    }
}

/// An end that says nothing of a guest.
pub(super) fn unknown_module(call: u64) -> Ended<'static> {
    Ended {
        call,
        end: End::Failed { reason: "internal", detail: "the module is not loaded here" },
        memory: 0,
        ticks: 0,
        fuel: 0,
        refused_growths: 0,
        dropped_log_lines: 0,
        fast_lines: 0,
        fast_metrics: 0,
        output: &[],
        log: Vec::new(),
        metrics: Vec::new(),
    }
}

/// A worker's text, for the operator: short, on one line.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(512).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{KillCause, StepFailure};

    #[test]
    fn what_a_worker_says_is_one_of_a_list() {
        for error in [
            CallError::Boundary { detail: "x".into() },
            CallError::Trapped { trap: "unreachable" },
            CallError::MemoryLimit,
            CallError::Stopped(Stop::CpuBudget),
            CallError::Stopped(Stop::WallDeadline),
        ] {
            let (reason, detail) = of_call(&error);
            let read = read_call(reason, &detail).unwrap();
            assert_eq!((read.code(), read.to_string()), (error.code(), error.to_string()));
        }
        // What fails in a worker by the worker's word is no excuse for what runs there, and no reason to try again.
        for error in [CallError::Pool { detail: "x".into() }, CallError::Host { detail: "x".into() }] {
            let (reason, detail) = of_call(&error);
            let read = read_call(reason, &detail).unwrap();
            assert_eq!((read.code(), read.operator()), (error.code(), error.operator()));
            assert!(error.is_of_others() && !read.is_of_others());
            assert!(!StepFailure::from(read).may_pass());
        }
        // A stop is the executor's own word, and a trap that has no name is a trap.
        assert!(read_call(of_call(&CallError::Stopped(Stop::Killed(KillCause::Revoked))).0, "").is_none());
        assert!(read_call("revoked", "").is_none() && read_call("success", "").is_none());
        assert!(matches!(read_call("trap", "i said so"), Some(CallError::Trapped { trap: "trap" })));
    }

    #[test]
    fn a_refusal_of_a_module_keeps_its_reason() {
        for error in [
            PrepareError::AbiSignatureMismatch { name: "mentat.log".into(), hint: "h".into() },
            PrepareError::FeatureNotBuilt { feature: "http-handler" },
            PrepareError::ImportNotGranted { name: "a.b".into() },
            PrepareError::PoolLimit { detail: "d".into() },
        ] {
            let (name, detail) = of_preparation(&error);
            assert_eq!(read_preparation(error.code(), &name, &detail), error);
        }
        assert_eq!(read_preparation("whatever", "", "").code(), "worker_lost");
        assert_eq!(cut("a\nb\u{1b}"), "a b ");
    }
}
