//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;

use crate::exit::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::output::Output;
use crate::{pki, tls};

/// Sign modules, record them in a transparency log, verify them offline, run them.
#[derive(Debug, Parser)]
#[command(
    name = "mentatctl",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 failed or a finding; 2 wrong command line or unreadable file; 3 denied by \
                  verification; 69 service unavailable; 78 refusal to start.\nDefaults live in ~/.mentat (or MENTAT_HOME)."
)]
pub struct Cli {
    /// Write JSON for scripts instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Use the addresses and files of a stack that `mentatctl up` made in DIR
    #[arg(long, global = true, value_name = "DIR", env = "MENTAT_STACK")]
    pub stack: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Certificates: request, list, revoke
    #[command(subcommand)]
    Pki(pki::Command),
    /// Make and issue TLS certificates for services on different machines
    #[command(subcommand)]
    Tls(tls::Command),
    /// Print a completion script for a shell
    Completion {
        /// bash, elvish, fish, powershell or zsh
        shell: String,
    },
}

/// Runs the command.
///
/// # Errors
/// Whatever the command reports; the exit code is in it.
pub fn run(cli: &Cli, out: &Output) -> Outcome {
    let home = Home::load(cli.stack.as_deref());
    match &cli.command {
        Command::Pki(command) => pki::run(command, &home?, out),
        Command::Tls(command) => tls::run(command, out),
        Command::Completion { shell } => completion(shell, out),
    }
}

fn completion(name: &str, out: &Output) -> Outcome {
    let shell = Shell::from_str(name, true).map_err(|_| {
        Failure::usage(format!("`{name}` is no shell known here")).hint("use bash, elvish, fish, powershell or zsh")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mentatctl", &mut script);
    out.raw(&script);
    Ok(Exit::Ok)
}
