//! `mentatctl`: one tool for developers, CI, operators and auditors.
//!
//! In scope: talking to the three services, making and checking evidence on disk, running the whole stack on loopback.
//! Out of scope: every decision. Verification is `trust-store`'s, the same code that the executor runs.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "a binary exports nothing; pub marks the interface of a module")]

mod admission;
mod attach;
mod audit;
mod audit_capabilities;
mod chain_file;
mod cli;
mod clock;
mod conformance;
mod csr;
mod demo;
mod endorse;
mod executor;
mod exit;
mod fault;
mod home;
mod interruption;
mod lint;
mod log;
mod man;
mod net;
mod new;
mod oci;
mod output;
mod pki;
mod publish;
mod release;
mod run;
mod schema;
mod sign;
mod sign_bundle;
mod stack;
mod tls;
mod trust;
mod verify;
mod verify_bundle;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::output::{Format, Output};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap prints both to the right stream.
            if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                if let Err(lost) = error.print()
                    && lost.kind() != std::io::ErrorKind::BrokenPipe
                {
                    let out = Output::new(Format::Text);
                    out.note(format!("error: {}", output::lost(&lost).line()));
                    return Exit::Failure.into();
                }
                return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
            }
            let json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
            Output::new(if json { Format::Json } else { Format::Text }).failure(&cli::misused(&error));
            return Exit::Usage.into();
        }
    };
    let out = Output::new(if cli.json { Format::Json } else { Format::Text });
    let exit = match fault::contained(|| cli::run(&cli, &out)) {
        Ok(exit) => exit,
        Err(failure) => {
            out.failure(&failure);
            failure.exit
        }
    };
    match out.delivered() {
        // The first failure says more than that it could not be told on standard output.
        Err(lost) => {
            out.note(format!("error: {}", lost.line()));
            if exit == Exit::Ok { lost.exit } else { exit }.into()
        }
        Ok(()) => exit.into(),
    }
}
