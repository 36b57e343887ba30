//! Where the CA's keys live: the software keystore, and for keys elsewhere a reference each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hsm::{KeyLabel, KeyUri, PassphraseSource, Scheme};
use serde::Deserialize;
use service::StartRefusal;

use crate::authority::names;

/// Keys as they are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Where the keystore's passphrase is read from: `file:PATH`, `env:NAME`, `credential:NAME`, or `shares:FOLDER` with
    /// the shares that enough custodians brought.
    pub passphrase: String,
    /// Folder of the keystore. Default `keys`.
    #[serde(default = "default_keystore")]
    pub keystore: PathBuf,
    /// Threads that sign. Default 2.
    #[serde(default = "default_threads")]
    pub threads: usize,
    /// Keys that do not live in the keystore: name of the authority → reference of its key (RFC 7512 for `pkcs11:`), which
    /// names the place, a label (`object`) and the way there. The ceremony makes the key in that place and records its full
    /// reference; afterwards only the way there (`module-path`, `pin-source`, …) is taken from here.
    #[serde(default)]
    pub uris: BTreeMap<String, String>,
}

fn default_keystore() -> PathBuf {
    PathBuf::from("keys")
}

fn default_threads() -> usize {
    2
}

/// Validates the references of keys outside the keystore.
pub(super) fn uris(config: &KeysConfig) -> Result<BTreeMap<String, KeyUri>, StartRefusal> {
    config
        .uris
        .iter()
        .map(|(name, text)| {
            let field = format!("keys.uris.{name}");
            if !names::ALL.contains(&name.as_str()) {
                return Err(StartRefusal::new(
                    format!("{field}: there is no such authority"),
                    format!("name one of {}", names::ALL.join(", ")),
                ));
            }
            let refuse = |error: hsm::Error| {
                StartRefusal::new(
                    format!("{field} is not a reference of a key"),
                    "write for example pkcs11:token=ca;object=code-signing?module-path=/usr/lib/softhsm/libsofthsm2.so&\
                     pin-source=file:/run/secrets/pin",
                )
                .because(error)
            };
            let uri = KeyUri::parse(text).map_err(refuse)?;
            if uri.scheme() == Scheme::Soft {
                return Err(StartRefusal::new(
                    format!("{field} names the software keystore"),
                    "leave the line out: keys live there when nothing else is said",
                ));
            }
            KeyLabel::new(uri.path_attribute("object").unwrap_or_default()).map_err(refuse)?;
            hsm::keyring::built_with(uri.scheme()).map_err(|error| {
                StartRefusal::new(
                    format!("{field}: {error}"),
                    "use a program that was built with this backend",
                )
            })?;
            Ok((name.clone(), uri))
        })
        .collect()
}

/// Validates the source of the keystore's passphrase; its relative paths are below `data_dir`.
pub(super) fn passphrase(text: &str, data_dir: &Path) -> Result<PassphraseSource, StartRefusal> {
    let source: PassphraseSource = text.parse().map_err(|error: hsm::Error| {
        StartRefusal::new(
            "keys.passphrase does not parse",
            "write file:PATH, env:NAME, credential:NAME or shares:FOLDER",
        )
        .because(error)
    })?;
    Ok(match source {
        PassphraseSource::File(path) => PassphraseSource::File(data_dir.join(path)),
        PassphraseSource::Shares(folder) => PassphraseSource::Shares(data_dir.join(folder)),
        other => other,
    })
}
