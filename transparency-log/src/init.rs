//! Makes keys and empty logs, once. Prints what clients must know of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hsm::software::Keystore;
use hsm::{KeyProvider, Passphrase, PassphraseSource};
use log_store::{CheckpointKeys, Disk, Log, OsDisk};
use serde_json::{Value, json};
use service::{StartRefusal, secret};

use crate::admission::event_rules;
use crate::clock::LogClock;
use crate::keys;
use crate::logs::{describe, options};
use crate::settings::{LogSettings, Settings};

/// Creates the keystore (with a random passphrase, when its file does not exist) and every log. Nothing that exists is
/// ever overwritten; logs that were added to the configuration later are added to an existing keystore.
///
/// The first key of each log, which its authority needs to verify promises with, is written to `NAME.pub.pem` in the data
/// folder. Returns the JSON line to print.
///
/// # Errors
/// [`StartRefusal`] when nothing is left to initialise, or something cannot be made.
pub fn init(settings: &Settings) -> Result<Value, StartRefusal> {
    // A folder without a head: an initialisation was interrupted, or the head was lost. Only `repair` tells them apart.
    let headless = |log: &&LogSettings| {
        settings.data.join(&log.name).exists() && !options(settings, log, "").head.exists()
    };
    if let Some(log) = settings.logs.iter().find(headless) {
        return Err(StartRefusal::new(
            format!(
                "log {:?} exists already, but {} does not",
                log.name,
                options(settings, log, "").head.display()
            ),
            "run `transparency-log repair --config FILE`, then `init` again if logs are left to be made",
        ));
    }
    let remaining: Vec<_> =
        settings.logs.iter().filter(|log| !settings.data.join(&log.name).exists()).collect();
    if remaining.is_empty() {
        return Err(StartRefusal::new(
            format!("all logs exist already in {}", settings.data.display()),
            "run `serve`; a log is initialised once and never overwritten",
        ));
    }
    for log in &settings.logs {
        // Before anything is made: what is printed at the end must be complete.
        event_rules(log)?;
    }
    let keystore = open_keystore(&settings.keystore, &settings.passphrase)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    for log in &remaining {
        for spec in keys::key_specs(log)? {
            keystore.generate(&spec).map_err(|error| {
                StartRefusal::new(
                    format!("cannot make the key {}", spec.label.as_str()),
                    "if an earlier init was interrupted, remove the keys of this log from the keystore",
                )
                .because(error)
            })?;
        }
        let keys = keys::open(&keystore, log)?;
        Log::create(&options(settings, log, keys.origin()), &disk, &LogClock).map_err(|error| {
            StartRefusal::new(
                format!("cannot create log {:?}", log.name),
                "remove what is named and run init again",
            )
            .because(error)
        })?;
    }
    let mut described = Vec::new();
    for log in &settings.logs {
        let keys = keys::open(&keystore, log)?;
        let (events, url) = (event_rules(log)?, settings.public_url.as_deref().unwrap_or_default());
        let mut description = json!(describe(log, &keys, events, url));
        if let (Some(members), Some(path)) =
            (description.as_object_mut(), write_public_key(settings, log, &keys)?)
        {
            members.insert("public_key_file".to_owned(), json!(path.display().to_string()));
        }
        described.push(description);
    }
    Ok(json!({ "initialized": true, "logs": described }))
}

/// `NAME.pub.pem` in the data folder. It says nothing that the keystore does not, so one that is there is written anew.
fn write_public_key(
    settings: &Settings,
    log: &LogSettings,
    keys: &CheckpointKeys,
) -> Result<Option<PathBuf>, StartRefusal> {
    let Some((_, signer)) = keys.primary() else { return Ok(None) };
    let path = settings.data.join(format!("{}.pub.pem", log.name));
    std::fs::write(&path, signer.public_key().to_pem()).map_err(|error| {
        StartRefusal::new(
            format!("cannot write {}", path.display()),
            "check the folder's permissions and space",
        )
        .because(error)
    })?;
    Ok(Some(path))
}

/// Opens a keystore, or creates it; a passphrase file that does not exist gets a random passphrase.
pub(crate) fn open_keystore(directory: &Path, source: &PassphraseSource) -> Result<Keystore, StartRefusal> {
    if let PassphraseSource::File(path) = source
        && !path.exists()
    {
        let passphrase = Passphrase::random().map_err(|error| {
            StartRefusal::new("no random passphrase", "check the system's random source").because(error)
        })?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| {
                StartRefusal::new(format!("cannot create {}", parent.display()), "check its permissions")
                    .because(error)
            })?;
        }
        secret::write_new(path, passphrase.expose())?;
    }
    let passphrase = read_passphrase(source)?;
    let made = if directory.exists() {
        Keystore::open(directory, &passphrase)
    } else {
        Keystore::create(directory, &passphrase)
    };
    made.map_err(|error| {
        StartRefusal::new(
            format!("cannot open the keystore {}", directory.display()),
            "check keystore.directory and keystore.passphrase",
        )
        .because(error)
    })
}

/// Reads the keystore's passphrase.
pub(crate) fn read_passphrase(source: &PassphraseSource) -> Result<Passphrase, StartRefusal> {
    source.read().map_err(|error| {
        StartRefusal::new("cannot read the keystore's passphrase", "check keystore.passphrase").because(error)
    })
}
