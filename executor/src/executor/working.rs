//! The executor and the processes of its workers: linking there, what becomes of them, what the status says.

use std::sync::Arc;
use std::time::Duration;

use executor_api::TierStatus;
use executor_api::audit::AuditEvent;
use trust_store::policy::TrustLevel;

use super::Executor;
use crate::admission::{AdmittedModule, Denied, Isolation};
use crate::artifact::Loaded;
use crate::clock;
use crate::records::cut;
use crate::runtime::{PrepareError, Prepared};
use crate::worker::{ENFORCED, WorkerEvent};

/// Between two looks at every worker: whether it has no calls, or takes more than those were given.
const LOOK: Duration = Duration::from_secs(1);

impl Executor {
    /// Links loaded code: here, or in the worker of its signer, which may have to be started.
    pub(super) async fn link(&self, loaded: Loaded, admitted: &AdmittedModule) -> Result<Prepared, Denied> {
        let runtime = Arc::clone(&self.parts.runtime);
        let linked = match loaded {
            Loaded::Component(_) | Loaded::Core(_) => Prepared::new(&runtime, &loaded, admitted),
            Loaded::Sealed(_) => {
                let admitted = admitted.clone();
                tokio::task::spawn_blocking(move || Prepared::new(&runtime, &loaded, &admitted))
                    .await
                    .map_err(|error| {
                        Denied::new("internal", "the module was not linked").for_operator(error.to_string())
                    })?
            }
        };
        linked.map_err(|error| {
            let denied = Denied::new(error.code(), error.to_string());
            match error {
                PrepareError::Worker { detail, .. } => denied.for_operator(detail),
                _ => denied,
            }
        })
    }

    /// Records what becomes of workers from now on.
    pub(super) fn watch_workers(self: &Arc<Self>) {
        let Ok(workers) = self.parts.runtime.workers() else { return };
        let executor = Arc::downgrade(self);
        workers.listen(Box::new(move |event| {
            if let Some(executor) = executor.upgrade() {
                executor.worker_event(event);
            }
        }));
    }

    fn worker_event(&self, event: WorkerEvent) {
        match event {
            WorkerEvent::Started => self.parts.metrics.worker("started"),
            WorkerEvent::Ended => self.parts.metrics.worker("ended"),
            WorkerEvent::Lost { signer, why } => {
                self.parts.metrics.worker("lost");
                let signer = signer.subject();
                tracing::warn!(signer, why, "a worker process was lost");
                let event = AuditEvent {
                    event_type: "worker_lost".into(),
                    detail: Some(cut(&format!("{signer}: {why}"))),
                    ..AuditEvent::default()
                };
                // The calls that it had are on record with this reason as well; nothing runs while nothing can be recorded.
                if self.parts.audit.record(event).is_err() {
                    tracing::error!("the loss of a worker could not be recorded");
                }
            }
        }
    }

    /// Looks after workers until the process ends.
    pub(crate) async fn keep_workers(self: Arc<Self>) {
        let Ok(workers) = self.parts.runtime.workers().map(Arc::clone) else { return };
        loop {
            tokio::time::sleep(LOOK).await;
            let workers = Arc::clone(&workers);
            let _ = tokio::task::spawn_blocking(move || workers.look_after(clock::monotonic())).await;
        }
    }

    /// Processes of workers that run now.
    pub(crate) fn running_workers(&self) -> u64 {
        self.parts.runtime.workers().map_or(0, |workers| workers.running() as u64)
    }

    /// What each level of trust runs in, and what confines it.
    pub(super) fn tiers(&self) -> Vec<TierStatus> {
        let missing = self.parts.runtime.missing_workers();
        [TrustLevel::Signed, TrustLevel::Community, TrustLevel::Verified]
            .into_iter()
            .map(|level| {
                let isolation = Isolation::of(level);
                let (enforced, missing) = match (isolation, missing) {
                    (Isolation::SharedProcess, _) => (self.parts.confinement.enforced.clone(), None),
                    (Isolation::WorkerOfSigner, None) => {
                        (ENFORCED.iter().map(|name| (*name).to_owned()).collect(), None)
                    }
                    (Isolation::WorkerOfSigner, Some(why)) => (Vec::new(), Some(why.to_owned())),
                };
                TierStatus {
                    level: level.as_str().to_owned(),
                    isolation: isolation.as_str().to_owned(),
                    enforced,
                    missing,
                }
            })
            .collect()
    }
}
