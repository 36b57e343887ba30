//! The identity a certificate is for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Exactly one identity: `{"email": "dev@example.com"}` or `{"uri": "https://…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// An e-mail address.
    Email(String),
    /// A URI, such as a CI workflow or a SPIFFE id.
    Uri(String),
}

impl Identity {
    /// The text without its kind.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Email(text) | Self::Uri(text) => text,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
