//! The executor's wire types: gRPC and its twin over HTTP/JSON, and a client for the second.
//!
//! | HTTP | gRPC | request | answer |
//! |---|---|---|---|
//! | `POST /api/v1/agents` | `LoadAgent` | [`Upload`] | [`AgentSummary`] |
//! | `GET /api/v1/agents` | `ListAgents` | | list of [`AgentSummary`] |
//! | `GET /api/v1/agents/{agent}` | `IsLoaded` | | [`AgentSummary`] or 404 |
//! | `DELETE /api/v1/agents/{agent}` | `UnloadAgent` | | 204 or 404 |
//! | `POST /api/v1/agents/{agent}/execute` | `ExecuteAgent` | [`Execute`] | [`Executed`] |
//! | `POST /api/v1/agents/{agent}/stream` | `ExecuteAgentStream` | [`Execute`] | each line a [`stream::Line`] |
//! | `GET /api/v1/streams/{id}?from=NUMBER` | `StreamEvents` | | each line a [`stream::Line`] |
//! | `POST /api/v1/explain` | `ExplainAgent` | [`Upload`] | [`Explanation`] |
//! | `POST /api/v1/policy/trial` | `TryPolicy` | [`trial::Trial`] | [`trial::TrialReport`] |
//! | `GET /api/v1/instances` | `ListInstances` | | list of [`InstanceSummary`] |
//! | `POST /api/v1/instances/stop` | `StopInstances` | [`Stop`] | [`Stopped`] |
//! | `POST /api/v1/holds` | `HoldReleases` | [`hold::HoldRequest`] | [`hold::HoldReport`] |
//! | `GET /api/v1/holds` | `ListHolds` | | list of [`hold::HoldReport`] |
//! | `DELETE /api/v1/holds/{id}` | `ReleaseHold` | | [`hold::Hold`] or 404 |
//! | `POST /api/v1/drain`, `POST /api/v1/undrain` | | | [`Status`] |
//! | `GET /api/v1/status` | `GetStatus` | | [`Status`] |
//! | `POST /api/v1/evidence/refresh` | | | [`Status`] |
//!
//! `{agent}` is an agent id or a module digest. Refusals are problem documents whose extra members `code`,
//! `step`, `title` and `detail` are read back as [`Problem`]; one about a call that began has what its guest said, too
//! (over gRPC: [`status_details`]).
//!
//! Out of scope: deciding anything. A client that wants to verify offline uses `trust-store`.

#![forbid(unsafe_code)]

pub mod attested;
pub mod audit;
#[cfg(feature = "client")]
pub mod client;
pub mod deployment;
pub mod hold;
pub mod receipt;
pub mod status_details;
pub mod stream;
pub mod trial;
mod wire;

pub use wire::{
    AgentSummary, Base64Bytes, Denied, EvidenceSource, Execute, Executed, Explanation, FailedCall,
    InstanceSummary, LogLine, Metric, PermittedCapability, Problem, Said, Status, Stop, Stopped, TierStatus,
    Upload, Usage,
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

/// Generated code of `grpc.health.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    reason = "generated"
)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Generated code of `grpc.reflection.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    reason = "generated"
)]
pub mod reflection {
    tonic::include_proto!("grpc.reflection.v1");
}

/// One protocol description, for the reflection service.
#[derive(Debug, Clone, Copy)]
pub struct DescriptorFile {
    /// Its path below the root of all of them.
    pub name: &'static str,
    /// Full names of its services.
    pub services: &'static [&'static str],
    /// Full names of its services, methods, messages and enumerations.
    pub symbols: &'static [&'static str],
    /// An encoded `FileDescriptorProto`.
    pub bytes: &'static [u8],
}

/// Every protocol description.
pub const DESCRIPTORS: &[DescriptorFile] = include!(concat!(env!("OUT_DIR"), "/descriptors.rs"));

/// gRPC metadata key under which a refusal carries its stable reason code.
pub const REASON_METADATA: &str = "mentat-reason";

/// gRPC metadata key under which a refusal carries the number of the verification step.
pub const STEP_METADATA: &str = "mentat-step";

/// Largest piece of a module in one `LoadAgent` message, bytes (1 MiB).
pub const MODULE_CHUNK_BYTES: usize = 1 << 20;
