//! Admitted agents.
//!
//! What is admitted is a module under a signed manifest, so an agent is known by its id and its module's digest
//! together: two agents may share one module, and one agent may have releases of several modules loaded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use executor_engine::ModuleDigest;
use parking_lot::{Mutex, RwLock};
use trust_store::attestation::Attestation;
use trust_store::policy::TrustLevel;

use crate::admission::{AdmittedModule, Denied, Facts, GrantSet, Publisher};
use crate::grace::{Due, Ending, Endings, Grace};
use crate::metrics::{Series, size_bucket};
use crate::queue::Share;
use crate::records::{ReleaseTexts, not_loaded};
use crate::runtime::{AdmissionId, LiveInstances, Prepared};

/// One admitted agent. Its verdict is renewed; the rest never changes.
pub(crate) struct Agent {
    pub(crate) digest: ModuleDigest,
    /// `core`, `component`, `pipeline` or `container`.
    pub(crate) kind: &'static str,
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) attestation: Arc<Attestation>,
    /// SHA-256 of the granted capabilities, for receipts.
    pub(crate) grants_digest: String,
    /// What records say of it.
    pub(crate) texts: ReleaseTexts,
    /// The range that the module's size lies in.
    pub(crate) size_bucket: &'static str,
    /// What its calls are counted in, from the first one on.
    pub(crate) series: OnceLock<Series>,
    /// Place in the order of loads.
    pub(crate) order: u64,
    /// Its places for calls.
    pub(crate) share: Arc<Share>,
    /// The level it was admitted at: by it, it has what it has and runs where it runs.
    pub(crate) level: TrustLevel,
    judged: Mutex<Judged>,
    retired: AtomicBool,
}

/// A release as records name it. What was verified of it is known while it is loaded only: of one that waits since a start nothing is.
#[derive(Clone, Copy)]
pub(crate) struct Release<'a> {
    pub(crate) id: &'a str,
    pub(crate) digest: ModuleDigest,
    pub(crate) loaded: Option<&'a Agent>,
}

impl<'a> From<&'a Agent> for Release<'a> {
    fn from(agent: &'a Agent) -> Self {
        Self { id: agent.id(), digest: agent.digest, loaded: Some(agent) }
    }
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
    /// SHA-256 of the policy it was judged by.
    pub(crate) policy: [u8; 32],
}

/// The verdict, and what it leaves calls in flight.
struct Judged {
    verdict: Verdict,
    grace: Grace,
}

/// What a verdict that took the place of another one changes.
pub(crate) struct Renewed {
    /// Why calls were refused before, if they were.
    pub(crate) before: Option<Denied>,
    /// What is to be done about calls in flight.
    pub(crate) due: Due,
}

impl Agent {
    pub(crate) fn new(
        admitted: &AdmittedModule,
        prepared: Prepared,
        attestation: Arc<Attestation>,
        order: u64,
        verdict: Verdict,
    ) -> Self {
        let kind = admitted.content().as_str();
        Self {
            digest: admitted.digest(),
            kind,
            facts: Arc::clone(admitted.facts()),
            attestation,
            grants_digest: grants_digest(admitted.grants()),
            texts: ReleaseTexts::of(prepared.owner(), kind, admitted.facts(), prepared.grants()),
            size_bucket: size_bucket(admitted.module().len()),
            series: OnceLock::new(),
            order,
            share: prepared.share(),
            prepared: Arc::new(prepared),
            level: admitted.level(),
            judged: Mutex::new(Judged { verdict, grace: Grace::default() }),
            retired: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> &str {
        self.prepared.agent()
    }

    /// Who signed it.
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::new(&self.prepared.owner().signer, &self.facts.issuer)
    }

    pub(crate) fn admission(&self) -> AdmissionId {
        self.prepared.owner().admission
    }

    /// Whether it was unloaded or replaced. A call that is registered by the time this is false is seen by every
    /// later judgement.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.judged.lock().verdict.clone()
    }

    /// SHA-256 of the policy that the last verdict is by.
    pub(crate) fn policy(&self) -> [u8; 32] {
        self.judged.lock().verdict.policy
    }

    /// What ends calls in flight whose time is up by now, if it still does.
    pub(crate) fn over(&self, now: Instant) -> Option<Ending> {
        self.judged.lock().grace.over(now)
    }

    /// Replaces the verdict, with what ends calls in flight by it.
    ///
    /// # Errors
    ///
    /// When the one that is there is by newer evidence: why that one refuses calls, if it does.
    pub(crate) fn renew_verdict(
        &self,
        verdict: Verdict,
        endings: Endings,
        now: Instant,
    ) -> Result<Renewed, Option<Denied>> {
        let mut judged = self.judged.lock();
        if verdict.epoch < judged.verdict.epoch {
            return Err(judged.verdict.denied.clone());
        }
        let before = std::mem::replace(&mut judged.verdict, verdict).denied;
        Ok(Renewed { before, due: judged.grace.renew(endings, now) })
    }
}

/// Every agent of this executor.
#[derive(Default)]
pub(crate) struct Agents {
    inner: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    /// What a call by id runs: the release that was loaded last.
    by_id: HashMap<String, Arc<Agent>>,
    by_digest: HashMap<ModuleDigest, Vec<Arc<Agent>>>,
    /// Unloaded and replaced agents that instances may still run by.
    retired: Vec<Arc<Agent>>,
}

impl Agents {
    /// Adds an agent. The same release that was there before is replaced: calls in flight end by the old one, which
    /// stays under judgement until then.
    pub(crate) fn insert(&self, agent: Arc<Agent>) {
        let mut index = self.inner.write();
        index.take(agent.digest, |known| known.id() == agent.id());
        index.by_digest.entry(agent.digest).or_default().push(Arc::clone(&agent));
        if index.by_id.get(agent.id()).is_none_or(|newest| newest.order <= agent.order) {
            index.by_id.insert(agent.id().to_owned(), agent);
        }
    }

    /// Finds an agent: by id the release loaded last, by a module's digest the one agent that runs it.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Agent>, Denied> {
        let index = self.inner.read();
        match ModuleDigest::parse(name) {
            None => index.by_id.get(name).cloned().ok_or_else(|| not_loaded(name)),
            Some(digest) => match index.by_digest.get(&digest).map(Vec::as_slice) {
                Some([agent]) => Ok(Arc::clone(agent)),
                Some([_, _, ..]) => Err(ambiguous()),
                Some([]) | None => Err(not_loaded(name)),
            },
        }
    }

    /// One release of an agent.
    pub(crate) fn release(&self, id: &str, digest: ModuleDigest) -> Option<Arc<Agent>> {
        let index = self.inner.read();
        index.by_digest.get(&digest)?.iter().find(|agent| agent.id() == id).cloned()
    }

    /// Every agent that runs a module.
    pub(crate) fn of_module(&self, digest: ModuleDigest) -> Vec<Arc<Agent>> {
        self.inner.read().by_digest.get(&digest).cloned().unwrap_or_default()
    }

    /// Every loaded release of an agent.
    pub(crate) fn releases_of(&self, id: &str) -> Vec<Arc<Agent>> {
        let index = self.inner.read();
        index.by_digest.values().flatten().filter(|agent| agent.id() == id).cloned().collect()
    }

    /// Takes away every release of an id, or the one agent that runs a module.
    pub(crate) fn remove(&self, name: &str) -> Result<Vec<Arc<Agent>>, Denied> {
        let mut index = self.inner.write();
        let removed = match ModuleDigest::parse(name) {
            None => {
                let digests: Vec<ModuleDigest> = index.by_digest.keys().copied().collect();
                digests
                    .into_iter()
                    .flat_map(|digest| index.take(digest, |known| known.id() == name))
                    .collect()
            }
            Some(digest) => match index.by_digest.get(&digest).map_or(0, Vec::len) {
                0 | 1 => index.take(digest, |_| true),
                _ => return Err(ambiguous()),
            },
        };
        if removed.is_empty() { Err(not_loaded(name)) } else { Ok(removed) }
    }

    /// Takes away one release of an agent.
    pub(crate) fn remove_release(&self, id: &str, digest: ModuleDigest) -> Result<Vec<Arc<Agent>>, Denied> {
        let removed = self.inner.write().take(digest, |known| known.id() == id);
        if removed.is_empty() { Err(not_loaded(&digest.to_string())) } else { Ok(removed) }
    }

    /// Every loaded agent, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        let mut all: Vec<Arc<Agent>> = self.inner.read().by_digest.values().flatten().cloned().collect();
        all.sort_by(|a, b| (a.id(), a.order).cmp(&(b.id(), b.order)));
        all
    }

    /// Every agent that something runs or may run by: the loaded ones, and those retired ones that calls in flight
    /// still use.
    pub(crate) fn judged(&self, live: &LiveInstances) -> Vec<Arc<Agent>> {
        let mut judged = self.all();
        let mut index = self.inner.write();
        index.retired.retain(|agent| live.has(agent.admission()));
        judged.extend(index.retired.iter().cloned());
        judged
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.read().by_digest.values().map(Vec::len).sum()
    }
}

impl Index {
    /// Retires the agents of a module that `fits` names.
    fn take(&mut self, digest: ModuleDigest, fits: impl Fn(&Agent) -> bool) -> Vec<Arc<Agent>> {
        let Some(agents) = self.by_digest.get_mut(&digest) else { return Vec::new() };
        let (taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(agents).into_iter().partition(|known| fits(known));
        if kept.is_empty() {
            self.by_digest.remove(&digest);
        } else {
            *agents = kept;
        }
        for agent in &taken {
            agent.retired.store(true, Ordering::Release);
            if self.by_id.get(agent.id()).is_some_and(|newest| Arc::ptr_eq(newest, agent)) {
                let others = self.by_digest.values().flatten().filter(|other| other.id() == agent.id());
                match others.max_by_key(|other| other.order).cloned() {
                    Some(other) => self.by_id.insert(agent.id().to_owned(), other),
                    None => self.by_id.remove(agent.id()),
                };
            }
        }
        self.retired.extend(taken.iter().cloned());
        taken
    }
}

pub(crate) fn ambiguous() -> Denied {
    Denied::new("ambiguous_digest", "several agents run this module; name the agent's id")
}

fn grants_digest(grants: &GrantSet) -> String {
    let text: String = grants.granted().iter().map(|capability| format!("{capability}\n")).collect();
    ModuleDigest::of(text.as_bytes()).to_string()
}
