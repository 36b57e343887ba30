//! Asking for and using what policy granted: the same for core modules and components.

use trust_store::capability::{Capability, CapabilityKind};

use executor_engine::frames::Ask;

use super::sinks::Level;
use super::{ErrorCode, MAX_NAME_BYTES, short_enough};
use crate::admission::Lookup;
use crate::extensions::{Invocation, has_interface};
use crate::runtime::{Asked, GuestState, Rated};

impl GuestState {
    /// What a guest's text asks for, if it may have it.
    pub(crate) fn request(&mut self, text: &str) -> Result<Capability, ErrorCode> {
        if let Some(door) = self.door() {
            // What is too long is no capability; the executor counts it as such.
            let capability = if text.len() > MAX_NAME_BYTES { "" } else { text };
            let answer = door.ask(Ask::Request { capability });
            short_enough(text, MAX_NAME_BYTES)?;
            answer?;
            return text.parse().map_err(|_| ErrorCode::Io);
        }
        self.spend(Rated::Capability, 0)?;
        let parsed = if text.len() > MAX_NAME_BYTES { None } else { text.parse::<Capability>().ok() };
        let Some(capability) = parsed else {
            self.conduct().asked(None, Asked::Malformed);
            return Err(short_enough(text, MAX_NAME_BYTES).err().unwrap_or(ErrorCode::InvalidArgument));
        };
        let (asked, answer) = match self.grants().lookup(&capability) {
            Lookup::Granted => (Asked::Granted, Ok(())),
            Lookup::NotInManifest => (Asked::Refused, Err(ErrorCode::NotInManifest)),
            Lookup::NotGranted => (Asked::Refused, Err(ErrorCode::PolicyDenied)),
        };
        self.conduct().asked(Some(capability.kind()), asked);
        if asked == Asked::Refused {
            self.conduct().refused("capability_denied", capability.to_string());
        }
        answer.map(|()| capability)
    }

    /// Uses a capability that a handle stands for. Checked on every use: the grant may be narrower than the handle's
    /// text was when it was given.
    pub(crate) fn invoke(
        &mut self,
        capability: &Capability,
        operation: &str,
        arguments: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        short_enough(operation, MAX_NAME_BYTES)?;
        if let Some(door) = self.door() {
            let capability = capability.to_string();
            return door.ask(Ask::Invoke { capability: &capability, operation, arguments });
        }
        self.spend(Rated::Capability, 0)?;
        if self.grants().lookup(capability) != Lookup::Granted {
            return Err(ErrorCode::PolicyDenied);
        }
        match (capability, operation) {
            (Capability::Env(name), "get") => {
                let value = self.grants().env().get(name.as_str());
                value.map(|value| value.clone().into_bytes()).ok_or(ErrorCode::Io)
            }
            (Capability::Network { .. }, "request") => self.request_over_network(capability, arguments),
            (Capability::Env(_) | Capability::Network { .. }, _) => Err(ErrorCode::InvalidArgument),
            (Capability::Extension { name, argument }, _) if !has_interface(name) => {
                self.invoke_extension(name, argument.as_deref(), operation, arguments)
            }
            _ => Err(ErrorCode::NotSupported),
        }
    }

    /// Does one operation of an extension that the operator registered.
    fn invoke_extension(
        &mut self,
        name: &str,
        argument: Option<&str>,
        operation: &str,
        arguments: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        let (cancel, deadline) = (self.kill(), self.deadline());
        let grants = self.grants();
        let tenant = grants.tenant().ok_or(ErrorCode::PolicyDenied)?;
        let cancel = &cancel;
        let invocation = Invocation { tenant, argument, operation, arguments, deadline, cancel };
        grants.extensions().invoke(name, &invocation).map_err(|error| {
            if let Some(reason) = error.reason() {
                let text = format!("{reason}: {name}: {error}");
                self.log(Some(Level::Warn), Ok(&text));
                self.conduct().refused(reason, format!("{name}: {error}"));
            }
            error.code()
        })
    }

    /// Sends one HTTP request of the guest and waits for its answer.
    fn request_over_network(
        &mut self,
        capability: &Capability,
        arguments: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        debug_assert_eq!(capability.kind(), CapabilityKind::Network);
        let egress = self.grants().network().ok_or(ErrorCode::PolicyDenied)?;
        let (kill, deadline) = (self.kill(), self.deadline());
        let sent = egress.perform(capability, arguments, &kill, deadline, &mut self.conduct().network);
        sent.map_err(|refused| {
            self.note_refused_by_egress(&refused);
            refused.code()
        })
    }

    /// The guest's log and the audit record say which rule it was: the number that the guest gets says little.
    pub(crate) fn note_refused_by_egress(&mut self, refused: &crate::egress::Refused) {
        let text = format!("{}: {refused}", refused.reason());
        self.log(Some(Level::Warn), Ok(&text));
        self.conduct().refused(refused.reason(), refused.to_string());
    }
}
