//! What a store carries while one guest runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime::{Memory, StoreContextMut, UpdateDeadline};

use super::control::{KillCause, KillFlag};
use super::limiter::Limiter;
use super::limits::CallLimits;
use crate::abi::handles::HandleTable;
use crate::abi::sinks::{LogSink, MetricSink};
use crate::admission::GrantSet;
use crate::clock;

/// Why the host ended a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The processor-time budget is used up.
    #[error("the guest used its processor time")]
    CpuBudget,
    /// Somebody stopped it.
    #[error("the guest was stopped: {}", .0.as_str())]
    Killed(KillCause),
    /// The wall-clock deadline passed.
    #[error("the guest did not finish in time")]
    WallDeadline,
}

/// Host-side state of one call. Dropped with its store after the call, whatever its outcome.
pub(crate) struct GuestState {
    pub(crate) limiter: Limiter,
    pub(crate) limits: CallLimits,
    pub(crate) input: Bytes,
    pub(crate) output: Vec<u8>,
    pub(crate) log: LogSink,
    pub(crate) metrics: MetricSink,
    pub(crate) handles: HandleTable,
    pub(crate) grants: Arc<GrantSet>,
    /// Handles of a component, and how many live.
    pub(crate) table: ResourceTable,
    pub(crate) resources: usize,
    /// The exported memory of a core module, once it is instantiated.
    pub(crate) memory: Option<Memory>,
    kill: Arc<KillFlag>,
    deadline: Instant,
    cpu_start: Duration,
    ticks: u64,
}

impl GuestState {
    pub(crate) fn new(
        input: Bytes,
        limits: CallLimits,
        grants: Arc<GrantSet>,
        kill: Arc<KillFlag>,
        started: Instant,
    ) -> Self {
        Self {
            limiter: Limiter::new(&limits),
            limits,
            input,
            output: Vec::new(),
            log: LogSink::default(),
            metrics: MetricSink::default(),
            handles: HandleTable::default(),
            grants,
            table: ResourceTable::new(),
            resources: 0,
            memory: None,
            kill,
            deadline: started + limits.wall,
            cpu_start: clock::thread_cpu(),
            ticks: 0,
        }
    }

    /// Epoch ticks that passed while the guest itself ran.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Why this guest may not go on, if so. Read on every tick and by every host call that has an effect.
    pub(crate) fn stop_cause(&self) -> Option<Stop> {
        if let Some(cause) = self.kill.raised() {
            return Some(Stop::Killed(cause));
        }
        if clock::monotonic() >= self.deadline {
            return Some(Stop::WallDeadline);
        }
        (clock::thread_cpu().saturating_sub(self.cpu_start) >= self.limits.cpu).then_some(Stop::CpuBudget)
    }

    /// Whether the kill flag is up: the cheap part of [`Self::stop_cause`].
    pub(crate) fn killed(&self) -> Option<KillCause> {
        self.kill.raised()
    }
}

/// The epoch callback of every store.
pub(crate) fn on_tick(mut store: StoreContextMut<'_, GuestState>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    state.ticks += 1;
    match state.stop_cause() {
        Some(stop) => Err(stop.into()),
        None => Ok(UpdateDeadline::Continue(1)),
    }
}
