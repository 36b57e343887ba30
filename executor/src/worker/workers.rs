//! The workers of this executor: one for each signer whose modules are called, as many as the operator allows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use executor_engine::Profile;
use executor_engine::frames::Act;
use parking_lot::{Condvar, Mutex};

use super::birth::{Shape, probe};
use super::process::{Counted, Impatience, LOOK, Load, Process, Visit};
use super::remote::RemoteModule;
use super::spawner::Spawner;
use crate::admission::{GrantSet, SignerKey};
use crate::artifact_map::Sealed;
use crate::clock;
use crate::queue::Share;
use crate::runtime::{CallError, CallLimits, PrepareError};

/// The wait after a first loss; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A worker that lived this long is no sign of a guest that ends its worker.
const PROVEN: Duration = Duration::from_secs(30);

/// How many workers there may be, and of what size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Processes at the same time.
    pub processes: usize,
    /// Calls at the same time in each.
    pub calls: u16,
    /// Time after which one that has no call is ended.
    pub idle: Duration,
    /// Bytes of memory that the guest of one call may have, at most.
    pub guest_memory: usize,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self {
            processes: 8,
            calls: 16,
            idle: Duration::from_secs(60),
            guest_memory: CallLimits::default().memory,
        }
    }
}

/// Something that became of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerEvent {
    /// It had no calls for a while, or others needed its place.
    Ended,
    /// It ended, or had to be ended, while it should have served.
    Lost {
        signer: SignerKey,
        why: String,
    },
    Started,
}

type Listener = Box<dyn Fn(WorkerEvent) + Send + Sync>;

/// Every worker.
pub struct Workers {
    spawner: Arc<Spawner>,
    limits: WorkerLimits,
    shape: Shape,
    slots: Mutex<HashMap<SignerKey, Weak<Slot>>>,
    next: AtomicU64,
    /// Workers that run.
    running: Arc<AtomicUsize>,
    /// Held while a place for a worker is looked for, so that there are never more than allowed.
    room: Mutex<()>,
    listener: OnceLock<Listener>,
}

/// The place of one signer.
pub(super) struct Slot {
    signer: SignerKey,
    share: Arc<Share>,
    state: Mutex<State>,
    /// Notified when a start is over.
    started: Condvar,
}

#[derive(Default)]
struct State {
    process: Option<Arc<Process>>,
    /// Whether one is being started, for whoever waits.
    starting: bool,
    losses: u32,
    /// Why the last one was lost.
    why: String,
    /// Not before this.
    again_at: Option<Instant>,
}

/// A start, which is over when this is dropped.
struct Starting(Arc<Slot>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.state.lock().starting = false;
        self.0.started.notify_all();
    }
}

impl Workers {
    /// Tries whether this host can confine workers: what must end one is tried in processes of their own, and one is started
    /// whole and maps `code`, so that what its sandbox forbids too much is found now and not by the first module. Blocks for some
    /// tens of milliseconds.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do about it.
    pub(crate) fn open(
        spawner: Spawner,
        profile: Profile,
        limits: WorkerLimits,
        code: Arc<Sealed>,
    ) -> Result<Arc<Self>, String> {
        let workers = Self {
            spawner: Arc::new(spawner),
            limits,
            shape: Shape { profile, lanes: limits.calls, guest_memory: limits.guest_memory },
            slots: Mutex::default(),
            next: AtomicU64::new(1),
            running: Arc::default(),
            room: Mutex::default(),
            listener: OnceLock::new(),
        };
        // First, since it says what is missing; what comes then says that nothing leaks.
        let whole = Process::start(&workers.spawner, workers.number(), workers.shape);
        let whole = Arc::new(whole.map_err(|gone| gone.to_string())?);
        let mapped = whole.load(Load::on_trial(code), &|| None);
        let ended = whole.end();
        mapped.map_err(|hindrance| {
            format!("a worker cannot map a module: {hindrance} ({ended}); report this as a defect")
        })?;
        for act in Act::ALL {
            probe(&workers.spawner, workers.number(), workers.shape, act).map_err(|gone| gone.to_string())?;
        }
        Ok(Arc::new(workers))
    }

    /// Tells `listener` what becomes of workers. The first one counts.
    pub(crate) fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// Why no worker can be started any more, if so.
    pub(crate) fn given_up(&self) -> Option<&str> {
        self.spawner.given_up()
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// A module for the worker of its signer, linked there. Blocks.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        signer: &SignerKey,
        code: Arc<Sealed>,
        limits: &CallLimits,
        grants: &GrantSet,
    ) -> Result<RemoteModule, PrepareError> {
        let slot = self.slot(signer);
        let module =
            RemoteModule::new(Arc::clone(self), slot, self.number(), code, limits, grants.granted())?;
        module.prepare()?;
        Ok(module)
    }

    /// Ends workers that have had no call for a while, and those that took more than their calls were given. Blocks.
    pub(crate) fn look_after(&self, now: Instant) {
        for (slot, process) in self.live() {
            if process.is_idle()
                && now.saturating_duration_since(process.used_last()) >= self.limits.idle
                && self.detach(&slot, &process)
            {
                process.end();
                self.tell(WorkerEvent::Ended);
            } else if process.lives()
                && let Err(gone) = process.look()
            {
                // One that ended by itself meanwhile is found by its next call.
                self.lose(&slot, &process, &gone.to_string());
            }
        }
    }

    /// The worker of a signer.
    #[cfg(test)]
    pub(super) fn process_of(&self, signer: &SignerKey) -> Option<Arc<Process>> {
        self.live().into_iter().find(|(slot, _)| slot.signer == *signer).map(|(_, process)| process)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn tell(&self, event: WorkerEvent) {
        if let Some(listener) = self.listener.get() {
            listener(event);
        }
    }

    fn slot(&self, signer: &SignerKey) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(signer).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot {
            signer: signer.clone(),
            share: Arc::new(Share::of_places(self.limits.calls.into())),
            state: Mutex::default(),
            started: Condvar::new(),
        });
        slots.insert(signer.clone(), Arc::downgrade(&slot));
        slot
    }

    /// Slots with a worker. One whose lock is held has one that is being started or ended, and is left alone.
    fn live(&self) -> Vec<(Arc<Slot>, Arc<Process>)> {
        let slots: Vec<Arc<Slot>> = self.slots.lock().values().filter_map(Weak::upgrade).collect();
        let process = |slot: Arc<Slot>| {
            let process = slot.state.try_lock()?.process.clone()?;
            Some((slot, process))
        };
        slots.into_iter().filter_map(process).collect()
    }

    /// The worker of a signer, started if there is none. A start goes on when nobody waits for it any more.
    pub(super) fn enter(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        stopped: Impatience<'_>,
    ) -> Result<Visit, CallError> {
        loop {
            let mut state = slot.state.lock();
            if let Some(process) = state.process.take() {
                if process.lives() {
                    state.process = Some(Arc::clone(&process));
                    return Ok(Visit::to(process));
                }
                self.found_dead(slot, &mut state, process);
            }
            let now = clock::monotonic();
            if let Some(again_at) = state.again_at.filter(|again_at| now < *again_at) {
                let wait = again_at.saturating_duration_since(now).as_millis();
                let detail = format!(
                    "the worker of this signer was lost and is started again in {wait} ms: {}",
                    state.why
                );
                return Err(CallError::WorkerLost { detail });
            }
            if state.starting {
                slot.started.wait_for(&mut state, LOOK);
                drop(state);
            } else {
                let (place, idle) = self.make_room()?;
                state.starting = true;
                drop(state);
                self.start(slot, place, idle).map_err(|error| CallError::Host {
                    detail: format!("no worker can be started: {error}"),
                })?;
            }
            if let Some(stop) = stopped() {
                return Err(stop.into());
            }
        }
    }

    /// Takes leave of a worker that ended while nobody called it. A young one did so because of what it ran, and is not started
    /// again at once.
    fn found_dead(self: &Arc<Self>, slot: &Slot, state: &mut State, process: Arc<Process>) {
        if clock::monotonic().saturating_duration_since(process.born) < PROVEN {
            state.lost("it ended between two calls");
        }
        drop(process.uncounted());
        let (workers, signer) = (Arc::clone(self), slot.signer.clone());
        // How it ended takes the spawner a moment to say.
        let told = std::thread::Builder::new().name("worker-end".into()).spawn(move || {
            let why = format!("it ended between two calls ({})", process.end());
            workers.tell(WorkerEvent::Lost { signer, why });
        });
        if told.is_err() {
            tracing::error!("a worker that ended is not recorded: no thread can be started");
        }
    }

    /// Starts a worker on a thread of its own, after ending the one whose place it takes. Called without the lock of the slot.
    fn start(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        place: Counted,
        idle: Option<Arc<Process>>,
    ) -> std::io::Result<()> {
        let (workers, over) = (Arc::clone(self), Starting(Arc::clone(slot)));
        let started = std::thread::Builder::new().name("worker-start".into()).spawn(move || {
            if let Some(process) = idle {
                process.end();
                workers.tell(WorkerEvent::Ended);
            }
            let started = Process::start(&workers.spawner, workers.number(), workers.shape);
            let mut state = over.0.state.lock();
            let event = match started {
                Ok(process) => {
                    state.process = Some(Arc::new(process.counted(place)));
                    WorkerEvent::Started
                }
                Err(gone) => {
                    let why = gone.to_string();
                    state.lost(&why);
                    WorkerEvent::Lost { signer: over.0.signer.clone(), why }
                }
            };
            drop(state);
            workers.tell(event);
        });
        started.map(drop)
    }

    /// A place for one more worker. Where there are as many as may be, the one that was used longest ago and has no call gives
    /// its place; it is in no slot any more, and is to be ended.
    fn make_room(&self) -> Result<(Counted, Option<Arc<Process>>), CallError> {
        let _alone = self.room.lock();
        loop {
            if self.running() < self.limits.processes {
                return Ok((Counted::in_count(&self.running), None));
            }
            let mut idle: Vec<_> = self.live().into_iter().filter(|(_, process)| process.is_idle()).collect();
            idle.sort_by_cached_key(|(_, process)| process.used_last());
            let Some((_, process)) = idle.into_iter().find(|(slot, process)| self.detach(slot, process))
            else {
                let detail = "every worker process has calls of other signers".into();
                return Err(CallError::Pool { detail });
            };
            // One that is ended by somebody else has given it back.
            if let Some(place) = process.uncounted() {
                return Ok((place, Some(process)));
            }
        }
    }

    /// Takes a worker that has no call out of its slot, so that none begins there.
    fn detach(&self, slot: &Slot, process: &Arc<Process>) -> bool {
        // Whoever wants to call it needs the lock first.
        let Some(mut state) = slot.state.try_lock() else { return false };
        if !process.is_idle() || !state.process.as_ref().is_some_and(|known| Arc::ptr_eq(known, process)) {
            return false;
        }
        state.process = None;
        true
    }

    /// Ends a worker that cannot be kept: what is told of it.
    pub(super) fn lose(&self, slot: &Slot, process: &Arc<Process>, why: &str) -> String {
        let mut state = slot.state.lock();
        let known = state.process.as_ref().is_some_and(|known| Arc::ptr_eq(known, process));
        if known {
            // Before its end, which takes a moment and may look as if it had come by itself.
            state.process = None;
            state.lost(why);
        }
        drop(state);
        let why = format!("{why} ({})", process.end());
        if known {
            self.tell(WorkerEvent::Lost { signer: slot.signer.clone(), why: why.clone() });
        }
        why
    }
}

impl Slot {
    pub(super) fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }

    /// A call ended as it should.
    pub(super) fn served(&self) {
        if let Some(mut state) = self.state.try_lock()
            && state.losses > 0
            && state
                .process
                .as_ref()
                .is_some_and(|process| clock::monotonic().saturating_duration_since(process.born) > PROVEN)
        {
            state.losses = 0;
        }
    }

    /// Forgets a module in the worker.
    pub(super) fn forget(&self, module: u64) {
        // One that is starting has mapped nothing; one that is ended forgets everything.
        let process = self.state.try_lock().and_then(|state| state.process.clone());
        if let Some(process) = process {
            process.unload(module);
        }
    }
}

impl State {
    fn lost(&mut self, why: &str) {
        why.clone_into(&mut self.why);
        let wait =
            FIRST_WAIT.saturating_mul(1u32.checked_shl(self.losses).unwrap_or(u32::MAX)).min(LONGEST_WAIT);
        self.losses = self.losses.saturating_add(1);
        self.again_at = Some(clock::monotonic() + wait);
    }
}

#[cfg(test)]
mod tests;
