//! Subscribers' key types: which profile takes which, and what becomes of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use ca_api::Enrol;
use ca_api::possession::{KeyProof, OwnReason, ProvenDeed, RevokeOwn};
use ca_pki::key::{KeyKind, KeyUse};
use ca_pki::{SignatureAlgorithm, SubjectPublicKey};
use der::Encode as _;
use fixture::{Server, Site, der, token_request};
use hsm::developer::DeveloperKey;
use hsm::{Input, IntentId, KeyAlgorithm, Purpose, SignatureAlgorithm as Proof, Signer as _, SigningIntent};
use service::SystemClock;
use service::clock::Clock as _;
use sha2::{Digest as _, Sha256};

/// A profile that takes ML-DSA beside the others.
const POST_QUANTUM: &str = r#"
[profiles.post-quantum]
rules = "internal"
subject = { country = "US", organization = "MentatLab" }
keys = "classical-and-ml-dsa"
"#;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    let mut out = vec![tag];
    match length {
        [0, short @ ..0x80] => out.push(short),
        [0, long] => out.extend([0x81, long]),
        _ => out.extend([0x82, length[0], length[1]]),
    }
    out.extend(value);
    out
}

/// A request with an empty name, signed by the key that it carries.
fn request(key: &DeveloperKey, algorithm: SignatureAlgorithm) -> String {
    let spki = key.public_key().spki_der();
    let information = tlv(0x30, &[&[2, 1, 0], &[0x30, 0], spki, &[0xa0, 0]]);
    let intent = SigningIntent::new(Purpose::Request, IntentId::new(&[7; 16]).unwrap());
    let signature = key.sign_message(&information, &intent).unwrap();
    let bits = [&[0], signature.as_bytes()].concat();
    let der = tlv(0x30, &[&information, &algorithm.identifier(), &tlv(3, &[&bits])]);
    ca_pki::pem::encode("CERTIFICATE REQUEST", &der).unwrap()
}

async fn enrol(server: &Server, profile: &str, csr: String) -> Result<Vec<u8>, String> {
    let token = server.admin().create_token(&token_request("dev@example.com", profile)).await.unwrap();
    let asked = Enrol { token: token.token, csr, request_id: None };
    match server.client().enrol(&asked).await {
        Ok(issued) => Ok(der(&issued.certificate)),
        Err(error) => Err(error.code().unwrap().to_owned()),
    }
}

fn key_of(certificate: &[u8]) -> SubjectPublicKey {
    let parsed = ca_pki::certificate::parse(certificate).unwrap();
    let spki = parsed.tbs_certificate().subject_public_key_info().to_der().unwrap();
    SubjectPublicKey::from_spki(&spki, KeyUse::PostQuantumSubscriber).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ml_dsa_is_certified_only_by_profiles_that_say_so() {
    let site = Site::with(POST_QUANTUM).await;
    let server = site.serve().await;
    let key = DeveloperKey::generate(KeyAlgorithm::MlDsa44).unwrap();
    let csr = || request(&key, SignatureAlgorithm::MlDsa44);
    for profile in ["developer", "keyless"] {
        let refused = enrol(&server, profile, csr()).await.unwrap_err();
        assert_eq!(refused, "key_algorithm_not_allowed", "{profile}");
    }
    let certificate = enrol(&server, "post-quantum", csr()).await.unwrap();
    let certified = key_of(&certificate);
    assert_eq!((certified.kind(), certified.spki()), (KeyKind::MlDsa44, key.public_key().spki_der()));
    // Possession is proven with this key type too.
    let other = DeveloperKey::generate(KeyAlgorithm::MlDsa44).unwrap();
    let foreign = request(&other, SignatureAlgorithm::MlDsa44);
    let mixed = ca_pki::pem::decode("request", &["CERTIFICATE REQUEST"], &foreign, 1 << 16).unwrap();
    let at = mixed.len() - 10;
    let mut forged = mixed;
    forged[at] ^= 1;
    let forged = ca_pki::pem::encode("CERTIFICATE REQUEST", &forged).unwrap();
    assert_eq!(enrol(&server, "post-quantum", forged).await.unwrap_err(), "proof_of_possession");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_each_type_proves_its_certificate_to_be_its_holders() {
    let site = Site::with(POST_QUANTUM).await;
    let server = site.serve().await;
    for (algorithm, requested, signature) in [
        (KeyAlgorithm::MlDsa44, SignatureAlgorithm::MlDsa44, Proof::MlDsa44),
        (KeyAlgorithm::EcdsaP384, SignatureAlgorithm::EcdsaP384Sha384, Proof::EcdsaP384Sha384),
        (KeyAlgorithm::Rsa4096, SignatureAlgorithm::RsaPkcs1Sha384, Proof::RsaPkcs1Sha256),
    ] {
        let key = DeveloperKey::generate(algorithm).unwrap();
        let certificate = enrol(&server, "post-quantum", request(&key, requested)).await.unwrap();
        let serial = hex::encode(trust_store::Certificate::from_der(&certificate).unwrap().serial());
        let time = SystemClock.unix_seconds();
        let (content, digest) =
            (RevokeOwn::content(OwnReason::Superseded, None), Sha256::digest(&certificate));
        let message = KeyProof::message(ProvenDeed::Revoke, &hex::encode(digest), time, &content);
        let intent = SigningIntent::new(Purpose::Request, IntentId::new(&[7; 16]).unwrap());
        let proof = key.sign(Input::Message(message.as_bytes()), signature, &intent).unwrap();
        let proof = KeyProof { serial, time, challenge: None, signature: hex::encode(proof.as_bytes()) };
        let asked = RevokeOwn { proof: Some(proof), reason: OwnReason::Superseded, compromised_at: None };
        server.client().revoke_own(&asked).await.unwrap();
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_classical_key_type_of_the_list_is_certified_by_every_profile() {
    let site = Site::with(POST_QUANTUM).await;
    let server = site.serve().await;
    for (algorithm, signature, kind) in [
        (KeyAlgorithm::EcdsaP256, SignatureAlgorithm::EcdsaP256Sha256, KeyKind::EcdsaP256),
        (KeyAlgorithm::EcdsaP384, SignatureAlgorithm::EcdsaP384Sha384, KeyKind::EcdsaP384),
        (KeyAlgorithm::Rsa3072, SignatureAlgorithm::RsaPkcs1Sha256, KeyKind::Rsa(3072)),
        (KeyAlgorithm::Rsa4096, SignatureAlgorithm::RsaPkcs1Sha384, KeyKind::Rsa(4096)),
    ] {
        let key = DeveloperKey::generate(algorithm).unwrap();
        for profile in ["developer", "keyless", "post-quantum"] {
            let certificate = enrol(&server, profile, request(&key, signature)).await.unwrap();
            assert_eq!(key_of(&certificate).kind(), kind, "{profile}");
        }
    }
    server.finish().await;
}
