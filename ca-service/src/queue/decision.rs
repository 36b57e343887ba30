//! Who may approve or deny a request, and what comes of it.
//!
//! An approval counts by person: a client certificate or an identity token of their own names somebody, a shared token does not. Nobody
//! approves for themselves: neither who asked, nor who made the token they asked with, nor whoever the certificate would name.

use ca_api::limits::{MAX_DECIDED, MAX_REASON};
use ca_api::{ApproveRequests, DenyRequests, RequestState, RequestStatus, ShownRequest};
use ca_pki::UnixTime;

use super::statement::{digest, statement};
use super::{QueueRefusal, state_name};
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::StoreError;
use crate::storage::queue::{Decision, NewDecision, QueueState, QueuedId, QueuedRequest};

/// Somebody in a role that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    /// As audit records name them, the role first.
    pub actor: String,
    /// Their name, and the addresses they are known by.
    pub person: Option<Person>,
}

/// One person, as far as the authority can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The subject of a client certificate, or `oidc:ISSUER#SUBJECT`.
    pub name: String,
    /// What certificates could name them by: e-mail addresses and other parts of the subject.
    pub addresses: Vec<String>,
}

impl Person {
    /// Whether a request is their own, or one that they vouched for.
    #[must_use]
    pub fn asked_for(&self, request: &QueuedRequest) -> bool {
        let content = &request.content;
        let vouched = content.vouched_by.as_deref().and_then(|actor| actor.split_once(':'));
        content.requester == self.name
            || vouched.is_some_and(|(_, name)| name == self.name)
            || self.addresses.iter().any(|address| address.eq_ignore_ascii_case(content.identity.as_str()))
    }
}

impl CertificateAuthority {
    /// Approves requests, all or none of them, each as it was shown.
    ///
    /// # Errors
    /// [`CaError::Queue`] for the first that cannot be approved by them; [`CaError::OutOfRange`], [`CaError::KeyCompromised`],
    /// [`CaError::Store`].
    pub async fn approve_requests(
        &self,
        asked: &ApproveRequests,
        decider: &Decider,
    ) -> Result<Vec<RequestStatus>, CaError> {
        let person = decider.person.as_ref().ok_or(QueueRefusal::ApproverUnnamed)?;
        let now = self.clock.now()?;
        let found = self.shown(&asked.requests).await?;
        for request in &found {
            if person.asked_for(request) {
                return Err(QueueRefusal::ApproverIsRequester(hex::encode(request.content.id)).into());
            }
            let repeated = request.approvals.iter().any(|approval| approval.approver == person.name);
            match request.state_at(now) {
                QueueState::Waiting => {}
                QueueState::Approved if repeated => {}
                state => return Err(closed(request, state)),
            }
        }
        let decided = self.decide_all(Decision::Approve, &asked.requests, decider, &person.name, now).await?;
        // What a repetition found approved before is counted once.
        let before = found.iter().filter(|request| request.state == QueueState::Approved).count();
        let after = decided.iter().filter(|request| request.state == QueueState::Approved).count();
        self.metrics.requests_approved.inc_by(after.saturating_sub(before) as u64);
        Ok(decided.iter().map(|request| status(request, now)).collect())
    }

    /// Denies requests, all or none of them: nothing comes of them any more, also of those that were approved.
    ///
    /// # Errors
    /// As [`Self::approve_requests`].
    pub async fn deny_requests(
        &self,
        asked: &DenyRequests,
        decider: &Decider,
    ) -> Result<Vec<RequestStatus>, CaError> {
        let reason = asked.reason.trim();
        if reason.is_empty() || reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(CaError::OutOfRange {
                field: "reason",
                reason: "must be 1 to 256 bytes of printable text",
            });
        }
        // A denial is a protection: it is recorded even when the clock is in doubt.
        let now = self.clock.for_records();
        for request in &self.shown(&asked.requests).await? {
            let state = request.state_at(now);
            if !state.is_open() {
                return Err(closed(request, state));
            }
        }
        let decision = Decision::Deny(reason.to_owned());
        let decided = self.decide_all(decision, &asked.requests, decider, &decider.actor, now).await?;
        self.metrics.requests_denied.inc_by(decided.len() as u64);
        Ok(decided.iter().map(|request| status(request, now)).collect())
    }

    /// The requests of a call, each proven to be what was shown.
    async fn shown(&self, asked: &[ShownRequest]) -> Result<Vec<QueuedRequest>, CaError> {
        let mut ids: Vec<&str> = asked.iter().map(|shown| shown.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        if !(1..=MAX_DECIDED).contains(&asked.len()) || ids.len() != asked.len() {
            return Err(CaError::OutOfRange { field: "requests", reason: "must be 1 to 32 different ones" });
        }
        let authority = self.authority_fingerprint()?;
        let mut found = Vec::with_capacity(asked.len());
        for shown in asked {
            let request = self.queued_request(&shown.id).await?;
            let text = statement(&request.content, &authority)?;
            if hex::encode(digest(&text)) != shown.statement_sha256 {
                return Err(QueueRefusal::Changed(shown.id.clone()).into());
            }
            found.push(request);
        }
        Ok(found)
    }

    async fn decide_all(
        &self,
        decision: Decision,
        asked: &[ShownRequest],
        decider: &Decider,
        name: &str,
        at: UnixTime,
    ) -> Result<Vec<QueuedRequest>, CaError> {
        let mut requests: Vec<(QueuedId, [u8; 32])> = Vec::with_capacity(asked.len());
        for shown in asked {
            let (mut id, mut statement) = ([0; 16], [0; 32]);
            hex::decode_to_slice(&shown.id, &mut id)
                .and_then(|()| hex::decode_to_slice(&shown.statement_sha256, &mut statement))
                .map_err(|_| QueueRefusal::Unknown(shown.id.chars().take(64).collect()))?;
            requests.push((id, statement));
        }
        let first = asked.first().map(|shown| shown.id.clone()).unwrap_or_default();
        let new = NewDecision { decision, requests, actor: decider.actor.clone(), name: name.to_owned(), at };
        self.store.decide(new).await.map_err(|error| match error {
            StoreError::KeyCompromised => CaError::KeyCompromised,
            StoreError::NotFound => QueueRefusal::Unknown(first).into(),
            // Somebody decided at this very moment.
            StoreError::StateConflict => QueueRefusal::Closed { id: first, state: "decided" }.into(),
            error => error.into(),
        })
    }
}

fn closed(request: &QueuedRequest, state: QueueState) -> CaError {
    QueueRefusal::Closed { id: hex::encode(request.content.id), state: state_name(state) }.into()
}

/// How a request stands, for the wire.
#[must_use]
pub fn status(request: &QueuedRequest, now: UnixTime) -> RequestStatus {
    RequestStatus {
        id: hex::encode(request.content.id),
        state: match request.state_at(now) {
            QueueState::Waiting => RequestState::Waiting,
            QueueState::Approved => RequestState::Approved,
            QueueState::Issued => RequestState::Issued,
            QueueState::Denied => RequestState::Denied,
            QueueState::Expired => RequestState::Expired,
            QueueState::Ended => RequestState::Ended,
        },
        approvals_needed: request.content.needed,
        approvals_given: u8::try_from(request.approvals.len()).unwrap_or(u8::MAX),
        expires_at: request.content.expires_at.0,
        reason: request.reason.clone(),
    }
}
