//! Which policy file is in force: the one that is, or the one that takes its place at a time.
//!
//! Once the time has come, it has come: that is kept in the state folder, so that a clock that is set back and a
//! configuration that is edited do not open again what was closed. What will be in force is read when the executor starts and
//! kept as it was read last, so that a file that is removed or broken by then does not prolong the time before.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use service::StartRefusal;
use trust_store::UnixTime;
use trust_store_files::atomic::{self, Readers};

use crate::admission::Rules;
use crate::config::NextPolicy;

/// Largest file of the state, bytes.
const MAX_FILE: u64 = 4096;

/// The policy files and the time between them.
#[derive(Debug)]
pub struct Schedule {
    file: PathBuf,
    next: Option<Next>,
    latch: PathBuf,
    crossing: Mutex<Crossing>,
}

#[derive(Debug)]
struct Next {
    policy: NextPolicy,
    /// As it was read last.
    rules: Mutex<Rules>,
}

/// Whether the time has come, and whether that is kept in the state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crossing {
    Ahead,
    /// It has, and could not be written down; it is tried again.
    Unwritten,
    Written,
}

impl Schedule {
    /// The schedule of these files; what was enforced before is, whatever the clock says now. Blocks.
    ///
    /// # Errors
    ///
    /// When the state or the next policy cannot be read, or when requirements that were enforced are configured no longer.
    pub fn open(file: PathBuf, next: Option<NextPolicy>, state: &Path) -> Result<Self, StartRefusal> {
        let latch = state.join("enforced-policy");
        let unreadable = |error: std::io::Error| {
            StartRefusal::new(format!("{} cannot be read", latch.display()), "check who owns state_dir")
                .because(error)
        };
        let enforced = if latch.try_exists().map_err(unreadable)? {
            let text =
                atomic::read(&latch, MAX_FILE).map_err(|error| unreadable(std::io::Error::other(error)))?;
            Some(String::from_utf8_lossy(&text).trim_end().to_owned())
        } else {
            None
        };
        if let Some(enforced) = &enforced
            && !next.as_ref().is_some_and(|next| enforced.starts_with(&named(next)))
        {
            return Err(StartRefusal::new(
                format!(
                    "added requirements are in force ({enforced}) and the configuration names them no longer"
                ),
                format!("put them into the policy, then remove {}", latch.display()),
            ));
        }
        // What will be demanded must be usable before the day comes.
        let next = next
            .map(|policy| Ok(Next { rules: Mutex::new(Rules::read(&policy.file)?), policy }))
            .transpose()?;
        let crossing = Mutex::new(if enforced.is_some() { Crossing::Written } else { Crossing::Ahead });
        Ok(Self { file, next, latch, crossing })
    }

    /// The file of the policy that is in force at this time. That the time has come is remembered first.
    ///
    /// # Errors
    ///
    /// When that cannot be written; the stricter policy is in force all the same, and stays so in this process.
    pub fn in_force(&self, now: UnixTime) -> (&Path, std::io::Result<()>) {
        let Some(Next { policy: next, .. }) = &self.next else { return (&self.file, Ok(())) };
        let mut crossing = self.crossing.lock();
        match *crossing {
            Crossing::Written => return (&next.file, Ok(())),
            Crossing::Ahead if now < next.from => return (&self.file, Ok(())),
            Crossing::Ahead | Crossing::Unwritten => *crossing = Crossing::Unwritten,
        }
        let text = format!("{}{}\n", named(next), now.to_rfc3339());
        match atomic::write(&self.latch, text.as_bytes(), Readers::Owner) {
            Ok(()) => {
                *crossing = Crossing::Written;
                (&next.file, Ok(()))
            }
            Err(error) => (&next.file, Err(std::io::Error::other(error))),
        }
    }

    /// The policy that is not in force yet, if there is one.
    pub fn upcoming(&self) -> Option<&NextPolicy> {
        self.next.as_ref().map(|next| &next.policy).filter(|_| !self.has_come())
    }

    /// The rules whose time has come, as they were read last: what is in force when their file cannot be used.
    pub(crate) fn kept(&self) -> Option<Rules> {
        self.next.as_ref().filter(|_| self.has_come()).map(|next| next.rules.lock().clone())
    }

    /// Keeps the rules of the next policy.
    pub(crate) fn keep(&self, rules: &Rules) {
        if let Some(next) = &self.next {
            *next.rules.lock() = rules.clone();
        }
    }

    /// Whether the next policy is in force.
    pub(crate) fn has_come(&self) -> bool {
        *self.crossing.lock() != Crossing::Ahead
    }
}

/// How the record of the crossing begins.
fn named(next: &NextPolicy) -> String {
    format!("{} since ", next.file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "version: 1\nlogs: { witnesses: not-required }\ncapabilities: { within: [] }\n";

    fn open(state: &Path, next: Option<(&str, i64)>) -> Result<Schedule, StartRefusal> {
        let next = next.map(|(file, from)| NextPolicy { file: state.join(file), from: UnixTime(from) });
        Schedule::open("policy.yaml".into(), next, state)
    }

    fn schedule(state: &Path, from: i64) -> Schedule {
        std::fs::write(state.join("next.yaml"), POLICY).unwrap();
        open(state, Some(("next.yaml", from))).unwrap()
    }

    #[test]
    fn what_was_enforced_once_stays_enforced() {
        let dir = tempfile::tempdir().unwrap();
        let next = dir.path().join("next.yaml");
        let first = schedule(dir.path(), 1000);
        assert_eq!(first.in_force(UnixTime(999)).0, Path::new("policy.yaml"));
        assert!(first.upcoming().is_some() && first.kept().is_none());
        assert_eq!(first.in_force(UnixTime(1000)).0, next);
        assert!(first.upcoming().is_none() && first.kept().is_some());
        // The clock is set back.
        assert_eq!(first.in_force(UnixTime(5)).0, next);
        // The date is edited, and the executor starts again.
        let again = schedule(dir.path(), 1_000_000);
        assert_eq!(again.in_force(UnixTime(5)).0, next);
        // The flag is removed, or names another file.
        std::fs::write(dir.path().join("other.yaml"), POLICY).unwrap();
        for edited in [None, Some(("other.yaml", 1000)), Some(("next.yaml since 1970.yaml", 1000))] {
            let refused = open(dir.path(), edited).unwrap_err().to_string();
            assert!(refused.contains("names them no longer") && refused.contains("1970-01-01"), "{refused}");
        }
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(open(elsewhere.path(), None).is_ok());
    }

    #[test]
    fn what_cannot_be_written_down_is_in_force_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let schedule = schedule(dir.path(), 1000);
        // A folder stands where the record belongs.
        let latch = dir.path().join("enforced-policy");
        std::fs::create_dir_all(latch.join("in-the-way")).unwrap();
        assert!(schedule.in_force(UnixTime(1000)).1.is_err());
        assert!(schedule.upcoming().is_none());
        let (file, remembered) = schedule.in_force(UnixTime(5));
        assert!(file.ends_with("next.yaml") && remembered.is_err(), "the clock is set back");
        std::fs::remove_dir_all(&latch).unwrap();
        assert!(schedule.in_force(UnixTime(5)).1.is_ok());
        assert!(latch.is_file());
    }

    #[test]
    fn a_next_policy_that_cannot_be_used_is_told_before_its_day() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path(), Some(("next.yaml", 1000))).is_err());
    }
}
