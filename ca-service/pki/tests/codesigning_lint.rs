//! The public linter's code-signing certificates get the severity and the findings that it gives them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../tests/src/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ca_pki::lint::{self, CertificateRules, Severity, Source};
use ca_pki::profile::Kind;

#[derive(serde::Deserialize)]
struct Expected {
    findings: Vec<String>,
    severity: String,
}

fn vectors() -> Option<PathBuf> {
    let root = std::env::var_os("MENTAT_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join("codesigning-lint");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "vectors are missing: {}", folder.display());
    skip::skipped(format_args!("no vectors at {}; set MENTAT_VECTORS", folder.display()));
    None
}

#[test]
fn every_vector_gets_the_expected_severity_and_findings() {
    let Some(folder) = vectors() else { return };
    let expected: BTreeMap<String, Expected> =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    assert_eq!(expected.len(), 48);
    let mut wrong = Vec::new();
    for (name, expected) in &expected {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let begin = text.find("-----BEGIN").unwrap();
        let der = ca_pki::pem::decode("vector", &["CERTIFICATE"], &text[begin..], 1 << 16).unwrap();
        let report =
            lint::certificate(&der, &CertificateRules { kind: Kind::CodeSigningBaseline, issuer: None });
        let findings: Vec<_> =
            report.findings().iter().filter(|finding| finding.source == Source::CodeSigning).collect();
        let severity = match findings.iter().map(|finding| finding.severity).max() {
            None => "clean",
            Some(Severity::Warning) => "warning",
            Some(Severity::Error) => "error",
        };
        let named = expected.findings.iter().all(|rule| findings.iter().any(|finding| finding.rule == rule));
        if severity != expected.severity || !named {
            wrong.push(format!("{name}: {} {:?}, but {findings:?}", expected.severity, expected.findings));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
