//! Revocations that the event log announces, read from its tiles and believed from the CA's own key only.
//!
//! Every entry is proven to be in the tree of a checkpoint that the log signed and that extends the one before, and each
//! is verified again by the rules of the keys file: the log alone revokes nothing. What is found can only deny, and is remembered
//! over restarts together with the tree that it was read from.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use service::exit::one_line;
use tlog::VerifierKey;
use tlog_client::{EntryFormat, Error, LogClient, Monitor, MonitorState, RetryPolicy, VerifiedEntry};
use tokio::sync::Mutex;
use trust_store::UnixTime;
use trust_store::announcement::{Announcement, Announcements, MAX_ANNOUNCEMENTS, REVOCATION_TYPE};
use trust_store::dsse::Envelope;
use trust_store::event::{EventRule, EventRules};
use trust_store::provider::AwsLc;

use self::memory::Memory;
use super::{EvidenceConfig, EvidenceError, Source};
use crate::clock;

mod memory;

static CRYPTO: AwsLc = AwsLc;

/// Entries before the first checkpoint that are read, as many as announcements are kept: what was announced shortly before the first
/// start may be on no list yet.
const LOOK_BACK: u64 = MAX_ANNOUNCEMENTS as u64;

/// Bundles of 256 entries that are read at one occasion; the next one goes on.
const MAX_BUNDLES: usize = 64;

/// Seconds by which the clock of an authority may be ahead.
const MAX_AHEAD: i64 = 3600;

/// What is wrong with rules that do not name an issuer by its key.
const NAMELESS: &str = "of the keys file's rules about revocations name no issuer's key and are ignored: what they announce is not \
                        believed, lists are waited for (issuer_certificates in the log's configuration names issuers)";

/// How the event log is authenticated, and who is believed in it: from the keys file.
#[derive(Debug, Clone)]
pub struct EventLog {
    /// First line of its checkpoints.
    pub origin: String,
    /// Keys of its checkpoints.
    pub keys: Vec<VerifierKey>,
    /// Who may say what.
    pub rules: EventRules,
}

/// The reader of the event log.
pub(super) struct Announced {
    rules: Arc<EventRules>,
    /// Why nothing is read: whoever broke the memory must not have it forget with what it was to compare.
    halted: bool,
    /// What is wrong as long as rules about revocations are ignored; empty where none is.
    ignored: String,
    client: LogClient,
    keys: Vec<VerifierKey>,
    patience: Duration,
    memory: Memory,
    /// Held while the log is waited for.
    inner: Mutex<Inner>,
    known: ArcSwap<Announcements>,
    source: ArcSwap<Source>,
    /// As if the next bundle were lost between the log and its judgement.
    #[cfg(test)]
    pub(super) lose_one: std::sync::atomic::AtomicBool,
}

struct Inner {
    monitor: Monitor<'static>,
    /// How far what was read is known and remembered, and what was written down then, if anything.
    remembered: MonitorState,
    written: Option<Arc<Announcements>>,
    /// Entries or a checkpoint could not be had the last time.
    behind: bool,
    /// What is dated later than any clock may be wrong. That may be this machine's own, so it is kept apart until its time comes, where
    /// it pushes out nothing that counts.
    ahead: Announcements,
    /// From where on the log is read again after a restart as long as there is something ahead.
    ahead_from: u64,
}

impl Announced {
    pub(super) fn new(
        http: reqwest::Client,
        url: &str,
        log: &EventLog,
        config: &EvidenceConfig,
    ) -> Result<Self, EvidenceError> {
        let log_error = |source| EvidenceError::Log { origin: log.origin.clone(), source };
        // The next look is the retry.
        let retry = RetryPolicy { attempts: 1, timeout: config.timeout, ..RetryPolicy::default() };
        let client = LogClient::new(http, url).map_err(log_error)?.with_retry(retry);
        let (rules, ignored) = believed(&log.rules).map_err(|error| EvidenceError::Rules(error.into()))?;
        if ignored > 0 {
            tracing::warn!(
                ignored,
                url,
                "rules about revocations that name no issuer's key are ignored: their keys would speak for the certificates of every \
                 CA, or of every CA of a name; issuer_certificates in the log's configuration names issuers"
            );
        }
        let memory = Memory::new(&config.state, &log.origin, &rules);
        let known = memory.announcements().map(Arc::new);
        let recalled = memory.place(&log.origin).and_then(|state| {
            // The checkpoint stays, so that a log that went back meanwhile is noticed.
            let state = if known.is_some() { state } else { state.unwalked() };
            Ok((follow(&client, &log.keys, state.clone())?, state))
        });
        let halted = recalled.as_ref().err().map(|error| {
            let (file, error) = (memory.place_file().display(), one_line(error));
            format!("{file} is no memory of this log ({error}): nothing is read until it is moved away as evidence and the executor restarted")
        });
        let (monitor, state) = match recalled {
            Ok(both) => both,
            // What is remembered can only deny, and counts; it keeps nobody from starting.
            Err(_) => {
                let state = MonitorState::new(&log.origin);
                (follow(&client, &log.keys, state.clone()).map_err(log_error)?, state)
            }
        };
        if let Some(problem) = &halted {
            tracing::warn!(url, problem, "announced revocations are not read; lists are waited for");
        }
        let ignored = if ignored > 0 { format!("{ignored} {NAMELESS}") } else { String::new() };
        let problem = halted.clone().unwrap_or_else(|| ignored.clone());
        Ok(Self {
            rules: Arc::new(rules),
            halted: halted.is_some(),
            ignored,
            client,
            keys: log.keys.clone(),
            patience: config.timeout.saturating_mul(2),
            memory,
            known: ArcSwap::new(known.clone().unwrap_or_default()),
            inner: Mutex::new(Inner {
                monitor,
                remembered: state,
                written: known,
                behind: true,
                ahead: Announcements::default(),
                ahead_from: 0,
            }),
            source: ArcSwap::from_pointee(Source {
                kind: "events",
                url: url.to_owned(),
                problem,
                ..Source::default()
            }),
            #[cfg(test)]
            lose_one: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// What is announced.
    pub(super) fn known(&self) -> Announcements {
        Announcements::clone(&self.known.load())
    }

    /// How reading went the last time.
    pub(super) fn source(&self) -> Source {
        Source::clone(&self.source.load())
    }

    /// Reads what the log has that was not read before, unless it was read to its end and has the size that it claims. A claim
    /// is no reason to believe that all was read: two front ends of one log may be of different age. Whether anything is to be
    /// published.
    pub(super) async fn read(&self, claimed: Option<u64>) -> bool {
        if self.halted {
            return false;
        }
        let mut inner = self.inner.lock().await;
        let verified = inner.monitor.checkpoint().map(|checkpoint| checkpoint.head().size);
        if claimed.is_some() && claimed == verified && !inner.behind && !inner.has_ripe() {
            // The log answered, and there is nothing new.
            let source = Source { fetched_at: Some(clock::unix_seconds()), ..self.source() };
            self.source.store(Arc::new(source));
            return false;
        }
        let (announced, before) = (self.known.load_full(), self.source());
        let mut after = before.clone();
        // Not cut off from outside: what the monitor has handed out once it does not hand out again.
        let outcome = self.read_on(&mut inner).await;
        self.count_what_is_due(&mut inner);
        let remembered = self.remember(&mut inner).await;
        match outcome.map_err(|error| one_line(&error)).and_then(|behind| remembered.map(|()| behind)) {
            Ok(behind) => {
                inner.behind = behind;
                after.problem.clone_from(&self.ignored);
                after.fetched_at = Some(clock::unix_seconds());
            }
            Err(problem) => {
                inner.behind = true;
                after.problem = problem;
                if after.problem != before.problem {
                    let (url, problem) = (&after.url, &after.problem);
                    tracing::warn!(
                        url,
                        problem,
                        "announced revocations cannot be read; lists are waited for"
                    );
                }
            }
        }
        let told = after.problem != before.problem;
        self.source.store(Arc::new(after));
        // Also what was found before something failed.
        told || !Arc::ptr_eq(&announced, &self.known.load())
    }

    /// Whether entries are left for the next occasion.
    async fn read_on(&self, inner: &mut Inner) -> Result<bool, Unread> {
        let until = clock::monotonic() + self.patience;
        inner.monitor.update().await?;
        if inner.monitor.state().walked() == 0 {
            inner.monitor.skip_to_newest(LOOK_BACK);
        }
        for _ in 0..MAX_BUNDLES {
            let walked = inner.monitor.state().clone();
            let before = walked.walked();
            let mut nothing = |_: &VerifiedEntry| Vec::new();
            let Some(entries) = inner.monitor.next_entries(&mut nothing).await? else { return Ok(false) };
            let rules = Arc::clone(&self.rules);
            #[cfg(test)]
            let lost = self.lose_one.swap(false, std::sync::atomic::Ordering::Relaxed);
            // A signature each.
            let found = tokio::task::spawn_blocking(move || {
                #[cfg(test)]
                assert!(!lost, "a bundle is lost");
                let read = |bytes: &[u8]| {
                    Announcement::of(&rules.verify(&Envelope::parse(bytes).ok()?, &CRYPTO).ok()?)
                };
                let found = entries.iter().filter_map(|watched| read(&watched.entry.bytes));
                let latest = latest();
                found.partition::<Vec<_>, _>(|announcement| announcement.recorded() <= latest)
            });
            let (found, ahead) = match found.await {
                Ok(both) => both,
                Err(error) => {
                    // Nobody has looked at them: they are read again.
                    inner.monitor = follow(&self.client, &self.keys, walked)?;
                    return Err(Unread::Lost(error));
                }
            };
            if !ahead.is_empty() {
                if inner.ahead.is_empty() {
                    inner.ahead_from = before;
                }
                tracing::warn!(
                    count = ahead.len(),
                    "revocations are announced with dates ahead of this machine's clock"
                );
                inner.ahead = inner.ahead.with(ahead);
            }
            if !found.is_empty() {
                tracing::info!(count = found.len(), "revocations are announced");
                self.known.store(Arc::new(self.known().with(found)));
            }
            if clock::monotonic() > until {
                break;
            }
        }
        Ok(true)
    }

    /// What was dated ahead counts when its time comes, or the clock was set.
    fn count_what_is_due(&self, inner: &mut Inner) {
        if inner.has_ripe() {
            let (due, ahead) = inner.ahead.divided(latest());
            inner.ahead = ahead;
            self.known.store(Arc::new(self.known().with(due)));
        }
    }

    /// Whether a rule about revocations is followed.
    pub(super) fn believes_somebody(&self) -> bool {
        self.rules.knows(REVOCATION_TYPE)
    }

    /// Writes down what was found and how far was read, in this order: after a crash something is read again, nothing is left out.
    async fn remember(&self, inner: &mut Inner) -> Result<(), String> {
        let (mut state, known) = (inner.monitor.state().clone(), self.known.load_full());
        // What is not written down is read again, unless that is too long ago.
        if !inner.ahead.is_empty() && state.walked().saturating_sub(inner.ahead_from) <= LOOK_BACK {
            state = state.back_to(inner.ahead_from);
        }
        // Also that nothing was found up to a place.
        let is_news = inner.written.as_ref().is_none_or(|written| !Arc::ptr_eq(written, &known));
        if state == inner.remembered && !is_news {
            return Ok(());
        }
        let news = is_news.then(|| Announcements::clone(&known));
        let (memory, stored) = (self.memory.clone(), state.clone());
        let written = tokio::task::spawn_blocking(move || memory.store(news, &stored)).await;
        match written {
            Ok(Ok(())) => {
                inner.remembered = state;
                inner.written = Some(known);
            }
            // It counts all the same; a restart reads it again, if the log still has it.
            Ok(Err(error)) => return Err(format!("what was announced cannot be remembered: {error}")),
            Err(error) => return Err(format!("what was announced cannot be remembered: {error}")),
        }
        Ok(())
    }
}

impl Inner {
    fn has_ripe(&self) -> bool {
        self.ahead.earliest().is_some_and(|first| first <= latest())
    }
}

/// The latest date that an announcement may have.
fn latest() -> UnixTime {
    UnixTime(clock::unix_seconds().saturating_add(MAX_AHEAD))
}

/// Why entries were not read to the end.
#[derive(Debug, thiserror::Error)]
enum Unread {
    /// The log, or what it said.
    #[error(transparent)]
    Log(#[from] Error),
    /// The thread that was to judge them.
    #[error("entries were lost before anybody looked at them; they are read again")]
    Lost(#[source] tokio::task::JoinError),
}

fn follow(client: &LogClient, keys: &[VerifierKey], state: MonitorState) -> Result<Monitor<'static>, Error> {
    Monitor::new(client.clone(), keys.to_vec(), &CRYPTO, EntryFormat::Bundles, state)
}

/// The rules without those that let a key speak about the certificates of whatever CA, or of whichever has a name, and how many those
/// are. An announcement stops what runs: a key that is believed for one authority must not do so for another's certificates, and
/// authorities that were set up alike have one name.
fn believed(rules: &EventRules) -> Result<(EventRules, usize), trust_store::error::Error> {
    let names_nobody =
        |rule: &&EventRule| rule.predicate_type == REVOCATION_TYPE && rule.issuer_key.is_none();
    let ignored = rules.rules().iter().filter(names_nobody).count();
    let kept = rules.rules().iter().filter(|rule| !names_nobody(rule)).cloned().collect();
    Ok((EventRules::new(kept)?, ignored))
}
