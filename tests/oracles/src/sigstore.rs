//! `sigstore-verify` behind the two calls that are needed: prepare a trusted root, verify a bundle.

use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, Sha256Hash};
use sigstore_verify::{VerificationPolicy, Verifier};

/// A verifier with its trusted root prepared.
pub struct Peer {
    verifier: Verifier,
    policy: VerificationPolicy,
}

impl Peer {
    /// Reads a trusted root. Any identity is accepted: who may sign is a matter of policy and not compared.
    ///
    /// # Errors
    /// What the peer says of a root that it does not accept.
    pub fn new(trusted_root: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(trusted_root).map_err(|error| error.to_string())?;
        let root = TrustedRoot::from_json(text).map_err(|error| error.to_string())?;
        let verifier = Verifier::new(&root).map_err(|error| error.to_string())?;
        Ok(Self { verifier, policy: VerificationPolicy::any_identity() })
    }

    /// Reads and verifies a bundle for an artifact.
    ///
    /// # Errors
    /// What the peer says.
    pub fn verify(&self, bundle: &[u8], artifact: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bundle).map_err(|error| error.to_string())?;
        let bundle = Bundle::from_json(text).map_err(|error| error.to_string())?;
        self.verifier.verify(artifact, &bundle, &self.policy).map(drop).map_err(|error| error.to_string())
    }

    /// The same for an artifact that is known by its SHA-256 in hexadecimal.
    ///
    /// # Errors
    /// What the peer says.
    pub fn verify_digest(&self, bundle: &[u8], digest: &str) -> Result<(), String> {
        let text = std::str::from_utf8(bundle).map_err(|error| error.to_string())?;
        let bundle = Bundle::from_json(text).map_err(|error| error.to_string())?;
        let digest = Sha256Hash::from_hex(digest).map_err(|error| error.to_string())?;
        self.verifier.verify(digest, &bundle, &self.policy).map(drop).map_err(|error| error.to_string())
    }
}
