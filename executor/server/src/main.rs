//! `executor serve --config FILE`: the server process.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use executor::{process, worker};
use service::exit::{arguments, finish};
use service::logging::Format;

/// Runs WebAssembly modules that were signed, logged and not revoked; nothing else.
#[derive(Parser)]
#[command(name = "executor", version = executor::features::version())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until a signal.
    Serve {
        /// The configuration, see docs/operations/executor.toml.
        #[arg(long)]
        config: PathBuf,
        /// Stop when standard input ends: for a parent process.
        #[arg(long)]
        exit_with_stdin: bool,
        /// `text` or `json`.
        #[arg(long, default_value = "text")]
        log_format: Format,
    },
    /// Starts holders for `serve`.
    #[command(name = worker::SPAWNER, hide = true)]
    WorkerSpawner,
    /// Starts one worker in namespaces of its own.
    #[command(name = worker::HOLDER, hide = true)]
    WorkerHolder,
    /// Runs guests of one signer.
    #[command(name = worker::WORKER, hide = true)]
    Worker,
    /// Check the configuration and say what would be used; nothing is started or written.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = match arguments::<Arguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match arguments.command {
        Command::Serve { config, exit_with_stdin, log_format } => {
            finish(process::serve(&config, exit_with_stdin, log_format))
        }
        Command::Check { config } => finish(process::check(&config)),
        Command::WorkerSpawner => life_of(worker::SPAWNER),
        Command::WorkerHolder => life_of(worker::HOLDER),
        Command::Worker => life_of(worker::WORKER),
    }
}

/// These processes say what they have to say on the socket they were given.
fn life_of(process: &str) -> ExitCode {
    worker::process(process).map_or(ExitCode::FAILURE, ExitCode::from)
}
