//! `pki list` and `pki status`: what the authority has on record.

use std::path::PathBuf;

use ca_api::client::{CaClient, ClientError};
use ca_api::{CertificateRecord, CertificateState, DatedStatus, Identity, ListQuery, StatusQuery};
use clap::Args;
use serde_json::json;
use tlog_client::LogClient;

use super::{CaFlags, by_digest, ca_failure, optional_time, own, parse_time, serial_number, time_text};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::Home;
use crate::log::known_log;
use crate::net::block_on;
use crate::output::{Output, Tone};

/// `pki list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only certificates of this identity
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// Only certificates of this key: SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal
    #[arg(long, value_name = "SHA256")]
    key: Option<String>,
    /// Only those with which something of this digest was signed, by the signing log: SHA-256 of a file, or of a release's envelope
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["identity", "key", "issued_from", "issued_before", "revoked"])]
    digest: Option<String>,
    /// For --digest: log_keys.json of `trust export` [default: of the stack, else ~/.mentat/log_keys.json]
    #[arg(long, value_name = "FILE", requires = "digest")]
    log_keys: Option<PathBuf>,
    /// Only those issued then or later, RFC 3339
    #[arg(long, value_name = "TIME")]
    issued_from: Option<String>,
    /// Only those issued before then, RFC 3339
    #[arg(long, value_name = "TIME")]
    issued_before: Option<String>,
    /// Only revoked ones
    #[arg(long)]
    revoked: bool,
    #[command(flatten)]
    own: own::OwnFlags,
    /// Most certificates to show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    ca: CaFlags,
}

/// `pki status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Serial number in hexadecimal
    #[arg(long)]
    serial: String,
    /// The date, RFC 3339
    #[arg(long, value_name = "TIME")]
    at: String,
    #[command(flatten)]
    ca: CaFlags,
}

/// Lists certificates.
///
/// # Errors
/// What the authority refuses.
pub fn certificates(list: &List, home: &Home, out: &Output) -> Outcome {
    if list.own.mine {
        return of_mine(list, home, out);
    }
    let client = list.ca.client(home)?;
    if let Some(text) = &list.digest {
        return of_digest(list, &by_digest::digest(text)?, &client, home, out);
    }
    let created_from = optional_time(list.issued_from.as_deref())?;
    let created_before = optional_time(list.issued_before.as_deref())?;
    let mut left = list.limit;
    let mut after = None;
    let mut shown = 0_u32;
    while left > 0 {
        let query = ListQuery {
            identity: list.identity.clone(),
            spki_sha256: list.key.as_ref().map(|key| key.to_lowercase()),
            created_from,
            created_before,
            state: list.revoked.then_some(CertificateState::Revoked),
            limit: Some(left.min(1000)),
            after,
        };
        let page = block_on(async { client.list(&query).await.map_err(ca_failure) })?;
        for record in &page.certificates {
            show(record, out)?;
            shown += 1;
        }
        left = left.saturating_sub(u32::try_from(page.certificates.len()).unwrap_or(u32::MAX));
        after = page.next;
        if after.is_none() || page.certificates.is_empty() {
            break;
        }
    }
    if shown == 0 {
        out.line("no certificates");
    }
    Ok(Exit::Ok)
}

/// Lists the certificates of the identity whose key is at hand.
fn of_mine(list: &List, home: &Home, out: &Output) -> Outcome {
    let others = [
        list.identity.is_some(),
        list.key.is_some(),
        list.digest.is_some(),
        list.issued_from.is_some(),
        list.issued_before.is_some(),
        list.revoked,
    ];
    if others.contains(&true) {
        return Err(Failure::usage("--mine lists every certificate of your identity")
            .hint("leave the other conditions out"));
    }
    for record in own::list(&list.own, list.limit, &list.ca, home)? {
        show(&record, out)?;
    }
    Ok(Exit::Ok)
}

/// Lists the certificates in the signing log's entries of a digest.
fn of_digest(list: &List, digest: &str, client: &CaClient, home: &Home, out: &Output) -> Outcome {
    let keys = home.log_keys(list.log_keys.as_deref())?;
    let known = known_log(&keys, "signing")?;
    let log = LogClient::new(list.ca.http(home)?, &known.description.url);
    let log = log.or_fail(Exit::Usage, "the log's address")?;
    let serials = block_on(by_digest::serials(&known, &log, digest))?;
    let mut shown = 0_u32;
    for serial in serials.iter().take(usize::try_from(list.limit).unwrap_or(usize::MAX)) {
        match block_on(async { Ok(client.show(serial).await) })? {
            Ok(record) => show(&record, out)?,
            // Signed with a certificate of another authority that the log takes.
            Err(ClientError::Problem(problem)) if problem.status == 404 => {
                out.line(format!("{serial}  of another authority"));
            }
            Err(error) => return Err(ca_failure(error)),
        }
        shown += 1;
    }
    if shown == 0 {
        out.line("no certificates");
    }
    Ok(Exit::Ok)
}

/// Says what held of a certificate on a date.
///
/// # Errors
/// What the authority refuses.
pub fn status(asked: &Status, home: &Home, out: &Output) -> Outcome {
    let (serial, at) = (serial_number(&asked.serial)?, parse_time(&asked.at)?.0);
    let client = asked.ca.client(home)?;
    let found = block_on(async { client.status_on(&serial, &StatusQuery { at }).await.map_err(ca_failure) })?;
    let status = match found.status {
        DatedStatus::Good => out.paint(Tone::Good, "good"),
        DatedStatus::Revoked { revoked_at, .. } => {
            format!("{} as of {}", out.paint(Tone::Bad, "revoked"), time_text(revoked_at))
        }
        DatedStatus::NotYetValid => "not yet valid".to_owned(),
        DatedStatus::Expired => "expired".to_owned(),
        DatedStatus::Unknown => out.paint(Tone::Bad, "never finished"),
    };
    out.line(format!("{} on {}: {status}", found.serial, time_text(found.at)));
    out.value(|| json!({ "ok": true, "status": found }));
    Ok(Exit::Ok)
}

fn show(record: &CertificateRecord, out: &Output) -> Outcome<()> {
    let state = serde_json::to_value(record.state).or_fail(Exit::Failure, "writing a state")?;
    let state = state.as_str().unwrap_or_default().to_owned();
    let tone = if record.revocation.is_some() { Tone::Bad } else { Tone::Good };
    let identity = record.identity.as_ref().map_or("", Identity::as_str);
    out.line(format!(
        "{}  {:<14} {:<10} to {}  {identity}",
        record.serial,
        out.paint(tone, &state),
        record.profile,
        time_text(record.not_after),
    ));
    if out.is_json() {
        let record = serde_json::to_value(record).or_fail(Exit::Failure, "writing a record")?;
        out.value(|| record);
    }
    Ok(())
}
