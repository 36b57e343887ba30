//! Proof of a certified key: whoever has the key of a certificate may list, renew and revoke what is theirs (R1), without an
//! administrator.
//!
//! It is shown by a signature over what is asked for, or, where the authority takes that, at the TLS handshake (`holders`).
//! Whichever it was, one `Holder` comes of it, and what follows is the same.
//!
//! A signature names deed, certificate and time, and is good for a few minutes. What it is good for may be repeated in them without harm:
//! that takes the place of a memory of used proofs.

use std::sync::Arc;

use ca_api::possession::{
    KeyProof, ListOwn, MAX_PROOF_SIGNATURE, PROOF_AHEAD_SECONDS, PROOF_SECONDS, ProvenDeed, RevokeOwn,
};
use ca_pki::key::{KeyKind, KeyUse};
use ca_pki::{SerialNumber, SubjectPublicKey, UnixTime};
use sha2::{Digest as _, Sha256};
use trust_store::Certificate;
use trust_store::provider::AwsLc;
use trust_store::signature::{Algorithm, SignatureVerifier as _};

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::revocation::ends_renewals;
use crate::storage::{self, EndRenewals, Search, Step, StoredCertificate, StoredRevocation};
use crate::wire::stored_reason;

/// Certificates of one page of one's own.
const PAGE: u32 = 100;

/// Digits of the longest serial number (RFC 5280 §4.1.2.2).
const MAX_SERIAL_DIGITS: usize = 40;

/// Why the key of a certificate does not open anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PossessionRefusal {
    /// The certificate has ended.
    #[error("the certificate has expired, or is not valid yet: ask for a new one with a one-time token")]
    CertificateExpired,
    /// The certificate was revoked.
    #[error("the certificate was revoked: ask for a new one with a one-time token")]
    CertificateRevoked,
    /// The proof names no challenge that was made for it a moment ago.
    #[error(
        "the proof has no challenge that this authority made for the certificate within the last minute: ask for one"
    )]
    ChallengeExpired,
    /// The authority that issued it was revoked.
    #[error("the authority that issued the certificate was revoked: ask for a new one with a one-time token")]
    IssuerRevoked,
    /// The new key is the old one.
    #[error("the key is the one that is certified already: a renewal is for a new key")]
    KeyUnchanged,
    /// The certificate is not one that its key renews.
    #[error(
        "certificates of this kind are not renewed by their key: ask for a new one with a one-time token or an identity token"
    )]
    NotRenewable,
    /// The proof was made at another time.
    #[error("the proof is not of now: it is good for five minutes; compare the clocks")]
    ProofExpired,
    /// The signature is not by the certificate's key over what is asked for.
    #[error("the proof is not a signature by the certificate's key over exactly this request")]
    ProofInvalid,
    /// Neither a signature nor the certificate of the connection shows a key.
    #[error("the request has no proof of a certificate's key, and the connection shows none")]
    ProofMissing,
    /// As many came of this certificate as may.
    #[error(
        "the certificate was renewed sixteen times: renew the newest, or ask for one with a one-time token"
    )]
    RenewedTooOften,
}

impl PossessionRefusal {
    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateRevoked => "certificate_revoked",
            Self::ChallengeExpired => "challenge_expired",
            Self::IssuerRevoked => "issuer_revoked",
            Self::KeyUnchanged => "key_unchanged",
            Self::NotRenewable => "not_renewable",
            Self::ProofExpired => "proof_expired",
            Self::ProofInvalid => "proof_invalid",
            Self::ProofMissing => "proof_missing",
            Self::RenewedTooOften => "renewed_too_often",
        }
    }
}

/// A certificate whose key was shown for one deed. Only the verified proof makes it.
pub(crate) struct Holder {
    record: StoredCertificate,
    way: &'static str,
}

impl Holder {
    /// As records name whoever came with the key.
    pub(crate) fn name(&self) -> String {
        storage::requester(&self.record.serial)
    }

    /// How the key was shown, for records: `signature` or `handshake`.
    pub(crate) fn way(&self) -> &'static str {
        self.way
    }

    /// The record of the certificate.
    pub(crate) fn record(&self) -> &StoredCertificate {
        &self.record
    }
}

/// What a key is shown for, and when.
pub(crate) struct Proven<'a> {
    pub(crate) deed: ProvenDeed,
    /// Everything that is asked for beside.
    pub(crate) content: &'a str,
    pub(crate) now: UnixTime,
}

impl CertificateAuthority {
    /// The certificates of the identity of a certificate that is good now, newest first; one more than a page where there are more.
    /// `connection` is the certificate, DER, that whoever asks showed at the handshake; it counts where the request has no proof.
    ///
    /// # Errors
    /// [`CaError::Possession`], [`CaError::CertificateUnknown`], [`CaError::Store`].
    pub async fn list_own(
        &self,
        asked: &ListOwn,
        connection: Option<&[u8]>,
    ) -> Result<Vec<StoredCertificate>, CaError> {
        let now = self.clock.now()?;
        let proven = Proven { deed: ProvenDeed::List, content: &ListOwn::content(asked.after), now };
        let holder = self.holder(asked.proof.as_ref(), connection, &proven).await?;
        self.refuse_lapsed(&holder, now)?;
        let identity = holder.record.identity.as_ref().map(|identity| identity.as_str().to_owned());
        let search =
            Search { identity, below: asked.after, limit: PAGE.saturating_add(1), ..Search::default() };
        Ok(self.store.search(search).await?)
    }

    /// Revokes the certificate whose key is shown, at once. It may have expired: what it signed is looked at for years. `connection` as
    /// for [`Self::list_own`].
    ///
    /// The key says nothing of what it could not renew, nor of the past of others' keys: what came of a certificate that has ended
    /// stays, and of one that has not it ends from now on. Everything else is an operator's to say. Of its own it says everything: a
    /// compromise ends each certificate of the key, from the same date on, as a proof for each of them would.
    ///
    /// # Errors
    /// [`CaError::Possession`], and as [`Self::revoke`].
    pub async fn revoke_own(
        self: &Arc<Self>,
        asked: &RevokeOwn,
        connection: Option<&[u8]>,
    ) -> Result<StoredRevocation, CaError> {
        if asked.compromised_at.is_some() && asked.reason != ca_api::possession::OwnReason::KeyCompromise {
            return Err(CaError::OutOfRange {
                field: "compromised_at",
                reason: "goes with the reason key-compromise",
            });
        }
        let content = RevokeOwn::content(asked.reason, asked.compromised_at);
        // As every revocation: also while the clock is in doubt.
        let shown_at = asked
            .proof
            .as_ref()
            .map_or_else(|| self.clock.for_records(), |proof| self.clock.nearest_to(UnixTime(proof.time)));
        let proven = Proven { deed: ProvenDeed::Revoke, content: &content, now: shown_at };
        let holder = self.holder(asked.proof.as_ref(), connection, &proven).await?;
        let (reason, since) = (stored_reason(asked.reason.into()), asked.compromised_at.map(UnixTime));
        let dated = self.clock.for_records();
        let valid_at = Some(dated.max(shown_at));
        let renewals = ends_renewals(reason).then_some(EndRenewals { since, dated, valid_at });
        self.revoke_with(&holder.record.serial, reason, since, renewals, &holder.name()).await
    }

    /// Who shows the key of a certificate: by the proof, or, where there is none, by the connection.
    pub(crate) async fn holder(
        &self,
        proof: Option<&KeyProof>,
        connection: Option<&[u8]>,
        proven: &Proven<'_>,
    ) -> Result<Holder, CaError> {
        match (proof, connection) {
            (Some(proof), _) => self.signed(proof, proven).await,
            (None, Some(certificate)) => self.connected(certificate).await,
            (None, None) => Err(PossessionRefusal::ProofMissing.into()),
        }
    }

    /// Verifies a proof against the record of the certificate that it names.
    async fn signed(&self, proof: &KeyProof, proven: &Proven<'_>) -> Result<Holder, CaError> {
        let age = proven.now.0.saturating_sub(proof.time);
        if !(-PROOF_AHEAD_SECONDS..=PROOF_SECONDS).contains(&age) {
            return Err(PossessionRefusal::ProofExpired.into());
        }
        if proof.signature.len() > MAX_PROOF_SIGNATURE {
            return Err(PossessionRefusal::ProofInvalid.into());
        }
        let signature = hex::decode(&proof.signature).map_err(|_| PossessionRefusal::ProofInvalid)?;
        let (record, der) = self.certified(&proof.serial).await?;
        let certificate = Certificate::from_der(&der)
            .map_err(|_| CaError::Inconsistent("an issued certificate cannot be read"))?;
        let key = SubjectPublicKey::from_spki(certificate.spki_der(), KeyUse::PostQuantumSubscriber)?;
        let digest = hex::encode(Sha256::digest(&der));
        let message = KeyProof::message(proven.deed, &digest, proof.time, proven.content);
        AwsLc
            .verify(algorithm(key.kind())?, key.bits(), message.as_bytes(), &signature)
            .map_err(|_| PossessionRefusal::ProofInvalid)?;
        Ok(Holder { record, way: "signature" })
    }

    /// Finds the record of the certificate of a connection, whose key was proven at the handshake. It is the very certificate that was
    /// delivered: nothing else that this authority signed counts.
    async fn connected(&self, shown: &[u8]) -> Result<Holder, CaError> {
        let certificate = Certificate::from_der(shown).map_err(|_| CaError::CertificateUnknown)?;
        let (record, der) = self.certified(&hex::encode(certificate.serial())).await?;
        if der == shown { Ok(Holder { record, way: "handshake" }) } else { Err(CaError::CertificateUnknown) }
    }

    /// The record of somebody's certificate, and the certificate.
    async fn certified(&self, serial: &str) -> Result<(StoredCertificate, Vec<u8>), CaError> {
        let serial = SerialNumber::from_hex(serial).map_err(|_| CaError::CertificateUnknown)?;
        let record = self.store.certificate(&serial).await?.ok_or(CaError::CertificateUnknown)?;
        // The CA's own carry no identity, and are nobody's here.
        if record.identity.is_none() || record.step != Step::Certificate || record.signature.is_none() {
            return Err(CaError::CertificateUnknown);
        }
        let der = self.assembled(&record)?;
        Ok((record, der))
    }

    /// Refuses what is not good any more.
    pub(crate) fn refuse_lapsed(&self, holder: &Holder, now: UnixTime) -> Result<(), PossessionRefusal> {
        let record = &holder.record;
        if record.revocation.is_none() && (now < record.not_before || record.not_after < now) {
            return Err(PossessionRefusal::CertificateExpired);
        }
        self.refuse_revoked(holder)
    }

    /// Refuses what was revoked, itself or above it.
    pub(crate) fn refuse_revoked(&self, holder: &Holder) -> Result<(), PossessionRefusal> {
        if holder.record.revocation.is_some() {
            return Err(PossessionRefusal::CertificateRevoked);
        }
        if self.has_fallen(&holder.record.issuer) {
            return Err(PossessionRefusal::IssuerRevoked);
        }
        Ok(())
    }

    /// Says that somebody's proof, or the certificate of their connection, opened nothing: guesses, replays, and a stolen key that is tried
    /// after its revocation.
    pub(crate) fn note_refused_proof(
        &self,
        deed: ProvenDeed,
        proof: Option<&KeyProof>,
        connection: Option<&[u8]>,
        error: &CaError,
    ) {
        if let CaError::Possession(refusal) = error {
            self.metrics.key_proofs_refused.inc();
            let (code, serial) = (refusal.code(), named(proof, connection));
            tracing::warn!(code, serial, deed = deed.as_str(), "a proof of a certified key opened nothing");
        }
    }

    /// Whether there is another page, and what this one has.
    #[must_use]
    pub fn page_of_own(mut found: Vec<StoredCertificate>) -> (Vec<StoredCertificate>, Option<i64>) {
        let more = found.len() > PAGE as usize;
        found.truncate(PAGE as usize);
        let next = found.last().filter(|_| more).map(|last| last.row);
        (found, next)
    }
}

/// The serial number of the certificate whose key somebody says to have, for the log. In a proof it is text that anybody chose: of that no
/// more is written than a serial number has, and nothing that is no digit of one.
fn named(proof: Option<&KeyProof>, connection: Option<&[u8]>) -> String {
    let shown = || Some(hex::encode(Certificate::from_der(connection?).ok()?.serial()));
    let digit = |character: char| if character.is_ascii_hexdigit() { character } else { '?' };
    match proof {
        Some(proof) => proof.serial.chars().take(MAX_SERIAL_DIGITS).map(digit).collect(),
        None => shown().unwrap_or_else(|| "none".to_owned()),
    }
}

/// How a key of each kind signs proofs.
fn algorithm(kind: KeyKind) -> Result<Algorithm, PossessionRefusal> {
    Ok(match kind {
        KeyKind::EcdsaP256 => Algorithm::EcdsaP256Sha256,
        KeyKind::EcdsaP384 => Algorithm::EcdsaP384Sha384,
        KeyKind::EcdsaP521 => Algorithm::EcdsaP521Sha512,
        KeyKind::Ed25519 => Algorithm::Ed25519,
        KeyKind::MlDsa44 => Algorithm::MlDsa44,
        KeyKind::Rsa(_) => Algorithm::RsaPkcs1Sha256,
        _ => return Err(PossessionRefusal::ProofInvalid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_strangers_write_the_log_gets_the_digits_of_a_serial_number_and_no_more() {
        let proof = |serial: &str| KeyProof {
            serial: serial.to_owned(),
            time: 0,
            challenge: None,
            signature: String::new(),
        };
        let of = |serial: &str| named(Some(&proof(serial)), None);
        assert_eq!(of("4D01ff"), "4D01ff");
        // Where the fortieth octet is in the middle of a character, too.
        let long = format!("{}é{}", "a".repeat(39), "b".repeat(60_000));
        assert_eq!(of(&long), format!("{}?", "a".repeat(39)));
        assert_eq!(of("1\n2\u{1b}[2J"), "1?2??2?");
        // What the request says comes first, as in what it opens.
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x4d, 1, 2]));
        let shown = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(named(None, Some(shown.der())), "4d0102");
        assert_eq!(named(Some(&proof("4d01")), Some(shown.der())), "4d01");
        assert_eq!((named(None, Some(b"junk")), named(None, None)), ("none".to_owned(), "none".to_owned()));
    }
}
