//! The validated configuration: what a [`Config`] becomes when nothing in it contradicts itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hsm::PassphraseSource;
use log_store::{Batching, Deduplication, EntryFileSizes, LogKind, Publishing, Witnessing, Writing};
use service::{ClientTls, ServerConfig, StartRefusal};

use crate::config::{Config, LogConfig, WitnessesConfig};

/// Most entries of one batch request.
pub(crate) const MAX_BATCH_ENTRIES: usize = 1000;
/// Largest body of a batch request; `server.limits.body_bytes` has the same default.
pub(crate) const MAX_BATCH_BYTES: usize = 4 << 20;

/// Bytes that the entries of the largest batch may have once they are in the form in which they are stored.
const QUEUE_OF_A_BATCH: usize = 2 * MAX_BATCH_BYTES;

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
    /// TLS of requests to witnesses.
    pub witness_tls: ClientTls,
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
        if resolved(&self.head_copies).starts_with(resolved(&self.data)) {
            return refuse(
                format!("head_copies {} lies inside data", self.head_copies.display()),
                "put the second copies outside the data directory: a restore of one must not bring back the other",
            );
        }
        let knows_clients = self.server.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        if let Some(log) = self.logs.iter().find(|log| log.writers.is_some() && !knows_clients) {
            return refuse(
                format!("log {:?} has writers, but no client certificate is ever asked for", log.name),
                "add server.tls.client_ca_file, or remove writers",
            );
        }
        let WitnessesConfig { tls_ca_file, tls_cert_file, tls_key_file } = self.witnesses;
        let witness_tls = ClientTls::new("witnesses", tls_ca_file, tls_cert_file, tls_key_file)?;
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
            witness_tls,
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
        if let Some(writers) = &self.writers {
            if writers.is_empty() {
                return refuse(
                    "writers is there and names nobody",
                    "name the client certificates that may submit, or remove it: then whoever reaches the server may",
                );
            }
            if let Some(writer) = writers.iter().find(|writer| !writer.contains('=')) {
                return refuse(
                    &format!(
                        "writers: {:?} is no subject of a certificate",
                        writer.chars().take(80).collect::<String>()
                    ),
                    "write the whole subject, such as CN=authority,O=Example",
                );
            }
        }
        let writing = match self.writing.as_str() {
            "open" => Writing::Open,
            "frozen" => Writing::Frozen,
            _ => return refuse("writing is neither open nor frozen", "write open or frozen"),
        };
        let witnessing = match self.witnessing.as_str() {
            "every-checkpoint" => Witnessing::EveryCheckpoint,
            "on-request" if self.witness_policy.is_some() && self.witness_pause_seconds <= 3600 => {
                if self.witness_pause_seconds > self.ack_timeout_seconds {
                    return refuse(
                        "witness_pause_seconds is above ack_timeout_seconds: who asks right after a round never gets an answer",
                        "raise ack_timeout_seconds, or ask the witnesses more often",
                    );
                }
                let refresh = self.witness_refresh_seconds;
                if refresh > 31_536_000 {
                    return refuse("witness_refresh_seconds is not usable", "0 (never) to 31536000, a year");
                }
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
        if !(1..=60).contains(&self.witness_timeout_seconds)
            || !(1..=3600).contains(&self.ack_timeout_seconds)
        {
            return refuse(
                "witness_timeout_seconds or ack_timeout_seconds is not usable",
                "witness_timeout_seconds 1 to 60, ack_timeout_seconds 1 to 3600",
            );
        }
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
        if !(1..=65_536).contains(&batching.max_entries)
            || batching.queue_entries == 0
            || batching.queue_bytes < 65_536
            || batching.max_wait > Duration::from_secs(1)
        {
            return refuse(
                "batching is not usable",
                "max_entries 1 to 65536, queue_entries above 0, queue_bytes at least 65536, max_wait_ms at most 1000",
            );
        }
        // Raw logs take no batches.
        if kind != LogKind::Raw && batching.queue_entries < MAX_BATCH_ENTRIES {
            return refuse(
                "queue_entries is below 1000: a batch of 1000 entries would be told to come back for ever",
                "queue_entries at least 1000",
            );
        }
        if kind != LogKind::Raw && batching.queue_bytes < QUEUE_OF_A_BATCH {
            return refuse(
                "queue_bytes is below 8388608: a large batch would be told to come back for ever",
                "queue_bytes at least 8388608",
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
            || publishing.waited_for > Duration::from_secs(60)
        {
            return refuse(
                "publishing is not usable",
                "idle_seconds 1 to 3600, unhurried_ms and waited_for_ms at most 60000",
            );
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
            ack_timeout: Duration::from_secs(self.ack_timeout_seconds),
            batching,
            publishing,
            sizes,
            raw: self,
        })
    }
}

/// A path without links, `.` and `..`, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let (mut known, mut rest) = (path.to_owned(), Vec::new());
    loop {
        if let Ok(real) = known.canonicalize() {
            known = real;
            break;
        }
        let Some(last) = known.components().next_back() else { break };
        rest.push(last.as_os_str().to_owned());
        if !known.pop() {
            break;
        }
    }
    if known.as_os_str().is_empty() {
        known = Path::new(".").canonicalize().unwrap_or_default();
    }
    for part in rest.iter().rev() {
        match part.to_str() {
            Some("..") => drop(known.pop()),
            Some(".") => {}
            _ => known.push(part),
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path, copies: &str, more: &str) -> Config {
        let text = format!(
            "data = {:?}\nhead_copies = {:?}\n[keystore]\ndirectory = \"keys\"\npassphrase = \"file:secret\"\n\
             [[log]]\nname = \"signing\"\nkind = \"signing\"\nauthorities = [\"root.pem\"]\n{more}",
            folder.join("data"),
            folder.join(copies),
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn second_copies_inside_the_data_are_refused_however_the_path_is_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/deep")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("data/deep"), folder.path().join("link")).unwrap();
        for inside in ["data", "data/x", "data/../data/x", "copies/../data", "link", "link/x/y", "./data/./z"]
        {
            let refusal = config(folder.path(), inside, "").validate().unwrap_err();
            assert!(refusal.to_string().contains("inside data"), "{inside}: {refusal}");
        }
        for outside in ["copies", "data/../copies", "database", "link/../../copies"] {
            assert!(config(folder.path(), outside, "").validate().is_ok(), "{outside}");
        }
    }

    #[test]
    fn what_could_only_ever_be_told_to_come_back_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |more: &str| config(folder.path(), "copies", more).validate().unwrap_err().to_string();
        assert!(refused("[log.batching]\nqueue_entries = 999\n").contains("queue_entries"));
        assert!(refused("[log.batching]\nqueue_bytes = 8388607\n").contains("queue_bytes"));
        for (kind, more) in [("issuance", "authorities = [\"root.pem\"]\n"), ("raw", "")] {
            let mut config = config(folder.path(), "copies", "");
            let text = format!("name = \"x\"\nkind = \"{kind}\"\n{more}[batching]\nqueue_entries = 5\n");
            config.logs = vec![toml::from_str(&text).unwrap()];
            assert_eq!(config.validate().is_ok(), kind == "raw", "{kind}");
        }
        for more in [
            "ack_timeout_seconds = 0\n",
            "ack_timeout_seconds = 3601\n",
            "witness_timeout_seconds = 0\n",
            "witness_timeout_seconds = 61\n",
            "[log.batching]\nmax_entries = 0\n",
            "[log.batching]\nmax_entries = 65537\n",
            "[log.publishing]\nwaited_for_ms = 60001\n",
        ] {
            assert!(refused(more).contains("is not usable"), "{more}");
        }
        let witnessed =
            "witness_policy = \"policy\"\nwitnessing = \"on-request\"\nwitness_pause_seconds = 30\n";
        assert!(refused(witnessed).contains("ack_timeout_seconds"));
        let patient = format!("{witnessed}ack_timeout_seconds = 30\n");
        assert!(config(folder.path(), "copies", &patient).validate().is_ok());
    }
    #[test]
    fn writers_need_a_listener_that_asks_who_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let writers = "writers = [\"CN=authority\"]\n";
        let refusal = config(folder.path(), "copies", writers).validate().unwrap_err().to_string();
        assert!(refusal.contains("writers") && refusal.contains("client_ca_file"), "{refusal}");
        let mut asking = config(folder.path(), "copies", writers);
        asking.server.tls = Some(
            toml::from_str("certificate_file = \"c\"\nkey_file = \"k\"\nclient_ca_file = \"a\"\n").unwrap(),
        );
        assert!(asking.validate().is_ok());
        for (writers, why) in [
            ("writers = []\n", "names nobody"),
            ("writers = [\"CN=authority\", \"authority\"]\n", "\"authority\" is no subject"),
        ] {
            let mut wrong = config(folder.path(), "copies", writers);
            wrong.server.tls = Some(
                toml::from_str("certificate_file = \"c\"\nkey_file = \"k\"\nclient_ca_file = \"a\"\n")
                    .unwrap(),
            );
            let refusal = wrong.validate().unwrap_err().to_string();
            assert!(refusal.starts_with("log \"signing\": ") && refusal.contains(why), "{refusal}");
        }
    }
}
