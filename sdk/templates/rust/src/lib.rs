//! An agent that greets.

use mentat_sdk::{Context, Input, Output, Result, mentat_agent};

/// Answers `{"name":"Ada"}` with `{"greeting":"hello, Ada"}`.
///
/// # Errors
/// When there is no name: exit code 2, and the log says so.
#[mentat_agent]
pub fn greet(context: &Context, input: Input) -> Result<Output> {
    let name: String = input.get("name")?;
    context.info("greeting");
    context.metric("name_bytes", name.len() as f64)?;
    Ok(Output::new().add("greeting", format!("hello, {name}")))
}
