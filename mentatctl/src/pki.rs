//! `pki`: certificates of developers, and what administrators do with them.

mod by_digest;
mod descent;
mod enrol;
mod identity_token;
mod incident;
mod list;
mod own;
mod pending;
mod policy;
mod problem;
mod renew;
mod requests;
mod revoke_many;
mod waiting;

use std::path::{Path, PathBuf};

use ca_api::client::{CaClient, ClientError};
use ca_api::{CreateToken, Identity, Revocation, RevocationReason, Revoke};
use clap::{Args, Subcommand, ValueEnum};
use hsm::Passphrase;
use hsm::developer::DeveloperKey;
use serde_json::json;
use trust_store::UnixTime;

use self::enrol::{KeyUse, RequestCert, request_cert};
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, read_secret, refuse_readers};
use crate::net::{TlsFlags, block_on};
use crate::output::Output;

/// `pki` subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key and get a certificate for it with a one-time token
    RequestCert(RequestCert),
    /// One-time enrolment tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print an identity token of the stack's development issuer
    IdentityToken(identity_token::IdentityToken),
    /// What the authority makes of identity tokens
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// What is said to be wrong with certificates, and by when it must be decided
    #[command(subcommand)]
    Problem(problem::ProblemCommand),
    /// List certificates (administrator), or your own with --mine
    List(list::List),
    /// List requests for certificates that wait for people's approval (auditor)
    Requests(requests::Requests),
    /// Show what would be issued, and approve it with --confirm (approver)
    Approve(requests::Approve),
    /// Deny requests, so that no certificate comes of them (approver)
    Deny(requests::Deny),
    /// What held of a certificate on a date (administrator)
    Status(list::Status),
    /// Revoke a certificate, or every one of a selection (administrator), or your own with --mine
    Revoke(Box<RevokeCommand>),
    /// A key is in other hands: show what it touched, revoke what must be, report what became of it (administrator). Changes nothing without
    /// --confirm
    Incident(Box<incident::Incident>),
    /// Replace the developer certificate with a new one for a new key: by the key at hand, or, with --email or --uri, with a one-time token
    Renew(renew::Renewal),
}

/// `pki token` subcommands.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token that lets its holder enrol once (administrator); prints the token
    Create(TokenCreate),
}

/// Where the authority is and who asks.
#[derive(Debug, Args)]
pub struct CaFlags {
    /// Base URL of the certificate authority
    #[arg(long, value_name = "URL")]
    ca_url: Option<String>,
    /// File with the administrator's bearer token
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
}

impl CaFlags {
    /// The authority's base URL.
    ///
    /// # Errors
    /// When it is not known.
    pub fn url(&self, home: &Home) -> Outcome<String> {
        home.ca_url(self.ca_url.as_deref())
    }

    /// The authorities of the servers' TLS certificates, where they were given.
    pub fn tls_ca(&self) -> Option<&Path> {
        self.tls.ca()
    }

    /// The HTTP client with the TLS settings of the flags.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn http(&self, home: &Home) -> Outcome<reqwest::Client> {
        self.tls.client(home)
    }

    /// A client, with the administrator's token where one is known.
    ///
    /// # Errors
    /// When the address is not known or a file cannot be read.
    pub fn client(&self, home: &Home) -> Outcome<CaClient> {
        let url = self.url(home)?;
        let client = CaClient::new(self.http(home)?, &url);
        Ok(match home.admin_token(self.admin_token_file.as_deref(), &url, &home.ca_url(None))? {
            Some(token) => client.with_admin_token(&token),
            None => client,
        })
    }
}

/// Exactly one identity.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct IdentityFlags {
    /// E-mail address the certificate carries
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// URI the certificate carries, such as that of a CI workflow
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
}

impl IdentityFlags {
    fn is_given(&self) -> bool {
        self.email.is_some() || self.uri.is_some()
    }

    fn identity(&self) -> Outcome<Identity> {
        match (&self.email, &self.uri) {
            (Some(email), None) => Ok(Identity::Email(email.clone())),
            (None, Some(uri)) => Ok(Identity::Uri(uri.clone())),
            _ => Err(Failure::usage("give exactly one of --email and --uri")
                .hint("the certificate carries one identity")),
        }
    }
}

/// `pki token create`.
#[derive(Debug, Args)]
pub struct TokenCreate {
    #[command(flatten)]
    identity: IdentityFlags,
    /// Certificate profile
    #[arg(long, default_value = "developer")]
    profile: String,
    /// Minutes until the token expires
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    minutes: u32,
    #[command(flatten)]
    ca: CaFlags,
}

/// `pki revoke`.
#[derive(Debug, Args)]
pub struct RevokeCommand {
    /// Serial number in hexadecimal
    #[arg(long, required_unless_present_any = ["cert", "selection", "mine"], conflicts_with_all = ["cert", "selection", "mine"])]
    serial: Option<String>,
    /// Certificate file whose serial number is taken
    #[arg(long, value_name = "FILE", conflicts_with_all = ["selection", "mine"])]
    cert: Option<PathBuf>,
    #[command(flatten)]
    own: own::OwnFlags,
    #[command(flatten)]
    selection: revoke_many::Selection,
    #[command(flatten)]
    execution: revoke_many::Execution,
    /// Why
    #[arg(long, value_enum, default_value = "unspecified")]
    reason: Reason,
    /// From when on it must not be trusted, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    compromised_at: Option<String>,
    #[command(flatten)]
    ca: CaFlags,
}

/// Revocation reasons (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs, reason = "the standard's names")]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

/// Runs a `pki` command.
///
/// # Errors
/// What the command reports.
pub fn run(command: &Command, home: &Home, out: &Output) -> Outcome {
    match command {
        Command::RequestCert(request) => request_cert(request, KeyUse::KeepExisting, home, out),
        Command::Renew(renewal) => renew::run(renewal, home, out),
        Command::Token(TokenCommand::Create(create)) => token_create(create, home, out),
        Command::IdentityToken(asked) => identity_token::run(asked, home, out),
        Command::Policy(command) => policy::run(command, home, out),
        Command::Problem(command) => problem::run(command, home, out),
        Command::List(list) => list::certificates(list, home, out),
        Command::Requests(asked) => requests::list(asked, home, out),
        Command::Approve(asked) => requests::approve(asked, home, out),
        Command::Deny(asked) => requests::deny(asked, home, out),
        Command::Status(status) => list::status(status, home, out),
        Command::Revoke(revoke) => revoke_certificate(revoke, home, out),
        Command::Incident(asked) => incident::run(asked, home, out),
    }
}

fn token_create(create: &TokenCreate, home: &Home, out: &Output) -> Outcome {
    let client = create.ca.client(home)?;
    let request = CreateToken {
        identity: create.identity.identity()?,
        profile: create.profile.clone(),
        ttl_seconds: create.minutes.saturating_mul(60),
    };
    let token = block_on(async { client.create_token(&request).await.map_err(ca_failure) })?;
    out.line(&token.token);
    out.value(|| json!({
        "ok": true, "token": token.token, "identity": token.identity, "profile": token.profile, "expires_at": token.expires_at,
    }));
    Ok(Exit::Ok)
}

fn revoke_certificate(revoke: &RevokeCommand, home: &Home, out: &Output) -> Outcome {
    let compromised_at = optional_time(revoke.compromised_at.as_deref())?;
    if revoke.own.mine {
        if revoke.selection.is_given() {
            return Err(Failure::usage("--mine revokes one certificate").hint("leave the selection out"));
        }
        let revocation = own::revoke(&revoke.own, revoke.reason, compromised_at, &revoke.ca, home)?;
        say_revoked(&revocation, out);
        return Ok(Exit::Ok);
    }
    if revoke.selection.is_given() {
        let RevokeCommand { selection, execution, reason, ca, .. } = revoke;
        return revoke_many::run(selection, execution, *reason, compromised_at, ca, home, out);
    }
    let serial = match (&revoke.serial, &revoke.cert) {
        (Some(serial), _) => serial_number(serial)?,
        (None, Some(path)) => serial_of(path)?,
        (None, None) => return Err(Failure::usage("give --serial or --cert")),
    };
    let client = revoke.ca.client(home)?;
    let request = Revoke { reason: revoke.reason.into(), compromised_at };
    let revocation = block_on(async { client.revoke(&serial, &request).await.map_err(ca_failure) })?;
    say_revoked(&revocation, out);
    Ok(Exit::Ok)
}

fn say_revoked(revocation: &Revocation, out: &Output) {
    out.line(format!("revoked {} as of {}", revocation.serial, time_text(revocation.revoked_at)));
    let of_it = "certificates that came of it by renewal";
    if let Some(revoked @ 1..) = revocation.renewals_revoked {
        out.line(format!("{revoked} {of_it} are revoked with it"));
    }
    if let Some(standing @ 1..) = revocation.renewals_standing {
        out.line(format!("{standing} {of_it} stand"));
    }
    if let Some(others @ 1..) = revocation.same_key_revoked {
        out.line(format!("{others} other certificates of its key are revoked"));
    }
    out.value(|| json!({ "ok": true, "revocation": revocation }));
}

/// A serial number as people write it: hexadecimal, also with colons.
fn serial_number(text: &str) -> Outcome<String> {
    let digits = text.trim().replace(':', "").to_lowercase();
    if (1..=40).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err(Failure::usage(format!("`{text}` is no serial number"))
        .hint("give 1 to 40 hexadecimal digits; `mentatctl pki list` shows them"))
}

/// Reads a developer key.
///
/// # Errors
/// Exit code 2 when the file is no key, or the passphrase is wrong or missing.
pub fn read_key(path: &Path, passphrase: Option<&Passphrase>) -> Outcome<DeveloperKey> {
    let key = DeveloperKey::from_pem(&read_secret(path)?, passphrase)
        .or_fail(Exit::Usage, path.display())
        .map_err(key_advice)?;
    refuse_readers(
        path,
        "if nobody else has read it: chmod 600; else ask for a new certificate with `pki renew`",
    )?;
    Ok(key)
}

/// What to do about a key that cannot be used.
pub fn key_advice(failure: Failure) -> Failure {
    failure
        .hint("give a private key as `pki request-cert` writes it, with --passphrase-file if it is encrypted")
}

/// Reads a passphrase file; a final line break does not count.
///
/// # Errors
/// Exit code 2 when it cannot be read or is empty.
pub fn passphrase_from(path: &Path) -> Outcome<Passphrase> {
    hsm::PassphraseSource::File(path.to_path_buf()).read().or_fail(Exit::Usage, "the passphrase").map_err(
        |failure| {
            failure
                .hint("give a file of mode 0600 with the passphrase, at least eight characters, on one line")
        },
    )
}

/// The serial number of the first certificate in a PEM file.
///
/// # Errors
/// Exit code 2 when the file holds no certificate.
pub fn serial_of(path: &Path) -> Outcome<String> {
    let certificate = crate::chain_file::read(path)?.remove(0);
    Ok(hex::encode(certificate.serial()))
}

/// A time that may be left out.
fn optional_time(text: Option<&str>) -> Outcome<Option<i64>> {
    Ok(text.map(parse_time).transpose()?.map(|time| time.0))
}

/// Reads a time in RFC 3339.
///
/// # Errors
/// Exit code 2 with the form that is expected.
pub fn parse_time(text: &str) -> Outcome<UnixTime> {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    OffsetDateTime::parse(text, &Rfc3339).map(|time| UnixTime(time.unix_timestamp())).map_err(|_| {
        Failure::usage(format!("`{text}` is no time"))
            .hint("write it as in RFC 3339, for example 2026-01-31T12:00:00Z")
    })
}

/// A time for people.
pub fn time_text(seconds: i64) -> String {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}

/// The exit code and line of a failed call to the authority.
pub fn ca_failure(error: ClientError) -> Failure {
    match &error {
        ClientError::Problem(problem) => {
            let exit = if problem.status >= 500 || problem.status == 429 {
                Exit::Unavailable
            } else {
                Exit::Failure
            };
            let failure = Failure::new(exit, format!("the certificate authority says: {}", problem.detail));
            // A one-time token that is not good is nothing that the administrator's token would mend.
            let hint = match (problem.code.as_str(), problem.status) {
                ("request_denied" | "request_ended" | "request_expired", _) => {
                    Some("ask an administrator, and begin again with a new token: mentatctl pki token create")
                }
                ("token_unknown" | "token_expired" | "token_used", _) => {
                    Some("ask an administrator for a new one: mentatctl pki token create --email ADDRESS")
                }
                ("proof_expired", _) => Some("set this machine's clock"),
                ("proof_invalid", _) => Some("is --ca-url the authority that issued the certificate?"),
                ("proof_missing", _) => {
                    Some("the authority asks for no certificates at the handshake: leave --mtls out")
                }
                ("certificate_expired" | "certificate_revoked" | "issuer_revoked", _)
                | ("not_renewable", _) => Some(
                    "ask an administrator for a one-time token: mentatctl pki token create --email ADDRESS",
                ),
                ("report_closed" | "report_unknown", _) => {
                    Some("look at what was reported: mentatctl pki problem list --all")
                }
                ("reports_full", _) => Some("see which are open: mentatctl pki problem list"),
                ("certificate_not_for_this", _) => {
                    Some("connect without that certificate: leave --tls-cert out")
                }
                (_, 401 | 403) => Some("give --admin-token-file FILE, or use the administrator's stack"),
                (_, 429 | 503) => Some("wait a little and try again"),
                _ => None,
            };
            let failure = failure.code(problem.code.clone());
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        ClientError::AwaitsApproval(status) => {
            Failure::new(Exit::Unavailable, format!("the certificate authority says: {error}"))
                .code("awaits_approval")
                .hint(format!("have it approved: mentatctl pki approve {}", status.id))
        }
        ClientError::Transport { .. } => Failure::new(Exit::Unavailable, crate::exit::chain(&error))
            .hint("is ca-service running at that address?"),
        _ => Failure::failed(crate::exit::chain(&error)),
    }
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::CaCompromise => Self::CaCompromise,
            Reason::AffiliationChanged => Self::AffiliationChanged,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: &str, status: u16) -> Failure {
        let problem = ca_api::Problem {
            code: code.to_owned(),
            status,
            detail: "no".to_owned(),
            ..ca_api::Problem::default()
        };
        ca_failure(ClientError::Problem(problem))
    }

    #[test]
    fn a_token_that_is_not_good_is_not_mended_by_the_administrators_token() {
        for (code, status) in [("token_unknown", 401), ("token_expired", 401), ("token_used", 409)] {
            let line = says(code, status).line();
            assert!(line.contains("pki token create") && !line.contains("--admin-token-file"), "{line}");
        }
        assert!(says("unauthorized", 401).line().contains("--admin-token-file"));
    }

    #[test]
    fn what_becomes_of_a_report_says_where_the_reports_are() {
        for (code, status) in [("report_closed", 409), ("report_unknown", 404), ("reports_full", 429)] {
            let line = says(code, status).line();
            assert!(line.contains("mentatctl pki problem list"), "{line}");
        }
    }

    #[test]
    fn what_may_pass_exits_with_69_and_what_will_not_with_1() {
        for (code, status, exit) in [
            ("issuance_pending", 503, Exit::Unavailable),
            ("rate_limited", 429, Exit::Unavailable),
            ("http_error", 502, Exit::Unavailable),
            ("key_compromised", 422, Exit::Failure),
        ] {
            assert_eq!(says(code, status).exit, exit, "{code}");
        }
    }

    #[test]
    fn serial_numbers_are_read_as_people_write_them() {
        assert_eq!(serial_number(" 01:AB:cd\n").ok().as_deref(), Some("01abcd"));
        for bad in ["", "0x01", "zz", &"0".repeat(41)] {
            assert!(serial_number(bad).is_err(), "{bad}");
        }
    }
}
