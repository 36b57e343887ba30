//! Enrolment by one-time token: the certificate carries the identity bound to the token, never what the request says.

use std::sync::Arc;

use ca_api::limits::{MAX_REQUEST_ID, MAX_TOKEN};
use ca_api::{CreateToken, Enrol, EnrolmentToken};
use ca_pki::Identity;
use ca_pki::csr::VerifiedRequest;
use trust_store::provider::AwsLc;

use crate::authority::CertificateAuthority;
use crate::enrolment_token;
use crate::error::CaError;
use crate::issuance::{AuthorisedRequest, Issued};
use crate::queue::person::Operator;
use crate::queue::{Asked, Proof, QueueRefusal};
use crate::storage::queue::RequestOf;
use crate::storage::{State, StoreError, StoredToken};

impl CertificateAuthority {
    /// Makes a one-time token; only its hash is kept.
    ///
    /// # Errors
    /// [`CaError::ProfileUnknown`], [`CaError::OutOfRange`], [`CaError::Pki`] for an identity no certificate may carry,
    /// [`CaError::Queue`] where people must approve and nobody in particular makes it, [`CaError::Store`].
    pub async fn create_token(
        &self,
        request: &CreateToken,
        by: impl Into<Operator>,
    ) -> Result<EnrolmentToken, CaError> {
        let Operator { actor, person } = by.into();
        let identity = identity(&request.identity)?;
        // What enrolment would refuse later is refused now, while the administrator is looking.
        self.profile(&request.profile)?.subject_for(&identity)?;
        if !(60..=604_800).contains(&request.ttl_seconds) {
            return Err(CaError::OutOfRange { field: "ttl_seconds", reason: "must be 60 to 604800" });
        }
        let proof = Proof::by_token(Some(&actor));
        let config = &self.settings.config;
        if matches!(proof, Proof::Token { .. })
            && person.is_none()
            && self.approvals_demanded(&request.profile, &proof, &config.identity_issuer) > 0
        {
            return Err(QueueRefusal::VoucherUnnamed.into());
        }
        let now = self.clock.now()?;
        let secret = enrolment_token::fresh(now)?;
        let expires_at = now.plus(i64::from(request.ttl_seconds));
        let token = StoredToken {
            hash: enrolment_token::hash(&secret),
            identity,
            profile: request.profile.clone(),
            expires_at,
            used_by: None,
            created_by: None,
            creator_names: person.map(|person| person.names().to_vec()).unwrap_or_default(),
        };
        self.store.create_token(token, &actor, now).await?;
        Ok(EnrolmentToken {
            token: secret,
            identity: request.identity.clone(),
            profile: request.profile.clone(),
            expires_at: expires_at.0,
        })
    }

    /// Enrols with a token and a certificate request. Runs to its end even when the caller goes away, so that a token is
    /// never used up by an issuance that nobody carries on.
    ///
    /// # Errors
    /// [`CaError`]; the token is used up only by an issuance that was recorded.
    pub async fn enrol(self: &Arc<Self>, request: &Enrol) -> Result<Issued, CaError> {
        self.enrol_over(request, Some(Vec::new())).await
    }

    /// The same for whoever is known by their connection, too: `connection` is what its client certificate names them, none where
    /// that cannot be read.
    ///
    /// # Errors
    /// As [`Self::enrol`].
    pub async fn enrol_over(
        self: &Arc<Self>,
        request: &Enrol,
        connection: Option<Vec<String>>,
    ) -> Result<Issued, CaError> {
        let (this, request) = (Arc::clone(self), request.clone());
        let task = tokio::spawn(async move { this.enrol_to_the_end(&request, connection).await });
        task.await.unwrap_or(Err(CaError::Inconsistent("the enrolment task ended early")))
    }

    async fn enrol_to_the_end(
        self: &Arc<Self>,
        request: &Enrol,
        connection: Option<Vec<String>>,
    ) -> Result<Issued, CaError> {
        check_request_id(request.request_id.as_deref())?;
        if request.token.len() > MAX_TOKEN {
            return Err(CaError::TokenUnknown);
        }
        let hash = enrolment_token::hash(&request.token);
        let token = self.store.token(&hash).await?.ok_or(CaError::TokenUnknown)?;
        let key_use = self.profile(&token.profile)?.key_use();
        let csr = VerifiedRequest::from_pem(&request.csr, key_use, &AwsLc)?;
        if token.used_by.is_some() {
            return self.repeated(&token, request, &csr).await;
        }
        let proof = Proof::by_token(token.created_by.as_deref());
        let identity_issuer = self.settings.config.identity_issuer.clone();
        let needed = self.approvals_demanded(&token.profile, &proof, &identity_issuer);
        let asked = || AuthorisedRequest {
            identity: token.identity.clone(),
            public_key: csr.public_key().clone(),
            profile: token.profile.clone(),
            identity_issuer: identity_issuer.clone(),
            claims: Vec::new(),
            requester: format!("token:{}", hex::encode(hash)),
            request_id: request.request_id.clone(),
            token: Some(hash),
            identity_token: None,
            proof: proof.clone(),
            approved: None,
            evidence: serde_json::json!({
                "method": "one-time-token",
                "request_attributes_ignored": csr.carries_attributes(),
            })
            .into(),
        };
        let waits = |needed: u8| Asked {
            request: asked(),
            requester_names: connection.clone(),
            voucher_names: token.creator_names.clone(),
            needed,
        };
        if needed > 0 {
            return self.certify_approved(&waits(needed)).await;
        }
        // This task runs to its end.
        match self.certify(asked()).await {
            // Another call with the same token was faster, it may be our own first attempt; or a request holds it, of when
            // certificates like this one needed approval.
            Err(CaError::Store(StoreError::TokenUsed)) => {
                if self
                    .store
                    .queued_of(RequestOf::Token(hash))
                    .await?
                    .is_some_and(|held| held.intent.is_none())
                {
                    return self.certify_approved(&waits(1)).await;
                }
                let token = self.store.token(&hash).await?.ok_or(CaError::TokenUnknown)?;
                self.repeated(&token, request, &csr).await
            }
            Err(CaError::Store(StoreError::TokenExpired)) => Err(CaError::TokenExpired),
            Err(CaError::Store(StoreError::KeyCompromised)) => Err(CaError::KeyCompromised),
            outcome => outcome,
        }
    }

    /// The outcome of the issuance that used the token, for its own requester only: same request id, same key.
    async fn repeated(
        &self,
        token: &StoredToken,
        request: &Enrol,
        csr: &VerifiedRequest,
    ) -> Result<Issued, CaError> {
        let Some(intent) = token.used_by else { return Err(CaError::TokenUsed) };
        let record =
            self.store.issuance(intent).await?.ok_or(CaError::Inconsistent("an issuance is missing"))?;
        if request.request_id.is_none() || record.request_id != request.request_id {
            return Err(CaError::TokenUsed);
        }
        if record.spki_sha256 != csr.public_key().spki_sha256() {
            return Err(CaError::RequestConflict);
        }
        if let Some(issued) = self.delivered(intent).await? {
            return Ok(issued);
        }
        match record.state {
            State::Abandoned | State::MaybeIssued | State::Revoked => Err(CaError::IssuanceFailed),
            _ => Err(CaError::IssuancePending),
        }
    }
}

/// Validates an identity of the wire.
///
/// # Errors
/// [`CaError::Pki`].
pub fn identity(wire: &ca_api::Identity) -> Result<Identity, CaError> {
    Ok(match wire {
        ca_api::Identity::Email(address) => Identity::email(address)?,
        ca_api::Identity::Uri(uri) => Identity::uri(uri)?,
    })
}

pub(crate) fn check_request_id(id: Option<&str>) -> Result<(), CaError> {
    let valid = id.is_none_or(|id| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID
            && id.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
    });
    if valid {
        Ok(())
    } else {
        Err(CaError::OutOfRange {
            field: "request_id",
            reason: "must be 1 to 64 letters, digits, -, _ and .",
        })
    }
}
