//! The sentiment analyser as a guest of the executor, without the standard library.
//!
//! README.md describes the algorithm. [`analysis`] is pure; [`sentiment`] is the agent over it.
//!
//! ```text
//! make            # target/sentiment.wasm
//! cargo test      # native, on the SDK's fake host
//! ```
#![cfg_attr(target_arch = "wasm32", no_std)]
#![deny(unsafe_code)]

extern crate alloc;

use alloc::vec;

use mentat_sdk::{Context, Error, Input, Output, Result, mentat_agent};

use crate::analysis::{MAX_INPUT, SLOTS, Slot, analyse};

pub mod analysis;

/// Answers a text with one JSON object, and records how many words it had. Exit code 1: the input is larger than 1 MiB.
///
/// # Errors
/// When the input is too large, or the host refuses.
#[mentat_agent]
pub fn sentiment(context: &Context, input: Input) -> Result<Output> {
    let mut text = input.into_bytes();
    if text.len() > MAX_INPUT {
        return Err(Error::new("input is larger than 1 MiB"));
    }
    let answer = analyse(&mut text, &mut vec![Slot::FREE; SLOTS]);
    context.metric("words", f64::from(answer.words))?;
    Ok(Output::bytes(answer.as_bytes()))
}
