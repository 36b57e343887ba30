//! A policy that is tried on what an executor has, before anybody puts it into force.

use serde::{Deserialize, Serialize};

use crate::Denied;

/// A policy to be tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Text of the policy file, YAML or JSON.
    pub policy: String,
}

/// What it would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialReport {
    /// SHA-256 of the policy in force, lower-case hexadecimal.
    pub in_force: String,
    /// SHA-256 of the policy that was tried.
    pub tried: String,
    /// Every agent that is loaded or waits for its verdict, by id.
    pub agents: Vec<TrialVerdict>,
}

/// One release under both policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialVerdict {
    /// Agent id of the manifest.
    pub agent_id: String,
    /// SHA-256 of the module, lower-case hexadecimal.
    pub digest: String,
    /// Why it may not run now; absent when it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Denied>,
    /// Why it might not run under the policy that was tried; absent when it might.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Denied>,
}

impl TrialVerdict {
    /// Whether the policy would take away what may run now.
    pub fn is_newly_refused(&self) -> bool {
        self.now.is_none() && self.then.is_some()
    }
}
