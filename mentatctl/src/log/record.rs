//! What an entry of a log says, by the log's kind: read for monitors and reports, from bytes that were proven.

use tlog::static_ct::{DataTileRecord, SignedEntry};
use tlog::{LeafHash, leaf_hash};
use tlog_client::EntryFormat;
use trust_store::Certificate;
use trust_store::dsse::Envelope;
use trust_store::identity::Identity;
use trust_store::json::Value;
use trust_store::rekor::{HashedRekord, VerifierKey};
use trust_store::statement::Statement;

/// An entry's content.
#[derive(Debug)]
pub enum Record {
    /// Signing log: a signature over a digest.
    Signature {
        /// Digest of what was signed (for an envelope, of its pre-authentication encoding).
        digest: Vec<u8>,
        /// The signer's certificate; `None` for a bare key.
        certificate: Option<Box<Certificate>>,
    },
    /// Issuance log: a certificate or precertificate.
    Issued {
        /// When the log took it, Unix milliseconds.
        time_millis: u64,
        /// As submitted.
        certificate: Box<Certificate>,
    },
    /// Event log: a statement about something that happened.
    Event {
        /// What the envelope carries.
        statement: Box<Statement>,
        /// The envelope itself, for its signature.
        envelope: Box<Envelope>,
    },
    /// Raw log: bytes without a meaning known here.
    Raw,
}

/// The entry is not of its log's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// How a log of a kind serves its entries.
pub fn entry_format(kind: &str) -> EntryFormat {
    if kind == "issuance" { EntryFormat::DataTiles } else { EntryFormat::Bundles }
}

/// Leaf hash of an entry's bytes as they are served.
///
/// # Errors
/// [`Unreadable`] for a record of an issuance log that cannot be read.
pub fn leaf_of(kind: &str, bytes: &[u8]) -> Result<LeafHash, Unreadable> {
    match entry_format(kind) {
        EntryFormat::Bundles => Ok(leaf_hash(bytes)),
        EntryFormat::DataTiles => {
            DataTileRecord::parse(bytes).and_then(|record| record.entry.leaf_hash()).map_err(|_| Unreadable)
        }
    }
}

impl Record {
    /// Reads an entry of a log of this kind.
    ///
    /// # Errors
    /// [`Unreadable`]: an honest log of that kind does not hold such an entry.
    pub fn read(kind: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        let certificate = |der: &[u8]| Certificate::from_der(der).map(Box::new).map_err(|_| Unreadable);
        match kind {
            "signing" => {
                let record = HashedRekord::from_canonical_body(bytes).map_err(|_| Unreadable)?;
                let certificate = match &record.verifier {
                    VerifierKey::Certificate(der) => Some(certificate(der)?),
                    VerifierKey::PublicKey(_) => None,
                };
                Ok(Self::Signature { digest: record.digest, certificate })
            }
            "issuance" => {
                let record = DataTileRecord::parse(bytes).map_err(|_| Unreadable)?;
                let der = match (&record.entry.entry, &record.precertificate) {
                    (SignedEntry::X509(der), _) | (_, Some(der)) => der,
                    _ => return Err(Unreadable),
                };
                Ok(Self::Issued { time_millis: record.entry.timestamp, certificate: certificate(der)? })
            }
            "event" => {
                let envelope = Envelope::parse(bytes).map_err(|_| Unreadable)?;
                let statement = Statement::parse(&envelope.payload).map_err(|_| Unreadable)?;
                Ok(Self::Event { statement: Box::new(statement), envelope: Box::new(envelope) })
            }
            _ => Ok(Self::Raw),
        }
    }

    /// The certificate in it.
    pub fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Signature { certificate, .. } => certificate.as_deref(),
            Self::Issued { certificate, .. } => Some(certificate),
            Self::Event { .. } | Self::Raw => None,
        }
    }

    /// Digests it is about, lower-case hexadecimal.
    pub fn digests(&self) -> Vec<String> {
        match self {
            Self::Signature { digest, .. } => vec![hex::encode(digest)],
            Self::Issued { certificate, .. } => vec![hex::encode(certificate.fingerprint())],
            Self::Event { statement, .. } => {
                statement.subject.iter().flat_map(|subject| subject.digest.values().cloned()).collect()
            }
            Self::Raw => Vec::new(),
        }
    }

    /// Identities it names: every mailbox and URI of the certificate, and an event's `identity`.
    pub fn identities(&self) -> Vec<String> {
        match (self, self.certificate()) {
            (Self::Event { statement, .. }, _) => statement
                .predicate
                .member("identity")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .into_iter()
                .collect(),
            (_, Some(certificate)) => {
                certificate.emails().chain(certificate.uris()).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Serial number of the certificate it is about, lower-case hexadecimal without leading zeros.
    pub fn serial(&self) -> Option<String> {
        match (self, self.certificate()) {
            (Self::Event { statement, .. }, _) => {
                statement.predicate.member("serial").and_then(Value::as_str).map(serial_text)
            }
            (_, Some(certificate)) => Some(serial_text(&hex::encode(certificate.serial()))),
            _ => None,
        }
    }
}

/// The one name in a certificate, or all of its names where there is not exactly one.
pub fn signer_name(certificate: &Certificate) -> String {
    match Identity::of_certificate(certificate) {
        Ok(identity) => identity.subject().to_owned(),
        Err(_) => certificate.emails().chain(certificate.uris()).collect::<Vec<_>>().join(", "),
    }
}

/// A serial number as it is compared: lower case, no colons, no leading zeros.
pub fn serial_text(text: &str) -> String {
    let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    let short = digits.trim_start_matches('0');
    if short.is_empty() { "0".to_owned() } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_compare_without_form() {
        for text in ["00:0A:ff", "aff", "0AFF"] {
            assert_eq!(serial_text(text), "aff");
        }
        assert_eq!(serial_text("00"), "0");
    }

    #[test]
    fn what_is_not_of_the_kind_is_unreadable() {
        for kind in ["signing", "issuance", "event"] {
            for bytes in [&b""[..], b"{}", b"\0\0\0", &[0xff; 100]] {
                assert!(Record::read(kind, bytes).is_err(), "{kind} {bytes:?}");
            }
        }
        assert!(matches!(Record::read("raw", b"anything"), Ok(Record::Raw)));
        assert!(leaf_of("issuance", b"anything").is_err());
    }
}
