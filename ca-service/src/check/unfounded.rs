//! Roots that never became authorities. No issuer is known that they could be checked by, so they must be by their own bytes what
//! the record says: else whoever can write a row takes it out of every other check.

use ca_pki::algorithm::SignatureAlgorithm;
use ca_pki::key::KeyUse;
use ca_pki::lint::{self, CertificateRules};
use ca_pki::profile::Kind;
use ca_pki::{SerialNumber, SubjectPublicKey, ToBeSigned, certificate};
use der::Encode as _;
use trust_store::provider::AwsLc;
use trust_store::signature::SignatureVerifier as _;

use crate::storage::StoredCertificate;

/// Demands of the record of such a root that what was to be signed is a root, of the recorded key and serial number, and that it
/// signed itself where it signed at all.
pub(super) fn judge(record: &StoredCertificate) -> Result<(), String> {
    let unreadable = |_: der::Error| "it is recorded as a root, and cannot be read".to_owned();
    // The algorithm that stands outside of what is signed is not looked at.
    let whole = ToBeSigned::from_record(record.tbs.clone(), SignatureAlgorithm::EcdsaP384Sha384);
    let parsed = certificate::parse(&whole.unsigned()).map_err(|error| error.to_string())?;
    let tbs = parsed.tbs_certificate();
    if tbs.issuer() != tbs.subject() {
        return Err("it is recorded as a root, and another issuer's".to_owned());
    }
    let spki = tbs.subject_public_key_info().to_der().map_err(unreadable)?;
    let key = SubjectPublicKey::from_spki(&spki, KeyUse::Authority).map_err(|error| error.to_string())?;
    let serial = SerialNumber::from_magnitude(tbs.serial_number().as_bytes());
    if key.spki_sha256() != record.spki_sha256 || serial.ok().as_ref() != Some(&record.serial) {
        return Err("its key or serial number is not the recorded one".to_owned());
    }
    let identifier = tbs.signature().to_der().map_err(unreadable)?;
    let algorithm =
        der::Decode::from_der(&identifier).ok().and_then(|it| SignatureAlgorithm::from_identifier(&it));
    let algorithm = algorithm.ok_or("it is signed by an algorithm that no root here has")?;
    let whole = ToBeSigned::from_record(record.tbs.clone(), algorithm);
    let rules = CertificateRules { kind: Kind::Root, issuer: None };
    lint::certificate(&whole.unsigned(), &rules).into_result().map_err(|error| error.to_string())?;
    let Some(signature) = &record.signature else { return Ok(()) };
    let by = key.verification_algorithm(&algorithm.oid(), None);
    let by = by.ok_or("its key does not fit its algorithm")?;
    AwsLc
        .verify(by, key.bits(), &record.tbs, signature)
        .map_err(|_| "it is recorded as a root, and has not signed itself".to_owned())
}
