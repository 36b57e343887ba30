//! One key of a TPM.

use std::sync::Arc;

use super::connection::Connection;
use super::key_file::KeyFile;
use crate::algorithm::SignatureAlgorithm;
use crate::error::Error;
use crate::intent::{PurposeSet, SigningIntent};
use crate::policy::KeyPolicy;
use crate::public_key::{PublicKey, digest_of};
use crate::signer::{Input, ProtectionLevel, Signature, Signer};

pub(super) struct TpmSigner {
    connection: Arc<Connection>,
    key: KeyFile,
    policy: KeyPolicy,
}

impl TpmSigner {
    /// Opens a key: the TPM loads it, which proves that its file was not altered, and signs a random challenge.
    pub(super) fn open(connection: Arc<Connection>, key: KeyFile, policy: KeyPolicy) -> Result<Self, Error> {
        let signer = Self { connection, key, policy };
        let challenge: [u8; 32] = crate::software::random()?;
        let algorithm = signer.key.public_key.algorithm().default_signature();
        signer.sign_verified(Input::Message(&challenge), algorithm)?;
        Ok(signer)
    }

    fn sign_verified(&self, input: Input<'_>, algorithm: SignatureAlgorithm) -> Result<Signature, Error> {
        let digest = digest_of(input, algorithm)?;
        let signature = Signature::new(self.connection.sign(&self.key, &digest, algorithm)?);
        self.key.public_key.verify(algorithm, input, signature.as_bytes()).map_err(|_| {
            self.connection.distrust();
            Error::SelfCheck { algorithm }
        })?;
        Ok(signature)
    }
}

impl Signer for TpmSigner {
    fn public_key(&self) -> &PublicKey {
        &self.key.public_key
    }

    fn protection(&self) -> ProtectionLevel {
        self.connection.options().protection
    }

    fn purposes(&self) -> PurposeSet {
        self.policy.purposes
    }

    fn sign(
        &self,
        input: Input<'_>,
        algorithm: SignatureAlgorithm,
        intent: &SigningIntent,
    ) -> Result<Signature, Error> {
        self.policy.admit(&self.key.public_key, algorithm, intent)?;
        self.sign_verified(input, algorithm)
    }
}
