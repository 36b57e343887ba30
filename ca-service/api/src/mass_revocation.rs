//! Revoking many certificates: planned, confirmed, approved, then carried out piece by piece.

use serde::{Deserialize, Serialize};

use crate::RevocationReason;

/// Which subscribers' certificates; every given condition holds, and at least one is given. The CA's own are never among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RevocationSelection {
    /// Exactly this identity (an e-mail address or a URI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// SHA-256 of a SubjectPublicKeyInfo, hexadecimal: every certificate of one key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spki_sha256: Option<String>,
    /// Name of the issuing authority, as in [`crate::Authority::name`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Issued then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_from: Option<i64>,
    /// Issued before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
}

/// Asks what a revocation of many would touch. Changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRevocations {
    /// Which certificates.
    pub selection: RevocationSelection,
    /// Why.
    pub reason: RevocationReason,
    /// From when on they must not be trusted, each at the earliest from its own validity on; default is the time of recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_at: Option<i64>,
}

/// What a revocation of many would touch, and the text by which it is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationPlan {
    /// The order: its exact bytes are what approvers sign and what [`RevokeMany::order`] repeats.
    pub order: String,
    /// SHA-256 of the order, hexadecimal.
    pub order_sha256: String,
    /// How many certificates it touches, those in flight among them.
    pub matching: u64,
    /// How many of them are revoked already.
    pub revoked: u64,
    /// How many certificates beside them came of them by renewal, and end with them.
    #[serde(default)]
    pub renewed: u64,
    /// How many others have one of their keys, and end with them because the reason is a compromise.
    #[serde(default)]
    pub same_key: u64,
    /// Requests waiting for approval that it ends.
    #[serde(default)]
    pub open_requests: u64,
    /// How many approvers must sign the order; 0 when none has to.
    pub approvals_needed: u8,
    /// The order is void from then on.
    pub void_at: i64,
}

/// Carries a planned revocation out, a piece at a time. Repeating a piece is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeMany {
    /// [`RevocationPlan::order`], byte for byte.
    pub order: String,
    /// [`RevocationPlan::matching`], [`RevocationPlan::renewed`] and [`RevocationPlan::same_key`] together, as a person confirmed it.
    pub confirm: u64,
    /// Approvals: DSSE envelopes in JSON, as `ca-service approve-revocation` writes them.
    #[serde(default)]
    pub approvals: Vec<String>,
    /// [`RevokeManyDone::next`] of the piece before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Most certificates of this piece: 1 to 1000, default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What a piece did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeManyDone {
    /// Certificates that are revoked as ordered now, those that were so before among them.
    pub revoked: u64,
    /// Certificates that stay as they are: revoked for another reason, which does not change to this one, or never signed.
    pub kept: u64,
    /// Certificates beside those of the whole order that came of them by renewal, and are revoked now; with the last piece, and 0 before.
    #[serde(default)]
    pub renewed: u64,
    /// Others that have one of their keys, of a compromise, and are revoked now; with the last piece, and 0 before.
    #[serde(default)]
    pub same_key: u64,
    /// Requests waiting for approval that this piece ended.
    #[serde(default)]
    pub ended_requests: u64,
    /// To be sent as [`RevokeMany::after`] for the next piece; absent after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}
