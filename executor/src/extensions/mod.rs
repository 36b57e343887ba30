//! Host extensions: what an operator adds to this executor, granted as `extension:NAME`.
//!
//! An extension is registered when the executor starts and never later. A guest reaches it by a handle of the capability and
//! `invoke`, in core modules and components alike, in this process and through a worker: manifest, policy and registry must all
//! name it. What an extension bounds by its [`Operation`]s is held here, before it is called and after it answered; what it keeps,
//! it keeps by [`Tenant`].
//!
//! `media` and `stream` are extensions with an interface of their own (`has_interface`): their functions are linked, not invoked, so
//! nothing is registered under their names.

pub mod key_value;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use crate::abi::ErrorCode;
use crate::runtime::Cancel;

/// Most extensions of one executor.
const MAX_EXTENSIONS: usize = 64;

/// Most operations of one extension.
const MAX_OPERATIONS: usize = 64;

/// Longest name, as in the grammar of capabilities.
const MAX_NAME: usize = 64;

/// Something that guests may be granted by its name.
///
/// [`Self::invoke`] is called on the thread of a guest, from many at once, and MUST return soon after
/// [`Invocation::deadline`] or once [`Invocation::cancel`] was raised: until it does, nothing ends the call. It MUST hold what it
/// keeps for one [`Tenant`] apart from every other, and bound it. It MUST NOT retry what may have been done.
pub trait HostExtension: Debug + Send + Sync {
    /// The name that manifests and policies use: `[a-z][a-z0-9-]*`, at most 64 bytes.
    fn name(&self) -> &str;

    /// Everything it can do, with its bounds. Nothing else reaches [`Self::invoke`].
    fn operations(&self) -> &'static [Operation];

    /// Whether it knows the argument of `extension:NAME:ARGUMENT`, which narrows a grant. One that it does not know is
    /// refused, since the whole would be given instead.
    fn knows(&self, argument: &str) -> bool {
        let _ = argument;
        false
    }

    /// Does one operation.
    ///
    /// # Errors
    ///
    /// What keeps it from being done. The guest gets the number, its log and the audit record the reason.
    fn invoke(&self, invocation: &Invocation<'_>) -> Result<Vec<u8>, ExtensionError>;

    /// The last release of an agent was unloaded: whatever is kept for it may go. An invocation that began before may still be under
    /// way: what it would keep after this is nobody's, and one that waits SHOULD look before it keeps anything.
    fn forget(&self, agent: &str) {
        let _ = agent;
    }
}

/// One operation, and what bounds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Most bytes of arguments.
    pub arguments: usize,
    /// Most bytes of an answer.
    pub answer: usize,
}

/// Whose guest asks: the agent of the signed manifest, and who published it. Another publisher's agent of the same id is
/// another tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant {
    /// Agent id.
    pub agent: String,
    /// Verified name of the signer.
    pub signer: String,
    /// Who vouched for that name; empty if the certificate does not say.
    pub issuer: String,
}

/// One use of an extension by a guest.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// Whose guest it is.
    pub tenant: &'a Tenant,
    /// The argument of the handle's capability: what is not within it is denied.
    pub argument: Option<&'a str>,
    /// One of [`HostExtension::operations`].
    pub operation: &'a str,
    /// Within the operation's bound.
    pub arguments: &'a [u8],
    /// When the call ends at the latest.
    pub deadline: Instant,
    /// Raised when the call is to end sooner.
    pub cancel: &'a Cancel,
}

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The argument of the grant does not include it.
    #[error("{0}")]
    Denied(&'static str),
    /// The extension failed. The text is for the audit record and the guest's log: nothing in it may be a secret.
    #[error("{0}")]
    Failed(String),
    /// The arguments are none of this operation.
    #[error("{0}")]
    Malformed(&'static str),
    /// There is nothing under that name: an answer, not a refusal.
    #[error("there is nothing under that name")]
    NotFound,
    /// A bound is reached.
    #[error("{0}")]
    Quota(&'static str),
    /// It took too long, or the call was ended.
    #[error("it took too long")]
    TimedOut,
}

impl ExtensionError {
    /// What the guest is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Denied(_) => ErrorCode::PolicyDenied,
            Self::Failed(_) | Self::NotFound => ErrorCode::Io,
            Self::Malformed(_) => ErrorCode::InvalidArgument,
            Self::Quota(_) => ErrorCode::Limit,
            Self::TimedOut => ErrorCode::TimedOut,
        }
    }

    /// The stable reason of a refusal; an answer has none.
    pub(crate) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Denied(_) => Some("extension_denied"),
            Self::Failed(_) => Some("extension_failed"),
            Self::Malformed(_) => Some("extension_malformed"),
            Self::NotFound => None,
            Self::Quota(_) => Some("extension_quota"),
            Self::TimedOut => Some("extension_timeout"),
        }
    }
}

/// Why an extension is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The name is outside the grammar of capabilities.
    #[error("{0:?} is no name of an extension: [a-z][a-z0-9-]*, at most 64 bytes")]
    Name(String),
    /// It has no operation, too many, or two of one name.
    #[error("the extension {0:?} has no operations, more than {MAX_OPERATIONS}, or two of one name")]
    Operations(String),
    /// The name belongs to another extension, or to an interface of the executor's own.
    #[error("there is an extension {0:?} already")]
    Taken(String),
    /// There are as many as one executor has.
    #[error("an executor has at most {MAX_EXTENSIONS} extensions")]
    TooMany,
}

/// Whether the functions of an extension are linked under a name of their own, so that no handle leads to it.
pub(crate) fn has_interface(name: &str) -> bool {
    matches!(name, "media" | "stream")
}

/// The extensions of one executor, by name.
#[derive(Debug, Clone, Default)]
pub struct Extensions(BTreeMap<String, Arc<dyn HostExtension>>);

impl Extensions {
    /// Adds one.
    ///
    /// # Errors
    ///
    /// When its name or its operations cannot be offered.
    pub fn register(&mut self, extension: Arc<dyn HostExtension>) -> Result<(), RegistrationError> {
        let name = extension.name().to_owned();
        let mut bytes = name.bytes();
        let begins = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let plain = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !begins || !plain || name.len() > MAX_NAME {
            return Err(RegistrationError::Name(name));
        }
        if has_interface(&name) || self.0.contains_key(&name) {
            return Err(RegistrationError::Taken(name));
        }
        let mut operations: Vec<&str> = extension.operations().iter().map(|one| one.name).collect();
        let all = operations.len();
        operations.sort_unstable();
        operations.dedup();
        if all == 0 || all > MAX_OPERATIONS || operations.len() != all {
            return Err(RegistrationError::Operations(name));
        }
        if self.0.len() >= MAX_EXTENSIONS {
            return Err(RegistrationError::TooMany);
        }
        self.0.insert(name, extension);
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Why this executor cannot provide what policy would grant.
    pub(crate) fn lacks(&self, name: &str, argument: Option<&str>) -> Option<&'static str> {
        match (self.0.get(name), argument) {
            (None, _) => Some("this executor has no such extension"),
            (Some(extension), Some(argument)) if !extension.knows(argument) => {
                Some("this executor's extension does not know the argument")
            }
            (Some(_), _) => None,
        }
    }

    /// Those of these names.
    pub(crate) fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| wanted(name));
        Self(kept.map(|(name, extension)| (name.clone(), Arc::clone(extension))).collect())
    }

    /// The last release of an agent was unloaded.
    pub(crate) fn forget(&self, agent: &str) {
        for extension in self.0.values() {
            extension.forget(agent);
        }
    }

    /// Does one operation of the extension `name`, within its bounds.
    pub(crate) fn invoke(&self, name: &str, invocation: &Invocation<'_>) -> Result<Vec<u8>, ExtensionError> {
        let Some(extension) = self.0.get(name) else {
            return Err(ExtensionError::Denied("it was not granted"));
        };
        let known = |argument| extension.knows(argument);
        if !invocation.argument.is_none_or(known) {
            return Err(ExtensionError::Malformed("the extension does not know the argument"));
        }
        let operation = extension.operations().iter().find(|one| one.name == invocation.operation);
        let Some(operation) = operation else {
            return Err(ExtensionError::Malformed("the extension has no such operation"));
        };
        if invocation.arguments.len() > operation.arguments {
            return Err(ExtensionError::Quota("the arguments are longer than the operation takes"));
        }
        let answer = extension.invoke(invocation)?;
        if answer.len() > operation.answer {
            return Err(ExtensionError::Failed("the answer is longer than the operation gives".to_owned()));
        }
        Ok(answer)
    }
}
