//! Admitted agents: by digest, and by the id under which the last one was loaded.

use std::collections::HashMap;
use std::sync::Arc;

use executor_engine::ModuleDigest;
use parking_lot::{Mutex, RwLock};
use trust_store::attestation::Attestation;

use crate::admission::{AdmittedModule, Denied, Facts};
use crate::runtime::Prepared;

/// One admitted agent. Its verdict is renewed; the rest never changes.
pub(crate) struct Agent {
    pub(crate) digest: ModuleDigest,
    pub(crate) kind: executor_engine::job::ModuleKind,
    pub(crate) prepared: Prepared,
    pub(crate) facts: Arc<Facts>,
    pub(crate) attestation: Arc<Attestation>,
    verdict: Mutex<Verdict>,
}

/// The last judgement of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// Why calls are refused now, if they are.
    pub(crate) denied: Option<Denied>,
    /// Epoch of the evidence it was judged by.
    pub(crate) epoch: u64,
    /// When, seconds since 1970.
    pub(crate) at: i64,
}

impl Agent {
    pub(crate) fn new(
        admitted: &AdmittedModule,
        prepared: Prepared,
        attestation: Arc<Attestation>,
        verdict: Verdict,
    ) -> Self {
        Self {
            digest: admitted.digest(),
            kind: admitted.kind(),
            prepared,
            facts: Arc::clone(admitted.facts()),
            attestation,
            verdict: Mutex::new(verdict),
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict.lock().clone()
    }

    pub(crate) fn set_verdict(&self, verdict: Verdict) {
        *self.verdict.lock() = verdict;
    }
}

/// Every agent of this executor.
#[derive(Default)]
pub(crate) struct Agents {
    inner: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    by_digest: HashMap<ModuleDigest, Arc<Agent>>,
    by_id: HashMap<String, ModuleDigest>,
}

impl Agents {
    pub(crate) fn insert(&self, agent: Arc<Agent>) {
        let mut index = self.inner.write();
        index.by_id.insert(agent.prepared.agent().to_owned(), agent.digest);
        index.by_digest.insert(agent.digest, agent);
    }

    /// Finds an agent by id or digest text.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Agent>> {
        let index = self.inner.read();
        let digest = ModuleDigest::parse(name).or_else(|| index.by_id.get(name).copied())?;
        index.by_digest.get(&digest).cloned()
    }

    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Agent>> {
        let mut index = self.inner.write();
        let digest = ModuleDigest::parse(name).or_else(|| index.by_id.get(name).copied())?;
        index.by_id.retain(|_, known| *known != digest);
        index.by_digest.remove(&digest)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        let mut all: Vec<Arc<Agent>> = self.inner.read().by_digest.values().cloned().collect();
        all.sort_by(|a, b| (a.prepared.agent(), a.digest).cmp(&(b.prepared.agent(), b.digest)));
        all
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.read().by_digest.len()
    }
}
