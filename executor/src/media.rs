//! Media: content-addressed files, granted as `extension:media`.
//!
//! A reference is `sha256:` and the digest of the bytes, so what is read back is what was stored or an error.

use std::io::Write as _;
use std::path::PathBuf;

use executor_engine::ModuleDigest;

use crate::abi::ErrorCode;

/// A directory of media objects.
#[derive(Debug)]
pub struct MediaStore {
    directory: PathBuf,
    max_object: usize,
}

impl MediaStore {
    /// Opens or makes the directory. Objects are at most `max_object` bytes.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made.
    pub fn open(directory: PathBuf, max_object: usize) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, max_object })
    }

    /// Reads an object and checks it against its reference.
    pub(crate) fn download(&self, reference: &str) -> Result<Vec<u8>, ErrorCode> {
        let digest = reference
            .strip_prefix("sha256:")
            .and_then(ModuleDigest::parse)
            .ok_or(ErrorCode::InvalidArgument)?;
        let path = self.directory.join(digest.to_string());
        let size = std::fs::metadata(&path).map_err(|_| ErrorCode::Io)?.len();
        if size > self.max_object as u64 {
            return Err(ErrorCode::Limit);
        }
        let bytes = std::fs::read(&path).map_err(|_| ErrorCode::Io)?;
        if ModuleDigest::of(&bytes) == digest { Ok(bytes) } else { Err(ErrorCode::Io) }
    }

    /// Stores an object; returns its reference.
    pub(crate) fn upload(&self, media_type: &str, bytes: &[u8]) -> Result<String, ErrorCode> {
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
        };
        let (kind, subtype) = media_type.split_once('/').ok_or(ErrorCode::InvalidArgument)?;
        if !token(kind) || !token(subtype) {
            return Err(ErrorCode::InvalidArgument);
        }
        if bytes.len() > self.max_object {
            return Err(ErrorCode::Limit);
        }
        let digest = ModuleDigest::of(bytes);
        let path = self.directory.join(digest.to_string());
        if !path.exists() {
            self.publish(&path, bytes).map_err(|_| ErrorCode::Io)?;
        }
        Ok(format!("sha256:{digest}"))
    }

    fn publish(&self, path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
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

    #[test]
    fn objects_are_read_back_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let store = MediaStore::open(dir.path().to_owned(), 8).unwrap();
        let reference = store.upload("text/plain", b"hello").unwrap();
        assert_eq!(store.download(&reference), Ok(b"hello".to_vec()));
        std::fs::write(dir.path().join(&reference[7..]), b"hullo").unwrap();
        assert_eq!(store.download(&reference), Err(ErrorCode::Io));
    }

    #[test]
    fn refuses_sizes_types_and_paths() {
        let dir = tempfile::tempdir().unwrap();
        let store = MediaStore::open(dir.path().to_owned(), 8).unwrap();
        assert_eq!(store.upload("text/plain", b"123456789"), Err(ErrorCode::Limit));
        assert_eq!(store.upload("text", b"1"), Err(ErrorCode::InvalidArgument));
        for reference in ["../../etc/passwd", "sha256:../x", "", "sha256:00"] {
            assert_eq!(store.download(reference), Err(ErrorCode::InvalidArgument), "{reference}");
        }
    }
}
