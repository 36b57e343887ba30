//! Which policy file is in force: the one that is, or the one that takes its place at a time.
//!
//! Once the time has come, it has come: that is kept in the state folder, so that a clock that is set back and a
//! configuration that is edited do not open again what was closed.

use std::path::{Path, PathBuf};

use service::StartRefusal;
use trust_store::UnixTime;
use trust_store_files::atomic::{self, Readers};

use crate::config::NextPolicy;

/// Largest file of the state, bytes.
const MAX_FILE: u64 = 4096;

/// The policy files and the time between them.
#[derive(Debug)]
pub struct Schedule {
    file: PathBuf,
    next: Option<NextPolicy>,
    latch: PathBuf,
    enforced: parking_lot::Mutex<bool>,
}

impl Schedule {
    /// The schedule of these files; what was enforced before is, whatever the clock says now.
    ///
    /// # Errors
    ///
    /// When the state cannot be read, or when requirements that were enforced are configured no longer.
    pub fn open(file: PathBuf, next: Option<NextPolicy>, state: &Path) -> Result<Self, StartRefusal> {
        let latch = state.join("enforced-policy");
        let enforced = latch.exists();
        if enforced && next.is_none() {
            let since = atomic::read(&latch, MAX_FILE).unwrap_or_default();
            return Err(StartRefusal::new(
                format!(
                    "added requirements are in force ({}) and the configuration names them no longer",
                    String::from_utf8_lossy(&since).trim_end()
                ),
                format!("put them into the policy, then remove {}", latch.display()),
            ));
        }
        Ok(Self { file, next, latch, enforced: parking_lot::Mutex::new(enforced) })
    }

    /// The file of the policy that is in force at this time. The first time after the date is remembered first.
    ///
    /// # Errors
    ///
    /// When that cannot be remembered; the stricter policy is in force all the same.
    pub fn in_force(&self, now: UnixTime) -> (&Path, std::io::Result<()>) {
        let Some(next) = &self.next else { return (&self.file, Ok(())) };
        let mut enforced = self.enforced.lock();
        if *enforced {
            return (&next.file, Ok(()));
        }
        if now < next.from {
            return (&self.file, Ok(()));
        }
        let text = format!("{} since {}\n", next.file.display(), now.to_rfc3339());
        match atomic::write(&self.latch, text.as_bytes(), Readers::Owner) {
            Ok(()) => {
                *enforced = true;
                (&next.file, Ok(()))
            }
            Err(error) => (&next.file, Err(std::io::Error::other(error))),
        }
    }

    /// The policy that is not in force yet, if there is one.
    pub fn upcoming(&self) -> Option<&NextPolicy> {
        self.next.as_ref().filter(|_| !*self.enforced.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(state: &Path, from: i64) -> Schedule {
        let next = NextPolicy { file: "next.yaml".into(), from: UnixTime(from) };
        Schedule::open("policy.yaml".into(), Some(next), state).unwrap()
    }

    #[test]
    fn what_was_enforced_once_stays_enforced() {
        let dir = tempfile::tempdir().unwrap();
        let first = schedule(dir.path(), 1000);
        assert_eq!(first.in_force(UnixTime(999)).0, Path::new("policy.yaml"));
        assert!(first.upcoming().is_some());
        assert_eq!(first.in_force(UnixTime(1000)).0, Path::new("next.yaml"));
        assert!(first.upcoming().is_none());
        // The clock is set back.
        assert_eq!(first.in_force(UnixTime(5)).0, Path::new("next.yaml"));
        // The date is edited, and the executor starts again.
        let again = schedule(dir.path(), 1_000_000);
        assert_eq!(again.in_force(UnixTime(5)).0, Path::new("next.yaml"));
        // The flag is removed.
        let refused = Schedule::open("policy.yaml".into(), None, dir.path()).unwrap_err().to_string();
        assert!(refused.contains("names them no longer") && refused.contains("1970-01-01"), "{refused}");
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(Schedule::open("policy.yaml".into(), None, elsewhere.path()).is_ok());
    }
}
