//! One worker process, as the executor sees it: sockets, what is loaded there, and what it may use.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use executor_engine::Profile;
use executor_engine::frames::{Act, Mechanism, OVERHEAD, Order, Report, StopOrder};
use parking_lot::Mutex;

use super::channel::{Beside, Channel, Stops};
use super::holder::exit;
use super::spawner::Spawner;
use crate::clock;

/// How long a worker may take to confine itself and to make its pool.
const START: Duration = Duration::from_secs(20);

/// How long it may take to map a module.
const LOAD: Duration = Duration::from_secs(10);

/// What a process may use beyond the budgets of its calls: mapping, the conversation, the grain of the kernel's account.
const CPU_SLACK: Duration = Duration::from_millis(250);

/// How a worker is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) profile: Profile,
    /// Calls at the same time.
    pub(super) lanes: u16,
}

/// Why there is no worker, or none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Gone {
    /// The host cannot confine one.
    #[error("{}: {detail}; {}", .mechanism.as_str(), .mechanism.remedy())]
    NotConfined { mechanism: Mechanism, detail: String },
    /// It ended, or was ended.
    #[error("{0}")]
    Lost(String),
}

/// One end of a lane, while no call is on it.
pub(super) struct Lane {
    pub(super) number: u16,
    pub(super) channel: Channel,
}

/// Budgets that were given to calls.
#[derive(Debug, Default)]
struct Budgets {
    /// Of the calls under way.
    running: Duration,
    /// Of every call so far.
    given: Duration,
}

/// What the process used when a call began, and what it might use from then on without that call being at fault.
pub(super) struct Account {
    used: Duration,
    /// Budgets of the calls under way by then, its own among them.
    running: Duration,
    given: Duration,
    own: Duration,
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
    /// Where it is counted while it runs.
    count: OnceLock<Arc<AtomicUsize>>,
    loaded: Mutex<HashSet<u64>>,
    next_call: AtomicU64,
    /// The kernel's account of it.
    stat: Option<File>,
    budgets: Mutex<Budgets>,
    ended: AtomicBool,
    pub(super) born: Instant,
    used_last: Mutex<Instant>,
}

impl Process {
    /// Starts a worker and waits until it serves.
    pub(super) fn start(spawner: &Arc<Spawner>, number: u64, shape: Shape) -> Result<Self, Gone> {
        let begun = begin(spawner, number, shape, None)?;
        let (mut control, stops, lanes) = begun;
        let lost = |why: &dyn std::fmt::Display| Gone::Lost(why.to_string());
        let ready = match control.receive(OVERHEAD, START) {
            Ok(Some(body)) => match Report::decode(&body) {
                Ok(Report::Ready) => Ok(()),
                Ok(Report::Refused { mechanism, detail }) => {
                    Err(Gone::NotConfined { mechanism, detail: super::verdict::cut(detail) })
                }
                Ok(_) => Err(lost(&"it did not say that it is ready")),
                Err(error) => Err(lost(&error)),
            },
            Ok(None) => Err(lost(&"it did not begin in time")),
            Err(error) => Err(lost(&error)),
        };
        if let Err(gone) = ready {
            let ended = describe(spawner.end(number));
            return Err(match gone {
                Gone::Lost(why) => Gone::Lost(format!("{why} ({ended})")),
                known => known,
            });
        }
        Ok(Self::over(spawner, number, (control, stops, lanes)))
    }

    /// A worker at the other end of these sockets.
    pub(super) fn over(spawner: &Arc<Spawner>, number: u64, sockets: Sockets) -> Self {
        let (control, stops, lanes) = sockets;
        // The kernel says who sent the first report, not the worker.
        let stat = control.sender().and_then(|pid| File::open(format!("/proc/{pid}/stat")).ok());
        let now = clock::monotonic();
        Self {
            number,
            spawner: Arc::clone(spawner),
            control: Mutex::new(control),
            stops,
            lanes: Mutex::new(lanes),
            visits: AtomicUsize::new(0),
            count: OnceLock::new(),
            loaded: Mutex::default(),
            next_call: AtomicU64::new(1),
            stat,
            budgets: Mutex::default(),
            ended: AtomicBool::new(false),
            born: now,
            used_last: Mutex::new(now),
        }
    }

    /// Starts a worker that tries something its sandbox must end it for.
    pub(super) fn probe(spawner: &Arc<Spawner>, number: u64, shape: Shape, act: Act) -> Result<(), Gone> {
        let (mut control, _stops, _lanes) = begin(spawner, number, Shape { lanes: 1, ..shape }, Some(act))?;
        let answer = control.receive(OVERHEAD, START);
        // The socket closes when the last of its processes is gone, so this status is the worker's own.
        let status = spawner.end(number);
        let refused = match &answer {
            Ok(Some(body)) => Report::decode(body).ok(),
            Ok(None) | Err(_) => None,
        };
        if let Some(Report::Refused { mechanism, detail }) = refused {
            return Err(Gone::NotConfined { mechanism, detail: super::verdict::cut(detail) });
        }
        match &status {
            Ok(status) if signal(*status) == Some(libc::SIGSYS) => Ok(()),
            _ => Err(Gone::NotConfined {
                mechanism: Mechanism::SelfTest,
                detail: format!("`{}` was not stopped ({})", act.as_str(), describe(status)),
            }),
        }
    }

    /// Whether it serves, as far as is known.
    pub(super) fn lives(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
            && self.control.try_lock().is_none_or(|control| !control.is_closed())
    }

    /// Counts it until it ends.
    pub(super) fn counted(self, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        let _ = self.count.set(Arc::clone(count));
        self
    }

    /// Whether nobody uses it.
    pub(super) fn is_idle(&self) -> bool {
        self.visits.load(Ordering::Acquire) == 0
    }

    /// Whether a call is being carried.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        self.budgets.lock().running > Duration::ZERO
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
        if let Some(count) = self.count.get() {
            count.fetch_sub(1, Ordering::AcqRel);
        }
        describe(self.spawner.end(self.number))
    }

    /// Maps a module there, unless it is.
    pub(super) fn load(
        &self,
        module: u64,
        order: &Order<'_>,
        code: &File,
    ) -> Result<Result<(), crate::runtime::PrepareError>, Gone> {
        // Held while it is asked, so that each module is mapped once.
        let mut loaded = self.loaded.lock();
        if loaded.contains(&module) {
            return Ok(Ok(()));
        }
        let lost = |why: &dyn std::fmt::Display| Gone::Lost(format!("while a module was mapped: {why}"));
        let mut control = self.control.lock();
        control.send(&order.encode(), &[code.as_fd()], LOAD, &mut || false).map_err(|error| lost(&error))?;
        let body = control.receive(OVERHEAD, LOAD).map_err(|error| lost(&error))?;
        let body = body.ok_or_else(|| lost(&"no answer"))?;
        match Report::decode(&body) {
            Ok(Report::Loaded { module: said }) if said == module => {
                loaded.insert(module);
                Ok(Ok(()))
            }
            Ok(Report::NotLoaded { module: said, reason, name, detail }) if said == module => {
                Ok(Err(super::verdict::read_preparation(reason, name, detail)))
            }
            _ => Err(lost(&"it said what no worker says")),
        }
    }

    /// Forgets a module.
    pub(super) fn unload(&self, module: u64) {
        let (Some(mut loaded), Some(control)) = (self.loaded.try_lock(), self.control.try_lock()) else {
            return;
        };
        if loaded.remove(&module) {
            let order = Order::Unload { module }.encode();
            let _ = control.send(&order, &[], Duration::from_millis(100), &mut || false);
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

    /// A call with this budget begins.
    pub(super) fn open_account(&self, own: Duration) -> Account {
        let used = self.cpu();
        let mut budgets = self.budgets.lock();
        let given = budgets.given;
        budgets.running += own;
        budgets.given += own;
        Account { used, running: budgets.running, given, own }
    }

    /// A call is over.
    pub(super) fn close_account(&self, account: &Account) {
        let mut budgets = self.budgets.lock();
        budgets.running = budgets.running.saturating_sub(account.own);
    }

    /// Whether the process used more since the call began than every call that ran beside it was given.
    pub(super) fn overran(&self, account: &Account) -> bool {
        let given = self.budgets.lock().given;
        let later = given.saturating_sub(account.given).saturating_sub(account.own);
        let used = self.cpu().saturating_sub(account.used);
        used > account.running + later + CPU_SLACK
    }

    /// Processor time of the process, by the kernel's account.
    fn cpu(&self) -> Duration {
        let mut text = [0u8; 1024];
        let read = self.stat.as_ref().and_then(|stat| stat.read_at(&mut text, 0).ok()).unwrap_or_default();
        text.get(..read).and_then(cpu_of).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps a worker from being ended for want of calls.
pub(super) struct Visit(Arc<Process>);

impl Visit {
    pub(super) fn to(process: Arc<Process>) -> Self {
        process.visits.fetch_add(1, Ordering::AcqRel);
        Self(process)
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

/// Control, stops and lanes.
pub(super) type Sockets = (Channel, Stops, Vec<Lane>);

/// Starts a process and sends its first order.
fn begin(spawner: &Spawner, number: u64, shape: Shape, probe: Option<Act>) -> Result<Sockets, Gone> {
    let lost = |error: std::io::Error| Gone::Lost(format!("a worker cannot be started: {error}"));
    let (near, far) = UnixStream::pair().map_err(lost)?;
    let control = Channel::new(near, Beside::Sender).map_err(lost)?;
    spawner.spawn(number, far).map_err(lost)?;
    let (stops, far_stops) = UnixStream::pair().map_err(lost)?;
    let mut theirs = vec![far_stops];
    let mut lanes = Vec::new();
    for number in 0..shape.lanes {
        let (near, far) = UnixStream::pair().map_err(lost)?;
        lanes.push(Lane { number, channel: Channel::new(near, Beside::Nothing).map_err(lost)? });
        theirs.push(far);
    }
    let descriptors: Vec<_> = theirs.iter().map(|socket| socket.as_fd()).collect();
    let order =
        Order::Begin { profile: shape.profile, slots: u32::from(shape.lanes), lanes: shape.lanes, probe };
    // One that has refused already is heard all the same.
    let _ = control.send(&order.encode(), &descriptors, START, &mut || false);
    Ok((control, Stops::new(stops).map_err(lost)?, lanes))
}

/// The signal that ended a worker, which its holder tells by its exit code.
fn signal(status: ExitStatus) -> Option<i32> {
    status.code().map(|code| code - exit::SIGNAL).filter(|signal| *signal > 0).or(status.signal())
}

fn describe(ended: std::io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => match (signal(status), status.code()) {
            (Some(signal), _) => format!("ended by signal {signal}"),
            (None, Some(code)) => format!("ended with code {code}"),
            (None, None) => status.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

/// User and system time of a line of `/proc/PID/stat`. The name in it may hold anything, so fields are counted from its end.
fn cpu_of(line: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(line).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks.saturating_mul(1000) / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_is_read_behind_any_name() {
        let per_second = rustix::param::clock_ticks_per_second();
        let line = format!(
            "7 (a) 1 (b) S 1 1 1 0 -1 4194560 1 0 0 0 {} {} 0 0 20 0 1 0",
            2 * per_second,
            per_second / 2
        );
        assert_eq!(cpu_of(line.as_bytes()), Some(Duration::from_millis(2500)));
        assert_eq!(cpu_of(b"7 (a) S 1"), None);
        assert_eq!(cpu_of(b""), None);
        let own = std::fs::read("/proc/self/stat").unwrap();
        assert!(cpu_of(&own).is_some());
    }

    #[test]
    fn a_holder_tells_the_signal_of_its_worker() {
        let of = |raw| signal(ExitStatus::from_raw(raw));
        assert_eq!(of((128 + 31) << 8), Some(31));
        assert_eq!((of(9), of(0), of(70 << 8)), (Some(9), None, None));
    }
}
