//! The executor's wire types: gRPC and its twin over HTTP/JSON, and a client for the second.
//!
//! | HTTP | gRPC | request | answer |
//! |---|---|---|---|
//! | `POST /api/v1/agents` | `LoadAgent` | [`Upload`] | [`AgentSummary`] |
//! | `GET /api/v1/agents` | `ListAgents` | | list of [`AgentSummary`] |
//! | `GET /api/v1/agents/{agent}` | `IsLoaded` | | [`AgentSummary`] or 404 |
//! | `DELETE /api/v1/agents/{agent}` | `UnloadAgent` | | 204 or 404 |
//! | `POST /api/v1/agents/{agent}/execute` | `ExecuteAgent` | [`Execute`] | [`Executed`] |
//! | `POST /api/v1/explain` | `ExplainAgent` | [`Upload`] | [`Explanation`] |
//! | `POST /api/v1/instances/stop` | `StopInstances` | [`Stop`] | [`Stopped`] |
//! | `GET /api/v1/status` | `GetStatus` | | [`Status`] |
//! | `POST /api/v1/evidence/refresh` | | | [`Status`] |
//!
//! `{agent}` is an agent id or a module digest. Refusals are problem documents whose extra members `code`,
//! `step`, `title` and `detail` are read back as [`Problem`].
//!
//! Out of scope: deciding anything. A client that wants to verify offline uses `trust-store`.

#![forbid(unsafe_code)]

pub mod audit;
#[cfg(feature = "client")]
pub mod client;
pub mod deployment;
pub mod receipt;
mod wire;

pub use wire::{
    AgentSummary, Base64Bytes, Denied, EvidenceSource, Execute, Executed, Explanation, LogLine, Metric,
    Problem, Status, Stop, Stopped, Upload, Usage,
};

/// Generated code of `mentat.executor.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("mentat.executor.v1");
}

/// gRPC metadata key under which a refusal carries its stable reason code.
pub const REASON_METADATA: &str = "mentat-reason";

/// gRPC metadata key under which a refusal carries the number of the verification step.
pub const STEP_METADATA: &str = "mentat-step";

/// Largest piece of a module in one `LoadAgent` message, bytes (1 MiB).
pub const MODULE_CHUNK_BYTES: usize = 1 << 20;
