//! `log`: what auditors do. Every answer of a log is verified against keys from a file before it is believed.

mod alert;
mod copy;
pub mod event_key;
mod export;
mod fsck;
pub mod history;
mod monitor;
mod proof;
pub mod record;
mod submit;
mod watch_list;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tlog::VerifierKey;
use tlog_client::{Error, LogClient, LogDescription, LogSet};

use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::{Home, read_file};
use crate::net::TlsFlags;
use crate::output::Output;

/// `log` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch an entry with its inclusion proof, verify both, write a tlog-proof file
    Proof(proof::Fetch),
    /// Record a signature that was made elsewhere, or finish one that an outage left pending
    Submit(Box<submit::Submit>),
    /// Verify a tlog-proof file offline
    Verify(proof::Verify),
    /// Prove that the log only grew since the last look, and walk every new entry
    Monitor(Box<monitor::Watch>),
    /// Rebuild a log from its entries and name the first byte that is wrong
    Fsck(fsck::Fsck),
    /// Copy a whole log into a folder that verifies offline
    Export(export::Export),
}

/// Which log, and with which keys it is believed.
#[derive(Debug, Args)]
pub struct LogFlags {
    /// Which of the server's logs: signing, issuance, event or raw
    #[arg(long, value_name = "KIND", default_value = "signing")]
    log: String,
    #[command(flatten)]
    server: ServerFlags,
}

/// Which log server, and with which keys its logs are believed.
#[derive(Debug, Args)]
pub struct ServerFlags {
    /// Base URL of the log server
    #[arg(long, value_name = "URL")]
    log_url: Option<String>,
    /// log_keys.json of `trust export` [default: of the stack, else ~/.mentat/log_keys.json]
    #[arg(long, value_name = "FILE")]
    log_keys: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
}

/// A log with its keys.
#[derive(Debug)]
pub struct KnownLog {
    /// What the keys file says of it.
    pub description: LogDescription,
    /// Keys that verify its checkpoints.
    pub keys: Vec<VerifierKey>,
}

impl LogFlags {
    /// The log's description and keys, from a file.
    ///
    /// # Errors
    /// Exit code 2 when the file is missing, or does not know the log.
    pub fn known(&self, home: &Home) -> Outcome<KnownLog> {
        self.server.known(home, &self.log)
    }

    /// A client of the log.
    ///
    /// # Errors
    /// When its address is not known.
    pub fn client(&self, known: &KnownLog, home: &Home) -> Outcome<LogClient> {
        self.server.client(known, home)
    }
}

impl ServerFlags {
    /// The description and keys of one of the server's logs, from a file.
    ///
    /// # Errors
    /// Exit code 2 when the file is missing, or does not know the log.
    pub fn known(&self, home: &Home, log: &str) -> Outcome<KnownLog> {
        known_log(&home.log_keys(self.log_keys.as_deref())?, log)
    }

    /// The HTTP client by which the server is asked.
    ///
    /// # Errors
    /// Exit code 2 when a file of its TLS settings cannot be used.
    pub fn http(&self, home: &Home) -> Outcome<reqwest::Client> {
        self.tls.client(home)
    }

    /// A client of one of the server's logs.
    ///
    /// # Errors
    /// When its address is not known.
    pub fn client(&self, known: &KnownLog, home: &Home) -> Outcome<LogClient> {
        let url = match &self.log_url {
            Some(server) => match known.description.kind.as_str() {
                "signing" => server.trim_end_matches('/').to_owned(),
                other => format!("{}/{other}", server.trim_end_matches('/')),
            },
            None => known.description.url.clone(),
        };
        LogClient::new(self.tls.client(home)?, &url).or_fail(Exit::Usage, "the log's address")
    }
}

/// A log by its kind or name, from a keys file.
///
/// # Errors
/// Exit code 2 when the file is missing or broken, or does not know the log.
pub fn known_log(path: &Path, name: &str) -> Outcome<KnownLog> {
    let logs: LogSet = serde_json::from_slice(&read_file(path)?).or_fail(Exit::Usage, path.display())?;
    let description =
        logs.0.iter().find(|log| log.name == name || log.kind == name).cloned().ok_or_else(|| {
            Failure::usage(format!("{} knows no log `{name}`", path.display()))
                .hint("name one of its logs with --log, or fetch the keys anew with `mentatctl trust export`")
        })?;
    let keys = description.verifier_keys().or_fail(Exit::Usage, path.display())?;
    if keys.is_empty() {
        return Err(Failure::usage(format!("{} has no key of the log `{name}`", path.display()))
            .hint("fetch the keys anew with `mentatctl trust export`"));
    }
    Ok(KnownLog { description, keys })
}

/// Runs a `log` command.
///
/// # Errors
/// What the command reports.
pub fn run(command: &Command, home: &Home, out: &Output) -> Outcome {
    match command {
        Command::Proof(fetch) => proof::fetch(fetch, home, out),
        Command::Submit(submit) => submit::submit(submit, home, out),
        Command::Verify(verify) => proof::verify(verify, home, out),
        Command::Monitor(watch) => monitor::watch(watch, home, out),
        Command::Fsck(fsck) => fsck::fsck(fsck, home, out),
        Command::Export(export) => export::export(export, home, out),
    }
}

/// The exit code and line of a failed call to a log.
pub fn log_failure(error: Error) -> Failure {
    let text = format!("the log: {}", chain(&error));
    match &error {
        Error::Transport(_) => Failure::new(Exit::Unavailable, text).hint("is transparency-log running at that address?"),
        Error::Overloaded { .. } => Failure::new(Exit::Unavailable, text).hint("wait a little and try again"),
        Error::Fork { .. } | Error::Rollback { .. } => Failure::new(Exit::Denied, text)
            .code(error.code())
            .hint("keep both checkpoints: they are evidence; do not trust this log until its operator has explained them"),
        Error::Log(_) => Failure::new(Exit::Denied, text).code(error.code()),
        Error::Status { status, .. } if *status >= 500 => Failure::new(Exit::Unavailable, text),
        _ => Failure::failed(text).code(error.code()),
    }
}
