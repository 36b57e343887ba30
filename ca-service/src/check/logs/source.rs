//! Where the logs are read, and the keys that they are believed by.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_pki::SubjectPublicKey;
use ca_pki::key::KeyUse;
use service::{ClientTls, StartRefusal};
use tlog_client::{EntryFormat, LogClient, LogDescription, LogSet, RetryPolicy, VerifierKey};

use crate::config::Settings;
use crate::transparency::client;

/// Largest file of log keys in bytes.
const MAX_LOG_KEYS: u64 = 4 << 20;
/// Attempts of one request: whoever checks is told soon that a log does not answer.
const ATTEMPTS: u32 = 3;

/// One log.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) origin: String,
    pub(super) keys: Vec<VerifierKey>,
    pub(super) client: LogClient,
    /// Of an issuance log: what its promises are verified with.
    pub(super) promises: Option<SubjectPublicKey>,
}

impl Source {
    /// How it serves its entries.
    pub(super) fn format(&self) -> EntryFormat {
        if self.promises.is_some() { EntryFormat::DataTiles } else { EntryFormat::Bundles }
    }

    fn of(log: &LogDescription, client: LogClient) -> Result<Self, String> {
        let keys = log.verifier_keys().map_err(|error| error.to_string())?;
        if keys.is_empty() {
            return Err("it has no key".to_owned());
        }
        let promises = if log.kind == "issuance" {
            let spki = log.spki().map_err(|error| error.to_string())?;
            let key = SubjectPublicKey::from_spki(&spki, KeyUse::Subscriber);
            Some(key.map_err(|error| error.to_string())?)
        } else {
            None
        };
        let retry =
            RetryPolicy { attempts: ATTEMPTS, wait: Duration::from_millis(300), ..RetryPolicy::default() };
        Ok(Self { origin: log.origin.clone(), keys, client: client.with_retry(retry), promises })
    }
}

/// The issuance and event logs that the records are compared with, frozen shards among them.
#[derive(Debug, Clone, Default)]
pub struct LogSources {
    pub(super) issuance: Vec<Source>,
    pub(super) events: Vec<Source>,
}

impl LogSources {
    /// Those of the configuration: read where it says, or below `copies` from what `mentatctl log export` wrote. None where it
    /// names no log.
    ///
    /// # Errors
    /// [`StartRefusal`] when there are logs and no keys for them, and for a log that cannot be asked.
    pub fn configured(settings: &Settings, copies: Option<&Path>) -> Result<Option<Self>, StartRefusal> {
        let config = &settings.config;
        let issuance = match &config.issuance_log {
            Some(log) => Some(("issuance", &log.url, log.tls(settings)?)),
            None => None,
        };
        let events = match &config.event_log {
            Some(log) => Some(("event", &log.url, log.tls(settings)?)),
            None => None,
        };
        if issuance.is_none() && events.is_none() {
            return Ok(None);
        }
        let Some(check) = &config.check else {
            return Err(StartRefusal::new(
                "the configuration names logs, and check.log_keys does not say what they are believed by",
                "get log_keys.json with `mentatctl trust export` and name it, or check the records alone with --without-logs",
            ));
        };
        let known = known(&settings.path(&check.log_keys))?;
        let mut sources = Self::default();
        for (kind, url, tls) in [issuance, events].into_iter().flatten() {
            let found = of_kind(&known, kind, url, &tls, copies)?;
            match kind {
                "issuance" => sources.issuance = found,
                _ => sources.events = found,
            }
        }
        Ok(Some(sources))
    }

    /// Logs with the clients that read them; of other kinds than `issuance` and `event` nothing is read.
    ///
    /// # Errors
    /// For a log whose keys cannot be used, what is wrong with them.
    pub fn of(logs: impl IntoIterator<Item = (LogDescription, LogClient)>) -> Result<Self, String> {
        let mut sources = Self::default();
        for (log, client) in logs {
            match log.kind.as_str() {
                "issuance" => sources.issuance.push(Source::of(&log, client)?),
                "event" => sources.events.push(Source::of(&log, client)?),
                _ => {}
            }
        }
        Ok(sources)
    }
}

/// The logs of a kind that are known, each once, read at the configured URL, at their own, or in a copy.
fn of_kind(
    known: &LogSet,
    kind: &str,
    url: &str,
    tls: &ClientTls,
    copies: Option<&Path>,
) -> Result<Vec<Source>, StartRefusal> {
    let bare = |url: &str| url.trim_end_matches('/').to_owned();
    let of_kind: Vec<&LogDescription> = known.0.iter().filter(|log| log.kind == kind).collect();
    // The one that is written to is read where it is written to, whatever its server calls itself.
    let written =
        of_kind.iter().find(|log| bare(&log.url) == bare(url)).copied().or_else(|| known.of_kind(kind));
    let Some(written) = written else {
        return Err(StartRefusal::new(
            format!("check.log_keys describes no log of kind {kind}"),
            "get log_keys.json with `mentatctl trust export`",
        ));
    };
    let mut sources = Vec::new();
    let mut origins = BTreeSet::new();
    for log in of_kind {
        if !origins.insert(&log.origin) {
            continue;
        }
        let reader = match copies {
            Some(folder) => LogClient::over_folder(&copy_of(folder, &log.origin)?),
            None => {
                let at = if log.origin == written.origin { url } else { &log.url };
                let field = format!("the URL of {}", log.origin);
                tls.allow(&field, at)?;
                client(&field, at, tls)?
            }
        };
        let source = Source::of(log, reader).map_err(|detail| {
            StartRefusal::new(
                format!("check.log_keys: {}: {detail}", log.origin),
                "get log_keys.json with `mentatctl trust export`",
            )
        })?;
        sources.push(source);
    }
    Ok(sources)
}

/// The folder with the copy of a log: `copies` itself, or one in it.
fn copy_of(copies: &Path, origin: &str) -> Result<PathBuf, StartRefusal> {
    let unreadable = |error: std::io::Error| {
        StartRefusal::new(format!("{} cannot be read", copies.display()), "correct --copies").because(error)
    };
    let mut folders = vec![copies.to_path_buf()];
    for entry in std::fs::read_dir(copies).map_err(unreadable)? {
        folders.push(entry.map_err(unreadable)?.path());
    }
    // Which log it claims to be of. Whether it is shows when its checkpoint is opened.
    let mut matching = folders.into_iter().filter(|folder| {
        let mut line = vec![0; origin.len() + 1];
        let read =
            std::fs::File::open(folder.join("checkpoint")).and_then(|mut file| file.read_exact(&mut line));
        read.is_ok() && line.strip_suffix(b"\n") == Some(origin.as_bytes())
    });
    matching.next().ok_or_else(|| {
        StartRefusal::new(
            format!("there is no copy of {origin} in {}", copies.display()),
            "make one with `mentatctl log export`, a folder for each log",
        )
    })
}

fn known(path: &Path) -> Result<LogSet, StartRefusal> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
        StartRefusal::new(
            format!("check.log_keys {} cannot be used", path.display()),
            "get log_keys.json with `mentatctl trust export`",
        )
        .because(error)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| refuse(error.into()))?;
    file.take(MAX_LOG_KEYS + 1).read_to_end(&mut bytes).map_err(|error| refuse(error.into()))?;
    if bytes.len() as u64 > MAX_LOG_KEYS {
        return Err(refuse(format!("it is larger than {MAX_LOG_KEYS} bytes").into()));
    }
    serde_json::from_slice(&bytes).map_err(|error| refuse(error.into()))
}
