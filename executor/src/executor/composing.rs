//! Pipelines: the releases that one manifest composes, run one after the other.
//!
//! A step has no more rights than it has alone: its agent is loaded and admitted by its own manifest, under exactly the digest that
//! the pipeline names, and that is looked at when the pipeline is loaded, when it is called, and before each step begins. Each
//! step is a fresh instance with a store of its own; the host carries the bytes. All of it is one call: it has one place in the
//! queue, one deadline, one budget of processor time, and one kill flag, which the steps share, so that whatever stops the pipeline stops the step that runs,
//! and whatever stops a step ends the pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor_api::receipt::StepReceipt;
use executor_engine::ModuleDigest;
use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use trust_store::pipeline::{self, Pipeline, Step};

use super::Executor;
use super::calling::Begun;
use crate::abi::sinks::{LogRecord, MetricRecord};
use crate::admission::{Content, Denied, Submission};
use crate::agents::Agent;
use crate::clock;
use crate::records::{audit_unavailable, receipts_unavailable};
use crate::runtime::{
    Call, CallError, CallLimits, Cancel, Ended, InstanceId, KillCause, Lowered, Outcome, Registration, Said,
    StepFailure, Stop, Usage,
};
use crate::waiting::{Interrupted, wait_for};

/// Bytes of outputs that one call holds for later steps: twice what a single step may put out by default.
const MAX_HELD: usize = 64 << 20;

/// Bytes that all calls hold together: a share of the memory of a small host, however many documents ask for the most.
const MAX_HELD_BY_ALL: usize = 1 << 30;

/// Before a step is tried again that failed by no fault of its guest: a lost worker is not started again at once. It doubles
/// with each further attempt.
const PAUSE: Duration = Duration::from_millis(150);

impl Executor {
    /// As `admit`, for an upload: a pipeline is let in when each of its steps may run at that moment. At a start it is let in
    /// before its steps may be there, since every call asks again.
    pub(super) async fn admit_whole(
        &self,
        submission: &Submission,
        order: u64,
    ) -> Result<Arc<Agent>, Denied> {
        let agent = self.admit(submission, order).await?;
        if let Some(pipeline) = agent.prepared.pipeline() {
            self.steps_may_run(pipeline)?;
        }
        Ok(agent)
    }

    /// As `judge`, of a release with all that it is composed of.
    pub(super) async fn judge_whole(
        &self,
        submission: &Submission,
    ) -> Result<crate::admission::AdmittedModule, Denied> {
        let (admitted, _) = self.judge(submission).await?;
        if let Content::Pipeline(pipeline) = admitted.content() {
            self.steps_may_run(pipeline)?;
        }
        Ok(admitted)
    }

    /// Whether each step's agent is loaded under exactly the digest that is named, and may run now.
    pub(super) fn steps_may_run(&self, pipeline: &Pipeline) -> Result<(), Denied> {
        for step in pipeline.steps() {
            let may_run = self.agent_of(step).and_then(|agent| self.may_run(&agent));
            may_run.map_err(|denied| {
                let message = format!("the step `{}` may not run: {}", step.name(), denied.message);
                Denied { message, ..denied }
            })?;
        }
        Ok(())
    }

    /// The agent of a step, if that release of it is loaded.
    fn agent_of(&self, step: &Step) -> Result<Arc<Agent>, Denied> {
        let (id, digest) = (step.agent().as_str(), ModuleDigest(*step.module()));
        let agent = self.release_of(id, digest).map_err(|denied| match denied.code {
            "not_loaded" => {
                let text = format!("{id} with the module {digest} is not loaded; load it first");
                Denied::new("step_not_loaded", text)
            }
            _ => denied,
        })?;
        if agent.prepared.pipeline().is_some() {
            // Otherwise the depth of a call, and with it its cost, would stand in no document.
            let text = format!("{id} is a pipeline itself; name its steps instead");
            return Err(Denied::in_step(1, "unsupported", text));
        }
        Ok(agent)
    }

    /// Runs a pipeline to its end. Blocks.
    pub(super) fn run_pipeline(
        &self,
        tokio: &Handle,
        agent: &Agent,
        pipeline: &Pipeline,
        call: Call,
        registration: Registration,
    ) -> Ended {
        let began = clock::monotonic();
        let limits = agent.prepared.limits().lowered(call.lowered);
        let mut course = Course {
            executor: self,
            tokio,
            pipeline,
            whole: registration.id,
            cancel: registration.cancel(),
            // A limit past the end of all time, which nobody sets, would end the call at once.
            deadline: began.checked_add(limits.wall).unwrap_or(began),
            cpu: limits.cpu,
            outputs: Vec::with_capacity(pipeline.steps().len()),
            held: Held::of(&self.held),
            usage: Usage::default(),
            log: Vec::new(),
            metrics: Vec::new(),
            receipts: Vec::with_capacity(pipeline.steps().len()),
        };
        let ran = course.run(&call.input, &limits);
        let mut usage = course.usage;
        let wall = clock::monotonic().saturating_duration_since(began);
        usage.wall_us = wall.as_micros().try_into().unwrap_or(u64::MAX);
        let (instance, log, metrics) = (registration.id, course.log, course.metrics);
        let (result, said) = match ran {
            Ok(output) => {
                (Ok(Outcome { instance, output: output.into(), exit_code: 0, usage, log, metrics }), None)
            }
            Err(error) => (Err(error), Some(Box::new(Said { instance, log, metrics }))),
        };
        // Listed until its last step is gone.
        drop(registration);
        Ended { steps: Some(course.receipts), said, ..Ended::plain(result, usage) }
    }
}

/// One call of a pipeline, under way.
struct Course<'a> {
    executor: &'a Executor,
    tokio: &'a Handle,
    pipeline: &'a Pipeline,
    /// Name of the call as a whole.
    whole: InstanceId,
    cancel: Cancel,
    deadline: Instant,
    /// Processor time that is left to it.
    cpu: Duration,
    /// What each step put out, while a later one needs it.
    outputs: Vec<Option<Bytes>>,
    /// Bytes of them.
    held: Held<'a>,
    usage: Usage,
    log: Vec<LogRecord>,
    metrics: Vec<MetricRecord>,
    receipts: Vec<StepReceipt>,
}

impl Course<'_> {
    /// Every step in order; the output of the last one.
    fn run(&mut self, input: &Bytes, limits: &CallLimits) -> Result<Bytes, CallError> {
        let pipeline = self.pipeline;
        let mut last = Bytes::new();
        for (index, step) in pipeline.steps().iter().enumerate() {
            let failed =
                |failure| CallError::Step { step: step.name().to_owned(), failure: Box::new(failure) };
            let input = self.input_of(step, input, limits).or_else(|failure| self.unbegun(step, failure));
            let input = input.map_err(failed)?;
            let output = self.attempt(step, &input, limits).map_err(failed)?;
            self.keep(index, output.clone()).map_err(failed)?;
            last = output;
        }
        Ok(last)
    }

    fn input_of(&self, step: &Step, input: &Bytes, limits: &CallLimits) -> Result<Bytes, StepFailure> {
        let before = |index: &usize| self.outputs.get(*index).and_then(Option::as_ref);
        let parts: Vec<&Bytes> = step.after().iter().filter_map(before).collect();
        match parts.as_slice() {
            [] => Ok(input.clone()),
            [only] => Ok(Bytes::clone(only)),
            many => {
                let lengths: Vec<usize> = many.iter().map(|part| part.len()).collect();
                match pipeline::joined_length(&lengths) {
                    Some(length) if length <= limits.input => {
                        let parts: Vec<&[u8]> = many.iter().map(|part| &part[..]).collect();
                        Ok(pipeline::join(&parts).into())
                    }
                    _ => Err(CallError::InputTooLarge { limit: limits.input }.into()),
                }
            }
        }
    }

    /// Runs a step as often as it may.
    fn attempt(&mut self, step: &Step, input: &Bytes, limits: &CallLimits) -> Result<Bytes, StepFailure> {
        let mut left = step.repetition().attempts();
        let mut pause = PAUSE;
        loop {
            left = left.saturating_sub(1);
            match self.once(step, input, limits) {
                Err(failure)
                    if left > 0
                        && failure.may_pass()
                        && !self.time().is_zero()
                        && !self.cpu.is_zero()
                        && self.cancel.raised().is_none() =>
                {
                    tracing::debug!(step = step.name(), code = failure.code(), "a step is tried again");
                    if let StepFailure::Call(
                        CallError::Host { .. } | CallError::Pool { .. } | CallError::WorkerLost { .. },
                    ) = failure
                    {
                        // What ends the pause ends the next attempt as well, by its name.
                        let slept = async move {
                            tokio::time::sleep(pause).await;
                            Ok(())
                        };
                        let _ = self.wait(self.deadline, slept);
                        pause = pause.saturating_mul(2);
                    }
                }
                ended => return ended,
            }
        }
    }

    fn once(&mut self, step: &Step, input: &Bytes, limits: &CallLimits) -> Result<Bytes, StepFailure> {
        if let Some(cause) = self.cancel.raised() {
            return self.unbegun(step, CallError::Stopped(Stop::Killed(cause)).into());
        }
        let time = self.time().min(Duration::from_millis(step.timeout_ms().into()));
        if time.is_zero() {
            return self.unbegun(step, CallError::Stopped(Stop::WallDeadline).into());
        }
        if self.cpu.is_zero() {
            return self.unbegun(step, CallError::Stopped(Stop::CpuBudget).into());
        }
        let until = clock::monotonic() + time;
        let (audit, receipts) = (self.executor.parts.audit.clone(), self.executor.parts.receipts.clone());
        let room = self.wait(until, async move {
            let slot = audit.room().await.map_err(audit_unavailable)?;
            Ok((slot, receipts.room().await.map_err(receipts_unavailable)?))
        });
        let (slot, receipts) = match room {
            Ok(room) => room,
            Err(failure) => return self.unbegun(step, failure),
        };
        let (agent, registration) = match self.place(step) {
            Ok(placed) => placed,
            Err(denied) => return self.unbegun(step, StepFailure::Denied(denied)),
        };
        // Listed, so that what stops its agent reaches it here as well.
        let run = match self.wait(until, self.executor.queue.run(&agent.share)) {
            Ok(run) => run,
            Err(failure) => return self.unbegun(step, failure),
        };
        let time = until.saturating_duration_since(clock::monotonic());
        let begun = Begun { at_ms: clock::unix_millis(), policy: agent.policy() };
        let call = Call {
            input: input.clone(),
            lowered: Lowered { wall: Some(time), cpu: Some(self.cpu), ..Lowered::default() },
            cancel: None,
            seed: None,
        };
        let instance = registration.id;
        let cpu = clock::thread_cpu();
        let mut ended = self.executor.run_instance(&agent, call, registration, None);
        drop(run);
        // That of this thread, where the guest ran on it. Ticks pass while it waits as well.
        let used = ended.charged.unwrap_or_else(|| clock::thread_cpu().saturating_sub(cpu));
        self.cpu = self.cpu.saturating_sub(used);
        // A verdict on the pipeline ends the step as well, and says nothing about the step's own agent.
        let verdict = ended.result.as_ref().err().and_then(CallError::verdict);
        if verdict.is_some() && agent.verdict().denied.is_none() {
            ended.result = Err(CallError::Stopped(Stop::Killed(KillCause::Operator)));
        }
        let mut event = self.executor.execution_event(&agent, instance, &ended);
        event.detail = Some(format!("step {} of {}", step.name(), self.whole));
        slot.record(event);
        let receipt = self.executor.receipt(&agent, instance, begun, input, &ended);
        self.receipts.push(StepReceipt {
            instance: Some(instance.to_string()),
            name: step.name().to_owned(),
            reason: receipt.reason.clone(),
            receipt: receipt.to_entry().ok().map(|entry| ModuleDigest::of(&entry).to_string()),
        });
        receipts.record(instance, receipt);
        if let Some(cause) = verdict {
            ended.result = Err(CallError::Stopped(Stop::Killed(cause)));
        }
        self.account(&ended);
        if let Some(said) = ended.said {
            self.collect(step, said.log, said.metrics, limits);
        }
        match ended.result {
            Ok(Outcome { output, exit_code: 0, log, metrics, .. }) => {
                self.collect(step, log, metrics, limits);
                Ok(output.into())
            }
            Ok(Outcome { exit_code, log, metrics, .. }) => {
                self.collect(step, log, metrics, limits);
                Err(StepFailure::Guest { code: exit_code })
            }
            // The caller learns the verdict itself.
            Err(error) => match agent.verdict().denied.filter(|_| error.verdict().is_some()) {
                Some(denied) => Err(StepFailure::Denied(denied)),
                None => Err(error.into()),
            },
        }
    }

    /// Notes a step that did not even begin: that is part of what the pipeline's receipt says.
    fn unbegun<T>(&mut self, step: &Step, failure: StepFailure) -> Result<T, StepFailure> {
        self.receipts.push(StepReceipt {
            instance: None,
            name: step.name().to_owned(),
            reason: failure.code().to_owned(),
            receipt: None,
        });
        Err(failure)
    }

    /// Waits for something that others may be slow to give, and no longer than the step may take or the call goes on.
    fn wait<T: Send + 'static>(
        &self,
        until: Instant,
        work: impl Future<Output = Result<T, Denied>> + Send + 'static,
    ) -> Result<T, StepFailure> {
        let mut work = Box::pin(work);
        let inside = self.tokio.enter();
        // Mostly it is there, and no task is needed.
        let given = match work.as_mut().now_or_never() {
            Some(given) => Ok(given),
            None => wait_for(self.tokio, work, &self.cancel, until),
        };
        drop(inside);
        match given {
            Ok(given) => given.map_err(StepFailure::Denied),
            Err(Interrupted::TimedOut) => Err(CallError::Stopped(Stop::WallDeadline).into()),
            Err(Interrupted::Stopped) => {
                let cause = self.cancel.raised().unwrap_or(KillCause::Operator);
                Err(CallError::Stopped(Stop::Killed(cause)).into())
            }
            Err(Interrupted::Broken) => {
                Err(CallError::Host { detail: "what a step waited for broke".into() }.into())
            }
        }
    }

    /// Lists a step among what can be stopped, then asks whether it may run: a verdict that changes from here on reaches it.
    fn place(&self, step: &Step) -> Result<(Arc<Agent>, Registration), Denied> {
        loop {
            let agent = self.executor.agent_of(step)?;
            let registration = self.executor.parts.runtime.register(&agent.prepared, Some(&self.cancel));
            if !agent.is_retired() {
                self.executor.may_run(&agent)?;
                return Ok((agent, registration));
            }
        }
    }

    fn time(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::monotonic())
    }

    /// Keeps an output as long as a later step needs it, and lets go of what this step was the last to need.
    fn keep(&mut self, index: usize, output: Bytes) -> Result<(), StepFailure> {
        for (earlier, kept) in self.outputs.iter_mut().enumerate() {
            if self.pipeline.last_use(earlier) == Some(index)
                && let Some(done) = kept.take()
            {
                self.held.less(done.len());
            }
        }
        let held = self.held.more(output.len());
        self.outputs.push(Some(output));
        held.map_err(|passed| match passed {
            Passed::Own => StepFailure::Held { limit: MAX_HELD },
            Passed::OfAll => {
                let detail =
                    format!("all pipelines together hold more than {MAX_HELD_BY_ALL} bytes of outputs");
                CallError::Pool { detail }.into()
            }
        })
    }

    fn account(&mut self, ended: &Ended) {
        let (sum, step) = (&mut self.usage, &ended.usage);
        sum.memory_bytes = sum.memory_bytes.max(step.memory_bytes);
        sum.epoch_ticks = sum.epoch_ticks.saturating_add(step.epoch_ticks);
        sum.fuel = match (sum.fuel, step.fuel) {
            (Some(sum), Some(step)) => Some(sum.saturating_add(step)),
            (sum, step) => sum.or(step),
        };
        sum.dropped_log_lines = sum.dropped_log_lines.saturating_add(step.dropped_log_lines);
        sum.refused_growths = sum.refused_growths.saturating_add(step.refused_growths);
    }

    /// What the guests said, within the limits of one call.
    fn collect(&mut self, step: &Step, log: Vec<LogRecord>, metrics: Vec<MetricRecord>, limits: &CallLimits) {
        let mut bytes: usize = self.log.iter().map(|line| line.text.len()).sum();
        for line in log {
            let text = format!("{}: {}", step.name(), line.text);
            if self.log.len() < limits.log_lines && bytes + text.len() <= limits.log_bytes {
                bytes += text.len();
                self.log.push(LogRecord { text, ..line });
            } else {
                self.usage.dropped_log_lines = self.usage.dropped_log_lines.saturating_add(1);
            }
        }
        let room = limits.metrics.saturating_sub(self.metrics.len());
        self.metrics.extend(metrics.into_iter().take(room));
    }
}

/// Bytes that one call holds, and all calls together.
struct Held<'a> {
    own: usize,
    all: &'a AtomicUsize,
}

/// The limit that was passed: one's own, or by calls that may be others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Own,
    OfAll,
}

impl<'a> Held<'a> {
    fn of(all: &'a AtomicUsize) -> Self {
        Self { own: 0, all }
    }

    /// Holds more; the limit that was passed, if one was.
    fn more(&mut self, bytes: usize) -> Result<(), Passed> {
        self.own = self.own.saturating_add(bytes);
        let all = self.all.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if self.own > MAX_HELD {
            Err(Passed::Own)
        } else if all > MAX_HELD_BY_ALL {
            Err(Passed::OfAll)
        } else {
            Ok(())
        }
    }

    fn less(&mut self, bytes: usize) {
        self.own = self.own.saturating_sub(bytes);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_hold_is_bounded_for_each_and_for_all_and_given_back() {
        let all = AtomicUsize::new(0);
        let mut calls: Vec<Held<'_>> = (0..MAX_HELD_BY_ALL / MAX_HELD).map(|_| Held::of(&all)).collect();
        assert!(calls.iter_mut().all(|call| call.more(MAX_HELD).is_ok()));
        let mut next = Held::of(&all);
        assert_eq!(next.more(1), Err(Passed::OfAll));
        let one = calls.first_mut().unwrap();
        one.less(MAX_HELD);
        assert_eq!(next.more(1), Ok(()));
        assert_eq!(next.more(MAX_HELD), Err(Passed::Own));
        drop((calls, next));
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
