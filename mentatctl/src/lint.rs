//! `lint`: the authority's own linter over finished objects.

mod kind;

use std::path::{Path, PathBuf};

use ca_pki::certificate::{Issuer, StatusUrls};
use ca_pki::key::KeyKind;
use ca_pki::lint::{self, CertificateRules, CrlRules, Report, Severity};
use ca_pki::ocsp::OcspRequest;
use ca_pki::serial::ShardCount;
use ca_pki::timestamp::TimestampRequest;
use ca_pki::{SignatureAlgorithm, profile};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::read_file;
use crate::output::{Output, Tone, shown};

/// `lint`.
#[derive(Debug, Args)]
pub struct Lint {
    /// Files in PEM or DER
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files hold, and by which rules they are judged [default: what a certificate says of itself]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Certificate of the issuer that signed the CRLs
    #[arg(long, value_name = "FILE", required_if_eq_any([("kind", "crl"), ("kind", "root-crl")]))]
    issuer: Option<PathBuf>,
    /// Distribution point that a CRL of a shard must name; without it the CRLs are complete ones
    #[arg(long, value_name = "URL")]
    shard_url: Option<String>,
    /// The DER request that the OCSP responses or time-stamp tokens answer: what they must echo is then compared
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
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
    /// A revocation list over subscribers (needs --issuer)
    Crl,
    /// A revocation list of a root (needs --issuer)
    RootCrl,
    /// An OCSP response, in DER
    OcspResponse,
}

/// Longest time between the updates of a list over subscribers: ten days (CSBR 4.9.7).
const CRL_SECONDS: i64 = 10 * 86_400;
/// The same for a root's list: twelve months.
const ROOT_CRL_SECONDS: i64 = 366 * 86_400;

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
    let certificate = |kind| lint::certificate(&der, &CertificateRules { kind, issuer: None });
    let report = match lint.kind.unwrap_or_else(|| kind::of_certificate(&der)) {
        Kind::CodeSigning => certificate(profile::Kind::CodeSigningBaseline),
        Kind::Internal => certificate(profile::Kind::Internal),
        Kind::Keyless => certificate(profile::Kind::Keyless),
        Kind::Root => certificate(profile::Kind::Root),
        Kind::Issuer => certificate(profile::Kind::CodeSigningIssuer),
        Kind::TimestampIssuer => certificate(profile::Kind::TimeStampingIssuer),
        Kind::TimestampAuthority => certificate(profile::Kind::TimestampAuthority),
        Kind::OcspResponder => certificate(profile::Kind::OcspResponder),
        Kind::TimestampToken => lint::timestamp_token(&der, timestamp_request(lint)?.as_ref()),
        Kind::Crl => lint_crl(&der, lint, CRL_SECONDS)?,
        Kind::RootCrl => lint_crl(&der, lint, ROOT_CRL_SECONDS)?,
        Kind::OcspResponse => lint::ocsp_response(&der, ocsp_request(lint)?.as_ref()),
    };
    show(path, &report, out);
    Ok(report.severity())
}

fn lint_crl(der: &[u8], lint: &Lint, longest_validity: i64) -> Outcome<Report> {
    let path = lint.issuer.as_deref().ok_or_else(|| Failure::usage("a CRL needs --issuer FILE"))?;
    let issuer = issuer(path)?;
    let rules = CrlRules { issuer: &issuer, shard_url: lint.shard_url.as_deref(), longest_validity };
    Ok(lint::crl(der, &rules))
}

/// What the rules need of the issuer; it signs with the digest that goes with its key.
fn issuer(path: &Path) -> Outcome<Issuer> {
    let certificate = der(path, Some(Kind::Issuer))?;
    // Where its status objects are does not matter to a finished list.
    let status = StatusUrls { base: String::new(), issuer: String::new(), shards: ShardCount::ONE };
    let mut issuer = Issuer::from_certificate(&certificate, SignatureAlgorithm::EcdsaP256Sha256, status)
        .or_fail(Exit::Usage, path.display())?;
    issuer.algorithm = match issuer.public_key.kind() {
        KeyKind::EcdsaP256 => SignatureAlgorithm::EcdsaP256Sha256,
        KeyKind::EcdsaP384 => SignatureAlgorithm::EcdsaP384Sha384,
        KeyKind::MlDsa44 => SignatureAlgorithm::MlDsa44,
        KeyKind::Rsa(_) => SignatureAlgorithm::RsaPkcs1Sha384,
        other => {
            return Err(Failure::usage(format!("{}: no issuer has a {other:?} key", path.display())));
        }
    };
    Ok(issuer)
}

fn timestamp_request(lint: &Lint) -> Outcome<Option<TimestampRequest>> {
    let Some(path) = &lint.request else { return Ok(None) };
    TimestampRequest::from_der(&read_file(path)?).or_fail(Exit::Usage, path.display()).map(Some)
}

fn ocsp_request(lint: &Lint) -> Outcome<Option<OcspRequest>> {
    let Some(path) = &lint.request else { return Ok(None) };
    OcspRequest::from_der(&read_file(path)?).or_fail(Exit::Usage, path.display()).map(Some)
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
    out.value(|| {
        json!({
            "file": shown(path), "severity": severity,
            "findings": report.findings().iter().map(|finding| json!({
                "rule": finding.rule, "requirement": finding.requirement, "detail": finding.detail,
                "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
            })).collect::<Vec<_>>(),
        })
    });
}

fn der(path: &Path, kind: Option<Kind>) -> Outcome<Vec<u8>> {
    let bytes = read_file(path)?;
    let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| text.contains("-----BEGIN ")) else {
        return Ok(bytes);
    };
    let label = match kind {
        Some(Kind::TimestampToken | Kind::OcspResponse) => {
            return Err(Failure::usage(format!("{}: tokens and responses are read in DER", path.display()))
                .hint("convert it: openssl reads and writes both"));
        }
        Some(Kind::Crl | Kind::RootCrl) => trust_store::pem::CRL,
        _ => trust_store::pem::CERTIFICATE,
    };
    let mut blocks = trust_store::pem::decode(text, label, 16).or_fail(Exit::Usage, path.display())?;
    if blocks.is_empty() {
        return Err(Failure::usage(format!("{} holds no {label}", path.display()))
            .hint("say with --kind what the file is"));
    }
    Ok(blocks.remove(0))
}
