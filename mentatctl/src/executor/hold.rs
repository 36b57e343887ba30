//! `executor stop`, `drain` of some releases, `holds` and `resume`: orders that releases do not run, and their end.

use std::time::Duration;

use clap::Args;
use executor_api::hold::{Calls, HeldAgent, Hold, HoldReport, HoldRequest, Releases};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::run::{ExecutorFlags, executor_failure};

/// Between two looks at what still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Which releases: those that fit every flag given.
#[derive(Debug, Args)]
pub struct Selection {
    /// SHA-256 of the signing certificate, 64 hexadecimal digits
    #[arg(long, value_name = "SHA256")]
    certificate: Option<String>,
    /// Serial number of the signing certificate, hexadecimal
    #[arg(long, value_name = "HEX", requires = "issuer")]
    serial: Option<String>,
    /// Its issuer, such as 'CN=Issuing CA,O=Example'
    #[arg(long, value_name = "NAME", requires = "serial")]
    issuer: Option<String>,
    /// Index of the release's entry in the signing log
    #[arg(long, value_name = "N")]
    log_index: Option<u64>,
    /// Whatever was logged at this index or later
    #[arg(long, value_name = "N", conflicts_with = "log_index")]
    from_log_index: Option<u64>,
    /// Verified name of the signer
    #[arg(long, value_name = "SUBJECT")]
    signer: Option<String>,
    /// Agent id
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// SHA-256 of the module
    #[arg(long, value_name = "SHA256")]
    digest: Option<String>,
    /// Why, for whoever reads the list of holds
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only say what it would reach
    #[arg(long)]
    dry_run: bool,
}

/// `executor stop`.
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// `executor holds`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    executor: ExecutorFlags,
}

/// `executor resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The hold, as `executor holds` names it
    hold: String,
    #[command(flatten)]
    executor: ExecutorFlags,
}

impl Selection {
    /// Whether no release is named.
    pub(super) fn is_empty(&self) -> bool {
        self.releases() == Releases::default()
    }

    /// Whether something was said that makes sense of named releases only.
    pub(super) fn says_more(&self) -> bool {
        self.dry_run || !self.reason.is_empty()
    }

    fn releases(&self) -> Releases {
        Releases {
            agent: self.agent.clone(),
            certificate: self.certificate.clone(),
            digest: self.digest.clone(),
            from_log_index: self.from_log_index,
            issuer: self.issuer.clone(),
            log_index: self.log_index,
            serial: self.serial.clone(),
            signer: self.signer.clone(),
        }
    }

    fn request(&self, calls: Calls, drain_seconds: Option<u32>) -> HoldRequest {
        let (releases, reason) = (self.releases(), self.reason.clone());
        HoldRequest { releases, calls, drain_seconds, reason, dry_run: self.dry_run }
    }
}

/// Runs `executor stop`: exit code 0 when the order is in force; with `--dry-run` 0 when it would reach something, 1 when nothing.
///
/// # Errors
/// When no release is named, or the executor refuses or cannot be asked.
pub fn stop(stop: &Stop, home: &Home, out: &Output) -> Outcome {
    if stop.selection.is_empty() {
        return Err(Failure::usage("no release is named")
            .hint("name a certificate, a log index, a signer, an agent or a module"));
    }
    give(&stop.selection.request(Calls::Stop, None), 0, &stop.executor, home, out)
}

/// Drains the releases that are named: exit codes as of `stop`, and 1 when `wait` seconds later something still runs.
///
/// # Errors
/// When the executor refuses or cannot be asked.
pub(super) fn drain(
    selection: &Selection,
    (within, wait): (Option<u32>, u64),
    executor: &ExecutorFlags,
    home: &Home,
    out: &Output,
) -> Outcome {
    give(&selection.request(Calls::Drain, within), wait, executor, home, out)
}

fn give(request: &HoldRequest, wait: u64, executor: &ExecutorFlags, home: &Home, out: &Output) -> Outcome {
    let client = executor.client(home)?;
    let (report, running) = block_on(async {
        let report = client.hold(request).await.map_err(executor_failure)?;
        let mut running = report.instances();
        let looks =
            if request.dry_run { 0 } else { Duration::from_secs(wait).as_millis() / LOOK.as_millis() };
        for _ in 0..looks {
            let holds = client.holds().await.map_err(executor_failure)?;
            let own = holds.iter().find(|other| other.hold.id == report.hold.id);
            running = own.map_or(0, HoldReport::instances);
            if running == 0 {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok((report, running))
    })?;
    let word = if request.dry_run { "would be held" } else { "held" };
    let head = format!("{} {word}: {}", report.hold.id, names(&report.hold.releases));
    out.line(out.paint(Tone::Strong, head));
    say_reach(&report, out);
    if !request.dry_run {
        out.line(format!("  `mentatctl executor resume {}` takes it back", report.hold.id));
    }
    out.value(|| with_ok(&report));
    let nothing = request.dry_run && report.agents.is_empty();
    Ok(if nothing || (wait > 0 && running > 0) { Exit::Failure } else { Exit::Ok })
}

/// Runs `executor holds`.
///
/// # Errors
/// When the executor cannot be asked.
pub fn list(list: &List, home: &Home, out: &Output) -> Outcome {
    let client = list.executor.client(home)?;
    let holds = block_on(async { client.holds().await.map_err(executor_failure) })?;
    if holds.is_empty() {
        out.line("nothing is held");
    }
    for report in &holds {
        let Hold { id, releases, reason, calls, .. } = &report.hold;
        let how = if *calls == Calls::Stop { "stopped" } else { "drained" };
        out.line(out.paint(Tone::Strong, format!("{id} {how}: {}", names(releases))));
        if !reason.is_empty() {
            out.line(format!("  {reason}"));
        }
        say_reach(report, out);
    }
    out.value(|| json!({ "ok": true, "holds": holds }));
    Ok(Exit::Ok)
}

/// Runs `executor resume`: exit code 0 when the hold was taken back, 1 when there is none of this name.
///
/// # Errors
/// When the executor refuses or cannot be asked.
pub fn resume(resume: &Resume, home: &Home, out: &Output) -> Outcome {
    let id = resume.hold.as_str();
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!("{id} is no name of a hold"))
            .hint("`mentatctl executor holds` names them"));
    }
    let client = resume.executor.client(home)?;
    let hold = block_on(async { client.release_hold(id).await.map_err(executor_failure) })?;
    out.line(format!(
        "{} {}: what it meant runs again if nothing else is against it",
        out.paint(Tone::Good, "resumed"),
        names(&hold.releases)
    ));
    out.value(|| json!({ "ok": true, "hold": hold }));
    Ok(Exit::Ok)
}

fn say_reach(report: &HoldReport, out: &Output) {
    for HeldAgent { agent_id, digest, signer, log_index, instances, .. } in &report.agents {
        let index = log_index.map(|index| format!(", log index {index}")).unwrap_or_default();
        out.line(format!("  {agent_id} {digest} by {signer}{index}: {instances} instances"));
    }
    if report.agents.is_empty() {
        out.line("  no release that is here; one that comes later is refused");
    }
}

fn with_ok(report: &HoldReport) -> Value {
    json!({
        "ok": true, "hold": report.hold, "dry_run": report.dry_run, "agents": report.agents,
        "instances": report.instances(),
    })
}

/// What an order names, on one line.
fn names(releases: &Releases) -> String {
    let Releases { agent, certificate, digest, from_log_index, issuer, log_index, serial, signer } = releases;
    let texts = [
        ("agent", agent),
        ("certificate", certificate),
        ("module", digest),
        ("issuer", issuer),
        ("serial", serial),
        ("signer", signer),
    ];
    let texts =
        texts.into_iter().filter_map(|(what, text)| text.as_ref().map(|text| format!("{what} {text}")));
    let at = log_index.map(|index| format!("log index {index}"));
    let from = from_log_index.map(|index| format!("log index {index} or later"));
    texts.chain(at).chain(from).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_named_by_everything_that_narrows_it() {
        let releases = Releases {
            serial: Some("01".into()),
            issuer: Some("CN=A".into()),
            from_log_index: Some(7),
            ..Releases::default()
        };
        assert_eq!(names(&releases), "issuer CN=A, serial 01, log index 7 or later");
    }
}
