//! `[grants.extensions]`: what `extension:NAME` leads to, beside media and streams.

use serde::Deserialize;
use service::StartRefusal;

use crate::extensions::key_value::{KeyValueLimits, MAX_AGENT, MAX_VALUE};

/// `[grants.extensions]`. What is not named is not there: a module that asks for it is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtensionsSection {
    /// Keys and values in memory, behind `extension:key-value`.
    pub key_value: Option<KeyValueSection>,
}

/// `[grants.extensions.key_value]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyValueSection {
    /// KiB of one value.
    pub value_kib: u64,
    /// KiB of one agent's keys and values.
    pub agent_kib: u64,
    /// MiB of all agents together.
    pub total_mib: u64,
}

impl Default for KeyValueSection {
    fn default() -> Self {
        let limits = KeyValueLimits::default();
        Self {
            value_kib: (limits.value >> 10) as u64,
            agent_kib: (limits.agent >> 10) as u64,
            total_mib: (limits.total >> 20) as u64,
        }
    }
}

impl ExtensionsSection {
    pub(super) fn validate(
        self,
        in_range: impl Fn(&str, u64, u64, u64) -> Result<u64, StartRefusal>,
    ) -> Result<Option<KeyValueLimits>, StartRefusal> {
        let Some(section) = self.key_value else { return Ok(None) };
        let bytes = |name: &str, value: u64, most: usize, shift: u32| {
            let name = format!("grants.extensions.key_value.{name}");
            let value = in_range(&name, value, 1, (most >> shift) as u64)?;
            Ok(usize::try_from(value << shift).unwrap_or(most))
        };
        let limits = KeyValueLimits {
            value: bytes("value_kib", section.value_kib, MAX_VALUE, 10)?,
            agent: bytes("agent_kib", section.agent_kib, MAX_AGENT, 10)?,
            total: bytes("total_mib", section.total_mib, 16 << 30, 20)?,
        };
        if limits.value >= limits.agent || limits.agent > limits.total {
            return Err(StartRefusal::new(
                "grants.extensions.key_value gives more to one value, or to one agent, than there is",
                "raise agent_kib above value_kib, and total_mib to agent_kib or more",
            ));
        }
        Ok(Some(limits))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ExecutorConfig;

    fn read(section: &str) -> Result<Option<KeyValueLimits>, String> {
        let text = format!("state_dir = 's'\ntrusted_root = 't'\npolicy = 'p'\n{section}");
        let config: ExecutorConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        let settings = config.validate(Path::new("/etc")).map_err(|error| error.to_string())?;
        Ok(settings.key_value)
    }

    #[test]
    fn nothing_is_there_that_is_not_named_and_what_is_has_bounds() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("[grants.extensions.key_value]"), Ok(Some(KeyValueLimits::default())));
        let limits = read("[grants.extensions.key_value]\nvalue_kib = 1\nagent_kib = 2\ntotal_mib = 3");
        assert_eq!(limits, Ok(Some(KeyValueLimits { value: 1 << 10, agent: 2 << 10, total: 3 << 20 })));
        for (section, told) in [
            ("[grants.extensions.vectors]", "unknown field"),
            ("[grants.extensions.key_value]\nkeys = 1", "unknown field"),
            ("[grants.extensions.key_value]\nvalue_kib = 0", "key_value.value_kib = 0 is out of range"),
            ("[grants.extensions.key_value]\nagent_kib = 4097", "choose a value from 1 to 4096"),
            ("[grants.extensions.key_value]\nvalue_kib = 8\nagent_kib = 8", "than there is"),
            ("[grants.extensions.key_value]\nagent_kib = 2048\ntotal_mib = 1", "than there is"),
        ] {
            let refused = read(section).unwrap_err();
            assert!(refused.contains(told), "{section}: {refused}");
        }
    }
}
