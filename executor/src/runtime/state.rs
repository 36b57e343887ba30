//! What a store carries while one guest runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor_engine::limits::EPOCH_TICK_MILLIS;
use wasmtime::component::ResourceTable;
use wasmtime::{Memory, StoreContextMut, UpdateDeadline};

use super::calls::{Calls, Registration};
use super::conduct::Conduct;
use super::control::{Cancel, KillCause};
use super::determined::{Determined, Draws, Purpose, Seed};
use super::limiter::Limiter;
use super::limits::{CallLimits, Lowered};
use super::rates::{Pace, Rated, Rates};
use super::read_along::ReadAlong;
use crate::abi::ErrorCode;
use crate::abi::handles::HandleTable;
use crate::abi::sinks::{Level, LogSink, MetricSink};
use crate::admission::GrantSet;
use crate::clock;
use crate::component::Wasi;
use crate::media::Until;
use crate::streams::GuestStreams;
use crate::worker::Door;

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

/// Host-side state of one call. Dropped with its store after the call, whatever its outcome; the call is listed until then.
///
/// It is small because it is moved into the store, and has few parts because each is dropped: what most guests never touch
/// is made when one does.
pub(crate) struct GuestState {
    pub(crate) limiter: Limiter,
    pub(crate) registration: Registration,
    pub(crate) input: Bytes,
    pub(crate) output: Vec<u8>,
    /// How long it takes until the instance is complete.
    pub(crate) instantiation: Instantiation,
    /// The exported memory of a core module, once it is instantiated.
    pub(crate) memory: Option<Memory>,
    extras: Option<Box<Extras>>,
    deadline: Instant,
    /// Processor time it may use, and that of the thread at the first tick. Asking costs a system call, which most guests
    /// end before; the tick that is not counted is within what a budget is exact to.
    cpu: Duration,
    cpu_start: Option<Duration>,
    ticks: u64,
}

/// What some guests have beside input and output.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) log: LogSink,
    pub(crate) metrics: MetricSink,
    pub(crate) rates: Rates,
    /// Handles of a core module.
    pub(crate) handles: HandleTable,
    /// Handles of a component, and how many live.
    pub(crate) table: ResourceTable,
    pub(crate) resources: usize,
    /// Bytes that handles of a component hold.
    pub(crate) resource_bytes: usize,
    /// Bytes of media that this call uploaded.
    pub(crate) uploaded: u64,
    /// Its streams, in calls that have a reader.
    pub(crate) streams: Option<GuestStreams>,
    /// What it asked for and was refused; most calls ask for nothing.
    pub(crate) conduct: Option<Box<Conduct>>,
    /// What WASI functions lead to, in components that import any.
    pub(crate) wasi: Option<Box<Wasi>>,
    /// What functions of HTTP handlers need, in components that are one.
    #[cfg(feature = "http-handler")]
    pub(crate) http: Option<Box<crate::component::Http>>,
    /// In a worker: whom the guest's questions go to.
    pub(crate) door: Option<Arc<Door>>,
    /// In the deterministic profile: its clock and its random numbers.
    determined: Option<Box<Determined>>,
    /// Who reads its log while it runs, if anybody does.
    pub(crate) read_along: Option<ReadAlong>,
    /// Fuel that a worker says was used.
    claimed_fuel: u64,
    /// Processor time that is charged for what ran in a worker, which is not the worker's word.
    pub(super) charged: Option<Duration>,
}

impl Extras {
    /// Bytes that live handles hold outside the guest's memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.resource_bytes.saturating_add(self.handles.buffered_bytes())
    }
}

/// What a worker says that a call used: believed as far as the call's limits go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedUsage {
    pub(crate) memory: u64,
    pub(crate) ticks: u64,
    pub(crate) fuel: u64,
    pub(crate) refused_growths: u64,
    pub(crate) dropped_log_lines: u64,
    /// Log lines and metrics that came too fast.
    pub(crate) fast_lines: u64,
    pub(crate) fast_metrics: u64,
}

impl GuestState {
    pub(crate) fn new(input: Bytes, lowered: Lowered, registration: Registration, started: Instant) -> Self {
        let limits = &registration.calls.limits;
        let (cpu, wall) = (limits.cpu_of(lowered), limits.wall_of(lowered));
        Self {
            limiter: Limiter::new(limits, limits.memory_of(lowered)),
            registration,
            input,
            output: Vec::new(),
            instantiation: Instantiation::Unmeasured,
            memory: None,
            extras: None,
            deadline: started + wall,
            cpu,
            cpu_start: None,
            ticks: 0,
        }
    }

    /// What policy granted.
    pub(crate) fn grants(&self) -> &GrantSet {
        &self.registration.calls.grants
    }

    /// The ceilings of every call of this admission. Memory and time, which a caller may lower, are accounted apart.
    pub(crate) fn limits(&self) -> &CallLimits {
        &self.registration.calls.limits
    }

    /// Processor time that the call may use.
    pub(crate) fn cpu_budget(&self) -> Duration {
        self.cpu
    }

    /// What this guest has beside input and output, made when it is first asked for.
    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// The same, with what bounds it.
    pub(crate) fn extras_and_calls(&mut self) -> (&mut Extras, &Calls) {
        (self.extras.get_or_insert_default(), &self.registration.calls)
    }

    /// The same, if the guest has any.
    pub(crate) fn extras_if_any(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// The same, when the guest is over.
    pub(super) fn take_extras(&mut self) -> Option<Box<Extras>> {
        self.extras.take()
    }

    /// Keeps a log line and shows it to whoever reads along, or drops and counts it.
    pub(crate) fn log(&mut self, level: Option<Level>, text: Result<&str, ErrorCode>) {
        let (extras, calls) = self.extras_and_calls();
        if let Some(line) = extras.log.push(&calls.limits, level, text)
            && let Some(reader) = &extras.read_along
        {
            reader.show(line);
        }
    }

    /// Keeps a log line that was shown already, or drops and counts it.
    pub(crate) fn keep(&mut self, level: Level, text: &str) {
        let (extras, calls) = self.extras_and_calls();
        extras.log.push(&calls.limits, Some(level), Ok(text));
    }

    /// Who reads what the guest logs while it runs, if anybody does.
    pub(crate) fn read_along(&self) -> Option<ReadAlong> {
        self.extras_if_any()?.read_along.clone()
    }

    /// Keeps a line that the guest wrote, unless lines come too fast: then it is not read, and dropped.
    pub(crate) fn log_line<'a>(
        &mut self,
        level: Option<Level>,
        bytes: usize,
        text: impl FnOnce() -> Result<&'a str, ErrorCode>,
    ) {
        match self.spend(Rated::Log, bytes) {
            Ok(()) => self.log(level, text()),
            Err(_) => self.extras().log.drop_more(1),
        }
    }

    /// Keeps a metric value, or says why not.
    pub(crate) fn record_metric(&mut self, name: &str, value: f64) -> Result<(), ErrorCode> {
        self.spend(Rated::Metric, 0)?;
        let (extras, calls) = self.extras_and_calls();
        extras.metrics.record(&calls.limits, name, value)
    }

    /// Counts a host call of an interface that has a rate. The first that comes too fast leaves a line: the number that the guest gets
    /// says little.
    pub(crate) fn spend(&mut self, what: Rated, bytes: usize) -> Result<(), ErrorCode> {
        let (extras, calls) = self.extras_and_calls();
        let pace = match extras.determined {
            None => Pace::Ticks(calls.ticks.now()),
            Some(_) => Pace::Whole(calls.limits.wall),
        };
        if extras.rates.take(what, bytes, &calls.limits.rates, pace) {
            return Ok(());
        }
        if what != Rated::Log && extras.rates.refused().of(what) == 1 {
            let text = format!(
                "host_call_rate: calls of `{}` come too fast; further ones are refused",
                what.as_str()
            );
            // As any other line: from a worker whose call is read along, nothing else comes out.
            self.log(Some(Level::Warn), Ok(&text));
        }
        Err(ErrorCode::Limit)
    }

    /// Epoch ticks that passed while the guest itself ran.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Takes over what a worker says of a call. Wall time is this side's own.
    pub(crate) fn claim(&mut self, claimed: ClaimedUsage, began: Instant) {
        self.limiter.claim(claimed.memory, claimed.refused_growths);
        let wall = clock::monotonic().saturating_duration_since(began);
        let most = wall.as_millis() / u128::from(EPOCH_TICK_MILLIS) + 1;
        self.ticks = claimed.ticks.min(u64::try_from(most).unwrap_or(u64::MAX));
        let (extras, calls) = self.extras_and_calls();
        extras.log.drop_more(claimed.dropped_log_lines);
        extras.rates.refused().add(Rated::Log, claimed.fast_lines);
        extras.rates.refused().add(Rated::Metric, claimed.fast_metrics);
        extras.claimed_fuel = claimed.fuel.min(calls.limits.fuel);
    }

    /// Charges what ran in a worker.
    pub(crate) fn charge(&mut self, used: Duration) {
        self.extras().charged = Some(used);
    }

    /// Makes whatever the guest would take from the machine follow from this.
    pub(super) fn determine(&mut self, seed: Seed) {
        let extras = self.extras();
        extras.handles.begin_at(Draws::new(seed, Purpose::Handles).array());
        extras.determined = Some(Box::new(Determined::new(seed)));
    }

    /// Its clock and its random numbers in the deterministic profile. Linked in no other.
    pub(crate) fn determined(&mut self) -> &mut Determined {
        self.extras().determined.get_or_insert_with(|| Box::new(Determined::new(Seed::default())))
    }

    /// The seed of its random numbers in the deterministic profile.
    pub(crate) fn seed(&self) -> Option<Seed> {
        Some(self.extras_if_any()?.determined.as_ref()?.seed)
    }

    /// Fuel that a worker says was used.
    pub(crate) fn claimed_fuel(&self) -> u64 {
        self.extras_if_any().map_or(0, |extras| extras.claimed_fuel)
    }

    /// In a worker: whom the guest's questions go to.
    pub(crate) fn door(&self) -> Option<Arc<Door>> {
        self.extras_if_any()?.door.clone()
    }

    /// Why this guest may not go on, if so. Asked on every tick.
    fn stop_cause(&mut self) -> Option<Stop> {
        if let Some(stop) = self.ended_from_outside() {
            return Some(stop);
        }
        let used = clock::thread_cpu();
        let start = *self.cpu_start.get_or_insert(used);
        (used.saturating_sub(start) >= self.cpu).then_some(Stop::CpuBudget)
    }

    /// Whether somebody stopped it or its time is up: what a host function that waits tells it is then no matter of its input.
    pub(crate) fn ended_from_outside(&self) -> Option<Stop> {
        if let Some(cause) = self.registration.raised() {
            return Some(Stop::Killed(cause));
        }
        (clock::monotonic() >= self.deadline).then_some(Stop::WallDeadline)
    }

    /// The instance is complete.
    pub(crate) fn instantiated(&mut self) {
        if matches!(self.instantiation, Instantiation::Measured) {
            self.instantiation = Instantiation::Complete(clock::monotonic());
        }
    }

    /// The conduct of this call, made when there is something to note.
    pub(crate) fn conduct(&mut self) -> &mut Conduct {
        self.extras().conduct.get_or_insert_default()
    }

    /// What ends this call.
    pub(crate) fn kill(&self) -> Cancel {
        self.registration.cancel()
    }

    /// When this call ends at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long it may wait for something outside.
    pub(crate) fn until(&self) -> Until {
        Until {
            kill: self.kill(),
            deadline: self.deadline,
            admission: self.registration.calls.owner.admission,
        }
    }

    /// Whether the kill flag is up: the cheap part of [`Self::stop_cause`].
    pub(crate) fn killed(&self) -> Option<KillCause> {
        self.registration.raised()
    }
}

/// The epoch callback of every store.
pub(crate) fn on_tick(mut store: StoreContextMut<'_, GuestState>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    state.ticks += 1;
    if state.limiter.has_scratch() {
        state.registration.holds(state.limiter.memory_now());
    }
    match state.stop_cause() {
        Some(stop) => Err(stop.into()),
        None => Ok(UpdateDeadline::Continue(1)),
    }
}
