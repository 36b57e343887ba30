//! The certificate authority's program: `init` holds the ceremony, `serve` answers, `check` proves the whole state.
#![forbid(unsafe_code)]

mod ceremony_command;
mod policy_command;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ca_pki::UnixTime;
use ca_service::check::{self, Extent, LogSources, Verdict};
use ca_service::{Config, backup, ceremony, occupancy, serve};
use clap::{Args, Parser, Subcommand};
use service::exit::{Failure, arguments, finish};
use service::{SystemClock, logging, ready, shutdown};

/// Certificate authority for code signing.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// How log lines on stderr look: text or json.
    #[arg(long, global = true, default_value = "text")]
    log_format: logging::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hold the key ceremony: keys, hierarchy, first revocation lists. Never overwrites.
    Init(ConfigFile),
    /// Plan, approve and hold a key ceremony: founding with approvals, successors, cross-certificates, lists.
    #[command(subcommand)]
    Ceremony(ceremony_command::Ceremony),
    /// Show what an order to revoke many certificates does, and approve it with one's own key.
    ApproveRevocation(ceremony_command::Approve),
    /// Answer requests until SIGTERM or SIGINT.
    Serve {
        #[command(flatten)]
        config: ConfigFile,
        /// Stop when stdin ends, so that a parent that dies takes the server with it.
        #[arg(long)]
        exit_with_stdin: bool,
    },
    /// Declare the machine's time right although the records are of a later one. Stop the server first.
    AcceptTime(ConfigFile),
    /// Make a new key and certificate for an authority below the root. Stop the server first.
    Renew {
        #[command(flatten)]
        config: ConfigFile,
        /// Which one: ocsp-responder, timestamp-authority, statement, code-signing, time-stamping or root. The last four get a successor
        /// beside them. Where [approvals] names approvers, those of code-signing and time-stamping are made by a ceremony, and root
        /// has none: found another authority, and have its root cross-certified.
        #[arg(long)]
        authority: String,
    },
    /// Split the keystore's passphrase among custodians: any THRESHOLD of the files restore it, fewer say nothing about it.
    SplitPassphrase {
        #[command(flatten)]
        config: ConfigFile,
        /// How many custodians must come together, 2 to 32.
        #[arg(long)]
        threshold: u8,
        /// How many custodians there are, at most 32.
        #[arg(long)]
        shares: u8,
        /// Existing folder for the files, one for each custodian.
        #[arg(long)]
        out: PathBuf,
    },
    /// Copy database, keystore and public files into a new folder, as of one moment; the server may go on.
    Backup {
        #[command(flatten)]
        config: ConfigFile,
        /// The folder to make.
        #[arg(long)]
        out: PathBuf,
    },
    /// Restore a backup where there is no authority yet. The passphrase must be there; it is never in a backup.
    Restore {
        #[command(flatten)]
        config: ConfigFile,
        /// The backup's folder.
        #[arg(long)]
        from: PathBuf,
    },
    /// Go on from a database that other programs restored: whatever was possible after its last record counts as done. Stop the
    /// server first.
    AcceptRestore(ConfigFile),
    /// Re-read every record and check it against certificates, revocation lists, the audit trail and the transparency logs.
    Check(Checked),
    /// Explain what the configuration makes of identity tokens.
    #[command(subcommand)]
    Policy(policy_command::Policy),
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
}

#[derive(Args)]
struct Checked {
    #[command(flatten)]
    config: ConfigFile,
    /// Read the logs from copies of `mentatctl log export` below this folder, one folder for each, instead of their servers.
    #[arg(long, conflicts_with = "without_logs")]
    copies: Option<PathBuf>,
    /// Compare so many certificates with the logs, and about as many other entries, instead of all.
    #[arg(long, conflicts_with = "without_logs")]
    sample: Option<NonZeroU32>,
    /// Check the records alone, although the configuration names logs.
    #[arg(long)]
    without_logs: bool,
}

fn main() -> ExitCode {
    match arguments::<Arguments>() {
        Ok(arguments) => match run(arguments) {
            Ok(code) => code,
            Err(failure) => finish(Err(failure)),
        },
        Err(code) => code,
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    logging::init(arguments.log_format, "info")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    let done = match arguments.command {
        Command::Policy(policy) => return policy_command::run(&policy),
        Command::Init(file) => runtime.block_on(init(&file)),
        Command::ApproveRevocation(asked) => ceremony_command::approve_revocation(&asked),
        Command::Ceremony(step) => runtime.block_on(ceremony_command::run(&step)),
        Command::Serve { config, exit_with_stdin } => runtime.block_on(answer(&config, exit_with_stdin)),
        Command::AcceptTime(file) => runtime.block_on(accept_time(&file)),
        Command::Renew { config, authority } => runtime.block_on(renew(&config, &authority)),
        Command::SplitPassphrase { config, threshold, shares, out } => {
            split_passphrase(&config, threshold, shares, &out)
        }
        Command::Backup { config, out } => {
            let settings = Config::read(&config.config)?.validate()?;
            print(&backup::create(&settings, &out, present())?)
        }
        Command::Restore { config, from } => {
            let mut settings = Config::read(&config.config)?.validate()?;
            let _occupied = runtime.block_on(occupancy::occupy(&mut settings))?;
            print(&backup::restore(&settings, &from, present())?)
        }
        Command::AcceptRestore(file) => {
            let mut settings = Config::read(&file.config)?.validate()?;
            let _occupied = runtime.block_on(occupancy::occupy(&mut settings))?;
            print(&runtime.block_on(backup::accept(&settings, present()))?)
        }
        Command::Check(asked) => runtime.block_on(prove(&asked)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

async fn init(file: &ConfigFile) -> Result<(), Failure> {
    let mut settings = Config::read(&file.config)?.validate()?;
    let _occupied = occupancy::occupy(&mut settings).await?;
    let outcome =
        ceremony::run(&settings, Arc::new(SystemClock), hsm::software::KeystoreOptions::default()).await?;
    print(&outcome)
}

async fn answer(file: &ConfigFile, exit_with_stdin: bool) -> Result<(), Failure> {
    let mut settings = Config::read(&file.config)?.validate()?;
    let _occupied = occupancy::occupy(&mut settings).await?;
    let authority = serve::open(settings, Arc::new(SystemClock)).await?;
    // From before the record of the start on: what ends it then is a stop, and no crash.
    let stopped = shutdown::signal(exit_with_stdin);
    let serving = serve::start(authority).await?;
    if let Err(refusal) = ready::announce(&serving.running) {
        serving.stop().await;
        return Err(refusal.into());
    }
    let ended = tokio::select! {
        _ = stopped => Ok(()),
        () = serving.superseded() => Err(Failure::failed("another_server_serves: another server took the records over")),
    };
    serving.stop().await;
    ended
}

async fn accept_time(file: &ConfigFile) -> Result<(), Failure> {
    let mut settings = Config::read(&file.config)?.validate()?;
    let _occupied = occupancy::occupy(&mut settings).await?;
    let authority = serve::open(settings, Arc::new(SystemClock)).await?;
    print(&authority.accept_time("operator").await.map_err(Failure::failed)?)
}

async fn renew(file: &ConfigFile, name: &str) -> Result<(), Failure> {
    let mut settings = Config::read(&file.config)?.validate()?;
    let _occupied = occupancy::occupy(&mut settings).await?;
    let keys = serve::keyring(&settings)?;
    let authority = serve::open(settings, Arc::new(SystemClock)).await?;
    print(&authority.renew(name, &keys).await.map_err(Failure::failed)?)
}

fn split_passphrase(file: &ConfigFile, threshold: u8, count: u8, out: &Path) -> Result<(), Failure> {
    let settings = Config::read(&file.config)?.validate()?;
    let secret = settings.passphrase.read().map_err(Failure::failed)?;
    // Shares of a passphrase that opens nothing would be found out years later.
    serve::keystore(&settings)?;
    let files = hsm::passphrase::write_shares(&secret, threshold, count, out).map_err(Failure::failed)?;
    print(&serde_json::json!({ "threshold": threshold, "shares": files }))
}

async fn prove(asked: &Checked) -> Result<(), Failure> {
    let settings = Config::read(&asked.config.config)?.validate()?;
    let sources =
        if asked.without_logs { None } else { LogSources::configured(&settings, asked.copies.as_deref())? };
    if sources.is_none() && (asked.copies.is_some() || asked.sample.is_some()) {
        return Err(Failure::Usage("the configuration names no log that could be compared".to_owned()));
    }
    let authority = serve::open_to_read(settings, Arc::new(SystemClock)).await?;
    let extent = asked.sample.map_or(Extent::Everything, Extent::Sample);
    let report = match &sources {
        Some(sources) => check::run_with_logs(&authority, sources, extent).await,
        None => check::run(&authority).await,
    };
    let report = report.map_err(Failure::failed)?;
    print(&report)?;
    let of_logs = report.logs.as_ref().map_or(0, |logs| logs.found.findings.len());
    match report.verdict() {
        Verdict::Agrees => Ok(()),
        Verdict::Disagrees => {
            let found = report.findings.len().saturating_add(of_logs);
            Err(Failure::failed(format!("{found} records are not consistent")))
        }
        Verdict::Unknown => Err(Failure::Unavailable(
            "the records agree with one another, and not all of the logs could be read; repeat it when they answer".to_owned(),
        )),
    }
}

fn present() -> UnixTime {
    UnixTime(service::clock::Clock::unix_seconds(&SystemClock))
}

/// One JSON object on one line of stdout.
fn print<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    use std::io::Write as _;
    let text = serde_json::to_string(value).map_err(Failure::failed)?;
    writeln!(std::io::stdout().lock(), "{text}").map_err(Failure::failed)
}
