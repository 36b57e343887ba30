//! `pki incident`: a key is in other hands. Shows what it touched, plans and carries out the revocation, and reports what became of
//! it. The order, its approvals and its pieces are those of `pki revoke` ([`super::revoke_many`]); here is what stands around them. Of a
//! certificate of the authority's own it shows what descends from it ([`super::descent`]).

use std::path::{Path, PathBuf};

use ca_api::client::CaClient;
use ca_api::{CertificateRecord, Identity, ListQuery, PlanRevocations, RevocationSelection};
use clap::Args;
use hsm::PublicKey;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tlog_client::LogClient;
use trust_store::Certificate;

use super::by_digest::{By, Signed, signed};
use super::revoke_many::{self, Done, Execution, Ordered, Selection};
use super::{CaFlags, Reason, ca_failure, descent, optional_time, time_text};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, write_file};
use crate::log::known_log;
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::{chain_file, clock};

/// Most certificates that are shown and reported one by one; an order reaches the others all the same.
pub(super) const MOST_SHOWN: usize = 1_000;
/// Most certificates about which the log is asked.
const MOST_ASKED: usize = 100;
/// Certificates of one page.
pub(super) const PAGE: u32 = 1_000;
/// Most pages that are read to find them.
pub(super) const MOST_PAGES: u32 = 1_000;

/// `pki incident`.
#[derive(Debug, Args)]
pub struct Incident {
    /// Certificate of the key that is in other hands: every certificate of that key is meant; of a CA, show what descends from it
    #[arg(long, value_name = "FILE", group = "selection", conflicts_with_all = ["key", "order"])]
    cert: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Since when it is in other hands, RFC 3339: what was signed before may stand, where a policy says so [default: since ever]
    #[arg(long, value_name = "TIME", conflicts_with = "order")]
    since: Option<String>,
    /// Why
    #[arg(long, value_enum, default_value = "key-compromise", conflicts_with = "order")]
    reason: Reason,
    #[command(flatten)]
    execution: Execution,
    /// Where to write the report, JSON: what was touched, what was ordered, what became of it
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// log_keys.json of `trust export`, to ask the signing log what was signed [default: of the stack, else ~/.mentat/log_keys.json]
    #[arg(long, value_name = "FILE")]
    log_keys: Option<PathBuf>,
    #[command(flatten)]
    ca: CaFlags,
}

/// What a key touched.
struct Touched {
    /// The certificates, newest first.
    certificates: Vec<CertificateRecord>,
    /// How many more there are than are shown.
    not_shown: u64,
    /// What the signing log has by them; none where it was not asked.
    signed: Option<Vec<Signed>>,
}

/// What became of an order, with the certificates as they are recorded then.
enum Became {
    NotCarriedOut,
    CarriedOut(Done, Vec<CertificateRecord>),
    /// Perhaps after some of its pieces.
    Failed(Failure, Option<Vec<CertificateRecord>>),
}

/// Shows an incident; with `--confirm` ends it.
///
/// # Errors
/// As `pki revoke` with a selection, after the report was written; 69 or 3 when the log that is asked does not answer, or its answer does
/// not verify.
pub fn run(incident: &Incident, home: &Home, out: &Output) -> Outcome {
    if !incident.selection.is_given() && incident.cert.is_none() {
        return Err(Failure::usage("nothing says whose key it is").hint(
            "give --cert FILE or --key SHA256, or another selection; --order FILE goes on with an order",
        ));
    }
    let began = clock::now().0;
    let client = incident.ca.client(home)?;
    if let Some((path, certificate)) = incident.certificate_of_a_ca()? {
        let orders = incident.execution.is_given();
        let report = descent::run(path, &certificate, orders, &incident.selection.wire()?, &client, out)?;
        incident.write(&report, out)?;
        out.value(|| report);
        return Ok(Exit::Ok);
    }
    let ordered =
        revoke_many::order(&incident.selection, &incident.execution, || incident.asked(), &client, out)?;
    let touched = touched(incident, &ordered, &client, home, out)?;
    show(&touched, out)?;
    let outcome = match revoke_many::execute(&ordered, &incident.execution, &client, out) {
        Ok(None) => Became::NotCarriedOut,
        // What became of each, by the authority's records.
        Ok(Some(done)) => Became::CarriedOut(done, block_on(certificates(&client, &ordered.selection))?.0),
        Err(failure) => {
            // Where the authority does not answer any more, what was seen before stands in for it.
            let now = block_on(certificates(&client, &ordered.selection)).map(|(found, _)| found);
            Became::Failed(failure, now.ok())
        }
    };
    let report = report(incident, &ordered, &touched, &outcome, began)?;
    incident.write(&report, out)?;
    if let Became::Failed(failure, _) = outcome {
        return Err(failure);
    }
    out.value(|| report);
    Ok(Exit::Ok)
}

impl Incident {
    /// The certificate that was given, if it is one of a CA.
    fn certificate_of_a_ca(&self) -> Outcome<Option<(&Path, Certificate)>> {
        let Some(path) = &self.cert else { return Ok(None) };
        let first = chain_file::read(path)?.into_iter().next().filter(Certificate::is_ca);
        Ok(first.map(|certificate| (path.as_path(), certificate)))
    }

    /// Writes the report where that is wanted.
    fn write(&self, report: &serde_json::Value, out: &Output) -> Outcome<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let mut text = serde_json::to_vec_pretty(report).or_fail(Exit::Failure, "writing the report")?;
        text.push(b'\n');
        write_file(path, &text, Secrecy::Public)?;
        out.line(format!("wrote {}", path.display()));
        Ok(())
    }

    fn asked(&self) -> Outcome<PlanRevocations> {
        let mut selection = self.selection.wire()?;
        if let Some(path) = &self.cert {
            let certificates = chain_file::read(path)?;
            let key = certificates.first().map(|first| PublicKey::from_spki_der(first.spki_der()));
            let key = key.ok_or_else(|| Failure::usage(format!("{} is empty", path.display())))?;
            let key = key.or_fail(Exit::Usage, path.display())?;
            selection.spki_sha256 = Some(hex::encode(key.spki_sha256()));
        }
        let compromised_at = optional_time(self.since.as_deref())?;
        Ok(PlanRevocations { selection, reason: self.reason.into(), compromised_at })
    }
}

fn touched(
    incident: &Incident,
    ordered: &Ordered,
    client: &CaClient,
    home: &Home,
    out: &Output,
) -> Outcome<Touched> {
    let (certificates, not_shown) = {
        let _spinner = out.spinner("looking for certificates");
        block_on(certificates(client, &ordered.selection))?
    };
    // Without the log's keys nothing that it says can be believed; whoever carries an order out has looked before.
    let known = match home.log_keys(incident.log_keys.as_deref()) {
        Ok(_) if incident.execution.is_confirmed() => None,
        Ok(keys) => Some(known_log(&keys, "signing")?),
        Err(failure) if incident.log_keys.is_some() => return Err(failure),
        Err(_) => {
            out.note("the log was not asked what was signed: give --log-keys FILE (mentatctl trust export)");
            None
        }
    };
    let signed = match known {
        None => None,
        Some(known) => {
            let log = LogClient::new(incident.ca.http(home)?, &known.description.url);
            let log = log.or_fail(Exit::Usage, "the log's address")?;
            let _spinner = out.spinner("asking the log what was signed");
            let mut all = Vec::new();
            for certificate in certificates.iter().take(MOST_ASKED) {
                all.extend(block_on(signed(&known, &log, By::Serial(&certificate.serial)))?);
            }
            if certificates.len() > MOST_ASKED {
                out.note(format!("the log was asked about the newest {MOST_ASKED} certificates only"));
            }
            Some(all)
        }
    };
    Ok(Touched { certificates, not_shown, signed })
}

/// The certificates of a selection, newest first, and how many more there are than are returned.
async fn certificates(
    client: &CaClient,
    selection: &RevocationSelection,
) -> Outcome<(Vec<CertificateRecord>, u64)> {
    let RevocationSelection { identity, spki_sha256, issuer, profile, issued_from, issued_before } =
        selection.clone();
    let (mut found, mut not_shown, mut after) = (Vec::new(), 0_u64, None);
    for _ in 0..MOST_PAGES {
        let query = ListQuery {
            identity: identity.clone(),
            spki_sha256: spki_sha256.clone(),
            created_from: issued_from,
            created_before: issued_before,
            state: None,
            limit: Some(PAGE),
            after,
        };
        let page = client.list(&query).await.map_err(ca_failure)?;
        for record in page.certificates {
            // The CA's own are in no selection.
            let meant = record.identity.is_some()
                && issuer.as_ref().is_none_or(|issuer| *issuer == record.issuer)
                && profile.as_ref().is_none_or(|profile| *profile == record.profile);
            match meant {
                true if found.len() < MOST_SHOWN => found.push(record),
                true => not_shown = not_shown.saturating_add(1),
                false => {}
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((found, not_shown));
        }
    }
    Err(Failure::failed("the authority lists more certificates than can be looked at")
        .hint("name a shorter time: --issued-from and --issued-before"))
}

fn show(touched: &Touched, out: &Output) -> Outcome<()> {
    show_certificates(&touched.certificates, touched.not_shown, out)?;
    for entry in touched.signed.iter().flatten() {
        out.line(format!(
            "entry {} of the signing log: sha256:{} by {}",
            entry.index, entry.digest, entry.serial
        ));
    }
    if touched.signed.as_ref().is_some_and(Vec::is_empty) {
        out.line("the signing log has nothing by these certificates");
    }
    Ok(())
}

/// Certificates, newest first, and how many more there are.
pub(super) fn show_certificates(
    certificates: &[CertificateRecord],
    not_shown: u64,
    out: &Output,
) -> Outcome<()> {
    for record in certificates {
        let state = serde_json::to_value(record.state).or_fail(Exit::Failure, "writing a state")?;
        let tone = if record.revocation.is_some() { Tone::Good } else { Tone::Bad };
        let identity = record.identity.as_ref().map_or("", Identity::as_str);
        out.line(format!(
            "{}  {:<14} {:<10} {} to {}  {identity}",
            record.serial,
            out.paint(tone, state.as_str().unwrap_or_default()),
            record.profile,
            time_text(record.not_before),
            time_text(record.not_after),
        ));
    }
    if not_shown > 0 {
        out.line(format!("and {not_shown} more"));
    }
    Ok(())
}

fn report(
    incident: &Incident,
    ordered: &Ordered,
    touched: &Touched,
    outcome: &Became,
    began: i64,
) -> Outcome<serde_json::Value> {
    let (done, failed, now) = match outcome {
        Became::NotCarriedOut => (None, None, None),
        Became::CarriedOut(done, now) => (Some(done), None, Some(now)),
        Became::Failed(failure, now) => (None, Some(failure), now.as_ref()),
    };
    let now = now.unwrap_or(&touched.certificates);
    let certificates = serde_json::to_value(now).or_fail(Exit::Failure, "writing the report")?;
    let signed = serde_json::to_value(&touched.signed).or_fail(Exit::Failure, "writing the report")?;
    Ok(json!({
        "ok": failed.is_none(),
        "began_at": began,
        "ended_at": clock::now().0,
        "order": ordered.text,
        "order_sha256": hex::encode(Sha256::digest(&ordered.text)),
        "matching": ordered.matching,
        "renewed": ordered.renewed,
        "same_key": ordered.same_key,
        "plan": ordered.plan,
        "approvals": incident.execution.approvals(),
        "carried_out": done.map(|done| json!({
            "revoked": done.revoked, "kept": done.kept, "renewed": done.renewed, "same_key": done.same_key,
            "ended_requests": done.ended,
        })),
        "failed": failed.map(|failure| json!({ "code": failure.code, "what": failure.what })),
        "certificates": certificates,
        "not_shown": touched.not_shown,
        "signed": signed,
    }))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use crate::cli::Cli;

    #[test]
    fn an_incident_is_about_one_selection_or_one_order() {
        Cli::command().debug_assert();
        let read = |arguments: &str| {
            Cli::try_parse_from("mentatctl pki incident".split(' ').chain(arguments.split(' '))).is_ok()
        };
        for good in [
            "--cert a.crt",
            "--cert a.crt --since 2026-01-01T00:00:00Z --write-order order.json",
            "--key ab --confirm 2 --per-second 10 --report report.json",
            "--cert a.crt --confirm 2",
            "--identity dev@example.org --reason privilege-withdrawn",
            "--order order.json --confirm 3 --approval alice.json --report report.json",
        ] {
            assert!(read(good), "{good}");
        }
        for bad in [
            "--confirm 2",
            "--cert a.crt --key ab",
            "--cert a.crt --order order.json",
            "--order order.json --since 2026-01-01T00:00:00Z",
            "--order order.json --reason superseded",
            "--cert a.crt --per-second 10",
        ] {
            assert!(!read(bad), "{bad}");
        }
    }
}
