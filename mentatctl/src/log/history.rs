//! The checkpoints that a monitor saw, with the time it saw them: `ORIGIN.history.jsonl` beside its memory.
//!
//! Entries of a signing log carry no time. What can be said is what the log held when a checkpoint was seen.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trust_store::UnixTime;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};

/// Seconds between two lines.
const EVERY: i64 = 3600;
/// Longest line, bytes: a note is at most 64 KiB, JSON doubles its line ends.
const MAX_LINE: u64 = 192 << 10;
/// Most lines that are read: more than ten years of hours.
const MAX_LINES: usize = 100_000;

/// A file of checkpoints.
#[derive(Clone, Debug)]
pub struct History(PathBuf);

/// One checkpoint as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, by the monitor's clock.
    pub time: UnixTime,
    /// Its size.
    pub size: u64,
    /// The signed note; whoever reads it verifies it again.
    pub note: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    time: String,
    size: u64,
    note: String,
}

impl History {
    /// The history that belongs to a monitor's memory.
    pub fn beside(state: &Path) -> Self {
        Self(state.with_extension("history.jsonl"))
    }

    /// A history by its path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Adds a checkpoint, unless the last one is less than an hour old: reports speak of days, and a note with a
    /// post-quantum signature has some five kilobytes.
    ///
    /// # Errors
    /// Exit code 1 when the file cannot be written, 2 when what is there is no history.
    pub fn append(&self, seen: &Seen) -> Outcome<()> {
        if let Some(last) = self.last()?
            && (0..EVERY).contains(&seen.time.since(last))
        {
            return Ok(());
        }
        let line = Line { time: seen.time.to_rfc3339(), size: seen.size, note: seen.note.clone() };
        let mut text =
            serde_json::to_string(&line).or_fail(Exit::Failure, "writing the monitor's history")?;
        text.push('\n');
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()
        };
        write().or_fail(Exit::Failure, format!("cannot write {}", self.0.display()))
    }

    /// Time of the last line, read from the file's end.
    fn last(&self) -> Outcome<Option<UnixTime>> {
        let read = || -> std::io::Result<String> {
            let mut file = match std::fs::File::open(&self.0) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
                file => file?,
            };
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(2 * MAX_LINE)))?;
            let mut tail = Vec::new();
            file.take(2 * MAX_LINE).read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        let tail = read().or_fail(Exit::Usage, format!("cannot read {}", self.0.display()))?;
        let line = tail.lines().rev().find_map(|line| serde_json::from_str::<Line>(line).ok());
        Ok(line.and_then(|line| UnixTime::from_rfc3339(&line.time)))
    }

    /// All checkpoints, oldest first. A last line that was cut by a crash is left out.
    ///
    /// # Errors
    /// Exit code 2 for a file that cannot be read or is no history.
    pub fn read(&self) -> Outcome<Vec<Seen>> {
        let file = std::fs::File::open(&self.0);
        let mut reader =
            BufReader::new(file.or_fail(Exit::Usage, format!("cannot read {}", self.0.display()))?);
        let mut seen = Vec::new();
        loop {
            let number = seen.len() + 1;
            let bad = || {
                Failure::usage(format!("{} line {number} is no checkpoint", self.0.display()))
                    .hint("restore the file, or move it away: the history then begins anew")
            };
            let mut line = Vec::new();
            let limited = &mut (&mut reader).take(MAX_LINE);
            limited
                .read_until(b'\n', &mut line)
                .or_fail(Exit::Usage, format!("cannot read {}", self.0.display()))?;
            if line.last() != Some(&b'\n') {
                // A crash may have cut the last line; a line that is too long is no line of ours.
                return if line.len() as u64 == MAX_LINE { Err(bad()) } else { Ok(seen) };
            }
            if seen.len() >= MAX_LINES {
                return Err(Failure::usage(format!("{} has more than {MAX_LINES} lines", self.0.display()))
                    .hint("move the oldest lines into another file"));
            }
            let line: Line = serde_json::from_slice(&line).map_err(|_| bad())?;
            let time = UnixTime::from_rfc3339(&line.time).ok_or_else(bad)?;
            seen.push(Seen { time, size: line.size, note: line.note });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_frozen_and_a_torn_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::beside(&folder.path().join("log.example.json"));
        let seen = Seen { time: UnixTime(1_893_456_000), size: 7, note: "n\n".to_owned() };
        history.append(&seen).unwrap();
        let path = folder.path().join("log.example.history.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"time\":\"2030-01-01T00:00:00Z\",\"size\":7,\"note\":\"n\\n\"}\n");
        std::fs::write(&path, format!("{text}{{\"time\":")).unwrap();
        assert_eq!(history.read().unwrap(), std::slice::from_ref(&seen));
        std::fs::write(&path, &text).unwrap();
        history.append(&Seen { time: seen.time.plus(3599), ..seen.clone() }).unwrap();
        assert_eq!(history.read().unwrap().len(), 1, "at most one an hour");
        history.append(&Seen { time: seen.time.plus(3600), ..seen }).unwrap();
        assert_eq!(history.read().unwrap().len(), 2);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(history.read().is_err());
    }
}
