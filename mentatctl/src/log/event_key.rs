//! `--event-key`: whose events are believed, beside what the keys file says.

use std::path::{Path, PathBuf};

use clap::Args;
use trust_store::event::{EventRule, EventRules, MAX_EVENT_KEYS};
use trust_store::json::Bytes;
use trust_store::pem;

use super::KnownLog;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::read_text;

/// `predicateType` of the authority's statements about revocations.
pub const REVOCATION: &str = "https://mentat.internal/revocation/v1";

/// Keys of events, from flags.
#[derive(Debug, Args)]
pub struct EventKeyFlags {
    /// Public keys (PEM) that sign events of TYPE [default: revocations], beside those that log_keys.json names; may be
    /// repeated
    #[arg(long = "event-key", value_name = "[TYPE=]FILE", value_parser = typed_file)]
    event_keys: Vec<(String, PathBuf)>,
}

impl EventKeyFlags {
    /// What is believed of an event log: by the keys file and by the flags.
    ///
    /// # Errors
    /// Exit code 2 for a file that cannot be read, or a key that signs no events.
    pub fn rules(&self, known: &KnownLog) -> Outcome<EventRules> {
        let believed = known.description.events.rules();
        let mut more = Vec::with_capacity(self.event_keys.len());
        for (predicate_type, path) in &self.event_keys {
            let is_new = |key: &Bytes| {
                !believed.iter().any(|rule| rule.predicate_type == *predicate_type && rule.keys.contains(key))
            };
            // A key that the keys file knows is believed as far as it says there, about which issuers for instance.
            let keys: Vec<Bytes> = public_keys(path)?.into_iter().map(Bytes).filter(is_new).collect();
            if !keys.is_empty() {
                let predicate_type = predicate_type.clone();
                more.push(EventRule {
                    predicate_type,
                    issuer: None,
                    issuer_name: None,
                    issuer_key: None,
                    keys,
                });
            }
        }
        known.description.events.with(more).or_fail(Exit::Usage, "the keys of events")
    }
}

/// The public key in a PEM file, DER.
///
/// # Errors
/// Exit code 2 when it cannot be read, or holds several.
pub fn public_key(path: &Path) -> Outcome<Vec<u8>> {
    keys_of(path, 1)?.pop().ok_or_else(|| holds_none(path))
}

/// The public keys in a PEM file, DER: of keys that followed one another the file names all.
fn public_keys(path: &Path) -> Outcome<Vec<Vec<u8>>> {
    let keys = keys_of(path, MAX_EVENT_KEYS)?;
    if keys.is_empty() { Err(holds_none(path)) } else { Ok(keys) }
}

fn keys_of(path: &Path, most: usize) -> Outcome<Vec<Vec<u8>>> {
    pem::decode(&read_text(path)?, "PUBLIC KEY", most).or_fail(Exit::Usage, path.display())
}

fn holds_none(path: &Path) -> Failure {
    Failure::usage(format!("{} holds no public key", path.display()))
}

/// `TYPE=FILE`, or `FILE` of the key that signs revocations.
fn typed_file(text: &str) -> Result<(String, PathBuf), String> {
    let (kind, path) = text.rsplit_once('=').unwrap_or((REVOCATION, text));
    if kind.is_empty() || path.is_empty() {
        return Err("give FILE or TYPE=FILE".to_owned());
    }
    Ok((kind.to_owned(), PathBuf::from(path)))
}
