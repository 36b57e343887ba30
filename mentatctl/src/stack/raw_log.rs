//! The raw log of a stack: it takes any bytes, for load tests and other uses of a tile log. A stack gets one because it is
//! for development; nothing ever trusts it (the trusted root does not name it, and its keys are its own).
//!
//! Stacks of before have none. It is added to them at a start, in an order that any interruption leaves repeatable:
//! keys and empty log → configuration → server → `log_keys.json` → `stack.json`.

use std::path::{Path, PathBuf};

use tlog_client::LogSet;
use toml::{Table, Value};

use super::child;
use super::file::{Log, StackFile};
use super::layout::Layout;
use super::stack_client;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, read_file, read_text, write_file};
use crate::net::block_on;

/// Kind and name of the log.
pub const RAW: &str = "raw";

/// Whether a stack gets a raw log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawLog {
    /// It gets one where it has none.
    Wanted,
    /// It gets none. One that is there stays.
    LeftOut,
}

/// Before the servers start: configures and makes the log where a stack has none.
///
/// # Errors
/// Exit code 78 when the configuration cannot be extended or the log server refuses.
pub fn prepare(layout: &Layout, file: &StackFile) -> Outcome<()> {
    if file.logs.contains_key(RAW) {
        return Ok(());
    }
    let path = layout.config("transparency-log");
    let text = read_text(&path).map_err(refused)?;
    let mut config: Table = toml::from_str(&text).or_fail(Exit::Refused, path.display())?;
    let missing = |config: &Table| !logs_folder(&path, config).join(RAW).exists();
    if has_raw(&config) {
        // An operator wrote it, or a start was interrupted after this function.
        if missing(&config) {
            child::init("transparency-log", &path)?;
        }
        return Ok(());
    }
    // Appended, so that an operator's own lines and comments stay as they are.
    let text = format!("{text}\n[[log]]\nkind = \"{RAW}\"\nname = \"{RAW}\"\n");
    config = toml::from_str(&text).map_err(|_| {
        Failure::refused(format!("{} cannot be given a raw log", path.display()))
            .hint("add a [[log]] with kind and name \"raw\" to it, or start with --no-raw-log")
    })?;
    // The server's own configuration names the log when the log is there, never before.
    let candidate = path.with_extension("raw.toml");
    write_file(&candidate, text.as_bytes(), Secrecy::Public)?;
    if missing(&config) {
        child::init("transparency-log", &candidate)?;
    }
    std::fs::rename(&candidate, &path).or_fail(Exit::Refused, path.display())
}

/// After the log server started: writes down where the log is and how it signs.
///
/// # Errors
/// When the server cannot be asked, or a file cannot be read or written.
pub fn announce(layout: &Layout, file: &mut StackFile) -> Outcome<()> {
    if file.logs.contains_key(RAW) {
        return Ok(());
    }
    let Some(server) = file.log.as_ref().map(|log| log.url.clone()) else { return Ok(()) };
    let served = block_on(async {
        LogSet::fetch(stack_client(layout)?, &server).await.or_fail(Exit::Failure, "asking the log server")
    })?;
    let Some(raw) = served.of_kind(RAW) else { return Ok(()) };
    let path = layout.trust("log_keys.json");
    let mut keys: LogSet =
        serde_json::from_slice(&read_file(&path)?).or_fail(Exit::Refused, path.display())?;
    if keys.of_kind(RAW).is_none() {
        keys.0.push(raw.clone());
        let bytes = serde_json::to_vec_pretty(&keys).or_fail(Exit::Failure, "writing the log keys")?;
        write_file(&path, &bytes, Secrecy::Public)?;
    }
    file.logs.insert(RAW.to_owned(), Log::described(raw));
    file.store(&layout.stack_file())
}

fn has_raw(config: &Table) -> bool {
    let logs = config.get("log").and_then(Value::as_array);
    logs.is_some_and(|logs| logs.iter().any(|log| log.get("kind").and_then(Value::as_str) == Some(RAW)))
}

/// The folder of all logs; a relative path starts at the configuration file's folder.
fn logs_folder(path: &Path, config: &Table) -> PathBuf {
    let data = config.get("data").and_then(Value::as_str).unwrap_or("data");
    path.parent().unwrap_or(Path::new(".")).join(data)
}

fn refused(failure: Failure) -> Failure {
    Failure { exit: Exit::Refused, ..failure }
}
