//! The event log, read and believed entry by entry.

use tlog::bundle::append_entry;
use trust_store::announcement::REVOCATION_TYPE;
use trust_store::dsse::{self, Envelope, IN_TOTO_PAYLOAD_TYPE};
use trust_store::event::{EventRule, EventRules};

use super::*;

fn statement(digest: u8) -> String {
    let digest = hex::encode([digest; 32]);
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{digest}"}}}}],"predicateType":"{REVOCATION_TYPE}","predicate":{{"issuer":"ca","serial":"4d","reason":1,"revokedAt":5,"recordedAt":5}}}}"#
    )
}

fn signed(key: &KeyPair, statement: &str) -> Vec<u8> {
    let message = dsse::pae(IN_TOTO_PAYLOAD_TYPE, statement.as_bytes());
    let signature = key.sign(&message).unwrap();
    serde_json::to_vec(&Envelope::new(IN_TOTO_PAYLOAD_TYPE, statement.into(), signature)).unwrap()
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// Serves a log of these entries; returns its head.
fn serve(server: &Server, log: &Log, entries: &[Vec<u8>]) -> TreeHead {
    let (mut tree, mut hashes, mut bundle) = (MemoryTree::new(), Vec::new(), Vec::new());
    for entry in entries {
        let leaf = leaf_hash(entry);
        hashes.extend_from_slice(leaf.as_bytes());
        append_entry(&mut bundle, entry).unwrap();
        tree.push(leaf);
    }
    let size = tree.size();
    let head = tree.head_at(size).unwrap();
    server.serve(&format!("/event/tile/0/000.p/{size}"), hashes);
    server.serve(&format!("/event/tile/entries/000.p/{size}"), bundle);
    server.serve("/event/checkpoint", log.checkpoint(size, head.root));
    head
}

struct Reader {
    server: Server,
    log: Log,
    /// Of the authority's statements.
    key: KeyPair,
    collector: Collector,
    _state: tempfile::TempDir,
}

impl Reader {
    async fn start() -> Self {
        let (server, ca, log, key) = (Server::start().await, Ca::new(), Log::new(), key());
        let rule = EventRule {
            predicate_type: REVOCATION_TYPE.into(),
            issuer: None,
            issuer_name: None,
            keys: vec![Bytes(key.subject_public_key_info())],
        };
        let rules = EventRules::new(vec![rule]).unwrap();
        let event_log = EventLog { origin: ORIGIN.into(), keys: vec![log.key.clone()], rules };
        let state = tempfile::tempdir().unwrap();
        let collector = following(&server, &ca, &log, state.path(), None, Some(event_log));
        Self { server, log, key, collector, _state: state }
    }

    fn known(&self) -> usize {
        self.collector.snapshot().evidence.revocation().announced.len()
    }

    fn epoch(&self) -> u64 {
        self.collector.snapshot().epoch
    }

    fn problem(&self) -> String {
        problem(&self.collector.snapshot(), "events")
    }
}

#[tokio::test]
async fn only_what_the_authority_signed_counts_of_what_the_log_has() {
    let reader = Reader::start().await;
    let genuine = signed(&reader.key, &statement(1));
    let stranger = key();
    let mut entries = vec![
        signed(&stranger, &statement(2)),
        b"no envelope".to_vec(),
        signed(&reader.key, &statement(3).replace("revocation", "approval")),
        signed(&reader.key, r#"{"_type":"https://in-toto.io/Statement/v1"}"#),
    ];
    serve(&reader.server, &reader.log, &entries);
    assert!(!reader.collector.read_events(None).await, "nothing that anybody may say");
    let epoch = reader.epoch();
    entries.push(genuine.clone());
    serve(&reader.server, &reader.log, &entries);
    assert!(reader.collector.read_events(None).await);
    assert_eq!((reader.known(), reader.problem().as_str()), (1, ""));
    assert!(reader.epoch() > epoch, "what was judged before is judged again");

    // Said again, behind something else, it is not news for anybody.
    let epoch = reader.epoch();
    entries.extend([b"more".to_vec(), genuine]);
    serve(&reader.server, &reader.log, &entries);
    reader.collector.read_events(None).await;
    assert_eq!((reader.known(), reader.epoch()), (1, epoch));
}

#[tokio::test]
async fn a_size_that_the_log_claims_is_read_until_it_was_verified() {
    let reader = Reader::start().await;
    let entries = [signed(&reader.key, &statement(1)), signed(&reader.key, &statement(2))];
    serve(&reader.server, &reader.log, &entries[..1]);
    reader.collector.read_events(Some(1)).await;
    assert_eq!(reader.known(), 1);
    // One front end has the second entry, the one that answers the reader does not.
    assert!(!reader.collector.read_events(Some(2)).await);
    assert_eq!(reader.known(), 1);
    // Nothing changes for whoever only looks at sizes.
    serve(&reader.server, &reader.log, &entries);
    assert!(reader.collector.read_events(Some(2)).await);
    assert_eq!(reader.known(), 2);
}

#[tokio::test]
async fn what_is_dated_later_than_any_clock_is_wrong_takes_no_room() {
    let reader = Reader::start().await;
    let dated =
        |recorded: i64| statement(1).replace("\"recordedAt\":5", &format!("\"recordedAt\":{recorded}"));
    let soon = crate::clock::unix_seconds() + 60;
    let entries = [i64::MAX, soon + 1_000_000].map(|at| signed(&reader.key, &dated(at)));
    serve(&reader.server, &reader.log, &entries);
    assert!(!reader.collector.read_events(None).await);
    assert_eq!(reader.known(), 0);
    let [first, second] = entries;
    serve(&reader.server, &reader.log, &[first, second, signed(&reader.key, &dated(soon))]);
    assert!(reader.collector.read_events(None).await);
    assert_eq!(reader.known(), 1);
}

#[tokio::test]
async fn a_log_that_cannot_be_believed_announces_nothing_and_takes_nothing_back() {
    let reader = Reader::start().await;
    let entries = [signed(&reader.key, &statement(1)), signed(&reader.key, &statement(2))];
    // Nothing there yet.
    assert!(reader.collector.read_events(Some(0)).await, "the problem is told");
    assert!(reader.problem().contains("404"), "{}", reader.problem());

    let head = serve(&reader.server, &reader.log, &entries[..1]);
    let stranger = Log { pair: Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap(), ..Log::new() };
    reader.server.serve("/event/checkpoint", stranger.checkpoint(1, head.root));
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 0, "a checkpoint that the log did not sign");
    assert!(!reader.problem().is_empty());

    serve(&reader.server, &reader.log, &entries[..1]);
    reader.server.serve("/event/tile/entries/000.p/1", {
        let mut other = Vec::new();
        append_entry(&mut other, &entries[1]).unwrap();
        other
    });
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 0, "an entry that is not in the tree");

    serve(&reader.server, &reader.log, &entries[..1]);
    reader.collector.read_events(Some(1)).await;
    assert_eq!((reader.known(), reader.problem().as_str()), (1, ""), "it is tried again until it works");

    // Another history, a shorter one, and the stranger's: what is known stays.
    let forked = [b"another beginning".to_vec(), entries[1].clone()];
    serve(&reader.server, &reader.log, &forked);
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 1);
    assert!(!reader.problem().is_empty(), "a fork is told");
    serve(&reader.server, &reader.log, &entries);
    reader.collector.read_events(Some(2)).await;
    assert_eq!((reader.known(), reader.problem().as_str()), (2, ""));
    serve(&reader.server, &reader.log, &entries[..1]);
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 2, "going back takes nothing back");
}
