//! What a monitor remembers between runs, and the file it is kept in.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Largest state file: a note and a few numbers.
const MAX_STATE_SIZE: u64 = 1024 * 1024;

/// Only version of the file.
const VERSION: u32 = 1;

/// The last verified checkpoint of one log and how far its entries were walked.
///
/// The note is verified again when a monitor starts from it, so a damaged file is noticed; a file that was
/// replaced by an older copy only makes the monitor walk entries again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorState {
    version: u32,
    origin: String,
    walked: u64,
    checkpoint: Option<String>,
}

impl MonitorState {
    /// Nothing known yet of the log with this origin.
    #[must_use]
    pub fn new(origin: &str) -> Self {
        Self { version: VERSION, origin: origin.to_owned(), walked: 0, checkpoint: None }
    }

    /// Origin of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Entries walked so far: the index of the next one.
    #[must_use]
    pub fn walked(&self) -> u64 {
        self.walked
    }

    /// The last verified checkpoint as a signed note.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&str> {
        self.checkpoint.as_deref()
    }

    /// The same checkpoint, with every entry still to be walked.
    #[must_use]
    pub fn unwalked(self) -> Self {
        Self { walked: 0, ..self }
    }

    /// The same checkpoint, with every entry from this one on still to be walked.
    #[must_use]
    pub fn back_to(self, index: u64) -> Self {
        Self { walked: self.walked.min(index), ..self }
    }

    pub(crate) fn set_checkpoint(&mut self, note: String) {
        self.checkpoint = Some(note);
    }

    pub(crate) fn set_walked(&mut self, walked: u64) {
        self.walked = walked;
    }

    /// Reads the file; `None` when there is none yet.
    ///
    /// # Errors
    /// [`Error::State`] when the file cannot be read, is no state of this version, or is of another log.
    pub fn load(path: &Path, origin: &str) -> Result<Option<Self>, Error> {
        let failed = |source| Error::State { path: path.to_owned(), source };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if metadata.len() > MAX_STATE_SIZE {
            return Err(failed(invalid("larger than a state can be")));
        }
        let bytes = fs::read(path).map_err(failed)?;
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
        if state.version != VERSION {
            return Err(failed(invalid("of an unknown version")));
        }
        if state.origin != origin {
            return Err(failed(invalid("the state of another log")));
        }
        Ok(Some(state))
    }

    /// Writes the file atomically: after a crash there is the old state or the new one.
    ///
    /// # Errors
    /// [`Error::State`]; the old file is untouched then.
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        self.write(path).map_err(|source| Error::State { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().ok_or_else(|| invalid("not a file name"))?;
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = folder.join(temporary);
        let written = (|| {
            let mut file = File::create(&temporary)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        if written.is_err() {
            // The state file itself is untouched; a left-over temporary file would only confuse.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        File::open(&folder)?.sync_all()
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
