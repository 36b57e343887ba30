//! A call whose guest runs in a worker.
//!
//! The state of the call is the executor's own, and so is every decision: limits, streams, digests, grants, log lines, times.
//! What the worker says is a question, or an end that is cut to those limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use executor_engine::frames::{
    Ask, CallOrder, End, Ended, FromWorker, GuestLimits, OVERHEAD, Order, StopOrder, ToWorker, Trial,
    put_pairs,
};
use executor_engine::job::ModuleKind;
use executor_engine::limits::MAX_TRANSFER_BYTES;
use trust_store::capability::Capability;

use super::channel::ChannelError;
use super::process::{Account, Gone, Lane, Process};
use super::workers::{Slot, Workers};
use super::{limits, verdict};
use crate::abi::ErrorCode;
use crate::abi::sinks::Level;
use crate::artifact_map::Sealed;
use crate::clock;
use crate::queue::Share;
use crate::runtime::{CallError, CallLimits, ClaimedUsage, GuestState, KillCause, PrepareError, Stop};
use crate::streams::StreamIndex;

/// Between two looks at the kill flag and the clock, while the worker says nothing: half a tick.
const LOOK: Duration = Duration::from_millis(5);

/// Between two looks at the kernel's account of the process.
const LOOK_AT_CPU: Duration = Duration::from_millis(50);

/// How long a worker may take to end a call that it was told to end: two ticks, and a busy machine. Then it is killed.
const OBEY: Duration = Duration::from_millis(500);

/// A module that runs in the worker of its signer.
pub(crate) struct RemoteModule {
    workers: Arc<Workers>,
    slot: Arc<Slot>,
    module: u64,
    code: Arc<Sealed>,
    kind: ModuleKind,
    limits: GuestLimits,
    grants: Vec<String>,
}

/// How a conversation about a call ended.
enum Carried {
    /// The worker is as good as before.
    Over(Result<i32, CallError>),
    /// It is not, and what the call ends with.
    Lost(String, Option<Stop>),
}

impl RemoteModule {
    pub(super) fn new(
        workers: Arc<Workers>,
        slot: Arc<Slot>,
        module: u64,
        code: Arc<Sealed>,
        limits: &CallLimits,
        granted: &[Capability],
    ) -> Result<Self, PrepareError> {
        let component = code.holds_component().map_err(|error| PrepareError::Worker {
            code: "engine_mismatch",
            detail: format!("{error:#}"),
        })?;
        let kind = if component { ModuleKind::Component } else { ModuleKind::Core };
        let grants = granted.iter().map(ToString::to_string).collect();
        Ok(Self { workers, slot, module, code, kind, limits: limits::written(limits), grants })
    }

    /// Places for calls, which all modules of a signer share.
    pub(crate) fn share(&self) -> Arc<Share> {
        self.slot.share()
    }

    /// Links it in its worker, once; says why it cannot be linked.
    pub(super) fn prepare(&self) -> Result<(), PrepareError> {
        let process = self
            .workers
            .enter(&self.slot)
            .map_err(|error| PrepareError::Worker { code: error.code(), detail: detail_of(&error) })?;
        self.load(&process).map_err(|why| PrepareError::Worker { code: "worker_lost", detail: why })?
    }

    fn load(&self, process: &Arc<Process>) -> Result<Result<(), PrepareError>, String> {
        let order = Order::Load {
            module: self.module,
            length: self.code.length(),
            kind: self.kind,
            limits: self.limits,
            grants: self.grants.iter().map(String::as_str).collect(),
        };
        process
            .load(self.module, &order, self.code.file())
            .map_err(|gone| self.lost(process, &gone.to_string()))
    }

    /// A worker that could not be kept: what is told of it.
    fn lost(&self, process: &Arc<Process>, why: &str) -> String {
        let why = format!("{why} ({})", process.end());
        self.workers.lost(&self.slot, process, &why);
        why
    }

    /// Runs the guest of `state` to its end: its exit code. Everything else is in the state.
    pub(crate) fn run(&self, state: &mut GuestState, trial: Trial) -> Result<i32, CallError> {
        let lost = |detail| CallError::WorkerLost { detail };
        let process = self.workers.enter(&self.slot)?;
        match self.load(&process).map_err(lost)? {
            Ok(()) => {}
            Err(refused) => return Err(CallError::Host { detail: refused.to_string() }),
        }
        let Some((lane, call)) = process.take_lane() else {
            return Err(CallError::Pool { detail: "every lane of the worker is in use".into() });
        };
        let account = process.open_account(state.cpu_budget());
        let (number, mut talk) = (lane.number, Talk::new(&process, lane, call, &account));
        let carried = talk.carry(self.module, state, trial);
        process.close_account(&account);
        match carried {
            Carried::Over(result) => {
                process.give_back(talk.lane);
                self.slot.served();
                result
            }
            Carried::Lost(why, stopped) => {
                let why = self.lost(&process, &format!("lane {number}: {why}"));
                Err(stopped.map_or_else(|| lost(why), CallError::Stopped))
            }
        }
    }
}

impl Drop for RemoteModule {
    fn drop(&mut self) {
        self.slot.forget(self.module);
    }
}

fn detail_of(error: &CallError) -> String {
    match error {
        CallError::WorkerLost { detail } | CallError::Pool { detail } => detail.clone(),
        other => other.to_string(),
    }
}

/// One conversation.
struct Talk<'a> {
    process: &'a Process,
    lane: Lane,
    call: u64,
    account: &'a Account,
    began: Instant,
    /// Why the guest must end, and since when it must.
    stop: Option<(Stop, Instant)>,
    next_cpu_look: Instant,
}

impl<'a> Talk<'a> {
    fn new(process: &'a Process, lane: Lane, call: u64, account: &'a Account) -> Self {
        let began = clock::monotonic();
        Self { process, lane, call, account, began, stop: None, next_cpu_look: began + LOOK_AT_CPU }
    }

    fn carry(&mut self, module: u64, state: &mut GuestState, trial: Trial) -> Carried {
        // It may have waited for its worker. What is to end already does not begin.
        if let Some(cause) = state.killed() {
            return Carried::Over(Err(CallError::Stopped(Stop::Killed(cause))));
        }
        if clock::monotonic() >= state.deadline() {
            return Carried::Over(Err(CallError::Stopped(Stop::WallDeadline)));
        }
        let wall = state.deadline().saturating_duration_since(clock::monotonic());
        let input = state.input.clone();
        let order = CallOrder {
            call: self.call,
            module,
            trial,
            wall_us: limits::micros(wall),
            cpu_us: limits::micros(state.cpu_budget()),
            memory: state.limiter.memory_limit() as u64,
            input: &input,
        };
        if let Err(error) = self.say(state, &ToWorker::Call(order)) {
            return self.given_up(&error.to_string());
        }
        let max = state.limits().output.max(MAX_TRANSFER_BYTES).saturating_add(OVERHEAD);
        loop {
            if !self.look(state) {
                return self.given_up("it did not end a call that it was told to end");
            }
            let body = match self.lane.channel.receive(max, LOOK) {
                Ok(None) => continue,
                Ok(Some(body)) => body,
                Err(error) => return self.given_up(&error.to_string()),
            };
            let answer = match FromWorker::decode(&body) {
                Ok(FromWorker::Ask(ask)) => answer(state, &ask),
                Ok(FromWorker::Ended(ended)) if ended.call == self.call => return self.end(state, &ended),
                Ok(FromWorker::Ended(_)) => return self.given_up("it ended a call that is none"),
                Err(error) => return self.given_up(&error.to_string()),
            };
            let answer = ToWorker::Answer(match &answer {
                Ok(bytes) => Ok(bytes),
                Err(code) => Err(*code as i32),
            });
            if let Err(error) = self.say(state, &answer) {
                return self.given_up(&error.to_string());
            }
        }
    }

    fn say(&mut self, state: &GuestState, message: &ToWorker<'_>) -> Result<(), ChannelError> {
        let body = message.encode();
        let Self { process, lane, call, account, stop, next_cpu_look, .. } = self;
        let mut go_on = || watch(process, lane.number, *call, account, stop, next_cpu_look, state);
        lane.channel.send(&body, &[], LOOK, &mut go_on)
    }

    /// Looks whether the guest must end, and says so once; false when it should have ended by now.
    fn look(&mut self, state: &GuestState) -> bool {
        let Self { process, lane, call, account, stop, next_cpu_look, .. } = self;
        watch(process, lane.number, *call, account, stop, next_cpu_look, state)
    }

    fn given_up(&self, why: &str) -> Carried {
        Carried::Lost(why.to_owned(), self.stop.map(|(stop, _)| stop))
    }

    /// Takes over what a call left behind, within the call's limits.
    fn end(&self, state: &mut GuestState, ended: &Ended<'_>) -> Carried {
        if ended.output.len() > state.limits().output {
            return self.given_up("it returned more than the call may write");
        }
        let claimed = ClaimedUsage {
            memory: ended.memory,
            ticks: ended.ticks,
            fuel: ended.fuel,
            refused_growths: ended.refused_growths,
            dropped_log_lines: ended.dropped_log_lines,
        };
        state.claim(claimed, self.began);
        if let Some((stop, _)) = self.stop {
            return Carried::Over(Err(CallError::Stopped(stop)));
        }
        match ended.end {
            End::Failed { reason, detail } => match verdict::read_call(reason, detail) {
                Some(error) => Carried::Over(Err(error)),
                None => self.given_up("it gave a reason that no worker gives"),
            },
            End::Exit(code) => {
                for (level, text) in &ended.log {
                    state.log(Level::from_code((*level).into()), Ok(text));
                }
                for (name, value) in &ended.metrics {
                    // One that the executor's own rules refuse would have been refused there.
                    let (extras, calls) = state.extras_and_calls();
                    let _ = extras.metrics.record(&calls.limits, name, *value);
                }
                state.output = ended.output.to_vec();
                Carried::Over(Ok(code))
            }
        }
    }
}

fn watch(
    process: &Process,
    lane: u16,
    call: u64,
    account: &Account,
    stop: &mut Option<(Stop, Instant)>,
    next_cpu_look: &mut Instant,
    state: &GuestState,
) -> bool {
    let now = clock::monotonic();
    if let Some((_, since)) = stop {
        return now.saturating_duration_since(*since) < OBEY;
    }
    let killed = state.killed();
    let found = match killed {
        Some(cause) => Some(Stop::Killed(cause)),
        None if now >= state.deadline() => Some(Stop::WallDeadline),
        None if now >= *next_cpu_look => {
            *next_cpu_look = now + LOOK_AT_CPU;
            process.overran(account).then_some(Stop::CpuBudget)
        }
        None => None,
    };
    let Some(found) = found else { return true };
    *stop = Some((found, now));
    let cause = killed.unwrap_or(KillCause::Operator) as u8;
    process.stop(StopOrder { lane, call, cause }).is_ok()
}

/// Decides what a guest asks for, as for one that runs here: by the grants of its admission, whatever the worker believes.
fn answer(state: &mut GuestState, ask: &Ask<'_>) -> Result<Vec<u8>, ErrorCode> {
    match state.killed() {
        Some(KillCause::Revoked) => return Err(ErrorCode::Revoked),
        Some(_) => return Err(ErrorCode::Limit),
        None => {}
    }
    match *ask {
        Ask::Request { capability } => state.request(capability).map(|_| Vec::new()),
        Ask::Invoke { capability, operation, arguments } => {
            let capability: Capability = capability.parse().map_err(|_| ErrorCode::BadHandle)?;
            if arguments.len() > MAX_TRANSFER_BYTES {
                return Err(ErrorCode::Limit);
            }
            state.invoke(&capability, operation, arguments)
        }
        Ask::Environment => {
            let pairs = state.grants().env().iter().map(|(name, value)| (name.as_str(), value.as_str()));
            Ok(put_pairs(pairs))
        }
        Ask::Download { reference } => state.download(reference),
        Ask::Upload { media_type, bytes } => {
            if bytes.len() > MAX_TRANSFER_BYTES {
                return Err(ErrorCode::Limit);
            }
            state.upload(media_type, bytes).map(String::into_bytes)
        }
        // A guest that runs here has no such function without the grant.
        Ask::OpenStream { .. } | Ask::WriteStream { .. } | Ask::EndStream { .. }
            if !state.grants().extension("stream") =>
        {
            Err(ErrorCode::PolicyDenied)
        }
        Ask::OpenStream { id } => state.open_stream(id).map(|index| number(index.number())),
        Ask::WriteStream { stream, bytes } => {
            state.write_stream(StreamIndex::numbered(stream), bytes).map(|taken| number(taken.into()))
        }
        Ask::EndStream { stream } => state.end_stream(StreamIndex::numbered(stream)).map(number),
    }
}

fn number(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

impl From<Gone> for CallError {
    fn from(gone: Gone) -> Self {
        Self::WorkerLost { detail: gone.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use executor_engine::frames::frame;

    use super::*;
    use crate::runtime::GuestState;
    use crate::worker::channel::{Beside, Channel, Stops};

    /// A conversation about one call with a worker that `says` something, and the state that it left behind.
    fn talk(limits: CallLimits, says: impl FnOnce(UnixStream) + Send + 'static) -> (Carried, GuestState) {
        let spawner = Arc::new(crate::testing::spawner().unwrap());
        let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
        let [(control, _control), (stops, far_stops), (lane, far)] = pairs;
        let control = Channel::new(control, Beside::Nothing).unwrap();
        let lane = Lane { number: 0, channel: Channel::new(lane, Beside::Nothing).unwrap() };
        let process = Process::over(&spawner, 1, (control, Stops::new(stops).unwrap(), Vec::new()));
        // Its end stays open when it has said everything.
        let kept = far.try_clone().unwrap();
        let worker = std::thread::spawn(move || says(far));
        let mut state = crate::testing::guest_state_under(limits);
        let account = process.open_account(limits.cpu);
        let carried = Talk::new(&process, lane, 7, &account).carry(1, &mut state, Trial::Call);
        worker.join().unwrap();
        drop((far_stops, kept));
        (carried, state)
    }

    fn ended(call: u64, end: End<'static>, output: &'static [u8]) -> Vec<u8> {
        let ended = Ended { end, output, ..verdict::unknown_module(call) };
        frame(&FromWorker::Ended(ended).encode())
    }

    fn why(carried: Carried) -> String {
        match carried {
            Carried::Lost(why, None) => why,
            Carried::Lost(why, Some(stop)) => format!("{stop:?}: {why}"),
            Carried::Over(result) => panic!("believed: {result:?}"),
        }
    }

    #[test]
    fn a_worker_that_says_what_no_worker_says_is_given_up() {
        let limits = CallLimits { output: 4, ..CallLimits::default() };
        let long = u32::try_from(MAX_TRANSFER_BYTES + OVERHEAD + 1).unwrap();
        for (bytes, expected) in [
            (long.to_le_bytes().to_vec(), "length"),
            (vec![0; 4], "length"),
            (frame(b"\xff garbage"), "question"),
            (frame(&[5, 9, 0, 0, 0, b'x']), "truncated"),
            (ended(8, End::Exit(0), b""), "call that is none"),
            (ended(7, End::Exit(0), b"12345"), "more than the call may write"),
            (ended(7, End::Failed { reason: "revoked", detail: "" }, b""), "reason that no worker gives"),
            (ended(7, End::Failed { reason: "killed", detail: "" }, b""), "reason that no worker gives"),
            (Vec::new(), "gone"),
        ] {
            let (carried, state) = talk(limits, move |mut far| match bytes.as_slice() {
                [] => far.shutdown(std::net::Shutdown::Both).unwrap(),
                bytes => far.write_all(bytes).unwrap(),
            });
            let why = why(carried);
            assert!(why.contains(expected), "{expected}: {why}");
            assert!(state.output.is_empty());
        }
    }

    #[test]
    fn a_worker_that_does_not_obey_is_given_up_with_the_reason_of_the_stop() {
        let limits = CallLimits { wall: Duration::from_millis(20), ..CallLimits::default() };
        let (carried, _) = talk(limits, |far| {
            // Says nothing until the executor has had enough.
            let mut far = Channel::new(far, Beside::Nothing).unwrap();
            while far.receive(1 << 20, Duration::from_secs(60)).is_ok_and(|body| body.is_some()) {}
        });
        assert!(why(carried).starts_with("WallDeadline: it did not end"));
    }

    #[test]
    fn what_a_worker_claims_is_cut_to_what_the_call_may_use() {
        let limits = CallLimits { log_lines: 1, metrics: 1, ..CallLimits::default() };
        let (carried, mut state) = talk(limits, |mut far| {
            let ended = Ended {
                end: End::Exit(3),
                memory: u64::MAX,
                ticks: u64::MAX,
                fuel: u64::MAX,
                log: vec![(2, "one\n[forged]"), (2, "two"), (9, "no level")],
                metrics: vec![("a", 1.0), ("b", 2.0), ("no name", f64::NAN)],
                ..verdict::unknown_module(7)
            };
            far.write_all(&frame(&FromWorker::Ended(ended).encode())).unwrap();
        });
        assert!(matches!(carried, Carried::Over(Ok(3))));
        assert_eq!((state.limiter.memory(), state.claimed_fuel()), (limits.memory, limits.fuel));
        assert!(state.ticks() < 1_000_000);
        assert_eq!(state.extras().log.dropped(), 2);
        let lines = std::mem::take(&mut state.extras().log).into_records();
        assert_eq!((lines.len(), lines[0].text.as_str()), (1, "one\\n[forged]"));
        assert_eq!(std::mem::take(&mut state.extras().metrics).into_records().len(), 1);
    }

    #[test]
    fn a_worker_gets_nothing_that_was_not_granted() {
        let asks = [
            (Ask::Request { capability: "env:TOKEN" }, ErrorCode::NotInManifest),
            (Ask::Request { capability: "" }, ErrorCode::InvalidArgument),
            (
                Ask::Invoke { capability: "env:TOKEN", operation: "get", arguments: b"" },
                ErrorCode::PolicyDenied,
            ),
            (Ask::Invoke { capability: "x", operation: "get", arguments: b"" }, ErrorCode::BadHandle),
            (Ask::Download { reference: "sha256:00" }, ErrorCode::PolicyDenied),
            (Ask::Upload { media_type: "text/plain", bytes: b"x" }, ErrorCode::PolicyDenied),
            (Ask::OpenStream { id: "s" }, ErrorCode::PolicyDenied),
            (Ask::WriteStream { stream: 0, bytes: b"x" }, ErrorCode::PolicyDenied),
            (Ask::EndStream { stream: u64::MAX }, ErrorCode::PolicyDenied),
        ];
        let (carried, mut state) = talk(CallLimits::default(), move |mut far| {
            let mut near = Channel::new(far.try_clone().unwrap(), Beside::Nothing).unwrap();
            near.receive_patiently(1 << 20).unwrap();
            for (ask, expected) in asks {
                near.send(&FromWorker::Ask(ask).encode(), &[], LOOK, &mut || true).unwrap();
                let answer = near.receive_patiently(1 << 20).unwrap();
                let refused = ToWorker::Answer(Err(expected as i32));
                assert_eq!(ToWorker::decode(&answer).unwrap(), refused, "{ask:?}");
            }
            near.send(&FromWorker::Ask(Ask::Environment).encode(), &[], LOOK, &mut || true).unwrap();
            let answer = near.receive_patiently(1 << 20).unwrap();
            assert_eq!(ToWorker::decode(&answer).unwrap(), ToWorker::Answer(Ok(b"")));
            far.set_nonblocking(false).unwrap();
            far.write_all(&ended(7, End::Exit(0), b"")).unwrap();
        });
        assert!(matches!(carried, Carried::Over(Ok(0))));
        assert_eq!(state.conduct().refusals(), [("capability_denied", 1)]);
    }
}
