//! The library, its sessions, and coming back after the token was away.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error as Failure, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroize as _;

use super::{TokenIdentity, TokenOptions};
use crate::clock::monotonic;
use crate::error::Error;
use crate::provider::Health;

/// Pause before the first new attempt after a failure of the device; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest wait for a session that others use.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The session, the log-in or an object's handle is gone; nothing was done. A new session mends it.
    Session,
    /// The device or its library does not answer as it should; in the middle of a signature its outcome is unknown.
    Device,
    /// The PIN was refused.
    Pin,
    /// Anything else: asking again gives the same answer.
    Lasting,
}

pub(super) fn fault(failure: &Failure) -> Fault {
    let Failure::Pkcs11(code, _) = failure else { return Fault::Lasting };
    match code {
        RvError::CryptokiNotInitialized
        | RvError::KeyHandleInvalid
        | RvError::ObjectHandleInvalid
        | RvError::OperationActive
        | RvError::OperationNotInitialized
        | RvError::SessionClosed
        | RvError::SessionHandleInvalid
        | RvError::UserNotLoggedIn => Fault::Session,
        RvError::DeviceError
        | RvError::DeviceMemory
        | RvError::DeviceRemoved
        | RvError::FunctionCanceled
        | RvError::FunctionFailed
        | RvError::GeneralError
        | RvError::HostMemory
        | RvError::SessionCount
        | RvError::SlotIdInvalid
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized => Fault::Device,
        RvError::PinExpired
        | RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinLocked
        | RvError::UserPinNotInitialized => Fault::Pin,
        _ => Fault::Lasting,
    }
}

/// The crate's error for a failed call that produced nothing.
pub(super) fn error(failure: &Failure) -> Error {
    let detail = format!("PKCS#11: {failure}");
    match fault(failure) {
        Fault::Session | Fault::Device => Error::Transient { detail },
        Fault::Pin => Error::AuthFailed { what: "the PKCS#11 token".to_owned() },
        Fault::Lasting => Error::Permanent { detail },
    }
}

/// The crate's error for a failed signature: unknown, where the device may have made one. That is every answer to C_Sign but those
/// which the standard gives before anything is computed; a vendor's own codes stand for anything, a lost answer among others.
pub(super) fn signing_error(failure: &Failure) -> Error {
    match failure {
        Failure::Pkcs11(code, Function::Sign) if !refuses_to_sign(code) => {
            Error::Ambiguous { detail: format!("PKCS#11: {failure}") }
        }
        _ => error(failure),
    }
}

/// Answers to C_Sign that leave no doubt: nothing was signed (PKCS #11 v2.40, 5.1 and 5.11). `CKR_SESSION_CLOSED` is none of
/// them: that is a session closed while the function was at work.
fn refuses_to_sign(code: &RvError) -> bool {
    matches!(
        code,
        RvError::ArgumentsBad
            | RvError::CryptokiNotInitialized
            | RvError::DataInvalid
            | RvError::DataLenRange
            | RvError::FunctionNotSupported
            | RvError::FunctionRejected
            | RvError::KeyFunctionNotPermitted
            | RvError::KeyHandleInvalid
            | RvError::KeySizeRange
            | RvError::KeyTypeInconsistent
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::ObjectHandleInvalid
            | RvError::OperationNotInitialized
            | RvError::SessionHandleInvalid
            | RvError::UserNotLoggedIn
    )
}

/// Libraries of this process, loaded once each: a library is initialised once per process, whoever uses it.
fn libraries() -> MutexGuard<'static, HashMap<PathBuf, Pkcs11>> {
    static LOADED: OnceLock<Mutex<HashMap<PathBuf, Pkcs11>>> = OnceLock::new();
    LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn library(path: &Path) -> Result<Pkcs11, Error> {
    let mut loaded = libraries();
    if let Some(library) = loaded.get(path) {
        return Ok(library.clone());
    }
    let library = Pkcs11::new(path).map_err(|failure| Error::Permanent {
        detail: format!(
            "the PKCS#11 library {} cannot be loaded ({failure}); correct module-path",
            path.display()
        ),
    })?;
    initialize(&library)?;
    loaded.insert(path.to_owned(), library.clone());
    Ok(library)
}

fn initialize(library: &Pkcs11) -> Result<(), Error> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Failure::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(failure) => Err(error(&failure)),
    }
}

/// A logged-in way to one token.
pub(super) struct Connection {
    options: TokenOptions,
    library: Pkcs11,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Session>,
    /// Sessions of this epoch that exist, in use or idle.
    open: usize,
    /// Changes with every reconnection: older sessions and handles are void.
    epoch: u64,
    slot: Option<Slot>,
    refusal: Option<Refusal>,
    pause: Duration,
}

/// Why nothing is tried now.
enum Refusal {
    /// The PIN was refused; an operator must act.
    Pin,
    /// The device failed; tried again from this time of the monotonic clock on.
    Until(Duration, String),
}

/// A session in use.
pub(super) struct Leased<'a> {
    connection: &'a Connection,
    session: Option<Session>,
    pub(super) epoch: u64,
}

impl Leased<'_> {
    pub(super) fn session(&self) -> Result<&Session, Error> {
        self.session.as_ref().ok_or_else(|| Error::Transient { detail: "the session is gone".to_owned() })
    }
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        if let Some(session) = self.session.take()
            && state.epoch == self.epoch
        {
            state.idle.push(session);
        }
        drop(state);
        self.connection.returned.notify_one();
    }
}

impl Connection {
    pub(super) fn open(options: TokenOptions) -> Result<Self, Error> {
        let library = library(&options.module)?;
        let connection = Self {
            options,
            library,
            state: Mutex::new(State {
                idle: Vec::new(),
                open: 0,
                epoch: 0,
                slot: None,
                refusal: None,
                pause: FIRST_PAUSE,
            }),
            returned: Condvar::new(),
        };
        connection.once(|_| Ok(()))?;
        Ok(connection)
    }

    pub(super) fn options(&self) -> &TokenOptions {
        &self.options
    }

    #[cfg(test)]
    pub(super) fn library_for_tests(&self) -> Pkcs11 {
        self.library.clone()
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something that may be done twice: after a lost session it is.
    pub(super) fn repeat<T>(&self, work: impl Fn(&Session) -> Result<T, Failure>) -> Result<T, Error> {
        for _ in 0..2 {
            let leased = self.lease()?;
            match work(leased.session()?) {
                Ok(done) => return Ok(done),
                Err(failure) => {
                    let epoch = leased.epoch;
                    drop(leased);
                    self.note(&failure, epoch);
                    if fault(&failure) != Fault::Session && fault(&failure) != Fault::Device {
                        return Err(error(&failure));
                    }
                }
            }
        }
        Err(Error::Transient { detail: "the PKCS#11 token does not answer".to_owned() })
    }

    /// Runs something that must not be done twice.
    pub(super) fn once<T>(&self, work: impl FnOnce(&Session) -> Result<T, Failure>) -> Result<T, Error> {
        let leased = self.lease()?;
        let outcome = work(leased.session()?);
        outcome.map_err(|failure| {
            let epoch = leased.epoch;
            drop(leased);
            self.note(&failure, epoch);
            error(&failure)
        })
    }

    /// Takes note of a failure: sessions of its epoch are given up, and after one of the device nothing is tried for a while.
    pub(super) fn note(&self, failure: &Failure, epoch: u64) {
        let kind = fault(failure);
        if kind == Fault::Lasting {
            return;
        }
        let mut state = self.lock();
        if state.epoch == epoch {
            state.give_up();
        }
        match kind {
            Fault::Pin => state.refusal = Some(Refusal::Pin),
            Fault::Device => state.wait(failure.to_string()),
            Fault::Session | Fault::Lasting => {}
        }
        drop(state);
        self.returned.notify_all();
    }

    /// A logged-in session, for one caller.
    pub(super) fn lease(&self) -> Result<Leased<'_>, Error> {
        let mut state = self.lock();
        loop {
            match &state.refusal {
                Some(Refusal::Pin) => {
                    return Err(Error::AuthFailed { what: "the PKCS#11 token".to_owned() });
                }
                Some(Refusal::Until(until, detail)) if *until > monotonic() => {
                    return Err(Error::Transient { detail: detail.clone() });
                }
                _ => {}
            }
            if let Some(session) = state.idle.pop() {
                return Ok(Leased { connection: self, session: Some(session), epoch: state.epoch });
            }
            if state.open < self.options.sessions.max(1) {
                // Under the lock: one caller reconnects, the others wait for it.
                return match self.connect(&mut state) {
                    Ok(session) => {
                        state.refusal = None;
                        state.pause = FIRST_PAUSE;
                        state.open += 1;
                        Ok(Leased { connection: self, session: Some(session), epoch: state.epoch })
                    }
                    Err(failure) => {
                        match fault(&failure) {
                            Fault::Pin => state.refusal = Some(Refusal::Pin),
                            Fault::Session | Fault::Device => state.wait(failure.to_string()),
                            Fault::Lasting => {}
                        }
                        Err(match failure {
                            Failure::PinNotSet => {
                                Error::Permanent { detail: "the PIN cannot be read".to_owned() }
                            }
                            failure => error(&failure),
                        })
                    }
                };
            }
            let (next, timeout) =
                self.returned.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() {
                return Err(Error::Transient { detail: "every session of the token is in use".to_owned() });
            }
        }
    }

    /// Opens a session and logs in; starts the library anew when the token is not to be found otherwise.
    fn connect(&self, state: &mut State) -> Result<Session, Failure> {
        match self.session(state.slot) {
            Err(failure) if matches!(fault(&failure), Fault::Session | Fault::Device) => {}
            outcome => return outcome,
        }
        // Its slot may have another number now.
        state.give_up();
        if let Ok(slot) = self.find_slot() {
            state.slot = Some(slot);
            if let Ok(session) = self.session(state.slot) {
                return Ok(session);
            }
        }
        // Some libraries look for tokens only when they start. Other connections of this process reconnect as this one does.
        let _serial = libraries();
        let _ = self.library.clone().finalize();
        match self.library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Failure::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(failure) => return Err(failure),
        }
        let slot = self.find_slot()?;
        state.slot = Some(slot);
        self.session(Some(slot))
    }

    fn find_slot(&self) -> Result<Slot, Failure> {
        let absent = Failure::Pkcs11(RvError::TokenNotPresent, Function::GetSlotList);
        let mut found = None;
        for slot in self.library.get_slots_with_initialized_token()? {
            if self.is_meant(slot)? {
                // Two tokens of one name: neither is meant.
                if found.replace(slot).is_some() {
                    return Err(Failure::InvalidValue);
                }
            }
        }
        found.ok_or(absent)
    }

    /// Whether the token in a slot is the one of the options.
    fn is_meant(&self, slot: Slot) -> Result<bool, Failure> {
        Ok(self.library.get_token_info(slot)?.label() == self.options.token
            && self.options.only.admits(&self.identity_in(slot)?))
    }

    fn identity_in(&self, slot: Slot) -> Result<TokenIdentity, Failure> {
        let found = self.library.get_token_info(slot)?;
        Ok(TokenIdentity {
            manufacturer: Some(found.manufacturer_id().to_owned()),
            model: Some(found.model().to_owned()),
            serial: Some(found.serial_number().to_owned()),
            slot_id: Some(slot.id()),
        })
    }

    /// What the token says of itself.
    pub(super) fn identity(&self) -> Result<TokenIdentity, Error> {
        self.repeat(|session| {
            let slot = session.get_session_info()?.slot_id();
            self.identity_in(slot)
        })
    }

    fn session(&self, slot: Option<Slot>) -> Result<Session, Failure> {
        let slot = match slot {
            Some(slot) => slot,
            None => self.find_slot()?,
        };
        // Numbers of slots are given anew at every start of a library: a PIN must never reach another token.
        if !self.is_meant(slot)? {
            return Err(Failure::Pkcs11(RvError::TokenNotPresent, Function::GetTokenInfo));
        }
        let session = self.library.open_rw_session(slot)?;
        let pin = self.options.pin.read().map_err(|_| Failure::PinNotSet)?;
        let mut text = String::from_utf8(pin.expose().to_vec()).map_err(|_| Failure::PinNotSet)?;
        let pin = AuthPin::new(text.as_str().into());
        text.zeroize();
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Failure::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(failure) => Err(failure),
        }
    }
}

impl State {
    /// Voids every session and handle.
    fn give_up(&mut self) {
        self.epoch += 1;
        self.open = 0;
        self.idle.clear();
    }

    fn wait(&mut self, detail: String) {
        self.refusal = Some(Refusal::Until(monotonic() + self.pause, detail));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
