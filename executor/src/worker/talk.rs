//! The conversation about one call.

use std::time::{Duration, Instant};

use executor_engine::frames::{
    Ask, CallOrder, End, Ended, FromWorker, Lines, OVERHEAD, StopOrder, ToWorker, Trial, put_pairs,
};
use executor_engine::limits::{EPOCH_TICK_MILLIS, MAX_TRANSFER_BYTES};
use trust_store::capability::Capability;

use super::birth::Lane;
use super::channel::ChannelError;
use super::process::{Account, LOOK, Process};
use super::{limits, verdict};
use crate::abi::ErrorCode;
use crate::abi::sinks::Level;
use crate::clock;
use crate::runtime::{CallError, ClaimedUsage, GuestState, KillCause, Stop};
use crate::streams::StreamIndex;

/// Between two looks at the kernel's account of the process.
const LOOK_AT_ACCOUNT: Duration = Duration::from_millis(50);

/// How far a worker's word on time may be from the executor's: two ticks of the engine and two of the kernel's account.
const AGREED: Duration = Duration::from_millis(4 * EPOCH_TICK_MILLIS);

/// How long a worker may take to end a call that it was told to end, and how much processor time it may use meanwhile for each call that
/// it carries. One that goes beyond both is killed. Time alone says nothing where the machine is too busy to let it run: it would lose
/// the calls of everybody else of its signer for what it had no part in.
const OBEY: Duration = Duration::from_millis(500);

/// How long it may take however little it used, from when it was told and whatever of its call was still on the way then: one that
/// sleeps is as disobedient as one that spins, and what was revoked ends within five seconds, of which an announcement takes one.
pub(crate) const OBEY_AT_LATEST: Duration = Duration::from_secs(3);

/// How a conversation about a call ended.
pub(super) enum Carried {
    /// The worker is as good as before.
    Over(Result<i32, CallError>),
    /// It is not, and what the call ends with.
    Lost(String, Option<Stop>),
}

/// One conversation.
pub(super) struct Talk<'a> {
    lane: Lane,
    account: &'a Account,
    began: Instant,
    watch: Watch<'a>,
}

/// What is looked at while a worker is waited for.
struct Watch<'a> {
    process: &'a Process,
    lane: u16,
    call: u64,
    /// Why the guest must end, once the worker was told.
    told: Option<Told>,
    /// Why the worker cannot be kept.
    fault: Option<String>,
    next_look: Instant,
}

/// What a worker was told to end for.
#[derive(Clone, Copy)]
struct Told {
    stop: Stop,
    /// When.
    first: Instant,
    /// Since when it could have obeyed, and what the process had used by then.
    since: Instant,
    used: Duration,
}

impl<'a> Talk<'a> {
    pub(super) fn new(process: &'a Process, lane: Lane, call: u64, account: &'a Account) -> Self {
        let began = clock::monotonic();
        let next_look = began + LOOK_AT_ACCOUNT;
        let watch = Watch { process, lane: lane.number, call, told: None, fault: None, next_look };
        Self { lane, account, began, watch }
    }

    /// The lane, for the next call.
    pub(super) fn into_lane(self) -> Lane {
        self.lane
    }

    pub(super) fn carry(&mut self, module: u64, state: &mut GuestState, trial: Trial) -> Carried {
        // It may have waited for its worker. What is to end already does not begin.
        if let Some(stop) = state.ended_from_outside() {
            return Carried::Over(Err(stop.into()));
        }
        let wall = state.deadline().saturating_duration_since(clock::monotonic());
        let input = state.input.clone();
        let order = CallOrder {
            call: self.watch.call,
            module,
            trial,
            lines: if state.read_along().is_some() { Lines::AtOnce } else { Lines::AtTheEnd },
            wall_us: limits::micros(wall),
            cpu_us: limits::micros(state.cpu_budget()),
            memory: state.limiter.memory_limit() as u64,
            seed: state.seed().unwrap_or_default().0,
            input: &input,
        };
        if let Err(error) = self.say(state, &ToWorker::Call(order)) {
            return self.given_up(&error.to_string());
        }
        // One that was stopped while it was being sent can be ended no earlier than it is there. What it may take at the latest does
        // not begin anew: how long it takes to be there is up to the worker.
        if let Some(told) = &mut self.watch.told {
            *told = Told { first: told.first, ..Told::now(told.stop, self.watch.process) };
        }
        let max = state.limits().output.max(MAX_TRANSFER_BYTES).saturating_add(OVERHEAD);
        loop {
            if !self.watch.goes_on(state) {
                return self.given_up("");
            }
            let body = match self.lane.channel.receive(max, LOOK) {
                Ok(None) => continue,
                Ok(Some(body)) => body,
                Err(error) => return self.given_up(&error.to_string()),
            };
            let answer = match FromWorker::decode(&body) {
                Ok(FromWorker::Ask(ask)) => answer(state, &ask),
                Ok(FromWorker::Ended(ended)) if ended.call == self.watch.call => {
                    return self.end(state, &ended);
                }
                Ok(FromWorker::Ended(_)) => return self.given_up("it ended a call that is none"),
                // Within the limits of the call, whatever the worker counts; what is beyond them is dropped.
                Ok(FromWorker::Line { level, text }) if state.read_along().is_some() => {
                    state.log(Level::from_code(level.into()), Ok(text));
                    continue;
                }
                Ok(FromWorker::Missed { lines }) if state.read_along().is_some() => {
                    if let Some(reader) = state.read_along() {
                        reader.miss(lines);
                    }
                    continue;
                }
                Ok(FromWorker::Line { .. } | FromWorker::Missed { .. }) => {
                    return self.given_up("it told lines that nobody reads");
                }
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
        let Self { lane, watch, .. } = self;
        lane.channel.send(&message.encode(), &[], LOOK, &mut || watch.goes_on(state))
    }

    fn given_up(&self, why: &str) -> Carried {
        let why = self.watch.fault.clone().unwrap_or_else(|| why.to_owned());
        Carried::Lost(why, self.watch.told.map(|told| told.stop))
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
            fast_lines: ended.fast_lines,
            fast_metrics: ended.fast_metrics,
        };
        state.claim(claimed, self.began);
        // However it ended, within the limits of the call.
        for (level, text) in &ended.log {
            state.log(Level::from_code((*level).into()), Ok(text));
        }
        for (name, value) in &ended.metrics {
            // One that the executor's own rules refuse would have been refused there.
            let (extras, calls) = state.extras_and_calls();
            let _ = extras.metrics.record(&calls.limits, name, *value);
        }
        if let Some(Told { stop, .. }) = self.watch.told {
            return Carried::Over(Err(CallError::Stopped(stop)));
        }
        match ended.end {
            End::Failed { reason, detail } => match verdict::read_call(reason, detail) {
                Some(CallError::Stopped(stop)) if !self.agrees(stop, state) => {
                    self.given_up("it says that the time of a call is up, and it is not")
                }
                Some(error) => Carried::Over(Err(error)),
                None => self.given_up("it gave a reason that no worker gives"),
            },
            End::Exit(code) => {
                state.output = ended.output.to_vec();
                Carried::Over(Ok(code))
            }
        }
    }
}

impl Talk<'_> {
    /// Whether the executor's own clock, and the kernel's account, say the same.
    fn agrees(&self, stop: Stop, state: &GuestState) -> bool {
        match stop {
            Stop::CpuBudget => {
                let used = self.watch.process.used_since(self.account).unwrap_or_default();
                used.saturating_add(AGREED) >= state.cpu_budget()
            }
            Stop::WallDeadline => clock::monotonic() + AGREED >= state.deadline(),
            // That is nobody's word but the executor's.
            Stop::Killed(_) => false,
        }
    }
}

impl Told {
    fn now(stop: Stop, process: &Process) -> Self {
        // Of one whose account cannot be read any more nothing is known that speaks for it.
        let now = clock::monotonic();
        Self { stop, first: now, since: now, used: process.used().unwrap_or_default() }
    }

    /// Whether the worker has had what it takes to obey.
    fn is_over(&self, now: Instant, process: &Process) -> bool {
        if now.saturating_duration_since(self.first) >= OBEY_AT_LATEST {
            return true;
        }
        if now.saturating_duration_since(self.since) < OBEY {
            return false;
        }
        let used = process.used().unwrap_or(Duration::MAX).saturating_sub(self.used);
        used >= OBEY.saturating_mul(process.under_way().max(1))
    }
}

impl Watch<'_> {
    /// Looks whether the guest must end, and says so once; false when the worker cannot be kept.
    fn goes_on(&mut self, state: &GuestState) -> bool {
        let now = clock::monotonic();
        if let Some(told) = &self.told {
            if told.is_over(now, self.process) {
                self.fault = Some("it did not end a call that it was told to end".into());
                return false;
            }
        } else if let Some(stop) = state.ended_from_outside() {
            self.told = Some(Told::now(stop, self.process));
            let cause = state.killed().unwrap_or(KillCause::Operator) as u8;
            let told = self.process.stop(StopOrder { lane: self.lane, call: self.call, cause });
            self.fault = told.err().map(|error| format!("it does not hear what it is told: {error}"));
            return self.fault.is_none();
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_AT_ACCOUNT;
            self.fault = self.process.look().err().map(|gone| gone.to_string());
        }
        self.fault.is_none()
    }
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

#[cfg(test)]
mod tests;
