//! Configuration of the witness. `docs/operations/witness.toml` shows every field.

use std::path::{Path, PathBuf};

use hsm::PassphraseSource;
use serde::{Deserialize, Serialize};
use service::{ServerConfig, StartRefusal};
use tlog::note::VerifierKey;

use crate::config::KeystoreConfig;

/// The file as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listener, TLS, limits.
    #[serde(default)]
    pub server: ServerConfig,
    /// Name of the witness's keys: a scheme-less URL. Must differ from every log's origin.
    pub name: String,
    /// Where the keys are.
    pub keystore: KeystoreConfig,
    /// Directory of the records, one file per origin.
    pub data: PathBuf,
    /// Directory of the records' second copies, outside `data` and best on another device. Absent: beside `data`, with its
    /// name and `-copies`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_copies: Option<PathBuf>,
    /// The logs it cosigns.
    #[serde(default, rename = "log")]
    pub logs: Vec<WitnessedLog>,
}

/// A log to cosign.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessedLog {
    /// First line of its checkpoints.
    pub origin: String,
    /// Its verifier keys; one valid line of any of them is needed, and no invalid one.
    pub vkeys: Vec<String>,
}

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Listener.
    pub server: ServerConfig,
    /// Name of the witness.
    pub name: String,
    /// Keystore directory.
    pub keystore: PathBuf,
    /// Keystore passphrase.
    pub passphrase: PassphraseSource,
    /// Records.
    pub data: PathBuf,
    /// Second copies of the records.
    pub record_copies: PathBuf,
    /// Origins with their keys.
    pub logs: Vec<(String, Vec<VerifierKey>)>,
}

impl Config {
    /// Reads a file; relative paths are taken from its folder.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let refuse =
            |what: String| StartRefusal::new(what, "see docs/operations/witness.toml for every field");
        let text = std::fs::read_to_string(path).map_err(|error| {
            refuse(format!("cannot read the configuration {}", path.display())).because(error)
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            refuse(format!("{} is not a valid configuration", path.display())).because(error)
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.server.resolve_paths(folder);
        config.keystore.resolve(folder);
        config.data = folder.join(&config.data);
        if let Some(copies) = &mut config.record_copies {
            *copies = folder.join(&*copies);
        }
        Ok(config)
    }

    /// Checks names and keys.
    ///
    /// # Errors
    /// [`StartRefusal`] naming the field.
    pub fn validate(self) -> Result<Settings, StartRefusal> {
        let refuse = |what: String, remedy: &str| StartRefusal::new(what, remedy);
        let passphrase = self.keystore.source()?;
        if !tlog::note::is_key_name(&self.name) || self.name.len() > 255 {
            return Err(refuse(
                format!("name {:?} cannot name a key", self.name),
                "use a scheme-less URL such as witness.example.com/w1",
            ));
        }
        let record_copies = self.record_copies.unwrap_or_else(|| beside(&self.data));
        if record_copies.starts_with(&self.data) {
            return Err(refuse(
                format!("record_copies {} lies inside data", record_copies.display()),
                "put the second copies outside the data directory: a restore of one must not bring back the other",
            ));
        }
        let mut logs: Vec<(String, Vec<VerifierKey>)> = Vec::new();
        for log in self.logs {
            if log.origin == self.name {
                return Err(refuse(
                    format!("a log has the witness's own name {:?}", self.name),
                    "give the witness its own name",
                ));
            }
            if logs.iter().any(|(origin, _)| *origin == log.origin) {
                return Err(refuse(format!("origin {:?} is configured twice", log.origin), "remove one"));
            }
            let mut keys = Vec::new();
            for vkey in &log.vkeys {
                let key = VerifierKey::parse(vkey).map_err(|error| {
                    refuse(
                        format!("a verifier key of {:?} is not usable", log.origin),
                        "copy the vkey the log's init printed",
                    )
                    .because(error)
                })?;
                if key.name() != log.origin || !key.kind().signs_checkpoints() {
                    return Err(refuse(
                        format!("the verifier key {:?} is not one of {:?}", key.name(), log.origin),
                        "copy the vkey the log's init printed",
                    ));
                }
                keys.push(key);
            }
            if keys.is_empty() {
                return Err(refuse(
                    format!("{:?} has no verifier key", log.origin),
                    "copy the vkey the log's init printed",
                ));
            }
            logs.push((log.origin, keys));
        }
        Ok(Settings {
            server: self.server,
            name: self.name,
            keystore: self.keystore.directory,
            passphrase,
            data: self.data,
            record_copies,
            logs,
        })
    }
}

/// The directory of the same name with `-copies`.
fn beside(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push("-copies");
    data.with_file_name(name)
}
