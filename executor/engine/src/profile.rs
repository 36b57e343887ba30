//! Engine settings, one function for both binaries.

use std::fmt;

use wasmtime::Config;

use crate::limits;

/// The wasmtime release that this build links, as locked in the workspace.
///
/// wasmtime itself compares major versions only when it loads an artifact; ours binds the patch release.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// Which promises a guest is run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Profile {
    /// Processor time is bounded by epochs: the fast default.
    Standard,
    /// The same input gives the same output and ends after the same number of operations on every machine: fuel is counted, and clocks
    /// and random numbers follow from module and input.
    Deterministic,
    /// Standard, with room for what JavaScript and Python become: their interpreters, with everything that they bring along.
    Large,
}

/// The stable name of a profile's settings: part of every cache key and every receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileId(&'static str);

impl Profile {
    /// Every profile of this build.
    pub const ALL: [Self; 3] = [Self::Standard, Self::Deterministic, Self::Large];

    /// The profile's name. The number rises when [`engine_config`] changes what it sets, or a guest meets other things under it.
    pub const fn id(self) -> ProfileId {
        match self {
            Self::Standard => ProfileId("standard-1"),
            Self::Deterministic => ProfileId("deterministic-2"),
            Self::Large => ProfileId("large-1"),
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Standard => 1,
            Self::Deterministic => 2,
            Self::Large => 3,
        }
    }

    /// Largest memory that one guest may ever own, bytes.
    pub const fn max_guest_memory(self) -> usize {
        match self {
            Self::Standard | Self::Deterministic => limits::MAX_GUEST_MEMORY,
            Self::Large => limits::MAX_LARGE_GUEST_MEMORY,
        }
    }

    /// Processor time of one compile worker, seconds.
    pub const fn compile_cpu_seconds(self) -> u64 {
        match self {
            Self::Standard | Self::Deterministic => limits::COMPILE_CPU_SECONDS,
            Self::Large => limits::LARGE_COMPILE_CPU_SECONDS,
        }
    }

    /// Address space of one compile worker, bytes.
    pub const fn compile_address_space(self) -> u64 {
        match self {
            Self::Standard | Self::Deterministic => limits::COMPILE_ADDRESS_SPACE,
            Self::Large => limits::LARGE_COMPILE_ADDRESS_SPACE,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.code() == code)
    }
}

impl ProfileId {
    /// The name as text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The engine settings of `profile`, allocation strategy excepted.
///
/// The worker adds its code-generation settings, the executor adds the pool of [`crate::pool`]; everything
/// that decides which modules are valid and how their code behaves is set here and only here. Guard sizes and
/// memory reservation keep wasmtime's defaults: they remove bounds checks, and other values were the subject of
/// an advisory.
pub fn engine_config(profile: Profile) -> Config {
    let mut config = Config::new();
    // Proposals that are on by default but that nobody was granted: less surface, fewer surprises.
    config
        .wasm_gc(false)
        .wasm_stack_switching(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .wasm_component_model(true);
    // Shared memories and concurrent guests stay out; their APIs panic when switched off, and none is called.
    config.shared_memory(false).concurrency_support(false);
    // Epochs bound time in every profile; fuel only where reproducible counts are part of the promise.
    config.epoch_interruption(true).consume_fuel(matches!(profile, Profile::Deterministic));
    // A pooled stack must not carry one tenant's frames to the next.
    config.async_stack_zeroing(true);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_profiles_are_distinct_and_codes_round_trip() {
        for profile in Profile::ALL {
            assert_eq!(Profile::from_code(profile.code()), Some(profile));
        }
        let names: std::collections::HashSet<_> = Profile::ALL.map(Profile::id).into();
        assert_eq!(names.len(), Profile::ALL.len());
        assert_eq!(Profile::from_code(0), None);
    }

    #[test]
    fn version_is_the_locked_one() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(
            lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"")),
            "WASMTIME_VERSION must follow Cargo.lock"
        );
    }

    #[test]
    fn every_profile_makes_an_engine() {
        for profile in Profile::ALL {
            let mut config = engine_config(profile);
            let pool = crate::pool::PoolLimits { slots: 16, ..crate::pool::PoolLimits::of(profile) };
            config.allocation_strategy(pool.strategy());
            wasmtime::Engine::new(&config).expect("engine");
        }
    }
}
