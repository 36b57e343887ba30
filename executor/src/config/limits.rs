//! `[limits]`: what one call may use.

use std::time::Duration;

use executor_engine::Profile;
use executor_engine::limits::MAX_MODULE_BYTES;
use serde::Deserialize;
use service::StartRefusal;

use crate::runtime::{CallLimits, HostRates, MAX_LOG_RATE, MAX_RATE};

/// `[limits]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// MiB of linear memory.
    pub memory_mib: u32,
    /// MiB of scratch files, which count as memory; 0: there are none.
    pub scratch_mib: u32,
    /// Milliseconds of processor time.
    pub cpu_ms: u64,
    /// Milliseconds of wall time.
    pub wall_ms: u64,
    /// Bytes of input.
    pub input_bytes: usize,
    /// Bytes of output.
    pub output_bytes: usize,
    /// Host calls of one instance in a second.
    pub rates: RatesSection,
}

impl Default for LimitsSection {
    fn default() -> Self {
        let limits = CallLimits::default();
        Self {
            memory_mib: 64,
            scratch_mib: 16,
            cpu_ms: 5_000,
            wall_ms: 10_000,
            input_bytes: limits.input,
            output_bytes: limits.output,
            rates: RatesSection::default(),
        }
    }
}

/// `[limits.rates]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RatesSection {
    /// Requests for capabilities, and uses of them.
    pub capabilities: u32,
    /// Bytes of log lines.
    pub log_bytes: u32,
    /// Log lines.
    pub log_lines: u32,
    /// Media objects read and kept.
    pub media: u32,
    /// Metric values.
    pub metrics: u32,
    /// Streams opened, and pieces of them.
    pub stream_pieces: u32,
}

impl Default for RatesSection {
    fn default() -> Self {
        let HostRates { capabilities, log_bytes, log_lines, media, metrics, stream_pieces } =
            HostRates::default();
        Self { capabilities, log_bytes, log_lines, media, metrics, stream_pieces }
    }
}

impl LimitsSection {
    /// Checks every value, for an executor of this profile.
    pub(super) fn validate(
        &self,
        profile: Profile,
        in_range: impl Fn(&str, u64, u64, u64) -> Result<u64, StartRefusal>,
    ) -> Result<CallLimits, StartRefusal> {
        let most = profile.max_guest_memory();
        let limit_mib = (most >> 20) as u64;
        let memory = in_range("limits.memory_mib", self.memory_mib.into(), 1, limit_mib)?;
        let scratch = in_range("limits.scratch_mib", self.scratch_mib.into(), 0, limit_mib)?;
        let largest = MAX_MODULE_BYTES as u64;
        Ok(CallLimits {
            memory: usize::try_from(memory << 20).unwrap_or(most),
            scratch: usize::try_from(scratch << 20).unwrap_or(most),
            cpu: Duration::from_millis(in_range("limits.cpu_ms", self.cpu_ms, 1, 3_600_000)?),
            wall: Duration::from_millis(in_range("limits.wall_ms", self.wall_ms, 1, 3_600_000)?),
            input: in_range("limits.input_bytes", self.input_bytes as u64, 0, largest)? as usize,
            output: in_range("limits.output_bytes", self.output_bytes as u64, 0, largest)? as usize,
            rates: self.rates.validate(&in_range)?,
            ..CallLimits::of(profile)
        })
    }
}

impl RatesSection {
    fn validate(
        &self,
        in_range: &impl Fn(&str, u64, u64, u64) -> Result<u64, StartRefusal>,
    ) -> Result<HostRates, StartRefusal> {
        let Self { capabilities, log_bytes, log_lines, media, metrics, stream_pieces } = *self;
        for (name, rate, most) in [
            ("capabilities", capabilities, MAX_RATE),
            ("log_bytes", log_bytes, MAX_LOG_RATE),
            ("log_lines", log_lines, MAX_RATE),
            ("media", media, MAX_RATE),
            ("metrics", metrics, MAX_RATE),
            ("stream_pieces", stream_pieces, MAX_RATE),
        ] {
            in_range(&format!("limits.rates.{name}"), rate.into(), 1, most.into())?;
        }
        Ok(HostRates { capabilities, log_bytes, log_lines, media, metrics, stream_pieces })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::ExecutorConfig;

    #[test]
    fn the_profile_says_how_much_memory_a_guest_may_be_given() {
        let read = |more: &str| {
            let text = format!("state_dir = 's'\ntrusted_root = 't'\npolicy = 'p'\n{more}");
            let config: ExecutorConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
            let settings = config.validate(Path::new("/etc")).map_err(|error| error.to_string())?;
            let (limits, pool) = (settings.limits, settings.pool);
            Ok::<_, String>((limits.memory >> 20, limits.table_elements, pool.core_instances))
        };
        assert_eq!(read(""), Ok((64, 20_000, 16)));
        assert_eq!(read("profile = 'large'"), Ok((64, 200_000, 64)));
        assert_eq!(read("profile = 'large'\n[limits]\nmemory_mib = 2048"), Ok((2048, 200_000, 64)));
        for (profile, memory) in [("standard", 513), ("deterministic", 513), ("large", 2049)] {
            let refused = read(&format!("profile = '{profile}'\n[limits]\nmemory_mib = {memory}"));
            let told = refused.unwrap_err();
            assert!(told.contains(&format!("choose a value from 1 to {}", memory - 1)), "{profile}: {told}");
        }
        assert!(read("profile = 'huge'").unwrap_err().contains("unknown variant"));
    }
}
