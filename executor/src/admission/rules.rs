//! The trust policy in force.

use std::path::Path;

use service::StartRefusal;
use trust_store::capability::Capability;
use trust_store::policy::{CapabilityPolicy, TrustPolicy};
use trust_store::policy_document::MAX_POLICY_BYTES;

use crate::config::{policy_version, refuse_weak_policy};

/// A trust policy that this executor may decide by, and the digest of the text it was read from.
#[derive(Debug, Clone)]
pub struct Rules {
    policy: TrustPolicy,
    granted: Vec<Capability>,
    digest: [u8; 32],
}

impl Rules {
    /// Rules with this digest. A policy that leaves capabilities to others grants none.
    pub fn new(policy: TrustPolicy, digest: [u8; 32]) -> Self {
        let granted = match &policy.capabilities {
            CapabilityPolicy::Within(granted) => granted.clone(),
            CapabilityPolicy::LeftToTheExecutor => Vec::new(),
        };
        Self { policy, granted, digest }
    }

    /// Reads the policy file. Blocks.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is none, or is weaker than this executor allows.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let bytes = trust_store_files::atomic::read(path, MAX_POLICY_BYTES as u64).map_err(|error| {
            StartRefusal::new("the trust policy cannot be read", "check its path").because(error)
        })?;
        // The very bytes that are judged are the ones whose digest is recorded.
        Self::parse(&bytes).map_err(|refusal| refusal.within(&path.display().to_string()))
    }

    /// Reads a policy from its text.
    ///
    /// # Errors
    ///
    /// When it is none, or weaker than this executor allows.
    pub fn parse(bytes: &[u8]) -> Result<Self, StartRefusal> {
        let policy = trust_store_files::trust_files::parse_policy_document(bytes)
            .and_then(|document| document.validate())
            .map_err(|error| {
                let remedy = "docs/formats/policy.md shows every key";
                StartRefusal::new("the trust policy cannot be used", remedy).because(error)
            })?;
        refuse_weak_policy(&policy)?;
        Ok(Self::new(policy, policy_version(bytes)))
    }

    /// SHA-256 of the text: the policy's version in every decision.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(crate) fn policy(&self) -> &TrustPolicy {
        &self.policy
    }

    /// Capabilities granted to every admitted module that asks for them.
    pub(crate) fn granted(&self) -> &[Capability] {
        &self.granted
    }
}
