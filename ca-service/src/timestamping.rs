//! The time-stamp authority (RFC 3161): a clock check before each token, serial numbers unique over restarts.

use ca_pki::lint;
use ca_pki::timestamp::{self, Authority, Failure, ImprintHash, TimestampRequest};
use hsm::Purpose;

use crate::authority::{CertificateAuthority, names, random};
use crate::error::CaError;

impl CertificateAuthority {
    /// Answers a DER request. Every request gets a TimeStampResp, granted or rejected.
    pub async fn timestamp(&self, request: &[u8]) -> Vec<u8> {
        match TimestampRequest::from_der(request) {
            Err(failure) => failure.to_der(),
            Ok(request) => self.token(&request).await,
        }
    }

    /// Answers a request for a digest (the JSON form).
    pub async fn timestamp_digest(&self, hash: ImprintHash, digest: &[u8]) -> Vec<u8> {
        match TimestampRequest::for_digest(hash, digest) {
            Err(failure) => failure.to_der(),
            Ok(request) => self.token(&request).await,
        }
    }

    async fn token(&self, request: &TimestampRequest) -> Vec<u8> {
        match self.granted(request).await {
            Ok(token) => token,
            Err(TimestampError::Rejected(failure)) => failure.to_der(),
            Err(TimestampError::Failed(error)) => {
                tracing::error!(%error, "a time-stamp token could not be made");
                match error {
                    CaError::Clock(_) => Failure::TimeNotAvailable.to_der(),
                    _ => Failure::SystemFailure.to_der(),
                }
            }
        }
    }

    async fn granted(&self, request: &TimestampRequest) -> Result<Vec<u8>, TimestampError> {
        self.still_serves().map_err(CaError::from)?;
        let now = self.clock.now().map_err(CaError::from)?;
        let signer = self.authority(names::TIMESTAMP_AUTHORITY)?;
        signer.in_force(now)?;
        self.may_issue(names::TIMESTAMP_AUTHORITY, now)?;
        let authority = self.timestamp_authority()?;
        let serial = self.serial(now)?;
        let draft = timestamp::draft(&authority, request, &serial, now).map_err(TimestampError::Rejected)?;
        // Nothing is signed that the rules forbid (rule g).
        lint::timestamp_token(&draft.unsigned(&authority), Some(request))
            .into_result()
            .map_err(CaError::from)?;
        let signature = self
            .sign(signer, Purpose::Timestamp, &random::<16>()?, draft.to_be_signed())
            .await
            .map_err(CaError::from)?;
        self.metrics.timestamps.inc();
        Ok(draft.assemble(&authority, &signature))
    }

    /// The authority as tokens name it: by its own certificate alone, as RFC 3161 §2.4.1 asks for it. A set has no order but that of
    /// octets, and there are clients that take its first certificate for the signer's; those above it are in the trusted root.
    fn timestamp_authority(&self) -> Result<Authority, CaError> {
        let signer = self.authority(names::TIMESTAMP_AUTHORITY)?;
        let chain = signer.chain.iter().take(1).cloned().collect();
        let accuracy = self.settings.config.timestamp.accuracy_seconds;
        Ok(Authority::new(chain, signer.algorithm, self.settings.timestamp_policy, accuracy)?)
    }
}

enum TimestampError {
    Rejected(Failure),
    Failed(CaError),
}

impl From<CaError> for TimestampError {
    fn from(error: CaError) -> Self {
        Self::Failed(error)
    }
}
