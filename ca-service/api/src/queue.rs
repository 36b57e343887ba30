//! Requests that wait for people's approval: what approvers see and decide, and what requesters are told.

use serde::{Deserialize, Serialize};

use crate::Identity;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestState {
    /// Not enough people approved it.
    Waiting,
    /// Enough did: the enrolment, repeated with the same request id and key, gets the certificate.
    Approved,
    /// Its certificate was issued, or is being.
    Issued,
    /// Somebody denied it.
    Denied,
    /// Its time was over before its certificate was fetched.
    Expired,
    /// An order to revoke many meant it, or the authority was restored from a backup meanwhile.
    Ended,
}

/// How a request stands; the answer (202) to an enrolment that waits, and to its requester's questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestStatus {
    /// Its id: 32 hexadecimal digits, random. Whoever knows it may ask how it stands.
    pub id: String,
    /// Where it stands.
    pub state: RequestState,
    /// How many people must approve by now.
    pub approvals_needed: u8,
    /// How many approved what it says.
    pub approvals_given: u8,
    /// From then on nothing comes of it.
    pub expires_at: i64,
    /// Why it was denied or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How the requester proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrolmentWay {
    /// With a one-time token that an operator made.
    Token,
    /// With a code that was sent to the e-mail address.
    Code,
    /// With an identity token.
    IdentityToken,
    /// With the key of a certificate that they have.
    Certificate,
}

/// An extension of the certificate that the proof of identity justifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimedExtension {
    /// Its object identifier.
    pub oid: String,
    /// Its text.
    pub value: String,
}

/// What would be issued, to whom and why, as far as that is known before its moment: the text that approvers approve, by its SHA-256. Not in
/// it are the serial number, the moments of the validity, the addresses of revocation lists, and the timestamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestStatement {
    /// SHA-256 of the key that would sign the certificate, hexadecimal: an approval for one authority says nothing to another, nor to a
    /// successor.
    pub authority: String,
    /// Name of the authority that has it.
    pub issuer: String,
    /// Id of the request.
    pub request: String,
    /// The identity that the certificate will carry.
    pub identity: Identity,
    /// Who vouches for it there, a URL.
    pub identity_issuer: String,
    /// Name of the profile.
    pub profile: String,
    /// The rules that the profile follows, such as `internal`.
    pub kind: String,
    /// The certificate's subject, as RFC 4514 writes it; may be empty.
    pub subject: String,
    /// For how long it is valid at most, in seconds.
    pub lifetime_seconds: i64,
    /// Last second of the issuing authority's own validity, seconds since 1970: it ends then at the latest. Absent from requests of before
    /// this was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_by: Option<i64>,
    /// Policy OIDs.
    pub policies: Vec<String>,
    /// `embedded` or `absent`: its signed certificate timestamp.
    pub sct: String,
    /// SHA-256 of the SubjectPublicKeyInfo whose private key the requester proved to have, hexadecimal.
    pub spki_sha256: String,
    /// Further extensions.
    pub extensions: Vec<ClaimedExtension>,
    /// Who asks: `token:` and the hash of the token, or `oidc:ISSUER#SUBJECT`.
    pub requester: String,
    /// What else they are known by: the e-mail address of their identity token.
    pub requester_names: Vec<String>,
    /// How they proved who they are.
    pub way: EnrolmentWay,
    /// Who made the token; absent where that is not known, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched_by: Option<String>,
    /// What else that one is known by.
    pub voucher_names: Vec<String>,
    /// What the decision to take the request was based on, JSON.
    pub evidence: String,
    /// How many people must approve, by what was configured when it was recorded; [`RequestStatus`] says how many must by now.
    pub approvals_needed: u8,
    /// When it was recorded.
    pub created_at: i64,
    /// From then on nothing comes of it.
    pub expires_at: i64,
}

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestApproval {
    /// Who: the subject of a client certificate, or `oidc:ISSUER#SUBJECT`.
    pub approver: String,
    /// When.
    pub at: i64,
}

/// A request as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuedRequest {
    /// Ascending number, for [`QueueQuery::after`].
    pub number: i64,
    /// How it stands.
    pub status: RequestStatus,
    /// The text of a [`RequestStatement`], byte for byte as it is approved.
    pub statement: String,
    /// Who approved it.
    pub approvals: Vec<RequestApproval>,
    /// Who denied or ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<String>,
}

/// Which requests to list, oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueQuery {
    /// Only those in this state; absent: those of which a certificate may still come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RequestState>,
    /// Most entries in the answer: 1 to 100, default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// [`RequestQueue::next`] of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// A page of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestQueue {
    /// The requests, oldest first.
    pub requests: Vec<QueuedRequest>,
    /// To be sent as [`QueueQuery::after`] for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// A request that somebody decides about, and what they were shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShownRequest {
    /// Its id.
    pub id: String,
    /// SHA-256 of [`QueuedRequest::statement`] as it was shown, hexadecimal.
    pub statement_sha256: String,
}

/// Approves requests, all or none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequests {
    /// Which, 1 to 32.
    pub requests: Vec<ShownRequest>,
}

/// Denies requests, all or none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyRequests {
    /// Which, 1 to 32.
    pub requests: Vec<ShownRequest>,
    /// Why, for the requester: 1 to 256 printable characters.
    pub reason: String,
}

/// What a decision came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecidedRequests {
    /// How each request stands now, in the order of the call.
    pub requests: Vec<RequestStatus>,
}
