//! The anchors of an event log, and what they say about the receipts that an executor serves now.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use tlog::{Hash, TreeHead};
use tlog_client::{Error, LogClient, Monitor, VerifiedEntry};
use trust_store::dsse::Envelope;
use trust_store::event::{EventRules, VerifiedEvent};
use trust_store::json::{Bytes, Value};
use trust_store::provider::AwsLc;

use crate::exit::{Exit, Failure, Outcome};
use crate::log::log_failure;

/// One anchor, as the event log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) origin: String,
    pub(super) head: TreeHead,
    pub(super) at_ms: i64,
    /// Index of its entry in the event log.
    pub(super) index: u64,
    /// The key that signed it.
    signer: Bytes,
}

impl Anchor {
    /// Where it stands and who said it.
    fn cited(&self) -> String {
        let key = hex::encode(Sha256::digest(&self.signer.0));
        format!("entry {} of the event log (signed by the key with SHA-256 {key})", self.index)
    }
}

/// Every anchor of the event log, in its order. What is not signed by whoever is believed is none.
pub(super) async fn read_anchors(monitor: &mut Monitor<'_>, rules: &EventRules) -> Outcome<Vec<Anchor>> {
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
        signer: event.signer().clone(),
    })
}

/// Refuses a receipt log in whose place there was another one: a key that anchored it, or that is known to be this executor's, anchored
/// one more. Its key and all receipts may be new; what stands in the event log is not.
///
/// # Errors
/// `receipts_replaced`, unless each of the others is named in `retired`.
pub(super) fn refuse_replaced(
    anchors: &[Anchor],
    origin: &str,
    own_keys: &BTreeSet<Bytes>,
    retired: &[String],
) -> Outcome<()> {
    let of_this = anchors.iter().filter(|anchor| anchor.origin == origin);
    let keys: BTreeSet<&Bytes> = own_keys.iter().chain(of_this.map(|anchor| &anchor.signer)).collect();
    let mut others = anchors.iter().filter(|anchor| {
        anchor.origin != origin && keys.contains(&anchor.signer) && !retired.contains(&anchor.origin)
    });
    let Some(last) = others.next_back() else { return Ok(()) };
    let what = format!(
        "the receipt log was replaced: {} anchors {} receipts of {}, and the executor serves {origin}",
        last.cited(),
        last.head.size,
        last.origin
    );
    Err(replaced(what, &last.origin))
}

/// A receipt log with another origin or another key than before.
pub(super) fn replaced(what: String, before: &str) -> Failure {
    Failure::new(Exit::Denied, what).code("receipts_replaced").hint(format!(
        "ask the executor's operator where the receipts of {before} are; if that log was ended on purpose, or is another \
         executor's that signs with the same key, say so: --retired {before}"
    ))
}

/// The largest anchor, once all of them are heads of the tree that is served.
///
/// # Errors
/// `receipts_removed`, `receipts_forked`; when a tile cannot be had.
pub(super) async fn compare<'a>(
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
        let anchored = anchor.head;
        if anchored.size > head.size {
            let what = format!(
                "receipts were removed: {} anchors {} of them and {} are served; {}",
                anchor.cited(),
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
                "another history of receipts is served: {} anchors {} receipts under another root; {}",
                anchor.cited(),
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
///
/// # Errors
/// `receipts_altered`, `receipts_removed`; when one cannot be had.
pub(super) async fn read_receipts(monitor: &mut Monitor<'_>) -> Outcome<()> {
    let mut nothing = |_: &VerifiedEntry| Vec::new();
    while monitor.next_entries(&mut nothing).await.map_err(receipt_failure)?.is_some() {}
    Ok(())
}

fn contradiction(code: &str, what: String) -> Failure {
    Failure::new(Exit::Denied, what).code(code).hint(
        "keep what the executor serves now as evidence (`mentatctl log export`), and ask its operator who replaced the receipt log",
    )
}

/// As for every log, but what does not fit the tree was altered, what the served head covers and nobody serves was removed, and a head
/// that was verified at an earlier check counts like an anchor.
pub(in crate::executor) fn receipt_failure(error: Error) -> Failure {
    let found = |code, what: &str| contradiction(code, format!("{what}: {error}"));
    match &error {
        Error::Log(_) => found("receipts_altered", "the receipt log does not verify"),
        Error::Status { status: 404 | 410, .. } => {
            found("receipts_removed", "what the served head covers is not served")
        }
        Error::Rollback { .. } => {
            found("receipts_removed", "the receipt log is shorter than at an earlier check")
        }
        Error::Fork { .. } => {
            found("receipts_forked", "another history of receipts is served than at an earlier check")
        }
        _ => log_failure(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(origin: &str, key: u8, size: u64) -> Anchor {
        let head = TreeHead { size, root: Hash([0; 32]) };
        Anchor { origin: origin.into(), head, at_ms: 0, index: size, signer: Bytes(vec![key]) }
    }

    fn code(anchors: &[Anchor], own_keys: &[u8], retired: &[&str]) -> Option<String> {
        let own_keys = own_keys.iter().map(|key| Bytes(vec![*key])).collect();
        let retired: Vec<String> = retired.iter().map(|origin| (*origin).to_owned()).collect();
        refuse_replaced(anchors, "now", &own_keys, &retired).err().and_then(|failure| failure.code)
    }

    #[test]
    fn a_key_that_anchored_two_logs_shows_that_one_was_replaced() {
        let replaced = Some("receipts_replaced".to_owned());
        let history = [anchor("before", 1, 5), anchor("another executor's", 2, 9), anchor("now", 1, 1)];
        assert_eq!(code(&history, &[], &[]), replaced);
        assert_eq!(code(&history, &[], &["another executor's"]), replaced);
        assert_eq!(code(&history, &[], &["before"]), None);
        assert_eq!(code(&history[1..], &[], &[]), None, "other executors have keys of their own");
        assert_eq!(code(&history[1..], &[2], &[]), replaced, "unless it is said whose key it is");
    }

    #[test]
    fn a_log_that_was_replaced_is_found_before_the_new_one_is_anchored() {
        let history = [anchor("before", 1, 5)];
        assert_eq!(code(&history, &[], &[]), None, "nothing shows whose it is");
        assert_eq!(code(&history, &[1], &[]).as_deref(), Some("receipts_replaced"));
    }

    #[test]
    fn receipts_that_are_not_served_were_removed() {
        let missing = Error::Status { status: 404, detail: String::new() };
        let head = |size| TreeHead { size, root: Hash([0; 32]) };
        let shorter = Error::Rollback { known: head(5), served: head(3) };
        for error in [missing, shorter] {
            let failure = receipt_failure(error);
            assert_eq!((failure.exit, failure.code.as_deref()), (Exit::Denied, Some("receipts_removed")));
        }
        let elsewhere = receipt_failure(Error::Status { status: 503, detail: String::new() });
        assert_eq!(elsewhere.exit, Exit::Unavailable);
    }
}
