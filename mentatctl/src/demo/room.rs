//! Room for the demonstration: a full disk is said before the first key is made, and named when it fills up meanwhile.

use std::path::Path;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};

/// What a demonstration's stack may take, with room to spare: four logs whose entry files are laid out 16 MiB at a time,
/// databases, a compiled module.
pub const NEEDED: u64 = 128 << 20;

/// Less than this left after a failure explains it: an entry file cannot be laid out any more.
const FULL: u64 = 17 << 20;

/// Refuses a folder with too little room.
///
/// # Errors
/// Exit code 78 naming the folder.
pub fn check(folder: &Path) -> Outcome<()> {
    let free = free(folder)?;
    if free >= NEEDED {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{} has {} MiB left, and the demo needs {} MiB",
        folder.display(),
        free >> 20,
        NEEDED >> 20
    ))
    .code("storage_full")
    .hint("make room there, or name another folder in TMPDIR (or --keep)"))
}

/// The failure itself, or that the folder is full, which explains it better.
pub fn explained(failure: Failure, folder: &Path) -> Failure {
    match free(folder) {
        Ok(free) if free < FULL => {
            Failure::failed(format!("{} has only {} MiB left", folder.display(), free >> 20))
                .code("storage_full")
                .hint(
                    "make room there, or name another folder in TMPDIR (or --keep), and start the demo again",
                )
        }
        _ => failure,
    }
}

/// Bytes that this process may still write into a folder's file system.
fn free(folder: &Path) -> Outcome<u64> {
    let system =
        rustix::fs::statvfs(folder).or_fail(Exit::Refused, format!("cannot use {}", folder.display()))?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_file_system_without_room_is_named() {
        // It holds nothing that one could write.
        let full = Path::new("/proc");
        let refused = check(full).unwrap_err();
        assert_eq!((refused.exit, refused.code.as_deref()), (Exit::Refused, Some("storage_full")));
        assert!(refused.line().contains("/proc has 0 MiB left") && refused.line().contains("TMPDIR"));
        let explained = explained(Failure::failed("the log is unavailable"), full);
        assert_eq!(explained.what, "/proc has only 0 MiB left");
        assert_eq!(check(Path::new("/none/such")).unwrap_err().exit, Exit::Refused);
    }
}
