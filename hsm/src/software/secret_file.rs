//! Files with secrets in them: mode 0600, bounded, written so that a crash leaves the old state or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::Error;

/// Who besides the owner may read a secret file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Nobody (0600 or stricter).
    Owner,
    /// The group too: service managers hand credentials over that way.
    OwnerAndGroup,
}

pub(crate) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { what: path.display().to_string() },
        _ => Error::Io { path, action, source },
    }
}

/// Reads a secret file of at most `limit` bytes after checking that it is a regular file others cannot read.
pub(crate) fn read_secret(path: &Path, limit: u64, readers: Readers) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = File::open(path).map_err(io_error(path, "open"))?;
    // The opened file, not the path: what is checked is what is read.
    let metadata = file.metadata().map_err(io_error(path, "stat"))?;
    let refuse = |reason: String| Error::Permissions { path: path.to_owned(), reason };
    if !metadata.is_file() {
        return Err(refuse("is not a regular file".to_owned()));
    }
    let forbidden = match readers {
        Readers::Owner => 0o077,
        Readers::OwnerAndGroup => 0o027,
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(refuse(format!("mode {mode:04o} lets others in; run chmod 600 on it")));
    }
    if metadata.size() > limit {
        return Err(refuse(format!("is longer than {limit} bytes")));
    }
    let expected = usize::try_from(metadata.size()).unwrap_or(0);
    // Room for the whole file at once: a growing buffer would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(expected + 1));
    file.take(limit + 1).read_to_end(&mut content).map_err(io_error(path, "read"))?;
    if content.len() as u64 > limit {
        return Err(refuse(format!("is longer than {limit} bytes")));
    }
    Ok(content)
}

/// Writes a file that must not exist yet, durably, mode 0600.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = write_temporary(path, content)?;
    // A link fails when the name is taken; a rename would overwrite it.
    let linked = fs::hard_link(&temporary, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { label: path.display().to_string() },
        _ => io_error(path, "create")(source),
    });
    fs::remove_file(&temporary).map_err(io_error(&temporary, "remove"))?;
    linked?;
    sync_directory(path)
}

/// Replaces a file durably, mode 0600.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = write_temporary(path, content)?;
    fs::rename(&temporary, path).map_err(io_error(path, "rename"))?;
    sync_directory(path)
}

fn write_temporary(path: &Path, content: &[u8]) -> Result<PathBuf, Error> {
    let suffix: [u8; 8] = super::seal::random()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", crate::public_key::hex(&suffix)));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    if let Err(source) = written {
        // Best effort: the write error is what matters.
        let _ = fs::remove_file(&temporary);
        return Err(io_error(path, "write")(source));
    }
    Ok(temporary)
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(io_error(parent, "sync"))
}
