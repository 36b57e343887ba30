//! What is known of a module that was admitted.

use std::sync::Arc;

use bytes::Bytes;
use executor_engine::ModuleDigest;
use trust_store::policy::TrustLevel;

use super::{AdmittedModule, Content, Facts, GrantSet, Isolation, Owner, SignerKey};
#[cfg(test)]
use crate::runtime::AdmissionId;
use crate::runtime::CallLimits;

impl AdmittedModule {
    /// Digest of the module.
    pub fn digest(&self) -> ModuleDigest {
        self.digest
    }

    /// What it is made of.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Agent id, digest and signer.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// The level it reached.
    pub fn level(&self) -> TrustLevel {
        self.level
    }

    /// Where it runs.
    pub fn isolation(&self) -> Isolation {
        Isolation::of(self.level)
    }

    /// Whose modules it may share a process with.
    pub(crate) fn signer_key(&self) -> &SignerKey {
        &self.signer
    }

    /// What it may do.
    pub fn grants(&self) -> &Arc<GrantSet> {
        &self.grants
    }

    /// What one call of it may use.
    pub fn limits(&self) -> &CallLimits {
        &self.limits
    }

    /// What was verified.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// SHA-256 of the policy it was admitted by.
    pub fn policy(&self) -> &[u8; 32] {
        &self.policy
    }

    pub(crate) fn module(&self) -> &Bytes {
        &self.module
    }

    /// The same admission under another agent id and signer.
    #[cfg(test)]
    pub(crate) fn called(mut self, agent: &str, signer: &str) -> Self {
        let owner = Owner {
            admission: AdmissionId::next(),
            agent: agent.into(),
            digest: self.digest,
            signer: signer.into(),
        };
        self.signer = SignerKey::for_test(signer, self.level);
        self.owner = Arc::new(owner);
        self
    }

    /// The same admission at another level.
    #[cfg(test)]
    pub(crate) fn at(mut self, level: TrustLevel) -> Self {
        self.level = level;
        self.signer = SignerKey::for_test(&self.owner.signer, level);
        self.facts = Arc::new(Facts { trust_level: level.as_str(), ..(*self.facts).clone() });
        self
    }

    /// The door of this crate's own tests.
    #[cfg(test)]
    pub(crate) fn for_test(module: Vec<u8>, grants: GrantSet, limits: CallLimits) -> Self {
        let digest = ModuleDigest::of(&module);
        Self {
            digest,
            content: Content::for_test(&module),
            module: module.into(),
            owner: Arc::new(Owner {
                admission: AdmissionId::next(),
                agent: "test.agent".into(),
                digest,
                signer: "test@example.org".into(),
            }),
            signer: SignerKey::for_test("test@example.org", TrustLevel::Verified),
            grants: Arc::new(grants),
            limits,
            policy: [0; 32],
            level: TrustLevel::Verified,
            facts: Arc::new(Facts {
                version: "1.0.0".into(),
                issuer: String::new(),
                trust_level: "verified",
                log_index: None,
                permitted: Vec::new(),
            }),
        }
    }
}

impl super::Submission {
    /// What a test rules to be in order: admitted without grants.
    #[cfg(test)]
    pub(super) fn admitted_for_test(&self) -> AdmittedModule {
        AdmittedModule::for_test(self.module.to_vec(), GrantSet::default(), CallLimits::default())
            .called(self.agent(), "test@example.org")
    }
}
