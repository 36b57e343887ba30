//! The logs of one server, as it describes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tlog::VerifierKey;
use trust_store::event::EventRules;

use crate::client::LogClient;
use crate::error::Error;

/// What a server says of one of its logs. Keys learnt this way are worth as much as the connection: where it
/// matters they come from a trusted root.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogDescription {
    /// Name within the server, such as `signing`.
    pub name: String,
    /// What the log is for: `signing`, `issuance`, `event` or `raw`.
    pub kind: String,
    /// Base URL to dial.
    pub url: String,
    /// First line of its checkpoints.
    pub origin: String,
    /// Verifier keys in text form.
    pub vkeys: Vec<String>,
    /// DER SubjectPublicKeyInfo of its first key, in base64.
    pub public_key: String,
    /// ID by which entries and SCTs name the log.
    pub log_id: String,
    /// Event log: who may say what. Whoever reads its entries verifies each with these.
    #[serde(default, skip_serializing_if = "EventRules::is_empty")]
    pub events: EventRules,
}

impl LogDescription {
    /// The keys that verify the log's checkpoints. The key of a certificate log (type 0x05) has no text form that
    /// holds the key; it is taken from `public_key`.
    ///
    /// # Errors
    /// [`Error::Log`] when a key cannot be read, [`Error::Answer`] when `public_key` is not base64.
    pub fn verifier_keys(&self) -> Result<Vec<VerifierKey>, Error> {
        let mut keys = Vec::with_capacity(self.vkeys.len());
        for text in &self.vkeys {
            match VerifierKey::parse(text) {
                Err(tlog::Error::UnsupportedKey { kind: 0x05 }) => {
                    let key = VerifierKey::tree_head(&self.origin, &self.spki()?)?;
                    // Whoever pins or compares the text must not be given another key than it names.
                    if key.to_string() != *text {
                        return Err(Error::Answer { what: "a description of a log whose keys agree" });
                    }
                    keys.push(key);
                }
                key => keys.push(key?),
            }
        }
        Ok(keys)
    }

    /// The DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`Error::Answer`] when it is not base64.
    pub fn spki(&self) -> Result<Vec<u8>, Error> {
        STANDARD.decode(&self.public_key).map_err(|_| Error::Answer { what: "a description of a log" })
    }
}

/// All logs of one server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LogSet(pub Vec<LogDescription>);

impl LogSet {
    /// Asks the server at `base_url` for its logs.
    ///
    /// # Errors
    /// As [`LogClient::new`], [`Error::Status`], [`Error::Answer`], and transport errors.
    pub async fn fetch(http: reqwest::Client, base_url: &str) -> Result<Self, Error> {
        LogClient::new(http, base_url)?.get_json("api/v1/logs", "a list of logs").await
    }

    /// The log of a kind that entries are written to: its newest shard, which has the address that clients know. Servers list the
    /// longest addresses first, and those of older shards are longer.
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> Option<&LogDescription> {
        self.0.iter().rev().find(|log| log.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A P-256 SubjectPublicKeyInfo; that the point is on no curve matters to nobody here.
    fn spki(fill: u8) -> Vec<u8> {
        let mut der = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04".to_vec();
        der.extend([fill; 64]);
        der
    }

    #[test]
    fn the_key_of_a_certificate_log_is_the_one_that_its_text_names() {
        let key = VerifierKey::tree_head("log.example", &spki(1)).unwrap();
        let mut log = LogDescription {
            name: "issuance".to_owned(),
            kind: "issuance".to_owned(),
            url: String::new(),
            origin: "log.example".to_owned(),
            vkeys: vec![key.to_string()],
            public_key: STANDARD.encode(spki(1)),
            log_id: String::new(),
            events: EventRules::default(),
        };
        assert_eq!(log.verifier_keys().unwrap(), [key]);
        log.public_key = STANDARD.encode(spki(2));
        assert_eq!(log.verifier_keys().unwrap_err().code(), "bad_answer");
        log.public_key = STANDARD.encode(spki(1));
        log.origin = "other.example".to_owned();
        assert_eq!(log.verifier_keys().unwrap_err().code(), "bad_answer");
    }
}
