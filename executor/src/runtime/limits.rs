//! What one call may use. Every limit has a finite default.

use std::time::Duration;

use executor_engine::Profile;
use executor_engine::limits::{MAX_LARGE_GUEST_MEMORY, MAX_TRANSFER_BYTES};

use super::rates::HostRates;

/// Ceilings of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Bytes of linear memory, all memories of the store together.
    pub memory: usize,
    /// Bytes of scratch files; they count as memory, too.
    pub scratch: usize,
    /// Elements of all tables of the store together.
    pub table_elements: usize,
    /// Core instances of one store.
    pub instances: usize,
    /// Processor time.
    pub cpu: Duration,
    /// Wall time.
    pub wall: Duration,
    /// Bytes of input.
    pub input: usize,
    /// Bytes of output.
    pub output: usize,
    /// Bytes of all streams together.
    pub streamed: u64,
    /// Log lines kept; more are dropped and counted.
    pub log_lines: usize,
    /// Bytes of log text kept.
    pub log_bytes: usize,
    /// Metric records kept; more are refused.
    pub metrics: usize,
    /// Live handles and buffers.
    pub handles: usize,
    /// Bytes of component values that one host call may make the host allocate.
    pub hostcall_bytes: usize,
    /// Fuel in the deterministic profile.
    pub fuel: u64,
    /// Calls of host functions in a second.
    pub rates: HostRates,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            scratch: 16 << 20,
            table_elements: 20_000,
            instances: 32,
            cpu: Duration::from_secs(5),
            wall: Duration::from_secs(10),
            input: 32 << 20,
            output: 32 << 20,
            streamed: 256 << 20,
            log_lines: 256,
            log_bytes: 64 << 10,
            metrics: 64,
            handles: 64,
            hostcall_bytes: MAX_TRANSFER_BYTES,
            fuel: 10_000_000_000,
            rates: HostRates::default(),
        }
    }
}

impl CallLimits {
    /// The defaults of a profile.
    pub fn of(profile: Profile) -> Self {
        let standard = Self::default();
        match profile {
            Profile::Standard | Profile::Deterministic => standard,
            Profile::Large => Self { table_elements: 200_000, instances: 256, ..standard },
        }
    }

    /// The smaller of each: a manifest, a grant and a caller can lower limits and never raise them.
    #[must_use]
    pub fn lowered(self, other: Lowered) -> Self {
        let (memory, cpu, wall) = (self.memory_of(other), self.cpu_of(other), self.wall_of(other));
        Self { memory, cpu, wall, ..self }
    }

    /// The memory of a call for which this was asked.
    pub(crate) fn memory_of(&self, asked: Lowered) -> usize {
        asked.memory.map_or(self.memory, |memory| self.memory.min(memory)).min(MAX_LARGE_GUEST_MEMORY)
    }

    /// Its processor time.
    pub(crate) fn cpu_of(&self, asked: Lowered) -> Duration {
        asked.cpu.map_or(self.cpu, |cpu| self.cpu.min(cpu))
    }

    /// Its wall time.
    pub(crate) fn wall_of(&self, asked: Lowered) -> Duration {
        asked.wall.map_or(self.wall, |wall| self.wall.min(wall))
    }
}

/// Limits asked for by somebody who may only tighten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lowered {
    /// Bytes of memory.
    pub memory: Option<usize>,
    /// Processor time.
    pub cpu: Option<Duration>,
    /// Wall time.
    pub wall: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_lowers_and_never_raises() {
        let base = CallLimits::default();
        let wide = base.lowered(Lowered {
            memory: Some(usize::MAX),
            cpu: Some(Duration::MAX),
            wall: Some(Duration::MAX),
        });
        assert_eq!(wide, base);
        let tight = base.lowered(Lowered { memory: Some(1 << 20), ..Lowered::default() });
        assert_eq!(tight.memory, 1 << 20);
        assert_eq!(tight.cpu, base.cpu);
    }
}
