//! Reports of problems with certificates (CSBR §4.9.1): each must be decided in time, by a revocation or by saying why there is none.

use serde::{Deserialize, Serialize};

/// What is said to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemGround {
    /// The subscriber asks for the revocation: a day.
    SubscriberRequest,
    /// The key is in other hands, or may be: a day.
    KeyCompromise,
    /// Suspect code was signed with it: a day.
    SuspectCode,
    /// Anything else: five days.
    Other,
}

/// Where a report stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemState {
    /// Nobody decided.
    Open,
    /// The certificate was revoked.
    Revoked,
    /// Somebody decided that it stands.
    Stands,
}

/// Reports a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportProblem {
    /// Serial number of the certificate, hexadecimal.
    pub serial: String,
    /// What is wrong.
    pub ground: ProblemGround,
    /// Who said it and how it is known, 1 to 2,000 characters.
    pub detail: String,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProblemReport {
    /// Its number.
    pub id: i64,
    /// Serial number of the certificate.
    pub serial: String,
    /// What is said to be wrong.
    pub ground: ProblemGround,
    /// Who said it and how it is known.
    pub detail: String,
    /// Who wrote it down.
    pub reported_by: String,
    /// When.
    pub received_at: i64,
    /// Until when it must be decided.
    pub due_at: i64,
    /// Where it stands.
    pub state: ProblemState,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<i64>,
    /// Who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<String>,
    /// Why the certificate stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
}

/// Which reports are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProblemQuery {
    /// Only those that nobody decided.
    #[serde(default)]
    pub open: bool,
    /// Only those with higher numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// Reports in the order of their numbers, at most 100.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProblemReports {
    /// The page.
    pub reports: Vec<ProblemReport>,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// Decides that a certificate stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseReport {
    /// Why, 1 to 2,000 characters.
    pub decision: String,
}
