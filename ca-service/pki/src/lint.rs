//! The native linter: named rules over finished objects, each with the requirement it checks and a severity.
//!
//! It reads with `x509-cert` and `cms`, not with the writer of this crate, so that one side's misunderstanding shows.
//! An object is linted with a signature of zeros before anything is signed ([`crate::signed::ToBeSigned::unsigned`]);
//! a finding of severity [`Severity::Error`] stops issuance.

mod authority;
mod certificate;
mod code_signing;
mod country;
mod crl;
mod names;
mod ocsp;
mod timestamp;
mod view;

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;

pub use certificate::{CertificateRules, certificate};
pub use crl::{CrlRules, crl, crl_to_be_signed};
pub use ocsp::ocsp_response;
pub use timestamp::timestamp_token;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A SHOULD of a standard is not met.
    Warning,
    /// A MUST is broken: the object must not be signed.
    Error,
}

/// Which document a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// CA/Browser Forum code-signing baseline requirements.
    CodeSigning,
    /// RFC 5280 and its companions.
    Rfc,
    /// This CA's own promises (shards, identities, issuer bindings).
    Own,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable name of the rule.
    pub rule: &'static str,
    /// The requirement of the catalogue, such as `C3`.
    pub requirement: &'static str,
    /// Where the rule comes from.
    pub source: Source,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in a few words.
    pub detail: String,
}

/// Everything the linter found in one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// The findings in the order of the rules.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The worst severity, `None` for a clean object.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// # Errors
    /// [`Error::Lint`] with the findings of severity error, when there are any.
    pub fn into_result(self) -> Result<(), Error> {
        let errors: Vec<Finding> =
            self.findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
        if errors.is_empty() { Ok(()) } else { Err(Error::Lint(errors)) }
    }

    fn error(
        &mut self,
        source: Source,
        requirement: &'static str,
        rule: &'static str,
        detail: impl Into<String>,
    ) {
        let severity = Severity::Error;
        self.findings.push(Finding { rule, requirement, source, severity, detail: detail.into() });
    }

    fn warning(
        &mut self,
        source: Source,
        requirement: &'static str,
        rule: &'static str,
        detail: impl Into<String>,
    ) {
        let severity = Severity::Warning;
        self.findings.push(Finding { rule, requirement, source, severity, detail: detail.into() });
    }
}
