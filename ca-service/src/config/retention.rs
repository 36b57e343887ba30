//! What is forgotten, and when.

use serde::Deserialize;
use service::StartRefusal;

/// How long what nobody needs is kept. Certificates, revocations, the numbers of lists and the audit trail are kept for ever.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Days for which one-time tokens that nobody used are kept after they expired, 1 to 3650. Default 90.
    pub unused_token_days: u16,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { unused_token_days: 90 }
    }
}

impl RetentionConfig {
    pub(super) fn validate(&self) -> Result<(), StartRefusal> {
        super::in_range("retention.unused_token_days", u64::from(self.unused_token_days), 1, 3_650)
    }

    /// The same in seconds.
    #[must_use]
    pub fn unused_token_seconds(&self) -> i64 {
        i64::from(self.unused_token_days) * 86_400
    }
}
