//! What a domain call can end in. The HTTP side maps it to problem documents in one place (`api::problem`).

use crate::approval::ApprovalRefusal;
use crate::clock::ClockFailure;
use crate::mail::NotSent;
use crate::oidc::OidcError;
use crate::possession::PossessionRefusal;
use crate::problem_report::ReportRefusal;
use crate::queue::QueueRefusal;
use crate::role::Action;
use crate::standing::NotIssuing;
use crate::storage::StoreError;
use crate::transparency::LogError;

/// Why the CA did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// Addresses of this domain get no code.
    #[error("addresses of this domain get no code")]
    AddressNotAllowed,
    /// The key of one of the CA's authorities cannot be opened.
    #[error("the key of {authority}: {because}")]
    AuthorityKey {
        /// Its name.
        authority: String,
        /// Why.
        because: hsm::Error,
    },
    /// The key that a record names is not the one of the authority's certificate.
    #[error("the key of {authority}: it is not the one that its certificate is for")]
    OtherKey {
        /// Its name.
        authority: String,
    },
    /// A quorum did not approve.
    #[error(transparent)]
    Approval(#[from] ApprovalRefusal),
    /// No certificate has this serial number.
    #[error("no certificate has this serial number")]
    CertificateUnknown,
    /// The clock cannot be trusted; nothing is signed.
    #[error(transparent)]
    Clock(#[from] ClockFailure),
    /// The profile needs evidence of a hardware key, which the request does not have (K1).
    #[error("the profile needs evidence that the key is in hardware")]
    KeyEvidenceMissing,
    /// A certificate for this key was revoked because the key was compromised (C9).
    #[error("the key is recorded as compromised")]
    KeyCompromised,
    /// Issuance began and is not finished; repeating the call with the same request id returns the certificate.
    #[error("the certificate is being issued")]
    IssuancePending,
    /// Issuance began and ended without a certificate; the serial number is burnt.
    #[error("the issuance ended without a certificate")]
    IssuanceFailed,
    /// A transparency log did not do its part.
    #[error("transparency log: {0}")]
    Log(#[from] LogError),
    /// No CA may issue to subscribers.
    #[error("{0}")]
    NotIssuing(NotIssuing),
    /// The mail server did not take a letter.
    #[error(transparent)]
    Mail(#[from] NotSent),
    /// There is no mail server.
    #[error("this authority sends no codes")]
    NoMail,
    /// An identity token proves nothing.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// A value of the request is out of its range.
    #[error("{field}: {reason}")]
    OutOfRange {
        /// Which one.
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// The request or the object to be signed is refused.
    #[error(transparent)]
    Pki(#[from] ca_pki::Error),
    /// The key of a certificate does not open what is asked for.
    #[error(transparent)]
    Possession(#[from] PossessionRefusal),
    /// There is no such subscriber profile.
    #[error("no such profile")]
    ProfileUnknown,
    /// A request waits for people's approval, or nothing comes of it.
    #[error(transparent)]
    Queue(#[from] QueueRefusal),
    /// The requester's key, or the proof that it is the requester's, is refused.
    #[error(transparent)]
    Request(ca_pki::Error),
    /// Nothing comes of a report of a problem.
    #[error(transparent)]
    Report(#[from] ReportRefusal),
    /// The request id was used for another key.
    #[error("the request id was used for another key")]
    RequestConflict,
    /// The role does not reach so far.
    #[error("this needs the role {}", .0.least_role().as_str())]
    RoleInsufficient(Action),
    /// The certificate is revoked already; its reason changes to a compromise only.
    #[error("the certificate is revoked for another reason")]
    RevokedForAnotherReason,
    /// Certificates came or went since the plan.
    #[error("{planned} certificates were planned and confirmed, {found} are there: plan again")]
    SelectionChanged {
        /// How many the plan counted.
        planned: u64,
        /// How many there are.
        found: u64,
    },
    /// The key could not sign.
    #[error("signing key: {0}")]
    Signing(#[from] hsm::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token expired.
    #[error("the token has expired")]
    TokenExpired,
    /// The token is not one of ours.
    #[error("the token is not known")]
    TokenUnknown,
    /// The token was used.
    #[error("the token was used")]
    TokenUsed,
    /// The identity, or whoever asks, has had as many certificates as they may for now.
    #[error(
        "as many certificates as may be were issued for this identity or requester; ask again in {after_seconds} s"
    )]
    TooManyCertificates {
        /// Seconds until the next is issued.
        after_seconds: u32,
    },
    /// Too many codes were asked for.
    #[error("too many codes were asked for")]
    TooManyCodes {
        /// Seconds until the next is sent.
        after_seconds: u32,
    },
    /// The certificate never existed, so it cannot be revoked.
    #[error("nothing was signed under this serial number")]
    NothingToRevoke,
    /// A record lacks what it must have; the checker reports which.
    #[error("inconsistent record: {0}")]
    Inconsistent(&'static str),
}
