//! `trust lint`: whether stock clients can use trust files, by the rules that those clients enforce and do not explain.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tlog::VerifierKey;
use trust_store::Certificate;
use trust_store::key_details::KeyDetails;
use trust_store::oid;
use trust_store::signing_config::{Service, SigningConfig};
use trust_store::trusted_root::{Authority, LogInstance, TrustedRoot};

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Home, read_file};
use crate::output::{Output, Tone, shown};

/// `trust lint`.
#[derive(Debug, Args)]
pub struct Lint {
    /// trusted_root.json [default: of the stack, else ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// signing_config.json [default: beside the trusted root, if there is one]
    #[arg(long, value_name = "FILE")]
    signing_config: Option<PathBuf>,
}

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong with what.
    pub text: String,
}

/// Runs `trust lint`.
///
/// # Errors
/// Exit code 2 when a file cannot be read; findings are exit code 1.
pub fn run(lint: &Lint, home: &Home, out: &Output) -> Outcome {
    let root_path = home.trusted_root(lint.trusted_root.as_deref())?;
    let root = TrustedRoot::parse(&read_file(&root_path)?).or_fail(Exit::Usage, root_path.display())?;
    let mut found = trusted_root(&root);
    let beside = root_path.with_file_name("signing_config.json");
    let config_path = lint.signing_config.clone().or_else(|| beside.is_file().then_some(beside));
    if let Some(path) = &config_path {
        let config = SigningConfig::parse(&read_file(path)?).or_fail(Exit::Usage, path.display())?;
        found.extend(signing_config(&config));
    }
    for finding in &found {
        out.line(format!("{} {} [{}]", out.paint(Tone::Bad, "finding"), finding.text, finding.code));
    }
    if found.is_empty() {
        out.line(out.paint(Tone::Good, "nothing to remark"));
    }
    out.value(|| json!({
        "ok": found.is_empty(), "trusted_root": shown(&root_path), "signing_config": config_path.as_deref().map(shown),
        "findings": found.iter().map(|f| json!({ "code": f.code, "text": f.text })).collect::<Vec<_>>(),
    }));
    Ok(if found.is_empty() { Exit::Ok } else { Exit::Failure })
}

/// The findings of a trusted root.
pub fn trusted_root(root: &TrustedRoot) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |code, text: String| found.push(Finding { code, text });
    for (list, what) in [
        (root.tlogs.is_empty(), "transparency log"),
        (root.certificate_authorities.is_empty(), "certificate authority"),
        (root.ctlogs.is_empty(), "certificate log"),
        (root.timestamp_authorities.is_empty(), "timestamp authority"),
    ] {
        if list {
            add("missing", format!("there is no {what}"));
        }
    }
    for log in &root.tlogs {
        log_name(log, &mut add);
        checkpoint_key(log, &mut add);
    }
    for log in &root.ctlogs {
        log_name(log, &mut add);
        if log.public_key.key_details != KeyDetails::EcdsaP256Sha256 {
            add("ct_key", format!("the certificate log {} has no P-256 key", log.base_url));
        }
        if log.log_id.key_id.0 != Sha256::digest(&log.public_key.raw_bytes.0).as_slice() {
            add("log_id", format!("the id of {} is not SHA-256 of its key", log.base_url));
        }
    }
    for authority in &root.certificate_authorities {
        chain(authority, Use::Signing, &mut add);
    }
    for authority in &root.timestamp_authorities {
        chain(authority, Use::Timestamps, &mut add);
    }
    found
}

/// The findings of a signing configuration.
pub fn signing_config(config: &SigningConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |code, text: String| found.push(Finding { code, text });
    for (list, what, version) in [
        (&config.ca_urls, "certificate authority", Some(1)),
        (&config.rekor_tlog_urls, "transparency log", Some(2)),
        (&config.tsa_urls, "timestamp authority", None),
    ] {
        if list.is_empty() {
            add("missing", format!("the signing configuration names no {what}"));
        }
        for service in list {
            if version.is_some_and(|version| version != service.major_api_version) {
                let text = format!("{} has API version {}", service.url, service.major_api_version);
                add("api_version", format!("{text}; clients look for {}", version.unwrap_or_default()));
            }
            address(service, what, &mut add);
        }
        let starts: Vec<_> = list.iter().map(|service| service.valid_for.start).collect();
        if !starts.is_sorted_by(|one, next| one >= next) {
            add("order", format!("the {what} entries do not stand newest first"));
        }
    }
    found
}

fn address(service: &Service, what: &str, add: &mut impl FnMut(&'static str, String)) {
    let url = &service.url;
    let Ok(parsed) = reqwest::Url::parse(url) else {
        add("url", format!("`{url}` is no address"));
        return;
    };
    let local = parsed.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
    if parsed.scheme() != "https" && !(parsed.scheme() == "http" && local) {
        add("clear_text", format!("{url} is neither https nor on this machine"));
    }
    let bare = parsed.path() == "/";
    if what == "timestamp authority" && bare {
        add("tsa_url", format!("{url} is no full address of a timestamp authority"));
    }
    if what != "timestamp authority" && !bare {
        add("base_url", format!("{url} has a path, which stock clients drop"));
    }
    if service.valid_for.start.is_none() {
        add("valid_for", format!("{url} has no validFor.start"));
    }
    if service.operator.contains("://") {
        add("operator", format!("the operator of {url} is written with a scheme"));
    }
}

fn log_name(log: &LogInstance, add: &mut impl FnMut(&'static str, String)) {
    let host = log.host();
    let rest = log.base_url.split_once("://").map_or("", |(_, rest)| rest);
    if rest.trim_end_matches('/') != host {
        add("origin", format!("{} is not a bare host name", log.base_url));
    }
    let shard = host.rsplit_once(" - ").is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
    if host.is_empty() || shard {
        add("origin", format!("`{host}` is no origin that clients accept"));
    }
}

fn checkpoint_key(log: &LogInstance, add: &mut impl FnMut(&'static str, String)) {
    let spki = &log.public_key.raw_bytes.0;
    let key = match log.public_key.key_details {
        KeyDetails::Ed25519 => {
            // The last 32 bytes of an Ed25519 SubjectPublicKeyInfo are the key (RFC 8410 section 4).
            let raw = spki.len().checked_sub(32).and_then(|at| spki.get(at..)?.try_into().ok());
            raw.and_then(|raw: [u8; 32]| VerifierKey::ed25519(log.host(), &raw).ok())
        }
        KeyDetails::EcdsaP256Sha256 => VerifierKey::ecdsa(log.host(), spki).ok(),
        _ => {
            add("checkpoint_key", format!("not every client reads the key of {}", log.base_url));
            return;
        }
    };
    let Some(key) = key else {
        add("checkpoint_key", format!("the key of {} cannot be read", log.base_url));
        return;
    };
    let id = log.checkpoint_key_id.as_ref().unwrap_or(&log.log_id);
    if id.key_id.0 != key.key_hash().0 {
        add("log_id", format!("the id of {} is not the full id of its checkpoint key", log.base_url));
    }
}

/// What a chain is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Signing,
    Timestamps,
}

fn chain(authority: &Authority, what: Use, add: &mut impl FnMut(&'static str, String)) {
    let name = if authority.subject.common_name.is_empty() {
        &authority.uri
    } else {
        &authority.subject.common_name
    };
    let mut certificates = Vec::new();
    for der in authority.cert_chain.iter() {
        match Certificate::from_der(der) {
            Ok(certificate) => certificates.push(certificate),
            Err(denial) => add("chain", format!("a certificate of {name} cannot be read: {}", denial.detail)),
        }
    }
    if certificates.len() < 2 {
        add(
            "chain",
            format!("the chain of {name} is shorter than two certificates, so some clients skip it"),
        );
    }
    for pair in certificates.windows(2) {
        if let [issued, issuer] = pair
            && issued.issuer_name() != issuer.subject_name()
        {
            add("chain", format!("the chain of {name} is not in order: the anchor comes last"));
        }
    }
    if certificates.last().is_some_and(|last| last.issuer_name() != last.subject_name()) {
        add("chain", format!("the chain of {name} does not end in a root"));
    }
    let Some(first) = certificates.first() else { return };
    let usages = first.extended_key_usage();
    let has =
        |wanted: &[u8]| usages.as_ref().is_some_and(|usages| usages.iter().any(|usage| usage == wanted));
    match what {
        Use::Timestamps if !has(oid::KP_TIME_STAMPING.as_bytes()) => {
            add("tsa_usage", format!("the first certificate of {name} is not for timestamps"));
        }
        Use::Signing if usages.is_some() && !has(oid::KP_CODE_SIGNING.as_bytes()) => {
            add("ca_usage", format!("the first certificate of {name} may not issue for code signing"));
        }
        _ => {}
    }
    if authority.valid_for.start.is_none() {
        add("valid_for", format!("{name} has no validFor.start"));
    }
}
