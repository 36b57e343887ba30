//! What every backend must do, as one suite. A backend's tests call [`conformance`] with a fresh, empty provider.

use std::collections::HashMap;

use aws_lc_rs::digest;

use crate::{
    DeniedReason, Error, Health, Input, IntentId, InvalidSignature, KeyAlgorithm, KeyProvider, KeySpec,
    Purpose, PurposeSet, SignatureAlgorithm, Signer, SigningIntent,
};

fn intent(purpose: Purpose) -> SigningIntent {
    SigningIntent::new(purpose, IntentId::new(&[0x5a; 16]).unwrap())
}

fn digest_of(algorithm: SignatureAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
    Some(digest::digest(algorithm.digest()?.native(), message).as_ref().to_vec())
}

/// Runs the whole suite.
pub(crate) fn conformance(provider: &dyn KeyProvider) {
    assert_eq!(provider.health(), Health::Usable);
    assert!(provider.list().unwrap().is_empty(), "the suite wants an empty provider");
    let mut made = HashMap::new();
    for algorithm in provider.capabilities().algorithms {
        let label = format!("suite-{algorithm}");
        let spec = KeySpec::new(&label, algorithm, [Purpose::Certificate, Purpose::Crl]).unwrap();
        let signer = provider.generate(&spec).unwrap();
        assert_eq!(signer.public_key().algorithm(), algorithm);
        assert_eq!(signer.purposes(), PurposeSet::from([Purpose::Certificate, Purpose::Crl]));
        assert_eq!(signer.protection(), provider.capabilities().protection);
        signs_what_verifies(signer.as_ref());
        checks_the_purpose(signer.as_ref());
        refuses_what_does_not_fit(signer.as_ref());
        assert!(matches!(provider.generate(&spec), Err(Error::AlreadyExists { .. })), "overwrote {label}");
        made.insert(label, signer.public_key().clone());
    }
    reopens_by_pinned_reference(provider, &made);
}

fn signs_what_verifies(signer: &dyn Signer) {
    let key = signer.public_key();
    let message = b"to be signed";
    let intent = intent(Purpose::Certificate);
    for algorithm in ALL_SIGNATURES.into_iter().filter(|a| key.algorithm().supports(*a)) {
        let signature = signer.sign(Input::Message(message), algorithm, &intent).unwrap();
        assert_eq!(key.verify(algorithm, Input::Message(message), signature.as_bytes()), Ok(()));
        assert_eq!(
            crate::verify(key.spki_der(), algorithm, Input::Message(message), signature.as_bytes()),
            Ok(())
        );
        assert_eq!(
            key.verify(algorithm, Input::Message(b"something else"), signature.as_bytes()),
            Err(InvalidSignature)
        );
        let mut forged = signature.as_bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(key.verify(algorithm, Input::Message(message), &forged), Err(InvalidSignature));
        if let Some(digest) = digest_of(algorithm, message) {
            assert_eq!(key.verify(algorithm, Input::Digest(&digest), signature.as_bytes()), Ok(()));
            let over_digest = signer.sign(Input::Digest(&digest), algorithm, &intent).unwrap();
            assert_eq!(key.verify(algorithm, Input::Message(message), over_digest.as_bytes()), Ok(()));
        }
        if matches!(algorithm, SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP384Sha384) {
            assert_eq!(signature.as_bytes().first(), Some(&0x30), "ECDSA signatures are DER");
        }
    }
    // An empty and a long message (a CRL), through the default algorithm.
    for message in [Vec::new(), vec![7; 1_000_000]] {
        let signature = signer.sign_message(&message, &intent).unwrap();
        let algorithm = key.algorithm().default_signature();
        assert_eq!(key.verify(algorithm, Input::Message(&message), signature.as_bytes()), Ok(()));
    }
}

fn checks_the_purpose(signer: &dyn Signer) {
    for purpose in Purpose::ALL {
        let outcome = signer.sign_message(b"x", &intent(purpose));
        if signer.purposes().contains(purpose) {
            assert!(outcome.is_ok());
        } else {
            assert!(
                matches!(outcome, Err(Error::Denied { reason: DeniedReason::Purpose { .. } })),
                "{purpose} was not denied"
            );
        }
    }
}

fn refuses_what_does_not_fit(signer: &dyn Signer) {
    let intent = intent(Purpose::Certificate);
    let key = signer.public_key();
    for algorithm in ALL_SIGNATURES {
        if !key.algorithm().supports(algorithm) {
            let outcome = signer.sign(Input::Message(b"x"), algorithm, &intent);
            assert!(matches!(outcome, Err(Error::Unsupported { .. })), "{algorithm}");
            assert_eq!(key.verify(algorithm, Input::Message(b"x"), &[0; 64]), Err(InvalidSignature));
        }
    }
    let algorithm = key.algorithm().default_signature();
    for length in [0, 20, 31, 33, 47, 49, 63, 65] {
        assert!(signer.sign(Input::Digest(&vec![1; length]), algorithm, &intent).is_err(), "{length}");
    }
}

fn reopens_by_pinned_reference(provider: &dyn KeyProvider, made: &HashMap<String, crate::PublicKey>) {
    let listed = provider.list().unwrap();
    assert_eq!(listed.len(), made.len());
    assert!(listed.is_sorted_by_key(|info| info.label.clone()));
    for info in &listed {
        assert_eq!(made.get(info.label.as_str()), Some(&info.public_key));
        assert_eq!(info.uri.spki_sha256(), Some(info.public_key.spki_sha256()));
        let signer = provider.open(&info.uri).unwrap();
        assert_eq!(signer.public_key(), &info.public_key);
        assert_eq!(signer.purposes(), info.purposes);
        checks_the_purpose(signer.as_ref());
        let foreign = info.uri.clone().pinned_to(&[0xee; 32]);
        assert!(matches!(provider.open(&foreign), Err(Error::KeyMismatch { .. })));
        // What is written down and read again is the same reference.
        assert_eq!(info.uri.to_string().parse::<crate::KeyUri>().unwrap(), info.uri);
    }
}

const ALL_SIGNATURES: [SignatureAlgorithm; 10] = [
    SignatureAlgorithm::EcdsaP256Sha256,
    SignatureAlgorithm::EcdsaP384Sha384,
    SignatureAlgorithm::Ed25519,
    SignatureAlgorithm::MlDsa44,
    SignatureAlgorithm::RsaPkcs1Sha256,
    SignatureAlgorithm::RsaPkcs1Sha384,
    SignatureAlgorithm::RsaPkcs1Sha512,
    SignatureAlgorithm::RsaPssSha256,
    SignatureAlgorithm::RsaPssSha384,
    SignatureAlgorithm::RsaPssSha512,
];

#[test]
fn every_key_type_has_a_signature_algorithm_of_the_suite() {
    for algorithm in KeyAlgorithm::ALL {
        assert!(ALL_SIGNATURES.contains(&algorithm.default_signature()));
    }
}
