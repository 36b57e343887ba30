//! Pipelines: the releases that one manifest composes, run one after the other.
//!
//! A step has no more rights than it has alone: its agent is loaded and admitted by its own manifest, under exactly the digest that
//! the pipeline names, and that is looked at when the pipeline is loaded, when it is called, and before each step begins. Each
//! step is a fresh instance with a store of its own; the host carries the bytes. All of it is one call: it has one place in the
//! queue, one deadline, and one kill flag, which the steps share, so that whatever stops the pipeline stops the step that runs,
//! and whatever stops a step ends the pipeline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor_api::receipt::StepReceipt;
use executor_engine::ModuleDigest;
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
    Call, CallError, CallLimits, Cancel, Ended, InstanceId, Lowered, Outcome, Registration, StepFailure,
    Stop, Usage,
};

/// Bytes of outputs that one call holds for later steps: twice what a single step may put out by default.
const MAX_HELD: usize = 64 << 20;

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
            outputs: Vec::with_capacity(pipeline.steps().len()),
            held: 0,
            usage: Usage::default(),
            log: Vec::new(),
            metrics: Vec::new(),
            receipts: Vec::with_capacity(pipeline.steps().len()),
        };
        let ran = course.run(&call.input, &limits);
        let mut usage = course.usage;
        let wall = clock::monotonic().saturating_duration_since(began);
        usage.wall_us = wall.as_micros().try_into().unwrap_or(u64::MAX);
        let result = ran.map(|output| Outcome {
            instance: registration.id,
            output: output.into(),
            exit_code: 0,
            usage,
            log: std::mem::take(&mut course.log),
            metrics: std::mem::take(&mut course.metrics),
        });
        // Listed until its last step is gone.
        drop(registration);
        Ended { steps: Some(course.receipts), ..Ended::plain(result, usage) }
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
    /// What each step put out, while a later one needs it.
    outputs: Vec<Option<Bytes>>,
    /// Bytes of them.
    held: usize,
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
            let input = self.input_of(step, input, limits).map_err(failed)?;
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
        loop {
            left = left.saturating_sub(1);
            match self.once(step, input, limits) {
                Err(failure)
                    if left > 0
                        && failure.may_pass()
                        && !self.time().is_zero()
                        && self.cancel.raised().is_none() =>
                {
                    tracing::debug!(step = step.name(), code = failure.code(), "a step is tried again");
                }
                ended => return ended,
            }
        }
    }

    fn once(&mut self, step: &Step, input: &Bytes, limits: &CallLimits) -> Result<Bytes, StepFailure> {
        let unrun = |course: &mut Self, failure: StepFailure| {
            // That it did not even begin is part of what the pipeline's receipt says.
            course.receipts.push(StepReceipt {
                instance: None,
                name: step.name().to_owned(),
                reason: failure.code().to_owned(),
                receipt: None,
            });
            Err(failure)
        };
        if let Some(cause) = self.cancel.raised() {
            return unrun(self, CallError::Stopped(Stop::Killed(cause)).into());
        }
        let time = self.time().min(Duration::from_millis(step.timeout_ms().into()));
        if time.is_zero() {
            return unrun(self, CallError::Stopped(Stop::WallDeadline).into());
        }
        let executor = self.executor;
        let room = self.tokio.block_on(async {
            let audit = executor.parts.audit.room().await.map_err(audit_unavailable)?;
            let receipts = executor.parts.receipts.room().await.map_err(receipts_unavailable)?;
            Ok::<_, Denied>((audit, receipts))
        });
        let (slot, receipts) = match room {
            Ok(room) => room,
            Err(denied) => return unrun(self, StepFailure::Denied(denied)),
        };
        let (agent, registration) = match self.place(step) {
            Ok(placed) => placed,
            Err(denied) => return unrun(self, StepFailure::Denied(denied)),
        };
        let begun = Begun { at_ms: clock::unix_millis(), policy: agent.verdict().policy };
        let call = Call {
            input: input.clone(),
            lowered: Lowered { wall: Some(time), ..Lowered::default() },
            cancel: None,
        };
        let instance = registration.id;
        let ended = executor.run_instance(&agent, call, registration, None);
        let mut event = executor.execution_event(&agent, instance, &ended);
        event.detail = Some(format!("step {} of {}", step.name(), self.whole));
        slot.record(event);
        let receipt = executor.receipt(&agent, instance, begun, input, &ended);
        self.receipts.push(StepReceipt {
            instance: Some(instance.to_string()),
            name: step.name().to_owned(),
            reason: receipt.reason.clone(),
            receipt: receipt.to_entry().ok().map(|entry| ModuleDigest::of(&entry).to_string()),
        });
        receipts.record(instance, receipt);
        self.account(&ended);
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
            Err(error) => match agent.verdict().denied.filter(|_| error.code() == "revoked") {
                Some(denied) => Err(StepFailure::Denied(denied)),
                None => Err(error.into()),
            },
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
                self.held = self.held.saturating_sub(done.len());
            }
        }
        self.held = self.held.saturating_add(output.len());
        self.outputs.push(Some(output));
        if self.held > MAX_HELD { Err(StepFailure::Held { limit: MAX_HELD }) } else { Ok(()) }
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
                self.usage.dropped_log_lines += 1;
            }
        }
        let room = limits.metrics.saturating_sub(self.metrics.len());
        self.metrics.extend(metrics.into_iter().take(room));
    }
}
