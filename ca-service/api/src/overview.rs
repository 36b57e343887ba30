//! What an operator sees at a glance.

use serde::{Deserialize, Serialize};

use crate::{AuthorityRole, Identity, RevocationReason};

/// Issuance, expiry and revocation, and how the authority stands. Every list is short, however many certificates there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overview {
    /// When it was made.
    pub at: i64,
    /// Name of the CA that issues to subscribers now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuing: Option<String>,
    /// Why none does: a problem's stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_issuing: Option<String>,
    /// Issuances ever recorded, whatever became of them.
    pub recorded: u64,
    /// Requests that wait for people's approval.
    pub waiting_requests: u64,
    /// The newest issuances by day, the newest day first.
    pub days: Vec<DayOfIssuance>,
    /// How many issuances [`Self::days`] counts at most: where there are as many, the oldest day is not whole.
    pub days_count_at_most: u32,
    /// How many certificates end how soon.
    pub ending: Vec<EndingWithin>,
    /// Those that end next, the next one first.
    pub ending_next: Vec<EndingCertificate>,
    /// Revocations recorded within the last thirty days.
    pub revoked_within_30_days: u64,
    /// The newest revocations, the newest first.
    pub revocations: Vec<RecentRevocation>,
    /// The CA's own certificates and keys.
    pub authorities: Vec<AuthorityStanding>,
}

/// What was issued on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayOfIssuance {
    /// Its first second, UTC.
    pub day: i64,
    /// Certificates that are good or were.
    pub issued: u64,
    /// Those that were revoked since.
    pub revoked: u64,
    /// Issuances that are under way.
    pub open: u64,
    /// Signatures that may exist without a record: each is to be looked at and revoked.
    pub maybe_issued: u64,
    /// Issuances that were given up before anything was signed.
    pub abandoned: u64,
}

/// How many subscribers' certificates end within some days, of those that live for more than a week and are not revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndingWithin {
    /// From now.
    pub days: u16,
    /// How many, counted up to [`Self::at_most`].
    pub certificates: u64,
    /// There may be more where the count has this value.
    pub at_most: u32,
}

/// A certificate that ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndingCertificate {
    /// Serial number.
    pub serial: String,
    /// The identity it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Profile.
    pub profile: String,
    /// Last second of validity.
    pub not_after: i64,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecentRevocation {
    /// Serial number.
    pub serial: String,
    /// The identity it carries; absent for the CA's own certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Profile.
    pub profile: String,
    /// Why.
    pub reason: RevocationReason,
    /// From when on it must not be trusted.
    pub revoked_at: i64,
    /// When it was recorded or last changed.
    pub recorded_at: i64,
    /// Index of its statement in the event log; absent until it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log_index: Option<u64>,
}

/// One of the CA's own certificates or keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityStanding {
    /// Name, as in [`crate::Authority::name`].
    pub name: String,
    /// What it is for.
    pub role: AuthorityRole,
    /// Last second of validity; absent for a bare key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// It, or a CA above it, was revoked.
    pub revoked: bool,
    /// Its complete revocation list; absent for those that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<PublishedList>,
}

/// A published revocation list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedList {
    /// cRLNumber.
    pub number: u64,
    /// thisUpdate.
    pub this_update: i64,
    /// nextUpdate.
    pub next_update: i64,
}
