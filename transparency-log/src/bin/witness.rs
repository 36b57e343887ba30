//! `witness`: cosigns checkpoints of the logs it is configured for.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use service::exit::{arguments, finish};
use service::{Failure, StartRefusal, logging};
use transparency_log::witness::config::Config;
use transparency_log::witness::http;

/// A witness for transparency logs.
#[derive(Debug, Parser)]
#[command(name = "witness", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the keys, and the records of the configured logs; print the verifier keys as one JSON line. Never overwrites.
    Init {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Make the records of logs that were added to the configuration and that this witness never cosigned. Needed once for
    /// each new log: `serve` makes no record.
    AddLog {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Serve. Prints one JSON line when ready.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Stop when stdin ends.
        #[arg(long)]
        exit_with_stdin: bool,
    },
}

fn main() -> ExitCode {
    match arguments::<Arguments>() {
        Ok(arguments) => finish(run(arguments.command)),
        Err(code) => code,
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { config } => {
            let made = http::init(&Config::read(&config)?.validate()?)?;
            writeln!(std::io::stdout().lock(), "{made}").map_err(Failure::failed)
        }
        Command::AddLog { config } => {
            let added = http::add_logs(&Config::read(&config)?.validate()?)?;
            writeln!(std::io::stdout().lock(), "{added}").map_err(Failure::failed)
        }
        Command::Serve { config, exit_with_stdin } => {
            logging::init(logging::Format::Text, "info")?;
            let settings = Config::read(&config)?.validate()?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
                    StartRefusal::new("cannot start threads", "check the limits of the process")
                        .because(error)
                })?;
            runtime.block_on(http::serve(settings, exit_with_stdin))
        }
    }
}
