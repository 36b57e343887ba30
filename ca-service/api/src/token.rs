//! One-time enrolment tokens.

use serde::{Deserialize, Serialize};

use crate::Identity;

/// Asks for a token that lets whoever holds it enrol once, for exactly this identity and profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// The identity the certificate will carry.
    pub identity: Identity,
    /// Name of a subscriber profile in the CA's configuration.
    pub profile: String,
    /// Seconds until the token expires: 60 to 604,800 (a week).
    pub ttl_seconds: u32,
}

/// Asks for a code by e-mail that proves the address and lets its owner enrol once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestCode {
    /// The address.
    pub email: String,
}

/// A letter was taken by the mail server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailedCode {
    /// When the code in it expires.
    pub expires_at: i64,
}

/// A token. Its secret is shown once; the CA keeps only a hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentToken {
    /// The secret, to be sent in [`crate::Enrol::token`].
    pub token: String,
    /// What it certifies.
    pub identity: Identity,
    /// Under which profile.
    pub profile: String,
    /// When it expires.
    pub expires_at: i64,
}

impl std::fmt::Debug for EnrolmentToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EnrolmentToken")
            .field("token", &"(redacted)")
            .field("identity", &self.identity)
            .field("profile", &self.profile)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}
