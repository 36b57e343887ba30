//! Enrolment and the records of certificates.

use serde::{Deserialize, Serialize};

use crate::{Identity, Revocation, RevocationReason};

/// Asks for a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// A one-time token.
    pub token: String,
    /// PEM PKCS #10 request. Only its key is taken, after its signature was verified; subject and extensions are ignored.
    pub csr: String,
    /// Repeating a call with the same id and the same key returns the first call's certificate, never a second one.
    /// 1 to 64 letters, digits, `-`, `_`, `.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl std::fmt::Debug for Enrol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Enrol")
            .field("token", &"(redacted)")
            .field("csr", &self.csr)
            .field("request_id", &self.request_id)
            .finish()
    }
}

/// A certificate as it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedCertificate {
    /// Serial number.
    pub serial: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// Its issuers, PEM, nearest first, the root last.
    pub chain: Vec<String>,
    /// First second of validity.
    pub not_before: i64,
    /// Last second of validity.
    pub not_after: i64,
    /// Index of the entry in the issuance log, where one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
}

/// Where an issuance stands (ca-requirements §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// Recorded; nothing was signed.
    Intent,
    /// Handed to the signer.
    Signing,
    /// A signature may exist without a record of it; treated as issued, answers are never good.
    MaybeIssued,
    /// Signed and stored.
    Signed,
    /// In the issuance log.
    Logged,
    /// Delivered to its requester.
    Delivered,
    /// Given up before a signature; the serial number is burnt.
    Abandoned,
    /// Revoked.
    Revoked,
}

/// What the CA knows of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRecord {
    /// Serial number.
    pub serial: String,
    /// Name of the issuer, as in [`crate::Authority::name`].
    pub issuer: String,
    /// Profile.
    pub profile: String,
    /// The identity it carries; absent for the CA's own certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Where it stands.
    pub state: CertificateState,
    /// First second of validity.
    pub not_before: i64,
    /// Last second of validity.
    pub not_after: i64,
    /// CRL shard.
    pub crl_shard: u16,
    /// When the intent was recorded.
    pub created_at: i64,
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    pub spki_sha256: String,
    /// The certificate, PEM; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Index of the entry in the issuance log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// Its revocation, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
}

/// Which certificates to list; given conditions all hold. Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    /// Exactly this identity (an e-mail address or a URI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// SHA-256 of a SubjectPublicKeyInfo, hexadecimal: every certificate of one key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spki_sha256: Option<String>,
    /// Only those in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<CertificateState>,
    /// Recorded then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_from: Option<i64>,
    /// Recorded before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<i64>,
    /// Most entries in the answer: 1 to 1000, default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// [`CertificateList::next`] of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// Asks for a certificate's status on a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusQuery {
    /// The date, seconds since 1970.
    pub at: i64,
}

/// A certificate's status on a date, by all that is recorded today: a compromise learnt of later counts from its own date on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum DatedStatus {
    /// Valid and not revoked.
    Good,
    /// Revoked by then.
    Revoked {
        /// From when on.
        revoked_at: i64,
        /// Why.
        reason: RevocationReason,
    },
    /// Its validity had not begun.
    NotYetValid,
    /// Its validity had ended.
    Expired,
    /// It was never finished.
    Unknown,
}

/// Answer to [`StatusQuery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusOnDate {
    /// Serial number.
    pub serial: String,
    /// The date.
    pub at: i64,
    /// The status then.
    pub status: DatedStatus,
}

/// A page of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateList {
    /// The certificates, newest first.
    pub certificates: Vec<CertificateRecord>,
    /// To be sent as [`ListQuery::after`] for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}
