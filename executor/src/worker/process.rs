//! One worker process, as the executor sees it: sockets, what is loaded there, and what it may use.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use executor_engine::frames::{OVERHEAD, Order, Report, StopOrder};
use executor_engine::job::ModuleKind;
use parking_lot::{Condvar, Mutex};

use super::account::{Ledger, Meter};
use super::birth::{Gone, Lane, START, Shape, Sockets, begin, describe, metered};
use super::channel::{Channel, Stops};
use super::spawner::{Life, Spawner};
use crate::artifact_map::Sealed;
use crate::clock;
use crate::runtime::{CallLimits, PrepareError, Stop};

/// How long it may take to map a module.
const LOAD: Duration = Duration::from_secs(10);

/// Between two looks of a call that waits for its worker at what may end it meanwhile: half a tick.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// Asked again and again by whoever waits: why it should wait no longer, if so.
pub(super) type Impatience<'a> = &'a dyn Fn() -> Option<Stop>;

/// Why a module is not mapped, or not known to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Hindrance {
    /// It cannot be linked.
    #[error(transparent)]
    Refused(PrepareError),
    /// Its worker cannot be kept.
    #[error(transparent)]
    Gone(Gone),
    /// Whoever waited for it stopped waiting.
    #[error(transparent)]
    Stopped(Stop),
}

/// What the process was given for a call, and what it had used when the call began.
pub(super) struct Account {
    number: u64,
    used: Duration,
}

/// A worker is counted as long as it may run.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn in_count(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Modules in the process.
#[derive(Default)]
struct Modules {
    /// Bytes of their machine code, by number.
    mapped: HashMap<u64, u64>,
    /// Whether one is being mapped. One at a time: the control socket carries one conversation.
    busy: bool,
    /// What it need not keep, and was not told of yet.
    unneeded: Vec<u64>,
}

/// A module to be mapped.
pub(super) struct Load {
    pub(super) module: u64,
    /// The body of the order.
    pub(super) order: Vec<u8>,
    pub(super) code: Arc<Sealed>,
}

impl Load {
    /// A core module that nobody calls, without grants.
    pub(super) fn on_trial(code: Arc<Sealed>) -> Self {
        let (module, length, kind) = (0, code.length(), ModuleKind::Core);
        let limits = super::limits::written(&CallLimits::default());
        let order = Order::Load { module, length, kind, limits, grants: Vec::new() };
        Self { module, order: order.encode(), code }
    }
}

/// A worker that serves.
pub(super) struct Process {
    number: u64,
    spawner: Arc<Spawner>,
    control: Mutex<Channel>,
    stops: Stops,
    lanes: Mutex<Vec<Lane>>,
    /// Calls and loads under way, and those about to be.
    visits: AtomicUsize,
    counted: Mutex<Option<Counted>>,
    modules: Mutex<Modules>,
    /// Notified when a module was mapped, or was not.
    mapped: Condvar,
    next_call: AtomicU64,
    meter: Meter,
    ledger: Mutex<Ledger>,
    /// Bytes of memory that it may take, besides the code of its modules.
    memory: u64,
    ended: AtomicBool,
    /// Whether its answers are out of step with what it was asked: it is to be ended, and asked nothing more.
    unusable: AtomicBool,
    pub(super) born: Instant,
    used_last: Mutex<Instant>,
}

impl Process {
    /// Starts a worker and waits until it serves.
    pub(super) fn start(spawner: &Arc<Spawner>, number: u64, shape: Shape) -> Result<Self, Gone> {
        let (mut control, stops, lanes) = begin(spawner, number, shape, None)?;
        let lost = |why: &dyn std::fmt::Display| Gone::Lost(why.to_string());
        let ready = match control.receive(OVERHEAD, START) {
            Ok(Some(body)) => match Report::decode(&body) {
                Ok(Report::Ready) => metered(control.sender()),
                Ok(Report::Refused { mechanism, detail }) => {
                    Err(Gone::NotConfined { mechanism, detail: super::verdict::cut(detail) })
                }
                Ok(_) => Err(lost(&"it did not say that it is ready")),
                Err(error) => Err(lost(&error)),
            },
            Ok(None) => Err(lost(&"it did not begin in time")),
            Err(error) => Err(lost(&error)),
        };
        match ready {
            Ok(meter) => Ok(Self::over(spawner, number, (control, stops, lanes), meter, shape.memory())),
            Err(gone) => {
                let life = if stops.is_closed() { Life::Over } else { Life::Running };
                let ended = describe(spawner.end(number, life));
                Err(match gone {
                    Gone::Lost(why) => Gone::Lost(format!("{why} ({ended})")),
                    known => known,
                })
            }
        }
    }

    /// A worker at the other end of these sockets, which may take so much memory.
    pub(super) fn over(
        spawner: &Arc<Spawner>,
        number: u64,
        (control, stops, lanes): Sockets,
        meter: Meter,
        memory: u64,
    ) -> Self {
        let now = clock::monotonic();
        let used = meter.cpu().unwrap_or_default();
        Self {
            number,
            spawner: Arc::clone(spawner),
            control: Mutex::new(control),
            stops,
            lanes: Mutex::new(lanes),
            visits: AtomicUsize::new(0),
            counted: Mutex::default(),
            modules: Mutex::default(),
            mapped: Condvar::new(),
            next_call: AtomicU64::new(1),
            meter,
            ledger: Mutex::new(Ledger::new(now, used)),
            memory,
            ended: AtomicBool::new(false),
            unusable: AtomicBool::new(false),
            born: now,
            used_last: Mutex::new(now),
        }
    }

    /// Whether it serves, as far as is known. It alone has the other end of the socket of stops.
    pub(super) fn lives(&self) -> bool {
        let given_up = self.ended.load(Ordering::Acquire) || self.unusable.load(Ordering::Acquire);
        !given_up && !self.stops.is_closed()
    }

    /// Whether its process ended and its holder knows.
    #[cfg(test)]
    pub(super) fn is_reaped(&self) -> bool {
        self.meter.cpu().is_err()
    }

    /// A module that is mapped.
    #[cfg(test)]
    pub(super) fn mapped_one(&self) -> Option<u64> {
        self.modules.lock().mapped.keys().next().copied()
    }

    /// Tells it what no executor says, of which it ends.
    #[cfg(test)]
    pub(super) fn confuse(&self) {
        let _ = self.control.lock().send(b"?", &[], LOOK, &mut || true);
    }

    /// Counts it until it ends.
    pub(super) fn counted(self, counted: Counted) -> Self {
        *self.counted.lock() = Some(counted);
        self
    }

    /// Counts it no more: its place, if it had one.
    pub(super) fn uncounted(&self) -> Option<Counted> {
        self.counted.lock().take()
    }

    /// Whether nobody uses it.
    pub(super) fn is_idle(&self) -> bool {
        self.visits.load(Ordering::Acquire) == 0
    }

    /// Whether a call is being carried.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        self.under_way() > 0
    }

    /// When a call last began or ended.
    pub(super) fn used_last(&self) -> Instant {
        *self.used_last.lock()
    }

    /// Ends it: how it ended. Calls under way are lost.
    pub(super) fn end(&self) -> String {
        if self.ended.swap(true, Ordering::AcqRel) {
            return "it was ended".into();
        }
        let life = if self.stops.is_closed() { Life::Over } else { Life::Running };
        let ended = describe(self.spawner.end(self.number, life));
        // Not before: until then it may run.
        drop(self.uncounted());
        ended
    }

    /// Maps a module there, unless it is. The worker gets its time for that whoever waits; who waits hears what stops him.
    pub(super) fn load(self: &Arc<Self>, load: Load, stopped: Impatience<'_>) -> Result<(), Hindrance> {
        let lost = |why: &str| Hindrance::Gone(Gone::Lost(why.to_owned()));
        loop {
            let mut modules = self.modules.lock();
            if modules.mapped.contains_key(&load.module) {
                return Ok(());
            }
            if self.unusable.load(Ordering::Acquire) {
                return Err(lost("it did not say what became of the module mapped before"));
            }
            if !modules.busy {
                modules.busy = true;
                break;
            }
            self.mapped.wait_for(&mut modules, LOOK);
            drop(modules);
            if let Some(stop) = stopped() {
                return Err(Hindrance::Stopped(stop));
            }
            if !self.lives() {
                return Err(lost("it ended while a module waited to be mapped"));
            }
        }
        let (tell, told) = sync_channel(1);
        let process = Visit::to(Arc::clone(self));
        let mapping = std::thread::Builder::new().name("worker-load".into()).spawn(move || {
            let mapped = process.map(&load);
            let gone = matches!(&mapped, Err(Hindrance::Gone(_)));
            // Whoever hears of it finds a worker that nobody visits.
            let process = process.leave();
            // Whoever asked ends a worker that cannot be kept, and says so; unless he is gone himself.
            if tell.send(mapped).is_err() && gone {
                process.end();
            }
        });
        if let Err(error) = mapping {
            self.modules.lock().busy = false;
            return Err(lost(&format!("a module is not mapped: {error}")));
        }
        loop {
            match told.recv_timeout(LOOK) {
                Ok(mapped) => return mapped,
                Err(RecvTimeoutError::Disconnected) => return Err(lost("a module was not mapped")),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(stop) = stopped() {
                        return Err(Hindrance::Stopped(stop));
                    }
                }
            }
        }
    }

    /// Maps a module, by whoever made the modules busy.
    fn map(&self, load: &Load) -> Result<(), Hindrance> {
        let account = self.open_account(LOAD);
        let mapped = self.converse(load);
        self.close_account(&account);
        let mut modules = self.modules.lock();
        // Before anybody asks it again: its next answer may be the one to this.
        if matches!(mapped, Err(Hindrance::Gone(_))) {
            self.unusable.store(true, Ordering::Release);
        }
        modules.busy = false;
        if mapped.is_ok() {
            modules.mapped.insert(load.module, load.code.length());
        }
        self.tell_unneeded(&mut modules);
        drop(modules);
        self.mapped.notify_all();
        mapped
    }

    fn converse(&self, load: &Load) -> Result<(), Hindrance> {
        let lost = |why: &dyn std::fmt::Display| {
            Hindrance::Gone(Gone::Lost(format!("while a module was mapped: {why}")))
        };
        let mut control = self.control.lock();
        let code = [load.code.file().as_fd()];
        control.send(&load.order, &code, LOAD, &mut || false).map_err(|error| lost(&error))?;
        let body = control.receive(OVERHEAD, LOAD).map_err(|error| lost(&error))?;
        let body = body.ok_or_else(|| lost(&"no answer"))?;
        match Report::decode(&body) {
            Ok(Report::Loaded { module }) if module == load.module => Ok(()),
            Ok(Report::NotLoaded { module, reason, name, detail }) if module == load.module => {
                Err(Hindrance::Refused(super::verdict::read_preparation(reason, name, detail)))
            }
            _ => Err(lost(&"it said what no worker says")),
        }
    }

    /// Forgets a module. Waits for no answer: while a module is being mapped, the worker is told afterwards.
    pub(super) fn unload(&self, module: u64) {
        let mut modules = self.modules.lock();
        modules.unneeded.push(module);
        if !modules.busy {
            self.tell_unneeded(&mut modules);
        }
    }

    fn tell_unneeded(&self, modules: &mut Modules) {
        let Some(control) = self.control.try_lock() else { return };
        for module in std::mem::take(&mut modules.unneeded) {
            if modules.mapped.remove(&module).is_some() {
                let order = Order::Unload { module }.encode();
                let _ = control.send(&order, &[], Duration::ZERO, &mut || false);
            }
        }
    }

    /// A free lane and the number of the next call.
    pub(super) fn take_lane(&self) -> Option<(Lane, u64)> {
        let lane = self.lanes.lock().pop()?;
        Some((lane, self.next_call.fetch_add(1, Ordering::Relaxed)))
    }

    /// A lane whose call is over.
    pub(super) fn give_back(&self, lane: Lane) {
        self.lanes.lock().push(lane);
    }

    /// Tells it to end one call.
    pub(super) fn stop(&self, stop: StopOrder) -> std::io::Result<()> {
        self.stops.send(stop)
    }

    /// Something with this budget begins.
    pub(super) fn open_account(&self, budget: Duration) -> Account {
        // Read under the lock, so that nobody charges for less than others did before. What cannot be read takes nothing away, and
        // is found by the next look.
        let mut ledger = self.ledger.lock();
        let used = self.meter.cpu().unwrap_or(Duration::MAX);
        Account { number: ledger.open(clock::monotonic(), used, budget), used }
    }

    /// It is over.
    pub(super) fn close_account(&self, account: &Account) {
        self.ledger.lock().close(account.number, clock::monotonic());
    }

    /// Processor time that the process has used, by the kernel's account, if there is one.
    pub(super) fn used(&self) -> Option<Duration> {
        self.meter.cpu().ok()
    }

    /// The same since something began.
    pub(super) fn used_since(&self, account: &Account) -> Option<Duration> {
        self.used().map(|used| used.saturating_sub(account.used))
    }

    /// How much it was given processor time for is under way: calls, and a module that is being mapped.
    pub(super) fn under_way(&self) -> u32 {
        self.ledger.lock().under_way()
    }

    /// Looks whether the process took more than it was given.
    pub(super) fn look(&self) -> Result<(), Gone> {
        let unread =
            |error: std::io::Error| Gone::Lost(format!("the kernel's account of it cannot be read: {error}"));
        let memory = self.meter.memory().map_err(unread)?;
        let code = self.modules.lock().mapped.values().fold(0u64, |sum, code| sum.saturating_add(*code));
        let most = self.memory.saturating_add(code);
        if memory > most {
            let why = format!("it took {} MiB of memory, and may take {}", memory >> 20, most >> 20);
            return Err(Gone::Lost(why));
        }
        let mut ledger = self.ledger.lock();
        let used = self.meter.cpu().map_err(unread)?;
        if ledger.covers(clock::monotonic(), used) {
            Ok(())
        } else {
            Err(Gone::Lost(format!("it used {} ms of processor time, more than its calls", used.as_millis())))
        }
    }
}

impl Drop for Process {
    /// Not here: whoever drops the last module of a signer may be serving others.
    fn drop(&mut self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let (spawner, number) = (Arc::clone(&self.spawner), self.number);
        let counted = self.uncounted();
        let ending = std::thread::Builder::new().name("worker-end".into()).spawn(move || {
            let _ = spawner.end(number, Life::Running);
            drop(counted);
        });
        if ending.is_err() {
            let _ = self.spawner.end(self.number, Life::Running);
        }
    }
}

/// Keeps a worker from being ended for want of calls.
pub(super) struct Visit(Arc<Process>);

impl Visit {
    pub(super) fn to(process: Arc<Process>) -> Self {
        process.visits.fetch_add(1, Ordering::AcqRel);
        Self(process)
    }

    /// Ends the visit.
    fn leave(self) -> Arc<Process> {
        Arc::clone(&self.0)
    }
}

impl std::ops::Deref for Visit {
    type Target = Arc<Process>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        *self.0.used_last.lock() = clock::monotonic();
        self.0.visits.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
pub(super) mod tests;
