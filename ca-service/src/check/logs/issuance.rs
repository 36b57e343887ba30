//! The issuance log: every entry by a key of the authority has a record that it corresponds to, and every record that says so has
//! its entry.

use std::collections::HashMap;

use ca_pki::certificate::parse;
use ca_pki::sct::{SignedCertificateTimestamp, covered};
use ca_pki::signed::take_apart;
use ca_pki::{SerialNumber, ToBeSigned};
use sha2::{Digest as _, Sha256};
use tlog_client::{DataTileRecord, SignedEntry, VerifiedEntry};
use trust_store::provider::AwsLc;

use super::super::verify;
use super::finding::{LogFindingCode, LogFindings};
use super::reading::Judge;
use super::rows::Rows;
use super::source::Source;
use crate::authority::{CertificateAuthority, LoadedAuthority};
use crate::error::CaError;
use crate::storage::{Step, StoredCertificate};

/// What was found in the issuance logs.
pub(super) struct Issuance<'a> {
    authority: &'a CertificateAuthority,
    /// The authorities that issue, by SHA-256 of their SubjectPublicKeyInfo.
    issuers: HashMap<[u8; 32], &'a LoadedAuthority>,
    /// Records whose entry is where they say.
    pub(super) found: Rows,
}

/// Where a record says that its entry is.
pub(super) struct Place {
    /// The log's id; of an entry without a promise it is not known.
    pub(super) log_id: Option<[u8; 32]>,
    pub(super) index: Option<u64>,
}

impl Place {
    /// None where a record says that no log was told of it.
    pub(super) fn of(record: &StoredCertificate) -> Result<Option<Self>, ca_pki::Error> {
        let promise = record.sct.as_deref().map(SignedCertificateTimestamp::parse).transpose()?;
        if promise.is_none() && record.log_index.is_none() {
            return Ok(None);
        }
        let index = record.log_index.or_else(|| promise.as_ref().and_then(|it| it.leaf_index()));
        Ok(Some(Self { log_id: promise.map(|it| it.log_id), index }))
    }
}

/// An entry that names one of the authority's keys.
struct Ours<'a> {
    issuer: &'a LoadedAuthority,
    serial: SerialNumber,
    /// The bytes that a promise covers.
    covered: Vec<u8>,
    /// What was submitted: to-be-signed bytes and signature.
    signed: (Vec<u8>, Vec<u8>),
}

impl<'a> Issuance<'a> {
    pub(super) fn of(authority: &'a CertificateAuthority) -> Self {
        let issuing = authority.authorities().values().filter(|it| it.issuer.is_some());
        let issuers = issuing.map(|it| (it.public_key.spki_sha256(), it)).collect();
        Self { authority, issuers, found: Rows::default() }
    }

    /// An entry by a key of the authority; none for one of another CA.
    fn ours(&self, record: &DataTileRecord) -> Result<Option<Ours<'a>>, String> {
        let text = |error: ca_pki::Error| error.to_string();
        match (&record.entry.entry, &record.precertificate) {
            (SignedEntry::Precertificate { issuer_key_hash, tbs_certificate }, Some(submitted)) => {
                let Some(issuer) = self.issuers.get(issuer_key_hash.as_bytes()).copied() else {
                    return Ok(None);
                };
                let whole = ToBeSigned::from_record(tbs_certificate.clone(), issuer.algorithm).unsigned();
                let serial = serial(&whole)?;
                let (tbs, _, signature) = take_apart(submitted).map_err(text)?;
                // The tree commits to what a promise covers, not to what was submitted.
                if covered(tbs).map_err(text)? != *tbs_certificate || verify(issuer, tbs, signature).is_err()
                {
                    return Err(format!("{serial} names a key that did not sign it"));
                }
                let signed = (tbs.to_vec(), signature.to_vec());
                Ok(Some(Ours { issuer, serial, covered: tbs_certificate.clone(), signed }))
            }
            (SignedEntry::X509(certificate), None) => {
                let (tbs, _, signature) = take_apart(certificate).map_err(text)?;
                let signed_it = |issuer: &&&LoadedAuthority| verify(issuer, tbs, signature).is_ok();
                let Some(issuer) = self.issuers.values().find(signed_it).copied() else { return Ok(None) };
                let signed = (tbs.to_vec(), signature.to_vec());
                Ok(Some(Ours {
                    issuer,
                    serial: serial(certificate)?,
                    covered: covered(tbs).map_err(text)?,
                    signed,
                }))
            }
            _ => Err("what was submitted is missing".to_owned()),
        }
    }

    /// Whether a record is what an entry says; its own words where not.
    fn compare(
        &self,
        ours: &Ours<'_>,
        record: &StoredCertificate,
        precertificate: bool,
    ) -> Result<(), String> {
        if record.issuer != ours.issuer.name {
            return Err(format!("it is recorded as issued by {}", record.issuer));
        }
        let (tbs, signature) = (&ours.signed.0, &ours.signed.1);
        let same = match (precertificate, &record.precertificate, record.step) {
            (true, Some((hash, recorded)), _) => *hash == sha256(tbs) && recorded == signature,
            (true, None, Step::Precertificate) | (false, _, Step::Certificate) => {
                // A signature that was made and never recorded leaves a record without one.
                record.tbs == *tbs && record.signature.as_ref().is_none_or(|recorded| recorded == signature)
            }
            _ => false,
        };
        let corresponds = covered(&record.tbs).is_ok_and(|recorded| recorded == ours.covered);
        if same && corresponds { Ok(()) } else { Err("it is not what is recorded".to_owned()) }
    }

    /// Whether the promise of a record is about this entry.
    fn keeps(
        &self,
        source: &Source,
        entry: &DataTileRecord,
        record: &StoredCertificate,
        issuer: &LoadedAuthority,
    ) -> Result<bool, String> {
        let (Some(serialized), Some(key)) = (&record.sct, &source.promises) else { return Ok(true) };
        let promise = SignedCertificateTimestamp::parse(serialized).map_err(|error| error.to_string())?;
        if promise.log_id != key.spki_sha256() {
            return Ok(false);
        }
        let now = self.authority.clock.for_records();
        promise
            .verify(&record.tbs, &issuer.public_key, key, now, &AwsLc)
            .map_err(|error| error.to_string())?;
        let (time, extensions) = (entry.entry.timestamp, entry.entry.extensions.as_bytes());
        if promise.timestamp_ms != time || promise.extensions != extensions {
            return Err("the promise has another time or index than the entry".to_owned());
        }
        Ok(true)
    }
}

impl Judge for Issuance<'_> {
    async fn entry(
        &mut self,
        source: &Source,
        entry: &VerifiedEntry,
        findings: &mut LogFindings,
    ) -> Result<(), CaError> {
        let mut find = |code, detail: String| {
            findings.add(code, &source.origin, format_args!("entry {}: {detail}", entry.index));
        };
        let record = match DataTileRecord::parse(&entry.bytes) {
            Ok(record) if record.entry.extensions.index() == Some(entry.index) => record,
            Ok(_) => {
                find(LogFindingCode::EntriesInvalid, "it names another index".to_owned());
                return Ok(());
            }
            Err(error) => {
                find(LogFindingCode::EntriesInvalid, error.to_string());
                return Ok(());
            }
        };
        let ours = match self.ours(&record) {
            Ok(Some(ours)) => ours,
            Ok(None) => return Ok(()),
            Err(detail) => {
                find(LogFindingCode::EntriesInvalid, detail);
                return Ok(());
            }
        };
        let serial = &ours.serial;
        // The intent was durable before the signature, and the signature before the entry: whatever is in the log is recorded by now.
        let Some(recorded) = self.authority.store().certificate(serial).await? else {
            let detail = format!("{serial} was signed by {}, and there is no record of it", ours.issuer.name);
            find(LogFindingCode::EntryUnknown, detail);
            return Ok(());
        };
        let precertificate = record.precertificate.is_some();
        if let Err(detail) = self.compare(&ours, &recorded, precertificate) {
            find(LogFindingCode::EntryDiffers, format!("{serial}: {detail}"));
            return Ok(());
        }
        // A certificate may be in the log beside its precertificate: anybody may submit it.
        if recorded.sct.is_some() && !precertificate {
            return Ok(());
        }
        match self.keeps(source, &record, &recorded, ours.issuer) {
            Ok(false) => {}
            Ok(true) => {
                if recorded.log_index.is_none_or(|index| index == entry.index) {
                    self.found.insert(recorded.row);
                }
            }
            Err(detail) => find(LogFindingCode::SctMismatch, format!("{serial}: {detail}")),
        }
        Ok(())
    }

    fn has_found(&self, row: i64) -> bool {
        self.found.contains(row)
    }
}

fn serial(certificate: &[u8]) -> Result<SerialNumber, String> {
    let parsed = parse(certificate).map_err(|error| error.to_string())?;
    let magnitude = parsed.tbs_certificate().serial_number().as_bytes();
    SerialNumber::from_magnitude(magnitude).map_err(|error| error.to_string())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
