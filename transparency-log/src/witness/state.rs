//! The witness's keys and origins, and the one atomic step that moves a record.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hsm::software::Keystore;
use hsm::{Input, IntentId, KeyAlgorithm, KeyLabel, KeySpec, Purpose, Signer, SigningIntent};
use log_store::{Clock, Disk};
use service::StartRefusal;
use tlog::checkpoint::{Checkpoint, VerifiedCheckpoint};
use tlog::cosignature::{SubtreeStatement, TimestampedSignature, v1_message};
use tlog::hash::Hash;
use tlog::note::{KeyKind, Note, NoteSignature, VerifierKey};
use tlog::witness::{AddCheckpointRequest, Refusal};
use trust_store::provider::AwsLc;

use super::config::Settings;
use super::origins::KnownOrigins;
use super::record::{Record, RecordFiles};

/// The witness's keys: Ed25519 (`cosignature/v1`) for readers of today, ML-DSA-44 for those of tomorrow.
#[derive(Debug)]
pub struct WitnessKeys {
    name: String,
    keys: Vec<(VerifierKey, Arc<dyn Signer>)>,
}

/// Labels and algorithms of the keys.
const KEYS: [(&str, KeyAlgorithm); 2] =
    [("witness-ed25519", KeyAlgorithm::Ed25519), ("witness-mldsa44", KeyAlgorithm::MlDsa44)];

impl WitnessKeys {
    /// The keys to make at `init`.
    ///
    /// # Errors
    /// None in practice: the labels are constant.
    pub fn specs() -> Result<Vec<KeySpec>, hsm::Error> {
        KEYS.iter().map(|(label, algorithm)| KeySpec::new(label, *algorithm, Purpose::Checkpoint)).collect()
    }

    /// Opens the keys.
    ///
    /// # Errors
    /// [`StartRefusal`] when one is missing or cannot have the name.
    pub fn open(keystore: &Keystore, name: &str) -> Result<Self, StartRefusal> {
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| {
            StartRefusal::new(
                "the witness's keys cannot be used",
                "run `witness init`, or restore the keystore",
            )
            .because(error)
        };
        let mut keys = Vec::new();
        for (label, _) in KEYS {
            let label = KeyLabel::new(label).map_err(|error| unusable(error.into()))?;
            let signer = keystore.open_label(&label).map_err(|error| unusable(error.into()))?;
            let raw = signer.public_key().raw().to_vec();
            let verifier = match <&[u8; 32]>::try_from(raw.as_slice()) {
                Ok(ed25519) => VerifierKey::cosignature_v1(name, ed25519),
                Err(_) => VerifierKey::ml_dsa_44(name, &raw),
            };
            keys.push((verifier.map_err(|error| unusable(error.to_string().into()))?, signer));
        }
        Ok(Self { name: name.to_owned(), keys })
    }

    /// Verifier keys in text form.
    #[must_use]
    pub fn vkeys(&self) -> Vec<String> {
        self.keys.iter().map(|(verifier, _)| verifier.to_string()).collect()
    }

    /// One line per key over a checkpoint.
    fn cosign(&self, checkpoint: &Checkpoint, text: &str, time: u64) -> Result<Vec<NoteSignature>, String> {
        let digest = Hash::digest(text.as_bytes());
        let id = IntentId::new(digest.as_bytes()).map_err(|error| error.to_string())?;
        let intent = SigningIntent::new(Purpose::Checkpoint, id);
        let mut lines = Vec::with_capacity(self.keys.len());
        for (verifier, signer) in &self.keys {
            let message = match verifier.kind() {
                KeyKind::MlDsa44 => SubtreeStatement::of_checkpoint(&self.name, time, checkpoint)
                    .message()
                    .map_err(|error| error.to_string())?,
                _ => v1_message(time, text),
            };
            let algorithm = signer.public_key().algorithm().default_signature();
            let signature = signer
                .sign(Input::Message(&message), algorithm, &intent)
                .map_err(|error| error.to_string())?
                .into_vec();
            let body = TimestampedSignature { time, signature }.to_bytes();
            lines.push(
                NoteSignature::new(&self.name, verifier.id(), body).map_err(|error| error.to_string())?,
            );
        }
        Ok(lines)
    }
}

/// Why there is no cosignature.
#[derive(Debug)]
pub enum NoCosignature {
    /// 400: not a request.
    Malformed(String),
    /// 404: nobody configured this origin.
    UnknownOrigin,
    /// 403: no valid line of a trusted key, or an invalid one.
    Untrusted,
    /// What the protocol names: 400, 409, 422.
    Refused(Refusal),
    /// 503: the record cannot be written or the keys cannot sign.
    Unavailable(String),
}

/// All origins.
#[derive(Debug)]
pub struct WitnessState {
    keys: WitnessKeys,
    clock: Arc<dyn Clock>,
    records: HashMap<String, Record>,
    by_hash: HashMap<String, String>,
}

impl WitnessState {
    /// Opens the records. None is made: a configured origin without one is refused.
    ///
    /// # Errors
    /// [`StartRefusal`] when a record is damaged, locked, gone, or older than its second copy or the stored note.
    pub fn open(
        settings: &Settings,
        keys: WitnessKeys,
        disk: &Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartRefusal> {
        Self::open_knowing(settings, keys, disk, clock, KnownOrigins::read(&settings.keystore)?)
    }

    /// As [`open`](Self::open), with the list of origins that have a record.
    pub(super) fn open_knowing(
        settings: &Settings,
        keys: WitnessKeys,
        disk: &Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        mut known: KnownOrigins,
    ) -> Result<Self, StartRefusal> {
        let (mut records, mut by_hash) = (HashMap::new(), HashMap::new());
        for (origin, verifiers) in &settings.logs {
            let hash = hex::encode(Hash::digest(origin.as_bytes()).0);
            let files = RecordFiles::of(&settings.data, &settings.record_copies, &hash);
            let standing = known.standing(origin);
            let record = Record::open(disk, &files, origin, verifiers, standing, clock.unix_millis())?;
            by_hash.insert(hash, origin.clone());
            records.insert(origin.clone(), record);
        }
        // Before anything is cosigned.
        known.add(records.keys())?;
        Ok(Self { keys, clock, records, by_hash })
    }

    /// `add-checkpoint`: blocking. The record is durable before the lines are returned.
    ///
    /// # Errors
    /// [`NoCosignature`], in the order of the specification.
    pub fn add_checkpoint(&self, body: &[u8]) -> Result<String, NoCosignature> {
        let malformed = |error: tlog::Error| NoCosignature::Malformed(error.to_string());
        let request = AddCheckpointRequest::parse(body).map_err(malformed)?;
        let checkpoint = request.checkpoint().map_err(malformed)?;
        let record = self.records.get(checkpoint.origin()).ok_or(NoCosignature::UnknownOrigin)?;
        let (origin, keys) = (checkpoint.origin(), &record.keys);
        let opened = match VerifiedCheckpoint::open(&request.note.to_bytes(), origin, keys, &AwsLc) {
            Ok(opened) => Some(opened),
            // The log did sign this; that it contradicts itself is for the checks that follow to say.
            Err(tlog::Error::RootMismatch { .. }) => None,
            Err(_) => return Err(NoCosignature::Untrusted),
        };

        let time_millis = {
            let mut memory = record.memory.lock();
            let old = memory.head();
            let tree = request.evaluate(&old.tree).map_err(|refusal| {
                if let Refusal::Inconsistent(error) = &refusal {
                    record.keep_evidence(body, checkpoint.head(), &old.tree, error);
                }
                NoCosignature::Refused(refusal)
            })?;
            if opened.is_none() {
                return Err(NoCosignature::Untrusted);
            }
            let time_millis = self.clock.unix_millis().max(old.time_millis);
            memory.remember(tree, time_millis).map_err(NoCosignature::Unavailable)?;
            time_millis
        };

        let lines = self
            .keys
            .cosign(&checkpoint, request.note.text(), time_millis / 1000)
            .map_err(NoCosignature::Unavailable)?;
        let mut note = shown(opened.as_ref(), request.note.text()).map_err(NoCosignature::Unavailable)?;
        let mut answer = String::new();
        for line in lines {
            answer.push_str(&line.to_string());
            note.push(line);
        }
        record.show(checkpoint.head().size, note.to_bytes().into());
        Ok(answer)
    }

    /// The newest checkpoint cosigned for the origin with this SHA-256 in hex.
    #[must_use]
    pub fn checkpoint(&self, origin_hash: &str) -> Option<Bytes> {
        self.records.get(self.by_hash.get(origin_hash)?)?.note()
    }

    /// Writes the notes for monitors to disk, so that a restart has something to show. They are evidence for others, not
    /// state: the records are.
    pub fn save_notes(&self) {
        self.records.values().for_each(Record::save_note);
    }
}

/// What monitors are shown of a request's note: its text, and one line of each of the log's keys. Whoever sends a request
/// can put any other lines into the note.
fn shown(opened: Option<&VerifiedCheckpoint>, text: &str) -> Result<Note, String> {
    let mut note = Note::new(text).map_err(|error| error.to_string())?;
    for verified in opened.map(VerifiedCheckpoint::log_signatures).unwrap_or_default() {
        let same =
            |line: &&NoteSignature| line.key_id() == verified.key_id() && line.name() == verified.name();
        let sent = opened.and_then(|opened| opened.note().signatures().iter().find(same));
        if let Some(line) = sent.filter(|line| !note.signatures().contains(line)) {
            note.push(line.clone());
        }
    }
    Ok(note)
}
