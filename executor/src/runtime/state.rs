//! What a store carries while one guest runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime::{Memory, StoreContextMut, UpdateDeadline};

use super::conduct::Conduct;
use super::control::{KillCause, KillFlag};
use super::limiter::Limiter;
use super::limits::CallLimits;
use crate::abi::handles::HandleTable;
use crate::abi::sinks::{LogSink, MetricSink};
use crate::admission::GrantSet;
use crate::clock;
use crate::component::Wasi;
use crate::streams::GuestStreams;

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

/// How long it takes until an instance is complete. Reading a clock is no small part of that, so few are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instantiation {
    /// It will be read.
    Measured,
    /// It was, when the instance was complete.
    Complete(Instant),
    /// It will not.
    Unmeasured,
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
    /// Bytes of media that this call uploaded.
    pub(crate) uploaded: u64,
    /// Its streams, in calls that have a reader.
    pub(crate) streams: Option<Box<GuestStreams>>,
    /// What it asked for and was refused; most calls ask for nothing.
    pub(crate) conduct: Option<Box<Conduct>>,
    /// How long it takes until the instance is complete.
    pub(crate) instantiation: Instantiation,
    /// What WASI functions lead to, in components that import any.
    pub(crate) wasi: Option<Box<Wasi>>,
    /// The exported memory of a core module, once it is instantiated.
    pub(crate) memory: Option<Memory>,
    kill: Arc<KillFlag>,
    deadline: Instant,
    /// Processor time of the thread at the first tick. Asking costs a system call, which most guests end before; the
    /// tick that is not counted is within what a budget is exact to.
    cpu_start: Option<Duration>,
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
            uploaded: 0,
            streams: None,
            conduct: None,
            instantiation: Instantiation::Unmeasured,
            wasi: None,
            memory: None,
            kill,
            deadline: started + limits.wall,
            cpu_start: None,
            ticks: 0,
        }
    }

    /// Epoch ticks that passed while the guest itself ran.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Why this guest may not go on, if so. Asked on every tick.
    fn stop_cause(&mut self) -> Option<Stop> {
        if let Some(cause) = self.kill.raised() {
            return Some(Stop::Killed(cause));
        }
        if clock::monotonic() >= self.deadline {
            return Some(Stop::WallDeadline);
        }
        let used = clock::thread_cpu();
        let start = *self.cpu_start.get_or_insert(used);
        (used.saturating_sub(start) >= self.limits.cpu).then_some(Stop::CpuBudget)
    }

    /// The instance is complete.
    pub(crate) fn instantiated(&mut self) {
        if matches!(self.instantiation, Instantiation::Measured) {
            self.instantiation = Instantiation::Complete(clock::monotonic());
        }
    }

    /// The conduct of this call, made when there is something to note.
    pub(crate) fn conduct(&mut self) -> &mut Conduct {
        self.conduct.get_or_insert_default()
    }

    /// The flag that ends this call.
    pub(crate) fn kill(&self) -> Arc<KillFlag> {
        Arc::clone(&self.kill)
    }

    /// When this call ends at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
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
