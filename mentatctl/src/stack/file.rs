//! `stack.json`: where a stack's parts are, for scripts and for `--stack DIR`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tlog_client::LogDescription;

use super::layout::Layout;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, read_text, write_file};

/// Name of the file below the stack's folder.
pub const STACK_FILE: &str = "stack.json";

/// The only version that exists.
const VERSION: u32 = 1;

/// The servers, and the field of each one's configuration that names what it keeps.
const DATA: [(&str, &str); 3] =
    [("ca-service", "data_dir"), ("transparency-log", "data"), ("executor", "state_dir")];

/// What a server keeps, by its configuration; `None` where that says nothing or cannot be read, which is for others to
/// report.
fn data_folder(config: &Path, field: &str) -> Option<PathBuf> {
    let table: toml::Table = std::fs::read_to_string(config).ok()?.parse().ok()?;
    Some(config.parent()?.join(table.get(field)?.as_str()?))
}

/// The addresses and files of one stack. Parts that do not exist are absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StackFile {
    /// Version of this file's form.
    pub version: u32,
    /// The certificate authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Service>,
    /// The signing log, the same as `logs.signing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// Every log by its kind.
    #[serde(default)]
    pub logs: BTreeMap<String, Log>,
    /// The executor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorService>,
    /// The timestamp authority; its URL is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tsa: Option<Service>,
    /// The development issuer of identity tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcService>,
    /// Trust anchors, log keys and timestamp authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_root: Option<PathBuf>,
    /// Keys of every log, as `trust export` writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_keys: Option<PathBuf>,
    /// Addresses for stock signing clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_config: Option<PathBuf>,
    /// Trusted root and signing configuration in one file, for clients that read that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_trust_config: Option<PathBuf>,
    /// The repository of trust metadata (TUF).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuf: Option<TufService>,
    /// The executor's trust policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// Bearer token of the administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token_file: Option<PathBuf>,
    /// The private authority of the servers' TLS certificates, where they speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
}

/// A service with one address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Its URL.
    pub url: String,
}

/// The development issuer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OidcService {
    /// Its URL: the `iss` of its tokens.
    pub url: String,
    /// File with the secret by which it vouches for any address.
    pub secret_file: PathBuf,
}

/// A repository of trust metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TufService {
    /// Its URL.
    pub url: String,
    /// The first root, to be pinned.
    pub root: PathBuf,
}

/// The executor's addresses: both surfaces share one port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecutorService {
    /// HTTP/JSON.
    pub url: String,
    /// gRPC.
    pub grpc: String,
}

/// One log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// Base URL: `checkpoint` and `tile/…` are below it.
    pub url: String,
    /// First line of its checkpoints.
    pub origin: String,
    /// Its verifier key for signed notes (Ed25519, or the issuance log's RFC 6962 key).
    pub vkey: String,
}

impl Log {
    /// A log as its server describes it.
    pub fn described(log: &LogDescription) -> Self {
        Self {
            url: log.url.clone(),
            origin: log.origin.clone(),
            vkey: log.vkeys.first().cloned().unwrap_or_default(),
        }
    }
}

impl StackFile {
    /// Reads `DIR/stack.json`.
    ///
    /// # Errors
    /// Exit code 2 when the folder holds no stack or a damaged one.
    pub fn load(dir: &Path) -> Outcome<Self> {
        let path = dir.join(STACK_FILE);
        if !path.is_file() {
            return Err(Failure::usage(format!("{} holds no stack", dir.display()))
                .hint(format!("make one with: mentatctl up --dir {}", dir.display())));
        }
        let file: Self =
            serde_json::from_str(&read_text(&path)?).or_fail(Exit::Usage, path.display()).map_err(
                |failure| failure.hint("restore stack.json from a backup; what it names is still there"),
            )?;
        if file.version != VERSION {
            return Err(Failure::usage(format!("{} has version {}", path.display(), file.version))
                .hint(format!("this mentatctl reads version {VERSION}")));
        }
        Ok(file)
    }

    /// Reads `DIR/stack.json` for whoever asks the stack: one that is where it was made.
    ///
    /// # Errors
    /// Exit code 2 as for [`Self::load`], and for a folder that was moved or copied: with a copy one would act on the
    /// original, as its administrator.
    pub fn load_in_place(dir: &Path) -> Outcome<Self> {
        let file = Self::load(dir)?;
        let root = dir.canonicalize().or_fail(Exit::Usage, dir.display())?;
        let placed = file.check_place(&Layout::new(&root));
        placed.map_err(|failure| Failure { exit: Exit::Usage, ..failure })?;
        Ok(file)
    }

    /// Refuses a folder that was moved or copied. The configuration in it names the files of the place where it was made:
    /// servers started from a copy would write into the original, past the lock that is to keep it to one process.
    ///
    /// # Errors
    /// Exit code 78 naming both places.
    pub fn check_place(&self, layout: &Layout) -> Outcome<()> {
        let trusted = self.trusted_root.iter().filter(|root| **root != layout.trust("trusted_root.json"));
        let trusted = trusted.map(|root| root.parent().and_then(Path::parent).unwrap_or(root).to_path_buf());
        let kept = DATA.iter().filter_map(|(server, field)| {
            let data = data_folder(&layout.config(server), field)?;
            let here = data.starts_with(layout.root());
            (!here).then(|| data.parent().unwrap_or(&data).to_path_buf())
        });
        let Some(made_in) = trusted.chain(kept).next() else { return Ok(()) };
        Err(Failure::refused(format!(
            "this stack was made in {} and is now in {}",
            made_in.display(),
            layout.root().display()
        ))
        .hint(format!(
            "move it to {}: its configuration names the files there, and a copy beside a running original would sign a \
             second history",
            made_in.display()
        )))
    }

    /// Writes it.
    ///
    /// # Errors
    /// Exit code 1 when that fails.
    pub fn store(&self, path: &Path) -> Outcome<()> {
        let bytes = serde_json::to_vec_pretty(self).or_fail(Exit::Failure, "writing stack.json")?;
        write_file(path, &bytes, Secrecy::Public)
    }

    /// An empty file of the present version.
    pub fn new() -> Self {
        Self {
            version: VERSION,
            ca: None,
            log: None,
            logs: BTreeMap::new(),
            executor: None,
            tsa: None,
            oidc: None,
            trusted_root: None,
            log_keys: None,
            signing_config: None,
            client_trust_config: None,
            tuf: None,
            policy: None,
            admin_token_file: None,
            tls_ca: None,
        }
    }
}
