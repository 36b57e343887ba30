//! Problem documents (RFC 9457) as clients read them.

use serde::{Deserialize, Serialize};

/// An error answer. Clients branch on `code`; texts are for people. Further members are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Stable code, such as `token_used`.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// What kind of problem it is.
    pub title: String,
    /// What is wrong here and what to do.
    pub detail: String,
}
