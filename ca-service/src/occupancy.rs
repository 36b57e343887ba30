//! One process at a time changes an authority: its server, or a command that is run while the server is stopped.
//!
//! What two of them would do to each other: `renew` adds a CA that the server does not know, whose lists and statements it cannot
//! make; `accept-time` and a ceremony change what the server has in memory.

use std::fs::{File, OpenOptions, TryLockError};
use std::time::Duration;

use service::StartRefusal;

use crate::config::Settings;

/// Name of the file in `data_dir`; it is empty, and its lock ends with the process.
const FILE: &str = "lock";
/// How long a process that is just ending is waited for, in attempts.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The right to change an authority, for as long as it lives.
#[derive(Debug)]
#[must_use = "the lock ends with this"]
pub struct Occupied {
    _file: Option<File>,
}

/// Takes the lock of an authority. Where there is none yet, nobody can be at work.
///
/// # Errors
/// [`StartRefusal`] when another process has it, or the folder cannot be written.
pub async fn occupy(settings: &Settings) -> Result<Occupied, StartRefusal> {
    take(settings, ATTEMPTS).await
}

async fn take(settings: &Settings, attempts: u32) -> Result<Occupied, StartRefusal> {
    if !settings.data_dir.exists() {
        return Ok(Occupied { _file: None });
    }
    let path = settings.data_dir.join(FILE);
    let refuse = |error: std::io::Error| {
        StartRefusal::new(
            format!("{} cannot be locked", path.display()),
            "let the server's user write data_dir",
        )
        .because(error)
    };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(refuse)?;
    for _ in 0..attempts {
        match file.try_lock() {
            Ok(()) => return Ok(Occupied { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(refuse(error)),
        }
    }
    Err(StartRefusal::new(
        format!("another process works on {}", settings.data_dir.display()),
        "stop the server first, run the command, and start the server again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn one_process_at_a_time_changes_an_authority() {
        let folder = tempfile::tempdir().unwrap();
        let text = include_str!("../../docs/operations/ca-service.toml");
        let text = text.replacen("/var/lib/ca-service", folder.path().to_str().unwrap(), 1);
        let settings = Config::parse(&text).unwrap().validate().unwrap();
        let held = occupy(&settings).await.unwrap();
        let refused = take(&settings, 2).await.unwrap_err().to_string();
        assert!(refused.contains("another process") && refused.contains("stop the server"), "{refused}");
        drop(held);
        let _again = occupy(&settings).await.unwrap();
    }
}
