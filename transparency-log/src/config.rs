//! The configuration file. `docs/operations/transparency-log.toml` shows every field with its default.
//!
//! [`Config`] is the file as written; [`Config::validate`] turns it into [`Settings`](crate::settings::Settings), in which
//! impossible combinations do not exist.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hsm::PassphraseSource;
use log_store::{Batching, EntryFileSizes, Publishing};
use serde::{Deserialize, Serialize};
use service::{ServerConfig, StartRefusal};

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listener, TLS, limits: see `service`.
    #[serde(default)]
    pub server: ServerConfig,
    /// Address at which clients reach this server, such as `https://log.example.com`; shown in `/api/v1/logs`. Absent:
    /// the `Host` that the client used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Where the logs' keys are.
    pub keystore: KeystoreConfig,
    /// Directory under which each log has a folder of its name.
    pub data: PathBuf,
    /// Directory for the second copies of the heads; must not lie inside `data`, best on another device.
    pub head_copies: PathBuf,
    /// TLS of the requests to witnesses.
    #[serde(default)]
    pub witnesses: WitnessesConfig,
    /// The logs, at least one.
    #[serde(rename = "log")]
    pub logs: Vec<LogConfig>,
}

/// TLS of the requests to the witnesses of all logs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WitnessesConfig {
    /// PEM file with the authorities of the witnesses' TLS certificates; absent: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file with the client certificate that the server shows to them, then its intermediates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file with its key, mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<PathBuf>,
}

/// The software keystore.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreConfig {
    /// Directory of the keystore. `init` creates it.
    pub directory: PathBuf,
    /// Where its passphrase comes from: `file:PATH`, `env:NAME` or `credential:NAME`. `init` writes a random one to a
    /// file that does not exist yet.
    pub passphrase: String,
}

impl KeystoreConfig {
    /// Takes relative paths from `folder`.
    pub(crate) fn resolve(&mut self, folder: &Path) {
        self.directory = folder.join(&self.directory);
        if let Some(file) = self.passphrase.strip_prefix("file:") {
            self.passphrase = format!("file:{}", folder.join(file).display());
        }
    }

    /// Where the passphrase comes from.
    pub(crate) fn source(&self) -> Result<PassphraseSource, StartRefusal> {
        self.passphrase.parse().map_err(|error: hsm::Error| {
            StartRefusal::new(
                "keystore.passphrase cannot be used",
                "write file:PATH, env:NAME or credential:NAME",
            )
            .because(error)
        })
    }
}

/// One log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Name: folder, key labels and metrics. Lower-case letters, digits and `-`.
    pub name: String,
    /// `signing`, `issuance`, `event`, `raw`.
    pub kind: String,
    /// Path under which it is served: empty for the root, else `/something`. Default: empty for the signing log, `/KIND`
    /// for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// First line of its checkpoints. Default `KIND.EIGHTHEX.mentat.internal`, from its key. Fixed for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// `open`, or `frozen`: reads only.
    #[serde(default = "open")]
    pub writing: String,
    /// PEM files with the CA certificates whose chains are accepted: self-signed ones are trust anchors, others
    /// intermediates. Needed for kinds `signing` and `issuance`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<PathBuf>,
    /// PEM files of public keys that may sign entries of a `signing` log without a certificate. Executors never accept
    /// these entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registered_keys: Vec<PathBuf>,
    /// Which keys may submit which events. Needed for kind `event`.
    #[serde(default, rename = "event", skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventConfig>,
    /// Find duplicates: `exact` or `off`. Default: `exact`.
    #[serde(default = "exact")]
    pub deduplication: String,
    /// Head file, when it shall lie elsewhere than in the log's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<PathBuf>,
    /// File with a C2SP tlog-policy: its witnesses cosign checkpoints, when `witnessing` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness_policy: Option<PathBuf>,
    /// `every-checkpoint`: the witnesses cosign each checkpoint before it is published. `on-request`: published checkpoints
    /// are cosigned beside publication, when somebody submits with `?ack=witnessed`.
    #[serde(default = "every_checkpoint")]
    pub witnessing: String,
    /// Seconds between two requests to the witnesses when they are asked `on-request`.
    #[serde(default = "ten")]
    pub witness_pause_seconds: u64,
    /// Seconds after which the cosignatures are renewed although nobody asked, when witnesses are asked `on-request`: readers
    /// look at their age. 0: never.
    #[serde(default = "hour")]
    pub witness_refresh_seconds: u64,
    /// Seconds that one witness may take.
    #[serde(default = "ten")]
    pub witness_timeout_seconds: u64,
    /// Seconds that a submission waits for its acknowledgement; then 504, and a retry gets the same index.
    #[serde(default = "twenty")]
    pub ack_timeout_seconds: u64,
    /// Subjects of client certificates (`CN=authority,O=Example`, compared whole) that may submit; absent: whoever can
    /// reach the server. At least one, if the list is there. Needs `server.tls.client_ca_file`. Reads stay open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writers: Option<Vec<String>>,
    /// Bearer token file; when present, `add` on a `raw` log needs the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_token_file: Option<PathBuf>,
    /// Batches and queue.
    #[serde(default)]
    pub batching: BatchingConfig,
    /// When checkpoints are published.
    #[serde(default)]
    pub publishing: PublishingConfig,
    /// Bytes of an entry segment file; fixed at `init`.
    #[serde(default = "segment")]
    pub segment_bytes: u64,
    /// Bytes of disk reserved ahead of the last entry.
    #[serde(default = "reserve")]
    pub reserve_bytes: u64,
}

/// An event type and the keys that may report it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventConfig {
    /// `predicateType` of the in-toto statement.
    pub predicate_type: String,
    /// The `issuer` that the statement's predicate must name: of a revocation, the CA that issued the certificate. Absent:
    /// any. One CA's key then cannot revoke what another issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// PEM file with that CA's certificate: readers then count its revocations for the certificates of this issuer only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_certificate: Option<PathBuf>,
    /// PEM files with certificates: readers then count revocations for the certificates of the CAs among them only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuer_certificates: Vec<PathBuf>,
    /// PEM files with public keys (`PUBLIC KEY`) or certificates, whose keys are then meant.
    pub keys: Vec<PathBuf>,
}

/// Batches and queue of one log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchingConfig {
    /// Entries in one batch.
    pub max_entries: usize,
    /// Milliseconds that an entry may wait for others while several connections write.
    pub max_wait_ms: u64,
    /// Entries that may wait; more get 503.
    pub queue_entries: usize,
    /// Bytes that may wait; more get 503.
    pub queue_bytes: usize,
}

/// When checkpoints are published.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishingConfig {
    /// Milliseconds between two checkpoints while somebody waits for one.
    pub waited_for_ms: u64,
    /// Milliseconds from a commit to its checkpoint when nobody waits.
    pub unhurried_ms: u64,
    /// Seconds after which an unchanged tree is signed again.
    pub idle_seconds: u64,
}

impl Default for BatchingConfig {
    fn default() -> Self {
        let Batching { max_entries, max_wait, queue_entries, queue_bytes } = Batching::default();
        Self { max_entries, max_wait_ms: millis(max_wait), queue_entries, queue_bytes }
    }
}

impl Default for PublishingConfig {
    fn default() -> Self {
        let Publishing { waited_for, unhurried, idle } = Publishing::default();
        Self {
            waited_for_ms: millis(waited_for),
            unhurried_ms: millis(unhurried),
            idle_seconds: idle.as_secs(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn open() -> String {
    "open".to_owned()
}

fn exact() -> String {
    "exact".to_owned()
}

fn every_checkpoint() -> String {
    "every-checkpoint".to_owned()
}

const fn twenty() -> u64 {
    20
}

const fn hour() -> u64 {
    3600
}

const fn ten() -> u64 {
    10
}

fn segment() -> u64 {
    EntryFileSizes::default().segment
}

fn reserve() -> u64 {
    EntryFileSizes::default().reserve
}

impl Config {
    /// Reads a file. Relative paths in it are taken from the file's folder.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let refuse = |what: String| {
            StartRefusal::new(what, "see docs/operations/transparency-log.toml for every field")
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            StartRefusal::new(format!("{} cannot be read", path.display()), "correct the path after --config")
                .because(error)
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            refuse(format!("{} is not a valid configuration", path.display())).because(error)
        })?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
        self.server.resolve_paths(folder);
        self.keystore.resolve(folder);
        resolve(&mut self.data);
        resolve(&mut self.head_copies);
        let WitnessesConfig { tls_ca_file, tls_cert_file, tls_key_file } = &mut self.witnesses;
        [tls_ca_file, tls_cert_file, tls_key_file].into_iter().flatten().for_each(resolve);
        for log in &mut self.logs {
            let events = log.events.iter_mut().flat_map(|event| {
                let issuers = event.issuer_certificate.iter_mut().chain(&mut event.issuer_certificates);
                event.keys.iter_mut().chain(issuers)
            });
            let optional = [&mut log.head, &mut log.witness_policy, &mut log.add_token_file];
            log.authorities
                .iter_mut()
                .chain(&mut log.registered_keys)
                .chain(events)
                .chain(optional.into_iter().flatten())
                .for_each(resolve);
        }
    }
}
