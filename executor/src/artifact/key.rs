//! The node's cache key: 32 random bytes in a file only the executor reads.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// Why there is no cache key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("cache key {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error(
        "cache key {path} has mode {mode:04o}: others must not read it; run `chmod 600` on it, or remove it to start an empty cache"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not 32 bytes long.
    #[error("cache key {path} is damaged: remove it to start an empty cache")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// Opens the key, or makes it at the first start. Losing it empties the cache, nothing more.
pub(crate) fn open_or_create(path: &Path) -> Result<hmac::Key, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    match std::fs::File::open(path) {
        Ok(mut file) => {
            let meta = file.metadata().map_err(failed)?;
            let mode = meta.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(KeyError::Mode { path: path.to_owned(), mode });
            }
            if meta.size() != 32 {
                return Err(KeyError::Damaged { path: path.to_owned() });
            }
            let mut bytes = Zeroizing::new([0u8; 32]);
            file.read_exact(bytes.as_mut()).map_err(failed)?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_ref()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0u8; 32]);
            aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| KeyError::Random)?;
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(failed)?;
            file.write_all(bytes.as_ref()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_ref()))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        open_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        open_or_create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open_or_create(&path), Err(KeyError::Mode { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(open_or_create(&path), Err(KeyError::Damaged { .. })));
    }
}
