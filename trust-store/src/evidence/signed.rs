//! Evidence as one signed file, for a machine without a network.
//!
//! The file is a DSSE envelope of type [`PAYLOAD_TYPE`]; its payload is JSON with `version` (1), `created` and `expires`
//! (RFC 3339) and `evidence`, the unsigned file form. One key of those that the reader configured must have signed it.
//!
//! The signature does not make anything inside true: every list, answer and checkpoint is judged as if it had been
//! fetched, and is as fresh as it says itself. What the signature adds is that the pieces were collected together, at
//! `created`, by somebody who is trusted to leave nothing out: nobody who carries the file can take a list away, put an
//! older one in its place, or go on using it after `expires`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tlog::signature::SignatureVerifier;

use super::{Evidence, File, MAX_EVIDENCE_BYTES, Version};
use crate::algorithm::SubjectPublicKey;
use crate::dsse::{self, Envelope};
use crate::error::Error;
use crate::json;
use crate::key_details::KeyDetails;
use crate::pem;
use crate::policy::MAX_CLOCK_SKEW;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;

/// Payload type of the envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.mentat.evidence.v1+json";
/// Largest signed file, in bytes: the evidence in base64, and room.
pub const MAX_SIGNED_EVIDENCE_BYTES: usize = MAX_EVIDENCE_BYTES / 3 * 4 + (1 << 20);
/// Longest time between `created` and `expires`, in seconds: 90 days. What is inside expires much earlier.
pub const MAX_LIFETIME: i64 = 90 * 86_400;
/// Most keys that a reader accepts.
pub const MAX_SIGNERS: usize = 16;

/// A key that signs evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceSigner {
    key: Vec<u8>,
    details: KeyDetails,
    id: [u8; 32],
}

/// Evidence whose signature was verified and whose time is now. Only [`SignedEvidence::open`] makes one.
#[derive(Clone, Debug)]
#[must_use]
pub struct SignedEvidence {
    evidence: Evidence,
    created: UnixTime,
    expires: UnixTime,
    signer: [u8; 32],
    digest: [u8; 32],
}

/// The payload.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    version: Version,
    created: String,
    expires: String,
    evidence: File,
}

impl EvidenceSigner {
    /// A key by its DER SubjectPublicKeyInfo: P-256, P-384, Ed25519, or RSA from 3072 bits.
    ///
    /// # Errors
    /// `malformed`, or `unsupported` for another type.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, Denial> {
        let parsed = SubjectPublicKey::from_der(spki).map_err(|error| error.denial("evidence key"))?;
        let details = KeyDetails::of_key(parsed.algorithm, parsed.key)?;
        if details == KeyDetails::RsaPkcs1v15_2048Sha256 {
            return Err(
                Error::unsupported("evidence key", "RSA of 2048 bits; use 3072 or more, or P-256").into()
            );
        }
        Ok(Self { key: parsed.key.to_vec(), details, id: Sha256::digest(spki).into() })
    }

    /// A key by its PEM block `PUBLIC KEY`.
    ///
    /// # Errors
    /// As [`EvidenceSigner::from_spki_der`]; `malformed` unless there is exactly one block.
    pub fn from_pem(text: &str) -> Result<Self, Denial> {
        match pem::decode(text, "PUBLIC KEY", 1)?.as_slice() {
            [spki] => Self::from_spki_der(spki),
            _ => Err(Error::malformed("evidence key", "the PEM holds no PUBLIC KEY").into()),
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }
}

/// The payload to be signed: what [`dsse::pae`] is made of, with [`PAYLOAD_TYPE`].
///
/// # Errors
/// [`Error::Malformed`] when `expires` is not after `created`, or more than [`MAX_LIFETIME`] after it.
pub fn payload(evidence: &Evidence, created: UnixTime, expires: UnixTime) -> Result<Vec<u8>, Error> {
    lifetime(created, expires)?;
    let payload = Payload {
        version: Version,
        created: created.to_rfc3339(),
        expires: expires.to_rfc3339(),
        evidence: evidence.to_file(),
    };
    json::write("evidence", &payload)
}

/// The file of a payload and the signature over its [`dsse::pae`].
///
/// # Errors
/// None in practice; see [`json::write`].
pub fn file(payload: Vec<u8>, signature: Vec<u8>) -> Result<Vec<u8>, Error> {
    json::write("evidence file", &Envelope::new(PAYLOAD_TYPE, payload, signature))
}

/// The bytes that a signer signs.
pub fn message(payload: &[u8]) -> Vec<u8> {
    dsse::pae(PAYLOAD_TYPE, payload)
}

/// Whether a file is of the signed form, by its first member; the unsigned form has none of that name.
pub fn is_signed(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        #[serde(rename = "payloadType")]
        payload_type: Option<String>,
    }
    json::parse::<Shape>("evidence file", bytes, MAX_SIGNED_EVIDENCE_BYTES)
        .is_ok_and(|shape| shape.payload_type.is_some())
}

impl SignedEvidence {
    /// Verifies and reads a signed file at `now`.
    ///
    /// # Errors
    /// * `too_large`, `malformed`: not a signed file, or evidence that cannot be read;
    /// * `unsupported`: another payload type;
    /// * `signature_invalid`: no key of `signers` signed it;
    /// * `revocation_stale`: it has expired;
    /// * `not_yet_valid`: it was made more than five minutes after `now`.
    pub fn open(
        bytes: &[u8],
        signers: &[EvidenceSigner],
        crypto: &dyn SignatureVerifier,
        now: UnixTime,
    ) -> Result<Self, Denial> {
        let envelope: Envelope = json::parse("evidence file", bytes, MAX_SIGNED_EVIDENCE_BYTES)?;
        if envelope.payload_type != PAYLOAD_TYPE {
            let shown: String = envelope.payload_type.chars().take(80).collect();
            return Err(Error::unsupported("evidence file", format!("payload type {shown}")).into());
        }
        let signature = envelope.single_signature()?;
        let message = envelope.pae();
        let signed_by = |signer: &&EvidenceSigner| {
            let algorithm = signer.details.algorithm();
            algorithm.is_ok_and(|algorithm| {
                crypto.verify(algorithm, &signer.key, &message, &signature.sig).is_ok()
            })
        };
        let signer = signers.iter().take(MAX_SIGNERS).find(signed_by).ok_or(Denial::new(
            ReasonCode::SignatureInvalid,
            "no configured key signed the evidence file; configure the public key of whoever exports it",
        ))?;
        // Only now is anything of the payload looked at.
        let payload: Payload = json::parse("evidence", &envelope.payload, MAX_EVIDENCE_BYTES)?;
        let time = |text: &str| {
            UnixTime::from_rfc3339(text).ok_or(Error::malformed("evidence", "a time is not in RFC 3339"))
        };
        let (created, expires) = (time(&payload.created)?, time(&payload.expires)?);
        lifetime(created, expires)?;
        if created.0 > now.0.saturating_add(MAX_CLOCK_SKEW) {
            let detail = format!("the evidence file was made at {}, after now", created.to_rfc3339());
            return Err(Denial::new(ReasonCode::NotYetValid, detail));
        }
        if expires < now {
            let detail = format!("the evidence file expired at {}; bring a newer one", expires.to_rfc3339());
            return Err(Denial::new(ReasonCode::RevocationStale, detail));
        }
        Ok(Self {
            evidence: Evidence::from_file(payload.evidence)?,
            created,
            expires,
            signer: signer.id,
            digest: Sha256::digest(&envelope.payload).into(),
        })
    }

    /// What is inside, to be judged piece by piece.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What is inside, by value.
    pub fn into_evidence(self) -> Evidence {
        self.evidence
    }

    /// When it was collected.
    pub fn created(&self) -> UnixTime {
        self.created
    }

    /// The last second at which it may be used.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// SHA-256 of the signer's SubjectPublicKeyInfo.
    pub fn signer(&self) -> &[u8; 32] {
        &self.signer
    }

    /// SHA-256 of the payload: two files of one moment that differ are told apart by it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

fn lifetime(created: UnixTime, expires: UnixTime) -> Result<(), Error> {
    let lifetime = expires.0.saturating_sub(created.0);
    if (1..=MAX_LIFETIME).contains(&lifetime) {
        return Ok(());
    }
    Err(Error::malformed(
        "evidence",
        format!("it is valid for {lifetime} seconds; that is 1 to {MAX_LIFETIME}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::AwsLc;
    use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

    const CREATED: UnixTime = UnixTime(1_790_000_000);
    const EXPIRES: UnixTime = UnixTime(1_790_086_400);

    fn key() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn signer(key: &KeyPair) -> EvidenceSigner {
        EvidenceSigner::from_spki_der(&key.subject_public_key_info()).unwrap()
    }

    fn evidence() -> Evidence {
        let mut evidence = Evidence::none();
        evidence.log_mut("o").add_checkpoint("note");
        evidence
    }

    fn signed(payload: &[u8], key: &KeyPair) -> Vec<u8> {
        file(payload.to_vec(), key.sign(&message(payload)).unwrap()).unwrap()
    }

    fn open(bytes: &[u8], key: &KeyPair, now: UnixTime) -> Result<SignedEvidence, &'static str> {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        SignedEvidence::open(bytes, &[signer(&other), signer(key)], &AwsLc, now)
            .map_err(|denial| denial.code.as_str())
    }

    #[test]
    fn payload_and_file_are_frozen_and_read_back() {
        let payload = payload(&evidence(), CREATED, EXPIRES).unwrap();
        let expected = concat!(
            r#"{"version":1,"created":"2026-09-21T14:13:20Z","expires":"2026-09-22T14:13:20Z","evidence":{"version":1,"#,
            r#""crls":[],"ocsp":[],"logs":[{"origin":"o","checkpoints":["note"],"consistency":[],"inclusion":[]}],"#,
            r#""remembered":[]}}"#
        );
        assert_eq!(core::str::from_utf8(&payload).unwrap(), expected);
        let written = file(payload.clone(), b"sig".to_vec()).unwrap();
        let expected = format!(
            r#"{{"payload":"{}","payloadType":"application/vnd.mentat.evidence.v1+json","signatures":[{{"sig":"c2ln"}}]}}"#,
            json::base64_encode(&payload)
        );
        assert_eq!(core::str::from_utf8(&written).unwrap(), expected);
        let key = key();
        let bytes = signed(&payload, &key);
        assert!(is_signed(&bytes) && !is_signed(&evidence().to_json().unwrap()));
        for now in [CREATED, EXPIRES, UnixTime(CREATED.0 - MAX_CLOCK_SKEW)] {
            let opened = open(&bytes, &key, now).unwrap();
            assert_eq!((opened.created(), opened.expires()), (CREATED, EXPIRES));
            assert_eq!(opened.signer(), signer(&key).id());
            assert_eq!(opened.evidence().logs(), evidence().logs());
        }
    }

    #[test]
    fn refuses_other_signers_changes_and_times() {
        let mine = key();
        let genuine = payload(&evidence(), CREATED, EXPIRES).unwrap();
        let bytes = signed(&genuine, &mine);
        let open = |bytes: &[u8], now| open(bytes, &mine, now);
        assert_eq!(open(&signed(&genuine, &key()), CREATED).unwrap_err(), "signature_invalid");
        assert_eq!(
            SignedEvidence::open(&bytes, &[], &AwsLc, CREATED).unwrap_err().code,
            ReasonCode::SignatureInvalid
        );
        let text = String::from_utf8(bytes.clone()).unwrap();
        let other = payload(&Evidence::none(), CREATED, EXPIRES).unwrap();
        let swapped = text.replace(&json::base64_encode(&genuine), &json::base64_encode(&other));
        assert_ne!(swapped, text);
        assert_eq!(
            open(swapped.as_bytes(), CREATED).unwrap_err(),
            "signature_invalid",
            "a list was taken away"
        );
        assert_eq!(open(&bytes, UnixTime(EXPIRES.0 + 1)).unwrap_err(), "revocation_stale");
        assert_eq!(open(&bytes, UnixTime(CREATED.0 - 301)).unwrap_err(), "not_yet_valid");
        assert_eq!(
            open(text.replace("evidence.v1", "evidence.v2").as_bytes(), CREATED).unwrap_err(),
            "unsupported"
        );
        for bad in [text.replace("{\"sig\"", "{\"sig\":\"AA==\"},{\"sig\""), evidence_text(), "{}".into()] {
            assert_eq!(open(bad.as_bytes(), CREATED).unwrap_err(), "malformed", "{bad}");
        }
        for (from, to) in [
            ("\"version\":1,\"created\"", "\"version\":2,\"created\""),
            ("\"created\"", "\"extra\":1,\"created\""),
            ("2026-09-22T14:13:20Z", "2026-09-21T14:13:20Z"),
            ("2026-09-22T14:13:20Z", "2027-09-22T14:13:20Z"),
            ("2026-09-22T14:13:20Z", "tomorrow"),
        ] {
            let changed = String::from_utf8(genuine.clone()).unwrap().replacen(from, to, 1);
            assert_eq!(open(&signed(changed.as_bytes(), &mine), CREATED).unwrap_err(), "malformed", "{to}");
        }
        assert!(payload(&evidence(), CREATED, CREATED).is_err());
        assert!(payload(&evidence(), CREATED, UnixTime(CREATED.0 + MAX_LIFETIME + 1)).is_err());
    }

    fn evidence_text() -> String {
        String::from_utf8(evidence().to_json().unwrap()).unwrap()
    }

    #[test]
    fn keys_are_read_from_pem_one_at_a_time() {
        let key = key();
        let text = pem::encode(&key.subject_public_key_info(), "PUBLIC KEY");
        assert_eq!(EvidenceSigner::from_pem(&text).unwrap(), signer(&key));
        assert!(EvidenceSigner::from_pem(&format!("{text}{text}")).is_err());
        assert_eq!(EvidenceSigner::from_pem("").unwrap_err().code, ReasonCode::Malformed);
    }
}
