//! OCSP (RFC 6960, RFC 9919, RFC 9654): answers from the store, signed by the delegated responder.

use ca_pki::ocsp::{self, Answer, CertStatus, OcspFailure, OcspRequest};
use hsm::Purpose;

use crate::authority::{CertificateAuthority, names, random};
use crate::error::CaError;
use crate::storage::{State, Step, StoredStatus};

/// An answer with what HTTP caching needs of it.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    /// The OCSPResponse, DER.
    pub der: Vec<u8>,
    /// thisUpdate and nextUpdate, seconds since 1970; none for answers that must not be cached.
    pub cacheable: Option<(i64, i64)>,
}

impl CertificateAuthority {
    /// Answers a request. Every request gets an answer.
    pub async fn ocsp(&self, request: &[u8]) -> OcspAnswer {
        let failure = |failure: OcspFailure| OcspAnswer { der: failure.to_der(), cacheable: None };
        let request = match OcspRequest::from_der(request) {
            Ok(request) => request,
            // Another hash is a question for another responder.
            Err(ca_pki::Error::Unsupported(_)) => return failure(OcspFailure::Unauthorized),
            Err(_) => return failure(OcspFailure::MalformedRequest),
        };
        match self.ocsp_answer(&request).await {
            Ok(Some(answer)) => answer,
            Ok(None) => failure(OcspFailure::Unauthorized),
            Err(CaError::Store(_) | CaError::Clock(_)) => failure(OcspFailure::TryLater),
            Err(error) => {
                tracing::error!(%error, "an OCSP answer could not be made");
                failure(OcspFailure::InternalError)
            }
        }
    }

    /// A signed answer, or `None` when this responder does not speak for the issuer.
    async fn ocsp_answer(&self, request: &OcspRequest) -> Result<Option<OcspAnswer>, CaError> {
        let (_, issuer) = self.issuer(names::CODE_SIGNING)?;
        if !request.cert_id.names_issuer(&issuer.name, &issuer.public_key) {
            return Ok(None);
        }
        let now = self.clock.now()?;
        let stored = self.store.status(names::CODE_SIGNING, &request.cert_id.serial).await?;
        let responder = self.authority(names::OCSP_RESPONDER)?;
        let answer = Answer {
            status: stored.as_ref().map_or(CertStatus::Unknown, |stored| status(stored, now.0)),
            this_update: now,
            next_update: now.plus(self.settings.ocsp_seconds),
            produced_at: now,
        };
        let draft =
            ocsp::draft(request, &answer, &responder.certificate, &responder.public_key, responder.algorithm)?;
        let signature = self.sign(responder, Purpose::Ocsp, &random::<16>()?, draft.to_be_signed()).await?;
        let cacheable = request.nonce.is_none().then_some((answer.this_update.0, answer.next_update.0));
        Ok(Some(OcspAnswer { der: draft.assemble(&signature), cacheable }))
    }
}

/// The status of a record (ca-requirements §4): good only for what is finished, unrevoked and within its validity.
fn status(stored: &StoredStatus, now: i64) -> CertStatus {
    if let Some((at, reason)) = stored.revocation {
        return CertStatus::Revoked { at, reason };
    }
    let finished = matches!(stored.state, State::Signed | State::Logged | State::Delivered)
        && stored.step == Step::Certificate;
    let valid = (stored.not_before.0..=stored.not_after.0).contains(&now);
    if finished && valid { CertStatus::Good } else { CertStatus::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ca_pki::UnixTime;

    #[test]
    fn only_finished_certificates_within_their_validity_are_good() {
        for state in State::ALL {
            for step in [Step::Precertificate, Step::Certificate] {
                let stored = StoredStatus {
                    state,
                    step,
                    not_before: UnixTime(100),
                    not_after: UnixTime(200),
                    revocation: None,
                };
                let finished = matches!(state, State::Signed | State::Logged | State::Delivered);
                let expected =
                    if finished && step == Step::Certificate { CertStatus::Good } else { CertStatus::Unknown };
                assert_eq!(status(&stored, 150), expected, "{state:?} {step:?}");
                assert_eq!(status(&stored, 99), CertStatus::Unknown);
                assert_eq!(status(&stored, 201), CertStatus::Unknown);
            }
        }
    }
}
