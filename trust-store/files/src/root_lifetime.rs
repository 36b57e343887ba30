//! Until when a trusted root may be used that came out of a repository of trust metadata.
//!
//! Whoever follows a repository is promised to hear of a retired authority or log within the life of its timestamp. That
//! promise is kept where the root is *used*: an update that never ran again, or a mirror that was cut off, must not leave a
//! verifier believing in retired keys for ever. So the update writes when its files expire into `trusted_root.lifetime.json`
//! beside `trusted_root.json`, and whoever decides by the root looks at both. A root that was obtained by another way has no
//! such file and no such end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trust_store::json::{self, Bytes};
use trust_store::trusted_root::{MAX_TRUSTED_ROOT_BYTES, TrustedRoot};
use trust_store::{ArtifactDigest, Denial, ReasonCode, UnixTime};

use crate::atomic::{self, Readers};
use crate::error::Error;

/// Largest file that is read, in bytes.
const MAX_LIFETIME_BYTES: u64 = 4096;

/// How long an update may take from the one of its two files to the other.
const BETWEEN_TWO_FILES: Duration = Duration::from_millis(250);

/// The file's form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u8,
    /// SHA-256 of `trusted_root.json`.
    trusted_root: Bytes,
    /// RFC 3339.
    expires: String,
}

/// The last moment of a trusted root that follows a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootLifetime {
    path: PathBuf,
    trusted_root: Vec<u8>,
    expires: UnixTime,
}

impl RootLifetime {
    /// The lifetime of the root with these bytes, which is or will be in the file `root`.
    pub fn new(root: &Path, bytes: &[u8], expires: UnixTime) -> Self {
        Self { path: beside(root), trusted_root: digest(bytes), expires }
    }

    /// Writes it beside the root.
    ///
    /// # Errors
    /// [`Error`] of writing.
    pub fn store(&self) -> Result<(), Error> {
        let trusted_root = Bytes(self.trusted_root.clone());
        let file = File { version: 1, trusted_root, expires: self.expires.to_rfc3339() };
        let bytes = json::write("trusted root's lifetime", &file).map_err(Error::content(&self.path))?;
        atomic::write(&self.path, &bytes, Readers::Everybody)
    }

    /// Ends that the root in the file `root` follows a repository: it was replaced by one from elsewhere.
    ///
    /// # Errors
    /// [`Error::Io`] when what is there cannot be removed.
    pub fn remove(root: &Path) -> Result<(), Error> {
        let path = beside(root);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(error)),
            _ => Ok(()),
        }
    }

    /// The file it stands in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last second at which the root may be used.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// What the file says now. A later update that confirmed this very root prolongs its life; one that brought another
    /// root does not, and its own life is no concern of this one.
    ///
    /// # Errors
    /// [`Error`] of reading, [`Error::OtherRoot`].
    pub fn renewed(&self) -> Result<Self, Error> {
        let read = read(&self.path)?;
        if read.trusted_root != self.trusted_root {
            return Err(Error::OtherRoot { path: self.path.clone() });
        }
        Ok(read)
    }

    /// That the root may be used at `now`.
    ///
    /// # Errors
    /// [`Error::RootExpired`].
    pub fn check(&self, now: UnixTime) -> Result<(), Error> {
        if now <= self.expires {
            return Ok(());
        }
        Err(Error::RootExpired { path: self.path.clone(), expires: self.expires })
    }
}

/// Reads `trusted_root.json` and its lifetime, if it follows a repository. The lifetime stands beside the name of the root, or
/// beside the file that this name is a link to.
///
/// # Errors
/// [`Error`] of reading and of the content; [`Error::OtherRoot`] if the lifetime is that of another root: then nobody knows
/// the end of this one.
pub fn load_trusted_root_with_lifetime(path: &Path) -> Result<(TrustedRoot, Option<RootLifetime>), Error> {
    match load_pair(path) {
        // An update that brings another root writes two files, the one directly after the other.
        Err(Error::OtherRoot { .. }) => {
            std::thread::sleep(BETWEEN_TWO_FILES);
            load_pair(path)
        }
        read => read,
    }
}

fn load_pair(path: &Path) -> Result<(TrustedRoot, Option<RootLifetime>), Error> {
    let bytes = atomic::read(path, MAX_TRUSTED_ROOT_BYTES as u64)?;
    let root = TrustedRoot::parse(&bytes).map_err(Error::content(path))?;
    let target = fs::canonicalize(path).map_err(Error::io(path))?;
    for place in [beside(path), beside(&target)] {
        match read(&place) {
            Ok(lifetime) if lifetime.trusted_root != digest(&bytes) => {
                return Err(Error::OtherRoot { path: lifetime.path });
            }
            Ok(lifetime) => return Ok((root, Some(lifetime))),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok((root, None))
}

/// Reads `trusted_root.json` for a decision at `now`.
///
/// # Errors
/// As [`load_trusted_root_with_lifetime`]; [`Error::RootExpired`].
pub fn load_trusted_root_at(path: &Path, now: UnixTime) -> Result<TrustedRoot, Error> {
    let (root, lifetime) = load_trusted_root_with_lifetime(path)?;
    lifetime.map_or(Ok(()), |lifetime| lifetime.check(now))?;
    Ok(root)
}

fn read(path: &Path) -> Result<RootLifetime, Error> {
    let bytes = atomic::read(path, MAX_LIFETIME_BYTES)?;
    let malformed = |detail: &'static str| Error::content(path)(Denial::new(ReasonCode::Malformed, detail));
    let file: File =
        json::parse("trusted root's lifetime", &bytes, bytes.len()).map_err(Error::content(path))?;
    if file.version != 1 {
        return Err(malformed("the version of a trusted root's lifetime is 1"));
    }
    let expires = UnixTime::from_rfc3339(&file.expires).ok_or_else(|| malformed("`expires` is no time"))?;
    Ok(RootLifetime { path: path.to_path_buf(), trusted_root: file.trusted_root.0, expires })
}

fn beside(root: &Path) -> PathBuf {
    root.with_extension("lifetime.json")
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    ArtifactDigest::of(bytes).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES: UnixTime = UnixTime(1_790_000_000);

    fn scene() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trusted_root.json");
        let bytes = TrustedRoot::new().to_json().unwrap();
        fs::write(&path, &bytes).unwrap();
        (directory, path, bytes)
    }

    #[test]
    fn a_root_that_follows_a_repository_ends_with_what_was_distributed() {
        let (directory, path, bytes) = scene();
        let at = |seconds: i64| load_trusted_root_at(&path, UnixTime(EXPIRES.0 + seconds));
        assert!(at(i64::from(u32::MAX)).is_ok(), "a root from elsewhere has no end");
        let lifetime = RootLifetime::new(&path, &bytes, EXPIRES);
        lifetime.store().unwrap();
        assert_eq!(lifetime.path(), directory.path().join("trusted_root.lifetime.json"));
        assert!(at(0).is_ok());
        let expired = at(1).unwrap_err();
        assert!(matches!(expired, Error::RootExpired { expires: EXPIRES, .. }), "{expired}");
        assert_eq!(expired.trust_code(), Some("tuf_expired"));
        assert!(expired.to_string().contains("trust update"), "{expired}");
        RootLifetime::new(&path, &bytes, UnixTime(EXPIRES.0 + 9)).store().unwrap();
        assert!(at(9).is_ok(), "an update prolongs it");
        assert_eq!(lifetime.renewed().unwrap().expires(), UnixTime(EXPIRES.0 + 9));
        RootLifetime::remove(&path).unwrap();
        RootLifetime::remove(&path).unwrap();
        assert!(at(10).is_ok());
    }

    #[test]
    fn a_lifetime_is_of_one_root_only() {
        let (_directory, path, bytes) = scene();
        let lifetime = RootLifetime::new(&path, &bytes, EXPIRES);
        RootLifetime::new(&path, b"a newer root", EXPIRES).store().unwrap();
        for error in [load_trusted_root_at(&path, UnixTime(0)).unwrap_err(), lifetime.renewed().unwrap_err()]
        {
            assert!(matches!(error, Error::OtherRoot { .. }), "{error}");
            assert_eq!(error.trust_code(), Some("tuf_mixed"));
        }
        for damaged in ["", "{}", r#"{"version":1,"trusted_root":"","expires":"soon"}"#] {
            fs::write(beside(&path), damaged).unwrap();
            assert!(load_trusted_root_at(&path, UnixTime(0)).is_err(), "{damaged}");
        }
    }

    #[test]
    fn a_link_to_a_root_has_the_roots_end() {
        let (directory, path, bytes) = scene();
        let link = directory.path().join("another-name.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(load_trusted_root_with_lifetime(&link).unwrap().1, None);
        let lifetime = RootLifetime::new(&path, &bytes, EXPIRES);
        lifetime.store().unwrap();
        assert_eq!(load_trusted_root_with_lifetime(&link).unwrap().1, Some(lifetime));
        let own = RootLifetime::new(&link, &bytes, UnixTime(EXPIRES.0 - 1));
        own.store().unwrap();
        assert_eq!(load_trusted_root_with_lifetime(&link).unwrap().1, Some(own), "its own first");
    }

    #[test]
    fn the_form_is_frozen() {
        let (_directory, path, _) = scene();
        RootLifetime::new(&path, b"", EXPIRES).store().unwrap();
        let expected = r#"{"version":1,"trusted_root":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=","expires":"2026-09-21T14:13:20Z"}"#;
        assert_eq!(fs::read_to_string(beside(&path)).unwrap(), expected);
    }
}
