//! The door of this crate's own tests.

use std::sync::Arc;

use executor_engine::ModuleDigest;

use super::Executor;
use crate::admission::AdmittedModule;
use crate::agents::{Agent, Verdict};
use crate::clock;
use crate::grace::Endings;
use crate::runtime::Prepared;

impl Executor {
    /// The door of this crate's own tests: an agent without a verdict.
    pub(crate) async fn admit_for_test(&self, admitted: AdmittedModule) -> ModuleDigest {
        let parts = &self.parts;
        let prepared = match Prepared::without_code(&parts.runtime, &admitted, parts.admission.containers()) {
            Some(prepared) => prepared,
            None => self.prepare(&admitted).await.expect("loads and prepares"),
        };
        let verdict = Verdict {
            denied: None,
            epoch: parts.collector.snapshot().epoch,
            at: clock::unix_seconds(),
            policy: [0; 32],
        };
        let attestation = crate::testing::attestation();
        let order = self.submissions.next_order();
        self.agents.insert(Arc::new(Agent::new(&admitted, prepared, attestation, order, verdict)));
        admitted.digest()
    }

    /// What a revocation of the signer leaves behind in a verdict.
    pub(crate) fn revoke_for_test(&self, id: &str, digest: &str) {
        let digest = ModuleDigest::parse(digest).expect("digest");
        let agent = self.agents.release(id, digest).expect("loaded");
        let denied = Some(crate::admission::Denied::in_step(12, "revoked", "revoked in a test"));
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
