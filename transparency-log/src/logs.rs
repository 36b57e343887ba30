//! The logs that this server has open.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use log_store::{CheckpointKeys, Log, LogKind, LogOptions};
use serde::Serialize;
use service::admin::AdminAuth;
use trust_store::event::EventRules;

use crate::admission::Admission;
use crate::api::{BatchRoom, BundleBytes, Turns};
use crate::issuers::Issuers;
use crate::lookup::Lookup;
use crate::settings::{LogSettings, Settings};

/// One log with what its endpoints need.
pub(crate) struct ServedLog {
    pub(crate) kind: LogKind,
    pub(crate) base: String,
    pub(crate) log: Log,
    pub(crate) keys: CheckpointKeys,
    pub(crate) admission: Admission,
    pub(crate) add_token: Option<AdminAuth>,
    /// What its batches hold in memory.
    pub(crate) room: BatchRoom,
    /// Turns at verifying and answering them.
    pub(crate) batches: Turns,
    /// How large its bundles are.
    pub(crate) bundle_bytes: BundleBytes,
    pub(crate) issuers: Option<Issuers>,
    pub(crate) lookup: Option<Lookup>,
    pub(crate) settings: LogSettings,
}

/// What `/api/v1/logs` says of a log.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LogDescription {
    name: String,
    kind: &'static str,
    url: String,
    origin: String,
    vkeys: Vec<String>,
    public_key: String,
    log_id: String,
    /// Who may say what: readers verify every event again.
    #[serde(skip_serializing_if = "EventRules::is_empty")]
    events: EventRules,
}

pub(crate) fn describe(
    log: &LogSettings,
    keys: &CheckpointKeys,
    events: EventRules,
    server_url: &str,
) -> LogDescription {
    let (public_key, log_id) = keys.primary().map_or_else(Default::default, |(verifier, signer)| {
        let id = match log.kind {
            // SCTs name the log by the hash of its key (RFC 6962 section 3.2), entries by that of its note key.
            LogKind::Issuance => STANDARD.encode(signer.public_key().spki_sha256()),
            _ => verifier.key_hash().to_base64(),
        };
        (STANDARD.encode(signer.public_key().spki_der()), id)
    });
    LogDescription {
        name: log.name.clone(),
        kind: log.kind.as_str(),
        url: format!("{server_url}{}", log.base),
        origin: keys.origin().to_owned(),
        vkeys: keys.verifier_keys().map(ToString::to_string).collect(),
        public_key,
        log_id,
        events,
    }
}

/// Where and how the storage layer keeps a log.
pub(crate) fn options(settings: &Settings, log: &LogSettings, origin: &str) -> LogOptions {
    let copy = settings.head_copies.join(format!("{}.head", log.name));
    let mut options = LogOptions::new(log.kind, origin, &settings.data.join(&log.name), &copy);
    if let Some(head) = &log.raw.head {
        options.head.clone_from(head);
    }
    options.deduplication = log.deduplication;
    options.sizes = log.sizes;
    options.batching = log.batching;
    options.publishing = log.publishing;
    options.witnessing = log.witnessing;
    options.writing = log.writing;
    options
}
