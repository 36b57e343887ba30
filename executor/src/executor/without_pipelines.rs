//! Pipelines in a build without the feature `pipelines`: admission lets none in, so there is none to run.

use std::sync::Arc;

use tokio::runtime::Handle;
use trust_store::pipeline::Pipeline;

use super::Executor;
use crate::admission::{AdmittedModule, Denied, Submission};
use crate::agents::Agent;
use crate::features::Feature;
use crate::runtime::{Call, Ended, Registration};

impl Executor {
    /// As `admit`: no release is composed of others.
    pub(super) async fn admit_whole(
        &self,
        submission: &Submission,
        order: u64,
    ) -> Result<Arc<Agent>, Denied> {
        self.admit(submission, order).await
    }

    /// As `judge`: no release is composed of others.
    pub(super) async fn judge_whole(&self, submission: &Submission) -> Result<AdmittedModule, Denied> {
        self.judge(submission).await.map(|(admitted, _)| admitted)
    }

    /// None may.
    pub(super) fn steps_may_run(&self, _: &Pipeline) -> Result<(), Denied> {
        Err(Feature::Pipelines.denied())
    }

    /// Runs none.
    pub(super) fn run_pipeline(
        &self,
        _: &Handle,
        agent: &Agent,
        _: &Pipeline,
        call: Call,
        registration: Registration,
    ) -> Ended {
        // The engine refuses what is no module.
        self.parts.runtime.call_registered(&agent.prepared, call, registration, None)
    }
}
