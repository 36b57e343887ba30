//! Bounded reads and durable writes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::error::Error;

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everybody (mode 0644), or whoever could read the file that is replaced.
    Everybody,
    /// The owner only (mode 0600).
    Owner,
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// [`Error::NotAFile`], [`Error::TooLarge`] before anything is parsed, [`Error::Io`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(Error::io(path))?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_path_buf() });
    }
    let too_large = || Error::TooLarge { path: path.to_path_buf(), limit };
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    let file = File::open(path).map_err(Error::io(path))?;
    // The file may grow between the two looks.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// Replaces or makes a file: after this returns, the new content is durable; before, the old one is untouched.
/// What is there and is not a regular file (a terminal, a pipe, the null device) is written to, never replaced.
///
/// # Errors
/// [`Error::Io`]; the temporary file is removed.
pub fn write(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), Error> {
    // A rename over a device node would take it away from the whole machine.
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let mut file = fs::OpenOptions::new().write(true).open(path).map_err(Error::io(path))?;
        return file.write_all(bytes).map_err(Error::io(path));
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Opened first, so that the handle that is synced is that of the directory that was written to.
    let handle = File::open(directory).map_err(Error::io(directory))?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".mentat-")
        .suffix(".tmp")
        .tempfile_in(directory)
        .map_err(Error::io(directory))?;
    temporary.write_all(bytes).map_err(Error::io(path))?;
    set_readers(temporary.as_file(), path, readers)?;
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    temporary.persist(path).map_err(|error| Error::io(path)(error.error))?;
    handle.sync_all().map_err(Error::io(directory))
}

#[cfg(unix)]
fn set_readers(file: &File, path: &Path, readers: Readers) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = match (readers, fs::metadata(path)) {
        (Readers::Owner, _) => 0o600,
        (Readers::Everybody, Ok(existing)) => existing.permissions().mode() & 0o777,
        (Readers::Everybody, Err(_)) => 0o644,
    };
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(Error::io(path))
}

#[cfg(not(unix))]
fn set_readers(_: &File, _: &Path, _: Readers) -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit_and_only_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(read(&path, 4), Err(Error::TooLarge { limit: 4, .. })));
        assert!(matches!(read(directory.path(), 4), Err(Error::NotAFile { .. })));
        assert!(matches!(read(&directory.path().join("none"), 4), Err(Error::Io { .. })));
    }

    #[test]
    fn replaces_a_file_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write(&path, b"old", Readers::Everybody).unwrap();
        write(&path, b"new", Readers::Everybody).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(write(&directory.path().join("no/f"), b"x", Readers::Everybody).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn writes_to_a_pipe_and_leaves_it_a_pipe() {
        use std::os::unix::fs::FileTypeExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        mkfifo(&path);
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || fs::read(path).unwrap())
        };
        write(&path, b"through", Readers::Everybody).unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    fn mkfifo(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }

    #[cfg(unix)]
    #[test]
    fn keeps_or_narrows_the_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write(&path, b"1", Readers::Everybody).unwrap();
        assert_eq!(mode(), 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, b"2", Readers::Everybody).unwrap();
        assert_eq!(mode(), 0o640);
        write(&path, b"3", Readers::Owner).unwrap();
        assert_eq!(mode(), 0o600);
    }
}
