//! Revocation.

use serde::{Deserialize, Serialize};

/// Why a certificate is revoked (RFC 5280 §5.3.1; there is no hold in code signing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationReason {
    /// No reason given.
    Unspecified,
    /// The subject's key was, or may have been, compromised.
    KeyCompromise,
    /// The CA's key was compromised.
    CaCompromise,
    /// The subject's affiliation changed.
    AffiliationChanged,
    /// A new certificate took its place.
    Superseded,
    /// No longer needed.
    CessationOfOperation,
    /// The subject lost the right to it, for instance by signing suspect code.
    PrivilegeWithdrawn,
}

/// Asks for a revocation. Repeating it returns what is recorded; an earlier `compromised_at` moves the date back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Why.
    pub reason: RevocationReason,
    /// From when on the certificate must not be trusted; default is now. Not in the future, not before its validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_at: Option<i64>,
}

/// A recorded revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Serial number.
    pub serial: String,
    /// Name of the issuer.
    pub issuer: String,
    /// Why.
    pub reason: RevocationReason,
    /// From when on it must not be trusted: the date in CRLs and OCSP answers.
    pub revoked_at: i64,
    /// When the CA recorded it.
    pub recorded_at: i64,
    /// CRL shard that lists it.
    pub crl_shard: u16,
    /// Index of its statement in the event log; absent until it is logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log_index: Option<u64>,
    /// How many certificates that came of it by renewal, and of those, are revoked now; in the answer to a revocation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewals_revoked: Option<u64>,
    /// How many of them are not: the reason, or the date, says that their holder is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewals_standing: Option<u64>,
    /// How many other certificates of its key are revoked now, of a compromised one; in the answer to a revocation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_key_revoked: Option<u64>,
}
