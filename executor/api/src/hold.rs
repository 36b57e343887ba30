//! Holds: orders of an operator that releases do not run, whoever vouches for them, until the order is taken back.

use serde::{Deserialize, Serialize};

/// Which releases: those that match every field given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releases {
    /// Agent id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// SHA-256 of the signing certificate's DER, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// SHA-256 of the module, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// From this index of the signing log on: what was logged since, whatever time a signature claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_log_index: Option<u64>,
    /// The signing certificate's issuer as RFC 4514 text; with `serial`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Index of the entry in the signing log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// The signing certificate's serial number in hexadecimal; with `issuer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Verified signer name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// What becomes of calls in flight. New ones are refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calls {
    /// They may end by themselves for a while.
    Drain,
    /// They end at once.
    Stop,
}

/// An order to be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Which releases.
    pub releases: Releases,
    /// What becomes of calls in flight.
    pub calls: Calls,
    /// Seconds that they have when they are drained; 30 if absent, at most 3,600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u32>,
    /// Why, for whoever reads the list; at most 512 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Only say what the order would reach.
    #[serde(default)]
    pub dry_run: bool,
}

/// An order that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Its name: follows from the releases, so that the same order given twice is one.
    pub id: String,
    /// Which releases.
    pub releases: Releases,
    /// What became of calls in flight.
    pub calls: Calls,
    /// Seconds that they had.
    pub drain_seconds: u32,
    /// Why.
    pub reason: String,
    /// Since when, seconds since 1970.
    pub since: i64,
}

/// What an order reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// The order.
    pub hold: Hold,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Releases that are here and that it means, by agent id. What comes later is held as well.
    pub agents: Vec<HeldAgent>,
}

/// One release that an order means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAgent {
    /// Agent id of the manifest.
    pub agent_id: String,
    /// SHA-256 of the module, lower-case hexadecimal.
    pub digest: String,
    /// Verified signer name.
    pub signer: String,
    /// SHA-256 of the signing certificate, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Index of the entry in the signing log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// Instances that ran when the order was given.
    pub instances: u64,
}

impl HoldReport {
    /// Instances of all of them.
    #[must_use]
    pub fn instances(&self) -> u64 {
        self.agents.iter().map(|agent| agent.instances).sum()
    }
}
