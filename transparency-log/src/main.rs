//! `transparency-log`: makes and serves logs.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use service::exit::finish;
use service::{Failure, StartRefusal, logging};
use transparency_log::{config::Config, init, serve};

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
    /// Rewrite a log's head and its second copy from the entries, after verifying the entries against every record of
    /// what was signed. For a log that refuses to start and names this command. Prints the tree as one JSON line.
    Repair {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Name of the log.
        #[arg(long)]
        log: String,
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
    finish(run(Arguments::parse().command))
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { config } => {
            let made = init::init(&Config::read(&config)?.validate()?)?;
            writeln!(std::io::stdout().lock(), "{made}").map_err(Failure::failed)
        }
        Command::Repair { config, log } => {
            let repaired = init::repair(&Config::read(&config)?.validate()?, &log)?;
            writeln!(std::io::stdout().lock(), "{repaired}").map_err(Failure::failed)
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
