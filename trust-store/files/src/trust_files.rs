//! Trusted root, signing configuration, policy and evidence on disk.

use std::path::Path;

use trust_store::evidence::{Evidence, MAX_EVIDENCE_BYTES};
use trust_store::policy::TrustPolicy;
use trust_store::policy_document::{MAX_POLICY_BYTES, PolicyDocument};
use trust_store::signing_config::{ClientTrustConfig, MAX_SIGNING_CONFIG_BYTES, SigningConfig};
use trust_store::trusted_root::TrustedRoot;

use crate::atomic::{self, Readers};
use crate::error::Error;
use crate::yaml;

/// Writes `trusted_root.json`.
///
/// # Errors
/// [`Error`] of writing, and of a root that could not be read again.
pub fn store_trusted_root(path: &Path, root: &TrustedRoot) -> Result<(), Error> {
    atomic::write(path, &root.to_json().map_err(Error::content(path))?, Readers::Everybody)
}

/// Reads `signing_config.json`.
///
/// # Errors
/// [`Error`] of reading and of the content.
pub fn load_signing_config(path: &Path) -> Result<SigningConfig, Error> {
    SigningConfig::parse(&atomic::read(path, MAX_SIGNING_CONFIG_BYTES as u64)?).map_err(Error::content(path))
}

/// Writes `signing_config.json`.
///
/// # Errors
/// [`Error`] of writing.
pub fn store_signing_config(path: &Path, config: &SigningConfig) -> Result<(), Error> {
    atomic::write(path, &config.to_json().map_err(Error::content(path))?, Readers::Everybody)
}

/// Writes both trust files in one, as Python clients take them.
///
/// # Errors
/// [`Error`] of writing.
pub fn store_client_trust_config(path: &Path, config: &ClientTrustConfig) -> Result<(), Error> {
    atomic::write(path, &config.to_json().map_err(Error::content(path))?, Readers::Everybody)
}

/// Reads a policy (`policy.yaml`, or JSON, which is YAML) as it is written.
///
/// # Errors
/// [`Error`] of reading and of the content.
pub fn load_policy_document(path: &Path) -> Result<PolicyDocument, Error> {
    let bytes = atomic::read(path, MAX_POLICY_BYTES as u64)?;
    parse_policy_document(&bytes).map_err(Error::content(path))
}

/// Reads a policy document from its text, YAML or JSON.
///
/// # Errors
/// `too_large` before anything is parsed; else what is not as documented.
pub fn parse_policy_document(bytes: &[u8]) -> Result<PolicyDocument, trust_store::error::Error> {
    let value = yaml::parse("trust policy", bytes, MAX_POLICY_BYTES)?;
    PolicyDocument::from_value(&value)
}

/// Reads a policy and validates it.
///
/// # Errors
/// As [`load_policy_document`], and of values or combinations that cannot be meant.
pub fn load_policy(path: &Path) -> Result<TrustPolicy, Error> {
    load_policy_document(path)?.validate().map_err(Error::content(path))
}

/// Writes a policy document as JSON, which every YAML reader reads.
///
/// # Errors
/// [`Error`] of writing.
pub fn store_policy_document(path: &Path, document: &PolicyDocument) -> Result<(), Error> {
    atomic::write(path, &document.to_json().map_err(Error::content(path))?, Readers::Everybody)
}

/// Reads an evidence file.
///
/// # Errors
/// [`Error`] of reading and of the content.
pub fn load_evidence(path: &Path) -> Result<Evidence, Error> {
    Evidence::parse(&atomic::read(path, MAX_EVIDENCE_BYTES as u64)?).map_err(Error::content(path))
}

/// Writes an evidence file.
///
/// # Errors
/// [`Error`] of writing.
pub fn store_evidence(path: &Path, evidence: &Evidence) -> Result<(), Error> {
    atomic::write(path, &evidence.to_json().map_err(Error::content(path))?, Readers::Everybody)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use trust_store::policy::{FreshnessPolicy, SctPolicy, TrustLevel};

    #[test]
    fn trust_files_are_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.json");
        store_trusted_root(&path, &TrustedRoot::new()).unwrap();
        let (root, lifetime) = crate::load_trusted_root_with_lifetime(&path).unwrap();
        assert_eq!((root, lifetime), (TrustedRoot::new(), None));
        assert!(load_signing_config(&path).is_err(), "a trusted root is no signing configuration");
        store_signing_config(&path, &SigningConfig::new()).unwrap();
        assert_eq!(load_signing_config(&path).unwrap(), SigningConfig::new());
        store_evidence(&path, &Evidence::none()).unwrap();
        assert!(load_evidence(&path).unwrap().logs().is_empty());
    }

    #[test]
    fn policies_are_yaml() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        let text = "version: 1\nidentities:\n  - {subject: '*@example.com', issuer: any-of-the-authority, level: signed}\n\
                    required_level: signed\nsct: accept-absent\nlogs: {witnesses: not-required}\n\
                    freshness: {within-seconds: 60}\nagents: {allow: ['**']}\ncapabilities: {within: ['env:A']}\n";
        fs::write(&path, text).unwrap();
        let policy = load_policy(&path).unwrap();
        assert_eq!((policy.sct, policy.required_level), (SctPolicy::AcceptAbsent, TrustLevel::Signed));
        assert_eq!(policy.freshness, FreshnessPolicy::WithinSeconds(60));
        let document = load_policy_document(&path).unwrap();
        store_policy_document(&path, &document).unwrap();
        assert_eq!(load_policy_document(&path).unwrap(), document);
        fs::write(&path, text.replace("sct:", "scts:")).unwrap();
        assert!(load_policy(&path).unwrap_err().to_string().contains("scts"));
    }

    #[test]
    fn the_documented_policy_is_read_and_uses_every_key() {
        let page =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/policy.md")).unwrap();
        let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        fs::write(&path, example).unwrap();
        let policy = load_policy(&path).unwrap();
        assert_eq!((policy.identities.len(), policy.required_level), (2, TrustLevel::Verified));
        assert_eq!(policy.agents.deny.len(), 1);
        // Every key but `keys`, which no executor takes, stands in the example; and every key in the table.
        let value: serde_json::Value =
            serde_json::from_slice(&load_policy_document(&path).unwrap().to_json().unwrap()).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 15, "{value}");
        for key in value.as_object().unwrap().keys().filter(|key| *key != "version") {
            assert!(page.contains(&format!("| `{key}")), "{key} has no row");
        }
    }
}
