//! Collecting from servers that forge, replay, go back and stall.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, RevokedCertParams, SerialNumber, SigningKey as _,
};
use tlog::{
    Checkpoint, ConsistencyProof, Hash, InclusionProof, MemoryTree, Note, NoteSignature, TreeHead,
    VerifierKey, leaf_hash,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use trust_store::evidence::Evidence;
use trust_store::evidence::signed::{self, EvidenceSigner};
use trust_store::json::Bytes;
use trust_store::key_details::{HashAlgorithm, KeyDetails};
use trust_store::log_entry::{InclusionEvidence, TransparencyLogEntry};
use trust_store::provider::AwsLc;
use trust_store::trusted_root::{
    Authority, CertificateChain, DistinguishedName, KeyId, LogInstance, LogKey, TrustedRoot,
};
use trust_store::validity::Validity;
use trust_store::verifier::Verifier;
use trust_store::{Certificate, UnixTime};

use super::feed::Look;
use super::{Collector, EventLog, EvidenceConfig, ImportConfig, Snapshot};
use crate::clock;

mod announced;
mod forks;
mod responders;

pub(crate) const ORIGIN: &str = "signing.ab12cd34.mentat.internal";
const SERIAL: u64 = 0x4d;

/// What the server does with a request.
#[derive(Clone)]
enum Answer {
    Body(Vec<u8>),
    /// Takes the request and never answers.
    Silence,
}

/// An HTTP server whose answers change while it runs; 404 for what it does not have.
pub(crate) struct Server {
    pub(crate) url: String,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    silenced: Arc<Notify>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(BTreeMap::<String, Answer>::new()));
        let silenced = Arc::new(Notify::new());
        let (table, notify) = (Arc::clone(&answers), Arc::clone(&silenced));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (table, notify) = (Arc::clone(&table), Arc::clone(&notify));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let length = request.lines().find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
                    });
                    let mut question = vec![0; length.unwrap_or_default()];
                    if stream.read_exact(&mut question).await.is_err() {
                        return;
                    }
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    let answer = table.lock().get(&path).cloned();
                    let (status, body) = match answer {
                        Some(Answer::Body(body)) => ("200 OK", body),
                        Some(Answer::Silence) => {
                            notify.notify_one();
                            return std::future::pending().await;
                        }
                        None => ("404 Not Found", Vec::new()),
                    };
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                });
            }
        });
        Self { url, answers, silenced }
    }

    fn set(&self, path: &str, answer: Answer) {
        self.answers.lock().insert(path.to_owned(), answer);
    }

    pub(crate) fn serve(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.set(path, Answer::Body(body.into()));
    }
}

struct Ca {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Agent CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    /// A list of one shard, issued `age` seconds ago.
    fn crl(&self, shard: &str, age: i64, revoked: &[u64]) -> Vec<u8> {
        let at = |seconds: i64| {
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap())
        };
        let this_update = clock::unix_seconds() - age;
        let params = CertificateRevocationListParams {
            this_update: at(this_update),
            next_update: at(this_update + 86_400),
            crl_number: SerialNumber::from(u64::try_from(this_update).unwrap()),
            issuing_distribution_point: Some(CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec![format!("http://ca.example/{shard}.crl")],
                },
                scope: None,
            }),
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: at(this_update),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }
}

pub(crate) struct Log {
    origin: &'static str,
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::of(ORIGIN)
    }

    fn of(origin: &'static str) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = VerifierKey::ed25519(origin, &pair.public_key().as_ref().try_into().unwrap()).unwrap();
        Self { origin, pair, key }
    }

    pub(crate) fn checkpoint(&self, size: u64, root: Hash) -> Vec<u8> {
        let checkpoint = Checkpoint::new(self.origin, TreeHead { size, root }).unwrap();
        let mut note = Note::new(&checkpoint.to_string()).unwrap();
        let signature = self.pair.sign(note.text().as_bytes()).as_ref().to_vec();
        note.push(NoteSignature::new(self.key.name(), self.key.id(), signature).unwrap());
        note.to_bytes()
    }

    /// What a bundle has that leads to the log's tree of this size.
    pub(crate) fn entry(&self, tree_size: u64) -> TransparencyLogEntry {
        let inclusion = InclusionEvidence {
            log_index: tree_size - 1,
            root_hash: Hash([8; 32]),
            tree_size,
            hashes: Vec::new(),
            checkpoint: "none".into(),
        };
        TransparencyLogEntry {
            log_index: tree_size - 1,
            log_id: self.instance().log_id.key_id.0,
            kind: "hashedrekord".into(),
            version: "0.0.2".into(),
            integrated_time: 0,
            inclusion_promise: None,
            inclusion_proof: Some(inclusion),
            canonicalized_body: b"{}".to_vec(),
        }
    }

    /// As a trusted root names it.
    pub(crate) fn instance(&self) -> LogInstance {
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        LogInstance {
            base_url: format!("https://{}", self.origin),
            hash_algorithm: HashAlgorithm::Sha256,
            public_key: LogKey {
                raw_bytes: Bytes([&prefix, self.pair.public_key().as_ref()].concat()),
                key_details: KeyDetails::Ed25519,
                valid_for: Validity::since(UnixTime(0)),
            },
            log_id: KeyId { key_id: Bytes(self.key.key_hash().0.to_vec()) },
            checkpoint_key_id: None,
            operator: String::new(),
        }
    }
}

/// A collector that trusts the authority and the log; lists come from `/1.crl`, the log is at `/log`, responders are at `/ocsp`.
fn collector(server: &Server, ca: &Ca, log: &Log, state: &Path) -> Collector {
    importing(server, ca, log, state, None)
}

/// The same, with evidence that is carried in.
fn importing(server: &Server, ca: &Ca, log: &Log, state: &Path, import: Option<ImportConfig>) -> Collector {
    following(server, ca, log, state, import, None)
}

/// The same, with what is believed in the event log at `/event`.
fn following(
    server: &Server,
    ca: &Ca,
    log: &Log,
    state: &Path,
    import: Option<ImportConfig>,
    event_log: Option<EventLog>,
) -> Collector {
    let mut root = TrustedRoot::new();
    root.certificate_authorities.push(Authority {
        subject: DistinguishedName::default(),
        uri: String::new(),
        cert_chain: CertificateChain::new([ca.certificate.der().to_vec()]),
        valid_for: Validity::since(UnixTime(0)),
        operator: String::new(),
    });
    root.tlogs.push(log.instance());
    let config = EvidenceConfig {
        crl_urls: vec![format!("{}/1.crl", server.url)],
        status_bases: vec![format!("{}/ocsp", server.url)],
        ocsp: super::OcspMode::Ask,
        ocsp_responder: None,
        events: Some(format!("{}/event", server.url)),
        event_log,
        logs: [(ORIGIN.to_owned(), format!("{}/log", server.url))].into(),
        import,
        root: None,
        state: state.to_owned(),
        timeout: Duration::from_secs(60),
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    Collector::new(Verifier::new(Arc::new(AwsLc), &root).unwrap(), http, &config).unwrap()
}

fn revokes(snapshot: &Snapshot) -> bool {
    snapshot
        .evidence
        .revocation()
        .crls
        .iter()
        .any(|crl| crl.entries().any(|(serial, _)| serial == [u8::try_from(SERIAL).unwrap()]))
}

fn problem(snapshot: &Snapshot, kind: &str) -> String {
    snapshot.sources.iter().find(|source| source.kind == kind).unwrap().problem.clone()
}

#[tokio::test]
async fn no_list_but_a_newer_authentic_one_of_the_same_shard_makes_a_revocation_forgotten() {
    let (server, ca, log) = (Server::start().await, Ca::new(), Log::new());
    let state = tempfile::tempdir().unwrap();
    let collector = collector(&server, &ca, &log, state.path());
    server.serve("/1.crl", ca.crl("1", 600, &[SERIAL]));
    assert!(revokes(&*collector.refresh_lists(&[]).await));

    let forged = Ca::new().crl("1", 0, &[]);
    for (list, why) in [
        (forged, "no authority of the trusted root signed the list"),
        (ca.crl("1", -3600, &[]), "the list was issued in the future"),
        (ca.crl("2", 0, &[]), "the list is about something else than before"),
        (b"<html>".to_vec(), "CRL"),
    ] {
        server.serve("/1.crl", list);
        let snapshot = collector.refresh_lists(&[]).await;
        assert!(revokes(&snapshot), "forgotten by: {why}");
        assert!(problem(&snapshot, "crl").contains(why), "{why}: {}", problem(&snapshot, "crl"));
    }

    // What was served in between keeps nobody from following the genuine lists.
    server.serve("/1.crl", ca.crl("1", 900, &[]));
    assert!(revokes(&*collector.refresh_lists(&[]).await), "an older list undid the newer one");
    server.serve("/1.crl", ca.crl("1", 10, &[]));
    let snapshot = collector.refresh_lists(&[]).await;
    assert!(!revokes(&snapshot));
    assert_eq!(problem(&snapshot, "crl"), "");
}

#[tokio::test]
async fn a_silent_log_delays_no_revocation() {
    let (server, ca, log) = (Server::start().await, Ca::new(), Log::new());
    let state = tempfile::tempdir().unwrap();
    let collector = Arc::new(collector(&server, &ca, &log, state.path()));
    server.set("/log/checkpoint", Answer::Silence);
    server.serve("/1.crl", ca.crl("1", 0, &[SERIAL]));
    let waiting = tokio::spawn({
        let collector = Arc::clone(&collector);
        async move { collector.refresh_logs(&[]).await }
    });
    server.silenced.notified().await;
    assert!(revokes(&*collector.refresh_lists(&[]).await));
    assert!(revokes(&collector.snapshot()));
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn an_old_checkpoint_is_a_failed_fetch_and_a_contradicting_one_is_a_fork() {
    let (server, ca, log) = (Server::start().await, Ca::new(), Log::new());
    let state = tempfile::tempdir().unwrap();
    let collector = collector(&server, &ca, &log, state.path());
    let mut tree = MemoryTree::new();
    tree.push(leaf_hash(b"one"));
    let old = tree.head();
    tree.push(leaf_hash(b"two"));
    let new = tree.head();

    let (old, new) = (log.checkpoint(old.size, old.root), log.checkpoint(new.size, new.root));
    for (note, problem_expected) in [(&new, false), (&old, true), (&new, false)] {
        server.serve("/log/checkpoint", note.clone());
        let snapshot = collector.refresh_logs(&[]).await;
        assert_eq!(snapshot.fork, None);
        assert_eq!(!problem(&snapshot, "checkpoint").is_empty(), problem_expected);
        let known = snapshot.evidence.log(ORIGIN).unwrap();
        assert_eq!(known.checkpoints, [String::from_utf8(new.clone()).unwrap()]);
    }
    server.serve("/log/checkpoint", log.checkpoint(2, Hash([9; 32])));
    assert!(collector.refresh_logs(&[]).await.fork.is_some());
}

#[tokio::test]
async fn what_was_carried_in_counts_beside_what_the_log_answers() {
    let (server, ca, log) = (Server::start().await, Ca::new(), Log::new());
    let state = tempfile::tempdir().unwrap();
    let mut tree = MemoryTree::new();
    let [old, new] = [b"one", b"two"].map(|entry| {
        tree.push(leaf_hash(entry));
        String::from_utf8(log.checkpoint(tree.head().size, tree.head().root)).unwrap()
    });
    let mut carried = Evidence::none();
    let of_log = carried.log_mut(ORIGIN);
    of_log.add_checkpoint(&old);
    of_log.add_consistency(3, 9, &ConsistencyProof { path: vec![Hash([1; 32])] });
    of_log.add_inclusion(9, &InclusionProof { leaf_index: 2, path: vec![Hash([2; 32])] });
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let now = UnixTime(clock::unix_seconds());
    let payload = signed::payload(&carried, now, now.plus(3600)).unwrap();
    let signature = key.sign(&signed::message(&payload)).unwrap();
    let file = state.path().join("evidence.json");
    std::fs::write(&file, signed::file(payload, signature).unwrap()).unwrap();
    let signers = vec![EvidenceSigner::from_spki_der(&key.subject_public_key_info()).unwrap()];
    let collector = importing(&server, &ca, &log, state.path(), Some(ImportConfig { file, signers }));

    // Nothing is served yet: the file is all there is.
    collector.refresh_lists(&[]).await;
    let silent = collector.refresh_logs(&[]).await;
    assert!(!problem(&silent, "checkpoint").is_empty() && problem(&silent, "import").is_empty());
    assert_eq!(silent.evidence.log(ORIGIN), carried.log(ORIGIN));
    server.serve("/log/checkpoint", new.clone());
    let both = collector.refresh_logs(&[]).await;
    assert_eq!(problem(&both, "checkpoint"), "");
    let known = both.evidence.log(ORIGIN).unwrap();
    assert_eq!(known.checkpoints, [old, new], "the log's own last, to be looked at first");
    let expected = carried.log(ORIGIN).unwrap();
    assert_eq!((&known.consistency, &known.inclusion), (&expected.consistency, &expected.inclusion));
}

#[tokio::test]
async fn the_event_log_rings_when_it_grows_and_only_then() {
    let (server, ca, log) = (Server::start().await, Ca::new(), Log::new());
    let state = tempfile::tempdir().unwrap();
    let collector = collector(&server, &ca, &log, state.path());
    let feed = collector.feed().unwrap();
    assert!(feed.look().await.is_err(), "nothing is served");
    for (size, changed) in [(3, false), (3, false), (4, true), (4, false), (2, true)] {
        server.serve("/event/checkpoint", format!("event.example\n{size}\nAAAA\n\n"));
        assert_eq!(feed.look().await, Ok(Look { size, changed }), "{size}");
    }
    for body in ["", "event.example", "event.example\nmany\n", "\u{0}"] {
        server.serve("/event/checkpoint", body);
        assert!(feed.look().await.is_err(), "{body:?}");
    }
    server.serve("/event/checkpoint", vec![b'x'; 100_000]);
    assert!(feed.look().await.unwrap_err().contains("larger"));
}
