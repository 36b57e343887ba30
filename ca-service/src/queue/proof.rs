//! How a requester proved who they are. That decides, besides the profile, how many people must approve what they get.

use ca_pki::SerialNumber;

use crate::mail_code::MAILED;
use crate::storage::BY_CERTIFICATE;
use crate::storage::queue::{RequestContent, Way};

/// How a requester proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By the key of a certificate that they have, and that is renewed.
    Certificate {
        /// Its serial number; none of a recorded request that does not say it, of which nothing comes.
        serial: Option<SerialNumber>,
        /// Who vouched for the first of its line, as audit records name them; none where that is not known, or nobody asked.
        vouched_by: Option<String>,
    },
    /// By a code that was sent to the address.
    Code,
    /// By an identity token of the identity's issuer.
    IdentityToken {
        /// Those of its audiences that an `[[oidc]]` section takes; empty where that is not known any more.
        audiences: Vec<String>,
    },
    /// By a one-time token.
    Token {
        /// Who made it, as audit records name them; none where it was not recorded.
        made_by: Option<String>,
    },
}

impl Proof {
    /// That of a one-time token, which may have been sent as a code.
    #[must_use]
    pub fn by_token(made_by: Option<&str>) -> Self {
        match made_by {
            Some(MAILED) => Self::Code,
            made_by => Self::Token { made_by: made_by.map(str::to_owned) },
        }
    }

    /// That of a recorded request.
    pub(crate) fn of(content: &RequestContent) -> Self {
        match content.way {
            Way::Certificate => {
                let serial = content.requester.strip_prefix(BY_CERTIFICATE);
                let serial = serial.and_then(|serial| SerialNumber::from_hex(serial).ok());
                Self::Certificate { serial, vouched_by: content.vouched_by.clone() }
            }
            Way::Code => Self::Code,
            Way::Token => Self::Token { made_by: content.vouched_by.clone() },
            Way::IdentityToken => {
                let evidence: serde_json::Value = serde_json::from_str(&content.evidence).unwrap_or_default();
                let audience = evidence.get("audience").and_then(serde_json::Value::as_str);
                Self::IdentityToken { audiences: audience.map(str::to_owned).into_iter().collect() }
            }
        }
    }

    /// The way, as it is recorded.
    pub(crate) fn way(&self) -> Way {
        match self {
            Self::Certificate { .. } => Way::Certificate,
            Self::Code => Way::Code,
            Self::IdentityToken { .. } => Way::IdentityToken,
            Self::Token { .. } => Way::Token,
        }
    }

    /// Who vouched for the requester with that.
    pub(crate) fn voucher(&self) -> Option<&str> {
        match self {
            Self::Code => Some(MAILED),
            Self::IdentityToken { .. } => None,
            Self::Certificate { vouched_by, .. } => vouched_by.as_deref(),
            Self::Token { made_by } => made_by.as_deref(),
        }
    }

    /// Whether somebody in particular must have vouched for the requester: for whoever has a one-time token or what came of one, unless
    /// it was a code.
    pub(crate) fn needs_voucher(&self) -> bool {
        match self {
            Self::Code | Self::IdentityToken { .. } => false,
            Self::Certificate { vouched_by, .. } => vouched_by.as_deref() != Some(MAILED),
            Self::Token { .. } => true,
        }
    }
}
