//! Certificates that people must approve before they are issued.
//!
//! | word | meaning |
//! |---|---|
//! | `Asked` | somebody whose identity and key were proven, and how many people must approve |
//! | [`RequestContent`] | what would be issued, fixed when the request is recorded |
//! | [`statement`](mod@statement) | the same as text: what approvers are shown, and approve by its SHA-256 |
//! | [`person`] | who somebody is, by every name that is known of them |
//! | [`decision`] | who may approve or deny, and what comes of it |
//! | [`Granted`] | the proof that enough different people approved exactly this, without which issuance refuses |
//! | `notice` | the webhook that is told of new requests |
//!
//! A request is recorded after everything that issuance would refuse was looked at. Its certificate is issued when the requester
//! comes back after the approval, in the order of every issuance, and the request is used up in the transaction that records the
//! intent: whoever comes back twice gets the same certificate.

pub mod decision;
mod granted;
mod lineage;
pub mod notice;
pub mod person;
mod proof;
mod refusal;
pub mod statement;
mod terms;

use std::sync::Arc;

use ca_pki::oid::ObjectIdentifier;
use ca_pki::{SubjectPublicKey, UnixTime};

use crate::authority::{CertificateAuthority, random};
use crate::error::CaError;
use crate::issuance::{AuthorisedRequest, Issued};
use crate::storage::queue::{
    Decided, NewRequest, QueueState, QueuedId, QueuedRequest, RequestContent, RequestOf,
};
use crate::storage::{State, Step, StoreError};
pub use granted::Granted;
pub(crate) use granted::{Verdict, judge, of_text};
pub use proof::Proof;
pub use refusal::{QueueRefusal, state_name};
use statement::{digest, statement};

/// Seconds after its end for which a request is remembered: its requester learns what became of it. The audit trail never forgets.
const REMEMBERED: i64 = 30 * 86_400;
/// Seconds for which whoever comes back with the same key is told that their request was denied or ended, or that its time was over.
/// Later they ask anew.
const TOLD: i64 = 86_400;
/// Attempts of one call while others decide about the same request.
const ATTEMPTS: u32 = 4;

/// Somebody who was authenticated and proved possession of a key, and whose certificate needs approval.
pub(crate) struct Asked {
    /// What would be issued, with the requester's own id of the request.
    pub(crate) request: AuthorisedRequest,
    /// What else they are known by; none for whoever cannot be told from the people who approve.
    pub(crate) requester_names: Option<Vec<String>>,
    /// What else is known of who vouched for them; none for nobody in particular.
    pub(crate) voucher_names: Vec<String>,
    /// How many people must approve, at least 1.
    pub(crate) needed: u8,
}

impl CertificateAuthority {
    /// Records a request that needs approval, or goes on with the one that there is: says how it stands, or issues its certificate
    /// once it was approved. For a caller that runs to its end itself.
    ///
    /// # Errors
    /// [`CaError::Queue`] while it waits and for what is refused, else as issuance.
    pub(crate) async fn certify_approved(self: &Arc<Self>, asked: &Asked) -> Result<Issued, CaError> {
        let request_id = asked.request.request_id.as_deref();
        let request_id = request_id.ok_or(CaError::OutOfRange {
            field: "request_id",
            reason: "is needed: the certificate waits for approval, and is fetched by repeating the call",
        })?;
        let of = match asked.request.token {
            Some(token) => RequestOf::Token(token),
            None => RequestOf::Requester(asked.request.requester.clone(), request_id.to_owned()),
        };
        for _ in 0..ATTEMPTS {
            let step = match self.store.queued_of(of.clone()).await? {
                None => self.enqueue(asked, request_id, None).await,
                Some(queued) => {
                    same_request(&queued, asked, request_id)?;
                    if self.gives_way(&queued).await? {
                        self.enqueue(asked, request_id, Some(queued.content.id)).await
                    } else {
                        self.go_on(queued, asked).await
                    }
                }
            };
            match step {
                // Somebody was faster: an approver, the requester on another connection, or time.
                Err(CaError::Store(StoreError::StateConflict)) => {}
                outcome => return outcome,
            }
        }
        Err(CaError::IssuancePending)
    }

    /// Whether a requester's request has run its course, so that the same key may be asked for anew: its certificate has ended, was
    /// revoked or never came, or they were told for long enough why there is none. What holds a one-time token never gives way.
    async fn gives_way(&self, queued: &QueuedRequest) -> Result<bool, CaError> {
        let now = self.clock.now()?;
        if queued.content.token.is_some() {
            return Ok(false);
        }
        match (queued.state_at(now), queued.intent) {
            (QueueState::Waiting | QueueState::Approved, _) => Ok(false),
            (QueueState::Issued, Some(intent)) => {
                let record = self.store.issuance(intent).await?;
                Ok(record.is_some_and(|record| is_over(record.state, record.step, record.not_after, now)))
            }
            (QueueState::Issued, None) => Ok(false),
            (QueueState::Denied | QueueState::Expired | QueueState::Ended, _) => {
                let closed_at = queued.closed_at.unwrap_or(queued.content.expires_at);
                Ok(closed_at.plus(TOLD) <= now)
            }
        }
    }

    /// Records a request, after everything was looked at that would be refused when its certificate is issued.
    async fn enqueue(
        &self,
        asked: &Asked,
        request_id: &str,
        instead_of: Option<QueuedId>,
    ) -> Result<Issued, CaError> {
        // Whoever made the token may be the one who approves, and so may whoever asks without a name that could be compared.
        if asked.request.proof.needs_voucher() && asked.voucher_names.is_empty() {
            return Err(QueueRefusal::VoucherUnnamed.into());
        }
        let requester_names = asked.requester_names.clone().ok_or(QueueRefusal::RequesterUnnamed)?;
        // Built, linted, and thrown away: nobody shall approve what cannot be issued.
        drop(self.draw_up(asked.request.clone())?);
        let now = self.clock.now()?;
        let config = &self.settings.config.enrolment;
        let request = &asked.request;
        let (issuer, terms) = self.terms(&request.profile, &request.identity, now)?;
        let content = RequestContent {
            id: random::<16>()?,
            requester: request.requester.clone(),
            request_id: request_id.to_owned(),
            token: request.token,
            way: request.proof.way(),
            requester_names,
            vouched_by: request.proof.voucher().map(str::to_owned),
            voucher_names: asked.voucher_names.clone(),
            identity: request.identity.clone(),
            identity_issuer: request.identity_issuer.clone(),
            profile: request.profile.clone(),
            issuer,
            terms,
            spki: request.public_key.spki().to_vec(),
            spki_sha256: request.public_key.spki_sha256(),
            claims: request.claims.iter().map(|(oid, text)| (oid.to_string(), text.clone())).collect(),
            evidence: request.evidence.as_str().to_owned(),
            needed: asked.needed,
            created_at: now,
            expires_at: now.plus(i64::from(config.request_hours) * 3_600),
        };
        let (id, expires_at, statement) = (content.id, content.expires_at, statement(&content)?);
        let new = NewRequest { content, statement, limits: config.limits(), instead_of };
        self.store.record_request(new).await.map_err(|error| match error {
            StoreError::QueueFull(limit) => QueueRefusal::Full(limit).into(),
            StoreError::KeyCompromised => CaError::KeyCompromised,
            StoreError::TokenExpired => CaError::TokenExpired,
            StoreError::NotFound => CaError::TokenUnknown,
            // It was used by an issuance that was quicker.
            StoreError::TokenUsed => CaError::TokenUsed,
            error => error.into(),
        })?;
        self.metrics.requests_recorded.inc();
        self.request_due.notify_one();
        Err(QueueRefusal::Awaiting { id, needed: asked.needed, given: 0, expires_at }.into())
    }

    /// What a request has come to; issues its certificate when it was approved.
    async fn go_on(self: &Arc<Self>, queued: QueuedRequest, asked: &Asked) -> Result<Issued, CaError> {
        let now = self.clock.now()?;
        let needed = self.approvals_in_force(&queued.content).max(asked.needed);
        let awaits = |given: u8| {
            let (id, expires_at) = (queued.content.id, queued.content.expires_at);
            Err(QueueRefusal::Awaiting { id, needed, given, expires_at }.into())
        };
        if queued.state_at(now).is_open() {
            // At least as many as when it was recorded must be left.
            let statement = digest(&statement(&queued.content)?);
            let decided = Decided { id: queued.content.id, statement, needed };
            if self.withdraw_lapsed(&queued, decided).await? {
                // It is looked at again.
                return Err(StoreError::StateConflict.into());
            }
        }
        match queued.state_at(now) {
            QueueState::Waiting => {
                let given = of_text(&queued, &statement(&queued.content)?).count();
                awaits(u8::try_from(given).unwrap_or(u8::MAX))
            }
            QueueState::Denied => Err(QueueRefusal::Denied(queued.reason.unwrap_or_default()).into()),
            QueueState::Ended => Err(QueueRefusal::Ended(queued.reason.unwrap_or_default()).into()),
            QueueState::Expired => Err(QueueRefusal::Expired.into()),
            QueueState::Issued => {
                let intent =
                    queued.intent.ok_or(CaError::Inconsistent("an issued request has no issuance"))?;
                if let Some(issued) = self.delivered(intent).await? {
                    return Ok(issued);
                }
                let record = self.store.issuance(intent).await?;
                let record = record.ok_or(CaError::Inconsistent("an issuance is missing"))?;
                match record.state {
                    State::Abandoned | State::MaybeIssued | State::Revoked => Err(CaError::IssuanceFailed),
                    _ => Err(CaError::IssuancePending),
                }
            }
            QueueState::Approved => {
                let text = statement(&queued.content)?;
                refuse_own_approval(&queued, &text, asked)?;
                let altered = || {
                    let id = hex::encode(queued.content.id);
                    tracing::error!(id, "a request is not what was approved: its record was changed");
                    Err(QueueRefusal::Changed(id).into())
                };
                let granted = match judge(&queued, &text, needed) {
                    Verdict::Altered => return altered(),
                    // More are demanded than when it was approved.
                    Verdict::TooFew(given) => {
                        let decided = Decided { id: queued.content.id, statement: digest(&text), needed };
                        self.store.reopen_request(decided, self.clock.for_records()).await?;
                        return awaits(given);
                    }
                    Verdict::Granted(granted) => granted,
                };
                if !self.are_in_the_trail(&queued, &text).await? {
                    return altered();
                }
                let request = self.authorised(queued.content, granted, &asked.request)?;
                self.certify(request).await.map_err(|error| match error {
                    CaError::Store(StoreError::KeyCompromised) => CaError::KeyCompromised,
                    // Its request was used up with it.
                    CaError::Store(StoreError::TokenUsed) => StoreError::StateConflict.into(),
                    error => error,
                })
            }
        }
    }

    /// The request as issuance takes it: what was approved, whatever the requester says by now. How they proved who they are when they
    /// came for it is recorded beside that.
    fn authorised(
        &self,
        content: RequestContent,
        granted: Granted,
        fetching: &AuthorisedRequest,
    ) -> Result<AuthorisedRequest, CaError> {
        let proof = Proof::of(&content);
        let key_use = self.profile(&content.profile)?.key_use();
        let public_key = SubjectPublicKey::from_spki(&content.spki, key_use).map_err(CaError::Request)?;
        let claims = content.claims.into_iter().map(|(oid, text)| {
            let oid = ObjectIdentifier::new(&oid);
            Ok((oid.map_err(|_| CaError::Inconsistent("a request has no OID for a claim"))?, text))
        });
        let claims = claims.collect::<Result<_, CaError>>()?;
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text);
        let inconsistent = |_| CaError::Inconsistent("the evidence of a request is not JSON");
        let evidence = serde_json::json!({
            "approval": granted.record(),
            "asked_by": content.requester_names,
            "evidence": json(&content.evidence).map_err(inconsistent)?,
            "fetched_by": json(fetching.evidence.as_str()).map_err(inconsistent)?,
        });
        Ok(AuthorisedRequest {
            identity: content.identity,
            public_key,
            profile: content.profile,
            identity_issuer: content.identity_issuer,
            claims,
            requester: content.requester,
            // Ids of requesters without a token are ours, and no certificate's: that of the request comes once, ever.
            request_id: Some(match content.token {
                Some(_) => content.request_id,
                None => hex::encode(content.id),
            }),
            token: content.token,
            // What waits uses nothing up: that of whoever comes for the certificate counts.
            identity_token: fetching.identity_token,
            proof,
            approved: Some(granted),
            evidence: evidence.into(),
        })
    }

    /// Notes whose time is over, forgets what was closed long ago, and counts what waits. The reconciler's part.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn tend_queue(&self) -> Result<u64, CaError> {
        let now = self.clock.for_records();
        let expired = self.store.tend_queue(now, now.plus(-REMEMBERED)).await?;
        self.metrics.requests_expired.inc_by(expired);
        let waiting = self.store.count_waiting(now).await?;
        self.metrics.requests_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        Ok(expired)
    }

    /// The request of an id, as its requester and operators write it.
    ///
    /// # Errors
    /// [`QueueRefusal::Unknown`], [`CaError::Store`].
    pub async fn queued_request(&self, id: &str) -> Result<QueuedRequest, CaError> {
        let unknown = || QueueRefusal::Unknown(id.chars().take(64).collect());
        // In one spelling only: a list of ids with the same one twice is recognised.
        let octets = hex::decode(id).ok().filter(|octets| hex::encode(octets) == id);
        let octets = octets.and_then(|octets| octets.try_into().ok());
        let found = self.store.queued(octets.ok_or_else(unknown)?).await?;
        Ok(found.ok_or_else(unknown)?)
    }
}

/// Whether nothing comes of an issuance any more, nor of the request that was used up by it. One that is under way, however long it
/// takes, may still end in a certificate, or give the request back.
fn is_over(state: State, step: Step, not_after: UnixTime, now: UnixTime) -> bool {
    match (state, step) {
        (State::Intent | State::Signing, _) | (State::Signed | State::Logged, Step::Precertificate) => false,
        (State::Abandoned | State::MaybeIssued | State::Revoked, _) => true,
        (State::Signed | State::Logged | State::Delivered, _) => not_after < now,
    }
}

/// Refuses whoever comes for the certificate as somebody who approved it: by the connection that they fetch it over, which the one
/// that they asked over need not have been.
fn refuse_own_approval(queued: &QueuedRequest, text: &str, asked: &Asked) -> Result<(), QueueRefusal> {
    let own = asked.requester_names.as_ref().ok_or(QueueRefusal::RequesterUnnamed)?;
    let is_own = |name: &String| own.iter().any(|other| other.eq_ignore_ascii_case(name));
    if of_text(queued, text).any(|approval| approval.names.iter().any(is_own)) {
        return Err(QueueRefusal::ApproverIsRequester(hex::encode(queued.content.id)));
    }
    Ok(())
}

/// Refuses whoever comes back to a request as somebody else, or with something else.
fn same_request(queued: &QueuedRequest, asked: &Asked, request_id: &str) -> Result<(), CaError> {
    let content = &queued.content;
    if content.request_id != request_id {
        return Err(CaError::TokenUsed);
    }
    let claims = asked.request.claims.iter().map(|(oid, text)| (oid.to_string(), text.clone()));
    let same = content.spki_sha256 == asked.request.public_key.spki_sha256()
        && content.identity == asked.request.identity
        && content.identity_issuer == asked.request.identity_issuer
        && content.profile == asked.request.profile
        && content.claims == claims.collect::<Vec<_>>();
    if same { Ok(()) } else { Err(CaError::RequestConflict) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuance_under_way_gives_way_to_no_other_request_however_long_it_takes() {
        let (ends, later) = (UnixTime(600), UnixTime(601));
        let over = |state, step| is_over(state, step, ends, later);
        for state in [State::Intent, State::Signing] {
            assert!(!over(state, Step::Certificate) && !over(state, Step::Precertificate), "{state:?}");
        }
        // Its certificate is still to be signed, or the issuance is revoked.
        assert!(!over(State::Signed, Step::Precertificate) && over(State::Signed, Step::Certificate));
        for state in [State::Abandoned, State::MaybeIssued, State::Revoked] {
            assert!(is_over(state, Step::Certificate, ends, UnixTime(0)), "{state:?}");
        }
        assert!(!is_over(State::Delivered, Step::Certificate, ends, ends));
        assert!(over(State::Delivered, Step::Certificate));
    }
}
