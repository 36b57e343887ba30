use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use p256::ecdsa::signature::Verifier as _;

use super::*;
use crate::audit::{Allowed, KeyUse};
use crate::conformance::conformance;
use crate::intent::{Purpose, SigningIntent};

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec()).unwrap()
}

fn quick() -> KeystoreOptions {
    KeystoreOptions::default().with_kdf(KdfProfile::DangerForTests)
}

fn create() -> (tempfile::TempDir, Keystore) {
    let directory = tempfile::tempdir().unwrap();
    let keystore =
        Keystore::create_with(&directory.path().join("keys"), &passphrase("correct horse"), quick());
    (directory, keystore.unwrap())
}

fn p256_spec(label: &str) -> KeySpec {
    KeySpec::new(label, KeyAlgorithm::EcdsaP256, Purpose::Certificate).unwrap()
}

fn intent(purpose: Purpose) -> SigningIntent {
    SigningIntent::fresh(purpose).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn passes_the_suite_of_all_backends() {
    let (_directory, keystore) = create();
    conformance(&keystore);
}

#[test]
fn another_implementation_accepts_the_signatures() {
    let (_directory, keystore) = create();
    let signer = keystore.generate(&p256_spec("issuing")).unwrap();
    let signature = signer.sign_message(b"message", &intent(Purpose::Certificate)).unwrap();
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(signer.public_key().raw()).unwrap();
    key.verify(b"message", &p256::ecdsa::Signature::from_der(signature.as_bytes()).unwrap()).unwrap();
    let spec = KeySpec::new("root", KeyAlgorithm::EcdsaP384, Purpose::Certificate).unwrap();
    let root = keystore.generate(&spec).unwrap();
    let signature = root.sign_message(b"message", &intent(Purpose::Certificate)).unwrap();
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(root.public_key().raw()).unwrap();
    key.verify(b"message", &p384::ecdsa::Signature::from_der(signature.as_bytes()).unwrap()).unwrap();
}

#[test]
fn files_are_for_the_owner_only_and_nothing_is_left_over() {
    let (directory, keystore) = create();
    keystore.generate(&p256_spec("issuing")).unwrap();
    let keys = directory.path().join("keys");
    assert_eq!(mode(&keys), 0o700);
    let mut names: Vec<_> =
        fs::read_dir(&keys).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["issuing.key", "keystore"]);
    assert!(names.iter().all(|name| mode(&keys.join(name)) == 0o600));
}

#[test]
fn keys_survive_a_restart() {
    let (directory, keystore) = create();
    let made = keystore.generate(&p256_spec("issuing")).unwrap().public_key().clone();
    drop(keystore);
    let reopened = Keystore::open(&directory.path().join("keys"), &passphrase("correct horse")).unwrap();
    let signer = reopened.open_label(&KeyLabel::new("issuing").unwrap()).unwrap();
    assert_eq!(signer.public_key(), &made);
}

#[test]
fn a_wrong_passphrase_is_told_in_one_line_and_apart_from_damage() {
    let (directory, _keystore) = create();
    let keys = directory.path().join("keys");
    let error = Keystore::open(&keys, &passphrase("wrong horse")).err().unwrap();
    assert!(matches!(error, Error::AuthFailed { .. }));
    let line = error.to_string();
    assert!(line.starts_with("wrong passphrase for keystore ") && !line.contains('\n'), "{line}");
    assert!(!line.contains("horse"));
    let file = keys.join("keystore");
    let mut bytes = fs::read(&file).unwrap();
    bytes[90] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = Keystore::open(&keys, &passphrase("correct horse")).err().unwrap();
    assert!(matches!(error, Error::Corrupted { .. }), "{error}");
}

#[test]
fn a_keystore_is_never_overwritten() {
    let (directory, _keystore) = create();
    let again =
        Keystore::create_with(&directory.path().join("keys"), &passphrase("other passphrase"), quick());
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
    assert!(Keystore::open(&directory.path().join("keys"), &passphrase("correct horse")).is_ok());
}

#[test]
fn the_passphrase_changes_without_touching_the_keys() {
    let (directory, mut keystore) = create();
    keystore.generate(&p256_spec("issuing")).unwrap();
    let key_file = directory.path().join("keys/issuing.key");
    let before = fs::read(&key_file).unwrap();
    keystore.change_passphrase(&passphrase("new passphrase"), KdfProfile::DangerForTests).unwrap();
    assert_eq!(fs::read(&key_file).unwrap(), before);
    let keys = directory.path().join("keys");
    assert!(matches!(Keystore::open(&keys, &passphrase("correct horse")), Err(Error::AuthFailed { .. })));
    let reopened = Keystore::open(&keys, &passphrase("new passphrase")).unwrap();
    assert_eq!(reopened.list().unwrap().len(), 1);
}

#[test]
fn short_passphrases_make_no_keystore() {
    let directory = tempfile::tempdir().unwrap();
    let refused = Keystore::create(&directory.path().join("keys"), &passphrase("short"));
    assert!(matches!(refused, Err(Error::Invalid { what: "passphrase", .. })));
    assert!(!directory.path().join("keys").exists());
}

#[test]
fn damaged_swapped_and_open_key_files_are_refused() {
    let (directory, keystore) = create();
    keystore.generate(&p256_spec("one")).unwrap();
    keystore.generate(&p256_spec("two")).unwrap();
    let path = |name: &str| directory.path().join("keys").join(name);
    let code = |label: &str| keystore.open_label(&KeyLabel::new(label).unwrap()).unwrap_err().code();
    let mut bytes = fs::read(path("one.key")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path("one.key"), &bytes).unwrap();
    assert_eq!(code("one"), "corrupted");
    fs::copy(path("two.key"), path("one.key")).unwrap();
    assert_eq!(code("one"), "corrupted");
    assert!(keystore.list().is_err());
    fs::set_permissions(path("two.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(code("two"), "permissions");
    fs::remove_file(path("two.key")).unwrap();
    assert_eq!(code("two"), "not_found");
}

#[test]
fn keys_that_are_no_soft_reference_or_unknown_are_refused() {
    let (_directory, keystore) = create();
    let open = |uri: &str| keystore.open(&uri.parse().unwrap()).unwrap_err().code();
    assert_eq!(open("pkcs11:object=a"), "unsupported");
    assert_eq!(open("soft:object=absent"), "not_found");
    assert_eq!(open("soft:object=..%2Fescape"), "invalid");
}

#[test]
fn imported_keys_must_be_of_the_type_named() {
    let (_directory, keystore) = create();
    let pkcs8 = PrivateKey::generate(KeyAlgorithm::EcdsaP384).unwrap().to_pkcs8().unwrap();
    assert!(keystore.import(&p256_spec("imported"), &pkcs8).is_err());
    let spec = KeySpec::new("imported", KeyAlgorithm::EcdsaP384, Purpose::Certificate).unwrap();
    assert!(keystore.import(&spec, &pkcs8).is_ok());
}

#[test]
fn a_private_half_that_does_not_fit_is_caught_at_open() {
    let (_directory, keystore) = create();
    let spec = p256_spec("swapped");
    let (one, two) = (
        PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap(),
        PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap(),
    );
    // Written with the right master key, as a bug in an importer would.
    let file = KeyFile::encode(
        keystore.id,
        &keystore.master,
        &spec,
        &one.public_key().unwrap(),
        &two.to_pkcs8().unwrap(),
    );
    secret_file::write_new(&keystore.key_path(&spec.label), &file.unwrap()).unwrap();
    let error = keystore.open_label(&spec.label).unwrap_err();
    assert!(matches!(error, Error::Corrupted { reason: "its private and public halves differ", .. }));
}

#[test]
fn a_rate_limited_key_says_so_and_stays_usable() {
    let (_directory, keystore) = create();
    let spec = p256_spec("limited").with_max_per_second(NonZeroU32::new(2).unwrap());
    let signer = keystore.generate(&spec).unwrap();
    let outcomes: Vec<_> =
        (0..50).map(|_| signer.sign_message(b"x", &intent(Purpose::Certificate))).collect();
    assert!(outcomes.iter().take(2).all(Result::is_ok));
    let refused = outcomes.iter().find_map(|o| o.as_ref().err()).unwrap();
    assert_eq!((refused.code(), refused.class()), ("denied_rate", crate::ErrorClass::Transient));
}

#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<(Purpose, Allowed)>>,
    broken: AtomicBool,
}

impl KeyAudit for Recorder {
    fn record(&self, event: &KeyUse<'_>) -> Result<(), String> {
        if self.broken.load(Ordering::Relaxed) {
            return Err("the sink is full".to_owned());
        }
        self.seen.lock().unwrap().push((event.intent.purpose(), event.allowed));
        Ok(())
    }
}

#[test]
fn every_use_is_recorded_and_a_broken_sink_stops_signing() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let options = quick().with_audit(Arc::clone(&recorder) as Arc<dyn KeyAudit>);
    let keystore =
        Keystore::create_with(&directory.path().join("keys"), &passphrase("correct horse"), options).unwrap();
    let signer = keystore.generate(&p256_spec("issuing")).unwrap();
    assert!(signer.sign_message(b"x", &intent(Purpose::Certificate)).is_ok());
    assert!(signer.sign_message(b"x", &intent(Purpose::Crl)).is_err());
    assert_eq!(
        *recorder.seen.lock().unwrap(),
        [(Purpose::Certificate, Allowed::Yes), (Purpose::Crl, Allowed::No)]
    );
    recorder.broken.store(true, Ordering::Relaxed);
    let refused = signer.sign_message(b"x", &intent(Purpose::Certificate)).unwrap_err();
    assert_eq!(refused.code(), "denied_audit");
}

#[test]
fn listings_skip_what_is_no_key() {
    let (directory, keystore) = create();
    keystore.generate(&p256_spec("issuing")).unwrap();
    fs::write(directory.path().join("keys/README"), "notes").unwrap();
    fs::write(directory.path().join("keys/Not A Label.key"), "x").unwrap();
    assert_eq!(keystore.list().unwrap().len(), 1);
}
