//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;

use crate::exit::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::output::Output;
use crate::{
    admission, attach, audit, audit_capabilities, conformance, demo, endorse, executor, lint, log, man, new,
    oci, pki, publish, run, schema, sign, sign_bundle, stack, tls, trust, verify, verify_bundle,
};

/// Sign modules, record them in a transparency log, verify them offline, run them.
#[derive(Debug, Parser)]
#[command(
    name = "mentatctl",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 failed or a finding; 2 wrong command line or a file that cannot be used; \
                  3 denied by verification; 69 service unavailable, the same command may be repeated; 78 refusal to \
                  start (docs/operations/exit-codes.md).\nDefaults live in ~/.mentat (or MENTAT_HOME)."
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
    /// Run a whole stack on loopback from one folder: authority, log, executor
    Up(stack::Up),
    /// Show the whole path and every refusal on a stack in a temporary folder
    Demo(demo::Demo),
    /// Start an agent in Rust, AssemblyScript, Go or C
    New(new::New),
    /// Certificates: request, list, revoke
    #[command(subcommand)]
    Pki(pki::Command),
    /// Sign modules and record the signatures in the log
    Sign(sign::Sign),
    /// Print the statement that a signature of a release is about, for another client to sign
    Statement(attach::PrintStatement),
    /// Put the bundle that another client made into a release's manifest
    Attach(attach::Attach),
    /// Vouch for releases that somebody else signed
    Endorse(endorse::Endorse),
    /// Verify signed modules offline, by the executor's own decision
    Verify(verify::Verify),
    /// Sign a file or an in-toto statement as a stock client would (protocol of Sigstore's conformance suite)
    #[command(hide = true)]
    SignBundle(sign_bundle::SignBundle),
    /// Verify a Sigstore bundle as a stock client would (protocol of Sigstore's conformance suite)
    #[command(hide = true)]
    VerifyBundle(verify_bundle::VerifyBundle),
    /// Copy a verified release into a folder of releases, or into an OCI registry
    Publish(publish::Publish),
    /// Fetch a release from an OCI registry and verify it
    Pull(oci::Pull),
    /// Hand a module to an executor and run it
    Run(run::Run),
    /// Ask an executor what it would decide, with nothing loaded
    Explain(run::Explain),
    /// Executors: join, deployments, receipts
    #[command(subcommand)]
    Executor(executor::Command),
    /// Proofs and monitoring of transparency logs
    #[command(subcommand)]
    Log(log::Command),
    /// Account for a period over all logs, in one signed file
    #[command(subcommand)]
    Audit(audit::Command),
    /// Files by which relying parties know an authority and its logs
    #[command(subcommand)]
    Trust(trust::Command),
    /// What a changed policy would refuse
    #[command(subcommand)]
    Admission(admission::Command),
    /// Compare what modules import with what their manifests ask for
    AuditCapabilities(audit_capabilities::Audit),
    /// Decide cases of a test suite: JSON Lines in, JSON Lines out
    Conformance(conformance::Conformance),
    /// Judge certificates and tokens by the authority's own rules
    Lint(lint::Lint),
    /// Make and issue TLS certificates for services on different machines
    #[command(subcommand)]
    Tls(tls::Command),
    /// Write the manual pages of all commands into a folder
    Man(man::Man),
    /// Print the JSON Schema of a file that people write
    Schema(schema::Schema),
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
    let home = || Home::load(cli.stack.as_deref());
    match &cli.command {
        Command::Up(up) => stack::up(up, out),
        Command::Demo(demo) => demo::run(demo, out),
        Command::New(new) => new::run(new, out),
        Command::Pki(command) => pki::run(command, &home()?, out),
        Command::Sign(sign) => sign::run(sign, &home()?, out),
        Command::Statement(print) => attach::print_statement(print, out),
        Command::Attach(attached) => attach::attach(attached, &home()?, out),
        Command::Endorse(endorse) => endorse::run(endorse, &home()?, out),
        Command::Verify(verify) => verify::run(verify, &home()?, out),
        Command::SignBundle(sign) => sign_bundle::run(sign, &home()?, out),
        Command::VerifyBundle(verify) => verify_bundle::run(verify, &home()?, out),
        Command::Publish(publish) => publish::run(publish, &home()?, out),
        Command::Pull(pull) => oci::pull(pull, &home()?, out),
        Command::Run(run) => run::run(run, &home()?, out),
        Command::Explain(explain) => run::explain(explain, &home()?, out),
        Command::Executor(command) => executor::run(command, &home()?, out),
        Command::Log(command) => log::run(command, &home()?, out),
        Command::Audit(command) => audit::run(command, &home()?, out),
        Command::Trust(command) => trust::run(command, &home()?, out),
        Command::Admission(command) => admission::run(command, &home()?, out),
        Command::AuditCapabilities(audit) => audit_capabilities::run(audit, out),
        Command::Conformance(args) => conformance::run(args),
        Command::Lint(lint) => lint::run(lint, out),
        Command::Tls(command) => tls::run(command, out),
        Command::Man(pages) => man::run(pages, Cli::command(), out),
        Command::Schema(schema) => schema::run(schema, out),
        Command::Completion { shell } => completion(shell, out),
    }
}

/// A wrong command line as the one line that every failure is: what is wrong, and where the right form stands.
pub fn misused(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut what = String::new();
    let mut usage = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("Usage: ") {
            Some(form) => usage = Some(form.to_owned()),
            None if line.starts_with("For more information") => {}
            None => {
                let line = line.strip_prefix("error: ").unwrap_or(line);
                let between = if what.is_empty() {
                    ""
                } else if line.starts_with("tip: ") {
                    "; "
                } else {
                    " "
                };
                what.push_str(between);
                what.push_str(line);
            }
        }
    }
    let failure = Failure::usage(what);
    match usage {
        Some(form) => failure.hint(format!("the form is `{form}`; --help explains it")),
        None => failure.hint("--help shows what is known"),
    }
}

fn completion(name: &str, out: &Output) -> Outcome {
    let shell = Shell::from_str(name, true).map_err(|_| {
        Failure::usage(format!("`{name}` is no shell known here"))
            .hint("use bash, elvish, fish, powershell or zsh")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mentatctl", &mut script);
    out.raw(&script);
    Ok(Exit::Ok)
}
