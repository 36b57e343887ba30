//! What was announced and how far the event log was read, over restarts.
//!
//! `events-ORIGIN.json` is the reader's checkpoint and place, `announced-ORIGIN.json` what was found up to there, with the digest of the
//! rules about revocations by which it was believed: under other ones the log is read again.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tlog_client::{Error, MonitorState};
use trust_store::announcement::{Announcements, REVOCATION_TYPE};
use trust_store::event::EventRules;
use trust_store_files::atomic::{self, Readers};

/// Largest file of announcements, bytes: as many as are kept, each with a handful of issuers' names.
const MAX_FILE: u64 = 64 << 20;

/// Where both files are.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    state: PathBuf,
    announced: PathBuf,
    rules: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// SHA-256 of the rules, hexadecimal.
    rules: String,
    announcements: Announcements,
}

const VERSION: u32 = 1;

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    /// The reader's place.
    #[error(transparent)]
    State(#[from] Error),
    /// The announcements.
    #[error(transparent)]
    File(#[from] trust_store_files::Error),
    /// Never for what was read from a log.
    #[error(transparent)]
    Form(#[from] serde_json::Error),
}

impl Memory {
    pub(super) fn new(folder: &Path, origin: &str, rules: &EventRules) -> Self {
        // What is believed about anything else has no part in it. Rules are text and keys: they always have a form.
        let rules = rules.rules().iter().filter(|rule| rule.predicate_type == REVOCATION_TYPE);
        let rules = serde_json::to_vec(&rules.collect::<Vec<_>>()).unwrap_or_default();
        Self {
            state: folder.join(format!("events-{origin}.json")),
            announced: folder.join(format!("announced-{origin}.json")),
            rules: hex::encode(digest(&SHA256, &rules)),
        }
    }

    /// The place up to which the log was read.
    pub(super) fn place(&self, origin: &str) -> Result<MonitorState, Error> {
        let state = MonitorState::load(&self.state, origin)?;
        Ok(state.unwrap_or_else(|| MonitorState::new(origin)))
    }

    /// The file of it.
    pub(super) fn place_file(&self) -> &Path {
        &self.state
    }

    /// What was found up to there. What cannot be read, or was believed by other rules, is read from the log again.
    pub(super) fn announcements(&self) -> Option<Announcements> {
        // Whatever else is wrong with it is told below.
        if matches!(self.announced.try_exists(), Ok(false)) {
            return None;
        }
        let read = atomic::read(&self.announced, MAX_FILE).map_err(|error| error.to_string());
        let file =
            read.and_then(|bytes| serde_json::from_slice::<File>(&bytes).map_err(|error| error.to_string()));
        match file {
            Ok(file) => (file.version == VERSION && file.rules == self.rules).then_some(file.announcements),
            Err(problem) => {
                let file = self.announced.display();
                tracing::warn!(%file, problem, "what was announced is read from the event log again");
                None
            }
        }
    }

    /// Writes the announcements, if there is something new, and then the place up to which they were read.
    pub(super) fn store(&self, news: Option<Announcements>, state: &MonitorState) -> Result<(), MemoryError> {
        if let Some(announcements) = news {
            let file = File { version: VERSION, rules: self.rules.clone(), announcements };
            atomic::write(&self.announced, &serde_json::to_vec(&file)?, Readers::Owner)?;
        }
        Ok(state.store(&self.state)?)
    }
}
