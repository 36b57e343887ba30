//! What this machine remembers of executors and logs between two checks: `anchors/` in the home.
//!
//! `executors.json` has the receipt log that each executor had at the last good check, `log-ORIGIN.json` the newest verified checkpoint of a
//! log. Whoever removes both here and there has a first check again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tlog_client::MonitorState;

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, make_folder, read_bounded, write_file};

/// Largest list of executors that is read, bytes.
const MAX_LIST: u64 = 4 << 20;

/// The folder.
pub(super) struct Memory {
    folder: PathBuf,
}

/// The receipt log that an executor had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::executor) struct ReceiptLog {
    /// Its origin.
    pub(in crate::executor) origin: String,
    /// Its verifier keys.
    pub(in crate::executor) vkeys: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// By the executor's base URL.
    executors: BTreeMap<String, ReceiptLog>,
}

impl Memory {
    /// # Errors
    /// When the folder cannot be made.
    pub(super) fn open(home: &Home) -> Outcome<Self> {
        let folder = home.dir().join("anchors");
        make_folder(&folder, Secrecy::Public)?;
        Ok(Self { folder })
    }

    /// The receipt log that this executor had at the last check.
    ///
    /// # Errors
    /// When the list cannot be read: a damaged memory is not an empty one.
    pub(super) fn receipt_log(&self, executor: &str) -> Outcome<Option<ReceiptLog>> {
        Ok(self.list()?.executors.remove(executor))
    }

    /// # Errors
    /// When the list cannot be read or written.
    pub(super) fn remember(&self, executor: &str, log: ReceiptLog) -> Outcome<()> {
        let mut list = self.list()?;
        if list.executors.get(executor) == Some(&log) {
            return Ok(());
        }
        list.executors.insert(executor.to_owned(), log);
        let text =
            serde_json::to_vec_pretty(&list).or_fail(Exit::Failure, "writing the list of executors")?;
        write_file(&self.executors(), &text, Secrecy::Public)
    }

    /// The newest checkpoint of a log that was verified, with every entry to be read again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn state(&self, origin: &str) -> Outcome<MonitorState> {
        let stored = MonitorState::load(&self.log(origin), origin)
            .or_fail(Exit::Usage, "reading what is remembered of the log")?;
        Ok(stored.map_or_else(|| MonitorState::new(origin), MonitorState::unwalked))
    }

    /// # Errors
    /// When it cannot be written.
    pub(super) fn store(&self, state: &MonitorState) -> Outcome<()> {
        let state = state.clone().unwalked();
        state.store(&self.log(state.origin())).or_fail(Exit::Failure, "remembering the log's checkpoint")
    }

    fn list(&self) -> Outcome<List> {
        let path = self.executors();
        if matches!(path.try_exists(), Ok(false)) {
            return Ok(List::default());
        }
        let text = read_bounded(&path, MAX_LIST)?;
        serde_json::from_slice(&text).or_fail(Exit::Usage, path.display())
    }

    fn executors(&self) -> PathBuf {
        self.folder.join("executors.json")
    }

    /// Origins of receipt logs come from executors: no byte of them may lead out of the folder.
    fn log(&self, origin: &str) -> PathBuf {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name: String = origin.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        self.folder.join(format!("log-{name}.json"))
    }
}
