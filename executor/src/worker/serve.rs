//! The worker's whole life: it confines itself, maps the modules it is given, and runs calls of them.
//!
//! One thread for each lane, one that hears of stops, and this one for modules. All of them exist before the list of system
//! calls closes, and none is made after it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use bytes::Bytes;
use executor_engine::frames::{
    Act, CallOrder, End, Ended, FromWorker, GuestLimits, Lines, MAX_FRAME, Mechanism, Order, Report,
    StopOrder, ToWorker, Trial,
};
use executor_engine::job::ModuleKind;
use executor_engine::pool::PoolLimits;
use executor_engine::{ModuleDigest, engine_config};
use parking_lot::RwLock;
use trust_store::capability::Capability;
use wasmtime::Engine;

use super::channel::{Beside, Channel, ChannelError};
use super::confine::{self, Missing};
use super::door::Door;
use super::holder::exit;
use super::stops::Stoppable;
use super::{limits, verdict};
use crate::admission::GrantSet;
use crate::artifact::Loaded;
use crate::artifact_map::Sealed;
use crate::clock;
use crate::runtime::{AdmissionId, Call, Lowered, Owner, Prepared, Rated, Runtime, Seed};

/// Stack of a thread that runs guests: 512 KiB of theirs, and what host functions need.
const STACK: usize = 2 << 20;

/// How long the executor may take nothing of what it is sent, at a time.
const PAUSE: Duration = Duration::from_secs(60);

/// What a worker's threads share.
struct Worker {
    runtime: Arc<Runtime>,
    modules: RwLock<HashMap<u64, Arc<Prepared>>>,
    stoppable: Stoppable,
}

/// Serves until the executor is gone. The exit code.
pub(super) fn serve() -> u8 {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let Ok(mut control) = socket.and_then(|socket| Channel::new(socket, Beside::Descriptors)) else {
        return exit::CONVERSATION;
    };
    let worker = match begin(&mut control) {
        Ok(worker) => worker,
        Err(Some((mechanism, detail))) => {
            let _ = tell(&control, &Report::Refused { mechanism, detail: &detail });
            return exit::NOT_CONFINED;
        }
        Err(None) => return exit::CONVERSATION,
    };
    if tell(&control, &Report::Ready).is_err() {
        return exit::CONVERSATION;
    }
    loop {
        let Ok(order) = control.receive_patiently(MAX_FRAME) else { return 0 };
        let descriptors = control.take_descriptors();
        let report = match Order::decode(&order) {
            Ok(Order::Load { module, length, kind, limits, grants }) => {
                worker.load(module, length, kind, &limits, &grants, descriptors)
            }
            Ok(Order::Unload { module }) => {
                worker.modules.write().remove(&module);
                continue;
            }
            Ok(Order::Begin { .. }) | Err(_) => return exit::CONVERSATION,
        };
        if control.send(&report, &[], PAUSE, &mut || true).is_err() {
            return exit::CONVERSATION;
        }
    }
}

fn tell(control: &Channel, report: &Report<'_>) -> Result<(), ChannelError> {
    control.send(&report.encode(), &[], PAUSE, &mut || false)
}

/// From the first order to a closed sandbox. Nothing as error: there is nobody to tell.
fn begin(control: &mut Channel) -> Result<Arc<Worker>, Option<Missing>> {
    let first = control.receive_patiently(MAX_FRAME).map_err(|_| None)?;
    let Ok(Order::Begin { profile, slots, lanes, memory, probe }) = Order::decode(&first) else {
        return Err(None);
    };
    let mut sockets = control.take_descriptors().into_iter().map(UnixStream::from);
    let stops = sockets.next().ok_or(None)?;
    let doors: Vec<_> = sockets
        .map(|socket| Channel::new(socket, Beside::Nothing).map(|channel| Arc::new(Door::new(channel))))
        .collect::<Result<_, _>>()
        .map_err(|_| None)?;
    if doors.len() != usize::from(lanes) {
        return Err(None);
    }
    // The standard three, control once more, stops and lanes.
    confine::close_early(memory, 5 + doors.len())?;
    if let Some(act) = probe {
        confine::close_late()?;
        return Err(Some(survived(act)));
    }
    let failed = |error: &dyn std::fmt::Display| Some((Mechanism::Engine, error.to_string()));
    let pool = PoolLimits { slots: slots.max(PoolLimits::MIN_SLOTS), ..PoolLimits::of(profile) };
    let runtime = Runtime::new(profile, pool).map_err(|error| failed(&error))?;
    // Starts the threads that time waiting guests.
    wasmtime_wasi::runtime::in_tokio(async {});
    let stoppable = Stoppable::on_lanes(doors.len());
    let worker = Arc::new(Worker { runtime, modules: RwLock::default(), stoppable });
    let started = Arc::new(Barrier::new(doors.len() + 2));
    for (number, door) in doors.into_iter().enumerate() {
        let (worker, started) = (Arc::clone(&worker), Arc::clone(&started));
        start("lane", &started, move || worker.keep_lane(number, &door)).map_err(|error| failed(&error))?;
    }
    let stopped = Arc::clone(&worker);
    start("stops", &started, move || stopped.keep_stopping(stops)).map_err(|error| failed(&error))?;
    started.wait();
    confine::close_late()?;
    Ok(worker)
}

fn survived(act: Act) -> Missing {
    let said = confine::attempt(act).map_or_else(|error| error.to_string(), |()| "done".into());
    (Mechanism::SelfTest, format!("the list of system calls did not stop it from `{}`: {said}", act.as_str()))
}

fn start(name: &str, started: &Arc<Barrier>, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let started = Arc::clone(started);
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // What a thread asks the system once, it asks before the list of calls closes.
            let mut drawn = [0u8; 4];
            let _ = (aws_lc_rs::rand::fill(&mut drawn), clock::thread_cpu(), clock::monotonic());
            started.wait();
            run();
        })
        .map(drop)
}

impl Worker {
    /// Maps a module and links it. The report's bytes.
    fn load(
        &self,
        module: u64,
        length: u64,
        kind: ModuleKind,
        limits: &GuestLimits,
        grants: &[&str],
        descriptors: Vec<OwnedFd>,
    ) -> Vec<u8> {
        let refused = |reason: &str, name: &str, detail: &str| {
            Report::NotLoaded { module, reason, name, detail }.encode()
        };
        let mut descriptors = descriptors.into_iter();
        let (Some(code), None) = (descriptors.next(), descriptors.next()) else {
            return refused("internal", "", "one descriptor is expected");
        };
        let granted: Result<Vec<Capability>, _> = grants.iter().map(|text| text.parse()).collect();
        let Ok(granted) = granted else { return refused("internal", "", "a grant is no capability") };
        let code = File::from(code);
        let again = code.try_clone();
        let loaded = match Sealed::received(code, length)
            .map_err(|error| error.to_string())
            .and_then(|sealed| map(sealed, kind, self.runtime.engine()).map_err(|error| format!("{error:#}")))
        {
            Ok(loaded) => loaded,
            Err(detail) => {
                // As in the executor: what an engine without a pool takes, the pool refused.
                let engine = Engine::new(&engine_config(self.runtime.profile())).ok();
                let sealed = again.ok().and_then(|code| Sealed::received(code, length).ok());
                let of_pool =
                    sealed.zip(engine).is_some_and(|(sealed, engine)| map(sealed, kind, &engine).is_ok());
                return refused(if of_pool { "pool_limit" } else { "engine_mismatch" }, "", &detail);
            }
        };
        let owner = Owner {
            admission: AdmissionId::next(),
            agent: String::new(),
            digest: ModuleDigest([0; 32]),
            signer: String::new(),
        };
        let grants = Arc::new(GrantSet::of_worker(granted));
        match Prepared::linked(&self.runtime, &loaded, Arc::new(owner), grants, limits::read(limits)) {
            Ok(prepared) => {
                self.modules.write().insert(module, Arc::new(prepared));
                Report::Loaded { module }.encode()
            }
            Err(error) => {
                let (name, detail) = verdict::of_preparation(&error);
                refused(error.code(), &name, &detail)
            }
        }
    }

    /// Runs the calls of one lane.
    fn keep_lane(&self, number: usize, door: &Arc<Door>) {
        while let Ok(body) = door.next() {
            let Ok(ToWorker::Call(order)) = ToWorker::decode(&body) else { break };
            if self.run(number, door, &order).is_err() {
                break;
            }
        }
        // The executor is gone, or took this call away; what else runs here is its to keep.
    }

    fn run(&self, number: usize, door: &Arc<Door>, order: &CallOrder<'_>) -> Result<(), ChannelError> {
        let module = self.modules.read().get(&order.module).cloned();
        let Some(prepared) = module else {
            return door.say(&FromWorker::Ended(verdict::unknown_module(order.call)));
        };
        let cancel = self.stoppable.begin(number, order.call);
        let lowered = Lowered {
            wall: Some(Duration::from_micros(order.wall_us)),
            cpu: Some(Duration::from_micros(order.cpu_us)),
            memory: usize::try_from(order.memory).ok(),
        };
        let (input, seed) = (Bytes::copy_from_slice(order.input), Some(Seed(order.seed)));
        let call = Call { input, lowered, cancel: Some(cancel), seed };
        let ended = match order.trial {
            Trial::Call => self.runtime.call_behind(&prepared, call, Arc::clone(door), order.lines),
            Trial::OnlyInstantiate => self.runtime.tried_behind(&prepared, call, Arc::clone(door)),
        };
        self.stoppable.end(number);
        let mut told: Ended<'_> = verdict::unknown_module(order.call);
        let detail;
        told.end = match &ended.result {
            Ok(outcome) => {
                told.output = &outcome.output;
                told.log = outcome.log.iter().map(|line| (line.level as u8, line.text.as_str())).collect();
                told.metrics =
                    outcome.metrics.iter().map(|metric| (metric.name.as_str(), metric.value)).collect();
                End::Exit(outcome.exit_code)
            }
            Err(error) => {
                if let Some(said) = &ended.said {
                    told.log = said.log.iter().map(|line| (line.level as u8, line.text.as_str())).collect();
                    told.metrics =
                        said.metrics.iter().map(|metric| (metric.name.as_str(), metric.value)).collect();
                }
                let (reason, text) = verdict::of_call(error);
                detail = text;
                End::Failed { reason, detail: &detail }
            }
        };
        if order.lines == Lines::AtOnce {
            // They were told.
            told.log.clear();
        }
        told.memory = ended.usage.memory_bytes;
        told.ticks = ended.usage.epoch_ticks;
        told.fuel = ended.usage.fuel.unwrap_or_default();
        told.refused_growths = ended.usage.refused_growths;
        told.dropped_log_lines = ended.usage.dropped_log_lines;
        if let Some(conduct) = &ended.conduct {
            told.fast_lines = conduct.too_fast.of(Rated::Log);
            told.fast_metrics = conduct.too_fast.of(Rated::Metric);
        }
        door.say(&FromWorker::Ended(told))
    }

    /// Raises the flag of calls that are to end.
    fn keep_stopping(&self, mut stops: UnixStream) {
        let mut bytes = [0u8; StopOrder::SIZE];
        while stops.read_exact(&mut bytes).is_ok() {
            self.stoppable.stop(StopOrder::decode(&bytes));
        }
    }
}

fn map(sealed: Sealed, kind: ModuleKind, engine: &Engine) -> wasmtime::Result<Loaded> {
    match kind {
        ModuleKind::Component => sealed.component_from_copy(engine).map(Loaded::Component),
        ModuleKind::Core => sealed.core(engine).map(Loaded::Core),
    }
}
