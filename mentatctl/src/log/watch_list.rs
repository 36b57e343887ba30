//! What a monitor looks for, from flags and a configuration file, and where it reports.

use std::path::PathBuf;

use serde::Deserialize;
use tlog_client::{VerifiedEntry, Watcher};

use super::record::{Record, serial_text};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::read_text;

/// The configuration file, TOML. Every member may be absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchFile {
    /// Identities: exact, or `*@DOMAIN` for every mailbox of a domain.
    #[serde(default)]
    pub identities: Vec<String>,
    /// Digests in hexadecimal: of what was signed, of a certificate, of a statement's subject.
    #[serde(default)]
    pub digests: Vec<String>,
    /// Serial numbers of certificates in hexadecimal.
    #[serde(default)]
    pub serials: Vec<String>,
    /// Types of events (`predicateType`).
    #[serde(default)]
    pub event_types: Vec<String>,
    /// Where alerts are sent.
    pub webhook: Option<WebhookFile>,
}

/// `[webhook]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookFile {
    /// Alerts are POSTed to this address.
    pub url: String,
    /// File with a bearer token to send along.
    pub token_file: Option<PathBuf>,
    /// Longest time for one attempt, seconds: 1 to 300.
    pub timeout_seconds: Option<u64>,
    /// Attempts in all: 1 to 20.
    pub attempts: Option<u32>,
}

impl WatchFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Exit code 78 for a file that is not of this form, 2 when it cannot be read.
    pub fn load(path: &std::path::Path) -> Outcome<Self> {
        toml::from_str(&read_text(path)?).or_fail(Exit::Refused, path.display())
    }
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct WatchList {
    identities: Vec<String>,
    digests: Vec<String>,
    serials: Vec<String>,
    event_types: Vec<String>,
    kind: String,
}

impl WatchList {
    /// A list for a log of this kind.
    ///
    /// # Errors
    /// Exit code 2 for digests and serials that are not hexadecimal: they would never match.
    pub fn new(kind: &str, file: &WatchFile) -> Outcome<Self> {
        let hexadecimal = |what: &str, texts: &[String]| {
            let read = |text: &String| {
                let digits =
                    text.strip_prefix("sha256:").unwrap_or(text).replace(':', "").to_ascii_lowercase();
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(Failure::usage(format!("`{text}` is no {what} in hexadecimal")));
                }
                Ok(digits)
            };
            texts.iter().map(read).collect::<Outcome<Vec<_>>>()
        };
        if file.identities.iter().any(|identity| identity.is_empty() || identity == "*@") {
            return Err(Failure::usage("an identity to watch is empty"));
        }
        Ok(Self {
            identities: file.identities.clone(),
            digests: hexadecimal("digest", &file.digests)?,
            serials: hexadecimal("serial number", &file.serials)?
                .iter()
                .map(|text| serial_text(text))
                .collect(),
            event_types: file.event_types.clone(),
            kind: kind.to_owned(),
        })
    }

    /// Names of what an entry matches. An entry that is not of the log's kind is itself a finding.
    pub fn matches(&self, bytes: &[u8]) -> Vec<String> {
        let Ok(record) = Record::read(&self.kind, bytes) else {
            return vec!["an entry that is not of this log's kind".to_owned()];
        };
        let mut found = Vec::new();
        for digest in
            record.digests().iter().filter(|digest| self.digests.contains(&digest.to_ascii_lowercase()))
        {
            found.push(format!("digest {digest}"));
        }
        for identity in record.identities() {
            if self.identities.iter().any(|wanted| identity_matches(wanted, &identity)) {
                let verb = match record {
                    Record::Signature { .. } => "signed by",
                    Record::Issued { .. } => "certificate for",
                    Record::Event { .. } | Record::Raw => "about",
                };
                found.push(format!("{verb} {identity}"));
            }
        }
        if let Some(serial) = record.serial().filter(|serial| self.serials.contains(serial)) {
            found.push(format!("serial {serial}"));
        }
        if let Record::Event { statement, .. } = &record
            && self.event_types.contains(&statement.predicate_type)
        {
            found.push(format!("event {}", statement.predicate_type));
        }
        found
    }
}

impl Watcher for &WatchList {
    fn inspect(&mut self, entry: &VerifiedEntry) -> Vec<String> {
        self.matches(&entry.bytes)
    }
}

/// Domains compare without case, as DNS does; all else exactly.
fn identity_matches(wanted: &str, identity: &str) -> bool {
    match (wanted.strip_prefix("*@"), identity.rsplit_once('@')) {
        (Some(domain), Some((_, found))) => domain.eq_ignore_ascii_case(found),
        _ => wanted == identity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_match_exactly_or_by_domain() {
        assert!(identity_matches("a@example.com", "a@example.com"));
        assert!(!identity_matches("a@example.com", "A@example.com"));
        assert!(identity_matches("*@example.com", "a@EXAMPLE.com"));
        for other in ["a@evil-example.com", "a@sub.example.com", "https://example.com/@", "example.com"] {
            assert!(!identity_matches("*@example.com", other), "{other}");
        }
    }

    #[test]
    fn what_could_never_match_is_refused() {
        let file = |text: &str| toml::from_str::<WatchFile>(text).unwrap();
        for bad in ["digests = ['xyz']", "serials = ['']", "identities = ['']", "identities = ['*@']"] {
            assert!(WatchList::new("signing", &file(bad)).is_err(), "{bad}");
        }
        let list = WatchList::new("signing", &file("digests = ['sha256:AB']\nserials = ['00:0F']")).unwrap();
        assert_eq!((list.digests, list.serials), (vec!["ab".to_owned()], vec!["f".to_owned()]));
        assert!(toml::from_str::<WatchFile>("identity = ['a']").is_err(), "unknown members are refused");
    }

    #[test]
    fn events_match_by_type_serial_digest_and_an_unreadable_entry_is_a_finding() {
        let file = WatchFile {
            digests: vec!["AA".to_owned()],
            serials: vec!["0f".to_owned()],
            event_types: vec!["t".to_owned()],
            ..WatchFile::default()
        };
        let list = WatchList::new("event", &file).unwrap();
        let statement = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"aa"}}],"predicateType":"t","predicate":{"serial":"0F"}}"#;
        let envelope = trust_store::dsse::Envelope::new("p", statement.as_bytes().to_vec(), vec![1]);
        let bytes = serde_json::to_vec(&envelope).unwrap();
        assert_eq!(list.matches(&bytes), ["digest aa", "serial f", "event t"]);
        assert_eq!(list.matches(b"{}"), ["an entry that is not of this log's kind"]);
        assert!(WatchList::new("raw", &file).unwrap().matches(b"{}").is_empty());
    }
}
