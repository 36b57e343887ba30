//! The logs' keys: which there are, what they are called, opening them.

use std::sync::Arc;

use hsm::software::Keystore;
use hsm::{KeyAlgorithm, KeyLabel, KeySpec, Purpose, PurposeSet, Signer};
use log_store::{CheckpointKeys, LogKind, default_origin};
use service::StartRefusal;

use crate::settings::LogSettings;

/// Label suffix, algorithm and purposes of the keys of a kind; the first names the log.
pub(crate) fn specs(kind: LogKind) -> &'static [(&'static str, KeyAlgorithm, &'static [Purpose])] {
    match kind {
        LogKind::Issuance => &[("p256", KeyAlgorithm::EcdsaP256, &[Purpose::Checkpoint, Purpose::Sct])],
        _ => &[
            ("ed25519", KeyAlgorithm::Ed25519, &[Purpose::Checkpoint]),
            ("mldsa44", KeyAlgorithm::MlDsa44, &[Purpose::Checkpoint]),
        ],
    }
}

/// The specifications of a log's keys.
pub(crate) fn key_specs(log: &LogSettings) -> Result<Vec<KeySpec>, StartRefusal> {
    specs(log.kind)
        .iter()
        .map(|(suffix, algorithm, purposes)| {
            KeySpec::new(&format!("{}-{suffix}", log.name), *algorithm, PurposeSet::of(purposes))
        })
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(log, error))
}

/// Opens a log's keys; the origin is the configured one or comes from the first key.
pub(crate) fn open(keystore: &Keystore, log: &LogSettings) -> Result<CheckpointKeys, StartRefusal> {
    let signers = key_specs(log)?
        .iter()
        .map(|spec| keystore.open_label(&KeyLabel::new(spec.label.as_str())?))
        .collect::<Result<Vec<Arc<dyn Signer>>, _>>()
        .map_err(|error| unusable(log, error))?;
    let origin = match (&log.origin, signers.first()) {
        (Some(origin), _) => origin.clone(),
        (None, Some(first)) => default_origin(log.kind, first.public_key()),
        (None, None) => String::new(),
    };
    CheckpointKeys::new(log.kind, &origin, signers).map_err(|error| unusable(log, error))
}

fn unusable(log: &LogSettings, error: impl std::error::Error + Send + Sync + 'static) -> StartRefusal {
    StartRefusal::new(
        format!("the keys of log {:?} cannot be used", log.name),
        "run `transparency-log init` for a new log, or restore the keystore",
    )
    .because(error)
}
