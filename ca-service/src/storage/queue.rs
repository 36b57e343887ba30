//! Requests for certificates that wait for people's approval, as the store keeps them.
//!
//! What would be issued ([`RequestContent`]) is fixed when a request is recorded and never changed. Its state moves on as
//! [`QueueState`] says, each step conditional on the state it starts from; the step to [`QueueState::Issued`] is part of the
//! transaction that records the issuance's intent, so that one request becomes one certificate at most.

pub(super) mod sql;
mod store;

use ca_pki::{Identity, UnixTime};
use serde::{Deserialize, Serialize};

use super::{Answer, IntentId, StoreError};

/// Id of a request in the queue: random, and all that its requester needs to ask how it stands.
pub type QueuedId = [u8; 16];

/// Where a request stands. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueState {
    /// Not enough people approved it.
    Waiting = 0,
    /// Enough did; its certificate is issued when its requester comes back.
    Approved = 1,
    /// An issuance was recorded for it.
    Issued = 2,
    /// Somebody denied it.
    Denied = 3,
    /// Its time was over before its certificate was fetched.
    Expired = 4,
    /// An order to revoke many meant it, the authority was restored from a backup meanwhile, or nothing came of its issuance and its
    /// requester has another one by then.
    Ended = 5,
}

impl QueueState {
    /// Every state, in the order of the numbers.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Approved, Self::Issued, Self::Denied, Self::Expired, Self::Ended];

    /// Whether a certificate may still come of it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Approved)
    }
}

/// How somebody asks for a certificate. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// With a one-time token that an operator made.
    Token = 0,
    /// With a code that was sent to the e-mail address.
    Code = 1,
    /// With an identity token.
    IdentityToken = 2,
    /// With the key of a certificate, which is renewed.
    Certificate = 3,
}

impl Way {
    /// Every way, in the order of the numbers.
    pub const ALL: [Self; 4] = [Self::Token, Self::Code, Self::IdentityToken, Self::Certificate];
}

/// What profile and issuing authority make of a request, as they were when it was recorded. Where they say something else by the time
/// of the issuance, nothing is issued. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// SHA-256 of the SubjectPublicKeyInfo of the issuing authority, hexadecimal.
    pub issuer_key: String,
    /// The rules that the certificate follows, such as `internal`.
    pub kind: String,
    /// The subject, as RFC 4514 writes it; may be empty.
    pub subject: String,
    /// Longest validity in seconds, the last second included.
    pub lifetime_seconds: i64,
    /// Last second of the issuing authority's own validity, with which it ends at the latest; absent from requests of before this was
    /// recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_by: Option<i64>,
    /// Policy OIDs.
    pub policies: Vec<String>,
    /// `embedded` or `absent`: the signed certificate timestamp.
    pub sct: String,
}

/// What would be issued, to whom, and why: all that people approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestContent {
    /// Its id.
    pub id: QueuedId,
    /// Who asks, such as `token:` and the token's hash.
    pub requester: String,
    /// The requester's own id of the request.
    pub request_id: String,
    /// SHA-256 of the one-time token that it holds; no other request gets anything for it.
    pub token: Option<[u8; 32]>,
    /// How they ask.
    pub way: Way,
    /// Whatever else the requester is known by: the e-mail address of their identity token.
    pub requester_names: Vec<String>,
    /// Who vouched for the identity: the maker of the token.
    pub vouched_by: Option<String>,
    /// Whatever the maker is known by; none where that is nobody in particular.
    pub voucher_names: Vec<String>,
    /// The identity that was proven.
    pub identity: Identity,
    /// Who vouches for it in the certificate, a URL.
    pub identity_issuer: String,
    /// Name of the profile.
    pub profile: String,
    /// Name of the authority that would issue it.
    pub issuer: String,
    /// What the two make of it.
    pub terms: Terms,
    /// SubjectPublicKeyInfo of the key whose possession was proven, DER.
    pub spki: Vec<u8>,
    /// SHA-256 of it.
    pub spki_sha256: [u8; 32],
    /// Further extensions that the proof justifies: OID and text, in ascending order of the OIDs.
    pub claims: Vec<(String, String)>,
    /// What the decision was based on, JSON.
    pub evidence: String,
    /// How many people must approve, by what was configured when it was recorded.
    pub needed: u8,
    /// When it was recorded.
    pub created_at: UnixTime,
    /// From then on nothing comes of it.
    pub expires_at: UnixTime,
}

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredApproval {
    /// Who.
    pub approver: String,
    /// SHA-256 of the statement they were shown.
    pub statement: [u8; 32],
    /// Whatever they were known by.
    pub names: Vec<String>,
    /// Position of the audit record that says so.
    pub record: u64,
    /// When.
    pub at: UnixTime,
}

/// A request's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedRequest {
    /// Ascending number of the row.
    pub number: i64,
    /// What would be issued.
    pub content: RequestContent,
    /// Where it stands; one whose time is over says so only after it was noted.
    pub state: QueueState,
    /// Who approved, in the order of their names.
    pub approvals: Vec<StoredApproval>,
    /// When its certificate was begun, or it was denied, ended or expired.
    pub closed_at: Option<UnixTime>,
    /// Who denied or ended it.
    pub closed_by: Option<String>,
    /// Why it was denied or ended.
    pub reason: Option<String>,
    /// The issuance.
    pub intent: Option<IntentId>,
}

impl QueuedRequest {
    /// Where it stands at a time: what is overdue has expired, noted or not.
    #[must_use]
    pub fn state_at(&self, now: UnixTime) -> QueueState {
        if self.state.is_open() && self.content.expires_at <= now { QueueState::Expired } else { self.state }
    }
}

/// By what a requester's request is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestOf {
    /// The one-time token that it holds.
    Token([u8; 32]),
    /// Requester, and their own id of the request.
    Requester(String, String),
}

/// Most open requests; a limit that is reached refuses the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// In all; those of one way take half of that at most, unless it is that of one-time tokens of operators, for which a quarter is kept.
    pub all: u32,
    /// Of one identity, as one issuer vouches for it.
    pub identity: u32,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueLimit {
    /// [`QueueLimits::all`].
    All,
    /// [`QueueLimits::identity`].
    Identity,
}

/// A request to record.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// What would be issued.
    pub content: RequestContent,
    /// The text that approvers are shown; the audit trail keeps it for good.
    pub statement: String,
    /// How many may be open.
    pub limits: QueueLimits,
    /// The requester's closed one of the same id that gives way to it.
    pub instead_of: Option<QueuedId>,
}

/// What somebody decides about requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Its certificate may be issued, as far as they are concerned.
    Approve,
    /// Nothing may come of it; why.
    Deny(String),
}

/// A request that somebody decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Its id.
    pub id: QueuedId,
    /// SHA-256 of the statement that was shown.
    pub statement: [u8; 32],
    /// How many people must approve it now: as many as when it was recorded, or more.
    pub needed: u8,
}

/// A decision of one person about several requests.
#[derive(Debug, Clone)]
pub struct NewDecision {
    /// What.
    pub decision: Decision,
    /// Which requests.
    pub requests: Vec<Decided>,
    /// Who, as audit records name them.
    pub actor: String,
    /// Who, without the role.
    pub name: String,
    /// Whatever they are known by. Who shares one of these with somebody who approved is no second person.
    pub names: Vec<String>,
    /// When.
    pub at: UnixTime,
}

/// Which requests to list, in ascending order of their numbers.
#[derive(Debug, Clone, Copy)]
pub struct QueueSearch {
    /// Exactly this state; none for the open ones.
    pub state: Option<QueueState>,
    /// Rows above this number.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// Which open requests an order to revoke many means: all given conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueSelection {
    /// Exactly this requester.
    pub requester: Option<String>,
    /// Exactly this identity's text.
    pub identity: Option<String>,
    /// Exactly this key.
    pub spki_sha256: Option<[u8; 32]>,
    /// Exactly this profile.
    pub profile: Option<String>,
    /// Exactly this issuing authority, by its name.
    pub issuer: Option<String>,
    /// Recorded before then.
    pub created_before: Option<UnixTime>,
}

/// The open requests that an order would end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenRequests {
    /// How many.
    pub count: u64,
    /// Number of the newest; 0 for none.
    pub newest: i64,
}

/// The part of the CA's memory that is about requests waiting for approval, under the same contract as
/// [`super::CertificateStore`]: durable on `Ok`, one transaction with its audit record.
pub trait QueueStore: Send + Sync {
    /// Records a request. Refused, and nothing changed: [`StoreError::StateConflict`] when there is one of its requester and id that
    /// does not give way, or one for its token; [`StoreError::TokenUsed`], [`StoreError::TokenExpired`],
    /// [`StoreError::KeyCompromised`], [`StoreError::QueueFull`].
    fn record_request(&self, new: NewRequest) -> Answer<'_, ()>;
    /// A request by its id.
    fn queued(&self, id: QueuedId) -> Answer<'_, Option<QueuedRequest>>;
    /// The newest request by what its requester has.
    fn queued_of(&self, of: RequestOf) -> Answer<'_, Option<QueuedRequest>>;
    /// Requests in the order of their numbers.
    fn queue(&self, search: QueueSearch) -> Answer<'_, Vec<QueuedRequest>>;
    /// How many requests wait for approval.
    fn count_waiting(&self, now: UnixTime) -> Answer<'_, u64>;
    /// Records one person's decision about requests, all or none. An approval that is recorded already changes nothing, unless it was
    /// one too few. Refused: [`StoreError::NotFound`], [`StoreError::ApproverRepeated`], [`StoreError::KeyCompromised`],
    /// [`StoreError::StateConflict`] for one that was closed, or approved by others (a denial takes approved ones too).
    fn decide(&self, decision: NewDecision) -> Answer<'_, Vec<QueuedRequest>>;
    /// Has an approved request wait again when fewer people approved its text than must by now, with an audit record.
    fn reopen_request(&self, decided: Decided, at: UnixTime) -> Answer<'_, ()>;
    /// Takes back the approvals of a text that people gave who may not approve any more, each with an audit record; then as
    /// [`Self::reopen_request`].
    fn withdraw_approvals(&self, decided: Decided, approvers: Vec<String>, at: UnixTime) -> Answer<'_, ()>;
    /// Notes which open requests' time is over, and forgets those that were closed before `forget_before`; returns how many expired.
    fn tend_queue(&self, now: UnixTime, forget_before: UnixTime) -> Answer<'_, u64>;
    /// Ends the open requests that an order means, and says so of those whose certificate is being signed, should nothing be signed;
    /// returns how many were open.
    fn end_requests<'a>(
        &'a self,
        selection: QueueSelection,
        actor: &'a str,
        reason: &'a str,
        at: UnixTime,
    ) -> Answer<'a, u64>;
    /// Counts the open requests that an order would end.
    fn count_requests(&self, selection: QueueSelection) -> Answer<'_, OpenRequests>;
    /// Waiting requests that nobody was told of, oldest first.
    fn unannounced(&self, limit: u32) -> Answer<'_, Vec<QueuedRequest>>;
    /// What the intent of an issuance says that it was based on, JSON.
    fn evidence(&self, intent: IntentId) -> Answer<'_, Option<String>>;
    /// Notes that somebody was told of requests.
    fn note_announced(&self, ids: Vec<QueuedId>) -> Answer<'_, ()>;
}

/// Refuses what the row of a request says when this program cannot have written it.
fn numbered<T: Copy>(all: &[T], number: i64, what: &str) -> Result<T, StoreError> {
    let found = usize::try_from(number).ok().and_then(|index| all.get(index)).copied();
    found.ok_or_else(|| super::rows::corrupted(what))
}
