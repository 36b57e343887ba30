//! The door of this crate's own tests.

use std::sync::Arc;

use bytes::Bytes;
use executor_api::AgentSummary;
use executor_engine::ModuleDigest;

use super::Executor;
use crate::admission::{AdmittedModule, Denied};
use crate::agents::{Agent, Verdict};
use crate::clock;
use crate::grace::Endings;
use crate::submissions::Stored;

impl Executor {
    /// The door of this crate's own tests: an agent without a verdict.
    pub(crate) async fn admit_for_test(&self, admitted: AdmittedModule) -> ModuleDigest {
        let digest = admitted.digest();
        self.agents.insert(self.ready_for_test(&admitted).await.expect("loads and prepares"));
        digest
    }

    /// The same through everything that follows a verdict at a load: counted, kept and on record, also where it is refused.
    pub(crate) async fn load_for_test(
        self: &Arc<Self>,
        admitted: AdmittedModule,
    ) -> Result<AgentSummary, Denied> {
        self.load_by_for_test(admitted, "").await
    }

    /// The same by a manifest, which nobody reads before the next start.
    pub(crate) async fn load_by_for_test(
        self: &Arc<Self>,
        admitted: AdmittedModule,
        manifest: &str,
    ) -> Result<AgentSummary, Denied> {
        let module = Bytes::copy_from_slice(admitted.module());
        let stored = |order| Stored { order, manifest: manifest.to_owned(), attestation: None, module };
        self.conclude(self.ready_for_test(&admitted).await, stored).await
    }

    async fn ready_for_test(&self, admitted: &AdmittedModule) -> Result<Arc<Agent>, Denied> {
        let epoch = self.parts.collector.snapshot().epoch;
        let verdict = Verdict { denied: None, epoch, at: clock::unix_seconds(), policy: [0; 32] };
        self.make_ready(admitted, crate::testing::attestation(), self.submissions.next_order(), verdict).await
    }

    /// What a revocation of the signer leaves behind in a verdict.
    pub(crate) fn revoke_for_test(&self, id: &str, digest: &str) {
        let digest = ModuleDigest::parse(digest).expect("digest");
        let agent = self.agents.release(id, digest).expect("loaded");
        let denied = Some(Denied::in_step(12, "revoked", "revoked in a test"));
        let epoch = self.parts.collector.snapshot().epoch;
        let verdict = Verdict { denied, epoch, at: clock::unix_seconds(), policy: [0; 32] };
        assert!(agent.renew_verdict(verdict, Endings::default(), clock::monotonic()).is_ok());
    }

    /// Lets every release that came through this door be admitted again.
    pub(crate) fn judge_well_for_test(&self) {
        *self.parts.admission.ruling.lock() = Some(Box::new(|_| Ok(())));
    }

    /// Makes the audit log refuse records.
    pub(crate) fn fail_audit_for_test(&self) {
        self.parts.audit.fail_for_test();
    }
}
