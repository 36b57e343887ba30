//! What an agent is, and what happens in a call.

use crate::context::{Context, Level};
use crate::error::Result;
use crate::host;
use crate::input::Input;
use crate::output::Output;

/// An agent with a state that `init` makes. The state lives for one call: every call gets a fresh instance.
pub trait Agent: Sized {
    /// Makes the agent.
    ///
    /// # Errors
    /// Whatever keeps it from working; the call ends with [`crate::Error::exit_code`].
    fn init(context: &Context) -> Result<Self>;

    /// Answers an input.
    ///
    /// # Errors
    /// As [`Agent::init`].
    fn process(&mut self, context: &Context, input: Input) -> Result<Output>;
}

/// Runs an agent in the call that the host is making; the result is that of `process()`: 0, or the exit code.
/// `#[mentat_agent]` writes the call.
pub fn run<A: Agent>() -> i32 {
    run_function(|context, input| A::init(context)?.process(context, input))
}

/// The same for an agent that is a function.
pub fn run_function(agent: impl FnOnce(&Context, Input) -> Result<Output>) -> i32 {
    #[cfg(all(target_arch = "wasm32", feature = "std"))]
    std::panic::set_hook(std::boxed::Box::new(|info| {
        use std::string::ToString as _;
        host::log(Level::Error, &info.to_string());
    }));
    let context = Context::new();
    let done = Input::read().and_then(|input| agent(&context, input)).and_then(|output| output.write());
    match done {
        Ok(()) => 0,
        Err(error) => {
            host::log(Level::Error, &alloc::format!("{error}"));
            error.exit_code()
        }
    }
}
