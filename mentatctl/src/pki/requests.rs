//! `pki requests`, `pki approve` and `pki deny`: certificates that wait for people.
//!
//! What is approved is the text that was shown, by its SHA-256, which this program computes itself. Without `--confirm` it only shows.

use ca_api::client::{CaClient, ClientError};
use ca_api::limits::{MAX_DECIDED, MAX_QUEUE_PAGE};
use ca_api::{
    ApproveRequests, DecidedRequests, DenyRequests, EnrolmentWay, QueueQuery, QueuedRequest, RequestState,
    RequestStatement, ShownRequest,
};
use clap::{Args, ValueEnum};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{CaFlags, ca_failure, time_text};
use crate::exit::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::net::block_on;
use crate::output::{Output, Tone};

/// `pki requests`.
#[derive(Debug, Args)]
pub struct Requests {
    /// Only those in this state [default: those of which a certificate may still come]
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Most requests to show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    ca: CaFlags,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum State {
    /// Not enough people approved it
    Waiting,
    /// Enough did, and its certificate was not fetched yet
    Approved,
    /// Its certificate was issued
    Issued,
    /// Somebody denied it
    Denied,
    /// Its time was over
    Expired,
    /// An order to revoke many meant it, or the authority was restored from a backup
    Ended,
}

/// `pki approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// Ids of the requests, as `pki requests` shows them
    #[arg(required = true, value_name = "ID", num_args = 1..=MAX_DECIDED)]
    ids: Vec<String>,
    /// SHA-256 of a request's text as it was shown; repeat it for each request. Without it nothing is approved
    #[arg(long, value_name = "SHA256")]
    confirm: Vec<String>,
    #[command(flatten)]
    ca: CaFlags,
}

/// `pki deny`.
#[derive(Debug, Args)]
pub struct Deny {
    /// Ids of the requests, as `pki requests` shows them
    #[arg(required = true, value_name = "ID", num_args = 1..=MAX_DECIDED)]
    ids: Vec<String>,
    /// Why; the requester is told
    #[arg(long)]
    reason: String,
    /// Only show what would be denied
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    ca: CaFlags,
}

/// A request with what its text says.
struct Seen {
    request: QueuedRequest,
    statement: RequestStatement,
    sha256: String,
}

/// Lists requests, oldest first.
///
/// # Errors
/// What the authority refuses.
pub fn list(asked: &Requests, home: &Home, out: &Output) -> Outcome {
    let client = asked.ca.client(home)?;
    let (mut left, mut after, mut shown) = (asked.limit, None, 0_u32);
    while left > 0 {
        let query = QueueQuery {
            state: asked.state.map(RequestState::from),
            limit: Some(left.min(MAX_QUEUE_PAGE)),
            after,
        };
        let page = block_on(async { client.queue(&query).await.map_err(ca_failure) })?;
        for request in page.requests {
            show(&Seen::of(request)?, out);
            shown += 1;
            left = left.saturating_sub(1);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if shown == 0 {
        out.line("no requests");
    }
    Ok(Exit::Ok)
}

/// Shows requests, and approves them when every text was confirmed.
///
/// # Errors
/// Exit code 2 when something else was confirmed; 1 when the authority refuses.
pub fn approve(asked: &Approve, home: &Home, out: &Output) -> Outcome {
    let client = asked.ca.client(home)?;
    let seen = fetch(&client, &asked.ids)?;
    if asked.confirm.is_empty() {
        seen.iter().for_each(|one| show(one, out));
        let digests: Vec<String> = seen.iter().map(|one| format!("--confirm {}", one.sha256)).collect();
        out.line(format!("nothing was approved; to go on, repeat with {}", digests.join(" ")));
        return Ok(Exit::Ok);
    }
    let confirmed: Vec<String> = asked.confirm.iter().map(|digest| digest.trim().to_lowercase()).collect();
    if let Some(other) = seen.iter().find(|one| !confirmed.contains(&one.sha256)) {
        return Err(Failure::usage(format!("the text of {} was not confirmed", other.statement.request))
            .code("request_changed")
            .hint("look at it again without --confirm: it is approved by the SHA-256 of what is shown"));
    }
    if confirmed.iter().any(|digest| seen.iter().all(|one| one.sha256 != *digest)) {
        return Err(Failure::usage("--confirm of a text that no request here has")
            .hint("confirm exactly the requests that are approved"));
    }
    let approval = ApproveRequests { requests: seen.iter().map(Seen::shown).collect() };
    let decided = block_on(async { client.approve_requests(&approval).await.map_err(refused) })?;
    report(&decided, "approved", out);
    Ok(Exit::Ok)
}

/// Shows requests, and denies them.
///
/// # Errors
/// Exit code 1 when the authority refuses.
pub fn deny(asked: &Deny, home: &Home, out: &Output) -> Outcome {
    let client = asked.ca.client(home)?;
    let seen = fetch(&client, &asked.ids)?;
    if asked.dry_run {
        seen.iter().for_each(|one| show(one, out));
        out.line("nothing was denied");
        return Ok(Exit::Ok);
    }
    let denial =
        DenyRequests { requests: seen.iter().map(Seen::shown).collect(), reason: asked.reason.clone() };
    let decided = block_on(async { client.deny_requests(&denial).await.map_err(refused) })?;
    report(&decided, "denied", out);
    Ok(Exit::Ok)
}

impl Seen {
    fn of(request: QueuedRequest) -> Outcome<Self> {
        let statement = serde_json::from_str(&request.statement);
        let statement: RequestStatement = statement.map_err(|error| {
            Failure::failed(format!("a request says what this program does not know: {error}"))
                .hint("use the mentatctl of the authority's version: nobody should approve what is not shown")
        })?;
        if statement.request != request.status.id {
            return Err(Failure::failed("the authority answers with another request than it names"));
        }
        let sha256 = hex::encode(Sha256::digest(&request.statement));
        Ok(Self { request, statement, sha256 })
    }

    fn shown(&self) -> ShownRequest {
        ShownRequest { id: self.statement.request.clone(), statement_sha256: self.sha256.clone() }
    }
}

fn fetch(client: &CaClient, ids: &[String]) -> Outcome<Vec<Seen>> {
    let mut seen: Vec<Seen> = Vec::with_capacity(ids.len());
    for id in ids {
        let id = id.trim().to_lowercase();
        if id.len() != 32 || !id.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(Failure::usage(format!("`{id}` is no id of a request"))
                .hint("give 32 hexadecimal digits; `mentatctl pki requests` shows them"));
        }
        if seen.iter().any(|one| one.statement.request == id) {
            return Err(Failure::usage(format!("{id} stands twice")));
        }
        let one = Seen::of(block_on(async { client.queued_request(&id).await.map_err(ca_failure) })?)?;
        if one.statement.request != id {
            return Err(Failure::failed("the authority answers with another request"));
        }
        seen.push(one);
    }
    Ok(seen)
}

/// Exactly what would be issued. Texts of others that may hold anything are quoted.
fn show(seen: &Seen, out: &Output) {
    let Seen { request, statement, sha256 } = seen;
    let status = &request.status;
    let tone = match status.state {
        RequestState::Waiting => Tone::Strong,
        RequestState::Approved | RequestState::Issued => Tone::Good,
        RequestState::Denied | RequestState::Expired | RequestState::Ended => Tone::Bad,
    };
    out.line(format!(
        "{}  {}, {} of {} approved, until {}",
        statement.request,
        out.paint(tone, state_text(status.state)),
        status.approvals_given,
        status.approvals_needed,
        time_text(status.expires_at)
    ));
    let way = match statement.way {
        EnrolmentWay::Certificate => "with the key of the certificate that it renews",
        EnrolmentWay::Token => "with a one-time token",
        EnrolmentWay::Code => "with a code sent by e-mail",
        EnrolmentWay::IdentityToken => "with an identity token",
    };
    let vouched = statement.vouched_by.as_ref().map(|who| format!(" made by {who}")).unwrap_or_default();
    let mut rows = vec![
        ("identity", statement.identity.to_string()),
        ("by", statement.identity_issuer.clone()),
        ("profile", format!("{} ({})", statement.profile, statement.kind)),
        ("subject", format!("{:?}", statement.subject)),
        ("valid for", validity_text(statement)),
        ("policies", statement.policies.join(", ")),
        ("timestamp", format!("{} of the issuance log", statement.sct)),
        ("issuer", format!("{} {}", statement.issuer, statement.authority)),
        ("key", statement.spki_sha256.clone()),
        ("requester", format!("{} {way}{vouched}", statement.requester)),
        ("asked at", time_text(statement.created_at)),
        ("evidence", format!("{:?}", statement.evidence)),
    ];
    for (whose, names) in [("known as", &statement.requester_names), ("made by", &statement.voucher_names)] {
        if !names.is_empty() {
            rows.push((whose, format!("{names:?}")));
        }
    }
    for extension in &statement.extensions {
        rows.push(("extension", format!("{} {:?}", extension.oid, extension.value)));
    }
    for approval in &request.approvals {
        rows.push(("approved", format!("{} at {}", approval.approver, time_text(approval.at))));
    }
    if let Some(reason) = &status.reason {
        let by = request.closed_by.as_deref().unwrap_or("the authority");
        rows.push(("reason", format!("{reason:?} by {by}")));
    }
    rows.push(("SHA-256", sha256.clone()));
    for (name, text) in rows {
        out.line(format!("  {name:<10} {text}"));
    }
    out.value(|| {
        json!({ "ok": true, "request": statement, "status": status, "approvals": request.approvals,
            "closed_by": request.closed_by, "statement": request.statement, "statement_sha256": sha256 })
    });
}

/// For how long a certificate is valid, and when it ends at the latest.
fn validity_text(statement: &RequestStatement) -> String {
    let lifetime = lifetime_text(statement.lifetime_seconds);
    match statement.ends_by {
        Some(end) => format!("{lifetime}, until {} at the latest", time_text(end)),
        None => lifetime,
    }
}

/// Seconds in the largest unit that says them exactly.
fn lifetime_text(seconds: i64) -> String {
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    let exact = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds % unit == 0);
    exact.map_or_else(|| format!("{seconds} seconds"), |(unit, name)| format!("{} {name}", seconds / unit))
}

fn report(decided: &DecidedRequests, done: &str, out: &Output) {
    for status in &decided.requests {
        let counted = match status.state {
            RequestState::Waiting => {
                format!("; {} of {} people approved it", status.approvals_given, status.approvals_needed)
            }
            RequestState::Approved => "; its certificate is issued when its requester asks again".to_owned(),
            _ => String::new(),
        };
        out.line(format!("{done} {}{counted}", status.id));
        out.value(|| json!({ "ok": true, "status": status }));
    }
}

fn refused(error: ClientError) -> Failure {
    let hint = match error.code() {
        Some("approver_unnamed") => {
            "give a client certificate with your e-mail address (--tls-cert, --tls-key), or an identity token with your verified one in \
             --admin-token-file"
        }
        Some("approver_repeated") => "have somebody else approve it: you did, under another name",
        Some("approver_is_requester") => "have somebody else approve it: nobody approves for themselves",
        Some("token_used") => "an identity token decides once: get a new one",
        _ => return ca_failure(error),
    };
    ca_failure(error).hint(hint)
}

fn state_text(state: RequestState) -> &'static str {
    match state {
        RequestState::Waiting => "waiting",
        RequestState::Approved => "approved",
        RequestState::Issued => "issued",
        RequestState::Denied => "denied",
        RequestState::Expired => "expired",
        RequestState::Ended => "ended",
    }
}

impl From<State> for RequestState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Approved => Self::Approved,
            State::Issued => Self::Issued,
            State::Denied => Self::Denied,
            State::Expired => Self::Expired,
            State::Ended => Self::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn ids_are_needed_and_denials_have_a_reason() {
        let read =
            |arguments: &str| Cli::try_parse_from(format!("mentatctl pki {arguments}").split(' ')).is_ok();
        for good in
            ["requests", "requests --state denied", "approve ab", "approve ab cd --confirm 01 --confirm 02"]
        {
            assert!(read(good), "{good}");
        }
        assert!(read("deny ab cd --reason no") && read("deny ab --reason no --dry-run"));
        for bad in ["approve", "approve --confirm 01", "deny ab", "deny --reason no", "requests --state gone"]
        {
            assert!(!read(bad), "{bad}");
        }
    }
}
