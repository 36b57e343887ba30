//! `lint`: the authority's own linter over finished objects.

use std::path::{Path, PathBuf};

use ca_pki::lint::{self, CertificateRules, Report, Severity};
use ca_pki::profile;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::read_file;
use crate::output::{Output, Tone};

/// `lint`.
#[derive(Debug, Args)]
pub struct Lint {
    /// Files in PEM or DER
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files hold, and by which rules they are judged
    #[arg(long, value_enum, default_value = "code-signing")]
    kind: Kind,
}

/// What is linted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A subscriber's certificate, by the code-signing baseline requirements
    CodeSigning,
    /// A developer certificate of an internal authority
    Internal,
    /// A ten-minute certificate
    Keyless,
    /// A root
    Root,
    /// An issuer of code-signing certificates
    Issuer,
    /// An issuer of timestamp certificates
    TimestampIssuer,
    /// A timestamp authority
    TimestampAuthority,
    /// An OCSP responder
    OcspResponder,
    /// An RFC 3161 timestamp token
    TimestampToken,
}

/// Runs `lint`: exit code 0 when nothing of severity error is found, 1 otherwise, 2 when a file cannot be read.
///
/// # Errors
/// None: every file is reported by itself.
pub fn run(lint: &Lint, out: &Output) -> Outcome {
    let mut worst = Exit::Ok;
    for path in &lint.files {
        match lint_file(path, lint, out) {
            Ok(Some(Severity::Error)) if worst == Exit::Ok => worst = Exit::Failure,
            Ok(_) => {}
            Err(failure) => {
                out.failure(&failure);
                worst = Exit::Usage;
            }
        }
    }
    Ok(worst)
}

fn lint_file(path: &Path, lint: &Lint, out: &Output) -> Outcome<Option<Severity>> {
    let der = der(path, lint.kind)?;
    let report = match certificate_kind(lint.kind) {
        Some(kind) => lint::certificate(&der, &CertificateRules { kind, issuer: None }),
        None => lint::timestamp_token(&der),
    };
    show(path, &report, out);
    Ok(report.severity())
}

fn certificate_kind(kind: Kind) -> Option<profile::Kind> {
    Some(match kind {
        Kind::CodeSigning => profile::Kind::CodeSigningBaseline,
        Kind::Internal => profile::Kind::Internal,
        Kind::Keyless => profile::Kind::Keyless,
        Kind::Root => profile::Kind::Root,
        Kind::Issuer => profile::Kind::CodeSigningIssuer,
        Kind::TimestampIssuer => profile::Kind::TimeStampingIssuer,
        Kind::TimestampAuthority => profile::Kind::TimestampAuthority,
        Kind::OcspResponder => profile::Kind::OcspResponder,
        Kind::TimestampToken => return None,
    })
}

fn show(path: &Path, report: &Report, out: &Output) {
    let severity = match report.severity() {
        Some(Severity::Error) => "error",
        Some(Severity::Warning) => "warning",
        None => "clean",
    };
    let tone = if severity == "error" { Tone::Bad } else { Tone::Good };
    out.line(format!("{} {}", path.display(), out.paint(tone, severity)));
    for finding in report.findings() {
        out.line(format!("  {} ({}): {}", finding.rule, finding.requirement, finding.detail));
    }
    out.value(&json!({
        "file": path, "severity": severity,
        "findings": report.findings().iter().map(|finding| json!({
            "rule": finding.rule, "requirement": finding.requirement, "detail": finding.detail,
            "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
        })).collect::<Vec<_>>(),
    }));
}

fn der(path: &Path, kind: Kind) -> Outcome<Vec<u8>> {
    let bytes = read_file(path)?;
    let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| text.contains("-----BEGIN ")) else {
        return Ok(bytes);
    };
    let label = match kind {
        Kind::TimestampToken => {
            return Err(Failure::usage(format!("{}: tokens are read in DER", path.display())));
        }
        _ => trust_store::pem::CERTIFICATE,
    };
    let mut blocks = trust_store::pem::decode(text, label, 16).or_fail(Exit::Usage, path.display())?;
    if blocks.is_empty() {
        return Err(Failure::usage(format!("{} holds no {label}", path.display())));
    }
    Ok(blocks.remove(0))
}
