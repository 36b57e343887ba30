//! `--event-key`: whose events are believed, beside what the keys file says.

use std::path::{Path, PathBuf};

use clap::Args;
use trust_store::event::{EventRule, EventRules};
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
    /// Public key (PEM) that signs events of TYPE [default: revocations], beside those that log_keys.json names; may be
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
        let mut more = Vec::with_capacity(self.event_keys.len());
        for (predicate_type, path) in &self.event_keys {
            more.push(EventRule {
                predicate_type: predicate_type.clone(),
                issuer: None,
                issuer_name: None,
                keys: vec![Bytes(public_key(path)?)],
            });
        }
        known.description.events.with(more).or_fail(Exit::Usage, "the keys of events")
    }
}

/// The public key in a PEM file, DER.
///
/// # Errors
/// Exit code 2 when it cannot be read.
pub fn public_key(path: &Path) -> Outcome<Vec<u8>> {
    let blocks = pem::decode(&read_text(path)?, "PUBLIC KEY", 1).or_fail(Exit::Usage, path.display())?;
    blocks.into_iter().next().ok_or_else(|| Failure::usage(format!("{} holds no public key", path.display())))
}

/// `TYPE=FILE`, or `FILE` of the key that signs revocations.
fn typed_file(text: &str) -> Result<(String, PathBuf), String> {
    let (kind, path) = text.rsplit_once('=').unwrap_or((REVOCATION, text));
    if kind.is_empty() || path.is_empty() {
        return Err("give FILE or TYPE=FILE".to_owned());
    }
    Ok((kind.to_owned(), PathBuf::from(path)))
}
