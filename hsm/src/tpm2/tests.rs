//! The suite on a software TPM, and what happens when it goes away. Needs swtpm (`apt install swtpm`): run by `make interop`, which
//! says so when it is missing.

#[path = "../../../tests/src/skip.rs"]
mod skip;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::conformance::conformance;
use crate::{ErrorClass, Input, IntentId, Purpose, SigningIntent};

/// A TPM of software, with its state in a folder. It ends with the test.
struct Chip {
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Chip {
    /// None where the program is not installed.
    fn new() -> Option<Self> {
        if Command::new("swtpm").arg("--version").output().is_err() {
            skip::skipped("swtpm is not installed (Debian: apt-get install swtpm)");
            return None;
        }
        let mut chip = Self { folder: tempfile::tempdir().unwrap(), process: None };
        chip.start("not-need-init,startup-clear");
        Some(chip)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn start(&mut self, flags: &str) {
        let state = format!("dir={}", self.folder.path().display());
        let server = format!("type=unixio,path={},disconnect", self.socket().display());
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &state, "--server", &server, "--flags", flags])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        wait_for(|| std::os::unix::net::UnixStream::connect(self.socket()).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    fn options(&self) -> TpmOptions {
        let pin = self.folder.path().join("pin");
        if !pin.exists() {
            crate::software::write_new(&pin, b"a pin of the test").unwrap();
        }
        let mut options = TpmOptions::new(self.folder.path().join("keys"), PassphraseSource::File(pin));
        options.place = Place::Unix(self.socket());
        options.protection = ProtectionLevel::SoftToken;
        options
    }

    fn provider(&self) -> Tpm {
        Tpm::open(self.options()).unwrap()
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        self.stop();
    }
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

fn intent() -> SigningIntent {
    SigningIntent::new(Purpose::Certificate, IntentId::new(&[0x5a; 16]).unwrap())
}

fn spec(label: &str) -> KeySpec {
    KeySpec::new(label, KeyAlgorithm::EcdsaP256, [Purpose::Certificate]).unwrap()
}

fn uri(label: &str) -> KeyUri {
    KeyUri::parse(&format!("tpm2:object={label}")).unwrap()
}

#[test]
fn a_software_tpm_passes_the_suite() {
    let Some(chip) = Chip::new() else { return };
    let provider = chip.provider();
    let algorithms = provider.capabilities().algorithms;
    assert!(algorithms.contains(&KeyAlgorithm::EcdsaP256) && algorithms.contains(&KeyAlgorithm::EcdsaP384));
    conformance(&provider);
    // What a reference alone leads to.
    let listed = provider.list().unwrap();
    let options = TpmOptions::from_uri(&listed[0].uri).unwrap();
    assert_eq!((options.place, options.folder), (chip.options().place, chip.options().folder));
    // Without a resource manager there is room for the objects of one.
    drop(provider);
    let place = crate::keyring::connect(&listed[0].uri).unwrap();
    assert_eq!(place.open(&listed[0].uri).unwrap().public_key(), &listed[0].public_key);
}

#[test]
fn a_tpm_that_goes_away_and_comes_back_is_survived_whoever_starts_it() {
    let Some(mut chip) = Chip::new() else { return };
    let provider = chip.provider();
    let (one, other) = (provider.generate(&spec("one")).unwrap(), provider.generate(&spec("other")).unwrap());
    // The second time nobody starts the TPM, as firmware would have.
    for flags in ["not-need-init,startup-clear", "not-need-init"] {
        one.sign_message(b"message", &intent()).unwrap();
        chip.stop();
        for _ in 0..3 {
            let error = one.sign_message(b"message", &intent()).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        }
        assert!(!matches!(provider.health(), Health::Usable));
        chip.start(flags);
        for signer in [&one, &other, &one] {
            let mut outcome = signer.sign_message(b"message", &intent());
            wait_for(|| {
                if outcome.is_err() {
                    outcome = signer.sign_message(b"message", &intent());
                }
                outcome.is_ok()
            });
            let key = signer.public_key();
            let signature = outcome.unwrap();
            let algorithm = key.algorithm().default_signature();
            assert_eq!(key.verify(algorithm, Input::Message(b"message"), signature.as_bytes()), Ok(()));
        }
        assert_eq!(provider.health(), Health::Usable);
    }
}

#[test]
fn more_keys_than_a_tpm_has_room_for_take_turns() {
    let Some(chip) = Chip::new() else { return };
    let provider = chip.provider();
    let signers: Vec<_> =
        (0..5).map(|number| provider.generate(&spec(&format!("key-{number}"))).unwrap()).collect();
    std::thread::scope(|scope| {
        for signer in &signers {
            scope.spawn(move || {
                for _ in 0..5 {
                    signer.sign_message(b"message", &intent()).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_refused_pin_is_tried_once() {
    let Some(chip) = Chip::new() else { return };
    chip.provider().generate(&spec("key")).unwrap();
    let mut options = chip.options();
    let wrong = chip.folder.path().join("wrong");
    crate::software::write_new(&wrong, b"not the pin").unwrap();
    options.pin = PassphraseSource::File(wrong);
    let provider = Tpm::open(options).unwrap();
    for _ in 0..3 {
        let refused = provider.open(&uri("key")).err().unwrap();
        assert_eq!(refused.class(), ErrorClass::AuthFailed, "{refused}");
    }
    assert!(matches!(provider.health(), Health::Unusable { .. }));
    drop(provider);
    // A TPM locks after a handful of failures: it has seen one.
    chip.provider().open(&uri("key")).unwrap();
}

#[test]
fn a_key_file_that_was_altered_or_is_of_another_tpm_is_refused() {
    let Some(chip) = Chip::new() else { return };
    let provider = chip.provider();
    let made = provider.generate(&spec("key")).unwrap();
    let path = chip.options().folder.join("key.tpm2");
    let text = std::fs::read_to_string(&path).unwrap();
    let with = |altered: &str| {
        std::fs::write(&path, altered).unwrap();
        provider.open(&uri("key")).err().unwrap()
    };
    // Whoever may write the file cannot give the key more to do, with or without the digest that is bound to it.
    let wider = text.replace("\"certificate\"", "\"certificate,crl\"");
    assert_ne!(wider, text);
    let refused = with(&wider);
    assert!(matches!(refused, Error::Corrupted { .. }), "{refused}");
    let (label, purposes) = (KeyLabel::new("key").unwrap(), [Purpose::Certificate, Purpose::Crl].into());
    let hex = |policy: [u8; 32]| crate::public_key::hex(&policy);
    let (own, foreign) = (
        hex(key_file::policy(&label, [Purpose::Certificate].into(), None)),
        hex(key_file::policy(&label, purposes, None)),
    );
    let refused = with(&wider.replace(&own, &foreign));
    assert_eq!(refused.class(), ErrorClass::Permanent, "{refused}");
    assert!(matches!(refused, Error::Permanent { .. }), "{refused}");
    for altered in ["", "{}", &text.replace("mentat-tpm2-key/1", "mentat-tpm2-key/2")] {
        assert!(matches!(with(altered), Error::Corrupted { .. }));
    }
    std::fs::write(&path, &text).unwrap();
    assert_eq!(provider.open(&uri("key")).unwrap().public_key(), made.public_key());

    let other = Chip::new().unwrap();
    let mut options = other.options();
    options.folder = chip.options().folder;
    let refused = Tpm::open(options).unwrap().open(&uri("key")).err().unwrap();
    assert!(matches!(refused, Error::Permanent { .. }), "{refused}");
}

#[test]
fn an_answer_that_is_lost_after_the_command_was_sent_may_be_a_signature() {
    use std::io::{Read as _, Write as _};
    let Some(chip) = Chip::new() else { return };
    let key = chip.provider().generate(&spec("key")).unwrap();
    drop(key);
    // In front of the TPM: hangs up instead of giving the answer to the signature, once it was told to.
    let front = chip.folder.path().join("front");
    let listener = std::os::unix::net::UnixListener::bind(&front).unwrap();
    let (behind, hang_up) = (chip.socket(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let told = Arc::clone(&hang_up);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut header = [0; 10];
            if stream.read_exact(&mut header).is_err() {
                continue;
            }
            let size = u32::from_be_bytes(header[2..6].try_into().unwrap()) as usize;
            let mut command = header.to_vec();
            command.resize(size, 0);
            stream.read_exact(&mut command[10..]).unwrap();
            let is_signature = command[6..10] == [0, 0, 1, 0x5d];
            let mut chip = std::os::unix::net::UnixStream::connect(&behind).unwrap();
            chip.write_all(&command).unwrap();
            let mut answer = vec![0; 4096];
            let length = chip.read(&mut answer).unwrap();
            if !(is_signature && told.load(std::sync::atomic::Ordering::SeqCst)) {
                stream.write_all(&answer[..length]).unwrap();
            }
        }
    });
    let mut options = chip.options();
    options.place = Place::Unix(front);
    let provider = Tpm::open(options).unwrap();
    let signer = provider.open(&uri("key")).unwrap();
    hang_up.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = signer.sign_message(b"message", &intent()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Ambiguous, "{error}");
    hang_up.store(false, std::sync::atomic::Ordering::SeqCst);
    wait_for(|| signer.sign_message(b"message", &intent()).is_ok());
}

#[test]
fn a_persistent_handle_and_a_reference_without_a_folder_are_refused() {
    let Some(chip) = Chip::new() else { return };
    let handle = KeyUri::parse("tpm2:handle=0x81000001").unwrap();
    assert!(matches!(chip.provider().open(&handle), Err(Error::Unsupported { .. })));
    assert!(matches!(TpmOptions::from_uri(&uri("key")), Err(Error::Invalid { .. })));
}
