//! `log monitor`: keeps the last verified checkpoint, proves that the log only grew, walks every new entry, alerts.
//!
//! An entry counts as seen only after its alert was delivered: after a crash or an undelivered alert the next look finds
//! it again. What the log did wrong is kept as evidence beside the memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tlog_client::{Error, LogClient, LogDescription, Monitor, MonitorState};
use trust_store::provider::AwsLc;

use super::alert::Webhook;
use super::event_key::EventKeyFlags;
use super::history::{History, Seen};
use super::record::entry_format;
use super::watch_list::{WatchFile, WatchList, WebhookFile};
use super::{KnownLog, LogFlags, log_failure};
use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, make_folder, write_file};
use crate::net::block_on;
use crate::output::{Output, Tone};

/// `log monitor`.
#[derive(Debug, Args)]
pub struct Watch {
    /// File that remembers the last verified checkpoint [default: ~/.mentat/monitor/ORIGIN.json]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Report entries of this identity (exact, or *@DOMAIN); may be repeated
    #[arg(long = "identity", value_name = "IDENTITY")]
    identities: Vec<String>,
    /// Report entries with this digest, hexadecimal; may be repeated
    #[arg(long = "digest", value_name = "HEX")]
    digests: Vec<String>,
    /// Report entries about the certificate with this serial number; may be repeated
    #[arg(long = "serial", value_name = "HEX")]
    serials: Vec<String>,
    /// Report events of this type; may be repeated
    #[arg(long = "event-type", value_name = "URI")]
    event_types: Vec<String>,
    /// What to watch and where to report, TOML; added to the flags
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// POST every alert to this address as JSON
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Go on, looking again every SECONDS; without it one look is taken
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    follow: Option<u32>,
    /// With --follow, stop after so many looks
    #[arg(long, value_name = "N", requires = "follow", value_parser = clap::value_parser!(u64).range(1..))]
    looks: Option<u64>,
    #[command(flatten)]
    events: EventKeyFlags,
    #[command(flatten)]
    log: LogFlags,
}

/// Runs `log monitor`. Exit code 0: consistent, nothing watched was found; 1: a watched entry was found; 3: the log
/// contradicts itself or serves what does not verify; 69: it cannot be reached, or an alert could not be delivered.
///
/// # Errors
/// When the log cannot be reached or what it says does not verify.
pub fn watch(watch: &Watch, home: &Home, out: &Output) -> Outcome {
    let known = watch.log.known(home)?;
    let client = watch.log.client(&known, home)?;
    let file = watch.merged()?;
    let webhook = match &file.webhook {
        Some(webhook) => Some(Webhook::new(watch.log.server.tls.client(home)?, webhook)?),
        None => None,
    };
    let path = match &watch.state {
        Some(path) => path.clone(),
        None => {
            let folder = home.dir().join("monitor");
            make_folder(&folder, Secrecy::Secret)?;
            folder.join(format!("{}.json", known.description.origin))
        }
    };
    let events = watch.events.rules(&known)?;
    if known.description.kind == "event" && events.is_empty() {
        return Err(Failure::usage("the keys file names nobody whose events are believed")
            .hint("fetch it again with `mentatctl trust export`, or give --event-key TYPE=FILE"));
    }
    let list = WatchList::new(&known.description.kind, &file, events)?;
    let looking = Looking { known, client, list, webhook, path, out };
    block_on(looking.run(watch.follow, watch.looks))
}

impl Watch {
    /// Flags and file as one.
    fn merged(&self) -> Outcome<WatchFile> {
        let mut file = match &self.config {
            Some(path) => WatchFile::load(path)?,
            None => WatchFile::default(),
        };
        file.identities.extend(self.identities.iter().cloned());
        file.digests.extend(self.digests.iter().cloned());
        file.serials.extend(self.serials.iter().cloned());
        file.event_types.extend(self.event_types.iter().cloned());
        if let Some(url) = &self.webhook {
            let rest = file.webhook.take();
            file.webhook = Some(WebhookFile {
                url: url.clone(),
                token_file: rest.as_ref().and_then(|rest| rest.token_file.clone()),
                timeout_seconds: rest.as_ref().and_then(|rest| rest.timeout_seconds),
                attempts: rest.as_ref().and_then(|rest| rest.attempts),
            });
        }
        Ok(file)
    }
}

/// A monitor at work.
struct Looking<'a> {
    known: KnownLog,
    client: LogClient,
    list: WatchList,
    webhook: Option<Webhook>,
    path: PathBuf,
    out: &'a Output,
}

impl Looking<'_> {
    fn description(&self) -> &LogDescription {
        &self.known.description
    }

    async fn run(&self, follow: Option<u32>, looks: Option<u64>) -> Outcome {
        let (mut worst, mut last_trouble) = (Exit::Ok, None);
        for look in 1.. {
            let trouble = match self.look().await {
                Ok(0) => None,
                Ok(_) => {
                    worst = worse(worst, Exit::Failure);
                    None
                }
                Err(failure) if follow.is_none() || failure.is_final() => {
                    self.report(&failure, last_trouble.as_ref()).await?;
                    return Err(failure.failure);
                }
                Err(failure) => {
                    self.report(&failure, last_trouble.as_ref()).await?;
                    self.out.failure(&failure.failure);
                    worst = worse(worst, failure.failure.exit);
                    Some(failure.event)
                }
            };
            last_trouble = trouble;
            let Some(seconds) = follow.filter(|_| looks.is_none_or(|most| look < most)) else { break };
            tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
        }
        Ok(worst)
    }

    /// Tells of trouble, once as long as it stays the same.
    async fn report(&self, trouble: &Trouble, last: Option<&String>) -> Outcome<()> {
        if let Some(evidence) = &trouble.evidence {
            let path = evidence_path(&self.path, &trouble.event);
            write_file(&path, evidence.to_string().as_bytes(), Secrecy::Public)?;
            self.out.note(format!("kept as evidence: {}", path.display()));
        }
        if last == Some(&trouble.event) {
            return Ok(());
        }
        let alert = json!({
            "event": trouble.event, "log": self.description().kind, "origin": self.description().origin,
            "time": clock::now().to_rfc3339(), "error": trouble.failure.what, "code": trouble.failure.code,
            "evidence": trouble.evidence,
        });
        if trouble.event != "undelivered"
            && let Err(failure) = self.send(&alert).await
        {
            // The trouble itself says more than that nobody could be told.
            self.out.failure(&failure);
        }
        Ok(())
    }

    async fn send(&self, alert: &Value) -> Outcome<()> {
        match &self.webhook {
            Some(webhook) => webhook.deliver(alert).await,
            None => Ok(()),
        }
    }

    /// One look, from the stored memory on: how many entries matched.
    async fn look(&self) -> Result<u64, Trouble> {
        let origin = &self.description().origin;
        let stored =
            MonitorState::load(&self.path, origin).or_fail(Exit::Usage, "reading the monitor's memory")?;
        let state = stored.unwrap_or_else(|| MonitorState::new(origin));
        let format = entry_format(&self.description().kind);
        let mut monitor = Monitor::new(self.client.clone(), self.known.keys.clone(), &AwsLc, format, state)?;
        let growth = monitor.update().await?;
        if growth.old != growth.new {
            self.remember(&monitor)?;
        }
        let bar = self.out.bar(growth.new.size, "entries");
        bar.reach(monitor.state().walked());
        let (mut found, mut walked) = (0, 0_u64);
        while let Some(entries) = monitor.next_entries(&mut &self.list).await? {
            for watched in &entries {
                walked += 1;
                if watched.matches.is_empty() {
                    continue;
                }
                found += 1;
                self.found(watched.entry.index, &watched.matches).await?;
            }
            bar.reach(monitor.state().walked());
            // Only what was reported is remembered as walked.
            self.store(monitor.state())?;
        }
        self.store(monitor.state())?;
        drop(bar);
        self.out.line(format!(
            "{} {origin}: {} → {} entries, {walked} walked, root {}",
            self.out.paint(Tone::Good, "consistent"),
            growth.old.size,
            growth.new.size,
            growth.new.root.to_base64(),
        ));
        self.out.value(|| json!({
            "event": "consistent", "ok": true, "origin": origin, "old_size": growth.old.size,
            "size": growth.new.size, "root": growth.new.root.to_base64(), "walked": walked, "found": found,
        }));
        Ok(found)
    }

    fn store(&self, state: &MonitorState) -> Outcome<()> {
        state.store(&self.path).or_fail(Exit::Failure, "writing the monitor's memory")
    }

    /// Adds a verified checkpoint to the history, by which reports know what a log held at a time.
    fn remember(&self, monitor: &Monitor<'_>) -> Outcome<()> {
        let Some(checkpoint) = monitor.checkpoint() else { return Ok(()) };
        History::beside(&self.path).append(&Seen {
            time: clock::now(),
            size: checkpoint.head().size,
            note: checkpoint.note().to_string(),
        })
    }

    async fn found(&self, index: u64, matches: &[String]) -> Outcome<()> {
        let (kind, origin) = (&self.description().kind, &self.description().origin);
        self.out.line(format!(
            "{} {kind} entry {index}: {}",
            self.out.paint(Tone::Bad, "found"),
            matches.join(", ")
        ));
        let alert = json!({
            "event": "found", "log": kind, "origin": origin, "index": index, "matches": matches,
            "time": clock::now().to_rfc3339(),
        });
        self.out.value(|| alert.clone());
        self.send(&alert).await
    }
}

/// Why a look ended early.
struct Trouble {
    /// `fork`, `rollback`, `refused`, `unreachable`, `undelivered` or `failed`.
    event: String,
    failure: Failure,
    /// Both signed notes of a fork.
    evidence: Option<Value>,
}

impl Trouble {
    /// A contradiction does not go away by looking again, and a wrong memory is for the caller to mend.
    fn is_final(&self) -> bool {
        matches!(self.event.as_str(), "fork" | "rollback" | "failed")
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let event = match failure.code.as_deref() {
            Some("webhook_undelivered") => "undelivered",
            _ => "failed",
        };
        Self { event: event.to_owned(), failure, evidence: None }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let evidence = match &error {
            Error::Fork { evidence, known, served } => Some(json!({
                "known_size": known.size, "served_size": served.size,
                "known": String::from_utf8_lossy(&evidence.known),
                "served": String::from_utf8_lossy(&evidence.served),
            })),
            _ => None,
        };
        let event = match &error {
            Error::Fork { .. } => "fork",
            Error::Rollback { .. } => "rollback",
            Error::Transport(_) | Error::Overloaded { .. } => "unreachable",
            Error::Status { status, .. } if *status >= 500 => "unreachable",
            _ => "refused",
        };
        let mut failure = log_failure(error);
        if event == "refused" {
            failure.exit = Exit::Denied;
        }
        Self { event: event.to_owned(), failure, evidence }
    }
}

/// `ORIGIN.json` → `ORIGIN.fork.json`.
fn evidence_path(state: &Path, event: &str) -> PathBuf {
    state.with_extension(format!("{event}.json"))
}

/// What matters more: a log that does not verify, a log that cannot be asked, something found.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::Ok => 0,
        Exit::Failure => 1,
        Exit::Unavailable => 2,
        Exit::Usage | Exit::Refused => 3,
        Exit::Denied => 4,
    };
    if rank(other) > rank(one) { other } else { one }
}
