//! `[features]`: flags of a rollout. None of them decides whether checks run.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use service::StartRefusal;
use trust_store::UnixTime;

use super::callers::is_pattern;
use crate::admission::RuntimeRollout;

/// Longest grace period, days.
const MAX_GRACE_DAYS: u64 = 365;

/// `[features]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesSection {
    /// Requirements that are added.
    pub attestation_required: AttestationRequired,
    /// Which agents run as WebAssembly.
    pub wasm_runtime: WasmRuntime,
}

/// `[features.attestation_required]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationRequired {
    /// Always true: nothing runs without an attestation.
    pub enabled: bool,
    /// The policy with the added requirements.
    pub next_policy: Option<PathBuf>,
    /// When they are demanded, RFC 3339.
    pub enforcement_date: Option<String>,
    /// Days after that date in which a lack is still only reported.
    pub grace_period_days: u64,
}

impl Default for AttestationRequired {
    fn default() -> Self {
        Self { enabled: true, next_policy: None, enforcement_date: None, grace_period_days: 0 }
    }
}

/// `[features.wasm_runtime]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WasmRuntime {
    /// Whether any agent runs as WebAssembly.
    pub enabled: bool,
    /// Percentage of the agents that do, chosen by their ids.
    pub rollout_percentage: u8,
    /// Agents that do in any case; `*` stands at the end only.
    pub whitelist_agents: Vec<String>,
    /// Agents that do not, whatever else is said.
    pub blacklist_agents: Vec<String>,
}

impl Default for WasmRuntime {
    fn default() -> Self {
        Self {
            enabled: true,
            rollout_percentage: 100,
            whitelist_agents: Vec::new(),
            blacklist_agents: Vec::new(),
        }
    }
}

/// A policy that takes the place of the one in force at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextPolicy {
    /// Its file.
    pub file: PathBuf,
    /// From when it is in force: the enforcement date and the grace period after it.
    pub from: UnixTime,
}

impl AttestationRequired {
    /// Checks the flags. `base` is the folder that relative paths start from.
    ///
    /// # Errors
    ///
    /// A flag that would let something run without an attestation, and combinations that cannot be meant.
    pub fn validate(self, base: &Path) -> Result<Option<NextPolicy>, StartRefusal> {
        let flag = "features.attestation_required";
        if !self.enabled {
            return Err(StartRefusal::new(
                format!("{flag}.enabled = false: this executor runs nothing without an attestation"),
                "remove the line; `mentatctl admission report` shows what would be denied and why",
            ));
        }
        let (file, date) = match (self.next_policy, self.enforcement_date) {
            (Some(file), Some(date)) => (file, date),
            (None, None) if self.grace_period_days == 0 => return Ok(None),
            _ => {
                return Err(StartRefusal::new(
                    format!("{flag}: next_policy and enforcement_date belong together"),
                    "name the policy with the added requirements and the date, or neither",
                ));
            }
        };
        if self.grace_period_days > MAX_GRACE_DAYS {
            return Err(StartRefusal::new(
                format!("{flag}.grace_period_days = {} is out of range", self.grace_period_days),
                format!("choose a value from 0 to {MAX_GRACE_DAYS}"),
            ));
        }
        let date = UnixTime::from_rfc3339(&date).ok_or_else(|| {
            let what = format!("{flag}.enforcement_date = {date} is no time");
            StartRefusal::new(what, "write it like 2027-01-01T00:00:00Z")
        })?;
        let grace = i64::try_from(self.grace_period_days).unwrap_or_default().saturating_mul(86_400);
        Ok(Some(NextPolicy { file: base.join(file), from: UnixTime(date.0.saturating_add(grace)) }))
    }
}

impl WasmRuntime {
    /// Checks the flags.
    ///
    /// # Errors
    ///
    /// A percentage above 100, a pattern with `*` elsewhere than at its end.
    pub fn validate(self) -> Result<RuntimeRollout, StartRefusal> {
        let flag = "features.wasm_runtime";
        if self.rollout_percentage > 100 {
            return Err(StartRefusal::new(
                format!("{flag}.rollout_percentage = {} is out of range", self.rollout_percentage),
                "choose a value from 0 to 100",
            ));
        }
        for pattern in self.whitelist_agents.iter().chain(&self.blacklist_agents) {
            if !is_pattern(pattern) {
                return Err(StartRefusal::new(
                    format!("{flag}: `{pattern}` is no pattern"),
                    "write an agent's id, or the beginning of ids and `*`",
                ));
            }
        }
        let percentage = if self.enabled { self.rollout_percentage } else { 0 };
        let allow = if self.enabled { self.whitelist_agents } else { Vec::new() };
        Ok(RuntimeRollout::new(percentage, allow, self.blacklist_agents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<NextPolicy>, String> {
        let section: FeaturesSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.wasm_runtime.validate().map_err(|refusal| refusal.to_string())?;
        section.attestation_required.validate(Path::new("/etc")).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_date_and_its_grace_say_when() {
        assert_eq!(read(""), Ok(None));
        let text =
            "[attestation_required]\nnext_policy = 'n.yaml'\nenforcement_date = '2026-12-01T00:00:00Z'\n";
        let next = read(text).unwrap().unwrap();
        assert_eq!((next.file.as_path(), next.from), (Path::new("/etc/n.yaml"), UnixTime(1_796_083_200)));
        let later = read(&format!("{text}grace_period_days = 14")).unwrap().unwrap();
        assert_eq!(later.from.0 - next.from.0, 14 * 86_400);
    }

    #[test]
    fn no_flag_turns_a_check_off_and_nothing_is_guessed() {
        for (text, part) in [
            ("[attestation_required]\nenabled = false", "nothing without an attestation"),
            ("[attestation_required]\nnext_policy = 'n.yaml'", "belong together"),
            ("[attestation_required]\nenforcement_date = '2026-12-01T00:00:00Z'", "belong together"),
            ("[attestation_required]\ngrace_period_days = 3", "belong together"),
            ("[attestation_required]\nnext_policy = 'n'\nenforcement_date = 'soon'", "is no time"),
            (
                "[attestation_required]\nnext_policy = 'n'\nenforcement_date = '2026-12-01T00:00:00Z'\ngrace_period_days = 400",
                "out of range",
            ),
            ("[wasm_runtime]\nrollout_percentage = 101", "out of range"),
            ("[wasm_runtime]\nwhitelist_agents = ['a.*.b']", "no pattern"),
            ("[wasm_runtime]\nblacklist_agents = ['']", "no pattern"),
            ("[skip_verification]\nenabled = true", "unknown field"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
