//! The configuration file. `docs/operations/transparency-log.toml` shows every field with its default.
//!
//! [`Config`] is the file as written; [`Config::validate`] turns it into [`Settings`], in which impossible combinations
//! do not exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hsm::PassphraseSource;
use log_store::{Batching, Deduplication, EntryFileSizes, LogKind, Publishing, Witnessing, Writing};
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
    /// The logs, at least one.
    #[serde(rename = "log")]
    pub logs: Vec<LogConfig>,
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

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Listener.
    pub server: ServerConfig,
    /// See [`Config::public_url`], without a trailing slash.
    pub public_url: Option<String>,
    /// Keystore directory.
    pub keystore: PathBuf,
    /// Keystore passphrase.
    pub passphrase: PassphraseSource,
    /// Data directory.
    pub data: PathBuf,
    /// Directory of second copies.
    pub head_copies: PathBuf,
    /// The logs: names, bases and given origins are distinct.
    pub logs: Vec<LogSettings>,
}

/// One validated log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: LogKind,
    /// Empty, or `/...` without a trailing slash.
    pub base: String,
    /// Given origin.
    pub origin: Option<String>,
    /// When witnesses are asked.
    pub witnessing: Witnessing,
    /// Whether it takes entries.
    pub writing: Writing,
    /// Deduplication.
    pub deduplication: Deduplication,
    /// See [`LogConfig::ack_timeout_seconds`].
    pub ack_timeout: Duration,
    /// Limits.
    pub batching: Batching,
    /// Publication.
    pub publishing: Publishing,
    /// Entry file.
    pub sizes: EntryFileSizes,
    /// As written, for what is loaded from files.
    pub raw: LogConfig,
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
            refuse(format!("cannot read the configuration {}", path.display())).because(error)
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
        for log in &mut self.logs {
            let events = log.events.iter_mut().flat_map(|event| &mut event.keys);
            let optional = [&mut log.head, &mut log.witness_policy, &mut log.add_token_file];
            log.authorities
                .iter_mut()
                .chain(&mut log.registered_keys)
                .chain(events)
                .chain(optional.into_iter().flatten())
                .for_each(resolve);
        }
    }

    /// Checks what can be checked without opening keys or logs.
    ///
    /// # Errors
    /// [`StartRefusal`] naming the field.
    pub fn validate(self) -> Result<Settings, StartRefusal> {
        let refuse = |what: String, remedy: &str| Err(StartRefusal::new(what, remedy));
        let passphrase = self.keystore.source()?;
        if self.logs.is_empty() {
            return refuse("no [[log]] is configured".to_owned(), "configure at least one log");
        }
        if self.head_copies.starts_with(&self.data) {
            return refuse(
                format!("head_copies {} lies inside data", self.head_copies.display()),
                "put the second copies outside the data directory: a restore of one must not bring back the other",
            );
        }
        let (mut names, mut bases, mut origins) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut logs = Vec::with_capacity(self.logs.len());
        for log in self.logs {
            let log = log.validate()?;
            if !names.insert(log.name.clone()) {
                return refuse(format!("two logs have the name {:?}", log.name), "give each its own");
            }
            if !bases.insert(log.base.clone()) {
                return refuse(format!("two logs have the base {:?}", log.base), "give each its own");
            }
            if let Some(origin) = &log.origin
                && !origins.insert(origin.clone())
            {
                return refuse(
                    format!("two logs have the origin {origin:?}"),
                    "one origin stands for one tree for ever",
                );
            }
            logs.push(log);
        }
        Ok(Settings {
            server: self.server,
            public_url: self.public_url.map(|url| url.trim_end_matches('/').to_owned()),
            keystore: self.keystore.directory,
            passphrase,
            data: self.data,
            head_copies: self.head_copies,
            logs,
        })
    }
}

impl LogConfig {
    fn validate(self) -> Result<LogSettings, StartRefusal> {
        let refuse =
            |what: &str, remedy: &str| Err(StartRefusal::new(format!("log {:?}: {what}", self.name), remedy));
        let name_is_plain =
            self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if self.name.is_empty() || self.name.len() > 40 || !name_is_plain {
            return refuse("the name is not usable", "use 1 to 40 lower-case letters, digits and -");
        }
        let kind = match LogKind::parse(&self.kind) {
            Some(kind) if kind != LogKind::Receipts => kind,
            _ => return refuse("unknown kind", "use signing, issuance, event or raw"),
        };
        let base = self.base.clone().unwrap_or_else(|| match kind {
            LogKind::Signing => String::new(),
            other => format!("/{}", other.as_str()),
        });
        let base_is_plain = base.is_empty()
            || base.starts_with('/')
                && !base.ends_with('/')
                && base.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b));
        if !base_is_plain || base.starts_with("/api") || base.starts_with("/tile") {
            return refuse("base is not usable", "leave it empty or write /name");
        }
        if matches!(kind, LogKind::Signing | LogKind::Issuance) && self.authorities.is_empty() {
            return refuse("no authorities", "name the PEM files of the CA whose chains it accepts");
        }
        if !self.authorities.is_empty() && !matches!(kind, LogKind::Signing | LogKind::Issuance) {
            return refuse("authorities have no meaning for this kind", "remove them");
        }
        if !self.registered_keys.is_empty() && kind != LogKind::Signing {
            return refuse("registered_keys have no meaning for this kind", "remove them");
        }
        if self.events.is_empty() == (kind == LogKind::Event) {
            return refuse(
                "[[log.event]] belongs to kind event, and only there",
                "configure who may report which event",
            );
        }
        if self.add_token_file.is_some() && kind != LogKind::Raw {
            return refuse("add_token_file has no meaning for this kind", "remove it");
        }
        let writing = match self.writing.as_str() {
            "open" => Writing::Open,
            "frozen" => Writing::Frozen,
            _ => return refuse("writing is neither open nor frozen", "write open or frozen"),
        };
        let witnessing = match self.witnessing.as_str() {
            "every-checkpoint" => Witnessing::EveryCheckpoint,
            "on-request" if self.witness_policy.is_some() && self.witness_pause_seconds <= 3600 => {
                let refresh = self.witness_refresh_seconds.min(31_536_000);
                Witnessing::OnRequest {
                    pause: Duration::from_secs(self.witness_pause_seconds),
                    refresh: (refresh > 0).then(|| Duration::from_secs(refresh)),
                }
            }
            _ => {
                return refuse(
                    "witnessing is not usable",
                    "write every-checkpoint, or on-request beside a witness_policy and witness_pause_seconds up to 3600",
                );
            }
        };
        let deduplication = match self.deduplication.as_str() {
            "exact" => Deduplication::Exact,
            "off" => Deduplication::Off,
            _ => return refuse("deduplication is neither exact nor off", "write exact or off"),
        };
        let origin_is_plain = |origin: &String| {
            (1..=200).contains(&origin.len())
                && origin.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        };
        if self.origin.as_ref().is_some_and(|origin| !origin_is_plain(origin)) {
            return refuse(
                "origin is no bare host name",
                "Sigstore clients demand a host name without scheme, port or path",
            );
        }
        let batching = Batching {
            max_entries: self.batching.max_entries,
            max_wait: Duration::from_millis(self.batching.max_wait_ms),
            queue_entries: self.batching.queue_entries,
            queue_bytes: self.batching.queue_bytes,
        };
        if batching.max_entries == 0
            || batching.queue_entries == 0
            || batching.queue_bytes < 65_536
            || batching.max_wait > Duration::from_secs(1)
        {
            return refuse(
                "batching is not usable",
                "max_entries and queue_entries above 0, queue_bytes at least 65536, max_wait_ms at most 1000",
            );
        }
        let publishing = Publishing {
            waited_for: Duration::from_millis(self.publishing.waited_for_ms),
            unhurried: Duration::from_millis(self.publishing.unhurried_ms),
            idle: Duration::from_secs(self.publishing.idle_seconds),
        };
        if publishing.idle.is_zero()
            || publishing.idle > Duration::from_secs(3600)
            || publishing.unhurried > Duration::from_secs(60)
        {
            return refuse("publishing is not usable", "idle_seconds 1 to 3600, unhurried_ms at most 60000");
        }
        let sizes = EntryFileSizes { segment: self.segment_bytes, reserve: self.reserve_bytes };
        if sizes.segment < 131_072 || sizes.reserve == 0 || sizes.reserve > sizes.segment {
            return refuse(
                "segment_bytes or reserve_bytes is not usable",
                "segment_bytes at least 131072, reserve_bytes above 0 and not larger",
            );
        }
        Ok(LogSettings {
            name: self.name.clone(),
            kind,
            base,
            origin: self.origin.clone(),
            witnessing,
            writing,
            deduplication,
            ack_timeout: Duration::from_secs(self.ack_timeout_seconds.clamp(1, 3600)),
            batching,
            publishing,
            sizes,
            raw: self,
        })
    }
}
