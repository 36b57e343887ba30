//! `admission report`: what a changed policy would refuse that runs now, before it is put into force.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use executor_api::Denied;
use executor_api::client::ExecutorClient;
use executor_api::trial::TrialVerdict;
use serde_json::json;
use trust_store::Denial;
use trust_store::policy::TrustPolicy;

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Home, read_file};
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::release::{Release, Use};
use crate::run::executor_failure;
use crate::sign::sha256;
use crate::verify::{Basis, VerifyFlags, load_policy};

/// `admission` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Judge releases, or what an executor has loaded, by the policy in force and by a new one
    Report(Report),
}

/// `admission report`.
#[derive(Debug, Args)]
pub struct Report {
    /// The changed policy
    #[arg(long, value_name = "FILE")]
    new_policy: PathBuf,
    /// Folders with a signed manifest.yaml, or manifests; none: what the executor has loaded
    #[arg(value_name = "DIR|MANIFEST")]
    releases: Vec<PathBuf>,
    /// Base URL of the executor
    #[arg(long, value_name = "URL", conflicts_with = "releases")]
    executor_url: Option<String>,
    /// File with a bearer token for the executor
    #[arg(long, value_name = "FILE", conflicts_with = "releases")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    flags: VerifyFlags,
}

/// Runs `admission report`: exit code 0 when nothing that may run now would be refused, 1 when something would.
///
/// # Errors
/// Exit code 2 when a policy or a release cannot be read.
pub fn run(command: &Command, home: &Home, out: &Output) -> Outcome {
    let Command::Report(report) = command;
    let verdicts = if report.releases.is_empty() { loaded(report, home)? } else { offline(report, home)? };
    let refused = verdicts.iter().filter(|verdict| verdict.is_newly_refused()).count();
    for verdict in &verdicts {
        say(verdict, out);
    }
    out.line(format!("{} releases judged, {refused} would be refused that may run now", verdicts.len()));
    out.value(
        || json!({ "ok": refused == 0, "judged": verdicts.len(), "refused": refused, "agents": verdicts }),
    );
    Ok(if refused == 0 { Exit::Ok } else { Exit::Failure })
}

fn say(verdict: &TrialVerdict, out: &Output) {
    let short = verdict.digest.get(..12).unwrap_or_default();
    let (tone, word) = match (&verdict.now, &verdict.then) {
        (None, Some(_)) => (Tone::Bad, "would be refused"),
        (Some(_), None) => (Tone::Good, "would be admitted"),
        (None, None) => (Tone::Good, "stays admitted"),
        (Some(_), Some(_)) => (Tone::Strong, "stays refused"),
    };
    out.line(format!("{} {} {short}", out.paint(tone, word), verdict.agent_id));
    for (when, denied) in [("now", &verdict.now), ("then", &verdict.then)] {
        if let Some(denied) = denied {
            out.line(format!("  {when}: {} (step {}): {}", denied.reason, denied.step, denied.message));
        }
    }
}

fn loaded(report: &Report, home: &Home) -> Outcome<Vec<TrialVerdict>> {
    let url = home.executor_url(report.executor_url.as_deref())?;
    let client = ExecutorClient::new(report.flags.client(home)?, &url);
    let client = match home.admin_token(report.token_file.as_deref(), &url, &home.executor_url(None))? {
        Some(token) => client.with_token(token),
        None => client,
    };
    let text = String::from_utf8(read_file(&report.new_policy)?).or_fail(Exit::Usage, "the new policy")?;
    block_on(async { client.try_policy(&text).await.map_err(executor_failure) }).map(|tried| tried.agents)
}

fn offline(report: &Report, home: &Home) -> Outcome<Vec<TrialVerdict>> {
    let now = report.flags.policy(home)?;
    let then = load_policy(&report.new_policy)?;
    let judge = |path: &PathBuf| judge(path, &now, &then, &report.flags, home).map_err(|e| e.about(path));
    report.releases.iter().map(judge).collect()
}

fn judge(
    path: &Path,
    now: &TrustPolicy,
    then: &TrustPolicy,
    flags: &VerifyFlags,
    home: &Home,
) -> Outcome<TrialVerdict> {
    let release = Release::open(path, Use::Verify)?;
    let module = release.module()?;
    let mut basis = Basis::of(&release, flags, home)?;
    let mut denial = |policy| {
        let denied = |denial: Denial| Denied {
            step: denial.code.step(),
            reason: denial.code.as_str().to_owned(),
            message: denial.detail.into_owned(),
        };
        Ok(basis.judge(&module, policy)?.err().map(denied))
    };
    Ok(TrialVerdict {
        agent_id: release.manifest().id().as_str().to_owned(),
        digest: hex::encode(sha256(&module)),
        now: denial(now)?,
        then: denial(then)?,
    })
}
