//! Revocations that the event log announces, read from its tiles and believed from the CA's own key only.
//!
//! Every entry is proven to be in the tree of a checkpoint that the log signed and that extends the one before, and each
//! is verified again by the rules of the keys file: the log alone revokes nothing. What is found can only deny.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use service::exit::one_line;
use tlog::VerifierKey;
use tlog_client::{EntryFormat, Error, LogClient, Monitor, MonitorState, RetryPolicy, VerifiedEntry};
use tokio::sync::Mutex;
use trust_store::UnixTime;
use trust_store::announcement::{Announcement, Announcements};
use trust_store::dsse::Envelope;
use trust_store::event::EventRules;
use trust_store::provider::AwsLc;

use super::{EvidenceError, Source};
use crate::clock;

static CRYPTO: AwsLc = AwsLc;

/// Entries before the first checkpoint that are read: what was announced shortly before the start may be on no list yet.
const LOOK_BACK: u64 = 2048;

/// Bundles of 256 entries that are read at one occasion; the next one goes on.
const MAX_BUNDLES: usize = 64;

/// Seconds by which the clock of an authority may be ahead.
const MAX_AHEAD: i64 = 3600;

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
    patience: Duration,
    /// Held while the log is waited for.
    inner: Mutex<Inner>,
    known: ArcSwap<Announcements>,
    source: ArcSwap<Source>,
}

struct Inner {
    monitor: Monitor<'static>,
    /// Entries or a checkpoint could not be had the last time.
    behind: bool,
}

impl Announced {
    pub(super) fn new(
        http: reqwest::Client,
        url: &str,
        log: &EventLog,
        timeout: Duration,
    ) -> Result<Self, EvidenceError> {
        let log_error = |source| EvidenceError::Log { origin: log.origin.clone(), source };
        // The next look is the retry.
        let retry = RetryPolicy { attempts: 1, timeout, ..RetryPolicy::default() };
        let client = LogClient::new(http, url).map_err(log_error)?.with_retry(retry);
        let state = MonitorState::new(&log.origin);
        let monitor = Monitor::new(client, log.keys.clone(), &CRYPTO, EntryFormat::Bundles, state)
            .map_err(log_error)?;
        Ok(Self {
            rules: Arc::new(log.rules.clone()),
            patience: timeout.saturating_mul(2),
            inner: Mutex::new(Inner { monitor, behind: true }),
            known: ArcSwap::default(),
            source: ArcSwap::from_pointee(Source {
                kind: "events",
                url: url.to_owned(),
                ..Source::default()
            }),
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
        match self.read_on(&mut inner.monitor).await {
            Ok(behind) => {
                inner.behind = behind;
                after.problem.clear();
                after.fetched_at = Some(clock::unix_seconds());
            }
            Err(error) => {
                inner.behind = true;
                after.problem = one_line(&error);
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
    async fn read_on(&self, monitor: &mut Monitor<'static>) -> Result<bool, Error> {
        let until = clock::monotonic() + self.patience;
        let first = monitor.checkpoint().is_none();
        monitor.update().await?;
        if first {
            monitor.skip_to_newest(LOOK_BACK);
        }
        for _ in 0..MAX_BUNDLES {
            let mut nothing = |_: &VerifiedEntry| Vec::new();
            let Some(entries) = monitor.next_entries(&mut nothing).await? else { return Ok(false) };
            let rules = Arc::clone(&self.rules);
            // A signature each.
            let found = tokio::task::spawn_blocking(move || {
                let read = |bytes: &[u8]| {
                    Announcement::of(&rules.verify(&Envelope::parse(bytes).ok()?, &CRYPTO).ok()?)
                };
                // Dated later than any clock may be wrong, it would count for nothing and push out what counts.
                let latest = UnixTime(clock::unix_seconds().saturating_add(MAX_AHEAD));
                let found = entries.iter().filter_map(|watched| read(&watched.entry.bytes));
                found.filter(|announcement| announcement.recorded() <= latest).collect::<Vec<_>>()
            });
            let found = found.await.unwrap_or_default();
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
}
