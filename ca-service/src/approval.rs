//! M-of-N approvals: signatures of named people over the exact intent (ca-requirements, "M-of-N").
//!
//! An approval is a DSSE envelope with the payload type [`PAYLOAD_TYPE`]. Its payload names what is approved by SHA-256, so an
//! approval of one intent says nothing about any other. [`Quorum::judge`] is the only source of an [`Approved`], which what it
//! guards takes by value.

use std::path::{Path, PathBuf};

use hsm::{Input, PublicKey};
use serde::{Deserialize, Serialize};
use service::StartRefusal;
use sha2::{Digest, Sha256};
use trust_store::dsse::{self, Envelope};

/// What an approval's payload is, signed together with it.
pub const PAYLOAD_TYPE: &str = "application/vnd.mentat.approval+json";
/// Most approvers of one quorum.
pub const MAX_APPROVERS: usize = 32;
/// Largest approval that is read, in bytes.
pub const MAX_APPROVAL: usize = 16 * 1024;
/// Largest PEM public key that is read, in bytes.
const MAX_KEY_FILE: u64 = 8192;

/// The `[approvals]` section: without it nobody approves anything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalsConfig {
    /// How many different approvers an intent needs, at least 1.
    pub threshold: u8,
    /// Who may approve, at least as many, at most 32.
    pub approvers: Vec<ApproverConfig>,
    /// An order that revokes more certificates than this needs the quorum. Default 100. A guard against mistakes: who may revoke
    /// single certificates can do without orders.
    #[serde(default = "default_revocations")]
    pub revocations_above: u64,
}

fn default_revocations() -> u64 {
    100
}

/// One person who may approve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproverConfig {
    /// The name that approvals carry, unique.
    pub name: String,
    /// PEM file with the public key (SubjectPublicKeyInfo), relative to `data_dir`.
    pub public_key_file: PathBuf,
}

/// What is approved. Each kind has its own intents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Intent {
    /// The bytes of a ceremony's plan.
    Ceremony,
    /// The bytes of an order to revoke many certificates.
    Revocation,
}

/// What an approver signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What kind of intent it is.
    pub approves: Intent,
    /// SHA-256 of the intent, hexadecimal.
    pub intent_sha256: String,
    /// Who approves.
    pub approver: String,
    /// When, seconds since 1970; for the record, the intent's own time limit decides.
    pub at: i64,
}

impl Statement {
    /// The approval of an intent.
    #[must_use]
    pub fn of(approves: Intent, intent: &[u8], approver: &str, at: i64) -> Self {
        let intent_sha256 = hex::encode(Sha256::digest(intent));
        Self { approves, intent_sha256, approver: approver.to_owned(), at }
    }

    /// The bytes that are signed, and the payload among them.
    ///
    /// # Errors
    /// [`ApprovalRefusal::Malformed`] when it cannot be written.
    pub fn to_be_signed(&self) -> Result<(Vec<u8>, Vec<u8>), ApprovalRefusal> {
        let payload = serde_json::to_vec(self).map_err(|_| ApprovalRefusal::Malformed)?;
        Ok((dsse::pae(PAYLOAD_TYPE, &payload), payload))
    }
}

/// Why a quorum did not approve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalRefusal {
    /// An approval is not what one looks like.
    #[error("approval_malformed: a file is no approval of this format")]
    Malformed,
    /// An approval is for another intent.
    #[error("approval_of_other_intent: {0} approved something else")]
    OtherIntent(String),
    /// The signature is not that approver's.
    #[error("approval_signature_invalid: the signature is not {0}'s")]
    SignatureInvalid(String),
    /// Nobody of that name may approve.
    #[error("approver_unknown: {0} is not an approver")]
    UnknownApprover(String),
    /// Too few.
    #[error("quorum_missing: {needed} different approvers are needed, {found} approved")]
    QuorumMissing {
        /// How many are needed.
        needed: u8,
        /// How many approved.
        found: usize,
    },
}

impl ApprovalRefusal {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "approval_malformed",
            Self::OtherIntent(_) => "approval_of_other_intent",
            Self::QuorumMissing { .. } => "quorum_missing",
            Self::SignatureInvalid(_) => "approval_signature_invalid",
            Self::UnknownApprover(_) => "approver_unknown",
        }
    }
}

/// One accepted approval, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// Who.
    pub approver: String,
    /// SHA-256 of the key, hexadecimal.
    pub spki_sha256: String,
    /// When, as the approver says.
    pub at: i64,
    /// The envelope: the proof, which anybody can verify again.
    pub envelope: serde_json::Value,
}

/// The proof that a quorum approved one intent. Only [`Quorum::judge`] makes it.
#[derive(Debug)]
#[must_use = "an approval that nothing takes permits nothing"]
pub struct Approved {
    accepted: Vec<Accepted>,
    intent: [u8; 32],
}

impl Approved {
    /// Who approved, by name.
    #[must_use]
    pub fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// Whether it is this intent that was approved.
    #[must_use]
    pub fn covers(&self, intent: &[u8]) -> bool {
        <[u8; 32]>::from(Sha256::digest(intent)) == self.intent
    }
}

/// The approvers with their keys.
#[derive(Debug, Clone)]
pub struct Quorum {
    threshold: u8,
    revocations_above: u64,
    approvers: Vec<(String, PublicKey)>,
}

impl ApprovalsConfig {
    /// Refuses numbers and names that cannot be meant.
    ///
    /// # Errors
    /// [`StartRefusal`].
    pub fn validate(&self) -> Result<(), StartRefusal> {
        let refuse = |what: &str, remedy: &str| Err(StartRefusal::new(what, remedy));
        if self.threshold == 0 || usize::from(self.threshold) > self.approvers.len() {
            return refuse(
                "approvals.threshold is not between 1 and the number of approvers",
                "name at least as many approvers as must agree",
            );
        }
        if self.approvers.len() > MAX_APPROVERS {
            return refuse(
                "approvals.approvers names more than 32",
                "a quorum of more cannot be brought together",
            );
        }
        let named = |approver: &ApproverConfig| {
            let name = &approver.name;
            !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.@".contains(&octet))
        };
        if !self.approvers.iter().all(named) {
            return refuse(
                "an approver's name is not 1 to 64 letters, digits, - _ . and @",
                "rename the approver",
            );
        }
        let mut names: Vec<&str> = self.approvers.iter().map(|approver| approver.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return refuse("two approvers have one name", "give every approver a name of their own");
        }
        Ok(())
    }
}

impl Quorum {
    /// Reads the approvers' keys; `base` is where relative paths start.
    ///
    /// # Errors
    /// [`StartRefusal`] when a key cannot be read, or two approvers share one: a person counts once.
    pub fn load(config: &ApprovalsConfig, base: &Path) -> Result<Self, StartRefusal> {
        config.validate()?;
        let mut approvers: Vec<(String, PublicKey)> = Vec::new();
        for approver in &config.approvers {
            let path = base.join(&approver.public_key_file);
            let key = read_key(&path).map_err(|detail| {
                StartRefusal::new(
                    format!(
                        "the public key of the approver {} ({}): {detail}",
                        approver.name,
                        path.display()
                    ),
                    "give a PEM file that begins with BEGIN PUBLIC KEY",
                )
            })?;
            if let Some((other, _)) = approvers.iter().find(|(_, known)| *known == key) {
                return Err(StartRefusal::new(
                    format!("the approvers {other} and {} have one key", approver.name),
                    "every approver needs a key of their own",
                ));
            }
            approvers.push((approver.name.clone(), key));
        }
        Ok(Self { threshold: config.threshold, revocations_above: config.revocations_above, approvers })
    }

    /// How many must agree.
    #[must_use]
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// An order that revokes more certificates than this needs approval.
    #[must_use]
    pub fn revocations_above(&self) -> u64 {
        self.revocations_above
    }

    /// Verifies approvals of an intent. One bad approval fails the whole: a ceremony is not held with papers out of order.
    ///
    /// # Errors
    /// [`ApprovalRefusal`].
    pub fn judge(
        &self,
        kind: Intent,
        intent: &[u8],
        approvals: &[Vec<u8>],
    ) -> Result<Approved, ApprovalRefusal> {
        let wanted: [u8; 32] = Sha256::digest(intent).into();
        let mut accepted: Vec<Accepted> = Vec::new();
        for bytes in approvals {
            let one = self.verify(kind, &wanted, bytes)?;
            // The same person twice is one.
            if accepted.iter().all(|known| known.spki_sha256 != one.spki_sha256) {
                accepted.push(one);
            }
        }
        if accepted.len() < usize::from(self.threshold) {
            return Err(ApprovalRefusal::QuorumMissing { needed: self.threshold, found: accepted.len() });
        }
        accepted.sort_by(|one, other| one.approver.cmp(&other.approver));
        Ok(Approved { accepted, intent: wanted })
    }

    fn verify(&self, kind: Intent, wanted: &[u8; 32], bytes: &[u8]) -> Result<Accepted, ApprovalRefusal> {
        if bytes.len() > MAX_APPROVAL {
            return Err(ApprovalRefusal::Malformed);
        }
        let envelope = Envelope::parse(bytes).map_err(|_| ApprovalRefusal::Malformed)?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(ApprovalRefusal::Malformed);
        }
        let statement: Statement =
            serde_json::from_slice(&envelope.payload).map_err(|_| ApprovalRefusal::Malformed)?;
        let name = statement.approver;
        let Some((_, key)) = self.approvers.iter().find(|(known, _)| *known == name) else {
            return Err(ApprovalRefusal::UnknownApprover(name.chars().take(64).collect()));
        };
        let signature = envelope.single_signature().map_err(|_| ApprovalRefusal::Malformed)?;
        if key
            .verify(key.algorithm().default_signature(), Input::Message(&envelope.pae()), &signature.sig)
            .is_err()
        {
            return Err(ApprovalRefusal::SignatureInvalid(name));
        }
        if statement.approves != kind || statement.intent_sha256 != hex::encode(wanted) {
            return Err(ApprovalRefusal::OtherIntent(name));
        }
        let envelope = serde_json::to_value(&envelope).map_err(|_| ApprovalRefusal::Malformed)?;
        Ok(Accepted { approver: name, spki_sha256: key.spki_sha256_hex(), at: statement.at, envelope })
    }
}

fn read_key(path: &Path) -> Result<PublicKey, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_KEY_FILE {
        return Err("it is too large".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let spki = ca_pki::pem::decode("public key", &["PUBLIC KEY"], &text, MAX_KEY_FILE as usize)
        .map_err(|error| error.to_string())?;
    PublicKey::from_spki_der(&spki).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hsm::developer::DeveloperKey;
    use hsm::{IntentId, KeyAlgorithm, Purpose, Signer as _, SigningIntent};

    fn approve(key: &DeveloperKey, statement: &Statement) -> Vec<u8> {
        let (signed, payload) = statement.to_be_signed().unwrap();
        let intent = SigningIntent::new(Purpose::Statement, IntentId::new(&[1; 16]).unwrap());
        let signature = key.sign_message(&signed, &intent).unwrap();
        serde_json::to_vec(&Envelope::new(PAYLOAD_TYPE, payload, signature.into_vec())).unwrap()
    }

    struct People {
        folder: tempfile::TempDir,
        keys: Vec<DeveloperKey>,
        config: ApprovalsConfig,
    }

    fn people(threshold: u8) -> People {
        let folder = tempfile::tempdir().unwrap();
        let kinds = [KeyAlgorithm::Ed25519, KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384];
        let keys: Vec<DeveloperKey> = kinds.map(|kind| DeveloperKey::generate(kind).unwrap()).into();
        let mut approvers = Vec::new();
        for (name, key) in ["alice", "bob", "carol"].into_iter().zip(&keys) {
            std::fs::write(folder.path().join(name), key.public_key().to_pem()).unwrap();
            approvers.push(ApproverConfig { name: name.into(), public_key_file: name.into() });
        }
        People { folder, keys, config: ApprovalsConfig { threshold, approvers, revocations_above: 0 } }
    }

    #[test]
    fn enough_different_people_approve_exactly_what_they_signed() {
        let people = people(2);
        let quorum = Quorum::load(&people.config, people.folder.path()).unwrap();
        let paper = |who: usize, name: &str, intent: &[u8]| {
            approve(&people.keys[who], &Statement::of(Intent::Ceremony, intent, name, 7))
        };
        let judge = |papers: &[Vec<u8>]| quorum.judge(Intent::Ceremony, b"plan", papers);
        let (alice, bob) = (paper(0, "alice", b"plan"), paper(1, "bob", b"plan"));
        let approved = judge(&[bob.clone(), alice.clone()]).unwrap();
        assert!(approved.covers(b"plan") && !approved.covers(b"Plan"));
        let names: Vec<&str> = approved.accepted().iter().map(|one| one.approver.as_str()).collect();
        assert_eq!(names, ["alice", "bob"]);

        let code = |papers: &[Vec<u8>]| judge(papers).unwrap_err().code();
        assert_eq!(code(&[]), "quorum_missing");
        assert_eq!(code(&[alice.clone(), alice.clone()]), "quorum_missing", "one person counts once");
        assert_eq!(code(&[alice.clone(), paper(1, "bob", b"another plan")]), "approval_of_other_intent");
        assert_eq!(code(&[alice.clone(), paper(0, "bob", b"plan")]), "approval_signature_invalid");
        assert_eq!(code(&[alice.clone(), paper(1, "mallory", b"plan")]), "approver_unknown");
        assert_eq!(code(&[alice.clone(), b"{}".to_vec()]), "approval_malformed");
        let other_type = String::from_utf8(bob).unwrap().replace("mentat.approval", "mentat.something");
        assert_eq!(code(&[alice, other_type.into_bytes()]), "approval_malformed");
    }

    #[test]
    fn what_is_signed_is_frozen() {
        let statement = Statement::of(Intent::Ceremony, b"plan", "alice", 1_700_000_000);
        let (signed, payload) = statement.to_be_signed().unwrap();
        let digest = hex::encode(Sha256::digest(b"plan"));
        let text = format!(
            "{{\"approves\":\"ceremony\",\"intent_sha256\":\"{digest}\",\"approver\":\"alice\",\"at\":1700000000}}"
        );
        assert_eq!(String::from_utf8(payload).unwrap(), text);
        let head = format!("DSSEv1 36 application/vnd.mentat.approval+json {} ", text.len());
        assert_eq!(String::from_utf8(signed).unwrap(), format!("{head}{text}"));
    }

    #[test]
    fn a_quorum_that_cannot_be_meant_is_refused_at_start() {
        let good = people(3);
        assert!(Quorum::load(&good.config, good.folder.path()).is_ok());
        for threshold in [0, 4] {
            let config = ApprovalsConfig { threshold, ..good.config.clone() };
            assert!(config.validate().unwrap_err().to_string().contains("threshold"));
        }
        let mut twice = good.config.clone();
        twice.approvers[1].name = "alice".into();
        assert!(twice.validate().unwrap_err().to_string().contains("one name"));
        let mut shared = good.config.clone();
        shared.approvers[1].public_key_file = "alice".into();
        assert!(Quorum::load(&shared, good.folder.path()).unwrap_err().to_string().contains("one key"));
        let mut missing = good.config.clone();
        missing.approvers[2].public_key_file = "nobody".into();
        assert!(Quorum::load(&missing, good.folder.path()).unwrap_err().to_string().contains("carol"));
    }
}
