//! The CA's own certificates.

use serde::{Deserialize, Serialize};

/// What one of the CA's certificates is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityRole {
    /// Trust anchor.
    Root,
    /// Issues code-signing certificates.
    CodeSigning,
    /// Issues time-stamp certificates.
    TimeStamping,
    /// Signs time-stamp tokens.
    TimestampAuthority,
    /// Signs OCSP answers.
    OcspResponder,
    /// Signs statements about revocations for the event log.
    Statement,
}

/// One certificate of the CA, or one bare key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Name in paths and records, such as `root` or `code-signing`.
    pub name: String,
    /// What it is for.
    pub role: AuthorityRole,
    /// The certificate, PEM; absent for a bare key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its issuers, PEM, nearest first, the root last.
    pub chain: Vec<String>,
    /// SubjectPublicKeyInfo, PEM.
    pub public_key: String,
    /// How its key is protected: `software`, `soft-token`, `hardware`, `hardware-attested`.
    pub protection: String,
    /// URL of its complete CRL; absent for those that issue nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<String>,
    /// URLs of its CRL shards, in order; empty when the complete CRL is the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crl_shards: Vec<String>,
}

/// Everything a relying party needs to know of the CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorities {
    /// URL that certificates name as the issuer of token identities.
    pub identity_issuer: String,
    /// URL of the OCSP responder.
    pub ocsp: String,
    /// Issuers of identity tokens at which people sign in; empty where certificates need a one-time token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub oidc_issuers: Vec<String>,
    /// Names of the subscriber profiles that can be asked for.
    pub profiles: Vec<String>,
    /// The certificates and keys, root first.
    pub authorities: Vec<Authority>,
}
