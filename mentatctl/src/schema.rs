//! `schema`: JSON Schemas, for editors and for tools that write our files.

use clap::{Args, ValueEnum};
use trust_store::manifest::JSON_SCHEMA;

use crate::exit::{Exit, Outcome};
use crate::output::Output;

/// `schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// Of which file
    #[arg(value_enum, default_value = "manifest")]
    of: Kind,
}

/// Files with a schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// manifest.yaml
    Manifest,
}

/// Runs `schema`.
///
/// # Errors
/// None.
pub fn run(schema: &Schema, out: &Output) -> Outcome {
    match schema.of {
        Kind::Manifest => out.raw(JSON_SCHEMA.as_bytes()),
    }
    Ok(Exit::Ok)
}
