//! `pki problem`: what is said to be wrong with certificates, by when it must be decided, and what was decided.

use ca_api::{CloseReport, ProblemGround, ProblemQuery, ProblemReport, ProblemState, ReportProblem};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{CaFlags, ca_failure, serial_number, time_text};
use crate::exit::{Exit, Outcome};
use crate::home::Home;
use crate::net::block_on;
use crate::output::{Output, Tone};

/// `pki problem` subcommands.
#[derive(Debug, Subcommand)]
pub enum ProblemCommand {
    /// Write down what is said to be wrong with a certificate (auditor)
    Report(Report),
    /// List what was reported (auditor)
    List(List),
    /// Decide that a certificate stands, whatever was reported (administrator); what is revoked is decided by itself
    Close(Close),
}

/// `pki problem report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Serial number of the certificate, in hexadecimal
    #[arg(long)]
    serial: String,
    /// What is said to be wrong
    #[arg(long, value_enum)]
    ground: Ground,
    /// Who said it, and how it is known
    #[arg(long)]
    detail: String,
    #[command(flatten)]
    ca: CaFlags,
}

/// What is said to be wrong.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Ground {
    /// The subscriber asks for the revocation: to be decided within a day
    SubscriberRequest,
    /// The key is in other hands, or may be: within a day
    KeyCompromise,
    /// Suspect code was signed: within a day
    SuspectCode,
    /// Anything else: within five days
    Other,
}

/// `pki problem list`.
#[derive(Debug, Args)]
pub struct List {
    /// What was decided, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    ca: CaFlags,
}

/// `pki problem close`.
#[derive(Debug, Args)]
pub struct Close {
    /// Number of the report, as `pki problem list` shows it
    id: i64,
    /// Why the certificate stands
    #[arg(long)]
    decision: String,
    #[command(flatten)]
    ca: CaFlags,
}

/// Runs a `pki problem` command.
///
/// # Errors
/// What the authority refuses.
pub fn run(command: &ProblemCommand, home: &Home, out: &Output) -> Outcome {
    match command {
        ProblemCommand::Report(asked) => {
            let ground = match asked.ground {
                Ground::SubscriberRequest => ProblemGround::SubscriberRequest,
                Ground::KeyCompromise => ProblemGround::KeyCompromise,
                Ground::SuspectCode => ProblemGround::SuspectCode,
                Ground::Other => ProblemGround::Other,
            };
            let serial = serial_number(&asked.serial)?;
            let report = ReportProblem { serial, ground, detail: asked.detail.clone() };
            let client = asked.ca.client(home)?;
            let report = block_on(async { client.report_problem(&report).await.map_err(ca_failure) })?;
            show(&report, out);
        }
        ProblemCommand::Close(asked) => {
            let client = asked.ca.client(home)?;
            let decision = CloseReport { decision: asked.decision.clone() };
            let report =
                block_on(async { client.close_problem(asked.id, &decision).await.map_err(ca_failure) })?;
            show(&report, out);
        }
        ProblemCommand::List(asked) => list(asked, home, out)?,
    }
    Ok(Exit::Ok)
}

fn list(asked: &List, home: &Home, out: &Output) -> Result<(), crate::exit::Failure> {
    let client = asked.ca.client(home)?;
    let (mut after, mut shown) = (None, 0_u64);
    loop {
        let query = ProblemQuery { open: !asked.all, after };
        let page = block_on(async { client.problems(&query).await.map_err(ca_failure) })?;
        for report in &page.reports {
            show(report, out);
            shown += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if shown == 0 {
        out.line("no reports");
    }
    Ok(())
}

fn show(report: &ProblemReport, out: &Output) {
    let state = match report.state {
        ProblemState::Open => {
            out.paint(Tone::Bad, format!("to be decided until {}", time_text(report.due_at)))
        }
        ProblemState::Revoked => "revoked".to_owned(),
        ProblemState::Stands => format!("stands: {}", report.decision.as_deref().unwrap_or_default()),
    };
    out.line(format!("{}  {}  {state}", report.id, report.serial));
    out.line(format!("   {}, by {}", report.detail, report.reported_by));
    out.value(|| json!({ "ok": true, "report": report }));
}
