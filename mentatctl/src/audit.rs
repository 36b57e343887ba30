//! `audit report` and `audit verify`: what was issued, signed, revoked and admitted in a period, in one signed file that
//! verifies offline; what does not fit together is named.

mod account;
pub mod collect;
mod evidence;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;
use trust_store::dsse::{self, Envelope, IN_TOTO_PAYLOAD_TYPE};
use trust_store::statement::STATEMENT_TYPE;

use self::account::{Account, account, verifies};
use self::collect::{Reading, Wanted, audit_log};
use self::evidence::{Evidence, Period, refused};
use crate::executor::VerifyAudit;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, write_file};
use crate::log::event_key::{EventKeyFlags, public_key};
use crate::log::history::{History, Seen};
use crate::log::{KnownLog, ServerFlags};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, Tone};
use crate::sign::{Signer, sha256};
use crate::{chain_file, pki};

/// `predicateType` of a report.
pub const REPORT: &str = "https://mentat.internal/audit-report/v1";
/// Largest report that is read, bytes.
const MAX_REPORT: u64 = 512 << 20;
/// The logs of a report.
const KINDS: [&str; 3] = ["issuance", "signing", "event"];

/// `audit` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Account for a period over all logs, as one signed file
    Report(Box<Report>),
    /// Verify a report offline and compute its account again, or an executor's audit log against its receipts
    Verify(Box<Verify>),
}

/// `audit report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Beginning of the period: a date or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    from: String,
    /// End of the period, itself not part of it
    #[arg(long, value_name = "TIME")]
    to: String,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Audit log (audit.jsonl) of an executor; may be repeated
    #[arg(long = "executor-log", value_name = "[NAME=]FILE", value_parser = named_file)]
    executors: Vec<(String, PathBuf)>,
    #[command(flatten)]
    events: EventKeyFlags,
    /// Checkpoints that `log monitor` saw of the signing log [default: ~/.mentat/monitor/ORIGIN.history.jsonl, if there]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Certificate of who signs the report, PEM [default: ~/.mentat/signing.crt]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, PEM [default: ~/.mentat/signing.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Passphrase of an encrypted key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerFlags,
}

/// `audit verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The report
    #[arg(value_name = "FILE", required_unless_present = "audit_log")]
    report: Option<PathBuf>,
    /// Instead of a report, the audit log of an executor, as `executor verify-audit` does
    #[arg(long, value_name = "FILE", conflicts_with_all = ["report", "cert", "key", "log_keys"])]
    audit_log: Option<PathBuf>,
    /// Base URL of that executor
    #[arg(long, value_name = "URL", requires = "audit_log")]
    executor_url: Option<String>,
    /// Verifier key of its receipt log [default: what the executor says]
    #[arg(long, value_name = "VKEY", requires = "audit_log")]
    vkey: Vec<String>,
    /// File with a bearer token for that executor
    #[arg(long, value_name = "FILE", requires = "audit_log")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
    /// Certificate of who signed it, PEM [default: ~/.mentat/signing.crt]
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    cert: Option<PathBuf>,
    /// Public key of who signed it, PEM, instead of a certificate
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// log_keys.json by which the logs are believed [default: of the stack, else ~/.mentat/log_keys.json]
    #[arg(long, value_name = "FILE")]
    log_keys: Option<PathBuf>,
    #[command(flatten)]
    events: EventKeyFlags,
}

/// The in-toto statement that a report is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

/// A log: its origin, and SHA-256 of the checkpoint's note.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: Digest,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Digest {
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    period: Period,
    account: Account,
    evidence: Evidence,
}

/// Runs an `audit` command.
///
/// # Errors
/// What the command reports.
pub fn run(command: &Command, home: &Home, out: &Output) -> Outcome {
    match command {
        Command::Report(options) => report(options, home, out),
        Command::Verify(options) => verify(options, home, out),
    }
}

/// Runs `audit report`: exit code 0 when everything fits, 1 with findings. The file is written in both cases.
fn report(options: &Report, home: &Home, out: &Output) -> Outcome {
    let period = Period { from: day_or_time(&options.from)?, to: day_or_time(&options.to)? };
    period.bounds().map_err(|_| Failure::usage("--from is not before --to").hint("exchange them"))?;
    let cert = options.cert.clone().unwrap_or_else(|| home.signing_certificate());
    let signer = Signer::load(&cert, options.key.as_deref(), None, options.passphrase_file.as_deref(), home)?;
    let (mut executors, mut admitted) = (Vec::new(), BTreeSet::new());
    for (name, path) in &options.executors {
        let (evidence, indices) = audit_log(name, path, &period)?;
        executors.push(evidence);
        admitted.extend(indices);
    }
    let [issuance, signing, event] = KINDS.map(|kind| options.server.known(home, kind));
    let (issuance, signing, event) = (issuance?, signing?, event?);
    let event_rules = options.events.rules(&event)?;
    let history = history(options, home, &signing)?;
    let logs = block_on(async {
        // In this order: whatever signed was issued before, so the issuance log is read last.
        let client = options.server.client(&signing, home)?;
        let signing =
            Reading::start(&signing, &client, out).await?.signing(&period, &history, &admitted).await?;
        let client = options.server.client(&event, home)?;
        let event = Reading::start(&event, &client, out).await?.event(&period, &signing).await?;
        let client = options.server.client(&issuance, home)?;
        let wanted = Wanted::of(&signing, &event);
        let issuance = Reading::start(&issuance, &client, out).await?.issuance(&period, &wanted).await?;
        Ok(vec![issuance, signing, event])
    })?;
    let evidence = Evidence { event_rules, logs, executors };
    let statement = statement(period, evidence)?;
    let payload = serde_json::to_vec(&statement).or_fail(Exit::Failure, "writing the report")?;
    let signature = signer.sign(&dsse::pae(IN_TOTO_PAYLOAD_TYPE, &payload))?;
    let envelope = Envelope::new(IN_TOTO_PAYLOAD_TYPE, payload, signature);
    let mut file = serde_json::to_vec(&envelope).or_fail(Exit::Failure, "writing the report")?;
    file.push(b'\n');
    if file.len() as u64 > MAX_REPORT {
        return Err(Failure::failed("the report is larger than 512 MiB").hint("choose a shorter period"));
    }
    write_file(&options.output, &file, Secrecy::Public)?;
    out.line(format!("wrote {}, signed by {}", options.output.display(), signer.name()));
    Ok(show(&statement.predicate, out))
}

/// Runs `audit verify`: exit code 0 when it verifies and everything fits, 1 with findings, 3 when it does not verify.
fn verify(options: &Verify, home: &Home, out: &Output) -> Outcome {
    if let Some(audit_log) = &options.audit_log {
        let options = VerifyAudit {
            audit_log: audit_log.clone(),
            executor_url: options.executor_url.clone(),
            vkey: options.vkey.clone(),
            token_file: options.token_file.clone(),
            tls: options.tls.clone(),
        };
        return crate::executor::verify_audit(&options, home, out);
    }
    let report = options.report.as_deref().ok_or_else(|| Failure::usage("there is no report"))?;
    let key = match &options.key {
        Some(path) => public_key(path)?,
        None => {
            let cert = options.cert.clone().unwrap_or_else(|| home.signing_certificate());
            let chain = chain_file::read(&cert)?;
            chain.first().map(|certificate| certificate.spki_der().to_vec()).unwrap_or_default()
        }
    };
    let keys = home.log_keys(options.log_keys.as_deref())?;
    let statement = open(&read_report(report)?, &key)?;
    let predicate = &statement.predicate;
    for log in &predicate.evidence.logs {
        let known = crate::log::known_log(&keys, &log.kind)?;
        if known.description.origin != log.origin {
            return Err(refused(&format!(
                "the keys file knows another {} log than {}",
                log.kind, log.origin
            )));
        }
        log.verify(&known.keys, &predicate.period)?;
        if log.kind == "event" && !options.events.rules(&known)?.cover(&predicate.evidence.event_rules) {
            return Err(refused("the report believes events of keys that are not known here"));
        }
    }
    if account(&predicate.evidence, &predicate.period)? != predicate.account {
        return Err(refused("the account is not what the evidence gives"));
    }
    if subjects(&predicate.evidence) != statement.subject {
        return Err(refused("the subjects are not the report's checkpoints"));
    }
    Ok(show(predicate, out))
}

/// Verifies the envelope and reads the statement in it.
fn open(file: &[u8], key: &[u8]) -> Outcome<Statement> {
    let malformed = |what: &str| refused(&format!("the file is no report: {what}"));
    let envelope: Envelope = serde_json::from_slice(file).map_err(|_| malformed("no DSSE envelope"))?;
    let signature = envelope.single_signature().map_err(|_| malformed("not one signature"))?;
    if envelope.payload_type != IN_TOTO_PAYLOAD_TYPE {
        return Err(malformed("another payload type"));
    }
    if !verifies(key, &envelope.pae(), &signature.sig) {
        return Err(Failure::new(Exit::Denied, "the report's signature does not verify with this key")
            .code("signature_invalid"));
    }
    let statement: Statement =
        serde_json::from_slice(&envelope.payload).map_err(|error| malformed(&error.to_string()))?;
    if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != REPORT {
        return Err(malformed("another type of statement"));
    }
    Ok(statement)
}

fn statement(period: Period, evidence: Evidence) -> Outcome<Statement> {
    Ok(Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: subjects(&evidence),
        predicate_type: REPORT.to_owned(),
        predicate: Predicate { account: account(&evidence, &period)?, period, evidence },
    })
}

fn subjects(evidence: &Evidence) -> Vec<Subject> {
    let subject = |log: &evidence::LogEvidence| Subject {
        name: log.origin.clone(),
        digest: Digest { sha256: hex::encode(sha256(log.checkpoint.as_bytes())) },
    };
    evidence.logs.iter().map(subject).collect()
}

fn show(predicate: &Predicate, out: &Output) -> Exit {
    let (account, period) = (&predicate.account, &predicate.period);
    out.line(format!(
        "{} to {}: {} issued, {} signed, {} revoked, {} admitted",
        period.from,
        period.to,
        account.issued.len(),
        account.signed.len(),
        account.revoked.len(),
        account.admitted.len()
    ));
    if predicate.evidence.log("signing").is_ok_and(|log| log.seen_before.is_none()) {
        out.line("  signed: from the log's first entry on, no checkpoint was seen before the period");
    }
    let by_hash = predicate.evidence.log("event").map_or(0, |log| log.leaves.len());
    if by_hash > 0 {
        out.line(format!("  events: {by_hash} older ones stand in the report by their hashes only"));
    }
    for finding in &account.findings {
        out.line(format!(
            "  {} {}: {} [{}]",
            out.paint(Tone::Bad, "finding"),
            finding.at,
            finding.text,
            finding.code
        ));
    }
    if account.findings.is_empty() {
        out.line(format!("  {}", out.paint(Tone::Good, "everything fits together")));
    }
    out.value(|| {
        json!({
            "ok": account.findings.is_empty(), "from": period.from, "to": period.to,
            "issued": account.issued, "signed": account.signed, "revoked": account.revoked,
            "admitted": account.admitted, "findings": account.findings, "events_by_hash": by_hash,
        })
    });
    if account.findings.is_empty() { Exit::Ok } else { Exit::Failure }
}

fn history(options: &Report, home: &Home, signing: &KnownLog) -> Outcome<Vec<Seen>> {
    let default = home.dir().join("monitor").join(format!("{}.history.jsonl", signing.description.origin));
    match &options.history {
        Some(path) => History::at(path).read(),
        None if default.is_file() => History::at(&default).read(),
        None => Ok(Vec::new()),
    }
}

fn read_report(path: &Path) -> Outcome<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_REPORT + 1).read_to_end(&mut bytes));
    let length = read.or_fail(Exit::Usage, format!("cannot read {}", path.display()))?;
    if length as u64 > MAX_REPORT {
        return Err(Failure::usage(format!("{} is larger than 512 MiB", path.display()))
            .hint("is it the file that was meant?"));
    }
    Ok(bytes)
}

/// A date stands for its beginning.
fn day_or_time(text: &str) -> Outcome<String> {
    let whole = if text.len() == "2030-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    Ok(pki::parse_time(&whole)?.to_rfc3339())
}

/// `NAME=FILE`, or `FILE` under its own name.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').unwrap_or((text, text));
    if name.is_empty() || path.is_empty() || name.chars().any(char::is_control) {
        return Err("give FILE or NAME=FILE".to_owned());
    }
    Ok((name.to_owned(), PathBuf::from(path)))
}
