//! One call: a fresh instance, `process`, and what came back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::Context;
use bytes::Bytes;
use executor_api::receipt::StepReceipt;
use executor_engine::Profile;
use executor_engine::frames::{Lines, Trial};
use wasmtime::{Instance, Store};

use super::calls::Registration;
use super::conduct::Conduct;
use super::control::{Cancel, InstanceId, KillCause};
use super::determined::Seed;
use super::engine::Runtime;
use super::limits::{CallLimits, Lowered};
use super::prepared::{Code, CoreModule, Prepared};
use super::rates::Refused;
use super::read_along::ReadAlong;
use super::state::{Extras, GuestState, Instantiation, Stop, on_tick};
use super::step::StepFailure;
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

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The input is larger than this executor accepts.
    #[error("the input is larger than {limit} bytes")]
    InputTooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// The instance needs more memory or table elements at its start than this call may use.
    #[error("the guest starts with more memory than it may use")]
    MemoryLimit,
    /// No slot of the pool was free, or the instance needs more than one slot holds.
    #[error("no instance slot is available")]
    Pool {
        /// For the operator.
        detail: String,
    },
    /// The host ended the guest.
    #[error(transparent)]
    Stopped(#[from] Stop),
    /// The guest trapped.
    #[error("the guest trapped: {trap}")]
    Trapped {
        /// wasmtime's name of the trap.
        trap: &'static str,
    },
    /// A component handed the host values that its types do not allow, or more than one host call may carry.
    #[error("the guest broke the rules of the component boundary")]
    Boundary {
        /// For the operator.
        detail: String,
    },
    /// A step of a pipeline failed, and the pipeline with it.
    #[error("the step `{step}` failed: {failure}")]
    Step {
        /// Name of the step.
        step: String,
        /// Why.
        failure: Box<StepFailure>,
    },
    /// The worker process that ran the guest ended, or had to be ended.
    #[error("the process that ran the guest was lost; retry")]
    WorkerLost {
        /// For the operator.
        detail: String,
    },
    /// The worker process that runs the guest says that it could not.
    #[error("the call failed in the process that runs the guest")]
    InWorker {
        /// The stable reason code.
        code: &'static str,
        /// For the operator.
        detail: String,
    },
    /// Something else went wrong on the host's side.
    #[error("the call failed")]
    Host {
        /// For the operator; never sent to callers.
        detail: String,
    },
}

impl CallError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Step { failure, .. } => failure.code(),
            Self::InputTooLarge { .. } => "input_too_large",
            Self::MemoryLimit => "memory_limit",
            Self::Pool { .. } => "pool_exhausted",
            Self::Stopped(Stop::CpuBudget) => "cpu_budget",
            Self::Stopped(Stop::WallDeadline) => "deadline_exceeded",
            Self::Stopped(Stop::Killed(cause)) => cause.as_str(),
            Self::Boundary { .. } | Self::Trapped { .. } => "trap",
            Self::WorkerLost { .. } => "worker_lost",
            Self::InWorker { code, .. } => code,
            Self::Host { .. } => "internal",
        }
    }

    /// What only the operator reads; empty when there is nothing more to say.
    pub fn operator(&self) -> &str {
        match self {
            Self::Boundary { detail }
            | Self::Host { detail }
            | Self::InWorker { detail, .. }
            | Self::Pool { detail }
            | Self::WorkerLost { detail } => detail,
            Self::Step { failure, .. } => failure.operator(),
            Self::InputTooLarge { .. } | Self::MemoryLimit | Self::Stopped(_) | Self::Trapped { .. } => "",
        }
    }

    /// Why a verdict ended the call, if one did.
    pub(crate) fn verdict(&self) -> Option<KillCause> {
        let Self::Stopped(Stop::Killed(cause)) = self else { return None };
        Some(*cause).filter(|cause| cause.is_of_verdict())
    }

    /// Whether it says nothing about the guest: somebody else ended the call, or it never began.
    #[cfg(any(test, feature = "deployments", feature = "pipelines"))]
    pub(crate) fn is_of_others(&self) -> bool {
        match self {
            Self::Stopped(Stop::Killed(_))
            | Self::InputTooLarge { .. }
            | Self::Pool { .. }
            | Self::Host { .. } => true,
            Self::Step { failure, .. } => failure.is_of_others(),
            // A guest may be what its worker ended of.
            Self::Boundary { .. }
            | Self::InWorker { .. }
            | Self::MemoryLimit
            | Self::Stopped(_)
            | Self::Trapped { .. }
            | Self::WorkerLost { .. } => false,
        }
    }

    /// Containers and pipelines are not run by the engine; whoever asks it to is in error.
    fn no_instance() -> Self {
        Self::Host { detail: "the engine was asked to run what is no module".into() }
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
        let ran = self.run(prepared, &mut store);
        let wall = clock::monotonic().saturating_duration_since(started);
        // Asking for fuel where there is none makes an error, which costs more than the rest of this account.
        let fuel = match self.profile() {
            Profile::Deterministic => store.get_fuel().ok(),
            Profile::Standard => None,
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
        let output = std::mem::take(&mut state.output);
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
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        if let Some(seed) = seed {
            store.data_mut().determine(seed);
            store.set_fuel(fuel).map_err(|error| CallError::Host { detail: format!("{error:#}") })?;
        }
        Ok(store)
    }
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
