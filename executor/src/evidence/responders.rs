//! OCSP responders (RFC 6960), asked in the background about the certificates of agents.
//!
//! Asked are the responders that verified chains name, at addresses below the operator's `status_bases` only, and the operator's own
//! for certificates that name none there. An answer counts once the certificate's issuer or its delegate signed it, and replaces only
//! an older one: neither what stands on the way nor a stale mirror makes a known revocation forgotten. What it says is the verifier's
//! to weigh.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor_engine::ModuleDigest;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use trust_store::attestation::Attestation;
use trust_store::evidence::Evidence;
use trust_store::ocsp_request::{MEDIA_TYPE, request, responders};
use trust_store::revocation::Answers;
use trust_store::verifier::{ArtifactDigest, Deciding, Verifier};
use trust_store::{Certificate, UnixTime};

use self::answer::{Answer, Reply, Unanswered, read};
use super::crls::{begins_with, cause};
use super::{EvidenceConfig, OcspMode, Source};
use crate::clock;

mod answer;

/// Most certificates that are asked about; further ones have no answer, which denies where the policy demands one.
const MAX_QUESTIONS: usize = 4096;

/// Most certificates that are kept only because they were found revoked.
const MAX_REMEMBERED: usize = 1024;

/// Certificates of the last uploads that are asked about although they are no agent's (yet).
const MAX_CANDIDATES: usize = 1024;

/// Most certificates of one upload.
const MAX_PER_UPLOAD: usize = 32;

/// Requests at the same time.
const AT_ONCE: usize = 16;

/// How many requests' time one round may take; whoever was not asked is first in the next.
const PATIENCE: u32 = 4;

/// How long no upload waits for a responder that did not answer.
const SILENCE: Duration = Duration::from_secs(30);

/// The shortest time between two rounds.
const SHORTEST: Duration = Duration::from_secs(1);

/// The shortest time from the beginning of one round to one that somebody rang for: an event log may grow all the time.
const REST: Duration = Duration::from_secs(5);

/// Largest answer that is read, bytes: one certificate's status, a signature and its signer's certificate.
const MAX_ANSWER_BYTES: usize = 32 << 10;

/// SHA-256 of a certificate.
type Fingerprint = [u8; 32];

/// A question under the certificate that it is about.
pub(super) type Filed = (Fingerprint, Question);

/// What is asked, of whom, and what was answered.
pub(super) struct Responders {
    verifier: Verifier,
    http: reqwest::Client,
    mode: OcspMode,
    bases: Vec<String>,
    own: Option<Arc<str>>,
    patience: Duration,
    state: Mutex<State>,
    /// Held during a round.
    round: tokio::sync::Mutex<()>,
    rung: Notify,
}

#[derive(Default)]
struct State {
    questions: BTreeMap<Fingerprint, Question>,
    /// The certificates of each agent, by the address of its attestation, which is held so that no other gets the address.
    agents: HashMap<usize, (Arc<Attestation>, Vec<Fingerprint>)>,
    candidates: VecDeque<Fingerprint>,
    /// Responders that did not answer, and since when.
    silent: BTreeMap<Arc<str>, Instant>,
    /// When the last round began.
    began: Option<Instant>,
}

/// One certificate that somebody is asked about.
#[derive(Clone)]
pub(super) struct Question {
    url: Arc<str>,
    whose: Whose,
    certificate: Certificate,
    issuer: Certificate,
    der: Bytes,
    answer: Option<Answer>,
    /// When an answer came last, seconds since 1970.
    answered_at: Option<i64>,
    /// When it was last tried, on the monotonic clock.
    tried_at: Option<Instant>,
    problem: String,
}

/// Who chose the responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The certificate names it. That it is not authoritative is a fault.
    Certificates,
    /// The operator, for certificates that name none; it need not speak for every issuer.
    Operators,
}

/// How many certificates are asked about, and how many of them nobody has answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// All.
    pub(crate) certificates: u64,
    /// Those without an answer that is current.
    pub(crate) unanswered: u64,
}

impl Responders {
    pub(super) fn new(verifier: Verifier, http: reqwest::Client, config: &EvidenceConfig) -> Self {
        Self {
            verifier,
            http,
            mode: config.ocsp,
            bases: config.status_bases.clone(),
            own: config.ocsp_responder.as_deref().map(Arc::from),
            patience: config.timeout.saturating_mul(PATIENCE),
            state: Mutex::default(),
            round: tokio::sync::Mutex::default(),
            rung: Notify::new(),
        }
    }

    /// Something was revoked: the next round does not wait for its time.
    pub(super) fn ring(&self) {
        self.rung.notify_one();
    }

    /// Until the next round is due: after the interval, before an answer ends, or when somebody rings.
    pub(super) async fn due(&self, interval: Duration) {
        let now = clock::unix_seconds();
        let ends = |question: &Question| question.answer.as_ref().and_then(Answer::next_update);
        let first = self.state.lock().questions.values().filter_map(ends).filter(|end| *end > now).min();
        // A little before, and never in a tight loop over answers that live no longer.
        let left = first.map(|end| Duration::from_secs(u64::try_from(end - now).unwrap_or(u64::MAX)));
        let left = left.map_or(interval, |left| (left / 4 * 3).max(SHORTEST).min(interval));
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = self.rung.notified() => {
                let rested = self.state.lock().began.map(|began| clock::monotonic() - began);
                let rest = REST.min(interval).saturating_sub(rested.unwrap_or(REST));
                tokio::time::sleep(rest).await;
            }
        }
    }

    /// Keeps to the certificates of these agents, of the last uploads, and to those that were found revoked.
    pub(super) fn follow(&self, agents: &[(ModuleDigest, Arc<Attestation>)]) {
        if self.mode == OcspMode::Never {
            return;
        }
        let strangers: Vec<_> = {
            let state = self.state.lock();
            agents.iter().filter(|(_, it)| !state.agents.contains_key(&address(it))).collect()
        };
        let mut met = Vec::new();
        for (digest, attestation) in strangers {
            // Chains that were too much work to find are looked for again.
            if let Some(questions) = self.about(*digest, attestation) {
                met.push((Arc::clone(attestation), questions));
            }
        }
        let present: BTreeSet<usize> = agents.iter().map(|(_, attestation)| address(attestation)).collect();
        self.state.lock().follow(&present, met);
    }

    /// As if these were the certificates of the only agent.
    #[cfg(test)]
    pub(super) fn follow_these(&self, questions: Vec<Filed>) {
        let attestation = crate::testing::attestation();
        self.state.lock().follow(&BTreeSet::new(), vec![(attestation, questions)]);
    }

    /// Asks about the certificates of an upload that nobody was asked about yet; whether anything was learnt.
    pub(super) async fn want(&self, digest: ModuleDigest, attestation: &Attestation) -> bool {
        if self.mode == OcspMode::Never {
            return false;
        }
        let questions = self.about(digest, attestation).unwrap_or_default();
        self.want_these(questions).await
    }

    pub(super) async fn want_these(&self, questions: Vec<Filed>) -> bool {
        let now = clock::monotonic();
        let asked: Vec<_> = {
            let mut state = self.state.lock();
            let named = state.add(questions);
            for fingerprint in &named {
                if !state.candidates.contains(fingerprint) {
                    state.candidates.push_back(*fingerprint);
                }
            }
            while state.candidates.len() > MAX_CANDIDATES {
                state.candidates.pop_front();
            }
            let unheard = |url: &Arc<str>| {
                state.silent.get(url).is_none_or(|since| now.saturating_duration_since(*since) >= SILENCE)
            };
            let known = |fingerprint| Some((fingerprint, state.questions.get(&fingerprint)?.clone()));
            let open = named.into_iter().filter_map(known);
            let open = open.filter(|(_, question)| question.answer.is_none() && question.is_of_use());
            open.filter(|(_, question)| unheard(&question.url)).collect()
        };
        join_all(asked.iter().map(|(fingerprint, question)| self.ask(*fingerprint, question))).await;
        !asked.is_empty()
    }

    /// Asks about everything once, whoever was tried longest ago first.
    pub(super) async fn refresh(&self) {
        let _one_at_a_time = self.round.lock().await;
        let mut due: Vec<Filed> = {
            let mut state = self.state.lock();
            state.silent.clear();
            state.began = Some(clock::monotonic());
            let of_use = state.questions.iter().filter(|(_, question)| question.is_of_use());
            of_use.map(|(fingerprint, question)| (*fingerprint, question.clone())).collect()
        };
        due.sort_by_key(|(_, question)| question.tried_at);
        let all = async {
            // Bounded: the servers asked are the operator's own, and a burst of thousands would be rude to them too.
            for group in due.chunks(AT_ONCE) {
                // A responder that did not answer the first is not waited for again in this round.
                let silent: BTreeSet<Arc<str>> = self.state.lock().silent.keys().cloned().collect();
                let heard = group.iter().filter(|(_, question)| !silent.contains(&question.url));
                join_all(heard.map(|(fingerprint, question)| self.ask(*fingerprint, question))).await;
            }
        };
        if tokio::time::timeout(self.patience, all).await.is_err() {
            tracing::warn!("OCSP responders are slow; those that were not asked are first in the next round");
        }
    }

    /// Adds every answer, and one source for each responder.
    pub(super) fn collect(&self, evidence: &mut Evidence, sources: &mut Vec<Source>) {
        let state = self.state.lock();
        let answers = state.questions.iter().filter_map(|(fingerprint, question)| {
            Some((*fingerprint, question.answer.as_ref()?.response().clone()))
        });
        evidence.revocation_mut().answers = Answers::new(answers);
        // What only a refused upload asked for is nobody's problem.
        let of_agents: BTreeSet<&Fingerprint> = state.agents.values().flat_map(|(_, named)| named).collect();
        let mut all: BTreeMap<&str, (Source, usize)> = BTreeMap::new();
        let shown =
            |(it, question): &(&Fingerprint, &Question)| of_agents.contains(it) && question.is_of_use();
        for (_, question) in state.questions.iter().filter(shown) {
            let (source, failing) = all.entry(&question.url).or_insert_with(|| {
                let url = question.url.to_string();
                (Source { kind: "ocsp", url, ..Source::default() }, 0)
            });
            source.fetched_at = source.fetched_at.max(question.answered_at);
            if !question.problem.is_empty() {
                *failing += 1;
                source.problem = question.problem.clone();
            }
        }
        sources.extend(all.into_values().map(|(source, failing)| match failing {
            0 | 1 => source,
            more => Source { problem: format!("{} (of {more} certificates)", source.problem), ..source },
        }));
    }

    /// For the metrics.
    pub(super) fn asked(&self) -> Asked {
        let now = UnixTime(clock::unix_seconds());
        let state = self.state.lock();
        let mut asked = Asked::default();
        for question in state.questions.values().filter(|question| question.is_of_use()) {
            asked.certificates += 1;
            let current = question.answer.as_ref().is_some_and(|answer| answer.is_current(now));
            asked.unanswered += u64::from(!current);
        }
        asked
    }

    /// The questions that a module's verified chains lead to; `None` when finding them was too much work.
    fn about(&self, digest: ModuleDigest, attestation: &Attestation) -> Option<Vec<Filed>> {
        let (artifact, now) = (ArtifactDigest::sha256(digest.0), UnixTime(clock::unix_seconds()));
        let chains = self.verifier.chains(attestation, artifact, Deciding::ByAnyPolicy, now).ok()?;
        let links = chains.iter().flat_map(|chain| chain.links());
        let mut questions = BTreeMap::new();
        for (certificate, issuer) in links {
            if questions.len() < MAX_PER_UPLOAD
                && let Some(question) = self.question(certificate, issuer)
            {
                questions.insert(certificate.fingerprint(), question);
            }
        }
        Some(questions.into_iter().collect())
    }

    pub(super) fn question(&self, certificate: &Certificate, issuer: &Certificate) -> Option<Question> {
        // An address that is a base itself is as good as one below it.
        let admitted = |url: &String| self.bases.iter().any(|base| begins_with(&format!("{url}/ocsp"), base));
        let named = responders(certificate).into_iter().find(admitted);
        let (url, whose) = match named {
            Some(url) => (Arc::from(url), Whose::Certificates),
            None => (self.own.clone()?, Whose::Operators),
        };
        Some(Question {
            url,
            whose,
            certificate: certificate.clone(),
            issuer: issuer.clone(),
            der: request(certificate, issuer).into(),
            answer: None,
            answered_at: None,
            tried_at: None,
            problem: String::new(),
        })
    }

    async fn ask(&self, fingerprint: Fingerprint, question: &Question) {
        let reply = match self.post(&question.url, question.der.clone()).await {
            Ok(body) => {
                let now = UnixTime(clock::unix_seconds());
                read(&body, &question.certificate, &question.issuer, now)
            }
            Err(unanswered) => Err(unanswered),
        };
        let mut state = self.state.lock();
        if matches!(reply, Err(Unanswered::Silent(_))) {
            state.silent.insert(Arc::clone(&question.url), clock::monotonic());
        }
        let Some(known) = state.questions.get_mut(&fingerprint) else { return };
        known.tried_at = Some(clock::monotonic());
        known.problem = match reply {
            Ok(Reply::Answer(answer)) => {
                known.answered_at = Some(clock::unix_seconds());
                known.keep(answer)
            }
            Ok(Reply::NotAuthoritative) if known.whose == Whose::Operators => {
                known.answered_at = Some(clock::unix_seconds());
                String::new()
            }
            Ok(Reply::NotAuthoritative) => "the responder does not speak for the certificate's issuer".into(),
            Err(Unanswered::Silent(why) | Unanswered::Refused(why)) => why,
        };
        if !known.problem.is_empty() {
            let (url, problem) = (&*known.url, &known.problem);
            let serial = hex::encode(known.certificate.serial());
            tracing::warn!(url, serial, problem, "an OCSP responder gave no answer that counts");
        }
    }

    async fn post(&self, url: &str, question: Bytes) -> Result<Vec<u8>, Unanswered> {
        let lost = |error: reqwest::Error| Unanswered::Silent(cause(&error));
        let request = self.http.post(url).header("content-type", MEDIA_TYPE).body(question);
        let mut response = request.send().await.map_err(lost)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(Unanswered::Refused(format!("HTTP status {}", response.status().as_u16())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Unanswered::Refused(format!("larger than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn address(attestation: &Arc<Attestation>) -> usize {
    Arc::as_ptr(attestation) as usize
}

impl State {
    /// Keeps to the agents that are present, and adds those that were met.
    fn follow(&mut self, present: &BTreeSet<usize>, met: Vec<(Arc<Attestation>, Vec<Filed>)>) {
        self.agents.retain(|known, _| present.contains(known));
        for (attestation, questions) in met {
            let named = self.add(questions);
            self.agents.insert(address(&attestation), (attestation, named));
        }
        self.forget();
    }

    /// Adds the questions that there is room for and gives the names of all that are there now.
    fn add(&mut self, questions: Vec<Filed>) -> Vec<Fingerprint> {
        let mut named = Vec::with_capacity(questions.len());
        for (fingerprint, question) in questions {
            if self.questions.len() < MAX_QUESTIONS || self.questions.contains_key(&fingerprint) {
                self.questions.entry(fingerprint).or_insert(question);
                named.push(fingerprint);
            }
        }
        named
    }

    /// Drops what nobody needs any more.
    fn forget(&mut self) {
        let needed = self.agents.values().flat_map(|(_, named)| named).chain(&self.candidates);
        let needed: BTreeSet<Fingerprint> = needed.copied().collect();
        let mut remembered = 0;
        self.questions.retain(|fingerprint, question| {
            if needed.contains(fingerprint) {
                return true;
            }
            let revoked = question.answer.as_ref().is_some_and(Answer::is_final);
            remembered += usize::from(revoked);
            revoked && remembered <= MAX_REMEMBERED
        });
    }
}

impl Question {
    /// Whether an answer could count: past a certificate's expiry only a list does.
    fn is_of_use(&self) -> bool {
        UnixTime(clock::unix_seconds()) <= self.certificate.not_after()
    }

    /// Keeps an authentic answer in place of an older one; what is wrong with it, if anything.
    fn keep(&mut self, answer: Answer) -> String {
        match &self.answer {
            // A server that went back to an older answer (a stale mirror, a replay) does not undo what is known.
            Some(known) if known.outlasts(&answer) => {
                "the answer contradicts a newer one, or a revocation".into()
            }
            _ => {
                self.answer = Some(answer);
                String::new()
            }
        }
    }
}
