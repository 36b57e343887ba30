use std::sync::mpsc;

use super::*;
use crate::developer::DeveloperKey;
use crate::{KeyAlgorithm, ProtectionLevel, PublicKey, Purpose, PurposeSet};

fn key() -> DeveloperKey {
    DeveloperKey::generate(KeyAlgorithm::EcdsaP256).unwrap()
}

fn submit(pool: &SigningPool, signer: Arc<dyn Signer>) -> Result<PendingSignature, Error> {
    let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
    pool.submit(signer, OwnedInput::Message(b"m".to_vec()), SignatureAlgorithm::EcdsaP256Sha256, intent)
}

/// Signs when it is let; or panics.
struct Gate {
    key: DeveloperKey,
    entered: mpsc::Sender<()>,
    release: Mutex<mpsc::Receiver<()>>,
}

impl Signer for Gate {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }
    fn protection(&self) -> ProtectionLevel {
        ProtectionLevel::Software
    }
    fn purposes(&self) -> PurposeSet {
        self.key.purposes()
    }
    fn sign(&self, i: Input<'_>, a: SignatureAlgorithm, intent: &SigningIntent) -> Result<Signature, Error> {
        self.entered.send(()).unwrap();
        self.release.lock().unwrap().recv().expect("the test panics the signer by dropping its end");
        self.key.sign(i, a, intent)
    }
}

fn gate() -> (Arc<dyn Signer>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel();
    (Arc::new(Gate { key: key(), entered, release: Mutex::new(released) }), has_entered, release)
}

#[test]
fn signatures_come_back_by_waiting_and_by_polling() {
    let pool = SigningPool::new(2, 8).unwrap();
    let key = key();
    let verified = |signature: Signature| {
        let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
        key.public_key().verify(algorithm, Input::Message(b"m"), signature.as_bytes()).unwrap();
    };
    verified(submit(&pool, key.signer()).unwrap().wait().unwrap());
    let mut pending = std::pin::pin!(submit(&pool, key.signer()).unwrap());
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let signature = loop {
        match pending.as_mut().poll(&mut context) {
            Poll::Ready(result) => break result.unwrap(),
            Poll::Pending => std::thread::park(),
        }
    };
    verified(signature);
}

struct Unpark(std::thread::Thread);
impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_full_queue_is_said_at_once_and_nothing_is_lost() {
    let pool = SigningPool::new(1, 1).unwrap();
    let (signer, has_entered, release) = gate();
    let first = submit(&pool, Arc::clone(&signer)).unwrap();
    has_entered.recv().unwrap();
    let second = submit(&pool, Arc::clone(&signer)).unwrap();
    let refused = submit(&pool, signer).err().unwrap();
    assert_eq!(refused.to_string(), "temporarily unavailable: the signing queue is full");
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert!(first.wait().is_ok());
    assert!(second.wait().is_ok());
}

#[test]
fn a_panicking_signer_is_ambiguous_and_its_thread_lives_on() {
    let pool = SigningPool::new(1, 4).unwrap();
    let (signer, has_entered, release) = gate();
    let pending = submit(&pool, signer).unwrap();
    has_entered.recv().unwrap();
    drop(release);
    assert!(matches!(pending.wait(), Err(Error::Ambiguous { .. })));
    assert!(submit(&pool, key().signer()).unwrap().wait().is_ok());
}

#[test]
fn dropping_the_pool_finishes_what_was_handed_in() {
    let pool = SigningPool::new(1, 64).unwrap();
    let signer = key().signer();
    let pending: Vec<_> = (0..50).map(|_| submit(&pool, Arc::clone(&signer)).unwrap()).collect();
    drop(pool);
    assert!(pending.into_iter().all(|p| p.wait().is_ok()));
}

/// Notes the thread it signs on.
struct Witnessed(DeveloperKey, Pace, Mutex<Option<std::thread::ThreadId>>);

impl Signer for Witnessed {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }
    fn protection(&self) -> ProtectionLevel {
        ProtectionLevel::Software
    }
    fn purposes(&self) -> PurposeSet {
        self.0.purposes()
    }
    fn pace(&self) -> Pace {
        self.1
    }
    fn sign(&self, i: Input<'_>, a: SignatureAlgorithm, intent: &SigningIntent) -> Result<Signature, Error> {
        *self.2.lock().unwrap() = Some(std::thread::current().id());
        self.0.sign(i, a, intent)
    }
}

#[test]
fn only_a_prompt_signer_signs_on_the_callers_thread() {
    let pool = SigningPool::new(1, 4).unwrap();
    for (pace, here) in [(Pace::Prompt, true), (Pace::Blocks, false)] {
        let signer = Arc::new(Witnessed(key(), pace, Mutex::default()));
        let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
        let input = OwnedInput::Message(b"m".to_vec());
        let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
        let signature =
            pool.submit_or_sign(signer.clone(), input, algorithm, intent).unwrap().wait().unwrap();
        let message = Input::Message(b"m");
        signer.public_key().verify(algorithm, message, signature.as_bytes()).unwrap();
        assert_eq!(*signer.2.lock().unwrap() == Some(std::thread::current().id()), here, "{pace:?}");
    }
    // A refusal stays one, and a panic leaves it open whether there is a signature.
    let signer = Arc::new(Witnessed(key(), Pace::Prompt, Mutex::default()));
    let intent = SigningIntent::fresh(Purpose::Certificate).unwrap();
    let input = OwnedInput::Message(b"m".to_vec());
    let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
    let refused = pool.submit_or_sign(signer, input, algorithm, intent).unwrap().wait();
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
}

#[test]
fn which_software_keys_are_prompt_is_known() {
    for (algorithm, pace) in [
        (KeyAlgorithm::EcdsaP256, Pace::Prompt),
        (KeyAlgorithm::Ed25519, Pace::Prompt),
        (KeyAlgorithm::EcdsaP384, Pace::Blocks),
        (KeyAlgorithm::MlDsa44, Pace::Blocks),
    ] {
        assert_eq!(DeveloperKey::generate(algorithm).unwrap().signer().pace(), pace, "{algorithm}");
    }
}
