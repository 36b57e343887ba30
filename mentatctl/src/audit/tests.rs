//! The account of synthetic evidence, what a verifier refuses, and the frozen form.

use executor_api::audit::{AuditAgent, AuditAttestation, AuditEvent, AuditHead};
use hsm::developer::DeveloperKey;
use hsm::{Input, KeyAlgorithm, Purpose, SignatureAlgorithm, Signer as _, SigningIntent};
use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};
use tlog::static_ct::{DataTileRecord, Extensions, SignedEntry, TimestampedEntry};
use tlog::{
    Checkpoint, ConsistencyProof, Hash, InclusionProof, MemoryTree, Note, NoteSignature, VerifierKey,
};
use trust_store::Certificate;
use trust_store::dsse::{Envelope, IN_TOTO_PAYLOAD_TYPE, pae};
use trust_store::event::{EventRule, EventRules};
use trust_store::json::Bytes;
use trust_store::key_details::KeyDetails;
use trust_store::rekor::{self, HashedRekord};

use super::account::account;
use super::collect::NeededEvents;
use super::evidence::{EntryEvidence, Evidence, ExecutorEvidence, LogEvidence, Period, SeenCheckpoint};
use super::statement;
use crate::log::event_key::REVOCATION;
use crate::log::record::leaf_of;

/// Rules in the form of a report.
const RULES: &str =
    r#"[{"predicateType":"t","keys":["MCowBQYDK2VwAyEABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="]}]"#;
/// 2030-01-01T00:00:00Z.
const T: i64 = 1_893_456_000;

fn period() -> Period {
    Period { from: "2030-01-01T00:00:00Z".to_owned(), to: "2030-02-01T00:00:00Z".to_owned() }
}

fn certificate(serial: u8, email: &str) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    params.subject_alt_names = vec![SanType::Rfc822Name(email.try_into().unwrap())];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn issued(index: u64, seconds: i64, der: &[u8]) -> Vec<u8> {
    let entry = TimestampedEntry {
        timestamp: u64::try_from(seconds).unwrap() * 1000,
        entry: SignedEntry::X509(der.to_vec()),
        extensions: Extensions::leaf_index(index).unwrap(),
    };
    DataTileRecord { entry, precertificate: None, chain: Vec::new() }.to_bytes().unwrap()
}

fn signature(der: &[u8]) -> Vec<u8> {
    let verifier = rekor::VerifierKey::Certificate(der.to_vec());
    HashedRekord::new(vec![7; 32], vec![1], verifier, KeyDetails::EcdsaP256Sha256)
        .unwrap()
        .canonical_body()
        .unwrap()
}

fn revocation(serial: &str, revoked_at: i64, recorded_at: i64) -> Vec<u8> {
    let predicate = serde_json::json!({ "serial": serial, "reason": 1, "revokedAt": revoked_at, "recordedAt": recorded_at });
    unsigned(REVOCATION, serial, predicate)
}

fn unsigned(kind: &str, name: &str, predicate: serde_json::Value) -> Vec<u8> {
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{ "name": name, "digest": { "sha256": "00" } }],
        "predicateType": kind, "predicate": predicate,
    });
    serde_json::to_vec(&Envelope::new(IN_TOTO_PAYLOAD_TYPE, statement.to_string().into_bytes(), vec![1]))
        .unwrap()
}

/// An event of a type, signed with a key.
fn event(kind: &str, predicate: serde_json::Value, key: &DeveloperKey) -> Vec<u8> {
    let payload = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "subject", "digest": { "sha256": "00" } }],
        "predicateType": kind, "predicate": predicate,
    })
    .to_string();
    let message = pae(IN_TOTO_PAYLOAD_TYPE, payload.as_bytes());
    let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
    let signed = key.sign(Input::Message(&message), SignatureAlgorithm::Ed25519, &intent).unwrap();
    serde_json::to_vec(&Envelope::new(IN_TOTO_PAYLOAD_TYPE, payload.into_bytes(), signed.into_vec())).unwrap()
}

/// Who is believed: type, the issuer's name in a certificate of this DER, key.
fn rules(known: &[(&str, Option<&[u8]>, &DeveloperKey)]) -> EventRules {
    let name = |der: &[u8]| Bytes(Certificate::from_der(der).unwrap().issuer_der().to_vec());
    let rule = |(kind, issued, key): &(&str, Option<&[u8]>, &DeveloperKey)| EventRule {
        predicate_type: (*kind).to_owned(),
        issuer: None,
        issuer_name: issued.map(name),
        issuer_key: None,
        keys: vec![Bytes(key.public_key().spki_der().to_vec())],
    };
    EventRules::new(known.iter().map(rule).collect()).unwrap()
}

fn log(kind: &str, entries: Vec<Vec<u8>>) -> LogEvidence {
    let entries = (0..).zip(entries).map(|(index, bytes)| EntryEvidence {
        index,
        entry: Bytes(bytes),
        inclusion: Vec::new(),
    });
    let entries: Vec<_> = entries.collect();
    LogEvidence {
        kind: kind.to_owned(),
        origin: format!("{kind}.example"),
        checkpoint: format!("{kind}\n"),
        start: 0,
        end: entries.len() as u64,
        seen_before: None,
        seen_after: None,
        entries,
        leaves: Vec::new(),
    }
}

fn executor(admissions: &[(&str, Option<u64>, &str)]) -> ExecutorEvidence {
    let (mut head, mut lines) = (AuditHead::EMPTY, Vec::new());
    for (agent, log_index, signer) in admissions {
        let attestation = AuditAttestation {
            verified: true,
            signer: (*signer).to_owned(),
            trust_level: "trusted".to_owned(),
        };
        let agent = AuditAgent {
            id: (*agent).to_owned(),
            version: "1.0.0".to_owned(),
            runtime: "wasm".to_owned(),
            digest: "ab".to_owned(),
            log_index: *log_index,
            attestation,
        };
        let agent = Some(agent.into());
        let event = AuditEvent { event_type: "admission".to_owned(), agent, ..AuditEvent::default() };
        let (line, next) = head.append("2030-01-15T00:00:00Z", &event).unwrap();
        lines.push(line);
        head = next;
    }
    ExecutorEvidence {
        name: "east".to_owned(),
        last_sequence: head.sequence,
        last_hash: hex::encode(head.hash),
        broken: None,
        admissions: lines,
    }
}

fn evidence(logs: [Vec<Vec<u8>>; 3], executors: Vec<ExecutorEvidence>) -> Evidence {
    let [issuance, signing, event] = logs;
    let logs = vec![log("issuance", issuance), log("signing", signing), log("event", event)];
    Evidence { event_rules: EventRules::default(), logs, executors }
}

fn codes(evidence: &Evidence) -> Vec<String> {
    account(evidence, &period())
        .unwrap()
        .findings
        .into_iter()
        .map(|finding| format!("{} {}", finding.code, finding.at))
        .collect()
}

#[test]
fn what_does_not_fit_is_named() {
    let (good, secret, gone) =
        (certificate(1, "a@example.com"), certificate(2, "b@example.com"), certificate(3, "c@example.com"));
    let day = 86_400;
    let mut all = evidence(
        [
            vec![issued(0, T, &good), issued(1, T + 1, &gone)],
            vec![signature(&good), signature(&secret), signature(&gone), b"{}".to_vec()],
            vec![
                revocation("03", T + 10 * day, T + 20 * day),
                revocation("3", T + 9 * day, T + 10 * day),
                revocation("4", T + 1, T + 2),
            ],
        ],
        vec![executor(&[
            ("fine", Some(0), "a@example.com"),
            ("other", Some(0), "b@example.com"),
            ("nowhere", Some(9), "a@example.com"),
            ("unlogged", None, "a@example.com"),
            ("revoked", Some(2), "c@example.com"),
        ])],
    );
    assert_eq!(
        codes(&all),
        [
            "admitted_after_revocation east 5",
            "admitted_not_logged east 3",
            "admitted_not_logged east 4",
            "admitted_other_signer east 2",
            "certificate_not_issued signing 1",
            "event_signatures_unchecked event",
            "revoked_not_issued event 2",
            "unreadable_entry signing 3",
        ]
    );
    // With a key, unsigned revocations are forgeries and have no effect.
    let key = DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap();
    all.event_rules = rules(&[(REVOCATION, None, &key)]);
    let found = codes(&all);
    assert_eq!(found.iter().filter(|code| code.starts_with("event_forged")).count(), 3);
    assert!(!found.iter().any(|code| code.starts_with("admitted_after")), "{found:?}");

    let broken = &mut all.executors[0];
    broken.broken = Some("record 6 was altered".to_owned());
    assert!(codes(&all).contains(&"audit_log_broken east".to_owned()));
    // A record that was changed, repeated, or is not of the period is no record.
    for change in [
        &|executor: &mut ExecutorEvidence| {
            executor.admissions[0] = executor.admissions[0].replace("fine", "evil")
        },
        &|executor: &mut ExecutorEvidence| executor.admissions.swap(0, 1),
        &|executor: &mut ExecutorEvidence| executor.last_sequence = 4,
    ] as [&dyn Fn(&mut ExecutorEvidence); 3]
    {
        let mut changed = all.clone();
        change(&mut changed.executors[0]);
        assert!(account(&changed, &period()).is_err());
    }
    let february = Period { from: "2030-02-01T00:00:00Z".to_owned(), to: "2030-03-01T00:00:00Z".to_owned() };
    assert!(account(&all, &february).is_err());
}

#[test]
fn a_forged_event_of_each_type_is_named_and_has_no_effect() {
    let types = [REVOCATION, "approval", "deployment", "receipt-anchor", "audit-anchor"];
    let keys = types.map(|_| DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap());
    let known: Vec<_> = types.into_iter().zip(&keys).map(|(kind, key)| (kind, None, key)).collect();
    let der = certificate(1, "a@example.com");
    let day = 86_400;
    let predicate =
        serde_json::json!({ "serial": "1", "reason": 1, "revokedAt": T + day, "recordedAt": T + 2 * day });
    let events: Vec<_> = types
        .iter()
        .flat_map(|kind| keys.iter().map(|key| event(kind, predicate.clone(), key)))
        .chain([event("other", predicate.clone(), &keys[0])])
        .collect();
    let mut all = evidence([vec![issued(0, T, &der)], vec![], events], vec![]);
    all.event_rules = rules(&known);
    let found = codes(&all);
    for (place, _) in types.iter().enumerate() {
        for (other, _) in keys.iter().enumerate() {
            let named = found.contains(&format!("event_forged event {}", place * types.len() + other));
            assert_eq!(named, place != other, "{place} by {other}: {found:?}");
        }
    }
    assert!(found.contains(&format!("event_type_unknown event {}", types.len() * types.len())), "{found:?}");
    // The genuine revocation counts, once.
    assert_eq!(account(&all, &period()).unwrap().revoked.len(), 1);
}

#[test]
fn one_ca_cannot_revoke_what_another_issued() {
    let der = certificate(1, "a@example.com");
    let (own, other) = (other_issuer("other"), DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap());
    let issuing = DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let predicate = serde_json::json!({ "serial": "1", "reason": 1, "revokedAt": T, "recordedAt": T });
    let admitted = || vec![executor(&[("agent", Some(0), "a@example.com")])];
    let logs = |key: &DeveloperKey| {
        [vec![issued(0, T, &der)], vec![signature(&der)], vec![event(REVOCATION, predicate.clone(), key)]]
    };
    let known = rules(&[(REVOCATION, Some(&der), &issuing), (REVOCATION, Some(&own), &other)]);
    let mut all = evidence(logs(&issuing), admitted());
    all.event_rules = known.clone();
    assert_eq!(codes(&all), ["admitted_after_revocation east 1"]);
    let mut all = evidence(logs(&other), admitted());
    all.event_rules = known;
    assert_eq!(codes(&all), ["revoked_not_issued event 0"]);
}

/// A certificate whose issuer has another name.
fn other_issuer(name: &str) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// Log evidence with real proofs over `entries`, of which those in `kept` are there.
struct Proven {
    key: DeveloperKey,
    tree: MemoryTree,
    entries: Vec<Vec<u8>>,
}

impl Proven {
    fn new(entries: Vec<Vec<u8>>) -> Self {
        let mut tree = MemoryTree::new();
        tree.extend(entries.iter().map(|entry| leaf_of("signing", entry).unwrap()));
        Self { key: DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap(), tree, entries }
    }

    fn keys(&self) -> Vec<VerifierKey> {
        vec![
            VerifierKey::ed25519("signing.example", self.key.public_key().raw().try_into().unwrap()).unwrap(),
        ]
    }

    fn note(&self, size: u64) -> String {
        let head = self.tree.head_at(size).unwrap();
        let mut note = Note::new(&Checkpoint::new("signing.example", head).unwrap().to_string()).unwrap();
        let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
        let input = Input::Message(note.text().as_bytes());
        let signed = self.key.sign(input, SignatureAlgorithm::Ed25519, &intent).unwrap().into_vec();
        note.push(NoteSignature::new("signing.example", self.keys()[0].id(), signed).unwrap());
        note.to_string()
    }

    fn seen(&self, time: &str, size: u64, to: u64) -> SeenCheckpoint {
        let proof = ConsistencyProof::build(size, to, &self.tree).unwrap();
        let consistency = proof.path.iter().map(Hash::to_base64).collect();
        SeenCheckpoint { time: time.to_owned(), checkpoint: self.note(size), consistency }
    }

    fn log(&self, start: u64, end: u64) -> LogEvidence {
        let size = self.entries.len() as u64;
        let entry = |index: u64| EntryEvidence {
            index,
            entry: Bytes(self.entries[usize::try_from(index).unwrap()].clone()),
            inclusion: InclusionProof::build(index, size, &self.tree)
                .unwrap()
                .path
                .iter()
                .map(Hash::to_base64)
                .collect(),
        };
        LogEvidence {
            checkpoint: self.note(size),
            start,
            end,
            seen_before: (start > 0).then(|| self.seen("2029-12-31T23:59:59Z", start, size)),
            seen_after: (end < size).then(|| self.seen("2030-02-01T00:00:00Z", end, size)),
            entries: (start..end).map(entry).collect(),
            ..log("signing", Vec::new())
        }
    }
}

/// Something done to a log's evidence.
type Change<'a> = &'a dyn Fn(&mut LogEvidence);

#[test]
fn a_verifier_refuses_gaps_changes_and_other_histories() {
    let proven = Proven::new((0..9_u8).map(|n| vec![n; 5]).collect());
    let keys = proven.keys();
    for (start, end) in [(0, 9), (2, 9), (0, 5), (3, 3), (4, 8)] {
        proven.log(start, end).verify(&keys, &period()).unwrap();
    }
    let other = Proven::new((0..9_u8).map(|n| vec![n; 6]).collect());
    let changes: [(&str, Change<'_>); 13] = [
        ("an entry left out", &|log| drop(log.entries.remove(1))),
        ("the last entry left out", &|log| drop(log.entries.pop())),
        ("an entry changed", &|log| log.entries[0].entry.0[0] ^= 1),
        ("an index changed", &|log| log.entries[3].index = 8),
        ("a proof cut", &|log| drop(log.entries[0].inclusion.pop())),
        ("a proof lengthened", &|log| log.entries[0].inclusion.push(Hash::digest(b"").to_base64())),
        ("two entries swapped", &|log| log.entries.swap(0, 1)),
        ("a shorter range", &|log| log.end -= 1),
        ("a later beginning", &|log| {
            log.start += 1;
            log.entries.remove(0);
        }),
        ("no reason for the beginning", &|log| log.seen_before = None),
        ("no reason for the end", &|log| log.seen_after = None),
        ("seen too late", &|log| log.seen_before.as_mut().unwrap().time = "2030-01-01T00:00:01Z".to_owned()),
        ("another log's checkpoint", &|log| log.checkpoint = other.note(9)),
    ];
    for (what, change) in changes {
        let mut log = proven.log(2, 6);
        change(&mut log);
        let refused = log.verify(&keys, &period()).unwrap_err();
        assert_eq!(refused.exit, crate::exit::Exit::Denied, "{what}: {}", refused.line());
    }
    // The log's own key signed another history.
    let mut forked = Proven::new((0..4_u8).map(|n| vec![n; 6]).collect());
    forked.key = DeveloperKey::from_pem(&proven.key.to_pem(), None).unwrap();
    let mut log = proven.log(2, 6);
    log.seen_before.as_mut().unwrap().checkpoint = forked.note(2);
    assert!(log.verify(&keys, &period()).is_err());
    // Ranges of the other kinds cover the period by other means.
    let whole =
        |kind: &str, start| LogEvidence { kind: kind.to_owned(), seen_before: None, ..proven.log(start, 9) };
    whole("event", 0).verify(&keys, &period()).unwrap();
    assert!(whole("event", 1).verify(&keys, &period()).is_err());
}

#[test]
fn events_that_the_account_does_not_need_may_stand_there_by_their_hashes() {
    let (signed, other) = (certificate(7, "a@example.com"), certificate(8, "b@example.com"));
    let signing = log("signing", vec![signature(&signed), signature(&other)]);
    let day = 86_400;
    let anchor = unsigned("https://example.test/anchor/v1", "x", serde_json::json!({}));
    let proven = Proven::new(vec![
        anchor.clone(),
        revocation("07", T - 50 * day, T - 40 * day),
        revocation("99", T - 50 * day, T - 40 * day),
        revocation("98", T - 50 * day, T + day),
        br#"{"no":"event"}"#.to_vec(),
        anchor,
    ]);
    let needed = NeededEvents::of(&period(), &signing, 5).unwrap();
    let kept: Vec<u64> =
        (0..6).filter(|index| needed.has(*index, &proven.entries[*index as usize])).collect();
    assert_eq!(kept, [1, 3, 4, 5], "of a signer, recorded in the period, no event at all, and the newest");

    let mut whole = LogEvidence { kind: "event".to_owned(), ..proven.log(0, 6) };
    let left_out = whole.entries.extract_if(.., |entry| !kept.contains(&entry.index));
    let leaf = |entry: EntryEvidence| leaf_of("event", &entry.entry.0).unwrap().hash().to_base64();
    whole.leaves = left_out.map(leaf).collect();
    whole.entries.iter_mut().for_each(|entry| entry.inclusion.clear());
    let verify = |log: &LogEvidence| log.verify_with(&proven.keys(), &period(), 1);
    verify(&whole).unwrap();
    let refused = whole.verify(&proven.keys(), &period()).unwrap_err();
    assert!(refused.line().contains("by its hash only"), "of a log this small: {}", refused.line());
    let text = serde_json::to_value(&whole).unwrap();
    assert_eq!(serde_json::from_value::<LogEvidence>(text).unwrap(), whole);

    let changes: [(&str, Change<'_>); 8] = [
        ("one of the newest by its hash", &|log| log.leaves.push(leaf(log.entries.pop().unwrap()))),
        ("a hash left out", &|log| drop(log.leaves.pop())),
        ("a hash too many", &|log| log.leaves.push(log.leaves[0].clone())),
        ("another hash", &|log| log.leaves[0] = Hash::digest(b"").to_base64()),
        ("no hash", &|log| log.leaves[0] = "AAAA".to_owned()),
        ("an entry changed", &|log| log.entries[0].entry.0[0] ^= 1),
        ("an index changed", &|log| log.entries[0].index = 2),
        ("another kind of log", &|log| log.kind = "signing".to_owned()),
    ];
    for (what, change) in changes {
        let mut log = whole.clone();
        change(&mut log);
        let refused = verify(&log).unwrap_err();
        assert_eq!(refused.exit, crate::exit::Exit::Denied, "{what}: {}", refused.line());
    }
}

#[test]
fn issuance_outside_the_range_must_be_outside_the_period() {
    let der = certificate(1, "a@example.com");
    let mut all = evidence([vec![issued(0, T - 1, &der), issued(1, T, &der)], vec![], vec![]], vec![]);
    assert!(account(&all, &period()).is_err(), "an entry of December counted as January's");
    all.logs[0].start = 1;
    assert_eq!(account(&all, &period()).unwrap().issued.len(), 1);
    all.logs[0].start = 2;
    assert!(account(&all, &period()).is_err(), "an entry of January left out");
}

#[test]
fn the_form_is_frozen() {
    let line = executor(&[("agent", None, "a@example.com")]);
    let (hash, text) = (line.last_hash.clone(), line.admissions[0].clone());
    let mut all = evidence([vec![], vec![], vec![]], vec![line]);
    all.event_rules = serde_json::from_str(RULES).unwrap();
    all.logs[1].seen_before = Some(SeenCheckpoint {
        time: "2029-12-31T00:00:00Z".to_owned(),
        checkpoint: "n\n".to_owned(),
        consistency: vec!["aA==".to_owned()],
    });
    all.logs[2].entries =
        vec![EntryEvidence { index: 4, entry: Bytes(b"{}".to_vec()), inclusion: vec!["aA==".to_owned()] }];
    let written = serde_json::to_string(&statement(period(), all).unwrap()).unwrap();
    let expected = [
        r#"{"_type":"https://in-toto.io/Statement/v1","subject":["#,
        r#"{"name":"issuance.example","digest":{"sha256":"ISSUANCE"}},"#,
        r#"{"name":"signing.example","digest":{"sha256":"SIGNING"}},"#,
        r#"{"name":"event.example","digest":{"sha256":"EVENT"}}],"#,
        r#""predicateType":"https://mentat.internal/audit-report/v1","#,
        r#""predicate":{"period":{"from":"2030-01-01T00:00:00Z","to":"2030-02-01T00:00:00Z"},"#,
        r#""account":{"issued":[],"signed":[],"revoked":[],"admitted":[{"executor":"east","sequence":1,"#,
        r#""time":"2030-01-15T00:00:00Z","agent":"agent","version":"1.0.0","digest":"ab","log_index":null,"signer":"a@example.com"}],"#,
        r#""findings":[{"code":"admitted_not_logged","at":"east 1","text":"agent with no index, not in the signing log"},"#,
        r#"{"code":"unreadable_entry","at":"event 4","text":"no statement can be read"}]},"#,
        r#""evidence":{"eventRules":RULES,"logs":["#,
        r#"{"kind":"issuance","origin":"issuance.example","checkpoint":"issuance\n","start":0,"end":0,"entries":[]},"#,
        r#"{"kind":"signing","origin":"signing.example","checkpoint":"signing\n","start":0,"end":0,"#,
        r#""seenBefore":{"time":"2029-12-31T00:00:00Z","checkpoint":"n\n","consistency":["aA=="]},"entries":[]},"#,
        r#"{"kind":"event","origin":"event.example","checkpoint":"event\n","start":0,"end":0,"#,
        r#""entries":[{"index":4,"entry":"e30=","inclusion":["aA=="]}]}],"#,
        r#""executors":[{"name":"east","lastSequence":1,"lastHash":"HASH","admissions":[LINE]}]}}}"#,
    ]
    .concat();
    let digest = |text: &str| hex::encode(crate::sign::sha256(text.as_bytes()));
    let expected = expected
        .replace("ISSUANCE", &digest("issuance\n"))
        .replace("SIGNING", &digest("signing\n"))
        .replace("EVENT", &digest("event\n"))
        .replace("RULES", RULES)
        .replace("HASH", &hash)
        .replace("LINE", &serde_json::to_string(&text).unwrap());
    assert_eq!(written, expected);
    let read: super::Statement = serde_json::from_str(&written).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), written);
    assert!(
        serde_json::from_str::<super::Statement>(&written.replacen("\"period\"", "\"more\":1,\"period\"", 1))
            .is_err()
    );
}
