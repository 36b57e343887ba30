//! The sections of the file, as they are written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use executor_engine::Profile;
use executor_engine::pool::PoolLimits;
use serde::Deserialize;
use service::StartRefusal;

use super::extensions::ExtensionsSection;
use super::network::NetworkSection;
use crate::evidence::OcspMode;
use crate::idempotency::AnswerLimits;
use crate::worker::WorkerLimits;

/// Name of a profile.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    /// Fuel.
    Deterministic,
    /// Epochs, and room for guests made from JavaScript and Python.
    Large,
    /// Epochs.
    #[default]
    Standard,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Deterministic => Self::Deterministic,
            ProfileName::Large => Self::Large,
            ProfileName::Standard => Self::Standard,
        }
    }
}

/// `[evidence]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceSection {
    /// Seconds between two refreshes. A revocation reaches running instances within this time and two ticks.
    pub refresh_seconds: u64,
    /// Seconds one request may take.
    pub timeout_seconds: u64,
    /// CRLs that are always fetched.
    pub crl_urls: Vec<String>,
    /// Beginnings of URLs below which CRLs named in certificates are fetched, and OCSP responders asked.
    pub status_bases: Vec<String>,
    /// Whether OCSP responders are asked.
    pub ocsp: OcspMode,
    /// The OCSP responder for certificates that name none below `status_bases`; absent: nobody is asked about those.
    pub ocsp_responder: Option<String>,
    /// Base URL of the event log. When it grows, lists are asked for at once.
    pub events: Option<String>,
    /// `log_keys.json`, by which what that log says is believed; absent: nothing is.
    pub event_keys: Option<PathBuf>,
    /// Logs whose checkpoints are fetched.
    pub logs: Vec<LogSection>,
    /// PEM file with the authorities of TLS servers that evidence comes from; absent: the system's.
    #[serde(alias = "ca_file")]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file with the client certificate that the executor shows to them, then its intermediates.
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file with its key, mode 0600.
    pub tls_key_file: Option<PathBuf>,
    /// Where evidence is put that is carried in as a signed file; absent: nothing is imported.
    pub import_file: Option<PathBuf>,
    /// PEM files with the public keys of whoever signs it.
    pub import_signers: Vec<PathBuf>,
    /// What becomes of calls in flight when the evidence for their agent has grown older than policy allows.
    pub on_stale: OnStale,
    /// Seconds that calls have to end by themselves then.
    pub stale_drain_seconds: u64,
}

/// `[evidence] on_stale`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// Calls in flight may end by themselves.
    #[default]
    Drain,
    /// Calls in flight end at once.
    Stop,
}

impl Default for EvidenceSection {
    fn default() -> Self {
        Self {
            refresh_seconds: 30,
            timeout_seconds: 10,
            crl_urls: Vec::new(),
            status_bases: Vec::new(),
            ocsp: OcspMode::default(),
            ocsp_responder: None,
            events: None,
            event_keys: None,
            logs: Vec::new(),
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            import_file: None,
            import_signers: Vec::new(),
            on_stale: OnStale::default(),
            stale_drain_seconds: 30,
        }
    }
}

/// `[[evidence.logs]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// Origin, as the trusted root names it.
    pub origin: String,
    /// Base URL to read from.
    pub url: String,
}

/// `[pool]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSection {
    /// Guests that can live at once. Each reserves 4 GiB of address space, not of memory.
    pub slots: u32,
    /// Calls of one agent at the same time; absent: a quarter of all.
    pub calls_per_agent: Option<u32>,
}

impl Default for PoolSection {
    fn default() -> Self {
        Self { slots: PoolLimits::default().slots, calls_per_agent: None }
    }
}

/// `[workers]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkersSection {
    /// Worker processes at the same time, one for each signer below the level `verified`; 0: such modules do not run.
    pub processes: u16,
    /// Calls at the same time in one.
    pub calls: u16,
    /// Seconds after which one without calls is ended.
    pub idle_seconds: u64,
}

impl Default for WorkersSection {
    fn default() -> Self {
        let limits = WorkerLimits::default();
        Self {
            processes: u16::try_from(limits.processes).unwrap_or_default(),
            calls: limits.calls,
            idle_seconds: limits.idle.as_secs(),
        }
    }
}

impl WorkersSection {
    /// `guest_memory` is what one guest may have at most.
    pub(super) fn validate(
        &self,
        guest_memory: usize,
        in_range: impl Fn(&str, u64, u64, u64) -> Result<u64, StartRefusal>,
    ) -> Result<Option<WorkerLimits>, StartRefusal> {
        let processes = in_range("workers.processes", self.processes.into(), 0, 256)?;
        let calls = in_range("workers.calls", self.calls.into(), 1, 64)?;
        let idle = in_range("workers.idle_seconds", self.idle_seconds, 1, 86_400)?;
        Ok((processes > 0).then_some(WorkerLimits {
            processes: processes as usize,
            calls: u16::try_from(calls).unwrap_or(1),
            idle: Duration::from_secs(idle),
            guest_memory,
        }))
    }
}

/// `[grants]`. The policy says what may be granted; this section says what it is made of.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrantsSection {
    /// Environment variables: name and the file that holds the value.
    pub env: BTreeMap<String, PathBuf>,
    /// Directories of guests: the path that a guest sees and the directory of this machine behind it.
    pub files: BTreeMap<String, PathBuf>,
    /// Requests to other hosts.
    pub network: NetworkSection,
    /// What else is offered by name.
    pub extensions: ExtensionsSection,
    /// Whether there is a media store, and where.
    pub media: MediaSection,
    /// MiB of media objects kept; further uploads are refused.
    pub media_max_mib: Option<u64>,
}

/// `[grants.media]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediaSection {
    /// Objects as files in the state folder.
    LocalFiles,
    /// None: `extension:media` is refused.
    #[default]
    None,
    /// Objects in the bucket of `[media.s3]`.
    S3,
}

/// `[cache]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSection {
    /// MiB of machine code kept on disk.
    pub max_mib: u64,
}

impl Default for CacheSection {
    fn default() -> Self {
        Self { max_mib: 2048 }
    }
}

/// `[idempotency]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencySection {
    /// Seconds after the end of a call in which its key gets the same answer.
    pub window_seconds: u64,
    /// Keys that are known at the same time, of calls under way and of calls that ended.
    pub keys: u64,
    /// MiB of answers that are kept for them.
    pub answers_mib: u64,
}

impl Default for IdempotencySection {
    fn default() -> Self {
        Self { window_seconds: 600, keys: 10_000, answers_mib: 64 }
    }
}

impl IdempotencySection {
    pub(super) fn validate(
        &self,
        in_range: impl Fn(&str, u64, u64, u64) -> Result<u64, StartRefusal>,
    ) -> Result<AnswerLimits, StartRefusal> {
        let window = in_range("idempotency.window_seconds", self.window_seconds, 1, 86_400)?;
        let keys = in_range("idempotency.keys", self.keys, 2, 1_000_000)?;
        let mib = in_range("idempotency.answers_mib", self.answers_mib, 1, 4096)?;
        Ok(AnswerLimits {
            window: Duration::from_secs(window),
            keys: usize::try_from(keys).unwrap_or(usize::MAX),
            bytes: usize::try_from(mib << 20).unwrap_or(usize::MAX),
        })
    }
}

/// `[receipts]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiptsSection {
    /// PEM file with the key that signs what the event log is told of the receipt log; absent: it is told nothing.
    pub anchor_key_file: Option<PathBuf>,
    /// Seconds between two heads that it is told of.
    pub anchor_seconds: u64,
}

impl Default for ReceiptsSection {
    fn default() -> Self {
        Self { anchor_key_file: None, anchor_seconds: 600 }
    }
}

/// `[policy_change]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyChangeSection {
    /// `stop`, or `drain`.
    pub calls: OnPolicyChange,
    /// Seconds that calls have to end by themselves.
    pub drain_seconds: u64,
}

impl Default for PolicyChangeSection {
    fn default() -> Self {
        Self { calls: OnPolicyChange::Stop, drain_seconds: 30 }
    }
}

/// `[policy_change] calls`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPolicyChange {
    /// Calls in flight may end by themselves.
    Drain,
    /// Calls in flight end at once.
    #[default]
    Stop,
}
