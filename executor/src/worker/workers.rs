//! The workers of this executor: one for each signer whose modules are called, as many as the operator allows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use executor_engine::Profile;
use executor_engine::frames::Act;
use parking_lot::Mutex;

use super::process::{Process, Shape, Visit};
use super::remote::RemoteModule;
use super::spawner::Spawner;
use crate::admission::GrantSet;
use crate::artifact_map::Sealed;
use crate::clock;
use crate::queue::Share;
use crate::runtime::{CallError, CallLimits, PrepareError};

/// The wait after a first loss; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A worker that lived this long and served is no sign of a guest that ends its worker.
const PROVEN: Duration = Duration::from_secs(30);
/// One that ends by itself before this does so because of what it ran.
const YOUNG: Duration = Duration::from_secs(1);

/// How many workers there may be, and of what size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Processes at the same time.
    pub processes: usize,
    /// Calls at the same time in each.
    pub calls: u16,
    /// Time after which one that has no call is ended.
    pub idle: Duration,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { processes: 8, calls: 16, idle: Duration::from_secs(60) }
    }
}

/// Something that became of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerEvent {
    /// It had no calls for a while, or others needed its place.
    Ended,
    /// It ended, or had to be ended, while it should have served.
    Lost {
        signer: String,
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
    slots: Mutex<HashMap<String, Weak<Slot>>>,
    next: AtomicU64,
    /// Workers that run.
    running: Arc<AtomicUsize>,
    /// Held while a worker starts, so that there are never more than allowed.
    starting: Mutex<()>,
    listener: OnceLock<Listener>,
}

/// The place of one signer.
pub(super) struct Slot {
    signer: String,
    share: Arc<Share>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Arc<Process>>,
    losses: u32,
    /// Not before this.
    again_at: Option<Instant>,
}

impl Workers {
    /// Tries whether this host can confine workers: what must end one is tried in processes of their own, and one is started
    /// whole. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do about it.
    pub fn open(spawner: Spawner, profile: Profile, limits: WorkerLimits) -> Result<Arc<Self>, String> {
        let workers = Self {
            spawner: Arc::new(spawner),
            limits,
            shape: Shape { profile, lanes: limits.calls },
            slots: Mutex::default(),
            next: AtomicU64::new(1),
            running: Arc::default(),
            starting: Mutex::default(),
            listener: OnceLock::new(),
        };
        // First, since it says what is missing; what comes then says that nothing leaks.
        let whole = Process::start(&workers.spawner, workers.number(), workers.shape);
        drop(whole.map_err(|gone| gone.to_string())?);
        for act in Act::ALL {
            Process::probe(&workers.spawner, workers.number(), workers.shape, act)
                .map_err(|gone| gone.to_string())?;
        }
        Ok(Arc::new(workers))
    }

    /// Tells `listener` what becomes of workers. The first one counts.
    pub(crate) fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// A module for the worker of its signer, linked there. Blocks.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        signer: &str,
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

    /// Ends workers that have had no call for a while.
    pub(crate) fn end_idle(&self, now: Instant) {
        for (slot, process) in self.live() {
            if process.is_idle() && now.saturating_duration_since(process.used_last()) >= self.limits.idle {
                let _ = self.retire(&slot, &process);
            }
        }
    }

    /// The worker of a signer.
    #[cfg(test)]
    pub(super) fn process_of(&self, signer: &str) -> Option<Arc<Process>> {
        self.live().into_iter().find(|(slot, _)| slot.signer == signer).map(|(_, process)| process)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn tell(&self, event: WorkerEvent) {
        if let Some(listener) = self.listener.get() {
            listener(event);
        }
    }

    fn slot(&self, signer: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(signer).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot {
            signer: signer.to_owned(),
            share: Arc::new(Share::of_places(self.limits.calls.into())),
            state: Mutex::default(),
        });
        slots.insert(signer.to_owned(), Arc::downgrade(&slot));
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

    /// The worker of a signer, started if there is none.
    pub(super) fn enter(&self, slot: &Arc<Slot>) -> Result<Visit, CallError> {
        let mut state = slot.state.lock();
        if let Some(process) = state.process.take() {
            if process.lives() {
                state.process = Some(Arc::clone(&process));
                return Ok(Visit::to(process));
            }
            // It ended while nobody called it. One that does so as soon as it was called is not started at once again.
            if clock::monotonic().saturating_duration_since(process.born) < YOUNG {
                state.lost();
            }
            let why = format!("it ended between two calls ({})", process.end());
            self.tell(WorkerEvent::Lost { signer: slot.signer.clone(), why });
        }
        let now = clock::monotonic();
        if let Some(again_at) = state.again_at.filter(|again_at| now < *again_at) {
            let wait = again_at.saturating_duration_since(now).as_millis();
            let detail = format!("the worker of this signer was lost; it is started again in {wait} ms");
            return Err(CallError::WorkerLost { detail });
        }
        let _alone = self.starting.lock();
        self.make_room()?;
        match Process::start(&self.spawner, self.number(), self.shape) {
            Ok(process) => {
                let process = Arc::new(process.counted(&self.running));
                state.process = Some(Arc::clone(&process));
                self.tell(WorkerEvent::Started);
                Ok(Visit::to(process))
            }
            Err(gone) => {
                state.lost();
                self.tell(WorkerEvent::Lost { signer: slot.signer.clone(), why: gone.to_string() });
                Err(gone.into())
            }
        }
    }

    /// Ends workers that were used longest ago and have no call, while there are as many as may be.
    fn make_room(&self) -> Result<(), CallError> {
        while self.running() >= self.limits.processes {
            let idle = self.live().into_iter().filter(|(_, process)| process.is_idle());
            let oldest = idle.min_by_key(|(_, process)| process.used_last());
            if !oldest.is_some_and(|(slot, process)| self.retire(&slot, &process)) {
                let detail = "every worker process has calls of other signers".into();
                return Err(CallError::Pool { detail });
            }
        }
        Ok(())
    }

    fn retire(&self, slot: &Slot, process: &Arc<Process>) -> bool {
        // Whoever wants to call it needs the lock first.
        let Some(mut state) = slot.state.try_lock() else { return false };
        if !process.is_idle() || !state.process.as_ref().is_some_and(|known| Arc::ptr_eq(known, process)) {
            return false;
        }
        state.process = None;
        process.end();
        self.tell(WorkerEvent::Ended);
        true
    }

    /// Notes a worker that had to be ended.
    pub(super) fn lost(&self, slot: &Slot, process: &Arc<Process>, why: &str) {
        let mut state = slot.state.lock();
        if state.process.as_ref().is_some_and(|known| Arc::ptr_eq(known, process)) {
            state.process = None;
            state.lost();
            drop(state);
            self.tell(WorkerEvent::Lost { signer: slot.signer.clone(), why: why.to_owned() });
        }
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
        // One that is busy starting or loading keeps the module until its own end.
        let process = self.state.try_lock().and_then(|state| state.process.clone());
        if let Some(process) = process {
            process.unload(module);
        }
    }
}

impl State {
    fn lost(&mut self) {
        let wait =
            FIRST_WAIT.saturating_mul(1u32.checked_shl(self.losses).unwrap_or(u32::MAX)).min(LONGEST_WAIT);
        self.losses = self.losses.saturating_add(1);
        self.again_at = Some(clock::monotonic() + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_wait_longer_each_time_and_not_without_end() {
        let mut state = State::default();
        let mut waits = Vec::new();
        for _ in 0..40 {
            let now = clock::monotonic();
            state.lost();
            waits.push(state.again_at.unwrap().saturating_duration_since(now));
        }
        assert!(waits.windows(2).all(|pair| pair[1] + Duration::from_millis(50) >= pair[0]));
        assert!(waits[0] < Duration::from_millis(200) && waits[3] > Duration::from_millis(700));
        assert!(waits[39] <= LONGEST_WAIT + Duration::from_secs(1));
    }
}
