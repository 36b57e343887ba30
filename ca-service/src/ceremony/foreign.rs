//! Another root, to be cross-certified: its self-signed certificate, verified.

use std::path::Path;

use ca_pki::key::KeyUse;
use ca_pki::lint::{self, CertificateRules, Severity};
use ca_pki::profile::Kind;
use ca_pki::{DistinguishedName, SubjectPublicKey, signed};
use der::Encode as _;
use trust_store::provider::AwsLc;
use trust_store::signature::SignatureVerifier as _;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 128 * 1024;

/// What is taken from the other root, byte for byte.
pub(super) struct ForeignRoot {
    pub(super) subject: DistinguishedName,
    pub(super) public_key: SubjectPublicKey,
}

/// Reads a self-signed root in PEM; returns its DER.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let failed = |error: &dyn std::fmt::Display| format!("{shown}: {error}");
    let length = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if length > MAX_FILE {
        return Err(failed(&"it is too large for a certificate"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let der = ca_pki::pem::decode("certificate", &["CERTIFICATE"], &text, MAX_FILE as usize)
        .map_err(|error| failed(&error))?;
    from_der(&der).map_err(|error| failed(&error))?;
    Ok(der)
}

/// Verifies a self-signed root. Its own signature is the proof that its owner has the key.
pub(super) fn from_der(der: &[u8]) -> Result<ForeignRoot, String> {
    let report = lint::certificate(der, &CertificateRules { kind: Kind::Root, issuer: None });
    let broken = report.findings().iter().find(|finding| finding.severity == Severity::Error);
    if let Some(finding) = broken {
        return Err(format!("it is not a root: {}", finding.rule));
    }
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let certificate = ca_pki::certificate::parse(der).map_err(|error| text(&error))?;
    let tbs = certificate.tbs_certificate();
    let spki = tbs.subject_public_key_info().to_der().map_err(|error| text(&error))?;
    let public_key = SubjectPublicKey::from_spki(&spki, KeyUse::Authority).map_err(|error| text(&error))?;
    let (bytes, _, signature) = signed::take_apart(der).map_err(|error| text(&error))?;
    let identifier = certificate.signature_algorithm();
    let parameters = identifier.parameters.as_ref().map(der::Any::to_ref);
    let algorithm = public_key
        .verification_algorithm(&identifier.oid, parameters)
        .ok_or("its signature algorithm does not fit its key")?;
    AwsLc
        .verify(algorithm, public_key.bits(), bytes, signature)
        .map_err(|_| "it is not signed by its own key".to_owned())?;
    // What it issued names this identifier: with another one nobody finds the way from there to here.
    let identifier = ca_pki::certificate::key_identifier(&certificate).map_err(|error| text(&error))?;
    let public_key = match identifier {
        None => public_key,
        Some(identifier) => public_key.identified_by(identifier),
    };
    let subject = tbs.subject().to_der().map_err(|error| text(&error))?;
    let subject = DistinguishedName::from_der(&subject).map_err(|error| text(&error))?;
    Ok(ForeignRoot { subject, public_key })
}
