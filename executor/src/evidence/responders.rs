//! OCSP responders (RFC 6960), asked in the background about the certificates of agents.
//!
//! Asked are the responders that verified chains name, at addresses below the operator's `status_bases` only, and the operator's own
//! for certificates that name none there. An answer counts once the certificate's issuer or its delegate signed it, and replaces only
//! an older one: neither what stands on the way nor a stale mirror makes a known revocation forgotten. What it says is the verifier's
//! to weigh. Servers wait for none of each other: each has places of its own, and a revocation is told before its round ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use executor_engine::ModuleDigest;
use futures_util::StreamExt as _;
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
pub(super) use self::room::Question;
use self::room::{State, Whose, address};
use super::crls::{begins_with, cause};
use super::{EvidenceConfig, OcspMode, Source};
use crate::clock;

mod answer;
mod room;

/// Most certificates of one upload.
const MAX_PER_UPLOAD: usize = 32;

/// Requests at the same time to one server: they are the operator's own, and a burst of thousands would be rude to them.
const AT_ONCE: usize = 16;

/// How long no upload waits for a responder that did not answer, said that it could not, or took longer than [`SLOW`].
const SILENCE: Duration = Duration::from_secs(30);

/// See [`SILENCE`].
const SLOW: Duration = Duration::from_secs(2);

/// The shortest time between two rounds because of the bell. Whoever rings may be nobody in particular, and all executors hear it.
const BELL: Duration = Duration::from_secs(10);

/// The longest time that an answer which changes nothing grave waits for the end of its round.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The shortest time between two rounds.
const SHORTEST: Duration = Duration::from_secs(1);

/// Largest answer that is read, bytes: one certificate's status, a signature and its signer's certificate.
const MAX_ANSWER_BYTES: usize = 32 << 10;

/// SHA-256 of a certificate.
pub(super) type Fingerprint = [u8; 32];

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
    /// Somebody rang, and no round began since.
    rung: AtomicBool,
    bell: Notify,
    /// Somebody was found revoked.
    told: Notify,
    /// The generation of answers that was collected last.
    shown: AtomicU64,
}

/// Why a round is due, and what it asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The interval is over, or the bell rang: everything.
    Everything,
    /// Answers end: those.
    Ending,
}

/// How many certificates are asked about, and how many of them nobody has answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// All.
    pub(crate) certificates: u64,
    /// Those without an answer that is current.
    pub(crate) unanswered: u64,
}

/// How often answers said something new. A later date alone changes no verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Learnt {
    /// Whatever it was.
    pub(super) anything: u64,
    /// Something against a certificate.
    pub(super) grave: u64,
}

impl Responders {
    pub(super) fn new(verifier: Verifier, http: reqwest::Client, config: &EvidenceConfig) -> Self {
        Self {
            verifier,
            http,
            mode: config.ocsp,
            bases: config.status_bases.clone(),
            own: config.ocsp_responder.as_deref().map(Arc::from),
            // As long as one request that is not answered, so that it is known who was silent. Who was not asked is first next time.
            patience: config.timeout.saturating_mul(5) / 4,
            state: Mutex::default(),
            round: tokio::sync::Mutex::default(),
            rung: AtomicBool::new(false),
            bell: Notify::new(),
            told: Notify::new(),
            shown: AtomicU64::new(0),
        }
    }

    /// Something may have been revoked: the next round does not wait for its time.
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// Until the next round is due: after the interval, before an answer ends, or when somebody rings.
    pub(super) async fn due(&self, interval: Duration) -> Due {
        let (first, all) = {
            let state = self.state.lock();
            (self.first_end(&state), state.asked_all_at)
        };
        let all = all.map_or(interval, |at| interval.saturating_sub(clock::monotonic().duration_since(at)));
        // A little before, and never in a tight loop over answers that live no longer.
        let left = first.map(|(end, now)| Duration::from_secs(u64::try_from(end - now).unwrap_or(u64::MAX)));
        let ends = left.map_or(interval, |left| (left / 4 * 3).max(SHORTEST));
        tokio::select! {
            () = tokio::time::sleep(all) => Due::Everything,
            () = self.heard() => Due::Everything,
            () = tokio::time::sleep(ends), if first.is_some() => Due::Ending,
        }
    }

    /// The earliest end of an answer, and now.
    fn first_end(&self, state: &State) -> Option<(i64, i64)> {
        let now = clock::unix_seconds();
        let ends =
            state.questions.values().flat_map(|question| &question.answers).filter_map(Answer::next_update);
        Some((ends.filter(|end| *end > now).min()?, now))
    }

    /// Until somebody rang and the last time is long enough ago. The bell is not forgotten when this is not waited for.
    async fn heard(&self) {
        while !self.rung.load(Ordering::Relaxed) {
            self.bell.notified().await;
        }
        let last = self.state.lock().rung_at;
        let left = last.map(|at| BELL.saturating_sub(clock::monotonic().duration_since(at)));
        tokio::time::sleep(left.unwrap_or_default()).await;
        self.rung.store(false, Ordering::Relaxed);
        self.state.lock().rung_at = Some(clock::monotonic());
    }

    #[cfg(test)]
    pub(super) fn has_been_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Until there is something to publish before the round ends.
    pub(super) async fn told(&self) {
        loop {
            tokio::select! {
                () = self.told.notified() => return,
                () = tokio::time::sleep(TOLD_WITHIN) => {
                    if self.has_news() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether an answer that may change a verdict is not collected yet.
    fn has_news(&self) -> bool {
        self.state.lock().generation != self.shown.load(Ordering::Relaxed)
    }

    /// Keeps to the certificates of these agents, of the last uploads, and to those that were found revoked.
    pub(super) async fn follow(&self, agents: &[(ModuleDigest, Arc<Attestation>)]) {
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
            // After a restart all agents are strangers, and each takes some signatures.
            tokio::task::yield_now().await;
        }
        let present: BTreeSet<usize> = agents.iter().map(|(_, attestation)| address(attestation)).collect();
        self.state.lock().follow(&present, met);
    }

    /// As if these were the certificates of the only agent.
    #[cfg(test)]
    pub(super) fn follow_these(&self, questions: Vec<(Fingerprint, Question)>) {
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

    pub(super) async fn want_these(&self, questions: Vec<(Fingerprint, Question)>) -> bool {
        let now = clock::monotonic();
        let asked: Vec<_> = {
            let mut state = self.state.lock();
            let named = state.add(questions);
            let helpful = |url: &Arc<str>| {
                let since = state.unhelpful.get(url);
                since.is_none_or(|since| now.saturating_duration_since(*since) >= SILENCE)
            };
            let known = |fingerprint| Some((fingerprint, state.questions.get(&fingerprint)?.clone()));
            let open = named.into_iter().filter_map(known);
            let open = open.filter(|(_, question)| question.answers.is_empty() && question.is_of_use());
            open.filter(|(_, question)| helpful(&question.url)).collect()
        };
        join_all(asked.iter().map(|(fingerprint, question)| self.ask(*fingerprint, question))).await;
        // Also what a round learnt that still goes on.
        !asked.is_empty() || self.has_news()
    }

    /// Asks once, whoever was tried longest ago first.
    pub(super) async fn refresh(&self, which: Due) {
        let _one_at_a_time = self.round.lock().await;
        let mut due: Vec<(Fingerprint, Question)> = {
            let mut state = self.state.lock();
            state.silent.clear();
            if which == Due::Everything {
                state.asked_all_at = Some(clock::monotonic());
            }
            // With the first those that end not long after it.
            let end = self.first_end(&state).map_or(0, |(end, now)| end.saturating_add(end - now));
            let ends = |answer: &Answer| answer.next_update().is_some_and(|next| next <= end);
            let meant = |it: &Question| which == Due::Everything || it.answers.iter().any(ends);
            let of_use =
                state.questions.iter().filter(|(_, question)| question.is_of_use() && meant(question));
            of_use.map(|(fingerprint, question)| (*fingerprint, question.clone())).collect()
        };
        due.sort_by_key(|(_, question)| question.tried_at);
        let mut of_server: BTreeMap<String, Vec<(Fingerprint, Question)>> = BTreeMap::new();
        for asked in due {
            of_server.entry(server(&asked.1.url).to_owned()).or_default().push(asked);
        }
        let all = join_all(of_server.into_values().map(|due| self.ask_in_turn(due)));
        if tokio::time::timeout(self.patience, all).await.is_err() {
            tracing::warn!("OCSP responders are slow; those that were not asked are first in the next round");
        }
    }

    async fn ask_in_turn(&self, due: Vec<(Fingerprint, Question)>) {
        let asked = futures_util::stream::iter(due).for_each_concurrent(
            AT_ONCE,
            |(fingerprint, question)| async move {
                // A responder that did not answer is not waited for again in this round.
                let is_silent = self.state.lock().silent.contains(&question.url);
                if !is_silent {
                    self.ask(fingerprint, &question).await;
                }
            },
        );
        asked.await;
    }

    /// Adds every answer, and one source for each responder; tells what was learnt so far, which rises when verdicts may change.
    pub(super) fn collect(&self, evidence: &mut Evidence, sources: &mut Vec<Source>) -> Learnt {
        let state = self.state.lock();
        self.shown.store(state.generation, Ordering::Relaxed);
        let answers = state.questions.iter().flat_map(|(fingerprint, question)| {
            question.answers.iter().map(|answer| (*fingerprint, answer.response().clone()))
        });
        evidence.revocation_mut().answers = Answers::new(answers);
        // What only a refused upload asked for is nobody's problem.
        let needs = state.agents.values().flat_map(|agent| &agent.needs);
        let of_agents: BTreeSet<&Fingerprint> = needs.map(|(fingerprint, _)| fingerprint).collect();
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
        Learnt { anything: state.generation, grave: state.grave }
    }

    /// For the metrics.
    pub(super) fn asked(&self) -> Asked {
        let now = UnixTime(clock::unix_seconds());
        let state = self.state.lock();
        // What there is no room for is not asked about, and has no answer either.
        let unasked = state.unasked();
        let mut asked = Asked { certificates: unasked, unanswered: unasked };
        for question in state.questions.values().filter(|question| question.is_of_use()) {
            asked.certificates += 1;
            let current = question.answers.iter().any(|answer| answer.is_current(now));
            asked.unanswered += u64::from(!current);
        }
        asked
    }

    /// The questions that a module's verified chains lead to; `None` when finding them was too much work.
    fn about(&self, digest: ModuleDigest, attestation: &Attestation) -> Option<Vec<(Fingerprint, Question)>> {
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
            answers: Vec::new(),
            answered_at: None,
            tried_at: None,
            problem: String::new(),
        })
    }

    async fn ask(&self, fingerprint: Fingerprint, question: &Question) {
        let began = clock::monotonic();
        let reply = match self.post(&question.url, question.der.clone()).await {
            Ok(body) => {
                let now = UnixTime(clock::unix_seconds());
                read(&body, &question.certificate, &question.issuer, now)
            }
            Err(unanswered) => Err(unanswered),
        };
        let (monotonic, now) = (clock::monotonic(), clock::unix_seconds());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if matches!(reply, Err(Unanswered::Silent(_))) {
            state.silent.insert(Arc::clone(&question.url));
        }
        if matches!(reply, Err(Unanswered::Silent(_) | Unanswered::Unable(_)))
            || monotonic.saturating_duration_since(began) >= SLOW
        {
            state.unhelpful.insert(Arc::clone(&question.url), monotonic);
        } else {
            state.unhelpful.remove(&question.url);
        }
        let Some(known) = state.questions.get_mut(&fingerprint) else { return };
        known.tried_at = Some(monotonic);
        known.problem = match reply {
            Ok(Reply::Answer(answer)) => {
                known.answered_at = Some(now);
                let (is_good, is_final) = (answer.is_good(), answer.is_final());
                let kept = known.keep(answer, UnixTime(now));
                if kept.changed {
                    state.generation += 1;
                    state.grave += u64::from(!is_good);
                    if is_final {
                        self.told.notify_one();
                    }
                }
                kept.problem
            }
            // Nobody signed that: what was answered before is not forgotten over it, and that it changed is told.
            Ok(Reply::NotAuthoritative) if known.whose == Whose::Operators && known.answers.is_empty() => {
                known.answered_at = Some(now);
                String::new()
            }
            Ok(Reply::NotAuthoritative) => "the responder does not speak for the certificate's issuer".into(),
            Err(Unanswered::Silent(why) | Unanswered::Unable(why) | Unanswered::Refused(why)) => why,
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
            return Err(Unanswered::Unable(format!("HTTP status {}", response.status().as_u16())));
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

/// Scheme, host and port of an address.
fn server(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let path = url.get(host..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host + at);
    url.get(..path).unwrap_or(url)
}
