//! `pki revoke` with a selection: shows what it would touch, and with `--confirm` carries it out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_api::client::CaClient;
use ca_api::{PlanRevocations, RevocationSelection, RevokeMany, RevokeManyDone};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::{CaFlags, Reason, ca_failure, optional_time};
use crate::clock::Stopwatch;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, read_bounded, write_file};
use crate::net::block_on;
use crate::output::Output;

/// Most certificates of one call.
const PIECE: u32 = 1_000;
/// Largest order or approval that is read, in bytes.
const MAX_PAPER: u64 = 16 * 1024;

/// Which certificates; what is given must all hold.
#[derive(Debug, Args)]
#[group(id = "selection", multiple = true)]
pub struct Selection {
    /// Every certificate of this identity
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// Every certificate of this key: SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal
    #[arg(long, value_name = "SHA256")]
    key: Option<String>,
    /// Every certificate of this issuing authority
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Every certificate of this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only those issued then or later, RFC 3339
    #[arg(long, value_name = "TIME")]
    issued_from: Option<String>,
    /// Only those issued before then, RFC 3339
    #[arg(long, value_name = "TIME")]
    issued_before: Option<String>,
    /// The order that `--write-order` wrote: exactly what approvers signed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["identity", "key", "issuer", "profile", "issued_from", "issued_before"])]
    order: Option<PathBuf>,
}

/// How a selection is carried out.
#[derive(Debug, Args)]
pub struct Execution {
    /// Revoke the selection: the number of certificates that the dry run showed [default: only show what would be done]
    #[arg(long, value_name = "COUNT", requires = "selection")]
    confirm: Option<u64>,
    /// Where to write the order, for approvers to sign and for `--order`
    #[arg(long, value_name = "FILE", requires = "selection", conflicts_with = "order")]
    write_order: Option<PathBuf>,
    /// An approval of the order; once for each approver
    #[arg(long = "approval", value_name = "FILE")]
    approvals: Vec<PathBuf>,
    /// Most certificates a second [default: as fast as the authority takes them]
    #[arg(long, value_name = "COUNT", requires = "confirm", value_parser = clap::value_parser!(u32).range(1..=1000))]
    per_second: Option<u32>,
}

impl Selection {
    /// Whether any of it is given.
    pub fn is_given(&self) -> bool {
        let texts =
            [&self.identity, &self.key, &self.issuer, &self.profile, &self.issued_from, &self.issued_before];
        self.order.is_some() || texts.into_iter().any(Option::is_some)
    }

    fn wire(&self) -> Outcome<RevocationSelection> {
        Ok(RevocationSelection {
            identity: self.identity.clone(),
            spki_sha256: self.key.as_ref().map(|key| key.to_lowercase()),
            issuer: self.issuer.clone(),
            profile: self.profile.clone(),
            issued_from: optional_time(self.issued_from.as_deref())?,
            issued_before: optional_time(self.issued_before.as_deref())?,
        })
    }
}

/// What this program reads of an order.
#[derive(Deserialize)]
struct OrderHead {
    matching: u64,
    /// Others that came of them by renewal.
    #[serde(default)]
    renewed: u64,
}

/// Shows what a selection touches; with a confirmation revokes it.
///
/// # Errors
/// What the authority refuses; what was revoked before stands, and repeating goes on.
pub fn run(
    selection: &Selection,
    execution: &Execution,
    reason: Reason,
    compromised_at: Option<i64>,
    ca: &CaFlags,
    home: &Home,
    out: &Output,
) -> Outcome {
    if selection.order.is_none() && !execution.approvals.is_empty() {
        return Err(Failure::usage("--approval without --order")
            .hint("approvals are of an order's exact bytes: give the file that was signed with --order"));
    }
    let client = ca.client(home)?;
    let (order, ended, approvals_needed) = match &selection.order {
        Some(path) => {
            let order = text(path)?;
            let head: OrderHead = serde_json::from_str(&order).or_fail(Exit::Usage, path.display())?;
            (order, head.matching.saturating_add(head.renewed), None)
        }
        None => {
            let asked =
                PlanRevocations { selection: selection.wire()?, reason: reason.into(), compromised_at };
            let plan = block_on(async { client.plan_revocations(&asked).await.map_err(ca_failure) })?;
            out.line(format!("{} certificates, {} of them revoked already", plan.matching, plan.revoked));
            if plan.renewed > 0 {
                out.line(format!("{} others came of them by renewal, and end with them", plan.renewed));
            }
            if plan.open_requests > 0 {
                out.line(format!("{} requests that wait for approval are ended, too", plan.open_requests));
            }
            if plan.approvals_needed > 0 {
                out.line(format!(
                    "{} approvers must sign the order (SHA-256 {}): ca-service approve-revocation",
                    plan.approvals_needed, plan.order_sha256
                ));
            }
            if execution.confirm.is_none() {
                out.value(|| json!({ "ok": true, "plan": plan }));
            }
            let ended = plan.matching.saturating_add(plan.renewed);
            (plan.order, ended, Some(plan.approvals_needed))
        }
    };
    if let Some(path) = &execution.write_order {
        write_file(path, order.as_bytes(), Secrecy::Public)?;
    }
    let Some(confirm) = execution.confirm else {
        out.line(format!("nothing was revoked; to go on, repeat with --confirm {ended}"));
        return Ok(Exit::Ok);
    };
    if confirm != ended {
        return Err(Failure::usage(format!(
            "--confirm {confirm}, but {ended} certificates would be revoked"
        ))
        .hint("look again at what would be revoked, and confirm that number"));
    }
    if approvals_needed.is_some_and(|needed| needed > 0) {
        return Err(Failure::failed("the order needs approvals").code("quorum_missing").hint(
            "write it with --write-order FILE, have it approved, then give --order FILE and each --approval FILE",
        ));
    }
    let approvals = execution.approvals.iter().map(|path| text(path)).collect::<Outcome<Vec<_>>>()?;
    let limit = execution.per_second.unwrap_or(PIECE);
    let pace = execution.per_second.map(|_| Duration::from_secs(1));
    let request = RevokeMany { order, confirm, approvals, after: None, limit: Some(limit) };
    let done = block_on(carry_out(&client, request, pace, out))?;
    let RevokeManyDone { revoked, kept, renewed, ended_requests, .. } = done;
    out.line(format!("{revoked} certificates are revoked; {kept} stay revoked for another reason"));
    if renewed > 0 {
        out.line(format!("{renewed} others that came of them by renewal are revoked with them"));
    }
    if ended_requests > 0 {
        out.line(format!("{ended_requests} requests that waited for approval are ended"));
    }
    out.value(|| json!({
        "ok": true, "revoked": revoked, "kept": kept, "renewed": renewed, "ended_requests": ended_requests,
    }));
    Ok(Exit::Ok)
}

async fn carry_out(
    client: &CaClient,
    mut request: RevokeMany,
    pace: Option<Duration>,
    out: &Output,
) -> Outcome<RevokeManyDone> {
    let bar = out.bar(request.confirm, "revoking");
    let mut all = RevokeManyDone { revoked: 0, kept: 0, renewed: 0, ended_requests: 0, next: None };
    loop {
        let watch = Stopwatch::start();
        let done = client.revoke_many(&request).await.map_err(|error| {
            ca_failure(error).hint(format!(
                "{} of {} are done; repeat the command to go on",
                all.revoked + all.kept + all.renewed,
                request.confirm
            ))
        })?;
        all.revoked += done.revoked;
        all.kept += done.kept;
        all.renewed += done.renewed;
        all.ended_requests += done.ended_requests;
        bar.reach(all.revoked + all.kept + all.renewed);
        let Some(next) = done.next else { return Ok(all) };
        request.after = Some(next);
        if let Some(pace) = pace {
            tokio::time::sleep(pace.saturating_sub(watch.elapsed())).await;
        }
    }
}

fn text(path: &Path) -> Outcome<String> {
    String::from_utf8(read_bounded(path, MAX_PAPER)?).or_fail(Exit::Usage, path.display())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use crate::cli::Cli;

    #[test]
    fn one_certificate_or_a_selection_and_nothing_half_said() {
        Cli::command().debug_assert();
        let read = |arguments: &str| {
            Cli::try_parse_from("mentatctl pki revoke".split(' ').chain(arguments.split(' '))).is_ok()
        };
        for good in [
            "--serial 0a",
            "--cert a.crt",
            "--identity dev@example.org",
            "--profile developer --issued-from 2026-01-01T00:00:00Z --confirm 3 --per-second 10",
            "--key ab --write-order order.json",
            "--order order.json --confirm 3 --approval alice.json --approval bob.json",
        ] {
            assert!(read(good), "{good}");
        }
        for bad in [
            "--reason superseded",
            "--serial 0a --identity dev@example.org",
            "--cert a.crt --order order.json",
            "--serial 0a --confirm 1",
            "--order order.json --identity dev@example.org",
            "--order order.json --write-order other.json",
            "--identity dev@example.org --per-second 10",
        ] {
            assert!(!read(bad), "{bad}");
        }
    }
}
