//! `executor`: joining an authority and a log that exist already; deployments; taking out of service; receipts.

mod anchors;
mod audit;
mod deploy;
mod hold;
mod receipt;
mod service;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use tlog_client::{LogDescription, LogSet};
use toml::{Table, Value};
use trust_store::policy::{CapabilityPolicy, FreshnessPolicy};
use trust_store::policy_document::PolicyDocument;

pub(crate) use audit::{VerifyAudit, run as verify_audit};

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, make_folder, write_file};
use crate::output::{Output, shown};
use crate::trust::{self, ExportFlags};

/// The executor's policy, in a folder of its own: the executor's sandbox leaves all of that folder readable.
const POLICY: &str = "policy/policy.yaml";
/// The folder.
const POLICY_FOLDER: &str = "policy";

/// `executor` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write trust files, a policy that accepts nobody, and executor.toml for an executor that joins
    Join(Join),
    /// Hand a release to an executor; where a route exists it serves nothing before it is deployed
    Load(deploy::Load),
    /// Let a loaded release take over an agent's calls
    Deploy(deploy::Deploy),
    /// Let the release that takes over serve everything now
    Promote(deploy::Change),
    /// Take back the release that takes over, or return to the one before
    Rollback(deploy::Change),
    /// Which releases serve
    Deployments(deploy::List),
    /// Take an executor out of service, or the releases that are named: calls are refused, and what runs ends by itself
    Drain(service::Drain),
    /// Let it take calls again
    Undrain(service::Undrain),
    /// Let no release run that is named, by its signing certificate or its place in the log above all: calls are refused, and
    /// what runs is stopped
    Stop(hold::Stop),
    /// Which releases are held
    Holds(hold::List),
    /// Take a hold back
    Resume(hold::Resume),
    /// Fetch the receipt of one execution
    Receipt(receipt::Get),
    /// Verify a receipt, offline
    VerifyReceipt(receipt::Verify),
    /// Prove that no receipt was removed or changed since the event log was told of them
    VerifyAnchors(anchors::VerifyAnchors),
    /// Prove that no record of its audit log was removed or changed since receipts named them
    VerifyAudit(VerifyAudit),
}

/// `executor join`.
#[derive(Debug, Args)]
pub struct Join {
    /// Folder for the files; nothing in it is overwritten
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The executor's own folder of state
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// IP:PORT to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: String,
    /// The executor's TLS certificate, PEM
    #[arg(long, value_name = "FILE", requires = "server_key")]
    server_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "server_cert")]
    server_key: Option<PathBuf>,
    /// Authorities whose client certificates are required, PEM
    #[arg(long, value_name = "FILE", requires = "server_cert")]
    client_ca: Option<PathBuf>,
    /// Subject of an administrator's client certificate, such as CN=operator; may be repeated
    #[arg(long, value_name = "SUBJECT")]
    admin: Vec<String>,
    #[command(flatten)]
    export: ExportFlags,
}

/// Runs an `executor` command.
///
/// # Errors
/// What the command reports.
pub fn run(command: &Command, home: &Home, out: &Output) -> Outcome {
    let join = match command {
        Command::Join(join) => join,
        Command::Load(load) => return deploy::load(load, home, out),
        Command::Deploy(deploy) => return deploy::deploy(deploy, home, out),
        Command::Promote(change) => return deploy::promote(change, home, out),
        Command::Rollback(change) => return deploy::rollback(change, home, out),
        Command::Deployments(list) => return deploy::list(list, home, out),
        Command::Drain(drain) => return service::drain(drain, home, out),
        Command::Undrain(undrain) => return service::undrain(undrain, home, out),
        Command::Stop(stop) => return hold::stop(stop, home, out),
        Command::Holds(list) => return hold::list(list, home, out),
        Command::Resume(resume) => return hold::resume(resume, home, out),
        Command::Receipt(get) => return receipt::get(get, home, out),
        Command::VerifyReceipt(verify) => return receipt::verify(verify, out),
        Command::VerifyAnchors(options) => return anchors::run(options, home, out),
        Command::VerifyAudit(options) => return verify_audit(options, home, out),
    };
    let sources = trust::ask(&join.export, home)?;
    let path = |name: &str| join.output.join(name);
    let signing = sources
        .logs
        .of_kind("signing")
        .ok_or_else(|| Failure::failed("the log server has no signing log"))?;
    let status = sources.status_base()?;
    let mut policy = PolicyDocument::default();
    policy.logs = Some(trust::log_policy(signing));
    policy.freshness = Some(FreshnessPolicy::WithinSeconds(3600));
    policy.capabilities = Some(CapabilityPolicy::Within(Vec::new()));
    let mut files = trust::files(&sources)?;
    files.push((POLICY, policy.to_json().or_fail(Exit::Failure, "writing the policy")?));
    files.push(("executor.toml", config(join, &sources.logs, signing, &status)?.into_bytes()));
    if let Some((name, _)) = files.iter().find(|(name, _)| path(name).exists()) {
        return Err(Failure::failed(format!("{} exists already", path(name).display())).hint(
            "choose an empty --output folder: what an executor trusts is not overwritten by accident",
        ));
    }
    make_folder(&join.output, Secrecy::Public)?;
    make_folder(&path(POLICY_FOLDER), Secrecy::Public)?;
    for (name, bytes) in &files {
        write_file(&path(name), bytes, Secrecy::Public)?;
        out.line(format!("wrote {}", path(name).display()));
    }
    if trust::reporters::names_no_issuer(&sources.logs) {
        out.line("the event log believes keys about revocations without naming an issuer's key: the executor ignores them and waits for lists; issuer_certificates in the log's configuration changes that");
    }
    out.line("next: compare the root's digest with what the ceremony printed, name accepted signers in policy/policy.yaml, start the executor");
    let root_sha256 = sources.root_sha256()?;
    out.value(|| {
        json!({
            "ok": true, "root_sha256": root_sha256,
            "files": files.iter().map(|(name, _)| shown(&path(name))).collect::<Vec<_>>(),
        })
    });
    out.line(format!("root SHA-256 {root_sha256}"));
    Ok(Exit::Ok)
}

fn config(join: &Join, logs: &LogSet, signing: &LogDescription, status: &str) -> Outcome<String> {
    let absolute = |path: &Path| -> Outcome<Value> {
        let path = std::path::absolute(path).or_fail(Exit::Usage, path.display())?;
        let text = path.to_str().ok_or_else(|| {
            Failure::usage(format!("the name of {} is not UTF-8 text", path.display()))
                .hint("choose another name: executor.toml is a text and must hold it")
        })?;
        Ok(Value::String(text.to_owned()))
    };
    let mut server = Table::from_iter([("listen".to_owned(), Value::String(join.listen.clone()))]);
    if let (Some(cert), Some(key)) = (&join.server_cert, &join.server_key) {
        let mut tls = Table::new();
        tls.insert("certificate_file".into(), absolute(cert)?);
        tls.insert("key_file".into(), absolute(key)?);
        if let Some(client_ca) = &join.client_ca {
            tls.insert("client_ca_file".into(), absolute(client_ca)?);
        }
        server.insert("tls".into(), Value::Table(tls));
    }
    let log = Table::from_iter([
        ("origin".to_owned(), Value::String(signing.origin.clone())),
        ("url".to_owned(), Value::String(signing.url.clone())),
    ]);
    let mut evidence = Table::new();
    evidence.insert("status_bases".into(), Value::Array(vec![Value::String(status.to_owned())]));
    evidence.insert("logs".into(), Value::Array(vec![Value::Table(log)]));
    if let Some(events) = logs.of_kind("event") {
        evidence.insert("events".into(), Value::String(events.url.clone()));
        evidence.insert("event_keys".into(), "log_keys.json".into());
    }
    if let Some(ca) = join.export.tls_ca() {
        evidence.insert("tls_ca_file".into(), absolute(ca)?);
    }
    // The certificate names the machine, so it is the server's to its callers and the client's to the log.
    if let (Some(cert), Some(key)) = (&join.server_cert, &join.server_key) {
        evidence.insert("tls_cert_file".into(), absolute(cert)?);
        evidence.insert("tls_key_file".into(), absolute(key)?);
    }
    let mut config = Table::new();
    config.insert("state_dir".into(), absolute(&join.data_dir)?);
    config.insert("trusted_root".into(), "trusted_root.json".into());
    config.insert("policy".into(), POLICY.into());
    config.insert("server".into(), Value::Table(server));
    if !join.admin.is_empty() {
        let subjects = join.admin.iter().cloned().map(Value::String).collect();
        config.insert(
            "admin".into(),
            Value::Table(Table::from_iter([("subjects".to_owned(), Value::Array(subjects))])),
        );
    }
    config.insert("evidence".into(), Value::Table(evidence));
    let text = toml::to_string(&config).or_fail(Exit::Failure, "writing executor.toml")?;
    Ok(format!(
        "# Written by `mentatctl executor join`; docs/operations/executor.toml explains every field.\n{text}"
    ))
}
