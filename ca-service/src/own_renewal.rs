//! Renewal by the certified key: a new certificate of the same identity and profile, for a new key, without a new one-time token.
//!
//! What the new certificate says comes from the record of the old one. A renewal is linked with it: whoever ends the old one because
//! its key or its holder is not to be trusted ends what came of it ([`CertificateAuthority::revoke`]).

use std::sync::Arc;

use ca_api::possession::{ProvenDeed, Renew};
use ca_pki::crl::RevocationReason;
use ca_pki::csr::VerifiedRequest;
use ca_pki::profile::Kind;
use ca_pki::{Identity, SerialNumber, UnixTime};
use trust_store::provider::AwsLc;

use crate::authority::CertificateAuthority;
use crate::enrolment::check_request_id;
use crate::error::CaError;
use crate::issuance::{AuthorisedRequest, Issued};
use crate::possession::PossessionRefusal;
use crate::queue::{Asked, Proof};
use crate::storage::{MAX_RENEWALS, Search, State, StoreError, StoredCertificate};

/// What the requester of a renewal is called, before the serial number of the old certificate.
pub(crate) const BY_CERTIFICATE: &str = "certificate:";

impl CertificateAuthority {
    /// Renews the certificate whose key is shown. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`CaError::Possession`], [`CaError::Queue`] where people must approve, and what issuance reports.
    pub async fn renew_own(self: &Arc<Self>, asked: &Renew) -> Result<Issued, CaError> {
        let (this, asked) = (Arc::clone(self), asked.clone());
        let task = tokio::spawn(async move { this.renew_to_the_end(&asked).await });
        task.await.unwrap_or(Err(CaError::Inconsistent("the enrolment task ended early")))
    }

    async fn renew_to_the_end(self: &Arc<Self>, asked: &Renew) -> Result<Issued, CaError> {
        check_request_id(Some(&asked.request_id))?;
        let now = self.clock.now()?;
        let content = Renew::content(&asked.request_id, &asked.csr);
        let holder = self.holder(&asked.proof, ProvenDeed::Renew, &content, now).await?;
        self.refuse_lapsed(&holder, now)?;
        let (requester, old) = (holder.name(), holder.into_record());
        if !self.is_renewable(&old)? {
            return Err(PossessionRefusal::NotRenewable.into());
        }
        let csr = VerifiedRequest::from_pem(&asked.csr, self.profile(&old.profile)?.key_use(), &AwsLc)?;
        let spki_sha256 = csr.public_key().spki_sha256();
        if spki_sha256 == old.spki_sha256 {
            return Err(PossessionRefusal::KeyUnchanged.into());
        }
        let identity = old.identity.clone().ok_or(CaError::CertificateUnknown)?;
        let request = AuthorisedRequest {
            identity: identity.clone(),
            public_key: csr.public_key().clone(),
            profile: old.profile.clone(),
            identity_issuer: self.settings.config.identity_issuer.clone(),
            claims: Vec::new(),
            requester: requester.clone(),
            request_id: Some(asked.request_id.clone()),
            token: None,
            proof: Proof::Certificate { serial: Some(old.serial.clone()) },
            approved: None,
            evidence: serde_json::json!({ "method": "certified-key", "renews": old.serial.to_string() })
                .into(),
        };
        let needed = self.approvals_demanded(&request.profile, &request.proof, &request.identity_issuer);
        let outcome = if needed > 0 {
            // Whoever has no address cannot be told from those who approve.
            let requester_names = match &identity {
                Identity::Email(address) => Some(vec![address.clone()]),
                Identity::Uri(_) => None,
            };
            let asked = Asked { request, requester_names, voucher_names: Vec::new(), needed };
            self.certify_approved(&asked).await
        } else {
            self.certify(request).await
        };
        match outcome {
            Err(CaError::Store(StoreError::RenewedAlready)) => {
                self.renewed(&requester, &asked.request_id, &spki_sha256).await
            }
            Err(CaError::Store(StoreError::CertificateRevoked)) => {
                Err(PossessionRefusal::CertificateRevoked.into())
            }
            Err(CaError::Store(StoreError::RenewedTooOften)) => {
                Err(PossessionRefusal::RenewedTooOften.into())
            }
            Err(CaError::Store(StoreError::KeyCompromised)) => Err(CaError::KeyCompromised),
            outcome => outcome,
        }
    }

    /// Whether the holder may have another one without anybody's leave: the identity was proven to this authority, by a one-time token
    /// or a code, and not by an identity token, which says anew each time what holds.
    fn is_renewable(&self, old: &StoredCertificate) -> Result<bool, CaError> {
        let of_ours = ["token:", BY_CERTIFICATE].iter().any(|way| old.requester.starts_with(way));
        let lasts = self.profile(&old.profile)?.kind() != Kind::Keyless;
        Ok(of_ours && lasts && !self.settings.config.enrolment.no_renewal.contains(&old.profile))
    }

    /// The outcome of the call that used the request id, for the same key only.
    async fn renewed(&self, requester: &str, id: &str, spki_sha256: &[u8; 32]) -> Result<Issued, CaError> {
        let search = Search {
            requester: Some(requester.to_owned()),
            request_id: Some(id.to_owned()),
            limit: 1,
            ..Search::default()
        };
        let found = self.store.search(search).await?.pop();
        // Given up meanwhile: the id may serve again.
        let record = found.ok_or(CaError::IssuancePending)?;
        if record.spki_sha256 != *spki_sha256 {
            return Err(CaError::RequestConflict);
        }
        if let Some(issued) = self.delivered(record.intent).await? {
            return Ok(issued);
        }
        match record.state {
            State::Abandoned | State::MaybeIssued | State::Revoked => Err(CaError::IssuanceFailed),
            _ => Err(CaError::IssuancePending),
        }
    }

    /// Revokes what came of a certificate by renewal, and what came of that, because its key or its holder is not to be trusted: of a
    /// compromise whose date is known, what was renewed since.
    pub(crate) async fn revoke_renewals(
        &self,
        serial: &SerialNumber,
        reason: RevocationReason,
        since: Option<UnixTime>,
        actor: &str,
    ) -> Result<(), CaError> {
        let mut ended = vec![serial.clone()];
        while let Some(old) = ended.pop() {
            let search = Search {
                requester: Some(format!("{BY_CERTIFICATE}{old}")),
                limit: MAX_RENEWALS,
                ..Search::default()
            };
            for renewal in self.store.search(search).await? {
                if since.is_some_and(|since| renewal.created_at < since) {
                    continue;
                }
                // Nobody could trust it before its validity.
                let from = since.map(|since| since.max(renewal.not_before));
                match self.record_one_revocation(&renewal.serial, reason, from, actor).await {
                    // Of what was given up nothing exists; what was revoked before stays so.
                    Ok(_) | Err(CaError::NothingToRevoke | CaError::RevokedForAnotherReason) => {}
                    Err(error) => return Err(error),
                }
                ended.push(renewal.serial);
            }
        }
        Ok(())
    }
}

/// Whether what came of a certificate ends with it.
pub(crate) fn ends_renewals(reason: RevocationReason) -> bool {
    matches!(
        reason,
        RevocationReason::AffiliationChanged
            | RevocationReason::CaCompromise
            | RevocationReason::KeyCompromise
            | RevocationReason::PrivilegeWithdrawn
    )
}
