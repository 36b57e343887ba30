//! `pki policy`: what the authority's configuration makes of an identity token.

use std::path::PathBuf;

use ca_api::{
    ExplainToken, ExplainedRule, Identity, RuleVerdict, SignatureStanding, TokenExplanation, TokenOutcome,
};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{CaFlags, ca_failure};
use crate::exit::{Exit, Failure, Outcome};
use crate::home::{Home, read_secret};
use crate::net::block_on;
use crate::output::{Output, Tone};

/// `pki policy` subcommands.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say what would become of an identity token, rule by rule (auditor); exit code 3 where it would be refused
    Explain(Explain),
}

/// `pki policy explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// File with the identity token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    #[command(flatten)]
    ca: CaFlags,
}

/// Runs a `pki policy` command.
///
/// # Errors
/// When the token cannot be read, and what the authority refuses.
pub fn run(command: &PolicyCommand, home: &Home, out: &Output) -> Outcome {
    let PolicyCommand::Explain(asked) = command;
    let token = read_secret(&asked.token_file)?;
    let client = asked.ca.client(home)?;
    let request = ExplainToken { token: token.trim().to_owned() };
    let told = block_on(async { client.explain_token(&request).await.map_err(ca_failure) })?;
    show(&told, out);
    let Some(refusal) = told.refusal.clone() else {
        out.value(|| json!({ "ok": true, "explanation": told }));
        return Ok(Exit::Ok);
    };
    if out.is_json() {
        out.value(
            || json!({ "ok": false, "exit": Exit::Denied as u8, "code": refusal.code, "explanation": told }),
        );
        return Ok(Exit::Denied);
    }
    Err(Failure::new(Exit::Denied, refusal.detail).code(refusal.code).hint(
        "get a token that says what the rules ask for, or have the authority's [[oidc]] section changed",
    ))
}

fn show(told: &TokenExplanation, out: &Output) {
    match told.section {
        Some(number) => out.line(format!("section {number} of [[oidc]] decides")),
        None => out.line("no section of [[oidc]] takes the token"),
    }
    for rule in &told.rules {
        out.line(line(rule, out));
    }
    if let (Some(identity), Some(profile)) = (&told.identity, &told.profile) {
        let kind = match identity {
            Identity::Email(_) => "address",
            Identity::Uri(_) => "URI",
        };
        out.line(format!("certificate: {kind} {}, profile {profile}", identity.as_str()));
    }
    if told.signature == SignatureStanding::NotChecked {
        out.line("the signature was not checked: anybody may have written what the token says");
    }
    match told.outcome {
        TokenOutcome::Accepted => out.line(out.paint(Tone::Good, "accepted")),
        TokenOutcome::NeedsApproval => {
            let accepted = out.paint(Tone::Good, "accepted");
            out.line(format!("{accepted} once {} of the approvers approve", told.approvals));
        }
        // The failure says it.
        TokenOutcome::Refused => {}
    }
}

fn line(rule: &ExplainedRule, out: &Output) -> String {
    let verdict = match rule.verdict {
        RuleVerdict::Met => out.paint(Tone::Good, "met"),
        RuleVerdict::NotChecked => "not checked".to_owned(),
        RuleVerdict::Unmet => out.paint(Tone::Bad, "unmet"),
    };
    let says = match (&rule.says, rule.rule.as_str()) {
        (Some(says), _) => format!("; the token says {says}"),
        (None, "signature") => String::new(),
        (None, _) => "; the token says nothing".to_owned(),
    };
    format!("  {verdict}  {}: {}{says}", rule.rule, rule.asks)
}
