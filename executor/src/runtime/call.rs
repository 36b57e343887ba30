//! One call: a fresh instance, `process`, and what came back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::Context;
use bytes::Bytes;
use executor_api::receipt::StepReceipt;
use executor_engine::Profile;
use executor_engine::frames::{Lines, Trial};
use wasmtime::{Instance, Store};

use super::call_error::CallError;
use super::calls::Registration;
use super::conduct::Conduct;
use super::control::{Cancel, InstanceId};
use super::determined::Seed;
use super::engine::Runtime;
use super::limits::{CallLimits, Lowered};
use super::prepared::{Code, CoreModule, Prepared};
use super::rates::Refused;
use super::read_along::ReadAlong;
use super::state::{Extras, GuestState, Instantiation, Stop, on_tick};
use super::trap::classify;
use crate::abi::sinks::{LogRecord, MetricRecord};
use crate::clock;
use crate::component::Failed;
use crate::streams::{GuestStreams, Pipe};
use crate::worker::{Door, RemoteModule};

/// Input of one call.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Bytes the guest reads.
    pub input: Bytes,
    /// What this caller lowers.
    pub lowered: Lowered,
    /// By which it can be ended, beside a stop of what runs.
    pub cancel: Option<Cancel>,
    /// What random numbers follow from in the deterministic profile; absent: from module and input.
    pub seed: Option<Seed>,
}

/// What one call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Wall time, microseconds.
    pub wall_us: u64,
    /// Largest total memory, bytes.
    pub memory_bytes: u64,
    /// Epoch ticks that passed while the guest ran.
    pub epoch_ticks: u64,
    /// Fuel used, in the deterministic profile.
    pub fuel: Option<u64>,
    /// Log lines dropped.
    pub dropped_log_lines: u64,
    /// Growths of memory or tables refused.
    pub refused_growths: u64,
}

/// The result of a call that ran to its end.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Name of the instance.
    pub instance: InstanceId,
    /// What the guest wrote.
    pub output: Vec<u8>,
    /// What `process` returned.
    pub exit_code: i32,
    /// What was used.
    pub usage: Usage,
    /// Log lines, in order.
    pub log: Vec<LogRecord>,
    /// Metric records, in order.
    pub metrics: Vec<MetricRecord>,
}

/// What a guest said in a call that has no result: the text of a panic first of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Name of the instance.
    pub instance: InstanceId,
    /// Log lines, in order.
    pub log: Vec<LogRecord>,
    /// Metric records, in order.
    pub metrics: Vec<MetricRecord>,
}

/// A call that is over, with or without a result.
pub(crate) struct Ended {
    /// What came back, or why nothing did.
    pub(crate) result: Result<Outcome, CallError>,
    /// What its guest said, where nothing came back.
    pub(crate) said: Option<Box<Said>>,
    /// What was used.
    pub(crate) usage: Usage,
    /// What the guest asked for and was refused.
    pub(crate) conduct: Option<Box<Conduct>>,
    /// Processor time that it is charged with where it ran in another process than this one.
    pub(crate) charged: Option<Duration>,
    /// SHA-256 of everything it streamed, to be continued with its output.
    pub(crate) streamed: Option<Box<Context>>,
    /// From the beginning of the call to a complete instance, where there was one and it was measured.
    pub(crate) instantiation: Option<Duration>,
    /// The attempts of a pipeline's steps, in order; none of a call that is no pipeline's.
    pub(crate) steps: Option<Vec<StepReceipt>>,
}

impl Ended {
    fn unbegun(error: CallError) -> Self {
        Self::plain(Err(error), Usage::default())
    }

    /// What the guest said, did and streamed. Most have none of it, and what there is room for would be moved with each result.
    #[inline(never)]
    fn add(&mut self, instance: InstanceId, extras: Extras) {
        let Extras { log, metrics, mut rates, mut conduct, streams, charged, .. } = extras;
        if *rates.refused() != Refused::default() {
            conduct.get_or_insert_default().too_fast = *rates.refused();
        }
        (self.conduct, self.charged) = (conduct, charged);
        self.streamed = streams.map(|streams| Box::new(streams.into_digest()));
        let (log, metrics) = (log.into_records(), metrics.into_records());
        match &mut self.result {
            Ok(outcome) => (outcome.log, outcome.metrics) = (log, metrics),
            Err(_) => self.said = Some(Box::new(Said { instance, log, metrics })),
        }
    }

    /// The end of something that had no instance of its own.
    pub(crate) fn plain(result: Result<Outcome, CallError>, usage: Usage) -> Self {
        let (said, conduct, charged) = (None, None, None);
        let (instantiation, streamed, steps) = (None, None, None);
        Self { result, said, usage, conduct, charged, instantiation, streamed, steps }
    }
}

impl Runtime {
    /// Runs `prepared` once, in a fresh instance, on the calling thread. Blocks until the guest ends or is ended.
    ///
    /// # Errors
    ///
    /// Every way in which there is no result; the instance is gone in each case.
    pub fn call(&self, prepared: &Prepared, call: Call) -> Result<Outcome, CallError> {
        let registration = self.register(prepared, call.cancel.as_ref());
        self.call_registered(prepared, call, registration, None).result
    }

    /// As [`Self::call`], for a call that has been in the list of live instances for some time: whoever stopped it
    /// meanwhile stopped it, and no instance is made. What the guest streams goes into `pipe`, if anybody reads it.
    pub(crate) fn call_registered(
        &self,
        prepared: &Prepared,
        call: Call,
        registration: Registration,
        pipe: Option<Arc<Pipe>>,
    ) -> Ended {
        let started = clock::monotonic();
        let id = registration.id;
        let mut store = match self.store(call, registration, started, pipe) {
            Ok(store) => store,
            Err(error) => return Ended::unbegun(error),
        };
        if id.is_sampled() {
            store.data_mut().instantiation = Instantiation::Measured;
        }
        self.carry_out(prepared, store, id, started)
    }

    /// Runs `module` once in a worker, for an executor that answers what the guest asks through `door`.
    pub(crate) fn call_behind(&self, module: &Prepared, call: Call, door: Arc<Door>, lines: Lines) -> Ended {
        let started = clock::monotonic();
        let registration = self.register(module, call.cancel.as_ref());
        let id = registration.id;
        match self.store(call, registration, started, None) {
            Ok(mut store) => {
                let extras = store.data_mut().extras();
                extras.read_along =
                    (lines == Lines::AtOnce).then(|| ReadAlong::ThroughDoor(Arc::clone(&door)));
                extras.door = Some(door);
                self.carry_out(module, store, id, started)
            }
            Err(error) => Ended::unbegun(error),
        }
    }

    /// As [`Self::call_behind`], with an instance that is not called.
    pub(crate) fn tried_behind(&self, prepared: &Prepared, call: Call, door: Arc<Door>) -> Ended {
        let registration = self.register(prepared, call.cancel.as_ref());
        let id = registration.id;
        let tried = self.store(call, registration, clock::monotonic(), None).and_then(|mut store| {
            store.data_mut().extras().door = Some(door);
            self.instantiate(prepared, &mut store)
        });
        let nothing = |()| Outcome {
            instance: id,
            output: Vec::new(),
            exit_code: 0,
            usage: Usage::default(),
            log: Vec::new(),
            metrics: Vec::new(),
        };
        Ended { result: tried.map(nothing), ..Ended::unbegun(CallError::MemoryLimit) }
    }

    /// From a furnished store to what came back.
    fn carry_out(
        &self,
        prepared: &Prepared,
        mut store: Store<GuestState>,
        id: InstanceId,
        started: Instant,
    ) -> Ended {
        let ran = self.run(prepared, &mut store).and_then(|code| match self.profile() {
            // Between a stop and the tick that carries it out a guest may come to its end, by what the stop told it.
            Profile::Deterministic => match store.data().ended_from_outside() {
                Some(stop) => Err(Box::new(stop.into())),
                None => Ok(code),
            },
            Profile::Standard | Profile::Large => Ok(code),
        });
        let wall = clock::monotonic().saturating_duration_since(started);
        // Asking for fuel where there is none makes an error, which costs more than the rest of this account.
        let fuel = match self.profile() {
            Profile::Deterministic => store.get_fuel().ok(),
            Profile::Standard | Profile::Large => None,
        };
        // What outlives the store is taken out of it; moving all of it would cost more.
        let state = store.data_mut();
        let extras = state.take_extras();
        let usage = Usage {
            wall_us: wall.as_micros().try_into().unwrap_or(u64::MAX),
            memory_bytes: state.limiter.memory() as u64,
            epoch_ticks: state.ticks(),
            fuel: fuel.map(|left| state.limits().fuel.saturating_sub(left)),
            dropped_log_lines: extras.as_ref().map_or(0, |extras| extras.log.dropped()),
            refused_growths: state.limiter.refused(),
        };
        let output = fitted(std::mem::take(&mut state.output));
        let instantiation = match state.instantiation {
            Instantiation::Complete(at) => Some(at.saturating_duration_since(started)),
            Instantiation::Measured | Instantiation::Unmeasured => None,
        };
        let result = match ran {
            Ok(exit_code) => {
                let (log, metrics) = (Vec::new(), Vec::new());
                Ok(Outcome { instance: id, usage, exit_code, output, log, metrics })
            }
            Err(error) => Err(*error),
        };
        let mut ended = Ended { instantiation, ..Ended::plain(result, usage) };
        match extras {
            Some(extras) => ended.add(id, *extras),
            None if ended.result.is_err() => ended.add(id, Extras::default()),
            None => {}
        }
        ended
    }

    /// Makes an instance and drops it: what starts it runs, `process` does not.
    #[cfg(feature = "deployments")]
    pub(crate) fn dry_run(&self, prepared: &Prepared) -> Result<(), CallError> {
        if let Code::Container(_) | Code::Pipeline(_) = &prepared.code {
            return Ok(());
        }
        let registration = self.register(prepared, None);
        let mut store = self.store(Call::default(), registration, clock::monotonic(), None)?;
        self.instantiate(prepared, &mut store)
    }

    fn instantiate(&self, prepared: &Prepared, store: &mut Store<GuestState>) -> Result<(), CallError> {
        let made = match &prepared.code {
            Code::Component(component) => component.instantiate(store),
            Code::Core(core) => core.pre.instantiate(&mut *store).map(drop).map_err(Failed::Instantiate),
            Code::Worker(module) => return run_in_worker(module, store, Trial::OnlyInstantiate).map(drop),
            Code::Container(_) | Code::Pipeline(_) => return Err(CallError::no_instance()),
        };
        made.map_err(|failed| failure(failed, store, &prepared.code))
    }

    /// Runs a fresh instance to its end: its exit code. Most calls do not fail, and what a failure has room for would be copied with
    /// each of their results: it is boxed.
    pub(crate) fn run(
        &self,
        prepared: &Prepared,
        store: &mut Store<GuestState>,
    ) -> Result<i32, Box<CallError>> {
        let result = match &prepared.code {
            Code::Component(component) => component.run(store),
            Code::Core(core) => run_core(core, store),
            Code::Container(_) | Code::Pipeline(_) => return Err(Box::new(CallError::no_instance())),
            Code::Worker(module) => return run_in_worker(module, store, Trial::Call).map_err(Box::new),
        };
        result.map_err(|failed| Box::new(failure(failed, store, &prepared.code)))
    }

    /// An empty store with every limit on.
    pub(crate) fn store(
        &self,
        call: Call,
        registration: Registration,
        started: Instant,
        pipe: Option<Arc<Pipe>>,
    ) -> Result<Store<GuestState>, CallError> {
        if let Some(cause) = registration.raised() {
            return Err(Stop::Killed(cause).into());
        }
        let CallLimits { input, fuel, .. } = registration.calls.limits;
        let module = registration.calls.owner.digest;
        if call.input.len() > input {
            return Err(CallError::InputTooLarge { limit: input });
        }
        let seed = || call.seed.unwrap_or_else(|| Seed::of(module, &call.input));
        let seed = (self.profile() == Profile::Deterministic).then(seed);
        let state = GuestState::new(call.input, call.lowered, registration, started);
        let mut store = Store::new(self.engine(), state);
        if let Some(pipe) = pipe {
            let extras = store.data_mut().extras();
            extras.read_along = Some(ReadAlong::Here(Arc::clone(&pipe)));
            extras.streams = Some(GuestStreams::new(pipe));
        }
        store.limiter(|state| state);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        if let Some(seed) = seed {
            store.data_mut().determine(seed);
            store.set_fuel(fuel).map_err(|error| CallError::Host { detail: format!("{error:#}") })?;
        }
        Ok(store)
    }
}

/// Unused room that an output may keep besides: less is not worth moving it.
const SPARE: usize = 64 << 10;

/// An output as it is kept, for as long as somebody may ask for it. It grew by doubling: up to half of what it takes may be empty.
fn fitted(mut output: Vec<u8>) -> Vec<u8> {
    let spare = output.capacity().saturating_sub(output.len());
    if spare > SPARE && spare > output.len() / 2 {
        output.shrink_to_fit();
    }
    output
}

fn failure(failed: Failed, store: &Store<GuestState>, code: &Code) -> CallError {
    match failed {
        // Growing past a limit is no error; being created past it is, and only the account knows which it was.
        Failed::Instantiate(_) if store.data().limiter.refused() > 0 => CallError::MemoryLimit,
        Failed::Host(error) => CallError::Host { detail: format!("{error:#}") },
        Failed::Instantiate(error) | Failed::Run(error) => match (classify(&error), code) {
            (CallError::Host { detail }, Code::Component(_)) => CallError::Boundary { detail },
            (known, _) => known,
        },
    }
}

/// Runs a guest elsewhere; the store only holds what the executor knows of its call.
fn run_in_worker(
    module: &RemoteModule,
    store: &mut Store<GuestState>,
    trial: Trial,
) -> Result<i32, CallError> {
    let ran = module.run(store.data_mut(), trial);
    let (all, used) = (store.data().limits().fuel, store.data().claimed_fuel());
    // Without a meter there is nothing to set.
    let _ = store.set_fuel(all.saturating_sub(used));
    ran
}

fn run_core(core: &CoreModule, store: &mut Store<GuestState>) -> Result<i32, Failed> {
    let instance = core.pre.instantiate(&mut *store).map_err(Failed::Instantiate)?;
    store.data_mut().instantiated();
    process(core, &instance, store).map_err(Failed::Run)
}

fn process(core: &CoreModule, instance: &Instance, store: &mut Store<GuestState>) -> wasmtime::Result<i32> {
    store.data_mut().memory =
        instance.get_module_export(&mut *store, &core.memory).and_then(wasmtime::Extern::into_memory);
    if let Some(initialize) = &core.initialize {
        typed::<()>(instance, store, initialize)?.call(&mut *store, ())?;
    }
    typed::<i32>(instance, store, &core.process)?.call(store, ())
}

fn typed<R: wasmtime::WasmResults>(
    instance: &Instance,
    store: &mut Store<GuestState>,
    export: &wasmtime::ModuleExport,
) -> wasmtime::Result<wasmtime::TypedFunc<(), R>> {
    instance
        .get_module_export(&mut *store, export)
        .and_then(wasmtime::Extern::into_func)
        .ok_or_else(|| wasmtime::Error::msg("an export that was checked at load is missing"))?
        .typed(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_kept_takes_little_more_room_than_it_has() {
        for (length, room, kept) in [
            (1 << 20, 2 << 20, 1 << 20),
            // Not worth it.
            (1 << 20, 5 << 18, 5 << 18),
            (10, SPARE, SPARE),
            (0, 0, 0),
        ] {
            let mut output = Vec::with_capacity(room);
            output.resize(length, 7);
            assert!(output.capacity() >= room);
            let output = fitted(output);
            assert_eq!((output.len(), output.capacity()), (length, kept), "{length} of {room}");
        }
    }
}
