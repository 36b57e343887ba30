//! A host that is no executor: agents run natively, in the test's own process, and the test sees what they did.
//!
//! It keeps the rules of the interface that an agent can notice: grammars, lengths, handles, what was not granted. It has no limits of
//! time and memory, and grants what the test says, where an executor asks its policy.
//!
//! ```
//! use mentat_sdk::{Context, Input, Output, Result, fake};
//!
//! fn secret(context: &Context, _: Input) -> Result<Output> {
//!     Ok(Output::text(context.environment("GREETING")?))
//! }
//!
//! assert_eq!(fake::Host::new().environment("GREETING", "hi").call(secret).text(), "hi");
//! // Nothing granted: error −3, and the exit code of every refusal by the host.
//! assert_eq!(fake::Host::new().call(secret).exit_code, 3);
//! ```

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use crate::agent::{Agent, run, run_function};
use crate::context::{Context, Level};
use crate::error::{HostError, Result};
use crate::input::Input;
use crate::output::Output;

pub(crate) mod raw;

/// What a capability does when it is used: operation and arguments to a result.
type Operation = Box<dyn FnMut(&str, &[u8]) -> Result<Vec<u8>, HostError>>;

/// A host for one call.
#[derive(Default)]
pub struct Host {
    input: Vec<u8>,
    capabilities: BTreeMap<String, Operation>,
    media: Option<BTreeMap<String, Vec<u8>>>,
    streams: bool,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("granted", &self.capabilities.keys()).finish_non_exhaustive()
    }
}

/// What a call left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// 0, or the exit code of the error.
    pub exit_code: i32,
    /// The output.
    pub output: Vec<u8>,
    /// Log lines, in order.
    pub log: Vec<(Level, String)>,
    /// Metrics, in order.
    pub metrics: Vec<(String, f64)>,
    /// The pieces of every stream.
    pub streams: Vec<(String, Vec<Vec<u8>>)>,
    /// Objects that were stored: reference, media type, bytes.
    pub stored: Vec<(String, String, Vec<u8>)>,
}

impl Done {
    /// The output as a text; what is no UTF-8 of it becomes the replacement character.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

impl Host {
    /// A host with an empty input that grants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The input of the call.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Grants a variable.
    #[must_use]
    pub fn environment(self, name: &str, value: &str) -> Self {
        let value = value.as_bytes().to_vec();
        self.grant(&alloc::format!("env:{name}"), move |operation, _| match operation {
            "get" => Ok(value.clone()),
            _ => Err(HostError::InvalidArgument),
        })
    }

    /// Grants a capability, and says what it does.
    #[must_use]
    pub fn grant(
        mut self,
        capability: &str,
        operation: impl FnMut(&str, &[u8]) -> Result<Vec<u8>, HostError> + 'static,
    ) -> Self {
        self.capabilities.insert(capability.to_string(), Box::new(operation));
        self
    }

    /// Grants the store of objects, and puts one into it: `sha256:` and 64 hexadecimal digits, which are not checked here.
    #[must_use]
    pub fn object(mut self, reference: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.media.get_or_insert_default().insert(reference.to_string(), bytes.into());
        self
    }

    /// Grants the store of objects.
    #[must_use]
    pub fn media(mut self) -> Self {
        self.media.get_or_insert_default();
        self
    }

    /// Makes this a call whose streams are read.
    #[must_use]
    pub fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Calls an agent that is a type.
    pub fn run<A: Agent>(self) -> Done {
        self.serve(run::<A>)
    }

    /// Calls an agent that is a function.
    pub fn call(self, agent: impl FnOnce(&Context, Input) -> Result<Output>) -> Done {
        self.serve(|| run_function(agent))
    }

    /// One call at a time on a thread; a call within a call has a host of its own.
    fn serve(self, call: impl FnOnce() -> i32) -> Done {
        let place = Place { before: Some(CALL.replace(Some(Call { host: self, ..Call::default() }))) };
        let exit_code = call();
        Done { exit_code, ..place.leave() }
    }
}

/// The place of the call that is going on. It is left when an agent panics as well: the next test of the thread finds none.
struct Place {
    /// What was going on before, until it goes on again.
    before: Option<Option<Call>>,
}

impl Place {
    fn leave(mut self) -> Done {
        let call = self.before.take().and_then(|before| CALL.replace(before));
        call.map(|call| call.done).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            CALL.set(before);
        }
    }
}

/// A call that is going on.
#[derive(Default)]
struct Call {
    host: Host,
    done: Done,
    handles: BTreeMap<i32, Resource>,
    /// Handles given so far: none is given twice.
    given: i32,
}

enum Resource {
    Buffer(Vec<u8>),
    Capability(String),
    Stream(usize),
}

std::thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}
