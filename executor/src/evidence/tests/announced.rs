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
    ca: Ca,
    log: Log,
    /// Of the authority's statements.
    key: KeyPair,
    rules: EventRules,
    collector: Collector,
    state: tempfile::TempDir,
}

/// Whom a key is believed about.
fn rule(key: &KeyPair, issuer: Option<&Certificate>) -> EventRule {
    EventRule {
        predicate_type: REVOCATION_TYPE.into(),
        issuer: None,
        issuer_name: issuer.map(|issuer| Bytes(issuer.subject_der().to_vec())),
        issuer_key: issuer.map(|issuer| Bytes(issuer.key_digest().to_vec())),
        keys: vec![Bytes(key.subject_public_key_info())],
    }
}

impl Reader {
    async fn start() -> Self {
        let (server, ca, log, key) = (Server::start().await, Ca::new(), Log::new(), key());
        let rules = EventRules::new(vec![rule(&key, Some(&ca.certificate))]).unwrap();
        let state = tempfile::tempdir().unwrap();
        let collector = Self::collector(&server, &ca, &log, &state, &rules);
        Self { server, ca, log, key, rules, collector, state }
    }

    fn collector(
        server: &Server,
        ca: &Ca,
        log: &Log,
        state: &tempfile::TempDir,
        rules: &EventRules,
    ) -> Collector {
        let event_log = EventLog { origin: ORIGIN.into(), keys: vec![log.key.clone()], rules: rules.clone() };
        following(server, ca, log, state.path(), None, Some(event_log))
    }

    /// Another process with the same state folder.
    async fn restart(&mut self) {
        self.collector = Self::collector(&self.server, &self.ca, &self.log, &self.state, &self.rules);
        self.server.answers.lock().retain(|path, _| !path.starts_with("/event/"));
        // What is remembered is published with whatever comes first.
        self.collector.refresh_logs(&[]).await;
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

/// This machine's clock may be the one that is wrong: what is ahead of it counts when it was set, also in the next process.
#[tokio::test]
async fn what_is_dated_ahead_counts_when_its_time_comes() {
    let mut reader = Reader::start().await;
    let ahead = crate::clock::unix_seconds() + 3600 + 3;
    let dated = statement(1).replace("\"recordedAt\":5", &format!("\"recordedAt\":{ahead}"));
    let entries = [signed(&reader.key, &dated), signed(&reader.key, &statement(2))];
    serve(&reader.server, &reader.log, &entries);
    assert!(reader.collector.read_events(None).await);
    assert_eq!(reader.known(), 1);
    reader.restart().await;
    serve(&reader.server, &reader.log, &entries);
    reader.collector.read_events(Some(2)).await;
    assert_eq!(reader.known(), 1, "not yet");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(reader.collector.read_events(Some(2)).await, "the log has nothing new");
    assert_eq!(reader.known(), 2);
    // From now on it is remembered like any other.
    reader.restart().await;
    assert_eq!(reader.known(), 2);
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

#[tokio::test]
async fn what_was_announced_outlives_a_restart_and_a_log_that_hides_it() {
    let mut reader = Reader::start().await;
    let entries = [signed(&reader.key, &statement(1)), signed(&reader.key, &statement(2))];
    serve(&reader.server, &reader.log, &entries);
    assert!(reader.collector.read_events(None).await);
    reader.restart().await;
    assert_eq!(reader.known(), 2, "the log is silent");
    // An older tree that the log signed once is one that went back.
    serve(&reader.server, &reader.log, &entries[..1]);
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 2);
    assert!(!reader.problem().is_empty(), "it is told");
    // It goes on where it was; what was walked is not fetched again.
    let mut more = entries.to_vec();
    more.push(signed(&reader.key, &statement(3)));
    serve(&reader.server, &reader.log, &more);
    reader.collector.read_events(Some(3)).await;
    assert_eq!((reader.known(), reader.problem().as_str()), (3, ""));

    // Who is believed about anything else has no part in it.
    let other = EventRule { predicate_type: "another type".into(), ..rule(&key(), None) };
    reader.rules = reader.rules.with([other]).unwrap();
    reader.restart().await;
    assert_eq!(reader.known(), 3);

    // What was believed by other rules is not believed any more, and read again by those of now.
    let newer = key();
    reader.rules = EventRules::new(vec![rule(&newer, Some(&reader.ca.certificate))]).unwrap();
    reader.restart().await;
    assert_eq!(reader.known(), 0);
    more.push(signed(&newer, &statement(4)));
    serve(&reader.server, &reader.log, &more);
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 1);
    // Nor is a file that somebody broke.
    std::fs::write(reader.state.path().join(format!("announced-{ORIGIN}.json")), "[").unwrap();
    reader.restart().await;
    assert_eq!(reader.known(), 0);
    serve(&reader.server, &reader.log, &more);
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 1);
}

/// What is remembered can only deny: that it is damaged keeps nobody from starting, and is not forgotten by starting.
#[tokio::test]
async fn a_damaged_place_is_told_and_what_was_announced_counts() {
    let mut reader = Reader::start().await;
    let entries = [signed(&reader.key, &statement(1)), signed(&reader.key, &statement(2))];
    serve(&reader.server, &reader.log, &entries[..1]);
    assert!(reader.collector.read_events(None).await);
    let file = reader.state.path().join(format!("events-{ORIGIN}.json"));
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, "[").unwrap();
    reader.restart().await;
    assert!(reader.known() == 1 && reader.problem().contains("moved away"), "{}", reader.problem());
    serve(&reader.server, &reader.log, &entries);
    assert!(!reader.collector.read_events(None).await);
    assert_eq!(std::fs::read(&file).unwrap(), b"[");
    // Nor does a checkpoint count that the log's keys of now did not sign.
    std::fs::write(&file, String::from_utf8(whole).unwrap().replace("\\n\\n", "\\nx\\n\\n")).unwrap();
    reader.restart().await;
    assert!(reader.known() == 1 && reader.problem().contains("moved away"), "{}", reader.problem());
    std::fs::remove_file(&file).unwrap();
    reader.restart().await;
    serve(&reader.server, &reader.log, &entries);
    assert!(reader.collector.read_events(None).await);
    assert_eq!((reader.known(), reader.problem().as_str()), (2, ""));
}

#[tokio::test]
async fn a_bundle_that_was_lost_is_read_again() {
    let reader = Reader::start().await;
    serve(&reader.server, &reader.log, &[signed(&reader.key, &statement(1))]);
    reader.collector.lose_a_bundle();
    reader.collector.read_events(Some(1)).await;
    assert_eq!(reader.known(), 0);
    assert!(reader.problem().contains("read again"), "{}", reader.problem());
    reader.collector.read_events(Some(1)).await;
    assert_eq!((reader.known(), reader.problem().as_str()), (1, ""));
}

#[tokio::test]
async fn a_key_that_is_believed_about_every_ca_is_believed_about_none() {
    let mut reader = Reader::start().await;
    let anybody = key();
    let own = reader.ca.certificate.clone();
    let entries = [signed(&anybody, &statement(1)), signed(&reader.key, &statement(2))];
    // Nobody in particular, or whoever has a name: authorities that were set up alike have the same.
    let of_the_name = EventRule { issuer_key: None, ..rule(&anybody, Some(&own)) };
    for ignored in [rule(&anybody, None), of_the_name.clone()] {
        reader.rules = EventRules::new(vec![ignored]).unwrap();
        reader.restart().await;
        assert!(reader.problem().contains("1 of the keys file's rules"), "{}", reader.problem());
        serve(&reader.server, &reader.log, &entries);
        reader.collector.read_events(None).await;
        assert_eq!(reader.known(), 0);
        assert!(reader.problem().contains("issuer's key"), "reading changes nothing about it");
    }

    let ignored = [rule(&anybody, None), of_the_name];
    reader.rules = EventRules::new([&ignored[..], &[rule(&reader.key, Some(&own))]].concat()).unwrap();
    reader.restart().await;
    serve(&reader.server, &reader.log, &entries);
    reader.collector.read_events(None).await;
    assert_eq!(reader.known(), 1);
    assert!(reader.problem().contains("2 of the keys file's rules"), "{}", reader.problem());
}
