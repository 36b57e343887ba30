//! The suite on a service that answers as KMS does, its failures, and what an emulator of other people makes of it.

#[path = "../../../tests/src/moto.rs"]
mod moto;
#[path = "../../../tests/src/skip.rs"]
mod skip;

use std::time::Duration;

use moto::Moto;

use super::fake::{Fake, Mood};
use super::*;
use crate::conformance::conformance;
use crate::{ErrorClass, Input, IntentId, SigningIntent};

fn intent() -> SigningIntent {
    SigningIntent::new(Purpose::Certificate, IntentId::new(&[0x5a; 16]).unwrap())
}

fn at(endpoint: String) -> KmsOptions {
    KmsOptions::new("eu-test-1").at(endpoint).with_credentials("test", "test")
}

fn provider(fake: &Fake) -> Kms {
    Kms::open(at(format!("http://{}", fake.address))).unwrap()
}

fn key(provider: &Kms) -> Arc<dyn Signer> {
    let spec = KeySpec::new("issuing", KeyAlgorithm::EcdsaP256, [Purpose::Certificate]).unwrap();
    provider.generate(&spec).unwrap()
}

#[test]
fn the_service_passes_the_suite() {
    let fake = Fake::start();
    conformance(&provider(&fake));
}

#[test]
fn a_reference_finds_a_key_by_its_id_or_by_a_label_that_is_not_shared() {
    let fake = Fake::start();
    let provider = provider(&fake);
    let made = key(&provider);
    let by_label = provider.open(&KeyUri::parse("awskms:object=issuing").unwrap()).unwrap();
    assert_eq!(by_label.public_key(), made.public_key());
    let uri = provider.reference(&KeyLabel::new("issuing").unwrap()).unwrap();
    assert!(uri.to_string().contains("key-id=arn:aws:kms:"), "{uri}");
    assert_eq!(provider.open(&uri).unwrap().public_key(), made.public_key());
    let nobody = KeyUri::parse("awskms:key-id=nobody").unwrap();
    assert!(matches!(provider.open(&nobody), Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn it_may_be_used_and_dropped_inside_another_runtime() {
    let fake = Fake::start();
    let provider = provider(&fake);
    key(&provider).sign_message(b"message", &intent()).unwrap();
}

#[test]
fn failures_say_whether_a_signature_may_exist_and_nothing_is_sent_twice() {
    let fake = Fake::start();
    let provider = provider(&fake);
    let signer = key(&provider);
    for (mood, class) in [
        (Mood::HangingUp, ErrorClass::Ambiguous),
        (Mood::Refusing("KMSInternalException", 500), ErrorClass::Ambiguous),
        (Mood::Refusing("ThrottlingException", 400), ErrorClass::Transient),
        (Mood::Refusing("AccessDeniedException", 400), ErrorClass::AuthFailed),
        (Mood::Refusing("DisabledException", 400), ErrorClass::Permanent),
        (Mood::Lying, ErrorClass::Permanent),
    ] {
        let before = fake.signatures();
        fake.mood(mood);
        let error = signer.sign_message(b"message", &intent()).unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert_eq!(fake.signatures(), before + 1, "{error}");
        if matches!(class, ErrorClass::Ambiguous | ErrorClass::Transient) {
            assert!(!matches!(provider.health(), Health::Usable));
            // While it rests, nothing is sent.
            let resting = signer.sign_message(b"message", &intent()).unwrap_err();
            assert_eq!(resting.class(), ErrorClass::Transient);
            assert_eq!(fake.signatures(), before + 1);
        }
        fake.mood(Mood::Well);
        wait_for(|| signer.sign_message(b"message", &intent()).is_ok());
        assert_eq!(provider.health(), Health::Usable);
    }
}

#[test]
fn a_service_that_is_not_there_signed_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let provider = Kms::open(at(format!("http://{address}"))).unwrap();
    let error = provider.list().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
}

fn wait_for(mut done: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it did not come back");
}

/// moto, where `make interop-kms` says that it is installed. It hashes digests again, so whole messages are sent to it, and a
/// digest must end as a withheld signature.
#[test]
fn an_emulator_signs_messages_and_its_wrong_digests_are_withheld() {
    if std::env::var_os("MENTAT_MOTO").is_none() {
        skip::skipped("MENTAT_MOTO is not set; `make interop-kms` sets it where moto is installed");
        return;
    }
    let moto = Moto::start();
    let provider = Kms::open(at(moto.endpoint.clone()).with_raw_messages()).unwrap();
    for algorithm in provider.capabilities().algorithms {
        let label = format!("moto-{algorithm}");
        let spec = KeySpec::new(&label, algorithm, [Purpose::Certificate, Purpose::Crl]).unwrap();
        let signer = provider.generate(&spec).unwrap();
        let signature = signer.sign_message(b"message", &intent()).unwrap();
        let key = signer.public_key();
        let name = algorithm.default_signature();
        assert_eq!(key.verify(name, Input::Message(b"message"), signature.as_bytes()), Ok(()));
        let purpose = SigningIntent::new(Purpose::Ocsp, IntentId::new(&[1; 16]).unwrap());
        assert_eq!(signer.sign_message(b"x", &purpose).unwrap_err().class(), ErrorClass::Denied);
        let long = signer.sign_message(&[0; 5000], &intent()).unwrap_err();
        assert_eq!(long.class(), ErrorClass::Unsupported);
        assert!(matches!(provider.generate(&spec), Err(Error::AlreadyExists { .. })));
        let uri = provider.reference(&spec.label).unwrap();
        assert_eq!(provider.open(&uri).unwrap().public_key(), key);
        assert!(matches!(provider.open(&uri.pinned_to(&[0xee; 32])), Err(Error::KeyMismatch { .. })));
    }
    let key = provider.open(&KeyUri::parse("awskms:object=moto-ecdsa-p256").unwrap()).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"message");
    let name = KeyAlgorithm::EcdsaP256.default_signature();
    let withheld = key.sign(Input::Digest(digest.as_ref()), name, &intent());
    assert!(matches!(withheld, Err(Error::SelfCheck { .. })), "{withheld:?}");
}
