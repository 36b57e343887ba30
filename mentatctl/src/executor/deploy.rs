//! `executor load`, `deploy`, `promote`, `rollback`, `deployments`: which release of an agent serves its calls.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use executor_api::deployment::{Deploy as Request, Deployment, Phase, Strategy};
use serde_json::json;

use crate::exit::{Exit, Outcome};
use crate::home::Home;
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::release::{Release, Use};
use crate::run::{ExecutorFlags, executor_failure, sidecar_text};

/// `executor load`.
#[derive(Debug, Args)]
pub struct Load {
    /// Folder with a signed manifest.yaml, or the manifest
    #[arg(value_name = "DIR|MANIFEST")]
    release: PathBuf,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// `executor deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// Agent id
    agent: String,
    /// SHA-256 of the release's module; `executor load` prints it
    digest: String,
    /// How the release takes over
    #[arg(long, value_enum, default_value = "blue-green")]
    strategy: How,
    /// Rising shares in percent, the last one 100
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    steps: Vec<u8>,
    /// Shortest time of one step, milliseconds
    #[arg(long, value_name = "MS")]
    step_ms: Option<u64>,
    /// Calls of the new release before a step is judged
    #[arg(long, value_name = "N")]
    min_calls: Option<u64>,
    /// Failed calls, in percent above the old release's, from which the new one is taken back
    #[arg(long, value_name = "PERCENT")]
    max_error_percent: Option<u8>,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// How a release takes over.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum How {
    /// All calls at once, with a way back
    BlueGreen,
    /// A growing share of the calls, judged by what they did
    Canary,
    /// A growing share of the callers, by time
    Rolling,
}

/// `executor promote` and `executor rollback`.
#[derive(Debug, Args)]
pub struct Change {
    /// Agent id
    agent: String,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// `executor deployments`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// Runs `executor load`: the release is verified, admitted and compiled, and serves nothing yet where a route exists.
///
/// # Errors
/// Exit code 3 when the executor denies it.
pub fn load(load: &Load, home: &Home, out: &Output) -> Outcome {
    let client = load.executor.client(home)?;
    let release = Release::open(&load.release, Use::Sign)?;
    let (attestation, module) = (sidecar_text(&release)?, release.module()?);
    let summary = block_on(async {
        client.load(&release.text, attestation.as_deref(), &module).await.map_err(executor_failure)
    })?;
    out.line(format!("{} {} {}", out.paint(Tone::Good, "loaded:"), summary.agent_id, summary.version));
    out.line(format!("digest {}", summary.digest));
    out.value(|| json!({ "ok": true, "agent": summary }));
    Ok(Exit::Ok)
}

/// Runs `executor deploy`.
///
/// # Errors
/// Exit code 3 when the release may not run, 1 when it cannot be deployed now.
pub fn deploy(deploy: &Deploy, home: &Home, out: &Output) -> Outcome {
    let client = deploy.executor.client(home)?;
    let request = Request {
        agent: deploy.agent.clone(),
        digest: deploy.digest.clone(),
        strategy: match deploy.strategy {
            How::BlueGreen => Strategy::BlueGreen,
            How::Canary => Strategy::Canary,
            How::Rolling => Strategy::Rolling,
        },
        steps: deploy.steps.clone(),
        step_ms: deploy.step_ms,
        min_calls: deploy.min_calls,
        max_error_percent: deploy.max_error_percent,
    };
    let deployment = block_on(async { client.deploy(&request).await.map_err(executor_failure) })?;
    show(&deployment, out);
    out.value(|| json!({ "ok": true, "deployment": deployment }));
    Ok(Exit::Ok)
}

/// Runs `executor promote`.
///
/// # Errors
/// When nothing takes over, or it may not run.
pub fn promote(change: &Change, home: &Home, out: &Output) -> Outcome {
    let client = change.executor.client(home)?;
    let deployment = block_on(async { client.promote(&change.agent).await.map_err(executor_failure) })?;
    show(&deployment, out);
    out.value(|| json!({ "ok": true, "deployment": deployment }));
    Ok(Exit::Ok)
}

/// Runs `executor rollback`.
///
/// # Errors
/// When nothing that may run served before.
pub fn rollback(change: &Change, home: &Home, out: &Output) -> Outcome {
    let client = change.executor.client(home)?;
    let deployment = block_on(async { client.rollback(&change.agent).await.map_err(executor_failure) })?;
    show(&deployment, out);
    out.value(|| json!({ "ok": true, "deployment": deployment }));
    Ok(Exit::Ok)
}

/// Runs `executor deployments`.
///
/// # Errors
/// Exit code 69 when the executor cannot be reached.
pub fn list(list: &List, home: &Home, out: &Output) -> Outcome {
    let client = list.executor.client(home)?;
    let deployments = block_on(async { client.deployments().await.map_err(executor_failure) })?;
    for deployment in &deployments {
        show(deployment, out);
    }
    if deployments.is_empty() {
        out.line("nothing was deployed: each agent is served by the release that was loaded last");
    }
    out.value(|| json!({ "ok": true, "deployments": deployments }));
    Ok(Exit::Ok)
}

fn show(deployment: &Deployment, out: &Output) {
    let phase = match deployment.phase {
        Phase::Stable => "stable",
        Phase::Progressing => "progressing",
    };
    out.line(format!("{} {phase}: {} ({})", deployment.agent, deployment.stable, deployment.last));
    if let Some(candidate) = &deployment.candidate {
        out.line(format!(
            "  {} takes over: {} % of the calls, {} of {} failed in this step",
            candidate.digest, candidate.percent, candidate.failed, candidate.calls
        ));
    }
}
