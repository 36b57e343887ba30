//! `executor verify-anchors`: the heads of an executor's receipt log that stand in the event log, against what the executor serves.
//!
//! An anchor is a statement about the receipt log's head, in a log that others follow. Whoever has the executor's own key can sign
//! another history of receipts, and whoever has its folders can begin a new log with a new key; neither makes what was anchored go away.
//! What an earlier check saw is remembered as well, of the executor and of both logs.

pub(super) mod history;
mod memory;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tlog::TreeHead;
use tlog::note::VerifierKey;
use tlog_client::{EntryFormat, Error, LogClient, Monitor, MonitorState};
use trust_store::UnixTime;
use trust_store::event::{EventRule, EventRules};
use trust_store::json::Bytes;
use trust_store::provider::AwsLc;

use self::history::{
    Anchor, compare, read_anchors, read_receipts, receipt_failure, refuse_replaced, replaced,
};
use self::memory::{Memory, ReceiptLog};
use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::Home;
use crate::log::event_key::public_key;
use crate::log::{KnownLog, ServerFlags, log_failure};
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::run::executor_failure;

/// `predicateType` of an anchor.
const ANCHOR: &str = "https://mentat.internal/receipt-anchor/v1";

/// `executor verify-anchors`.
#[derive(Debug, Args)]
pub struct VerifyAnchors {
    /// Base URL of the executor
    #[arg(long, value_name = "URL")]
    executor_url: Option<String>,
    /// Verifier key of the executor's receipt log, as its operator published it; its name is the log's origin. Without it the
    /// executor is believed about its own key at the first check, and no other key at a later one
    #[arg(long, value_name = "VKEY")]
    vkey: Vec<String>,
    /// Public key (PEM) that signs this executor's anchors, and nobody else's; may be repeated [default: whoever the keys file believes]
    #[arg(long, value_name = "FILE")]
    anchor_key: Vec<PathBuf>,
    /// Origin of a receipt log that this executor had before, and that was ended on purpose; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    retired: Vec<String>,
    /// Seconds that the newest anchor may be old while receipts lie behind it, and the event log's checkpoint
    #[arg(long, value_name = "SECONDS", default_value_t = 7200)]
    max_age: u32,
    /// Compare the heads only, and do not read the receipts below them
    #[arg(long)]
    heads_only: bool,
    /// File with a bearer token for the executor
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerFlags,
}

/// Runs `executor verify-anchors`. Exit code 0: every anchor is of the history that is served; 1: nothing of it is anchored, or nothing
/// new; 3: the history was shortened, changed or replaced; 69: a log cannot be reached.
///
/// # Errors
/// See above.
pub fn run(options: &VerifyAnchors, home: &Home, out: &Output) -> Outcome {
    let event_log = options.server.known(home, "event")?;
    let own_keys = options.own_keys()?;
    let rules = options.rules(&event_log, &own_keys)?;
    let events = options.server.client(&event_log, home)?;
    let http = options.server.http(home)?;
    let url = home.executor_url(options.executor_url.as_deref())?;
    let token = home.admin_token(options.token_file.as_deref(), &url, &home.executor_url(None))?;
    let base = url.trim_end_matches('/').to_owned();
    let memory = Memory::open(home)?;
    block_on(async {
        let (log, keys) = receipt_log(&options.vkey, &base, http.clone(), token.as_deref()).await?;
        options.refuse_another(memory.receipt_log(&base)?, &log)?;
        let origin = log.origin.clone();
        let receipts = receipts_of(http, &base, token.as_deref())?;
        // The anchors first: whatever they say stood in the receipt log before its head is asked for.
        let spinner = out.spinner("reading the event log");
        let state = memory.state(&event_log.description.origin)?;
        let mut monitor = follow(events, event_log.keys.clone(), state).map_err(log_failure)?;
        monitor.update().await.map_err(log_failure)?;
        let anchors = read_anchors(&mut monitor, &rules).await?;
        memory.store(monitor.state())?;
        let event_head = options.current(&monitor)?;
        refuse_replaced(&anchors, &origin, &own_keys, &options.retired)?;
        spinner.say("comparing heads");
        // One head for all that follows: what is read is what was compared.
        let mut monitor = follow(receipts.clone(), keys, memory.state(&origin)?).map_err(receipt_failure)?;
        monitor.update().await.map_err(receipt_failure)?;
        let Some(head) = monitor.checkpoint().map(|checkpoint| *checkpoint.head()) else {
            return Err(Failure::failed("the executor serves no head of its receipt log"));
        };
        let own: Vec<&Anchor> = anchors.iter().filter(|anchor| anchor.origin == origin).collect();
        let last = compare(&receipts, head, &own).await?;
        if !options.heads_only {
            spinner.say("reading the receipts");
            read_receipts(&mut monitor).await?;
        }
        drop(spinner);
        memory.store(monitor.state())?;
        memory.remember(&base, log)?;
        let others: BTreeSet<&str> =
            anchors.iter().map(|anchor| anchor.origin.as_str()).filter(|other| *other != origin).collect();
        let Some(last) = last else {
            return unanchored(&origin, head.size, &others);
        };
        options.refuse_late(&origin, head.size, last)?;
        report(out, &Checked { origin: &origin, head, count: own.len(), last, event_head }, &others);
        Ok(Exit::Ok)
    })
}

impl VerifyAnchors {
    /// The keys that are said to be this executor's.
    fn own_keys(&self) -> Outcome<BTreeSet<Bytes>> {
        self.anchor_key.iter().map(|path| public_key(path).map(Bytes)).collect()
    }

    /// Who is believed about heads of receipt logs.
    fn rules(&self, log: &KnownLog, own_keys: &BTreeSet<Bytes>) -> Outcome<EventRules> {
        let rules = if own_keys.is_empty() {
            let all = log.description.events.rules().iter();
            all.filter(|rule| rule.predicate_type == ANCHOR).cloned().collect()
        } else {
            let (issuer, issuer_name, issuer_key) = (None, None, None);
            let keys = own_keys.iter().cloned().collect();
            vec![EventRule { predicate_type: ANCHOR.to_owned(), issuer, issuer_name, issuer_key, keys }]
        };
        if rules.is_empty() {
            return Err(Failure::usage("the keys file names nobody who is believed about receipt logs")
                .hint("give the public half of receipts.anchor_key_file with --anchor-key"));
        }
        EventRules::new(rules).or_fail(Exit::Usage, "the key of anchors")
    }

    /// Refuses another log than at the last check, unless that one was ended on purpose, and another key of the same log, unless
    /// somebody vouches for it.
    fn refuse_another(&self, before: Option<ReceiptLog>, now: &ReceiptLog) -> Outcome<()> {
        let Some(before) = before else { return Ok(()) };
        if before.origin != now.origin && !self.retired.contains(&before.origin) {
            let what = format!(
                "the receipt log was replaced: the executor serves {}, at the last check it was {}",
                now.origin, before.origin
            );
            return Err(replaced(what, &before.origin));
        }
        let is_new = |vkey: &String| !before.vkeys.contains(vkey);
        if before.origin == now.origin && self.vkey.is_empty() && now.vkeys.iter().any(is_new) {
            let what = format!("the receipt log {} has another key than at the last check", now.origin);
            return Err(Failure::new(Exit::Denied, what).code("receipts_replaced").hint(
                "compare it with what the executor's operator publishes, and give that one with --vkey",
            ));
        }
        Ok(())
    }

    /// The event log's head, unless it is one of long ago: behind it may stand anchors that are kept from this check.
    fn current(&self, monitor: &Monitor<'_>) -> Outcome<TreeHead> {
        let Some(checkpoint) = monitor.checkpoint() else {
            return Err(Failure::failed("the event log serves no checkpoint"));
        };
        let signed = checkpoint.signed_at().and_then(|at| i64::try_from(at).ok()).map(UnixTime);
        if let Some(signed) = signed.filter(|at| at.plus(i64::from(self.max_age)) < clock::now()) {
            return Err(Failure::failed(format!(
                "the event log's newest checkpoint is of {}: what was anchored since is not known",
                signed.to_rfc3339()
            ))
            .code("event_log_stale")
            .hint("ask another copy of the log (--log-url), or wait until it signs again; --max-age is the longest age"));
        }
        Ok(*checkpoint.head())
    }

    /// Refuses receipts that nobody anchors any more.
    fn refuse_late(&self, origin: &str, size: u64, last: &Anchor) -> Outcome<()> {
        let at = UnixTime(last.at_ms / 1000);
        if size <= last.head.size || clock::now() <= at.plus(i64::from(self.max_age)) {
            return Ok(());
        }
        let behind = size - last.head.size;
        Err(Failure::failed(format!(
            "{behind} of {size} receipts of {origin} are not anchored, and the last anchor is of {}: what is behind it may be anything",
            at.to_rfc3339()
        ))
        .code("anchors_stale")
        .hint("is receipts.anchor_key_file still set, and does the executor reach the event log? --max-age is the longest age"))
    }
}

/// The receipt log and its keys: those that were given, or else what the executor says.
pub(super) async fn receipt_log(
    given: &[String],
    base: &str,
    http: reqwest::Client,
    token: Option<&str>,
) -> Outcome<(ReceiptLog, Vec<VerifierKey>)> {
    let vkeys = if given.is_empty() {
        let client = executor_api::client::ExecutorClient::new(http, base);
        let client = match token {
            Some(token) => client.with_token(token.to_owned()),
            None => client,
        };
        client.receipt_log().await.map_err(executor_failure)?.vkeys
    } else {
        given.to_vec()
    };
    let keys = vkeys.iter().map(|text| VerifierKey::parse(text).or_fail(Exit::Usage, "the verifier key"));
    let keys = keys.collect::<Outcome<Vec<_>>>()?;
    let origin = keys.first().map(|key| key.name().to_owned());
    let origin = origin.ok_or_else(|| Failure::failed("the executor names no key of its receipt log"))?;
    Ok((ReceiptLog { origin, vkeys }, keys))
}

/// A reader of the receipt log.
pub(super) fn receipts_of(http: reqwest::Client, base: &str, token: Option<&str>) -> Outcome<LogClient> {
    let client =
        LogClient::new(http, &format!("{base}/receipts")).or_fail(Exit::Usage, "the executor's address")?;
    Ok(match token {
        Some(token) => client.with_bearer(token),
        None => client,
    })
}

fn follow(client: LogClient, keys: Vec<VerifierKey>, state: MonitorState) -> Result<Monitor<'static>, Error> {
    static CRYPTO: AwsLc = AwsLc;
    Monitor::new(client, keys, &CRYPTO, EntryFormat::Bundles, state)
}

fn unanchored(origin: &str, size: u64, others: &BTreeSet<&str>) -> Outcome {
    let mut failure =
        Failure::failed(format!("no head of {origin} is anchored in the event log; it has {size} entries"))
            .code("receipts_unanchored");
    failure = match others.first() {
        Some(other) => {
            failure.hint(format!("the event log anchors {other}: was this executor's receipt log replaced?"))
        }
        None => failure.hint("set receipts.anchor_key_file of the executor"),
    };
    Err(failure)
}

/// What was compared.
struct Checked<'a> {
    origin: &'a str,
    head: TreeHead,
    count: usize,
    last: &'a Anchor,
    event_head: TreeHead,
}

fn report(out: &Output, checked: &Checked<'_>, others: &BTreeSet<&str>) {
    let Checked { origin, head: TreeHead { size, .. }, count, last, event_head } = checked;
    let at = UnixTime(last.at_ms / 1000).to_rfc3339();
    let anchored = last.head.size;
    out.line(format!(
        "{} {count} anchors of {origin}, {anchored} of {size} receipts are anchored, since {at}; the event log has {} entries",
        out.paint(Tone::Good, "consistent:"),
        event_head.size
    ));
    if *size > anchored {
        out.line(format!("the last {} wait for the next anchor", size - anchored));
    }
    for other in others {
        out.line(format!("the event log also anchors {other}, which this executor does not serve"));
    }
    out.value(|| {
        json!({
            "ok": true, "origin": origin, "size": size, "anchors": count, "anchored": anchored,
            "anchored_root": hex::encode(last.head.root.0), "anchored_at": at, "event_index": last.index,
            "event_log_size": event_head.size, "other_origins": others,
        })
    });
}
