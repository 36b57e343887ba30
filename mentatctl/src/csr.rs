//! Certificate requests (PKCS#10, RFC 2986) for a developer's key, wherever it lives. The key signs through `hsm`, with its recorded purpose.

use ca_api::Identity;
use hsm::{Input, KeyAlgorithm, Purpose, SignatureAlgorithm, Signer, SigningIntent};
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SanType};

use crate::exit::{Exit, Failure, OrFail as _, Outcome};

/// A request in PEM with the identity as common name and subject alternative name. The authority takes the key and the
/// proof of possession from it; names come from the identity that was proven, never from here.
///
/// # Errors
/// When the key's type has no certificate profile or signing fails.
pub fn request_pem(key: &dyn Signer, identity: &Identity) -> Outcome<String> {
    let signer = RequestSigner::new(key)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, identity.as_str());
    params.distinguished_name = name;
    let text = identity.as_str().try_into().map_err(|_| {
        Failure::usage(format!("{identity} has characters that no certificate can carry"))
            .hint("write it in ASCII; a host name in its xn-- form")
    })?;
    params.subject_alt_names = vec![match identity {
        Identity::Email(_) => SanType::Rfc822Name(text),
        Identity::Uri(_) => SanType::URI(text),
    }];
    let request =
        params.serialize_request(&signer).or_fail(Exit::Failure, "making the certificate request")?;
    request.pem().or_fail(Exit::Failure, "writing the certificate request")
}

/// A request in PEM without any name: for an authority that takes the key from it and the name from a token.
///
/// # Errors
/// As [`request_pem`].
pub fn bare_request_pem(key: &dyn Signer) -> Outcome<String> {
    let signer = RequestSigner::new(key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request =
        params.serialize_request(&signer).or_fail(Exit::Failure, "making the certificate request")?;
    request.pem().or_fail(Exit::Failure, "writing the certificate request")
}

/// Lends a key to `rcgen`.
struct RequestSigner<'a> {
    key: &'a dyn Signer,
    algorithm: SignatureAlgorithm,
    rcgen: &'static rcgen::SignatureAlgorithm,
}

impl<'a> RequestSigner<'a> {
    fn new(key: &'a dyn Signer) -> Outcome<Self> {
        let (algorithm, rcgen) = match key.public_key().algorithm() {
            KeyAlgorithm::EcdsaP256 => (SignatureAlgorithm::EcdsaP256Sha256, &rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcdsaP384 => (SignatureAlgorithm::EcdsaP384Sha384, &rcgen::PKCS_ECDSA_P384_SHA384),
            KeyAlgorithm::Ed25519 => (SignatureAlgorithm::Ed25519, &rcgen::PKCS_ED25519),
            KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
                (SignatureAlgorithm::RsaPkcs1Sha256, &rcgen::PKCS_RSA_SHA256)
            }
            other => {
                return Err(Failure::usage(format!("no certificate profile takes a {other} key"))
                    .hint("use --algorithm ecdsa-p256"));
            }
        };
        Ok(Self { key, algorithm, rcgen })
    }
}

impl PublicKeyData for RequestSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.public_key().raw()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.rcgen
    }
}

impl rcgen::SigningKey for RequestSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let sign = || -> Result<Vec<u8>, hsm::Error> {
            let intent = SigningIntent::fresh(Purpose::Request)?;
            Ok(self.key.sign(Input::Message(message), self.algorithm, &intent)?.as_bytes().to_vec())
        };
        sign().map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
