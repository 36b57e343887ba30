//! Steps 1 to 3: what was signed, about what, and by which key.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Part, Session, denied};
use crate::algorithm::SubjectPublicKey;
use crate::attestation::Attestation;
use crate::bundle::{Content, KeyMaterial};
use crate::certificate::Certificate;
use crate::dsse::IN_TOTO_PAYLOAD_TYPE;
use crate::key_details::KeyDetails;
use crate::policy::{ArtifactPolicy, TrustedKey};
use crate::reason::{Denial, ReasonCode};
use crate::statement::Statement;

/// A signature that verified, with the key it verified under. The key is not trusted yet.
pub(super) struct VerifiedSignature<'a> {
    pub(super) signer: Signer<'a>,
    pub(super) details: KeyDetails,
}

/// Whose key it is.
#[derive(Clone, Copy)]
pub(super) enum Signer<'a> {
    /// A certificate's, to be validated by the next steps.
    Certificate(&'a Certificate),
    /// One that the policy names.
    Key(&'a TrustedKey),
}

impl Session<'_> {
    /// Step 1: the attestation has the shape that the policy asks for. Its bytes were bounded and parsed when it was
    /// made; here its content is read.
    pub(super) fn step_1_shape(&self, attestation: &Attestation) -> Result<Option<Statement>, Denial> {
        let statement = match &attestation.bundle().content {
            Content::Dsse(envelope) => {
                let typed = envelope.payload_type == IN_TOTO_PAYLOAD_TYPE;
                let denial = || denied(ReasonCode::Unsupported, "the payload is not an in-toto statement");
                self.enforce(1, if typed { Ok(()) } else { Err(denial()) })?;
                Some(Statement::parse(&envelope.payload)?)
            }
            Content::Message { .. } => None,
        };
        let shape = match self.policy.artifact {
            ArtifactPolicy::AgentRelease if attestation.manifest().is_none() => Err(denied(
                ReasonCode::Malformed,
                "the policy demands an agent release: a manifest must come along",
            )),
            ArtifactPolicy::AgentRelease if statement.is_none() => Err(denied(
                ReasonCode::Unsupported,
                "the policy demands an agent release: a signed in-toto statement",
            )),
            _ => Ok(()),
        };
        self.enforce(1, shape)?;
        Ok(statement)
    }

    /// Step 2: the statement is about this artifact and this manifest, and the copies for readers are true.
    pub(super) fn step_2_digests(
        &self,
        attestation: &Attestation,
        statement: Option<&Statement>,
    ) -> Result<(), Denial> {
        self.enforce(2, self.artifact_is_named(attestation, statement))?;
        self.enforce(2, self.manifest_is_released(attestation, statement))?;
        let copies = if !attestation.chain_agrees {
            Err("certificate_chain starts with another certificate than the bundle's".into())
        } else {
            match attestation.false_copy() {
                Some(field) => Err(format!("the copy `{field}` differs from what the bundle says")),
                None => Ok(()),
            }
        };
        self.enforce(2, copies.map_err(|detail| denied(ReasonCode::ManifestMismatch, detail)))
    }

    fn artifact_is_named(
        &self,
        attestation: &Attestation,
        statement: Option<&Statement>,
    ) -> Result<(), Denial> {
        let mismatch = |detail: &'static str| Err(denied(ReasonCode::DigestMismatch, detail));
        match (&attestation.bundle().content, statement) {
            (Content::Dsse(_), Some(statement)) if statement.names_artifact(self.digest.as_bytes()) => Ok(()),
            (Content::Dsse(_), _) => {
                mismatch("no subject of the signed statement has the artifact's SHA-256")
            }
            (Content::Message { digest: Some((algorithm, digest)), .. }, _) => {
                match self.digest.by(*algorithm) {
                    Some(actual) if actual == digest => Ok(()),
                    Some(_) => mismatch("the bundle is about an artifact with another digest"),
                    None => Ok(()), // a hint by a hash that nobody computed; the signature decides
                }
            }
            (Content::Message { digest: None, .. }, _) => Ok(()),
        }
    }

    fn manifest_is_released(
        &self,
        attestation: &Attestation,
        statement: Option<&Statement>,
    ) -> Result<(), Denial> {
        match (attestation.manifest(), statement) {
            (None, _) => Ok(()),
            (Some(manifest), Some(statement)) if statement.releases(manifest, self.digest.as_bytes()) => {
                Ok(())
            }
            (Some(_), _) => {
                let detail = "the signed statement does not release this manifest with this artifact: id, capabilities or another value was changed after signing, or the artifact is another file than the manifest's module";
                Err(denied(ReasonCode::ManifestMismatch, detail))
            }
        }
    }

    /// Step 3: the signature verifies, by an algorithm that the policy accepts.
    pub(super) fn step_3_signature<'p>(&'p self, part: &Part<'p>) -> Result<VerifiedSignature<'p>, Denial> {
        match (&part.bundle.key, part.certificate) {
            (KeyMaterial::PublicKey { hint }, _) => self.signature_by_key(part, hint),
            (_, Some(certificate)) => {
                let details = KeyDetails::of_key(certificate.key_algorithm(), certificate.public_key())
                    .map_err(|error| denied(ReasonCode::AlgorithmNotAllowed, error.to_string()))?;
                self.enforce(3, self.algorithm_is_accepted(details))?;
                self.enforce(3, self.signature_verifies(part, details, certificate.public_key()))?;
                Ok(VerifiedSignature { signer: Signer::Certificate(certificate), details })
            }
            (_, None) => Err(denied(ReasonCode::Malformed, "the bundle holds no certificate")),
        }
    }

    /// A bare key: the policy's key of the hinted name, else whichever of its keys verifies.
    fn signature_by_key<'p>(&'p self, part: &Part<'p>, hint: &str) -> Result<VerifiedSignature<'p>, Denial> {
        let mut refusal = denied(
            ReasonCode::IdentityDenied,
            "the signature is by a bare key and the policy lists none; add it under `keys` or sign with a certificate",
        );
        let named = self.policy.keys.iter().any(|key| key.name == hint);
        for key in self.policy.keys.iter().filter(|key| !named || key.name == hint) {
            let spki = SubjectPublicKey::from_der(&key.spki).map_err(|error| error.denial("policy key"))?;
            let verified = self
                .algorithm_is_accepted(key.details)
                .and_then(|()| self.signature_verifies(part, key.details, spki.key));
            match self.enforce(3, verified) {
                Ok(()) => return Ok(VerifiedSignature { signer: Signer::Key(key), details: key.details }),
                Err(denial) => refusal = denial,
            }
        }
        Err(refusal)
    }

    fn algorithm_is_accepted(&self, details: KeyDetails) -> Result<(), Denial> {
        if self.policy.algorithms.contains(&details) {
            return Ok(());
        }
        let accepted: Vec<&str> = self.policy.algorithms.iter().map(|known| known.as_str()).take(5).collect();
        let detail = format!(
            "{} is not accepted; `algorithms` lists {}: sign with a key of a listed type",
            details.as_str(),
            if accepted.is_empty() { "none".to_string() } else { accepted.join(", ") }
        );
        Err(denied(ReasonCode::AlgorithmNotAllowed, detail))
    }

    fn signature_verifies(&self, part: &Part<'_>, details: KeyDetails, key: &[u8]) -> Result<(), Denial> {
        let crypto = self.crypto;
        let algorithm = details.algorithm()?;
        let (verified, what) = match &part.bundle.content {
            Content::Dsse(envelope) => {
                let signature = &envelope.single_signature()?.sig;
                (crypto.verify(algorithm, key, &envelope.pae(), signature), "statement")
            }
            Content::Message { signature, .. } => {
                let Some(digest) = self.digest.by(details.hash()) else {
                    let detail = format!(
                        "a {} signature needs the artifact's bytes, not its SHA-256",
                        details.as_str()
                    );
                    return Err(denied(ReasonCode::Unsupported, detail));
                };
                (crypto.verify_digest(algorithm, key, digest, signature), "artifact")
            }
        };
        verified.map_err(|_| {
            denied(
                ReasonCode::SignatureInvalid,
                format!("the signature over the {what} does not verify with the key"),
            )
        })
    }
}
