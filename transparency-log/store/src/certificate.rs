//! Entries of an issuance log (C2SP static-ct-api v1.1.0, RFC 6962 sections 3.2 and 3.4).
//!
//! The stored record is a data tile's: `TimestampedEntry ‖ [u24 length ‖ precertificate] ‖ u16 length ‖ fingerprints`.
//! The tree hashes `MerkleTreeLeaf` = `0x00 ‖ 0x00 ‖ TimestampedEntry`. `TimestampedEntry` = u64 time in milliseconds ‖
//! u16 entry type ‖ signed entry ‖ u16 length ‖ extensions; the only extension is the leaf index (type 0, 40 bits).

use tlog::hash::Hash;

use crate::kind::EntryKey;

/// Bytes of the extensions field: type, length, 40-bit index.
const EXTENSIONS: usize = 8;

/// What was submitted for a certificate, before index and time are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEntry {
    form: Certificate,
    fingerprints: Vec<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Certificate {
    Final(Vec<u8>),
    Precertificate { issuer_key_hash: [u8; 32], tbs: Vec<u8>, submitted: Vec<u8> },
}

/// A stored record taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// The entry without index and time.
    pub entry: CertificateEntry,
    /// Index bound by the sequencer.
    pub index: u64,
    /// Time bound by the sequencer, Unix milliseconds.
    pub time_millis: u64,
}

impl CertificateEntry {
    /// A final certificate (`x509_entry`); `fingerprints` are SHA-256 of the issuers' certificates, leaf side first.
    #[must_use]
    pub fn certificate(der: Vec<u8>, fingerprints: Vec<[u8; 32]>) -> Self {
        Self { form: Certificate::Final(der), fingerprints }
    }

    /// A precertificate (`precert_entry`): SHA-256 of the issuer's SPKI, the TBS without poison and SCT list, and the
    /// precertificate as submitted.
    #[must_use]
    pub fn precertificate(
        issuer_key_hash: [u8; 32],
        tbs: Vec<u8>,
        submitted: Vec<u8>,
        fingerprints: Vec<[u8; 32]>,
    ) -> Self {
        Self { form: Certificate::Precertificate { issuer_key_hash, tbs, submitted }, fingerprints }
    }

    /// SHA-256 fingerprints of the chain's certificates, leaf side first.
    #[must_use]
    pub fn fingerprints(&self) -> &[[u8; 32]] {
        &self.fingerprints
    }

    /// The certificate or precertificate as submitted, DER.
    #[must_use]
    pub fn submitted(&self) -> &[u8] {
        match &self.form {
            Certificate::Final(der) => der,
            Certificate::Precertificate { submitted, .. } => submitted,
        }
    }

    /// True for a precertificate.
    #[must_use]
    pub fn is_precertificate(&self) -> bool {
        matches!(self.form, Certificate::Precertificate { .. })
    }

    /// `TimestampedEntry` with this index and time.
    #[must_use]
    pub fn timestamped(&self, index: u64, time_millis: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.record_length());
        self.write_timestamped(index, time_millis, &mut out);
        out
    }

    /// What an SCT signs (`digitally-signed` input of RFC 6962 section 3.2): version, signature type, the entry.
    #[must_use]
    pub fn sct_input(&self, index: u64, time_millis: u64) -> Vec<u8> {
        let mut out = vec![0, 0];
        self.write_timestamped(index, time_millis, &mut out);
        out
    }

    fn write_timestamped(&self, index: u64, time_millis: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&time_millis.to_be_bytes());
        match &self.form {
            Certificate::Final(der) => {
                out.extend_from_slice(&[0, 0]);
                put_u24(out, der);
            }
            Certificate::Precertificate { issuer_key_hash, tbs, .. } => {
                out.extend_from_slice(&[0, 1]);
                out.extend_from_slice(issuer_key_hash);
                put_u24(out, tbs);
            }
        }
        out.extend_from_slice(&[0, EXTENSIONS as u8]);
        out.extend_from_slice(&extensions(index));
    }

    /// The record to store.
    pub(crate) fn write_record(&self, index: u64, time_millis: u64, out: &mut Vec<u8>) {
        self.write_timestamped(index, time_millis, out);
        if let Certificate::Precertificate { submitted, .. } = &self.form {
            put_u24(out, submitted);
        }
        let length = u16::try_from(self.fingerprints.len() * 32).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        for fingerprint in &self.fingerprints {
            out.extend_from_slice(fingerprint);
        }
    }

    /// Bytes of the record.
    pub(crate) fn record_length(&self) -> usize {
        let form = match &self.form {
            Certificate::Final(der) => 3 + der.len(),
            Certificate::Precertificate { tbs, submitted, .. } => 32 + 3 + tbs.len() + 3 + submitted.len(),
        };
        8 + 2 + form + 2 + EXTENSIONS + 2 + self.fingerprints.len() * 32
    }

    /// The deduplication key: SHA-256 of the record with index and time zero.
    pub(crate) fn key(&self) -> EntryKey {
        let mut record = Vec::with_capacity(self.record_length());
        self.write_record(0, 0, &mut record);
        EntryKey(Hash::digest(&record))
    }

    /// Whether a stored record is this entry.
    pub(crate) fn equals_record(&self, stored: &[u8]) -> bool {
        CertificateRecord::parse(stored).is_some_and(|record| record.entry == *self)
    }
}

impl CertificateRecord {
    /// Reads a stored record; `None` unless re-encoding gives the same bytes.
    #[must_use]
    pub fn parse(stored: &[u8]) -> Option<Self> {
        let (time, rest) = stored.split_first_chunk::<8>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (form, index, rest) = match kind {
            [0, 0] => {
                let (der, rest) = take_u24(rest)?;
                let (index, rest) = take_extensions(rest)?;
                (Certificate::Final(der.to_vec()), index, rest)
            }
            [0, 1] => {
                let (issuer_key_hash, rest) = rest.split_first_chunk::<32>()?;
                let (tbs, rest) = take_u24(rest)?;
                let (index, rest) = take_extensions(rest)?;
                let (submitted, rest) = take_u24(rest)?;
                let form = Certificate::Precertificate {
                    issuer_key_hash: *issuer_key_hash,
                    tbs: tbs.to_vec(),
                    submitted: submitted.to_vec(),
                };
                (form, index, rest)
            }
            _ => return None,
        };
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (fingerprints, odd) = rest.as_chunks::<32>();
        if usize::from(u16::from_be_bytes(*length)) != rest.len() || !odd.is_empty() {
            return None;
        }
        let entry = CertificateEntry { form, fingerprints: fingerprints.to_vec() };
        Some(Self { entry, index, time_millis: u64::from_be_bytes(*time) })
    }
}

/// The `CtExtensions` of an SCT for this index.
#[must_use]
pub fn extensions(index: u64) -> [u8; EXTENSIONS] {
    let [_, _, _, a, b, c, d, e] = index.to_be_bytes();
    [0, 0, 5, a, b, c, d, e]
}

/// The `MerkleTreeLeaf` of a stored record.
pub(crate) fn leaf_of_record(stored: &[u8]) -> Option<Vec<u8>> {
    let record = CertificateRecord::parse(stored)?;
    let mut leaf = vec![0, 0];
    record.entry.write_timestamped(record.index, record.time_millis, &mut leaf);
    Some(leaf)
}

fn put_u24(out: &mut Vec<u8>, bytes: &[u8]) {
    let [_, length @ ..] = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(bytes);
}

fn take_u24(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([a, b, c], rest) = bytes.split_first_chunk::<3>()?;
    rest.split_at_checked(u32::from_be_bytes([0, *a, *b, *c]) as usize)
}

fn take_extensions(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let ([0, 8, 0, 0, 5, a, b, c, d, e], rest) = bytes.split_first_chunk::<10>()? else { return None };
    Some((u64::from_be_bytes([0, 0, 0, *a, *b, *c, *d, *e]), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_certificate_is_frozen() {
        let entry = CertificateEntry::certificate(vec![0xaa; 3], vec![[0xcc; 32]]);
        let mut record = Vec::new();
        entry.write_record(0x01_0203_0405, 0x0a0b, &mut record);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0x0a, 0x0b, 0, 0, 0, 0, 3, 0xaa, 0xaa, 0xaa];
        expected.extend([0, 8, 0, 0, 5, 1, 2, 3, 4, 5, 0, 32]);
        expected.extend([0xcc; 32]);
        assert_eq!(record, expected);
        assert_eq!(record.len(), entry.record_length());
        let leaf = leaf_of_record(&record).unwrap();
        assert_eq!(leaf[..2], [0, 0]);
        assert_eq!(leaf[2..], expected[..26]);
    }

    #[test]
    fn record_of_a_precertificate_is_frozen_and_reads_back() {
        let entry = CertificateEntry::precertificate([7; 32], vec![1, 2], vec![3], vec![]);
        let mut record = Vec::new();
        entry.write_record(1, 2, &mut record);
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        expected.extend([7; 32]);
        expected.extend([0, 0, 2, 1, 2, 0, 8, 0, 0, 5, 0, 0, 0, 0, 1, 0, 0, 1, 3, 0, 0]);
        assert_eq!(record, expected);
        assert_eq!(record.len(), entry.record_length());
        let parsed = CertificateRecord::parse(&record).unwrap();
        assert_eq!((parsed.index, parsed.time_millis), (1, 2));
        assert!(entry.equals_record(&record));
        for cut in 0..record.len() {
            assert_eq!(CertificateRecord::parse(&record[..cut]), None);
        }
        record.push(0);
        assert_eq!(CertificateRecord::parse(&record), None);
    }

    #[test]
    fn key_ignores_index_and_time_but_not_the_chain() {
        let one = CertificateEntry::certificate(vec![1], vec![[1; 32]]);
        let other = CertificateEntry::certificate(vec![1], vec![[2; 32]]);
        let mut record = Vec::new();
        one.write_record(9, 9, &mut record);
        assert!(one.equals_record(&record) && !other.equals_record(&record));
        assert_ne!(one.key(), other.key());
    }
}
