//! `pki revoke` with a selection: shows what it would touch, and with `--confirm` carries it out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_api::client::CaClient;
use ca_api::{PlanRevocations, RevocationPlan, RevocationSelection, RevokeMany};
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

impl Execution {
    /// Whether it is to be carried out.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirm.is_some()
    }

    /// Whether any of it is given.
    pub(super) fn is_given(&self) -> bool {
        self.is_confirmed() || self.write_order.is_some() || !self.approvals.is_empty()
    }

    /// How many approvals come with it.
    pub(super) fn approvals(&self) -> usize {
        self.approvals.len()
    }
}

impl Selection {
    /// Whether any of it is given.
    pub fn is_given(&self) -> bool {
        let texts =
            [&self.identity, &self.key, &self.issuer, &self.profile, &self.issued_from, &self.issued_before];
        self.order.is_some() || texts.into_iter().any(Option::is_some)
    }

    /// As the authority is asked.
    ///
    /// # Errors
    /// Exit code 2 for what is no time.
    pub(super) fn wire(&self) -> Outcome<RevocationSelection> {
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
    /// Others that have one of their keys.
    #[serde(default)]
    same_key: u64,
    selection: RevocationSelection,
}

/// An order as it was planned now, or as somebody signed it.
pub(super) struct Ordered {
    /// Its exact bytes.
    pub(super) text: String,
    /// How many certificates it matches.
    pub(super) matching: u64,
    /// How many others came of them by renewal.
    pub(super) renewed: u64,
    /// How many others have one of their keys.
    pub(super) same_key: u64,
    /// Which.
    pub(super) selection: RevocationSelection,
    /// What the authority said of it, if it was planned now.
    pub(super) plan: Option<RevocationPlan>,
}

impl Ordered {
    /// How many certificates end by it: the number that is confirmed.
    pub(super) fn ended(&self) -> u64 {
        self.matching.saturating_add(self.renewed).saturating_add(self.same_key)
    }
}

/// What an order did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Certificates that are revoked as ordered.
    pub(super) revoked: u64,
    /// Certificates that stay as they were.
    pub(super) kept: u64,
    /// Others that came of them by renewal, and are revoked with them.
    pub(super) renewed: u64,
    /// Others that have one of their keys, and are revoked with them.
    pub(super) same_key: u64,
    /// Requests that waited for people.
    pub(super) ended: u64,
}

impl Done {
    /// How many certificates it came to.
    fn all(&self) -> u64 {
        self.revoked + self.kept + self.renewed + self.same_key
    }
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
    let client = ca.client(home)?;
    let asked =
        || Ok(PlanRevocations { selection: selection.wire()?, reason: reason.into(), compromised_at });
    let ordered = order(selection, execution, asked, &client, out)?;
    let Some(done) = execute(&ordered, execution, &client, out)? else {
        if let Some(plan) = &ordered.plan {
            out.value(|| json!({ "ok": true, "plan": plan }));
        }
        return Ok(Exit::Ok);
    };
    let Done { revoked, kept, renewed, same_key, ended } = done;
    out.value(|| {
        json!({
            "ok": true, "revoked": revoked, "kept": kept, "renewed": renewed, "same_key": same_key,
            "ended_requests": ended,
        })
    });
    Ok(Exit::Ok)
}

/// Plans an order, or takes the one that is given, and writes it where that is wanted.
///
/// # Errors
/// As [`run`].
pub(super) fn order(
    selection: &Selection,
    execution: &Execution,
    asked: impl FnOnce() -> Outcome<PlanRevocations>,
    client: &CaClient,
    out: &Output,
) -> Outcome<Ordered> {
    if selection.order.is_none() && !execution.approvals.is_empty() {
        return Err(Failure::usage("--approval without --order")
            .hint("approvals are of an order's exact bytes: give the file that was signed with --order"));
    }
    let ordered = match &selection.order {
        Some(path) => {
            let text = text(path)?;
            let OrderHead { matching, renewed, same_key, selection } =
                serde_json::from_str(&text).or_fail(Exit::Usage, path.display())?;
            Ordered { text, matching, renewed, same_key, selection, plan: None }
        }
        None => {
            let asked = asked()?;
            let plan = block_on(async { client.plan_revocations(&asked).await.map_err(ca_failure) })?;
            out.line(format!("{} certificates, {} of them revoked already", plan.matching, plan.revoked));
            if plan.renewed > 0 {
                out.line(format!("{} others came of them by renewal, and end with them", plan.renewed));
            }
            if plan.same_key > 0 {
                out.line(format!("{} others have one of their keys, and end with them", plan.same_key));
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
            let (text, selection) = (plan.order.clone(), asked.selection);
            let (matching, renewed, same_key) = (plan.matching, plan.renewed, plan.same_key);
            Ordered { text, matching, renewed, same_key, selection, plan: Some(plan) }
        }
    };
    if let Some(path) = &execution.write_order {
        write_file(path, ordered.text.as_bytes(), Secrecy::Public)?;
    }
    Ok(ordered)
}

/// Carries an order out, where its number was confirmed.
///
/// # Errors
/// As [`run`].
pub(super) fn execute(
    ordered: &Ordered,
    execution: &Execution,
    client: &CaClient,
    out: &Output,
) -> Outcome<Option<Done>> {
    let ended = ordered.ended();
    let Some(confirm) = execution.confirm else {
        out.line(format!("nothing was revoked; to go on, repeat with --confirm {ended}"));
        return Ok(None);
    };
    if confirm != ended {
        return Err(Failure::usage(format!(
            "--confirm {confirm}, but {ended} certificates would be revoked"
        ))
        .hint("look again at what would be revoked, and confirm that number"));
    }
    if ordered.plan.as_ref().is_some_and(|plan| plan.approvals_needed > 0) {
        return Err(Failure::failed("the order needs approvals").code("quorum_missing").hint(
            "write it with --write-order FILE, have it approved, then give --order FILE and each --approval FILE",
        ));
    }
    let approvals = execution.approvals.iter().map(|path| text(path)).collect::<Outcome<Vec<_>>>()?;
    let limit = execution.per_second.unwrap_or(PIECE);
    let pace = execution.per_second.map(|_| Duration::from_secs(1));
    let request =
        RevokeMany { order: ordered.text.clone(), confirm, approvals, after: None, limit: Some(limit) };
    let done = block_on(carry_out(client, request, pace, out))?;
    let Done { revoked, kept, renewed, same_key, ended } = done;
    out.line(format!("{revoked} certificates are revoked; {kept} stay revoked for another reason"));
    if renewed > 0 {
        out.line(format!("{renewed} others that came of them by renewal are revoked with them"));
    }
    if same_key > 0 {
        out.line(format!("{same_key} others that have one of their keys are revoked with them"));
    }
    if ended > 0 {
        out.line(format!("{ended} requests that waited for approval are ended"));
    }
    Ok(Some(done))
}

async fn carry_out(
    client: &CaClient,
    mut request: RevokeMany,
    pace: Option<Duration>,
    out: &Output,
) -> Outcome<Done> {
    let bar = out.bar(request.confirm, "revoking");
    let mut all = Done::default();
    loop {
        let watch = Stopwatch::start();
        let done = client.revoke_many(&request).await.map_err(|error| {
            ca_failure(error).hint(format!(
                "{} of {} are done; repeat the command to go on",
                all.all(),
                request.confirm
            ))
        })?;
        all.revoked += done.revoked;
        all.kept += done.kept;
        all.renewed += done.renewed;
        all.same_key += done.same_key;
        all.ended += done.ended_requests;
        bar.reach(all.all());
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
