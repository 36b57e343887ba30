//! Passphrases and where they come from. A source that cannot be read is an error, never an empty passphrase.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::shares;
use crate::software::{Readers, read_secret, write_new};

/// Longest passphrase in bytes.
pub const MAX_LEN: usize = 1024;
/// Shortest passphrase, in bytes, that a new keystore or an exported key accepts.
pub const MIN_NEW_LEN: usize = 8;

/// What the files of shares end in.
const SHARE_EXTENSION: &str = "share";
/// Longest file of a share.
const MAX_SHARE_FILE: u64 = 2048;

/// A passphrase. Not empty; wiped when dropped; shown as `(redacted)`.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the bytes as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] when empty or longer than 1,024 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        let bytes = Zeroizing::new(bytes);
        let invalid = |reason: &str| Error::Invalid { what: "passphrase", reason: reason.to_owned() };
        if bytes.is_empty() {
            return Err(invalid("it is empty"));
        }
        if bytes.len() > MAX_LEN {
            return Err(invalid("it is longer than 1024 bytes"));
        }
        Ok(Self(bytes))
    }

    /// A random passphrase of 43 printable characters (256 bits), for keystores that no person unlocks.
    ///
    /// # Errors
    /// [`Error::Transient`] when the system's random source fails.
    pub fn random() -> Result<Self, Error> {
        use base64::Engine as _;
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(secret.as_mut())
            .map_err(|_| Error::Transient { detail: "the random source failed".to_owned() })?;
        Self::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret.as_ref()).into_bytes())
    }

    /// The bytes, for the derivation and for writing a passphrase file.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn check_strength(&self) -> Result<(), Error> {
        if self.0.len() < MIN_NEW_LEN {
            return Err(Error::Invalid {
                what: "passphrase",
                reason: format!("a new one needs at least {MIN_NEW_LEN} bytes"),
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

/// Where a passphrase is read from. Written `file:PATH`, `env:NAME`, `credential:NAME` or `shares:FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassphraseSource {
    /// A file of a service manager's credential directory (`$CREDENTIALS_DIRECTORY`).
    Credential(String),
    /// An environment variable. Visible to the same user's processes: prefer the others.
    Env(String),
    /// A file only its owner can read. One line end at its end is not part of the passphrase.
    File(PathBuf),
    /// A folder into which custodians bring their shares, one file each ([`crate::shares`]).
    Shares(PathBuf),
}

impl PassphraseSource {
    /// Reads the passphrase.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the file or variable does not exist, [`Error::Permissions`] when others can read the
    /// file, [`Error::Invalid`] when it is empty.
    pub fn read(&self) -> Result<Passphrase, Error> {
        self.read_with(&|name| env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec))
    }

    fn read_with(&self, environment: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Passphrase, Error> {
        let missing = |name: &str| Error::NotFound { what: format!("environment variable {name}") };
        match self {
            Self::Env(name) => Passphrase::new(environment(name).ok_or_else(|| missing(name))?),
            Self::File(path) => without_line_end(read_secret(path, MAX_LEN as u64 + 2, Readers::Owner)?),
            Self::Shares(folder) => from_shares(folder),
            Self::Credential(name) => {
                use std::os::unix::ffi::OsStringExt as _;
                const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
                let directory = environment(DIRECTORY).ok_or_else(|| missing(DIRECTORY))?;
                let path = PathBuf::from(std::ffi::OsString::from_vec(directory)).join(name);
                without_line_end(read_secret(&path, MAX_LEN as u64 + 2, Readers::OwnerAndGroup)?)
            }
        }
    }
}

/// Restores a passphrase from the share files of a folder.
fn from_shares(folder: &Path) -> Result<Passphrase, Error> {
    let failed = |source| Error::Io { path: folder.to_owned(), action: "listing the shares", source };
    let mut paths = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == SHARE_EXTENSION));
    paths.sort();
    if paths.len() > usize::from(shares::MAX_SHARES) {
        return Err(Error::Invalid { what: "share", reason: "the folder has more than 32".to_owned() });
    }
    let found = paths
        .iter()
        .map(|path| {
            let text = read_secret(path, MAX_SHARE_FILE, Readers::Owner)?;
            let text = std::str::from_utf8(&text).map_err(|_| Error::Invalid {
                what: "share",
                reason: format!("{} is not text", path.display()),
            })?;
            text.parse()
        })
        .collect::<Result<Vec<shares::Share>, Error>>()?;
    shares::combine(&found)
}

/// Splits a passphrase and writes one file for each custodian into an existing folder. Never overwrites.
///
/// # Errors
/// As [`shares::split`], and [`Error::Io`] or [`Error::AlreadyExists`] for the files.
pub fn write_shares(
    secret: &Passphrase,
    threshold: u8,
    count: u8,
    folder: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let made = shares::split(secret, threshold, count)?;
    made.iter()
        .map(|share| {
            let path = folder.join(format!("{}-of-{count}.{SHARE_EXTENSION}", share.index()));
            let mut text = share.to_text();
            text.push('\n');
            write_new(&path, text.as_bytes())?;
            Ok(path)
        })
        .collect()
}

fn without_line_end(mut content: Zeroizing<Vec<u8>>) -> Result<Passphrase, Error> {
    for end in [b'\n', b'\r'] {
        if content.last() == Some(&end) {
            content.pop();
        }
    }
    Passphrase::new(std::mem::take(&mut *content))
}

impl FromStr for PassphraseSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::Invalid { what: "passphrase source", reason: reason.to_owned() };
        match text.split_once(':') {
            Some((_, "")) => Err(invalid("nothing follows the colon")),
            Some(("file", path)) => Ok(Self::File(PathBuf::from(path))),
            Some(("shares", path)) => Ok(Self::Shares(PathBuf::from(path))),
            Some(("env", name)) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                Ok(Self::Env(name.to_owned()))
            }
            Some(("credential", name)) if !name.contains('/') && name != ".." && name != "." => {
                Ok(Self::Credential(name.to_owned()))
            }
            _ => Err(invalid("write file:PATH, env:NAME, credential:NAME or shares:FOLDER")),
        }
    }
}

impl fmt::Display for PassphraseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Shares(path) => write!(f, "shares:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret_file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn one_line_end_is_not_part_of_the_passphrase() {
        for (content, expected) in
            [(&b"secret\n"[..], &b"secret"[..]), (b"secret\r\n", b"secret"), (b" two\n\n", b" two\n")]
        {
            let (_directory, path) = secret_file(content, 0o600);
            assert_eq!(PassphraseSource::File(path).read().unwrap().expose(), expected);
        }
    }

    #[test]
    fn enough_custodians_restore_the_passphrase_and_fewer_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let secret = Passphrase::new(b"split among three".to_vec()).unwrap();
        let files = write_shares(&secret, 2, 3, folder.path()).unwrap();
        assert_eq!(files.len(), 3);
        assert!(write_shares(&secret, 2, 3, folder.path()).is_err(), "overwrote a share");
        let source = format!("shares:{}", folder.path().display()).parse::<PassphraseSource>().unwrap();
        assert_eq!(source.read().unwrap().expose(), secret.expose());
        fs::remove_file(&files[1]).unwrap();
        assert_eq!(source.read().unwrap().expose(), secret.expose());
        fs::set_permissions(&files[2], fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(source.read().unwrap_err().code(), "permissions");
        fs::remove_file(&files[2]).unwrap();
        assert!(source.read().unwrap_err().to_string().contains("2 different ones are needed"));
    }

    #[test]
    fn unreadable_open_and_empty_sources_are_errors() {
        let (_directory, path) = secret_file(b"secret", 0o640);
        assert_eq!(PassphraseSource::File(path.clone()).read().unwrap_err().code(), "permissions");
        let (_directory, empty) = secret_file(b"\n", 0o600);
        assert_eq!(PassphraseSource::File(empty).read().unwrap_err().code(), "invalid");
        assert_eq!(PassphraseSource::File(path.join("x")).read().unwrap_err().code(), "io");
        let (directory, _path) = secret_file(b"", 0o600);
        assert_eq!(
            PassphraseSource::File(directory.path().to_owned()).read().unwrap_err().code(),
            "permissions"
        );
        let unset = PassphraseSource::Env("NO_SUCH".into()).read_with(&|_| None);
        assert_eq!(unset.unwrap_err().code(), "not_found");
        let empty = PassphraseSource::Env("EMPTY".into()).read_with(&|_| Some(Vec::new()));
        assert_eq!(empty.unwrap_err().code(), "invalid");
    }

    #[test]
    fn credentials_come_from_the_service_managers_directory() {
        let (directory, _path) = secret_file(b"from the manager\n", 0o440);
        let source: PassphraseSource = "credential:secret".parse().unwrap();
        let environment =
            |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.path().to_str().unwrap().into());
        assert_eq!(source.read_with(&environment).unwrap().expose(), b"from the manager");
        assert_eq!(source.read_with(&|_| None).unwrap_err().code(), "not_found");
    }

    #[test]
    fn sources_parse_strictly() {
        for text in ["file:/run/secret", "env:CA_PASSPHRASE", "credential:ca"] {
            assert_eq!(text.parse::<PassphraseSource>().unwrap().to_string(), text);
        }
        for text in ["", "secret", "file:", "env:A B", "credential:../x", "pass:secret"] {
            assert!(text.parse::<PassphraseSource>().is_err(), "{text}");
        }
    }

    #[test]
    fn random_passphrases_differ_and_are_not_shown() {
        let (one, two) = (Passphrase::random().unwrap(), Passphrase::random().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert_ne!(one.expose(), two.expose());
        assert_eq!(format!("{one:?}"), "Passphrase(redacted)");
    }
}
