//! The route of one agent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use executor_api::deployment::{Candidate, Deployment, Phase};
use executor_engine::ModuleDigest;
use serde::{Deserialize, Serialize};

use super::counts::{Counters, Counts, Result as CallResult};
use super::plan::{Decision, Plan};
use crate::clock;

/// Releases that can be returned to.
const MAX_HISTORY: usize = 8;

/// Who serves an agent's calls.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) stable: ModuleDigest,
    pub(crate) taking: Option<Arc<Taking>>,
    /// What served everything before, the latest last.
    pub(crate) history: Vec<ModuleDigest>,
    /// What happened last.
    pub(crate) last: String,
}

/// A release that takes over.
#[derive(Debug)]
pub(crate) struct Taking {
    pub(crate) digest: ModuleDigest,
    pub(crate) plan: Plan,
    pub(crate) step: usize,
    began: Instant,
    /// What calls of the old release took in an earlier step.
    usual: Option<Duration>,
    old: Counters,
    new: Counters,
}

/// The release that serves one call.
pub(crate) struct Served {
    pub(crate) route: Arc<Route>,
    pub(crate) digest: ModuleDigest,
}

impl Served {
    /// Which release.
    pub(crate) fn digest(&self) -> ModuleDigest {
        self.digest
    }
}

/// What is kept of a route.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredRoute {
    stable: String,
    history: Vec<String>,
    taking: Option<StoredTaking>,
    last: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTaking {
    digest: String,
    plan: Plan,
    step: usize,
}

impl Taking {
    pub(crate) fn new(digest: ModuleDigest, plan: Plan, step: usize) -> Self {
        Self {
            digest,
            plan,
            step,
            began: clock::monotonic(),
            usual: None,
            old: Counters::default(),
            new: Counters::default(),
        }
    }

    pub(crate) fn percent(&self) -> u8 {
        self.plan.percent(self.step)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.new.read()
    }

    pub(crate) fn judge(&self) -> Decision {
        let elapsed = clock::monotonic().saturating_duration_since(self.began);
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let old = self.old.read();
        self.plan.judge(self.step, elapsed, self.plan.usual(&old, self.usual), &old, &self.new.read())
    }

    /// The same release with its next share, counted anew.
    pub(crate) fn advanced(&self) -> Self {
        let usual = self.plan.usual(&self.old.read(), self.usual);
        Self { usual, ..Self::new(self.digest, self.plan.clone(), self.step + 1) }
    }
}

impl Served {
    /// Notes that a call of this release begins. One of the three below follows.
    pub(crate) fn begin(&self) {
        if let Some(counters) = self.counters() {
            counters.begin();
        }
    }

    /// Counts a call that this release served.
    pub(crate) fn count(&self, result: CallResult, took: Duration) {
        if let Some(counters) = self.counters() {
            counters.add(result, took);
            counters.end();
        }
    }

    /// Counts a call whose caller gave up, apart: a release that never answers would have no calls by which to be judged.
    pub(crate) fn count_abandoned(&self, took: Duration) {
        if let Some(counters) = self.counters() {
            counters.abandon(took);
            counters.end();
        }
    }

    /// Ends a call that says nothing about its release.
    pub(crate) fn count_nothing(&self) {
        if let Some(counters) = self.counters() {
            counters.end();
        }
    }

    fn counters(&self) -> Option<&Counters> {
        let taking = self.route.taking.as_ref()?;
        Some(if self.digest == taking.digest { &taking.new } else { &taking.old })
    }
}

impl Route {
    /// One release serves everything.
    pub(crate) fn stable(stable: ModuleDigest, last: &str) -> Self {
        Self { stable, taking: None, history: Vec::new(), last: last.to_owned() }
    }

    /// The same with a release that takes over.
    pub(crate) fn with(&self, taking: Taking, last: &str) -> Self {
        Self { taking: Some(Arc::new(taking)), last: last.to_owned(), ..self.clone() }
    }

    /// The same without the release that took over.
    pub(crate) fn without(&self, last: &str) -> Self {
        Self { taking: None, last: last.to_owned(), ..self.clone() }
    }

    /// Another release serves everything; this one can be returned to.
    pub(crate) fn promoted(&self, digest: ModuleDigest, last: &str) -> Self {
        let mut history = self.history.clone();
        history.retain(|known| *known != digest && *known != self.stable);
        history.push(self.stable);
        let surplus = history.len().saturating_sub(MAX_HISTORY);
        history.drain(..surplus);
        Self { stable: digest, taking: None, history, last: last.to_owned() }
    }

    /// A release of the history serves everything again; the one that served is not returned to by itself.
    pub(crate) fn returned(&self, digest: ModuleDigest, last: &str) -> Self {
        let mut history = self.history.clone();
        history.retain(|known| *known != digest);
        Self { stable: digest, taking: None, history, last: last.to_owned() }
    }

    /// The release for one call. The share is of a number that depends on the agent, the release that takes over and the
    /// caller's session: a caller stays where it is, and a larger share keeps those of the smaller one.
    pub(super) fn choose(
        &self,
        agent: &str,
        session: Option<&str>,
        count: impl FnOnce() -> u64,
    ) -> ModuleDigest {
        let Some(taking) = &self.taking else { return self.stable };
        let percent = u64::from(taking.percent());
        if percent >= 100 {
            return taking.digest;
        }
        let place = match session {
            Some(session) => {
                let text = [agent.as_bytes(), b"\0", &taking.digest.0, session.as_bytes()].concat();
                let hash = digest(&SHA256, &text);
                let first = hash.as_ref().first_chunk::<8>().copied().unwrap_or_default();
                u64::from_be_bytes(first) % 100
            }
            // 61 is coprime to 100: every hundred calls meet each place once, and neighbours are far apart.
            None => count().wrapping_mul(61) % 100,
        };
        if place < percent { taking.digest } else { self.stable }
    }

    /// The form for answers.
    pub(crate) fn describe(&self, agent: &str) -> Deployment {
        let candidate = self.taking.as_ref().map(|taking| {
            let counts = taking.counts();
            Candidate {
                digest: taking.digest.to_string(),
                strategy: taking.plan.strategy,
                percent: taking.percent(),
                calls: counts.calls,
                failed: counts.failed,
            }
        });
        Deployment {
            agent: agent.to_owned(),
            phase: if candidate.is_some() { Phase::Progressing } else { Phase::Stable },
            stable: self.stable.to_string(),
            candidate,
            history: self.history.iter().map(ToString::to_string).collect(),
            last: self.last.clone(),
        }
    }

    pub(super) fn stored(&self) -> StoredRoute {
        StoredRoute {
            stable: self.stable.to_string(),
            history: self.history.iter().map(ToString::to_string).collect(),
            taking: self.taking.as_ref().map(|taking| StoredTaking {
                digest: taking.digest.to_string(),
                plan: taking.plan.clone(),
                step: taking.step,
            }),
            last: self.last.clone(),
        }
    }

    /// A route of the last run. What takes over keeps its share and is counted anew.
    pub(super) fn restored(stored: StoredRoute) -> Option<Self> {
        let taking = match stored.taking {
            None => None,
            Some(taking) if taking.step < taking.plan.steps.len() => {
                Some(Arc::new(Taking::new(ModuleDigest::parse(&taking.digest)?, taking.plan, taking.step)))
            }
            Some(_) => return None,
        };
        Some(Self {
            stable: ModuleDigest::parse(&stored.stable)?,
            taking,
            history: stored.history.iter().map(|text| ModuleDigest::parse(text)).collect::<Option<_>>()?,
            last: stored.last,
        })
    }
}
