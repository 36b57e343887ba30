//! One TPM: loaded objects, and coming back after it was away.
//!
//! A TPM has room for three loaded objects, and does one thing at a time. Two are kept loaded: the parent and the key that signed last.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::TpmOptions;
use super::command::{self, Code, Command, Handle, Reader};
use super::key_file::KeyFile;
use super::template;
use super::transport::{Lost, Sent, Transport};
use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::clock::monotonic;
use crate::error::Error;
use crate::provider::Health;

/// Pause before the first new attempt after a failure; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pause before a busy TPM is asked again, and how often it is.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const BUSY_ATTEMPTS: u32 = 500;

/// What a failed command means.
#[derive(Debug)]
enum Fault {
    /// The TPM refused it; nothing was done.
    Refused(Code),
    /// It did not answer.
    Silent(Lost),
    /// It answered what cannot be read.
    Nonsense,
}

impl From<Lost> for Fault {
    fn from(lost: Lost) -> Self {
        Self::Silent(lost)
    }
}

/// A TPM and what is loaded in it.
pub(super) struct Connection {
    options: TpmOptions,
    state: Mutex<State>,
}

struct State {
    transport: Transport,
    parent: Option<Handle>,
    /// The key that signed last: digest of its file's halves.
    key: Option<([u8; 32], Handle)>,
    refusal: Option<Refusal>,
    pause: Duration,
}

/// Why nothing is tried now.
enum Refusal {
    /// The PIN was refused; an operator must act.
    Pin,
    /// It failed; tried again from this time of the monotonic clock on.
    Until(Duration, String),
}

impl Connection {
    pub(super) fn open(options: TpmOptions) -> Result<Self, Error> {
        let transport = Transport::new(options.place.clone());
        let state = State { transport, parent: None, key: None, refusal: None, pause: FIRST_PAUSE };
        let connection = Self { options, state: Mutex::new(state) };
        connection.with(|state| state.parent().map(|_| ()))?;
        Ok(connection)
    }

    pub(super) fn options(&self) -> &TpmOptions {
        &self.options
    }

    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        match &state.refusal {
            None => Health::Usable,
            Some(Refusal::Pin) => Health::Unusable { detail: "the PIN was refused".to_owned() },
            Some(Refusal::Until(until, detail)) if *until > monotonic() => {
                Health::Unusable { detail: detail.clone() }
            }
            Some(Refusal::Until(_, detail)) => Health::Probing { detail: detail.clone() },
        }
    }

    /// Whether the TPM has keys of this kind.
    pub(super) fn supports(&self, algorithm: KeyAlgorithm) -> Result<bool, Error> {
        let Some((kind, parameters)) = template::parameters(algorithm) else { return Ok(false) };
        let parameters = [&kind.to_be_bytes()[..], &parameters].concat();
        self.with(|state| match state.send(&command::test_parameters(&parameters)) {
            Ok(_) => Ok(true),
            Err(Fault::Refused(Code::Lasting(_))) => Ok(false),
            Err(fault) => Err(fault),
        })
    }

    /// Makes a key. Its public and its private half are returned; nothing stays in the TPM.
    pub(super) fn create(&self, public: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let auth = self.auth()?;
        self.with(|state| {
            let parent = state.parent()?;
            let body = state.send(&command::create(parent, &auth, public))?;
            let halves = |mut reader: Reader<'_>| {
                let _parameter_size = reader.u32()?;
                let private = reader.sized()?.to_vec();
                Some((reader.sized()?.to_vec(), private))
            };
            halves(Reader::new(&body)).ok_or(Fault::Nonsense)
        })
    }

    /// Signs a digest once. What may have been signed is not signed again.
    pub(super) fn sign(
        &self,
        key: &KeyFile,
        digest: &[u8],
        algorithm: SignatureAlgorithm,
    ) -> Result<Vec<u8>, Error> {
        let scheme = template::scheme(algorithm).ok_or_else(|| Error::Unsupported {
            what: algorithm.to_string(),
            reason: "TPMs sign with ECDSA and RSA",
        })?;
        let auth = self.auth()?;
        let mut state = self.ready()?;
        for second in [false, true] {
            let handle = match state.key(key) {
                Ok(handle) => handle,
                Err(fault) => return Err(state.note(fault)),
            };
            match state.send(&command::sign(handle, &auth, digest, scheme.0, scheme.1)) {
                Ok(body) => {
                    state.recovered();
                    return template::signature(&body, scheme).ok_or(Error::SelfCheck { algorithm });
                }
                // The handle was void, as after a reset: nothing was signed.
                Err(Fault::Refused(Code::Gone)) if !second => state.forget(),
                Err(Fault::Silent(lost)) if lost.sent == Sent::Maybe => {
                    let detail = format!("TPM: {}", lost.detail);
                    state.note(Fault::Silent(lost));
                    return Err(Error::Ambiguous { detail });
                }
                Err(fault) => return Err(state.note(fault)),
            }
        }
        Err(state.note(Fault::Refused(Code::Gone)))
    }

    /// What is loaded may not be what it seems: loads it anew at the next use.
    pub(super) fn distrust(&self) {
        self.lock().forget();
    }

    /// The authorisation of every key: the PIN, brought to the length that a TPM takes.
    fn auth(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let pin = self.options.pin.read()?;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"mentat tpm2 key auth 1\n");
        context.update(pin.expose());
        let mut auth = Zeroizing::new(context.finish().as_ref().to_vec());
        // TPMs leave zeros at the end out of what they compare.
        while auth.last() == Some(&0) {
            auth.pop();
        }
        Ok(auth)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, when something may be tried now.
    fn ready(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.lock();
        match &state.refusal {
            Some(Refusal::Pin) => Err(Error::AuthFailed { what: "the TPM's keys".to_owned() }),
            Some(Refusal::Until(until, detail)) if *until > monotonic() => {
                Err(Error::Transient { detail: detail.clone() })
            }
            _ => Ok(state),
        }
    }

    /// Does what may be done twice: after a reset it is.
    fn with<T>(&self, work: impl Fn(&mut State) -> Result<T, Fault>) -> Result<T, Error> {
        let mut state = self.ready()?;
        let outcome = match work(&mut state) {
            Err(Fault::Refused(Code::Gone)) => {
                state.forget();
                work(&mut state)
            }
            outcome => outcome,
        };
        match outcome {
            Ok(done) => {
                state.recovered();
                Ok(done)
            }
            Err(fault) => Err(state.note(fault)),
        }
    }
}

impl Drop for Connection {
    /// Gives the room back: without a resource manager nobody else would.
    fn drop(&mut self) {
        self.lock().forget();
    }
}

impl State {
    /// Sends a command and returns the body of its answer. A busy TPM is asked again, one that was not started is.
    fn send(&mut self, bytes: &Command) -> Result<Vec<u8>, Fault> {
        let mut started = false;
        for _ in 0..BUSY_ATTEMPTS {
            let answer = self.transport.exchange(bytes)?;
            let (value, body) = command::answer(&answer).ok_or(Fault::Nonsense)?;
            if value == 0 {
                return Ok(body.to_vec());
            }
            match command::code(value) {
                Code::Retry => std::thread::sleep(BUSY_PAUSE),
                Code::NotStarted if !started => {
                    started = true;
                    self.forget();
                    self.transport.exchange(&command::startup())?;
                }
                code => return Err(Fault::Refused(code)),
            }
        }
        Err(Fault::Refused(Code::Retry))
    }

    /// The parent of all keys, loaded.
    fn parent(&mut self) -> Result<Handle, Fault> {
        if let Some(handle) = self.parent {
            return Ok(handle);
        }
        let body = self.send(&command::create_primary(&template::storage()))?;
        let handle = Reader::new(&body).u32().ok_or(Fault::Nonsense)?;
        self.parent = Some(handle);
        Ok(handle)
    }

    /// A key, loaded in the place of the one before.
    fn key(&mut self, key: &KeyFile) -> Result<Handle, Fault> {
        // Not by its public key: who altered the file must not be served by what was loaded before.
        let name = key.content_sha256();
        match self.key {
            Some((loaded, handle)) if loaded == name => return Ok(handle),
            Some((_, handle)) => {
                self.key = None;
                match self.send(&command::flush(handle)) {
                    Ok(_) | Err(Fault::Refused(_)) => {}
                    Err(fault) => return Err(fault),
                }
            }
            None => {}
        }
        let parent = self.parent()?;
        let load = command::load(parent, &key.private, &key.public);
        let body = match self.send(&load) {
            Err(Fault::Refused(Code::Gone)) => {
                self.forget();
                let parent = self.parent()?;
                self.send(&command::load(parent, &key.private, &key.public))?
            }
            outcome => outcome?,
        };
        let handle = Reader::new(&body).u32().ok_or(Fault::Nonsense)?;
        self.key = Some((name, handle));
        Ok(handle)
    }

    /// Voids every handle.
    fn forget(&mut self) {
        for handle in [self.key.take().map(|(_, handle)| handle), self.parent.take()].into_iter().flatten() {
            // Where it is still loaded it would take up room; where it is not, the TPM says so.
            let _ = self.transport.exchange(&command::flush(handle));
        }
    }

    fn recovered(&mut self) {
        self.refusal = None;
        self.pause = FIRST_PAUSE;
    }

    /// Takes note of a failure, and gives the crate's error for it.
    fn note(&mut self, fault: Fault) -> Error {
        let place = self.transport.place().to_string();
        let (detail, lasting) = match fault {
            Fault::Refused(Code::Auth) => {
                self.refusal = Some(Refusal::Pin);
                return Error::AuthFailed { what: "the TPM's keys".to_owned() };
            }
            Fault::Refused(Code::Lasting(code)) => (format!("TPM {place}: it refuses with {code:#x}"), true),
            Fault::Refused(code) => (format!("TPM {place}: {code:?}"), false),
            Fault::Silent(lost) => (format!("TPM {place}: {}", lost.detail), false),
            Fault::Nonsense => (format!("TPM {place}: an answer that cannot be read"), false),
        };
        if lasting {
            return Error::Permanent { detail };
        }
        // The handles stay: where they are void by then the TPM says so, and where they are not the objects would be in the way.
        self.refusal = Some(Refusal::Until(monotonic() + self.pause, detail.clone()));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Error::Transient { detail }
    }
}
