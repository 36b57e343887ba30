//! The suite on a soft token, and what happens when the token goes away. Needs SoftHSM 2 (`apt install softhsm2`): run by
//! `make interop`, which says so when it is missing.

#[path = "../../../tests/src/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::conformance::conformance;
use crate::{Input, IntentId, Purpose, SigningIntent};

const PIN: &str = "a pin of the test";

/// The library is initialised once a process and reads one configuration: the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn module() -> PathBuf {
    let known = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    let module = std::env::var_os("SOFTHSM2_MODULE").map(PathBuf::from);
    module
        .into_iter()
        .chain(known.map(PathBuf::from))
        .find(|path| path.exists())
        .expect("SoftHSM 2 is missing: apt install softhsm2, or name its library in SOFTHSM2_MODULE")
}

/// Makes a token in the folder that SOFTHSM2_CONF of this process names.
fn token(label: &str) -> (PathBuf, TokenOptions) {
    let configuration = std::env::var_os("SOFTHSM2_CONF").expect("set by `make interop`");
    let text = std::fs::read_to_string(&configuration).unwrap();
    let folder = text.lines().find_map(|line| line.strip_prefix("directories.tokendir = ")).unwrap();
    let before = entries(Path::new(folder));
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label, "--so-pin", "so pin of the test", "--pin", PIN])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let home = entries(Path::new(folder)).into_iter().find(|path| !before.contains(path)).unwrap();
    let pin = home.with_extension("pin");
    crate::software::write_new(&pin, PIN.as_bytes()).unwrap();
    let mut options = TokenOptions::new(module(), label, PassphraseSource::File(pin));
    options.protection = ProtectionLevel::SoftToken;
    (home, options)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn intent() -> SigningIntent {
    SigningIntent::new(Purpose::Certificate, IntentId::new(&[0x5a; 16]).unwrap())
}

/// The tests take turns; none where no token can be made.
fn turn() -> Option<std::sync::MutexGuard<'static, ()>> {
    if std::env::var_os("SOFTHSM2_CONF").is_none() {
        skip::skipped("SOFTHSM2_CONF is not set; `make interop-pkcs11` sets it");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// RFC 7512 §2.3: what a reference says of its token must be true of it, or another token would be asked for a signature.
#[test]
fn every_attribute_of_a_token_in_a_reference_must_fit() {
    let Some(_turn) = turn() else { return };
    let (_, options) = token("named");
    let provider = Token::open(options.clone()).unwrap();
    let is = provider.connection.identity().unwrap();
    let (serial, model) = (is.serial.clone().unwrap(), is.model.clone().unwrap());
    provider.generate(&KeySpec::new("k", KeyAlgorithm::EcdsaP256, [Purpose::Certificate]).unwrap()).unwrap();
    let open = |attributes: &str| {
        let uri = format!("pkcs11:token=named;{attributes};object=k").parse().unwrap();
        provider.open(&uri).map(|_| ())
    };
    let model = model.replace(' ', "%20");
    open(&format!("serial={serial};model={model};slot-id={};type=private", is.slot_id.unwrap())).unwrap();
    for wrong in ["serial=0000", "model=other", "manufacturer=nobody", "slot-id=4000000000"] {
        assert!(matches!(open(wrong), Err(Error::NotFound { .. })), "{wrong}");
    }
    assert!(matches!(open("type=public"), Err(Error::Invalid { .. })));
    // Not at the first connection either, so that no other token sees the PIN.
    let other = TokenOptions {
        only: TokenIdentity { serial: Some("0000".to_owned()), ..TokenIdentity::default() },
        ..options.clone()
    };
    assert!(Token::open(other).is_err());
    let only = TokenIdentity { serial: Some(serial), ..TokenIdentity::default() };
    Token::open(TokenOptions { only, ..options }).unwrap();
    let named = "pkcs11:token=named;object=k?module-name=softhsm2&pin-source=file:/pin".parse().unwrap();
    assert!(matches!(TokenOptions::from_uri(&named), Err(Error::Unsupported { .. })));
}

#[test]
fn a_soft_token_passes_the_suite() {
    let Some(_turn) = turn() else { return };
    let (_, options) = token("suite");
    conformance(&Token::open(options).unwrap());
}

#[test]
fn a_token_that_goes_away_and_comes_back_is_survived() {
    let Some(_turn) = turn() else { return };
    let (home, options) = token("traveller");
    let provider = Token::open(options).unwrap();
    let spec = KeySpec::new("key", KeyAlgorithm::EcdsaP256, [Purpose::Certificate]).unwrap();
    let signer = provider.generate(&spec).unwrap();
    let sign = || signer.sign_message(b"message", &intent());
    sign().unwrap();

    // Out of the folder that the library searches.
    let away = home.ancestors().nth(2).unwrap().join("away");
    std::fs::rename(&home, &away).unwrap();
    // What the library holds open may serve for a while; a restart of it does not.
    let _ = provider.connection.library_for_tests().finalize();
    let refused = (0..3).map(|_| sign().unwrap_err()).collect::<Vec<_>>();
    for error in &refused {
        assert_eq!(error.class(), crate::ErrorClass::Transient, "{error}");
    }
    assert!(!matches!(provider.health(), Health::Usable));

    std::fs::rename(&away, &home).unwrap();
    let mut outcome = sign();
    for _ in 0..100 {
        if outcome.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        outcome = sign();
    }
    let signature = outcome.unwrap();
    let key = signer.public_key();
    let algorithm = key.algorithm().default_signature();
    assert_eq!(key.verify(algorithm, Input::Message(b"message"), signature.as_bytes()), Ok(()));
    assert_eq!(provider.health(), Health::Usable);
}

#[test]
fn a_refused_pin_is_tried_once() {
    let Some(_turn) = turn() else { return };
    let (home, mut options) = token("locked");
    let wrong = home.with_extension("wrong");
    crate::software::write_new(&wrong, b"not the pin").unwrap();
    let right = std::mem::replace(&mut options.pin, PassphraseSource::File(wrong));
    assert!(matches!(Token::open(options.clone()), Err(Error::AuthFailed { .. })));
    options.pin = right;
    let provider = Token::open(options).unwrap();
    let missing = KeyUri::parse("pkcs11:object=nobody").unwrap();
    assert!(matches!(provider.open(&missing), Err(Error::NotFound { .. })));
}

/// Whoever can open the token without its PIN puts a policy of the same name beside ours, and one beside a key that has none.
#[test]
fn a_policy_that_anybody_could_have_made_is_none() {
    use cryptoki::object::{Attribute, ObjectClass};
    let Some(_turn) = turn() else { return };
    let (_, options) = token("guarded");
    let provider = Token::open(options).unwrap();
    let spec = KeySpec::new("key", KeyAlgorithm::EcdsaP256, [Purpose::Certificate]).unwrap();
    let made = provider.generate(&spec).unwrap();
    let uri = KeyUri::parse("pkcs11:object=key").unwrap();
    let policies = provider.connection.repeat(|session| object::find(session, None, Some("key"))).unwrap();
    let id = crate::public_key::hex(&policies[0].id);
    let text = format!("id={id}\npurposes=certificate,crl,ocsp\nmax-per-second=0\n");
    provider
        .connection
        .repeat(|session| {
            session.create_object(&[
                Attribute::Class(ObjectClass::DATA),
                Attribute::Token(true),
                Attribute::Private(false),
                Attribute::Application(b"mentat key policy 1".to_vec()),
                Attribute::Label(b"key".to_vec()),
                Attribute::Value(text.clone().into_bytes()),
            ])
        })
        .unwrap();
    let opened = provider.open(&uri).unwrap();
    assert_eq!(opened.public_key(), made.public_key());
    let crl = SigningIntent::new(Purpose::Crl, IntentId::new(&[0x5a; 16]).unwrap());
    assert!(matches!(opened.sign_message(b"list", &crl), Err(Error::Denied { .. })));
    // Without the policy that was made with the PIN, the other is not taken in its place.
    let removed = provider
        .connection
        .repeat(|session| {
            let ours = [
                Attribute::Class(ObjectClass::DATA),
                Attribute::Private(true),
                Attribute::Application(b"mentat key policy 1".to_vec()),
            ];
            let found = session.find_objects(&ours)?;
            found.iter().try_for_each(|object| session.destroy_object(*object))?;
            Ok(found.len())
        })
        .unwrap();
    assert_eq!(removed, 1);
    assert!(matches!(provider.open(&uri), Err(Error::NotFound { .. })));
    assert!(provider.list().unwrap().is_empty());
}

#[test]
fn an_answer_to_a_signature_is_a_refusal_only_where_the_standard_says_so() {
    use cryptoki::context::Function;
    use cryptoki::error::{Error as Failure, RvError};
    let class = |code, function| token::signing_error(&Failure::Pkcs11(code, function)).class();
    for code in [
        RvError::VendorDefined(0x8000_0001),
        RvError::DeviceError,
        RvError::FunctionFailed,
        RvError::SessionClosed,
    ] {
        assert_eq!(class(code, Function::Sign), crate::ErrorClass::Ambiguous, "{code:?}");
    }
    assert_eq!(class(RvError::KeyHandleInvalid, Function::Sign), crate::ErrorClass::Transient);
    assert_eq!(class(RvError::DataLenRange, Function::Sign), crate::ErrorClass::Permanent);
    assert_eq!(class(RvError::VendorDefined(0x8000_0001), Function::SignInit), crate::ErrorClass::Permanent);
}
