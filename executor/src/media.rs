//! Media: content-addressed files, granted as `extension:media`.
//!
//! A reference is `sha256:` and the digest of the bytes, so what is read back is what was stored or an error.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use executor_engine::ModuleDigest;

use crate::abi::ErrorCode;

/// What guests may store, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaLimits {
    /// One object.
    pub object: u64,
    /// Everything that one call uploads, whether it was known already or not.
    pub call: u64,
    /// The whole store. The audit log shares its disk, and an audit log without room ends all work.
    pub store: u64,
}

impl Default for MediaLimits {
    fn default() -> Self {
        Self { object: 64 << 20, call: 64 << 20, store: 1 << 30 }
    }
}

/// A directory of media objects.
#[derive(Debug)]
pub struct MediaStore {
    directory: PathBuf,
    limits: MediaLimits,
    /// Bytes of all objects.
    used: AtomicU64,
}

impl MediaStore {
    /// Opens or makes the directory, and removes what an interrupted upload left there.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or read.
    pub fn open(directory: PathBuf, limits: MediaLimits) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut used = 0u64;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                std::fs::remove_file(entry.path())?;
            } else {
                used = used.saturating_add(entry.metadata()?.len());
            }
        }
        Ok(Self { directory, limits, used: AtomicU64::new(used) })
    }

    /// Reads an object and checks it against its reference.
    pub(crate) fn download(&self, reference: &str) -> Result<Vec<u8>, ErrorCode> {
        let digest = reference
            .strip_prefix("sha256:")
            .and_then(ModuleDigest::parse)
            .ok_or(ErrorCode::InvalidArgument)?;
        let path = self.directory.join(digest.to_string());
        let size = std::fs::metadata(&path).map_err(|_| ErrorCode::Io)?.len();
        if size > self.limits.object {
            return Err(ErrorCode::Limit);
        }
        let bytes = std::fs::read(&path).map_err(|_| ErrorCode::Io)?;
        if ModuleDigest::of(&bytes) == digest { Ok(bytes) } else { Err(ErrorCode::Io) }
    }

    /// Stores an object; returns its reference. `uploaded` is what this call stored before, and is raised.
    pub(crate) fn upload(
        &self,
        media_type: &str,
        bytes: &[u8],
        uploaded: &mut u64,
    ) -> Result<String, ErrorCode> {
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
        };
        let (kind, subtype) = media_type.split_once('/').ok_or(ErrorCode::InvalidArgument)?;
        if !token(kind) || !token(subtype) {
            return Err(ErrorCode::InvalidArgument);
        }
        let length = bytes.len() as u64;
        let of_call = uploaded.saturating_add(length);
        if length > self.limits.object || of_call > self.limits.call {
            return Err(ErrorCode::Limit);
        }
        *uploaded = of_call;
        let digest = ModuleDigest::of(bytes);
        let path = self.directory.join(digest.to_string());
        if !path.exists() {
            // Taken before the first byte is written: uploads at the same time share the quota. Two of the same
            // object count twice until the next start, which counts what is there.
            let more = |used: u64| Some(used.saturating_add(length)).filter(|sum| *sum <= self.limits.store);
            self.used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .map_err(|_| ErrorCode::Limit)?;
            self.publish(&path, bytes).map_err(|_| {
                self.used.fetch_sub(length, Ordering::Relaxed);
                ErrorCode::Io
            })?;
        }
        Ok(format!("sha256:{digest}"))
    }

    fn publish(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut name = [0u8; 8];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| std::io::Error::other("no random bytes"))?;
        let temporary = self.directory.join(format!(".{}", hex::encode(name)));
        let written = std::fs::File::create_new(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: MediaLimits = MediaLimits { object: 8, call: 20, store: 24 };

    #[test]
    fn a_call_and_the_store_have_quotas() {
        let dir = tempfile::tempdir().unwrap();
        let store = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
        let (mut first, mut second) = (0, 0);
        store.upload("text/plain", b"12345678", &mut first).unwrap();
        // What is known already costs the call and not the store.
        store.upload("text/plain", b"12345678", &mut first).unwrap();
        assert_eq!(store.upload("text/plain", b"abcdefgh", &mut first), Err(ErrorCode::Limit), "of the call");
        store.upload("text/plain", b"abcdefgh", &mut second).unwrap();
        store.upload("text/plain", b"ABCDEFGH", &mut second).unwrap();
        assert_eq!(store.upload("text/plain", b"x", &mut 0), Err(ErrorCode::Limit), "of the store");
        std::fs::write(dir.path().join(".interrupted"), b"123456789").unwrap();
        let again = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
        assert!(!dir.path().join(".interrupted").exists());
        assert_eq!(again.upload("text/plain", b"x", &mut 0), Err(ErrorCode::Limit), "also after a start");
        std::fs::remove_file(dir.path().join(ModuleDigest::of(b"abcdefgh").to_string())).unwrap();
        let freed = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
        freed.upload("text/plain", b"x", &mut 0).unwrap();
    }

    #[test]
    fn objects_are_read_back_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let store = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
        let reference = store.upload("text/plain", b"hello", &mut 0).unwrap();
        assert_eq!(store.download(&reference), Ok(b"hello".to_vec()));
        std::fs::write(dir.path().join(&reference[7..]), b"hullo").unwrap();
        assert_eq!(store.download(&reference), Err(ErrorCode::Io));
    }

    #[test]
    fn refuses_sizes_types_and_paths() {
        let dir = tempfile::tempdir().unwrap();
        let store = MediaStore::open(dir.path().to_owned(), SMALL).unwrap();
        assert_eq!(store.upload("text/plain", b"123456789", &mut 0), Err(ErrorCode::Limit));
        assert_eq!(store.upload("text", b"1", &mut 0), Err(ErrorCode::InvalidArgument));
        for reference in ["../../etc/passwd", "sha256:../x", "", "sha256:00"] {
            assert_eq!(store.download(reference), Err(ErrorCode::InvalidArgument), "{reference}");
        }
    }
}
