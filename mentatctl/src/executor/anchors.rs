//! `executor verify-anchors`: the heads of an executor's receipt log that stand in the event log, against what the executor serves.
//!
//! An anchor is a statement about the receipt log's head, in a log that others follow. Whoever has the executor's own key can sign
//! another history of receipts; he cannot make it agree with the anchors of the one before.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tlog::note::VerifierKey;
use tlog::{Hash, TreeHead};
use tlog_client::{EntryFormat, Error, LogClient, Monitor, MonitorState, VerifiedEntry};
use trust_store::UnixTime;
use trust_store::dsse::Envelope;
use trust_store::event::{EventRule, EventRules, VerifiedEvent};
use trust_store::json::{Bytes, Value};
use trust_store::provider::AwsLc;

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
    /// executor is believed about its own key
    #[arg(long, value_name = "VKEY")]
    vkey: Vec<String>,
    /// Public key (PEM) that signs this executor's anchors [default: whoever the keys file believes]
    #[arg(long, value_name = "FILE")]
    anchor_key: Option<PathBuf>,
    /// Compare the heads only, and do not read the receipts below them
    #[arg(long)]
    heads_only: bool,
    #[command(flatten)]
    server: ServerFlags,
}

/// One anchor, as the event log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Anchor {
    origin: String,
    head: TreeHead,
    at_ms: i64,
    /// Index of its entry in the event log.
    index: u64,
}

/// Runs `executor verify-anchors`. Exit code 0: every anchor is of the history that is served; 1: nothing of it is anchored; 3: the
/// history was shortened, changed or replaced; 69: a log cannot be reached.
///
/// # Errors
/// See above.
pub fn run(options: &VerifyAnchors, home: &Home, out: &Output) -> Outcome {
    let event_log = options.server.known(home, "event")?;
    let rules = options.rules(&event_log)?;
    let events = options.server.client(&event_log, home)?;
    let http = options.server.http(home)?;
    let url = home.executor_url(options.executor_url.as_deref())?;
    let base = url.trim_end_matches('/').to_owned();
    block_on(async {
        let (origin, keys) = options.receipt_log(&base, http.clone()).await?;
        let receipts = LogClient::new(http, &format!("{base}/receipts"))
            .or_fail(Exit::Usage, "the executor's address")?;
        // The anchors first: whatever they say stood in the receipt log before its head is asked for.
        let spinner = out.spinner("reading the event log");
        let anchors = read_anchors(events, &event_log, &rules).await?;
        spinner.say("comparing heads");
        // One head for all that follows: what is read is what was compared.
        let mut monitor = follow(receipts.clone(), &origin, keys).map_err(receipt_failure)?;
        monitor.update().await.map_err(receipt_failure)?;
        let Some(head) = monitor.checkpoint().map(|checkpoint| *checkpoint.head()) else {
            return Err(Failure::failed("the executor serves no head of its receipt log"));
        };
        let own: Vec<&Anchor> = anchors.iter().filter(|anchor| anchor.origin == origin).collect();
        let last = compare(&receipts, head, &own).await?;
        if !options.heads_only {
            spinner.say("reading the receipts");
            read_receipts(monitor).await?;
        }
        drop(spinner);
        let others: BTreeSet<&str> =
            anchors.iter().map(|anchor| anchor.origin.as_str()).filter(|other| *other != origin).collect();
        let size = head.size;
        let Some(last) = last else {
            return unanchored(&origin, size, &others);
        };
        report(out, &origin, size, own.len(), last, &others);
        Ok(Exit::Ok)
    })
}

impl VerifyAnchors {
    /// Who is believed about heads of receipt logs.
    fn rules(&self, log: &KnownLog) -> Outcome<EventRules> {
        let rules = match &self.anchor_key {
            Some(path) => {
                let (issuer, issuer_name, issuer_key) = (None, None, None);
                let keys = vec![Bytes(public_key(path)?)];
                vec![EventRule { predicate_type: ANCHOR.to_owned(), issuer, issuer_name, issuer_key, keys }]
            }
            None => {
                let all = log.description.events.rules().iter();
                all.filter(|rule| rule.predicate_type == ANCHOR).cloned().collect()
            }
        };
        if rules.is_empty() {
            return Err(Failure::usage("the keys file names nobody who is believed about receipt logs")
                .hint("give the public half of receipts.anchor_key_file with --anchor-key"));
        }
        EventRules::new(rules).or_fail(Exit::Usage, "the key of anchors")
    }

    /// Origin and keys of the receipt log.
    async fn receipt_log(&self, base: &str, http: reqwest::Client) -> Outcome<(String, Vec<VerifierKey>)> {
        let texts = if self.vkey.is_empty() {
            let client = executor_api::client::ExecutorClient::new(http, base);
            client.receipt_log().await.map_err(executor_failure)?.vkeys
        } else {
            self.vkey.clone()
        };
        let keys = texts.iter().map(|text| VerifierKey::parse(text).or_fail(Exit::Usage, "the verifier key"));
        let keys = keys.collect::<Outcome<Vec<_>>>()?;
        let origin = keys.first().map(|key| key.name().to_owned());
        Ok((origin.ok_or_else(|| Failure::failed("the executor names no key of its receipt log"))?, keys))
    }
}

/// Every anchor of the event log, in its order. What is not signed by whoever is believed is none.
async fn read_anchors(client: LogClient, log: &KnownLog, rules: &EventRules) -> Outcome<Vec<Anchor>> {
    let mut monitor = follow(client, &log.description.origin, log.keys.clone()).map_err(log_failure)?;
    monitor.update().await.map_err(log_failure)?;
    let mut anchors = Vec::new();
    let mut nothing = |_: &VerifiedEntry| Vec::new();
    while let Some(entries) = monitor.next_entries(&mut nothing).await.map_err(log_failure)? {
        for watched in entries {
            let envelope = Envelope::parse(&watched.entry.bytes).ok();
            let event = envelope.and_then(|envelope| rules.verify(&envelope, &AwsLc).ok());
            anchors.extend(event.and_then(|event| anchor(&event, watched.entry.index)));
        }
    }
    Ok(anchors)
}

/// What a believed statement says, if it can be read.
fn anchor(event: &VerifiedEvent, index: u64) -> Option<Anchor> {
    let statement = event.statement();
    let [subject] = &statement.subject[..] else { return None };
    let mut root = [0; 32];
    hex::decode_to_slice(subject.digest.get("sha256")?, &mut root).ok()?;
    let number = |name| match statement.predicate.member(name) {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    };
    Some(Anchor {
        origin: statement.predicate.member("origin")?.as_str()?.to_owned(),
        head: TreeHead { size: u64::try_from(number("size")?).ok()?, root: Hash(root) },
        at_ms: number("at_ms")?,
        index,
    })
}

/// The largest anchor, once all of them are heads of the tree that is served.
async fn compare<'a>(
    receipts: &LogClient,
    head: TreeHead,
    anchors: &[&'a Anchor],
) -> Outcome<Option<&'a Anchor>> {
    let tree = receipts.tree(head);
    let mut by_size = anchors.to_vec();
    by_size.sort_by_key(|anchor| (anchor.head.size, anchor.index));
    let mut good: Option<&Anchor> = None;
    let up_to = |good: Option<&Anchor>| match good {
        Some(anchor) => format!("the first {} are as they were anchored", anchor.head.size),
        None => "none is as it was anchored".to_owned(),
    };
    for anchor in by_size {
        let Anchor { head: anchored, index, .. } = anchor;
        if anchored.size > head.size {
            let what = format!(
                "receipts were removed: entry {index} of the event log anchors {} of them and {} are served; {}",
                anchored.size,
                head.size,
                up_to(good)
            );
            return Err(contradiction("receipts_removed", what));
        }
        // An anchored head of nothing says nothing.
        if anchored.size > 0
            && tree.head_at(anchored.size).await.map_err(receipt_failure)?.root != anchored.root
        {
            let what = format!(
                "another history of receipts is served: entry {index} of the event log anchors {} receipts under another root; {}",
                anchored.size,
                up_to(good)
            );
            return Err(contradiction("receipts_forked", what));
        }
        good = Some(anchor);
    }
    Ok(good)
}

/// Reads every receipt and proves that it is the one that the tree holds.
async fn read_receipts(mut monitor: Monitor<'static>) -> Outcome<()> {
    let mut nothing = |_: &VerifiedEntry| Vec::new();
    while monitor.next_entries(&mut nothing).await.map_err(receipt_failure)?.is_some() {}
    Ok(())
}

fn follow(client: LogClient, origin: &str, keys: Vec<VerifierKey>) -> Result<Monitor<'static>, Error> {
    static CRYPTO: AwsLc = AwsLc;
    Monitor::new(client, keys, &CRYPTO, EntryFormat::Bundles, MonitorState::new(origin))
}

fn contradiction(code: &str, what: String) -> Failure {
    Failure::new(Exit::Denied, what).code(code).hint(
        "keep what the executor serves now as evidence (`mentatctl log export`), and ask its operator who replaced the receipt log",
    )
}

/// As for every log, but what does not fit the tree was altered.
fn receipt_failure(error: Error) -> Failure {
    match error {
        Error::Log(_) => {
            contradiction("receipts_altered", format!("the receipt log does not verify: {error}"))
        }
        error => log_failure(error),
    }
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

fn report(out: &Output, origin: &str, size: u64, count: usize, last: &Anchor, others: &BTreeSet<&str>) {
    let at = UnixTime(last.at_ms / 1000).to_rfc3339();
    let anchored = last.head.size;
    out.line(format!(
        "{} {count} anchors of {origin}, {anchored} of {size} receipts are anchored, since {at}",
        out.paint(Tone::Good, "consistent:")
    ));
    if size > anchored {
        out.line(format!("the last {} wait for the next anchor", size - anchored));
    }
    for other in others {
        out.line(format!("the event log also anchors {other}, which this executor does not serve"));
    }
    out.value(|| {
        json!({
            "ok": true, "origin": origin, "size": size, "anchors": count, "anchored": anchored,
            "anchored_root": hex::encode(last.head.root.0), "anchored_at": at, "event_index": last.index,
            "other_origins": others,
        })
    });
}
