//! Limits of a `compute` capability.

use alloc::format;
use core::fmt;
use core::str::FromStr;

use super::malformed;
use crate::error::Error;

/// Resource limits; at least one is named, each at most once, none is zero. Printed in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeLimits {
    /// Linear memory in bytes, written as KiB, MiB or GiB.
    pub memory_bytes: Option<u64>,
    /// CPU time per call in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Wall-clock time per call in milliseconds.
    pub wall_ms: Option<u64>,
}

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl ComputeLimits {
    /// Whether every limit of `asked` is named here and not smaller here.
    pub fn covers(&self, asked: &Self) -> bool {
        let fits = |granted: Option<u64>, asked: Option<u64>| match (granted, asked) {
            (_, None) => true,
            (Some(granted), Some(asked)) => asked <= granted,
            (None, Some(_)) => false,
        };
        fits(self.memory_bytes, asked.memory_bytes)
            && fits(self.cpu_ms, asked.cpu_ms)
            && fits(self.wall_ms, asked.wall_ms)
    }
}

impl FromStr for ComputeLimits {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut limits = Self::default();
        for item in text.split(',') {
            let (key, value) =
                item.split_once('=').ok_or_else(|| malformed(text, "`key=value` is missing"))?;
            let (slot, parsed) = match key {
                "memory" => (&mut limits.memory_bytes, memory(value)),
                "cpu_ms" => (&mut limits.cpu_ms, number(value)),
                "wall_ms" => (&mut limits.wall_ms, number(value)),
                _ => return Err(malformed(text, "the keys are `memory`, `cpu_ms` and `wall_ms`")),
            };
            let parsed = parsed.ok_or_else(|| {
                malformed(text, &format!("`{key}` is no whole number above zero in its unit"))
            })?;
            if slot.replace(parsed).is_some() {
                return Err(malformed(text, "a key stands twice"));
            }
        }
        Ok(limits)
    }
}

fn memory(text: &str) -> Option<u64> {
    let (digits, factor) =
        UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    number(digits)?.checked_mul(factor)
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    // 2^53 bytes or milliseconds are beyond any machine, and keep every value exact in JSON.
    digits.parse().ok().filter(|value: &u64| plain && *value < 1 << 53)
}

impl fmt::Display for ComputeLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(bytes) = self.memory_bytes {
            let (unit, factor) =
                UNITS.into_iter().find(|(_, factor)| bytes % factor == 0).unwrap_or(("KiB", 1 << 10));
            write!(f, "memory={}{unit}", bytes / factor)?;
            separator = ",";
        }
        for (key, value) in [("cpu_ms", self.cpu_ms), ("wall_ms", self.wall_ms)] {
            if let Some(value) = value {
                write!(f, "{separator}{key}={value}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}
