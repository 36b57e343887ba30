//! Which certificates are asked about, for whom, and what was answered.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use trust_store::attestation::Attestation;
use trust_store::{Certificate, UnixTime};

use super::Fingerprint;
use super::answer::Answer;
use crate::clock;

/// Most certificates that are asked about; further ones have no answer, which denies where the policy demands one, until there is
/// room. Agents' displace those of uploads.
const MAX_QUESTIONS: usize = 4096;

/// Most certificates that are kept only because they were found revoked.
const MAX_REMEMBERED: usize = 1024;

/// Certificates of the last uploads that are asked about although they are no agent's (yet).
const MAX_CANDIDATES: usize = 1024;

/// Answers about one certificate by delegates whose own status must be known: one that replaces another, and the one before.
const MAX_DELEGATES: usize = 3;

#[derive(Default)]
pub(super) struct State {
    pub(super) questions: BTreeMap<Fingerprint, Question>,
    /// The certificates of each agent, by the address of its attestation.
    pub(super) agents: HashMap<usize, Agent>,
    candidates: VecDeque<Fingerprint>,
    /// Responders that did not answer in this round.
    pub(super) silent: BTreeSet<Arc<str>>,
    /// Responders for which no upload waits, and since when.
    pub(super) unhelpful: BTreeMap<Arc<str>, Instant>,
    /// When everything was asked about last, and when the bell was heard last.
    pub(super) asked_all_at: Option<Instant>,
    pub(super) rung_at: Option<Instant>,
    /// Rises with every answer that may change a verdict.
    pub(super) generation: u64,
    /// Rises with those of them that say something against a certificate.
    pub(super) grave: u64,
}

/// What one agent needs.
pub(super) struct Agent {
    /// Held so that no other gets its address.
    _attestation: Arc<Attestation>,
    /// All of it, also what there was no room for.
    pub(super) needs: Vec<(Fingerprint, Question)>,
}

/// One certificate that somebody is asked about.
#[derive(Clone)]
pub(in crate::evidence) struct Question {
    pub(super) url: Arc<str>,
    pub(super) whose: Whose,
    pub(super) certificate: Certificate,
    pub(super) issuer: Certificate,
    pub(super) der: Bytes,
    /// The newest of the issuer, and of each of some delegates.
    pub(super) answers: Vec<Answer>,
    /// When an answer came last, seconds since 1970.
    pub(super) answered_at: Option<i64>,
    /// When it was last tried, on the monotonic clock.
    pub(super) tried_at: Option<Instant>,
    pub(super) problem: String,
}

/// Who chose the responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The certificate names it. That it is not authoritative is a fault.
    Certificates,
    /// The operator, for certificates that name none; it need not speak for every issuer.
    Operators,
}

/// Tells agents apart.
pub(super) fn address(attestation: &Arc<Attestation>) -> usize {
    Arc::as_ptr(attestation) as usize
}

impl State {
    /// Keeps to the agents that are present, and adds those that were met. Whatever found no room before is tried again.
    pub(super) fn follow(
        &mut self,
        present: &BTreeSet<usize>,
        met: impl IntoIterator<Item = (Arc<Attestation>, Vec<(Fingerprint, Question)>)>,
    ) {
        self.agents.retain(|known, _| present.contains(known));
        for (attestation, needs) in met {
            self.agents.insert(address(&attestation), Agent { _attestation: attestation, needs });
        }
        self.forget();
        let missing: Vec<_> = self.missing().cloned().collect();
        for (fingerprint, question) in missing {
            while self.questions.len() >= MAX_QUESTIONS && self.displace_a_candidate() {}
            if self.questions.len() >= MAX_QUESTIONS {
                break;
            }
            self.questions.entry(fingerprint).or_insert(question);
        }
    }

    /// What agents need and nobody is asked about.
    fn missing(&self) -> impl Iterator<Item = &(Fingerprint, Question)> {
        let needs = self.agents.values().flat_map(|agent| &agent.needs);
        needs.filter(|(fingerprint, _)| !self.questions.contains_key(fingerprint))
    }

    /// Of how many of these nobody is asked.
    pub(super) fn unasked(&self) -> u64 {
        let unasked: BTreeSet<&Fingerprint> =
            self.missing().filter(|(_, question)| question.is_of_use()).map(|(name, _)| name).collect();
        unasked.len() as u64
    }

    /// Makes room for an agent's; whether there was anything to take away.
    fn displace_a_candidate(&mut self) -> bool {
        let Some(candidate) = self.candidates.pop_front() else { return false };
        let needed = self.agents.values().flat_map(|agent| &agent.needs).any(|(it, _)| *it == candidate);
        let is_final = self.questions.get(&candidate).is_some_and(Question::is_revoked);
        if !needed && !is_final {
            self.questions.remove(&candidate);
        }
        true
    }

    /// Adds the questions of an upload that there is room for and gives the names of all that are there now.
    pub(super) fn add(&mut self, questions: Vec<(Fingerprint, Question)>) -> Vec<Fingerprint> {
        let mut named = Vec::with_capacity(questions.len());
        for (fingerprint, question) in questions {
            if self.questions.len() < MAX_QUESTIONS || self.questions.contains_key(&fingerprint) {
                self.questions.entry(fingerprint).or_insert(question);
                named.push(fingerprint);
            }
        }
        for fingerprint in &named {
            if !self.candidates.contains(fingerprint) {
                self.candidates.push_back(*fingerprint);
            }
        }
        while self.candidates.len() > MAX_CANDIDATES {
            self.candidates.pop_front();
        }
        named
    }

    /// Drops what nobody needs any more.
    fn forget(&mut self) {
        let of_agents = self.agents.values().flat_map(|agent| &agent.needs).map(|(name, _)| name);
        let needed: BTreeSet<Fingerprint> = of_agents.chain(&self.candidates).copied().collect();
        let mut remembered = 0;
        self.questions.retain(|fingerprint, question| {
            if needed.contains(fingerprint) {
                return true;
            }
            let revoked = question.is_revoked();
            remembered += usize::from(revoked);
            revoked && remembered <= MAX_REMEMBERED
        });
    }
}

/// What became of an answer.
pub(super) struct Kept {
    /// What is wrong with it, if anything.
    pub(super) problem: String,
    /// Whether verdicts may change.
    pub(super) changed: bool,
}

impl Question {
    /// Whether an answer could count: past a certificate's expiry only a list does.
    pub(super) fn is_of_use(&self) -> bool {
        UnixTime(clock::unix_seconds()) <= self.certificate.not_after()
    }

    /// Whether it was found revoked for good.
    pub(super) fn is_revoked(&self) -> bool {
        self.answers.iter().any(Answer::is_final)
    }

    /// Keeps an authentic answer in place of an older one of the same signer. Whose status is open takes nobody else's place: his key
    /// may be the reason why it is.
    pub(super) fn keep(&mut self, answer: Answer, now: UnixTime) -> Kept {
        match self.answers.iter_mut().find(|known| known.delegate() == answer.delegate()) {
            // A server that went back to an older answer (a stale mirror, a replay) does not undo what is known.
            Some(known) if known.outlasts(&answer) => {
                let problem = "the answer contradicts a newer one, or a revocation".into();
                return Kept { problem, changed: false };
            }
            Some(known) => {
                let changed = !known.is_renewed_by(&answer, now);
                *known = answer;
                return Kept { problem: String::new(), changed };
            }
            None => self.answers.push(answer),
        }
        let of_delegates = self.answers.iter().filter(|answer| answer.delegate().is_some());
        if of_delegates.clone().count() > MAX_DELEGATES
            && let Some(oldest) = of_delegates.map(Answer::this_update).min()
        {
            let is_oldest = |it: &Answer| it.delegate().is_some() && it.this_update() == oldest;
            if let Some(place) = self.answers.iter().position(is_oldest) {
                self.answers.remove(place);
            }
        }
        Kept { problem: String::new(), changed: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        let params = rcgen::CertificateParams::default();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Question {
            url: Arc::from("http://responder"),
            whose: Whose::Certificates,
            issuer: certificate.clone(),
            certificate,
            der: Bytes::new(),
            answers: Vec::new(),
            answered_at: None,
            tried_at: None,
            problem: String::new(),
        }
    }

    fn named(question: &Question, numbers: std::ops::Range<usize>) -> Vec<(Fingerprint, Question)> {
        let name = |n: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_be_bytes());
            (name, question.clone())
        };
        numbers.map(name).collect()
    }

    #[test]
    fn an_agent_that_found_no_room_is_asked_about_when_there_is_some() {
        let (mut state, question) = (State::default(), question());
        // Uploads fill the room between two rounds.
        state.add(named(&question, 0..MAX_QUESTIONS));
        assert_eq!(state.questions.len(), MAX_QUESTIONS);
        let [late, large] = [(); 2].map(|()| crate::testing::attestation());
        let of = |attestation: &Arc<Attestation>| BTreeSet::from([address(attestation)]);
        let is_asked = |state: &State, n: usize| {
            named(&question, n..n + 1).iter().all(|(name, _)| state.questions.contains_key(name))
        };
        state.follow(&BTreeSet::new(), vec![(Arc::clone(&late), named(&question, 9000..9001))]);
        assert!(
            is_asked(&state, 9000) && state.unasked() == 0,
            "what nobody needs any more makes place first"
        );

        // Agents' displace those of uploads, and what finds none is counted as long as it is so.
        state.follow(
            &BTreeSet::new(),
            vec![(Arc::clone(&large), named(&question, 10_000..10_000 + MAX_QUESTIONS))],
        );
        assert_eq!((state.questions.len(), state.unasked()), (MAX_QUESTIONS, 0));
        state.follow(&of(&large), vec![(Arc::clone(&late), named(&question, 9000..9001))]);
        assert!(!is_asked(&state, 9000) && state.unasked() == 1);
        state.follow(&of(&late), Vec::new());
        assert!(is_asked(&state, 9000) && state.unasked() == 0, "{} questions", state.questions.len());
    }
}
