//! What a monitor looks for, from flags and a configuration file, and where it reports.

use std::path::PathBuf;

use serde::Deserialize;
use tlog_client::{VerifiedEntry, Watcher};
use trust_store::event::EventRules;
use trust_store::provider::AwsLc;

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
    events: EventRules,
}

impl WatchList {
    /// A list for a log of this kind; of an event log, with the rules by which events are believed.
    ///
    /// # Errors
    /// Exit code 2 for digests and serials that are not hexadecimal: they would never match.
    pub fn new(kind: &str, file: &WatchFile, events: EventRules) -> Outcome<Self> {
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
            events,
        })
    }

    /// Names of what an entry matches. An entry that is not of the log's kind is itself a finding, and so is an event that
    /// nobody signed who may say such a thing.
    pub fn matches(&self, bytes: &[u8]) -> Vec<String> {
        let Ok(record) = Record::read(&self.kind, bytes) else {
            return vec!["an entry that is not of this log's kind".to_owned()];
        };
        let mut found = Vec::new();
        if let Record::Event { envelope, .. } = &record
            && let Err(denial) = self.events.verify(envelope, &AwsLc)
        {
            found.push(format!("forged event: {} [{}]", denial.detail, denial.code.as_str()));
        }
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
    use hsm::developer::DeveloperKey;
    use hsm::{Input, KeyAlgorithm, Purpose, SignatureAlgorithm, Signer as _, SigningIntent};
    use trust_store::dsse::{self, Envelope, IN_TOTO_PAYLOAD_TYPE};
    use trust_store::event::EventRule;
    use trust_store::json::Bytes;

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
            assert!(WatchList::new("signing", &file(bad), EventRules::default()).is_err(), "{bad}");
        }
        let file_of = file("digests = ['sha256:AB']\nserials = ['00:0F']");
        let list = WatchList::new("signing", &file_of, EventRules::default()).unwrap();
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
        let (authority, stranger) = (key(), key());
        let list = WatchList::new("event", &file, rules(&[("t", &authority)])).unwrap();
        let statement = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"aa"}}],"predicateType":"t","predicate":{"serial":"0F"}}"#;
        assert_eq!(list.matches(&signed(&authority, statement)), ["digest aa", "serial f", "event t"]);
        let forged = list.matches(&signed(&stranger, statement));
        assert_eq!(forged[1..], ["digest aa", "serial f", "event t"]);
        assert!(
            forged[0].starts_with("forged event") && forged[0].contains("[signature_invalid]"),
            "{forged:?}"
        );
        assert_eq!(list.matches(b"{}"), ["an entry that is not of this log's kind"]);
        assert!(WatchList::new("raw", &file, EventRules::default()).unwrap().matches(b"{}").is_empty());
    }

    /// Of each type, from every key but its own, a statement is a finding; and so is one of a type nobody is believed for.
    #[test]
    fn a_forged_event_of_each_type_is_a_finding_although_nothing_is_watched() {
        let types = ["revocation", "approval", "deployment", "receipt-anchor", "audit-anchor"];
        let keys = types.map(|_| key());
        let known: Vec<_> = types.into_iter().zip(&keys).collect();
        let list = WatchList::new("event", &WatchFile::default(), rules(&known)).unwrap();
        let statement = |kind: &str| {
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"aa"}}}}],"predicateType":"{kind}"}}"#
            )
        };
        for (place, kind) in types.iter().enumerate() {
            for (other, key) in keys.iter().enumerate() {
                let found = list.matches(&signed(key, &statement(kind)));
                assert_eq!(
                    found.is_empty(),
                    place == other,
                    "{kind} by the key of {}: {found:?}",
                    types[other]
                );
            }
        }
        let unknown = list.matches(&signed(&keys[0], &statement("other")));
        assert!(unknown[0].contains("[policy_denied]"), "{unknown:?}");
        let nobody = WatchList::new("event", &WatchFile::default(), EventRules::default()).unwrap();
        assert!(!nobody.matches(&signed(&keys[0], &statement(types[0]))).is_empty());
    }

    fn key() -> DeveloperKey {
        DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap()
    }

    fn rules(known: &[(&str, &DeveloperKey)]) -> EventRules {
        let rule = |(kind, key): &(&str, &DeveloperKey)| EventRule {
            predicate_type: (*kind).to_owned(),
            issuer: None,
            issuer_name: None,
            issuer_key: None,
            keys: vec![Bytes(key.public_key().spki_der().to_vec())],
        };
        EventRules::new(known.iter().map(rule).collect()).unwrap()
    }

    fn signed(key: &DeveloperKey, statement: &str) -> Vec<u8> {
        let message = dsse::pae(IN_TOTO_PAYLOAD_TYPE, statement.as_bytes());
        let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
        let signature = key.sign(Input::Message(&message), SignatureAlgorithm::Ed25519, &intent).unwrap();
        let payload = statement.as_bytes().to_vec();
        serde_json::to_vec(&Envelope::new(IN_TOTO_PAYLOAD_TYPE, payload, signature.into_vec())).unwrap()
    }
}
