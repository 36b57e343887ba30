//! What an entry can be found by: read out of its stored bytes, so that an answer can be checked against them.

use log_store::{CertificateRecord, LogKind};
use tlog::hash::Hash;
use trust_store::certificate::Certificate;
use trust_store::dsse::Envelope;
use trust_store::json::Value;
use trust_store::name::attributes;
use trust_store::rekor::{HashedRekord, VerifierKey};
use trust_store::statement::Statement;
use trust_store::x690::{Reader, tag};

/// Of what [`terms`] finds, fixed for ever with each change of it: an index of another version lacks terms, or has some that
/// no entry has, and is made anew.
pub(crate) const VERSION: u32 = 1;
/// Content octets of id-at-organizationName, 2.5.4.10.
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// Longest text that is indexed, in bytes.
const MAX_TEXT: usize = 1024;

/// The kinds of search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TermKind {
    /// SHA-256 (or longer) digest: of the signed data, of a certificate, of a statement's subject. Raw bytes.
    Digest,
    /// E-mail address or URI of a certificate.
    Identity,
    /// Leaf hash. Raw bytes.
    Leaf,
    /// Organisation in a certificate's subject.
    Publisher,
    /// Serial number. Raw bytes without leading zeros.
    Serial,
    /// Type of an event.
    Type,
}

impl TermKind {
    /// As stored: fixed for ever.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Digest => 1,
            Self::Identity => 2,
            Self::Leaf => 3,
            Self::Publisher => 4,
            Self::Serial => 5,
            Self::Type => 6,
        }
    }
}

/// One thing to find an entry by.
pub(crate) type Term = (TermKind, Vec<u8>);

/// All terms of a stored entry. An entry that cannot be read has its leaf hash only.
pub(crate) fn terms(kind: LogKind, stored: &[u8]) -> Vec<Term> {
    let mut terms = Vec::new();
    if let Some(leaf) = kind.leaf_hash(stored) {
        terms.push((TermKind::Leaf, leaf.as_bytes().to_vec()));
    }
    match kind {
        LogKind::Signing => {
            if let Ok(entry) = HashedRekord::from_canonical_body(stored) {
                terms.push((TermKind::Digest, entry.digest.clone()));
                if let VerifierKey::Certificate(der) = &entry.verifier {
                    of_certificate(der, &mut terms);
                }
            }
        }
        LogKind::Issuance => {
            if let Some(record) = CertificateRecord::parse(stored) {
                let der = record.entry.submitted();
                terms.push((TermKind::Digest, Hash::digest(der).0.to_vec()));
                of_certificate(der, &mut terms);
            }
        }
        LogKind::Event => {
            let statement =
                Envelope::parse(stored).ok().and_then(|envelope| Statement::parse(&envelope.payload).ok());
            if let Some(statement) = statement {
                of_statement(&statement, &mut terms);
            }
        }
        _ => {}
    }
    terms.retain(|(_, key)| !key.is_empty() && key.len() <= MAX_TEXT);
    terms.sort_unstable();
    terms.dedup();
    terms
}

fn of_certificate(der: &[u8], terms: &mut Vec<Term>) {
    let Ok(certificate) = Certificate::from_der(der) else { return };
    terms.push((TermKind::Serial, serial(certificate.serial())));
    for identity in certificate.emails().chain(certificate.uris()) {
        terms.push((TermKind::Identity, identity.as_bytes().to_vec()));
    }
    if let Ok(name) = Reader::only(certificate.subject_der(), tag::SEQUENCE) {
        for attribute in attributes(name).filter(|attribute| attribute.kind == ORGANIZATION) {
            if let Ok(Some(text)) = attribute.text() {
                terms.push((TermKind::Publisher, text.into_bytes()));
            }
        }
    }
}

fn of_statement(statement: &Statement, terms: &mut Vec<Term>) {
    terms.push((TermKind::Type, statement.predicate_type.clone().into_bytes()));
    for subject in &statement.subject {
        for digest in subject.digest.values() {
            if let Ok(digest) = hex::decode(digest) {
                terms.push((TermKind::Digest, digest));
            }
        }
    }
    for (member, kind) in [("identity", TermKind::Identity), ("publisher", TermKind::Publisher)] {
        if let Some(text) = statement.predicate.member(member).and_then(Value::as_str) {
            terms.push((kind, text.as_bytes().to_vec()));
        }
    }
    if let Some(text) = statement.predicate.member("serial").and_then(Value::as_str)
        && let Ok(bytes) = hex::decode(text)
    {
        terms.push((TermKind::Serial, serial(&bytes)));
    }
}

/// A serial without leading zeros; zero itself is one zero byte.
pub(crate) fn serial(bytes: &[u8]) -> Vec<u8> {
    match bytes.iter().position(|byte| *byte != 0) {
        Some(start) => bytes.get(start..).unwrap_or_default().to_vec(),
        None => vec![0],
    }
}
