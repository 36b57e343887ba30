//! Files with secrets in them: checked, bounded, wiped from memory after use.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::exit::StartRefusal;

/// Reads a secret file of at most `limit` bytes. It must be a regular file that only its owner can read (its group may
/// too, as service managers hand credentials over, but nobody else and nobody may write it).
///
/// # Errors
/// [`StartRefusal`] naming the file and what to do.
pub fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, StartRefusal> {
    let shown = path.display();
    let refuse = |what: String, remedy: &str| StartRefusal::new(format!("{shown} {what}"), remedy);
    let file = File::open(path).map_err(|error| {
        refuse("cannot be opened".to_owned(), "create it or correct the path in the configuration")
            .because(error)
    })?;
    let metadata = file
        .metadata()
        .map_err(|error| refuse("cannot be examined".to_owned(), "check the file system").because(error))?;
    if !metadata.is_file() {
        return Err(refuse("is not a regular file".to_owned(), "give the path of a file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o037 != 0 {
        return Err(refuse(format!("has mode {mode:04o}, which lets others in"), "run chmod 600 on it"));
    }
    let too_long = || refuse(format!("is longer than {limit} bytes"), "this is not the file that was meant");
    let size = usize::try_from(metadata.size()).map_err(|_| too_long())?;
    if size > limit {
        return Err(too_long());
    }
    // Room for all of it at once: a growing buffer would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(limit as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|error| refuse("cannot be read".to_owned(), "check the file system").because(error))?;
    if content.len() > limit {
        return Err(too_long());
    }
    Ok(content)
}

/// Reads a secret of one line: the line end is not part of it, and it must not be empty.
///
/// # Errors
/// As [`read`], and when nothing is in it.
pub fn read_line(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, StartRefusal> {
    let mut content = read(path, limit.saturating_add(2))?;
    for end in [b'\n', b'\r'] {
        if content.last() == Some(&end) {
            content.pop();
        }
    }
    if content.is_empty() {
        return Err(StartRefusal::new(format!("{} is empty", path.display()), "write the secret into it"));
    }
    Ok(content)
}

/// Writes a new secret file, mode 0600, durably. Never overwrites.
///
/// # Errors
/// [`StartRefusal`] when it exists or cannot be written.
pub fn write_new(path: &Path, content: &[u8]) -> Result<(), StartRefusal> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| File::open(parent)?.sync_all())
        .map_err(|error| {
            StartRefusal::new(
                format!("{} cannot be written", path.display()),
                "choose a path that does not exist",
            )
            .because(error)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_secrets_are_read_back_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        write_new(&path, b"secret\n").unwrap();
        assert_eq!(read_line(&path, 100).unwrap().as_slice(), b"secret");
        assert!(write_new(&path, b"other").is_err());
        assert!(read(&path, 3).unwrap_err().to_string().contains("longer than 3 bytes"));
    }

    #[test]
    fn open_and_empty_files_are_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        write_new(&path, b"\n").unwrap();
        assert!(read_line(&path, 100).unwrap_err().to_string().contains("is empty"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path, 100).unwrap_err().to_string().contains("chmod 600"));
        assert!(read(directory.path(), 100).unwrap_err().to_string().contains("not a regular file"));
    }
}
