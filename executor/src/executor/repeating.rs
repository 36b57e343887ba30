//! Calls with an idempotency key: made once, and answered as often as they are asked for.
//!
//! Whoever gives a key means to ask again when the answer does not reach him, so that such a call does not end with its
//! caller's connection. A repetition makes nothing run: it waits for the first call if need be, no longer than its own
//! deadline, and gets what that one got. What an agent answered is not handed out any more once the agent may not run.

use std::sync::Arc;

use bytes::Bytes;
use executor_engine::ModuleDigest;

use super::Executor;
use super::calling::{Executed, Terms};
use crate::abi::sinks::{LogRecord, MetricRecord};
use crate::admission::Denied;
use crate::clock;
use crate::idempotency::{Coming, First, Key, Request, Told};
use crate::runtime::{InstanceId, Said};

/// What is kept of a call.
#[derive(Debug)]
pub(crate) struct Repeatable {
    /// The release that ran, if one did: the agent's id and the module.
    ran: Option<(String, ModuleDigest)>,
    result: Result<Executed, Denied>,
}

impl Executor {
    /// Runs an agent once, or gives the answer of the run that there was under this key.
    pub(super) async fn execute_once(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        terms: Terms,
        key: &str,
    ) -> Result<Executed, Denied> {
        let key = Key::of(&terms.caller, key)?;
        let request = Request::of(name, terms.session.as_deref(), &input);
        let metrics = &self.parts.metrics;
        let coming = self.answers.come(key, request, input.len(), clock::monotonic());
        match coming.inspect_err(|denied| metrics.keyed_call(denied.code))? {
            Coming::First(first) => {
                metrics.keyed_call("first");
                let (executor, name) = (Arc::clone(self), name.to_owned());
                // The caller may go away; what it began, it asks for again.
                let made = tokio::spawn(async move { executor.make(&name, input, terms, first).await });
                let answer = made.await.map_err(|error| {
                    Denied::new("internal", "the call failed").for_operator(error.to_string())
                })?;
                answer.result.clone()
            }
            Coming::Again(again) => {
                let told = match terms.deadline {
                    None => again.told().await,
                    Some(deadline) => tokio::time::timeout(deadline, again.told()).await.map_err(|_| {
                        let text = "the call under this idempotency key has not ended yet; ask again";
                        Denied::new("deadline_exceeded", text)
                    })?,
                };
                let (answer, counted) = match told {
                    Told::Answer(answer) => (self.answer_again(&answer), "repeated"),
                    Told::NotKept(instance) => (Err(not_kept(instance)), "answer_not_kept"),
                };
                metrics.keyed_call(counted);
                answer
            }
        }
    }

    /// Makes the first call of a key, whoever still waits for it.
    async fn make(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        terms: Terms,
        first: First<Repeatable>,
    ) -> Arc<Repeatable> {
        let running = match self.begin(name, input, terms, None).await {
            Ok(running) => running,
            Err(denied) => {
                let answer = Arc::new(Repeatable { ran: None, result: Err(denied) });
                first.did_not_run(Arc::clone(&answer));
                return answer;
            }
        };
        let release = (running.agent().id().to_owned(), running.agent().digest);
        let (result, ran) = running.ended_and_ran().await;
        let answer = Arc::new(Repeatable { ran: ran.then_some(release), result });
        if ran {
            first.ran(Arc::clone(&answer), answer.instance(), answer.size(), clock::monotonic());
        } else {
            first.did_not_run(Arc::clone(&answer));
        }
        answer
    }

    fn answer_again(&self, answer: &Repeatable) -> Result<Executed, Denied> {
        // However it ended: what a guest said before it failed is its word as well as its output is.
        if let Some((id, digest)) = &answer.ran {
            self.may_be_told(id, *digest)?;
        }
        let executed = answer.result.as_ref().map_err(Denied::clone)?;
        Ok(Executed { repeated: true, ..executed.clone() })
    }

    /// Whether what a release said may be handed out later: only while it is loaded and may run, and so may the steps of a
    /// pipeline.
    pub(super) fn may_be_told(&self, id: &str, digest: ModuleDigest) -> Result<(), Denied> {
        let agent = self.release_of(id, digest)?;
        self.may_run(&agent)?;
        agent.prepared.pipeline().map_or(Ok(()), |pipeline| self.steps_may_run(pipeline))
    }
}

impl Repeatable {
    fn instance(&self) -> Option<InstanceId> {
        instance_of(&self.result)
    }

    /// Bytes that it takes.
    fn size(&self) -> usize {
        size_of_result(&self.result)
    }
}

/// The instance that a result is of, if something ran.
pub(crate) fn instance_of(result: &Result<Executed, Denied>) -> Option<InstanceId> {
    match result {
        Ok(executed) => Some(executed.outcome.instance),
        Err(denied) => denied.said.as_ref().map(|said| said.instance),
    }
}

/// Bytes that a result takes while it is kept.
pub(crate) fn size_of_result(result: &Result<Executed, Denied>) -> usize {
    let (output, log, metrics): (usize, &[LogRecord], &[MetricRecord]) = match result {
        Ok(executed) => {
            let outcome = &executed.outcome;
            (outcome.output.capacity(), outcome.log.as_slice(), outcome.metrics.as_slice())
        }
        Err(denied) => match denied.said.as_deref() {
            Some(Said { log, metrics, .. }) => (denied.message.len(), log.as_slice(), metrics.as_slice()),
            None => (denied.message.len(), &[], &[]),
        },
    };
    let lines = log.iter().map(|line| line.text.len() + size_of::<LogRecord>()).sum::<usize>();
    let values = metrics.iter().map(|metric| metric.name.len() + size_of::<MetricRecord>());
    output.saturating_add(lines).saturating_add(values.sum())
}

/// A call whose result had to make room for those of others, whether it is asked for again or was never read.
pub(crate) fn not_kept(instance: Option<InstanceId>) -> Denied {
    let text = "this call ran, and its result is kept no longer; it is not made again";
    let said = instance.map(|instance| Box::new(Said { instance, log: Vec::new(), metrics: Vec::new() }));
    Denied { said, ..Denied::new("answer_not_kept", text) }
}
