//! `transparency-log`: makes and serves logs.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use service::exit::{arguments, finish};
use service::{Failure, StartRefusal, logging};
use transparency_log::repair::{self, Form, Repairing};
use transparency_log::{config::Config, index, init, serve};

/// A transparency log server.
#[derive(Debug, Parser)]
#[command(name = "transparency-log", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make keys and empty logs, and print their origins and verifier keys as one JSON line. Never overwrites.
    Init {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Say how a head or its second copy that is old, damaged or gone can be written anew, after verifying the entries
    /// against every record of what was signed. For a log that refuses to start and names this command.
    Repair {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Name of the log. Default: all.
        #[arg(long)]
        log: Option<String>,
        /// Do it. Without this nothing is changed.
        #[arg(long)]
        apply: bool,
    },
    /// Verify every entry, tile, head and stored note of logs that are not running. Exit code 1 when anything is wrong.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Answer with one JSON line.
        #[arg(long)]
        json: bool,
    },
    /// Make the lookup index anew from the entries of logs that are not running. Nothing else depends on it.
    Index {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Name of the log. Default: all.
        #[arg(long)]
        log: Option<String>,
    },
    /// Serve the configured logs. Prints one JSON line when ready.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Stop when stdin ends, as it does when the parent process dies.
        #[arg(long)]
        exit_with_stdin: bool,
        /// Form of the log lines on stderr.
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
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
            let made = init::init(&Config::read(&config)?.validate()?)?;
            writeln!(std::io::stdout().lock(), "{made}").map_err(Failure::failed)
        }
        Command::Repair { config, log, apply } => {
            let settings = Config::read(&config)?.validate()?;
            let repairing = if apply { Repairing::Apply } else { Repairing::DryRun };
            repair::repair(&settings, log.as_deref(), repairing, &mut std::io::stdout().lock())
        }
        Command::Check { config, json } => {
            let settings = Config::read(&config)?.validate()?;
            let form = if json { Form::Json } else { Form::Text };
            repair::check(&settings, form, &mut std::io::stdout().lock())
        }
        Command::Index { config, log } => {
            let settings = Config::read(&config)?.validate()?;
            index::index(&settings, log.as_deref(), &mut std::io::stdout().lock())
        }
        Command::Serve { config, exit_with_stdin, log_format } => {
            let format = match log_format {
                LogFormat::Json => logging::Format::Json,
                LogFormat::Text => logging::Format::Text,
            };
            logging::init(format, "info")?;
            let settings = Config::read(&config)?.validate()?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
                    StartRefusal::new("cannot start threads", "check the limits of the process")
                        .because(error)
                })?;
            runtime.block_on(serve::serve(settings, exit_with_stdin))
        }
    }
}
