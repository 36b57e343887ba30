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

/// What is wrong when nobody is believed about revocations.
const NOBODY: &str = "no rule about revocations names an issuer (issuer_certificates in the log's configuration): announced \
                      revocations are not believed, lists are waited for";

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
    /// The keys file has rules about revocations, and none of them counts.
    deaf: bool,
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
                "rules about revocations that name no issuer are ignored: their keys would speak for the certificates of every CA; \
                 issuer_certificates in the log's configuration names one"
            );
        }
        let memory = Memory::new(&config.state, &log.origin, &rules);
        let (state, known) = memory.recall(&log.origin).map_err(log_error)?;
        let known = known.map(Arc::new);
        let monitor = follow(&client, &log.keys, state.clone()).map_err(log_error)?;
        let deaf = ignored > 0 && !rules.knows(REVOCATION_TYPE);
        let problem = if deaf { NOBODY.to_owned() } else { String::new() };
        Ok(Self {
            rules: Arc::new(rules),
            deaf,
            client,
            keys: log.keys.clone(),
            patience: config.timeout.saturating_mul(2),
            memory,
            known: ArcSwap::new(known.clone().unwrap_or_default()),
            inner: Mutex::new(Inner { monitor, remembered: state, written: known, behind: true }),
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
        let mut inner = self.inner.lock().await;
        let verified = inner.monitor.checkpoint().map(|checkpoint| checkpoint.head().size);
        if claimed.is_some() && claimed == verified && !inner.behind {
            // The log answered, and there is nothing new.
            let source = Source { fetched_at: Some(clock::unix_seconds()), ..self.source() };
            self.source.store(Arc::new(source));
            return false;
        }
        let (announced, before) = (self.known.load_full(), self.source());
        let mut after = before.clone();
        // Not cut off from outside: what the monitor has handed out once it does not hand out again.
        let outcome = self.read_on(&mut inner).await;
        let remembered = self.remember(&mut inner).await;
        match outcome.map_err(|error| one_line(&error)).and_then(|behind| remembered.map(|()| behind)) {
            Ok(behind) => {
                inner.behind = behind;
                after.problem = if self.deaf { NOBODY.to_owned() } else { String::new() };
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
                // Dated later than any clock may be wrong, it would count for nothing and push out what counts.
                let latest = UnixTime(clock::unix_seconds().saturating_add(MAX_AHEAD));
                let found = entries.iter().filter_map(|watched| read(&watched.entry.bytes));
                found.filter(|announcement| announcement.recorded() <= latest).collect::<Vec<_>>()
            });
            let found = match found.await {
                Ok(found) => found,
                Err(error) => {
                    // Nobody has looked at them: they are read again.
                    inner.monitor = follow(&self.client, &self.keys, walked)?;
                    return Err(Unread::Lost(error));
                }
            };
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

    /// Writes down what was found and how far was read, in this order: after a crash something is read again, nothing is left out.
    async fn remember(&self, inner: &mut Inner) -> Result<(), String> {
        let (state, known) = (inner.monitor.state().clone(), self.known.load_full());
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

/// The rules without those that let a key speak about the certificates of whatever CA, and how many those are. An announcement stops
/// what runs: a key that is believed for one authority must not do so for another's certificates.
fn believed(rules: &EventRules) -> Result<(EventRules, usize), trust_store::error::Error> {
    let names_nobody =
        |rule: &&EventRule| rule.predicate_type == REVOCATION_TYPE && rule.issuer_name.is_none();
    let ignored = rules.rules().iter().filter(names_nobody).count();
    let kept = rules.rules().iter().filter(|rule| !names_nobody(rule)).cloned().collect();
    Ok((EventRules::new(kept)?, ignored))
}
