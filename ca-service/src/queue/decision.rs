//! Who may approve or deny a request, and what comes of it.
//!
//! An approval counts by [person](super::person). Nobody approves for themselves: neither who asked, nor who made the token they asked
//! with, nor whoever the certificate would name.

use ca_api::limits::{MAX_DECIDED, MAX_REASON};
use ca_api::{ApproveRequests, DenyRequests, RequestState, RequestStatus, ShownRequest};
use ca_pki::UnixTime;

use super::person::{Operator, Person};
use super::statement::{digest, statement};
use super::{QueueRefusal, of_text, state_name};
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::StoreError;
use crate::storage::queue::{Decided, Decision, NewDecision, QueueState, QueuedRequest, StoredApproval};

impl CertificateAuthority {
    /// Approves requests, all or none of them, each as it was shown.
    ///
    /// # Errors
    /// [`CaError::Queue`] for the first that cannot be approved by them; [`CaError::OutOfRange`], [`CaError::KeyCompromised`],
    /// [`CaError::Store`].
    pub async fn approve_requests(
        &self,
        asked: &ApproveRequests,
        decider: &Operator,
    ) -> Result<Vec<RequestStatus>, CaError> {
        let person = decider.person.as_ref().ok_or(QueueRefusal::ApproverUnnamed)?;
        let now = self.clock.now()?;
        let found = self.shown(&asked.requests).await?;
        for Shown { request, .. } in &found {
            let content = &request.content;
            if person.asked_for(content) {
                return Err(QueueRefusal::ApproverIsRequester(hex::encode(content.id)).into());
            }
            let state = request.state_at(now);
            if !state.is_open() {
                return Err(closed(request, state));
            }
            // Nobody shall approve what would not be issued any more.
            if !self.keeps_its_terms(content, now)? {
                return Err(QueueRefusal::Changed(hex::encode(content.id)).into());
            }
        }
        // Who lost the role meanwhile does not count beside them.
        let mut withdrawn = false;
        for Shown { request, decided } in &found {
            withdrawn |= self.withdraw_lapsed(request, *decided).await?;
        }
        let found = if withdrawn { self.shown(&asked.requests).await? } else { found };
        let decided = self.decide_all(Decision::Approve, &found, decider, person.names(), now).await?;
        // What a repetition found approved before is counted once.
        let approved = |request: &QueuedRequest| request.state == QueueState::Approved;
        let before = found.iter().filter(|shown| approved(&shown.request)).count();
        let after = decided.iter().filter(|request| approved(request)).count();
        self.metrics.requests_approved.inc_by(after.saturating_sub(before) as u64);
        decided.iter().map(|request| self.request_status(request, now)).collect()
    }

    /// Denies requests, all or none of them: nothing comes of them any more, also of those that were approved.
    ///
    /// # Errors
    /// As [`Self::approve_requests`].
    pub async fn deny_requests(
        &self,
        asked: &DenyRequests,
        decider: &Operator,
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
        let found = self.shown(&asked.requests).await?;
        for Shown { request, .. } in &found {
            let state = request.state_at(now);
            if !state.is_open() {
                return Err(closed(request, state));
            }
        }
        let decision = Decision::Deny(reason.to_owned());
        let decided = self.decide_all(decision, &found, decider, &[], now).await?;
        self.metrics.requests_denied.inc_by(decided.len() as u64);
        decided.iter().map(|request| self.request_status(request, now)).collect()
    }

    /// Takes back the approvals of an open request that were given by people who may not approve any more; whether there were any.
    pub(super) async fn withdraw_lapsed(
        &self,
        request: &QueuedRequest,
        decided: Decided,
    ) -> Result<bool, CaError> {
        let given = request.approvals.iter().filter(|approval| approval.statement == decided.statement);
        let approvers = given.map(|approval| approval.approver.clone());
        let lapsed: Vec<String> = approvers.filter(|name| !self.may_still_approve(name)).collect();
        let found = !lapsed.is_empty();
        if found {
            self.store.withdraw_approvals(decided, lapsed, self.clock.for_records()).await?;
        }
        Ok(found)
    }

    /// The requests of a call, each proven to be what was shown.
    async fn shown(&self, asked: &[ShownRequest]) -> Result<Vec<Shown>, CaError> {
        let mut ids: Vec<&str> = asked.iter().map(|shown| shown.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        if !(1..=MAX_DECIDED).contains(&asked.len()) || ids.len() != asked.len() {
            return Err(CaError::OutOfRange { field: "requests", reason: "must be 1 to 32 different ones" });
        }
        let mut found = Vec::with_capacity(asked.len());
        for shown in asked {
            let request = self.queued_request(&shown.id).await?;
            let statement = digest(&statement(&request.content)?);
            if hex::encode(statement) != shown.statement_sha256 {
                return Err(QueueRefusal::Changed(shown.id.clone()).into());
            }
            let needed = self.approvals_in_force(&request.content);
            found.push(Shown { decided: Decided { id: request.content.id, statement, needed }, request });
        }
        Ok(found)
    }

    async fn decide_all(
        &self,
        decision: Decision,
        shown: &[Shown],
        decider: &Operator,
        names: &[String],
        at: UnixTime,
    ) -> Result<Vec<QueuedRequest>, CaError> {
        let first = shown.first().map(|shown| hex::encode(shown.decided.id)).unwrap_or_default();
        let name = decider.person.as_ref().map_or(decider.actor.as_str(), Person::name);
        let new = NewDecision {
            decision,
            requests: shown.iter().map(|shown| shown.decided).collect(),
            actor: decider.actor.clone(),
            name: name.to_owned(),
            names: names.to_vec(),
            at,
        };
        self.store.decide(new).await.map_err(|error| match error {
            StoreError::ApproverRepeated => QueueRefusal::ApproverRepeated(first).into(),
            StoreError::KeyCompromised => CaError::KeyCompromised,
            StoreError::NotFound => QueueRefusal::Unknown(first).into(),
            // It was approved by others before, or somebody decided at this very moment.
            StoreError::StateConflict => QueueRefusal::Closed { id: first, state: "decided" }.into(),
            error => error.into(),
        })
    }

    /// How a request stands, for the wire: by the number of people who must approve it now.
    ///
    /// # Errors
    /// [`CaError::Inconsistent`] when its text cannot be written.
    pub fn request_status(&self, request: &QueuedRequest, now: UnixTime) -> Result<RequestStatus, CaError> {
        let text = statement(&request.content)?;
        let counts = |approval: &&StoredApproval| self.may_still_approve(&approval.approver);
        // What became a certificate was approved by whoever could then.
        let given = match request.state {
            QueueState::Issued => of_text(request, &text).count(),
            _ => of_text(request, &text).filter(counts).count(),
        };
        let given = u8::try_from(given).unwrap_or(u8::MAX);
        let needed = self.approvals_in_force(&request.content);
        Ok(RequestStatus {
            id: hex::encode(request.content.id),
            state: match request.state_at(now) {
                // Enough at the time, and too few by now.
                QueueState::Approved if given < needed => RequestState::Waiting,
                QueueState::Waiting => RequestState::Waiting,
                QueueState::Approved => RequestState::Approved,
                QueueState::Issued => RequestState::Issued,
                QueueState::Denied => RequestState::Denied,
                QueueState::Expired => RequestState::Expired,
                QueueState::Ended => RequestState::Ended,
            },
            approvals_needed: needed,
            approvals_given: given,
            expires_at: request.content.expires_at.0,
            reason: request.reason.clone(),
        })
    }
}

fn closed(request: &QueuedRequest, state: QueueState) -> CaError {
    QueueRefusal::Closed { id: hex::encode(request.content.id), state: state_name(state) }.into()
}

/// A request of a call, and what is decided of it.
struct Shown {
    request: QueuedRequest,
    decided: Decided,
}
