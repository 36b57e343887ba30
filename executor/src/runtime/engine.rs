//! The engine of this process.

use std::sync::{Arc, OnceLock};

use executor_engine::pool::PoolLimits;
use executor_engine::{Profile, ProfileId, engine_config};
use wasmtime::Engine;

use super::calls::{LiveInstances, Registration};
use super::control::{Cancel, KillCause, Selector};
use super::epoch::Ticker;
use super::memory_maps::{MemoryMaps, pool_in_use};
use super::prepared::Prepared;
use crate::abi::CoreLinkers;
use crate::component::ComponentLinkers;
use crate::worker::{WorkerTier, Workers};

/// One engine, its pool, its tick and its linkers.
pub struct Runtime {
    engine: Engine,
    profile: Profile,
    pool: PoolLimits,
    pool_reduced: bool,
    memory_maps: MemoryMaps,
    ticker: Ticker,
    live: LiveInstances,
    core_linkers: CoreLinkers,
    component_linkers: ComponentLinkers,
    workers: OnceLock<WorkerTier>,
}

/// Why the runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Not even the smallest pool fits the address space.
    #[error(
        "the host cannot reserve address space for {slots} guests (check `ulimit -v`, vm.overcommit_memory and vm.max_map_count): {detail}"
    )]
    AddressSpace {
        /// The smallest number tried.
        slots: u32,
        /// What the engine said.
        detail: String,
    },
    /// The linker refused a host function; a defect of this build.
    #[error("host functions cannot be linked: {0}")]
    Linker(String),
    /// No random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// No thread for the tick.
    #[error("the epoch thread cannot start")]
    Thread(#[source] std::io::Error),
}

impl Runtime {
    /// Builds the engine, probing for the largest pool the host can reserve, at most `pool`.
    pub fn new(profile: Profile, pool: PoolLimits) -> Result<Arc<Self>, RuntimeError> {
        let (engine, reserved) = probe(profile, pool)?;
        let ticker = Ticker::start(&engine).map_err(RuntimeError::Thread)?;
        let ticks = ticker.ticks();
        let core_linkers =
            CoreLinkers::new(&engine).map_err(|error| RuntimeError::Linker(format!("{error:#}")))?;
        let component_linkers = ComponentLinkers::new(&engine, profile)
            .map_err(|error| RuntimeError::Linker(format!("{error:#}")))?;
        let mut start = [0u8; 8];
        aws_lc_rs::rand::fill(&mut start).map_err(|_| RuntimeError::Random)?;
        Ok(Arc::new(Self {
            engine,
            profile,
            pool: reserved,
            pool_reduced: reserved != pool,
            memory_maps: MemoryMaps::of(reserved),
            ticker,
            live: LiveInstances::new(u64::from_le_bytes(start), ticks),
            core_linkers,
            component_linkers,
            workers: OnceLock::new(),
        }))
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Linkers for core modules.
    pub(crate) fn core_linkers(&self) -> &CoreLinkers {
        &self.core_linkers
    }

    /// Linkers for components.
    pub(crate) fn component_linkers(&self) -> &ComponentLinkers {
        &self.component_linkers
    }

    /// Gives it the tier of signers that are not trusted. The first one counts.
    pub fn attach(&self, tier: WorkerTier) {
        let _ = self.workers.set(tier);
    }

    /// Why modules of signers that are not trusted do not run here, if they do not.
    pub fn missing_workers(&self) -> Option<&str> {
        self.workers().err()
    }

    /// Why they do not run any more, if they did.
    pub(crate) fn lost_workers(&self) -> Option<&str> {
        self.workers.get().and_then(WorkerTier::given_up)
    }

    pub(crate) fn workers(&self) -> Result<&Arc<Workers>, &str> {
        match self.workers.get() {
            None => Err("this executor has no worker processes"),
            Some(tier) => tier.workers(),
        }
    }

    /// The profile in force.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Its stable name.
    pub fn profile_id(&self) -> ProfileId {
        self.profile.id()
    }

    /// The pool that was reserved.
    pub fn pool(&self) -> PoolLimits {
        self.pool
    }

    /// Whether the pool is smaller than configured because the host could not reserve more.
    pub fn pool_reduced(&self) -> bool {
        self.pool_reduced
    }

    /// How many parts the address space of this process may have, and needs.
    pub(crate) fn memory_maps(&self) -> MemoryMaps {
        self.memory_maps
    }

    /// What is taken of the pool now, and what it keeps for the next ones: names, what they mean, values.
    pub(crate) fn pool_in_use(&self) -> Vec<(&'static str, &'static str, u64)> {
        pool_in_use(&self.engine)
    }

    /// The instances running now.
    pub fn live(&self) -> &LiveInstances {
        &self.live
    }

    /// Puts a call into the list of what can be stopped, before it waits or runs.
    pub(crate) fn register(&self, prepared: &Prepared, cancel: Option<&Cancel>) -> Registration {
        prepared.calls.register(cancel)
    }

    /// The largest lateness of the tick since the last call, microseconds.
    pub fn take_epoch_lateness_micros(&self) -> u64 {
        self.ticker.take_lateness_micros()
    }

    /// Stops matching instances; they end within two ticks.
    pub fn stop(&self, selector: &Selector, cause: KillCause) -> u64 {
        self.live.stop(selector, cause)
    }
}

fn probe(profile: Profile, pool: PoolLimits) -> Result<(Engine, PoolLimits), RuntimeError> {
    let mut pool = pool;
    loop {
        let mut config = engine_config(profile);
        config.allocation_strategy(pool.strategy());
        match (Engine::new(&config), pool.halved()) {
            (Ok(engine), _) => return Ok((engine, pool)),
            (Err(_), Some(smaller)) => pool = smaller,
            (Err(error), None) => {
                return Err(RuntimeError::AddressSpace { slots: pool.slots, detail: format!("{error:#}") });
            }
        }
    }
}
