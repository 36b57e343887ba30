//! Defaults: the folder `~/.mentat` (or `MENTAT_HOME`), its `config.toml`, and the stack of `mentatctl up`.
//!
//! A value comes from the command line, else from the stack named by `--stack` (or `MENTAT_STACK`), else from
//! `config.toml`. Nothing is guessed beyond that: a missing address is an error that names all three.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, OrFail as _, Outcome, file_failure};
use crate::stack::{OidcService, StackFile};

/// Largest configuration or trust file that is read, bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// `config.toml` of the home folder. Every key may be absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Base URL of the certificate authority.
    pub ca_url: Option<String>,
    /// Base URL of the signing log.
    pub log_url: Option<String>,
    /// Full URL of the timestamp authority.
    pub tsa_url: Option<String>,
    /// Base URL of the executor.
    pub executor_url: Option<String>,
    /// Folder of a stack that `mentatctl up` made; its `stack.json` is used.
    pub stack: Option<PathBuf>,
    /// `trusted_root.json`.
    pub trusted_root: Option<PathBuf>,
    /// Trust policy (`policy.yaml`).
    pub policy: Option<PathBuf>,
    /// Bearer token of an administrator.
    pub admin_token_file: Option<PathBuf>,
    /// PEM file with the certificate authorities of the servers' TLS certificates.
    pub tls_ca: Option<PathBuf>,
    /// PEM file with the client certificate chain for mutual TLS.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the client key for mutual TLS.
    pub tls_key: Option<PathBuf>,
}

/// Everything a command may take from its surroundings.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
    config: ConfigFile,
    stack: Option<StackFile>,
    stack_dir: Option<PathBuf>,
}

impl Home {
    /// Reads the folder of defaults and, where one is named, the stack.
    ///
    /// # Errors
    /// When a file that is named cannot be read or is not of its form.
    pub fn load(stack: Option<&Path>) -> Outcome<Self> {
        let dir = match std::env::var_os("MENTAT_HOME") {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => std::env::home_dir()
                .map(|home| home.join(".mentat"))
                .ok_or_else(|| Failure::usage("there is no home folder").hint("set MENTAT_HOME"))?,
        };
        let path = dir.join("config.toml");
        let config: ConfigFile = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => ConfigFile::default(),
            _ => {
                let text = read_text(&path)?;
                toml::from_str(&text).or_fail(Exit::Usage, path.display()).map_err(|failure| {
                    failure.hint("correct the line that it names, or move the file away")
                })?
            }
        };
        let folder = stack.map(Path::to_path_buf).or_else(|| config.stack.clone());
        let stack = folder.as_deref().map(StackFile::load_in_place).transpose()?;
        Ok(Self { dir, config, stack, stack_dir: folder })
    }

    /// The folder of defaults.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the stack that is named.
    pub fn stack_dir(&self) -> Option<&Path> {
        self.stack_dir.as_deref()
    }

    /// Settings of the home folder.
    pub fn config(&self) -> &ConfigFile {
        &self.config
    }

    /// Where the developer certificate is unless the command line says otherwise.
    pub fn signing_certificate(&self) -> PathBuf {
        self.dir.join("signing.crt")
    }

    /// Where the developer key is unless the command line says otherwise.
    pub fn signing_key(&self) -> PathBuf {
        self.dir.join("signing.key")
    }

    /// Base URL of the certificate authority.
    pub fn ca_url(&self, given: Option<&str>) -> Outcome<String> {
        let stack = self.stack.as_ref().and_then(|s| s.ca.as_ref()).map(|ca| ca.url.clone());
        pick(given, stack, self.config.ca_url.clone(), "the certificate authority", "--ca-url", "ca_url")
            .and_then(confidential)
    }

    /// Base URL of the signing log.
    pub fn log_url(&self, given: Option<&str>) -> Outcome<String> {
        let stack = self.stack.as_ref().and_then(|s| s.log.as_ref()).map(|log| log.url.clone());
        pick(given, stack, self.config.log_url.clone(), "the transparency log", "--log-url", "log_url")
    }

    /// Full URL of the timestamp authority.
    pub fn tsa_url(&self, given: Option<&str>) -> Outcome<String> {
        let stack = self.stack.as_ref().and_then(|s| s.tsa.as_ref()).map(|tsa| tsa.url.clone());
        pick(given, stack, self.config.tsa_url.clone(), "the timestamp authority", "--tsa-url", "tsa_url")
    }

    /// Base URL of the executor.
    pub fn executor_url(&self, given: Option<&str>) -> Outcome<String> {
        let stack =
            self.stack.as_ref().and_then(|s| s.executor.as_ref()).map(|executor| executor.url.clone());
        pick(given, stack, self.config.executor_url.clone(), "the executor", "--executor-url", "executor_url")
            .and_then(confidential)
    }

    /// The authority of the stack's TLS certificates, where it speaks TLS.
    pub fn stack_tls_ca(&self) -> Option<&PathBuf> {
        self.stack.as_ref().and_then(|stack| stack.tls_ca.as_ref())
    }

    /// The development issuer of the stack.
    ///
    /// # Errors
    /// Exit code 2 when no stack is named, or it is of before and has none.
    pub fn development_issuer(&self) -> Outcome<&OidcService> {
        self.stack.as_ref().and_then(|stack| stack.oidc.as_ref()).ok_or_else(|| {
            Failure::usage("no development issuer is known")
                .hint("name a running stack with --stack DIR; other issuers give their tokens themselves")
        })
    }

    /// The trusted root file.
    pub fn trusted_root(&self, given: Option<&Path>) -> Outcome<PathBuf> {
        let stack = self.stack.as_ref().and_then(|s| s.trusted_root.clone());
        let default = self.existing("trusted_root.json");
        pick_path(
            given,
            stack,
            self.config.trusted_root.clone().or(default),
            "trusted root",
            "--trusted-root",
            "trusted_root",
        )
    }

    /// The trust policy file.
    pub fn policy(&self, given: Option<&Path>) -> Outcome<PathBuf> {
        let stack = self.stack.as_ref().and_then(|s| s.policy.clone());
        let default = self.existing("policy.yaml");
        pick_path(given, stack, self.config.policy.clone().or(default), "trust policy", "--policy", "policy")
    }

    /// The file with the logs' keys.
    pub fn log_keys(&self, given: Option<&Path>) -> Outcome<PathBuf> {
        let stack = self.stack.as_ref().and_then(|s| s.log_keys.clone());
        pick_path(given, stack, self.existing("log_keys.json"), "log keys file", "--log-keys", "stack")
    }

    /// The administrator's bearer token, where one is configured, for a service at `url`. The stack's and the
    /// configuration's token goes to the address that stands beside it and to no other, whatever the command line says.
    ///
    /// # Errors
    /// Exit code 2 when the file cannot be read or holds no token.
    pub fn admin_token(
        &self,
        given: Option<&Path>,
        url: &str,
        own_url: &Outcome<String>,
    ) -> Outcome<Option<String>> {
        let configured = || {
            let stack = self.stack.as_ref().and_then(|s| s.admin_token_file.clone());
            let foreign = own_url.as_ref().is_ok_and(|own| own != url);
            stack.or_else(|| self.config.admin_token_file.clone()).filter(|_| !foreign)
        };
        let path = given.map(Path::to_path_buf).or_else(configured);
        let Some(path) = path else { return Ok(None) };
        let token = read_secret(&path)?.trim().to_owned();
        // An empty or broken token would only be refused later, and less clearly.
        let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !plain {
            return Err(Failure::usage(format!("{} holds no bearer token", path.display()))
                .hint("it must hold one line of printable characters"));
        }
        Ok(Some(token))
    }

    fn existing(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|path| path.is_file())
    }
}

fn pick(
    given: Option<&str>,
    stack: Option<String>,
    config: Option<String>,
    what: &str,
    flag: &str,
    key: &str,
) -> Outcome<String> {
    let url = given.map(str::to_owned).or(stack).or(config).ok_or_else(|| {
        Failure::usage(format!("the address of {what} is not known")).hint(format!(
            "give {flag} URL, or --stack DIR of a `mentatctl up`, or {key} in ~/.mentat/config.toml"
        ))
    })?;
    let parsed = reqwest::Url::parse(&url).ok();
    if !parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        return Err(Failure::usage(format!("`{url}` is no address of {what}"))
            .hint("write it as https://HOST:PORT, or http://HOST:PORT on loopback"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// An address that bearer tokens may go to: TLS, or this machine. The servers refuse the same.
fn confidential(url: String) -> Outcome<String> {
    let parsed = reqwest::Url::parse(&url).or_fail(Exit::Usage, &url)?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if parsed.scheme() == "https" || here {
        return Ok(url);
    }
    Err(Failure::usage(format!("`{url}` would carry secrets in the clear"))
        .hint("use https; plain HTTP is for loopback alone"))
}

fn pick_path(
    given: Option<&Path>,
    stack: Option<PathBuf>,
    config: Option<PathBuf>,
    what: &str,
    flag: &str,
    key: &str,
) -> Outcome<PathBuf> {
    given.map(Path::to_path_buf).or(stack).or(config).ok_or_else(|| {
        Failure::usage(format!("no {what} is known")).hint(format!(
            "give {flag} FILE, or --stack DIR of a `mentatctl up`, or {key} in ~/.mentat/config.toml"
        ))
    })
}

/// Reads a file of bounded size.
///
/// # Errors
/// Exit code 2 with the path and the reason.
pub fn read_file(path: &Path) -> Outcome<Vec<u8>> {
    read_bounded(path, MAX_FILE_BYTES)
}

/// The same with a bound of its own, bytes.
///
/// # Errors
/// Exit code 2 with the path and the reason.
pub fn read_bounded(path: &Path, limit: u64) -> Outcome<Vec<u8>> {
    let open = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = open()
        .map_err(|error| file_failure(Exit::Usage, format!("cannot read {}", path.display()), &error))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::usage(format!("{} is larger than {} MiB", path.display(), limit >> 20))
            .hint("is it the file that was meant?"));
    }
    Ok(bytes)
}

/// Reads a text file of bounded size.
///
/// # Errors
/// Exit code 2 with the path and the reason.
pub fn read_text(path: &Path) -> Outcome<String> {
    String::from_utf8(read_file(path)?)
        .map_err(|_| Failure::usage(format!("{} is not UTF-8 text", path.display())).hint(NOT_TEXT))
}

/// What to do about bytes where text belongs.
const NOT_TEXT: &str = "give it in its text form (PEM for keys and certificates), not in DER";

/// Reads a text file that holds a secret; the copy in memory is wiped when it is dropped.
///
/// # Errors
/// Exit code 2 with the path and the reason; never with a part of the text.
pub fn read_secret(path: &Path) -> Outcome<Zeroizing<String>> {
    let bytes = Zeroizing::new(read_file(path)?);
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::usage(format!("{} is not UTF-8 text", path.display())).hint(NOT_TEXT))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Refuses a key file that others may read: whoever can may act in its owner's name too. As with the servers' secrets, the
/// group may read it, for that is how service managers hand it over; pipes have no readers to speak of.
///
/// # Errors
/// Exit code 2 with the file's mode and the given advice.
pub fn refuse_readers(path: &Path, advice: &str) -> Outcome<()> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o037 != 0 {
        return Err(Failure::usage(format!("{} has mode {mode:04o}, which lets others in", path.display()))
            .hint(advice));
    }
    Ok(())
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Mode 0644.
    Public,
    /// Mode 0600.
    Secret,
}

/// Writes a file so that a crash leaves the old or the new contents: temporary file, sync, rename, sync of the folder.
/// What is there and is not a regular file (a terminal, a pipe, the null device) is written to, never replaced: a rename
/// over a device node would take it away from the whole machine.
///
/// # Errors
/// Exit code 1 with the path and the reason.
pub fn write_file(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Outcome<()> {
    let mode = if secrecy == Secrecy::Secret { 0o600 } else { 0o644 };
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|error| {
                file_failure(Exit::Failure, format!("cannot write {}", path.display()), &error)
            });
    }
    let folder = folder_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Nobody can foresee the name, and whatever stands there is never opened: in a folder that others write to, a link
    // of theirs would lead the bytes elsewhere.
    let temporary = folder.join(format!(".{name}.{}.new", uuid::Uuid::new_v4().simple()));
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        file_failure(Exit::Failure, format!("cannot write {}", path.display()), &error)
    })
}

/// Refuses a folder in which no file could be written: for what is found out before something is done that cannot be
/// taken back. The file that is tried is as large as an attestation, and is gone afterwards.
///
/// # Errors
/// Exit code 1 with the path and the reason.
pub fn check_writable(folder: &Path) -> Outcome<()> {
    const AS_LARGE_AS: usize = 64 << 10;
    let trial = folder.join(format!(".{}.trial", uuid::Uuid::new_v4().simple()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&trial)?;
        file.write_all(&vec![0; AS_LARGE_AS])?;
        file.sync_all()
    };
    let written = write();
    let _ = std::fs::remove_file(&trial);
    written.map_err(|error| {
        file_failure(Exit::Failure, format!("cannot write in the folder {}", folder.display()), &error)
    })
}

/// The folder a file lies in: `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder and its parents; `Secret` folders are for the owner alone. What is there already keeps its mode: it may
/// be shared with others on purpose.
///
/// # Errors
/// Exit code 1 with the path and the reason.
pub fn make_folder(path: &Path, secrecy: Secrecy) -> Outcome<()> {
    let mode = if secrecy == Secrecy::Secret { 0o700 } else { 0o755 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| {
        file_failure(Exit::Failure, format!("cannot make the folder {}", path.display()), &error)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn folders_that_exist_keep_their_mode_and_new_secret_ones_are_private() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        make_folder(dir.path(), Secrecy::Secret).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        let new = dir.path().join("a/b");
        make_folder(&new, Secrecy::Secret).unwrap();
        assert_eq!((mode(&dir.path().join("a")), mode(&new)), (0o700, 0o700));
    }

    #[test]
    fn secrets_go_over_tls_or_stay_on_this_machine() {
        for url in ["https://ca.example", "http://127.0.0.1:80", "http://[::1]:80", "http://localhost:80"] {
            assert_eq!(confidential(url.to_owned()).ok().as_deref(), Some(url));
        }
        for url in [
            "http://ca.example",
            "http://10.0.0.1:80",
            "http://127.0.0.1.example.com",
            "http://localhost.example",
        ] {
            assert_eq!(
                confidential(url.to_owned()).map_err(|failure| failure.exit),
                Err(Exit::Usage),
                "{url}"
            );
        }
    }

    #[test]
    fn a_folder_that_takes_no_file_is_noticed_and_one_that_does_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        check_writable(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for folder in [dir.path().join("none"), PathBuf::from("/proc")] {
            let failure = check_writable(&folder).unwrap_err();
            assert_eq!(failure.exit, Exit::Failure);
            assert!(failure.what.contains(folder.to_str().unwrap()), "{}", failure.what);
        }
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind_and_secrets_are_private() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        let failure = write_file(&dir.path().join("taken"), b"x", Secrecy::Secret).unwrap_err();
        assert_eq!(failure.exit, Exit::Failure);
        assert!(failure.what.contains("taken"), "{}", failure.what);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        let key = dir.path().join("key");
        std::fs::write(&key, b"old").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_file(&key, b"new", Secrecy::Secret).unwrap();
        assert_eq!((mode(&key), std::fs::read(&key).unwrap()), (0o600, b"new".to_vec()));
    }
}
