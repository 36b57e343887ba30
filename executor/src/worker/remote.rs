//! A call whose guest runs in a worker.
//!
//! The state of the call is the executor's own, and so is every decision: limits, streams, digests, grants, log lines, times.
//! What the worker says is a question, or an end that is cut to those limits.

use std::sync::Arc;
use std::time::Duration;

use executor_engine::frames::{GuestLimits, Order, Trial};
use executor_engine::job::ModuleKind;
use trust_store::capability::Capability;

use super::limits;
use super::process::{Hindrance, Impatience, Load, Process};
use super::talk::{Carried, Talk};
use super::workers::{Slot, Workers};
use crate::artifact_map::Sealed;
use crate::clock;
use crate::queue::Share;
use crate::runtime::{CallError, CallLimits, GuestState, PrepareError};

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
        // Nobody's call: what it waits for ends by itself.
        let patient: Impatience<'_> = &|| None;
        let failed =
            |error: CallError| PrepareError::Worker { code: error.code(), detail: detail_of(&error) };
        let process = self.workers.enter(&self.slot, patient).map_err(failed)?;
        match process.load(self.order(), patient) {
            Ok(()) => Ok(()),
            Err(Hindrance::Refused(why)) => Err(why),
            Err(Hindrance::Gone(gone)) => Err(failed(self.lost(&process, &gone.to_string()))),
            Err(Hindrance::Stopped(stop)) => Err(failed(stop.into())),
        }
    }

    fn order(&self) -> Load {
        let order = Order::Load {
            module: self.module,
            length: self.code.length(),
            kind: self.kind,
            limits: self.limits,
            grants: self.grants.iter().map(String::as_str).collect(),
        };
        Load { module: self.module, order: order.encode(), code: Arc::clone(&self.code) }
    }

    /// A worker that could not be kept.
    fn lost(&self, process: &Arc<Process>, why: &str) -> CallError {
        CallError::WorkerLost { detail: self.workers.lose(&self.slot, process, why) }
    }

    /// Runs the guest of `state` to its end: its exit code. Everything else is in the state.
    pub(crate) fn run(&self, state: &mut GuestState, trial: Trial) -> Result<i32, CallError> {
        let stopped = || state.ended_from_outside();
        let process = self.workers.enter(&self.slot, &stopped)?;
        match process.load(self.order(), &stopped) {
            Ok(()) => {}
            Err(Hindrance::Refused(why)) => return Err(CallError::Host { detail: why.to_string() }),
            Err(Hindrance::Gone(gone)) => return Err(self.lost(&process, &gone.to_string())),
            Err(Hindrance::Stopped(stop)) => return Err(stop.into()),
        }
        let Some((lane, call)) = process.take_lane() else {
            return Err(CallError::Pool { detail: "every lane of the worker is in use".into() });
        };
        let began = clock::monotonic();
        let account = process.open_account(state.cpu_budget());
        let (number, mut talk) = (lane.number, Talk::new(&process, lane, call, &account));
        let carried = talk.carry(self.module, state, trial);
        process.close_account(&account);
        let used = process.used_since(&account);
        state.charge(charged(used, clock::monotonic().saturating_duration_since(began), state.cpu_budget()));
        match carried {
            Carried::Over(result) => {
                process.give_back(talk.into_lane());
                self.slot.served();
                result
            }
            Carried::Lost(why, stopped) => {
                let lost = self.lost(&process, &format!("lane {number}: {why}"));
                Err(stopped.map_or(lost, CallError::Stopped))
            }
        }
    }
}

/// What a call in a worker is charged with: what the process used by the kernel's account, which other calls may have used as well, and
/// so no more than one thread could have in that time. One whose account can be read no more may have used all of it.
fn charged(used: Option<Duration>, took: Duration, budget: Duration) -> Duration {
    used.unwrap_or(Duration::MAX).min(took).min(budget)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_charged_with_what_it_can_have_used_and_not_with_what_its_worker_says() {
        let [one, two, three] = [1, 2, 3].map(Duration::from_secs);
        assert_eq!(charged(Some(one), two, three), one);
        assert_eq!(charged(Some(three), two, three), two, "others ran in the same process");
        assert_eq!(charged(Some(three), three, two), two);
        assert_eq!(charged(Some(Duration::ZERO), three, three), Duration::ZERO, "it slept");
        assert_eq!(charged(None, one, three), one, "the process is gone, and its account with it");
    }
}
