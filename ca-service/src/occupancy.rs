//! One process at a time changes an authority: its server, or a command that is run while the server is stopped.
//!
//! What two of them would do to each other: `renew` adds a CA that the server does not know, whose lists and statements it cannot
//! make; `accept-time` and a ceremony change what the server has in memory; a second server goes on giving its kept OCSP answers
//! about what was revoked through the first. `data_dir` is locked by a file, and records on a database server by that server, for
//! they can be reached from another folder and another machine.

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
    #[cfg(feature = "postgres")]
    _schema: Option<crate::storage::postgres::occupation::Occupation>,
}

/// Takes the lock of an authority. Where there is none yet, nobody can be at work. What these settings open afterwards writes as
/// the process that has the lock, and no more once another has it.
///
/// # Errors
/// [`StartRefusal`] when another process has it (`another_server_serves` where that is known by the database), or the folder or the
/// database cannot be written.
pub async fn occupy(settings: &mut Settings) -> Result<Occupied, StartRefusal> {
    take(settings, ATTEMPTS).await
}

async fn take(settings: &mut Settings, attempts: u32) -> Result<Occupied, StartRefusal> {
    let file = lock_folder(settings, attempts).await?;
    Ok(Occupied {
        _file: file,
        #[cfg(feature = "postgres")]
        _schema: lock_schema(settings, attempts).await?,
    })
}

async fn lock_folder(settings: &Settings, attempts: u32) -> Result<Option<File>, StartRefusal> {
    if !settings.data_dir.exists() {
        return Ok(None);
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
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(refuse(error)),
        }
    }
    Err(StartRefusal::new(
        format!("another process works on {}", settings.data_dir.display()),
        "stop the server first, run the command, and start the server again",
    ))
}

#[cfg(feature = "postgres")]
async fn lock_schema(
    settings: &mut Settings,
    attempts: u32,
) -> Result<Option<crate::storage::postgres::occupation::Occupation>, StartRefusal> {
    use crate::storage::postgres::occupation;
    use crate::storage::{Database, StoreError};

    let Database::Postgres(location) = &settings.database else { return Ok(None) };
    let taken = occupation::occupy(location, attempts, PAUSE).await.map_err(|error| match error {
        StoreError::AnotherServes => StartRefusal::new(
            format!("another_server_serves: another process works on {location}"),
            "stop that server first, here or on the other machine; where its machine is gone, end its session on the database server",
        ),
        error => StartRefusal::new(
            format!("{location} cannot be locked"),
            "check the database server, and the rights of its user",
        )
        .because(error),
    });
    let (occupation, claimed) = taken?;
    settings.database = Database::Postgres(claimed);
    Ok(Some(occupation))
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
        let mut settings = Config::parse(&text).unwrap().validate().unwrap();
        let held = occupy(&mut settings).await.unwrap();
        let refused = take(&mut settings, 2).await.unwrap_err().to_string();
        assert!(refused.contains("another process") && refused.contains("stop the server"), "{refused}");
        drop(held);
        let _again = occupy(&mut settings).await.unwrap();
    }
}
