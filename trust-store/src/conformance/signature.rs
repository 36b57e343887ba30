//! `signature`: does a signature verify?

use alloc::string::String;

use serde::Deserialize;
use tlog::signature::{Algorithm, SignatureVerifier};

use super::{answer, binary, malformed};
use crate::algorithm::{KeyAlgorithm, SubjectPublicKey};
use crate::provider::ecdsa_signature_from_p1363;
use crate::reason::{Denial, ReasonCode};

#[derive(Deserialize)]
struct Case {
    algorithm: String,
    key: String,
    message: Option<String>,
    digest: Option<String>,
    signature: String,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Clone, Copy, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Der,
    P1363,
}

/// Decides one line; see [`crate::conformance`].
pub fn decide_signature(line: &str, verifier: &dyn SignatureVerifier) -> String {
    answer(line, "invalid", |case: Case| {
        let (algorithm, key_algorithm) = algorithm(&case.algorithm)
            .ok_or(Denial::new(ReasonCode::AlgorithmNotAllowed, "the algorithm is not supported"))?;
        let spki = binary(&case.key, "key")?;
        let key = SubjectPublicKey::from_der(&spki).map_err(|error| error.denial("key"))?;
        if key.algorithm != key_algorithm {
            return Err(Denial::new(ReasonCode::AlgorithmNotAllowed, "the key is not one for the algorithm"));
        }
        let mut signature = binary(&case.signature, "signature")?;
        if case.encoding == Encoding::P1363 {
            let length = match key_algorithm {
                KeyAlgorithm::EcdsaP256 => 32,
                KeyAlgorithm::EcdsaP384 => 48,
                KeyAlgorithm::EcdsaP521 => 66,
                _ => return Err(malformed("only ECDSA signatures have the encoding p1363")),
            };
            signature = ecdsa_signature_from_p1363(&signature, length)
                .ok_or(Denial::new(ReasonCode::SignatureInvalid, "the signature has a wrong length"))?;
        }
        let outcome = match (&case.message, &case.digest) {
            (Some(message), None) => {
                verifier.verify(algorithm, key.key, &binary(message, "message")?, &signature)
            }
            (None, Some(digest)) => {
                verifier.verify_digest(algorithm, key.key, &binary(digest, "digest")?, &signature)
            }
            _ => return Err(malformed("exactly one of message and digest is needed")),
        };
        outcome.map_err(|_| Denial::new(ReasonCode::SignatureInvalid, "the signature does not verify"))?;
        Ok(("valid", None))
    })
}

fn algorithm(name: &str) -> Option<(Algorithm, KeyAlgorithm)> {
    use KeyAlgorithm as K;
    Some(match name {
        "ecdsa-p256-sha256" => (Algorithm::EcdsaP256Sha256, K::EcdsaP256),
        "ecdsa-p256-sha384" => (Algorithm::EcdsaP256Sha384, K::EcdsaP256),
        "ecdsa-p256-sha512" => (Algorithm::EcdsaP256Sha512, K::EcdsaP256),
        "ecdsa-p384-sha256" => (Algorithm::EcdsaP384Sha256, K::EcdsaP384),
        "ecdsa-p384-sha384" => (Algorithm::EcdsaP384Sha384, K::EcdsaP384),
        "ecdsa-p384-sha512" => (Algorithm::EcdsaP384Sha512, K::EcdsaP384),
        "ecdsa-p521-sha256" => (Algorithm::EcdsaP521Sha256, K::EcdsaP521),
        "ecdsa-p521-sha512" => (Algorithm::EcdsaP521Sha512, K::EcdsaP521),
        "ed25519" => (Algorithm::Ed25519, K::Ed25519),
        "ml-dsa-44" => (Algorithm::MlDsa44, K::MlDsa44),
        "ml-dsa-65" => (Algorithm::MlDsa65, K::MlDsa65),
        "ml-dsa-87" => (Algorithm::MlDsa87, K::MlDsa87),
        "rsa-pkcs1-sha256" => (Algorithm::RsaPkcs1Sha256, K::Rsa),
        "rsa-pkcs1-sha384" => (Algorithm::RsaPkcs1Sha384, K::Rsa),
        "rsa-pkcs1-sha512" => (Algorithm::RsaPkcs1Sha512, K::Rsa),
        "rsa-pss-sha256" => (Algorithm::RsaPssSha256, K::Rsa),
        "rsa-pss-sha384" => (Algorithm::RsaPssSha384, K::Rsa),
        "rsa-pss-sha512" => (Algorithm::RsaPssSha512, K::Rsa),
        _ => return None,
    })
}
