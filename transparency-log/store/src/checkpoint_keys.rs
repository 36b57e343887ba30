//! Signs checkpoints with keys of `hsm`: Ed25519 and ML-DSA-44 lines, or the one RFC 6962 line of an issuance log.

use std::sync::Arc;

use hsm::{Input, IntentId, KeyAlgorithm, Purpose, SigningIntent};
use tlog::checkpoint::Checkpoint;
use tlog::cosignature::{SubtreeStatement, TimestampedSignature};
use tlog::hash::{Hash, TreeHead};
use tlog::note::{Note, NoteSignature, VerifierKey};
use tlog::static_ct::TreeHeadSignature;

use crate::error::{Error, Result};
use crate::kind::LogKind;
use crate::publisher::CheckpointSigner;

/// The keys of one log.
#[derive(Debug, Clone)]
pub struct CheckpointKeys {
    kind: LogKind,
    origin: String,
    keys: Vec<LogKey>,
}

#[derive(Debug, Clone)]
struct LogKey {
    verifier: VerifierKey,
    signer: Arc<dyn hsm::Signer>,
}

/// The origin a log has by default: `KIND.EIGHTHEX.mentat.internal`, from SHA-256 of its first key's SPKI.
#[must_use]
pub fn default_origin(kind: LogKind, key: &hsm::PublicKey) -> String {
    let [a, b, c, d, ..] = *key.spki_sha256();
    format!("{}.{a:02x}{b:02x}{c:02x}{d:02x}.mentat.internal", kind.as_str())
}

impl CheckpointKeys {
    /// Keys of a log: one P-256 key for an issuance log, for others an Ed25519 key and usually an ML-DSA-44 key.
    ///
    /// # Errors
    /// [`Error::Signer`] when the key types do not fit the kind, or the origin cannot be a key name.
    pub fn new(kind: LogKind, origin: &str, signers: Vec<Arc<dyn hsm::Signer>>) -> Result<Self> {
        let mut keys = Vec::with_capacity(signers.len());
        for signer in signers {
            let verifier = verifier_key(kind, origin, signer.public_key())?;
            keys.push(LogKey { verifier, signer });
        }
        let has = |algorithm| keys.iter().any(|key| key.signer.public_key().algorithm() == algorithm);
        let first = if kind == LogKind::Issuance { KeyAlgorithm::EcdsaP256 } else { KeyAlgorithm::Ed25519 };
        if !has(first) {
            return Err(Error::Signer(format!(
                "a log of kind {} needs a key of type {first}",
                kind.as_str()
            )));
        }
        Checkpoint::new(origin, TreeHead { size: 0, root: tlog::hash::EMPTY_ROOT }).map_err(signer_error)?;
        Ok(Self { kind, origin: origin.to_owned(), keys })
    }

    /// First line of the log's checkpoints and name of its keys.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What verifies the log's checkpoints.
    pub fn verifier_keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.keys.iter().map(|key| &key.verifier)
    }

    /// The key that names the log: the first.
    #[must_use]
    pub fn primary(&self) -> Option<(&VerifierKey, &Arc<dyn hsm::Signer>)> {
        self.keys.first().map(|key| (&key.verifier, &key.signer))
    }
}

impl CheckpointSigner for CheckpointKeys {
    fn sign(&self, head: &TreeHead, time_millis: u64) -> Result<Vec<u8>> {
        let checkpoint = Checkpoint::new(&self.origin, *head).map_err(signer_error)?;
        let mut note = Note::new(&checkpoint.to_string()).map_err(signer_error)?;
        let count = self.keys.len().max(1);
        let turn = match self.kind {
            // Stock clients read these checkpoints, and sigstore-java takes the first line of the log's name, whatever key it
            // is of: that of the key in the trusted root.
            LogKind::Signing => 0,
            // The order of lines carries no meaning, and varies so that no reader of ours comes to depend on it.
            _ => usize::try_from(time_millis % count as u64).unwrap_or_default(),
        };
        for key in self.keys.iter().cycle().skip(turn).take(self.keys.len()) {
            let body = key.sign(&checkpoint, note.text(), time_millis)?;
            let line = NoteSignature::new(&self.origin, key.verifier.id(), body).map_err(signer_error)?;
            note.push(line);
        }
        Ok(note.to_bytes())
    }
}

impl LogKey {
    /// The body of this key's line.
    fn sign(&self, checkpoint: &Checkpoint, text: &str, time_millis: u64) -> Result<Vec<u8>> {
        let head = checkpoint.head();
        let intent = intent(checkpoint)?;
        let sign = |message: &[u8]| {
            let algorithm = self.signer.public_key().algorithm().default_signature();
            self.signer
                .sign(Input::Message(message), algorithm, &intent)
                .map(hsm::Signature::into_vec)
                .map_err(|error| Error::Signer(error.to_string()))
        };
        match self.signer.public_key().algorithm() {
            KeyAlgorithm::MlDsa44 => {
                let time = time_millis / 1000;
                let statement = SubtreeStatement::of_checkpoint(checkpoint.origin(), time, checkpoint);
                let signature = sign(&statement.message().map_err(signer_error)?)?;
                Ok(TimestampedSignature { time, signature }.to_bytes())
            }
            KeyAlgorithm::EcdsaP256 => {
                let signature = sign(&TreeHeadSignature::message(time_millis, head))?;
                TreeHeadSignature { timestamp: time_millis, signature }.to_bytes().map_err(signer_error)
            }
            _ => sign(text.as_bytes()),
        }
    }
}

fn verifier_key(kind: LogKind, origin: &str, key: &hsm::PublicKey) -> Result<VerifierKey> {
    let unfit = || {
        Error::Signer(format!(
            "a log of kind {} cannot have a key of type {}",
            kind.as_str(),
            key.algorithm()
        ))
    };
    let made = match (kind, key.algorithm()) {
        (LogKind::Issuance, KeyAlgorithm::EcdsaP256) => VerifierKey::tree_head(origin, key.spki_der()),
        (LogKind::Issuance, _) => return Err(unfit()),
        (_, KeyAlgorithm::Ed25519) => {
            VerifierKey::ed25519(origin, key.raw().try_into().map_err(|_| unfit())?)
        }
        (_, KeyAlgorithm::MlDsa44) => VerifierKey::ml_dsa_44(origin, key.raw()),
        _ => return Err(unfit()),
    };
    made.map_err(signer_error)
}

/// The record that justifies the signature is the committed head.
fn intent(checkpoint: &Checkpoint) -> Result<SigningIntent> {
    let id = IntentId::new(Hash::digest(checkpoint.to_string().as_bytes()).as_bytes())
        .map_err(|error| Error::Signer(error.to_string()))?;
    Ok(SigningIntent::new(Purpose::Checkpoint, id))
}

fn signer_error(error: tlog::error::Error) -> Error {
    Error::Signer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hsm::software::Keystore;
    use hsm::{KeyLabel, KeyProvider, KeySpec, Passphrase};
    use tlog::checkpoint::VerifiedCheckpoint;
    use tlog::note::KeyKind;
    use trust_store::provider::AwsLc;

    fn keys(kind: LogKind, algorithms: &[KeyAlgorithm]) -> Result<CheckpointKeys> {
        let dir = tempfile::tempdir().unwrap();
        let keystore = Keystore::create_with(
            &dir.path().join("keys"),
            &Passphrase::random().unwrap(),
            hsm::software::KeystoreOptions::default().with_kdf(hsm::software::KdfProfile::DangerForTests),
        )
        .unwrap();
        let signers = algorithms
            .iter()
            .map(|algorithm| {
                let label = KeyLabel::new(&format!("k-{algorithm}")).unwrap();
                let spec = KeySpec::new(label.as_str(), *algorithm, Purpose::Checkpoint).unwrap();
                keystore.generate(&spec).unwrap()
            })
            .collect();
        CheckpointKeys::new(kind, "signing.01234567.mentat.internal", signers)
    }

    #[test]
    fn both_lines_of_a_checkpoint_verify_whatever_their_order() {
        let first = order(LogKind::Event);
        assert_ne!(first[0], first[1]);
        // Stock clients know one key, and one of them takes the first line for it.
        assert_eq!(order(LogKind::Signing), [KeyKind::Ed25519; 2]);
    }

    /// Which line comes first at two times.
    fn order(kind: LogKind) -> Vec<KeyKind> {
        let keys = keys(kind, &[KeyAlgorithm::Ed25519, KeyAlgorithm::MlDsa44]).unwrap();
        let head = TreeHead { size: 5, root: Hash([3; 32]) };
        let verifiers: Vec<_> = keys.verifier_keys().cloned().collect();
        let mut first = Vec::new();
        for time in [9_000, 9_001] {
            let note = keys.sign(&head, time).unwrap();
            let opened = VerifiedCheckpoint::open(&note, keys.origin(), &verifiers, &AwsLc).unwrap();
            assert_eq!(*opened.head(), head);
            assert_eq!(opened.log_signatures().len(), 2);
            assert_eq!(opened.log_signed_at(), Some(9));
            first.push(opened.log_signatures()[0].kind());
        }
        first
    }

    #[test]
    fn an_issuance_log_signs_a_tree_head() {
        let keys = keys(LogKind::Issuance, &[KeyAlgorithm::EcdsaP256]).unwrap();
        let note = keys.sign(&TreeHead { size: 1, root: Hash([3; 32]) }, 9_500).unwrap();
        let verifiers: Vec<_> = keys.verifier_keys().cloned().collect();
        let opened = VerifiedCheckpoint::open(&note, keys.origin(), &verifiers, &AwsLc).unwrap();
        assert_eq!(opened.log_signatures()[0].kind(), KeyKind::TreeHead);
    }

    #[test]
    fn key_types_must_fit_the_kind() {
        assert!(keys(LogKind::Issuance, &[KeyAlgorithm::Ed25519]).is_err());
        assert!(keys(LogKind::Signing, &[KeyAlgorithm::EcdsaP256]).is_err());
        assert!(keys(LogKind::Signing, &[KeyAlgorithm::MlDsa44]).is_err());
    }
}
