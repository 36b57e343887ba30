//! Renewal by the certified key: a new certificate of the same identity and profile, for a new key, without a new one-time token.
//!
//! What the new certificate says comes from the record of the old one. A renewal is linked with it: whoever ends the old one because
//! its key or its holder is not to be trusted ends what came of it ([`CertificateAuthority::revoke`]).
//!
//! A call that is repeated gets what came of the first one, whatever became of the old certificate, the configuration and the limits since:
//! the requester has the new key already. Only what is new is judged.

use std::sync::Arc;

use ca_api::possession::{ProvenDeed, Renew};
use ca_pki::Identity;
use ca_pki::UnixTime;
use ca_pki::csr::VerifiedRequest;
use ca_pki::profile::Kind;
use trust_store::provider::AwsLc;

use crate::authority::CertificateAuthority;
use crate::enrolment::check_request_id;
use crate::error::CaError;
use crate::issuance::{AuthorisedRequest, Issued};
use crate::possession::{PossessionRefusal, Proven};
use crate::queue::{Asked, Proof};
use crate::storage::queue::{QueueState, RequestOf};
use crate::storage::{BY_CERTIFICATE, Search, State, StoreError, StoredCertificate};

/// What came of earlier calls with the same request id.
enum Before {
    /// A certificate.
    Issued(Box<Issued>),
    /// Nothing, or nothing that stands in the way of another one.
    Nothing,
    /// A request that people approve, or may.
    Open,
}

impl CertificateAuthority {
    /// Renews the certificate whose key is shown. Runs to its end even when the caller goes away. `held` as for
    /// [`Self::list_own`].
    ///
    /// # Errors
    /// As [`Self::renew_own_over`].
    pub async fn renew_own(self: &Arc<Self>, asked: &Renew, held: Option<&[u8]>) -> Result<Issued, CaError> {
        self.renew_own_over(asked, held, Some(Vec::new())).await
    }

    /// The same for whoever is known by their connection, too: `connection` is what its client certificate names them, none where
    /// that cannot be read.
    ///
    /// # Errors
    /// [`CaError::Possession`], [`CaError::Queue`] where people must approve, and what issuance reports.
    pub async fn renew_own_over(
        self: &Arc<Self>,
        asked: &Renew,
        held: Option<&[u8]>,
        connection: Option<Vec<String>>,
    ) -> Result<Issued, CaError> {
        let (this, asked, held) = (Arc::clone(self), asked.clone(), held.map(<[u8]>::to_vec));
        let task =
            tokio::spawn(async move { this.renew_to_the_end(&asked, held.as_deref(), connection).await });
        task.await.unwrap_or(Err(CaError::Inconsistent("the enrolment task ended early")))
    }

    async fn renew_to_the_end(
        self: &Arc<Self>,
        asked: &Renew,
        held: Option<&[u8]>,
        connection: Option<Vec<String>>,
    ) -> Result<Issued, CaError> {
        check_request_id(Some(&asked.request_id))?;
        let now = self.clock.now()?;
        let challenge = asked.proof.as_ref().and_then(|proof| proof.challenge.as_deref());
        let content = Renew::content(challenge.unwrap_or_default(), &asked.request_id, &asked.csr);
        let proven = Proven { deed: ProvenDeed::Renew, content: &content, now };
        let holder = self.holder(asked.proof.as_ref(), held, &proven).await?;
        let (requester, way, old) = (holder.name(), holder.way(), holder.record());
        // What a handshake shows was shown for this connection.
        if asked.proof.is_some() {
            self.refuse_unchallenged(challenge, &old.serial)?;
        }
        let csr = VerifiedRequest::from_pem(&asked.csr, self.profile(&old.profile)?.key_use(), &AwsLc)?;
        let spki_sha256 = csr.public_key().spki_sha256();
        let least = match self.before(&requester, &asked.request_id, &spki_sha256, now).await? {
            Before::Issued(issued) => return Ok(*issued),
            // People were asked while the certificate was good, and may need longer than it is.
            Before::Open => {
                self.refuse_revoked(&holder)?;
                1
            }
            Before::Nothing => {
                self.refuse_lapsed(&holder, now)?;
                0
            }
        };
        if !self.is_renewable(old)? {
            return Err(PossessionRefusal::NotRenewable.into());
        }
        // Reported since it was certified: whoever shows it may be anybody.
        if self.settings.blocked_keys.contains(&old.spki_sha256) {
            return Err(CaError::KeyCompromised);
        }
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
            identity_token: None,
            proof: Proof::Certificate { serial: Some(old.serial.clone()), vouched_by: None },
            approved: None,
            evidence: serde_json::json!({
                "method": "certified-key", "renews": old.serial.to_string(), "shown_by": way,
            })
            .into(),
        };
        let needed = self.approvals_demanded(&request.profile, &request.proof, &request.identity_issuer);
        let outcome = match needed.max(least) {
            0 => self.certify(request).await,
            needed => self.certify_approved(&self.asked_by(request, old, connection, needed).await?).await,
        };
        match outcome {
            // Another call was faster.
            Err(CaError::Store(StoreError::RenewedAlready)) => {
                match self.before(&requester, &asked.request_id, &spki_sha256, now).await? {
                    Before::Issued(issued) => Ok(*issued),
                    // Given up meanwhile: the id may serve again.
                    Before::Nothing | Before::Open => Err(CaError::IssuancePending),
                }
            }
            Err(CaError::Store(StoreError::RenewalsEnding)) => Err(CaError::IssuancePending),
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

    /// A renewal for people to approve: asked for by whoever the connection and the certificate name and whoever asked for one of its
    /// line before, vouched for by whoever vouched for the first of them.
    async fn asked_by(
        &self,
        mut request: AuthorisedRequest,
        old: &StoredCertificate,
        connection: Option<Vec<String>>,
        needed: u8,
    ) -> Result<Asked, CaError> {
        let mut lineage = self.lineage(old).await?;
        if let Identity::Email(address) = &request.identity {
            lineage.name(address);
        }
        for name in connection.iter().flatten() {
            lineage.name(name);
        }
        // Of a connection whose certificate cannot be read nobody is known.
        let requester_names = connection.is_some().then_some(lineage.names);
        request.proof =
            Proof::Certificate { serial: Some(old.serial.clone()), vouched_by: lineage.vouched_by };
        Ok(Asked { request, requester_names, voucher_names: lineage.voucher_names, needed })
    }

    /// Whether the holder may have another one without anybody's leave: the identity was proven to this authority, by a one-time token
    /// or a code, and not by an identity token, which says anew each time what holds.
    fn is_renewable(&self, old: &StoredCertificate) -> Result<bool, CaError> {
        let of_ours = ["token:", BY_CERTIFICATE].iter().any(|way| old.requester.starts_with(way));
        let lasts = self.profile(&old.profile)?.kind() != Kind::Keyless;
        Ok(of_ours && lasts && !self.settings.config.enrolment.no_renewal.contains(&old.profile))
    }

    /// What came of the calls before this one with the request id, for the same key only.
    async fn before(
        &self,
        requester: &str,
        id: &str,
        spki_sha256: &[u8; 32],
        now: UnixTime,
    ) -> Result<Before, CaError> {
        let search = Search {
            requester: Some(requester.to_owned()),
            request_id: Some(id.to_owned()),
            limit: 1,
            ..Search::default()
        };
        if let Some(record) = self.store.search(search).await?.pop() {
            return self.came_of(&record, spki_sha256).await;
        }
        let of = RequestOf::Requester(requester.to_owned(), id.to_owned());
        let Some(queued) = self.store.queued_of(of).await? else { return Ok(Before::Nothing) };
        match (queued.state_at(now), queued.intent) {
            (QueueState::Waiting | QueueState::Approved, _) => Ok(Before::Open),
            (QueueState::Issued, Some(intent)) => {
                let record = self.store.issuance(intent).await?;
                let record = record.ok_or(CaError::Inconsistent("an issuance is missing"))?;
                let over = matches!(record.state, State::Abandoned | State::MaybeIssued | State::Revoked);
                // The same key may be asked for anew.
                if over || record.not_after < now {
                    return Ok(Before::Nothing);
                }
                self.came_of(&record, spki_sha256).await
            }
            _ => Ok(Before::Nothing),
        }
    }

    /// The certificate of an issuance, for the same key only.
    async fn came_of(&self, record: &StoredCertificate, spki_sha256: &[u8; 32]) -> Result<Before, CaError> {
        if record.spki_sha256 != *spki_sha256 {
            return Err(CaError::RequestConflict);
        }
        if let Some(issued) = self.delivered(record.intent).await? {
            return Ok(Before::Issued(Box::new(issued)));
        }
        match record.state {
            State::Abandoned | State::MaybeIssued | State::Revoked => Err(CaError::IssuanceFailed),
            _ => Err(CaError::IssuancePending),
        }
    }
}
