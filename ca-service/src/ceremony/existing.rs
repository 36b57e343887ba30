//! The authority that is there, as a plan sees it.

use std::collections::BTreeMap;

use ca_pki::certificate::Issuer;
use der::Encode as _;
use sha2::{Digest, Sha256};

use super::plan::PlanRefusal;
use crate::authority::{certificate_algorithm, status_urls};
use crate::config::Settings;
use crate::error::CaError;
use crate::storage::StoredAuthority;

/// What is there, by name: the certificate's digest, for a bare key that of its reference.
pub(super) fn state(existing: &[StoredAuthority]) -> BTreeMap<String, String> {
    let digest = |stored: &StoredAuthority| match &stored.certificate {
        Some(certificate) => hex::encode(Sha256::digest(certificate)),
        None => hex::encode(Sha256::digest(stored.key_uri.as_bytes())),
    };
    existing.iter().map(|stored| (stored.name.clone(), digest(stored))).collect()
}

/// Those that issue, by name.
pub(super) fn issuers(
    settings: &Settings,
    existing: &[StoredAuthority],
) -> Result<BTreeMap<String, Issuer>, PlanRefusal> {
    let mut issuers = BTreeMap::new();
    for stored in existing.iter().filter(|stored| stored.shards > 0) {
        let certificate = stored.certificate.as_deref().unwrap_or_default();
        let read = || {
            let urls = status_urls(&settings.config.status_url, &stored.name, stored.shards)?;
            let parsed = ca_pki::certificate::parse(certificate)?;
            let info = parsed
                .tbs_certificate()
                .subject_public_key_info()
                .to_der()
                .map_err(|_| CaError::Inconsistent("a key of the authority cannot be read"))?;
            let key = hsm::PublicKey::from_spki_der(&info)?;
            Ok(Issuer::from_certificate(certificate, certificate_algorithm(key.algorithm())?, urls)?)
        };
        let issuer = read().map_err(|source: CaError| PlanRefusal::Certificate { step: 0, source })?;
        issuers.insert(stored.name.clone(), issuer);
    }
    Ok(issuers)
}

/// Whether one of them has this subject, DER in hexadecimal. Names stand for keys, in revocation lists among others.
pub(super) fn is_named(existing: &[StoredAuthority], subject_der: &str) -> bool {
    let subject = |certificate: &Vec<u8>| {
        ca_pki::certificate::parse(certificate).ok()?.tbs_certificate().subject().to_der().ok()
    };
    let certificates = existing.iter().filter_map(|stored| stored.certificate.as_ref());
    certificates.filter_map(subject).any(|subject| hex::encode(subject) == subject_der)
}
