//! A certificate request that is under way: what must survive until its certificate has arrived, in one file beside the
//! key (`KEY.pending`, mode 0600).
//!
//! The authority gives the certificate of one request again to whoever repeats it with the same token, request id and
//! key. All three must therefore outlive this process: the id and the key stand in the file, of the token only its digest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, read_secret, write_file};

/// The only version that exists.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    request_id: String,
    /// SHA-256 of the one-time token, hexadecimal.
    token_sha256: String,
    /// The new key in PEM, encrypted if it shall be; absent where the request is for a key that has its file already.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// A request that was written down.
pub struct PendingRequest {
    path: PathBuf,
    record: Record,
}

impl PendingRequest {
    /// The request under way for the key at this path, if there is one.
    ///
    /// # Errors
    /// Exit code 2 when the file is there but cannot be read.
    pub fn find(key: &Path) -> Outcome<Option<Self>> {
        let path = path_beside(key);
        if matches!(std::fs::symlink_metadata(&path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
        {
            return Ok(None);
        }
        let text = read_secret(&path)?;
        // The parser's own text could quote the key.
        let record = serde_json::from_str::<Record>(&text).ok().filter(|record| record.version == VERSION);
        let record = record.ok_or_else(|| {
            Failure::usage(format!("{} is not the request that this program keeps there", path.display()))
                .hint("move it away; a certificate that was asked for with it cannot be fetched any more")
        })?;
        Ok(Some(Self { path, record }))
    }

    /// Writes a new request down, over whatever was there. `new_key` is the PEM text of a key that has no file yet.
    ///
    /// # Errors
    /// Exit code 1 when it cannot be written.
    pub fn begin(key: &Path, token: &str, new_key: Option<&str>) -> Outcome<Self> {
        let path = path_beside(key);
        let record = Record {
            version: VERSION,
            request_id: uuid::Uuid::new_v4().to_string(),
            token_sha256: digest(token),
            key: new_key.map(str::to_owned),
        };
        let text = Zeroizing::new(serde_json::to_vec(&record).or_fail(Exit::Failure, path.display())?);
        write_file(&path, &text, Secrecy::Secret)?;
        Ok(Self { path, record })
    }

    /// Whether it was made with this token.
    pub fn is_for(&self, token: &str) -> bool {
        self.record.token_sha256 == digest(token)
    }

    /// The id under which the authority knows it.
    pub fn request_id(&self) -> &str {
        &self.record.request_id
    }

    /// The PEM text of the new key; `None` where the key has its own file.
    pub fn new_key(&self) -> Option<&str> {
        self.record.key.as_deref()
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets it: its certificate and key have arrived, or it can never succeed.
    ///
    /// # Errors
    /// Exit code 1 when the file cannot be removed.
    pub fn forget(self) -> Outcome<()> {
        std::fs::remove_file(&self.path)
            .or_fail(Exit::Failure, format!("cannot remove {}", self.path.display()))
    }
}

/// `signing.key` → `signing.key.pending`.
fn path_beside(key: &Path) -> PathBuf {
    let mut name = key.file_name().unwrap_or_default().to_owned();
    name.push(".pending");
    key.with_file_name(name)
}

fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_request_is_found_again_by_its_token_and_holds_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("dev.pem");
        assert!(PendingRequest::find(&key).unwrap().is_none());
        let made = PendingRequest::begin(&key, "mentat_enrol_abc", Some("PEM")).unwrap();
        let text = std::fs::read_to_string(dir.path().join("dev.pem.pending")).unwrap();
        assert!(!text.contains("mentat_enrol_abc"), "{text}");
        let found = PendingRequest::find(&key).unwrap().unwrap();
        assert!(found.is_for("mentat_enrol_abc") && !found.is_for("mentat_enrol_abd"));
        assert_eq!((found.request_id(), found.new_key()), (made.request_id(), Some("PEM")));
        found.forget().unwrap();
        assert!(PendingRequest::find(&key).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("k");
        for text in ["", "secret words", r#"{"version":2,"request_id":"a","token_sha256":"b"}"#] {
            std::fs::write(dir.path().join("k.pending"), text).unwrap();
            let failure = PendingRequest::find(&key).err().unwrap();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(!failure.line().contains("secret words"), "{}", failure.line());
        }
    }
}
