//! Why nothing comes of a request that people must approve, or not yet.

use ca_pki::UnixTime;

use crate::storage::queue::{QueueLimit, QueueState, QueuedId};

/// Why nothing comes of a request in the queue, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueRefusal {
    /// The approver asked for it, or vouched for whoever did.
    #[error("{0} was asked for, or vouched for, by the approver: somebody else must approve it")]
    ApproverIsRequester(String),
    /// The approver shares a name or an address with somebody who approved it.
    #[error("{0} was approved by the approver under another name: one person counts once")]
    ApproverRepeated(String),
    /// A token that several people may share names nobody, nor does what has no e-mail address or cannot be read.
    #[error(
        "approvals count by person: use a client certificate with your e-mail address, or an identity token with your verified one"
    )]
    ApproverUnnamed,
    /// It waits for people.
    #[error("the request {} waits for approval: {given} of {needed} people approved it", hex::encode(.id))]
    Awaiting {
        /// Its id.
        id: QueuedId,
        /// How many must.
        needed: u8,
        /// How many did.
        given: u8,
        /// From then on nothing comes of it.
        expires_at: UnixTime,
    },
    /// It is not what was shown, or not what was approved.
    #[error(
        "the request {0} is not the one that was shown, or would not become what was shown: look at it again"
    )]
    Changed(String),
    /// It was decided before.
    #[error("the request {id} is {state} already")]
    Closed {
        /// Its id.
        id: String,
        /// Where it stands.
        state: &'static str,
    },
    /// Somebody denied it.
    #[error("the request was denied: {0}")]
    Denied(String),
    /// An order or a restore ended it.
    #[error("the request was ended: {0}")]
    Ended(String),
    /// Its time was over.
    #[error("the time of the request was over before its certificate was fetched")]
    Expired,
    /// As many wait as may.
    #[error("too many requests wait for approval")]
    Full(QueueLimit),
    /// The requester's identity token has no verified e-mail address, or the certificate of their connection cannot be read: whoever
    /// approves may be the one who asks.
    #[error(
        "where people must approve, an identity token counts only with its bearer's verified e-mail address, or where the authority's \
         configuration says that its issuer's tokens are of jobs; and a client certificate only if all of it can be read"
    )]
    RequesterUnnamed,
    /// The certificate needs people's approval, and there is no proof of it.
    #[error(
        "certificates of this profile need the approval of {needed} people, and {given} approved this one"
    )]
    Unapproved {
        /// How many must approve.
        needed: u8,
        /// How many did.
        given: u8,
    },
    /// There is none of this id.
    #[error("no request has the id {0}")]
    Unknown(String),
    /// Nobody in particular made the token: whoever approves may have made it.
    #[error(
        "where people must approve, a token counts only if it was made by somebody with a client certificate or an identity token \
         of their own that has their e-mail address"
    )]
    VoucherUnnamed,
}

impl QueueRefusal {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ApproverIsRequester(_) => "approver_is_requester",
            Self::ApproverRepeated(_) => "approver_repeated",
            Self::ApproverUnnamed => "approver_unnamed",
            Self::Awaiting { .. } => "awaits_approval",
            Self::Changed(_) => "request_changed",
            Self::Closed { .. } => "request_closed",
            Self::Denied(_) => "request_denied",
            Self::Ended(_) => "request_ended",
            Self::Expired => "request_expired",
            Self::Full(QueueLimit::All) => "queue_full",
            Self::Full(QueueLimit::Identity) => "too_many_waiting",
            Self::RequesterUnnamed => "requester_unnamed",
            Self::Unapproved { .. } => "approval_missing",
            Self::Unknown(_) => "request_unknown",
            Self::VoucherUnnamed => "voucher_unnamed",
        }
    }
}

/// The name of a state, as the wire writes it.
#[must_use]
pub fn state_name(state: QueueState) -> &'static str {
    match state {
        QueueState::Waiting => "waiting",
        QueueState::Approved => "approved",
        QueueState::Issued => "issued",
        QueueState::Denied => "denied",
        QueueState::Expired => "expired",
        QueueState::Ended => "ended",
    }
}
