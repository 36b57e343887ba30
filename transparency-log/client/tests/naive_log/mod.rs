//! A log in memory behind a real socket: recomputes everything on each request, and misbehaves on demand.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tlog::static_ct::{DataTileRecord, Extensions, SignedEntry, TimestampedEntry};
use tlog::{
    Algorithm, BundleId, Checkpoint, Hash, InclusionProof, InvalidSignature, LeafHash, MemoryTree, NodeId,
    Note, NoteSignature, SignatureVerifier, TileId, TilePath, TreeHead, VerifierKey, bundle, leaf_hash,
};
use tlog_client::{LogClient, RetryPolicy};
use tokio::net::TcpListener;

pub(crate) const ORIGIN: &str = "raw.0a1b2c3d.mentat.internal";

/// Verifies Ed25519, which is all these logs sign with.
pub(crate) struct Ed25519;

impl SignatureVerifier for Ed25519 {
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        if algorithm != Algorithm::Ed25519 {
            return Err(InvalidSignature);
        }
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Err(InvalidSignature)
    }
}

pub(crate) fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

/// What a certificate log stores of the certificate number `index`.
pub(crate) fn record(index: u64) -> DataTileRecord {
    DataTileRecord {
        entry: TimestampedEntry {
            timestamp: 1_800_000_000_000 + index,
            entry: SignedEntry::X509(entry(index)),
            extensions: Extensions::leaf_index(index).unwrap(),
        },
        precertificate: None,
        chain: vec![Hash::digest(b"issuer")],
    }
}

/// What a log does that says `Content-Encoding: gzip`.
#[derive(Clone, Copy)]
pub(crate) enum Gzip {
    Compressed,
    Claimed,
}

/// The log and its misbehaviours.
#[derive(Default)]
pub(crate) struct NaiveLog {
    entries: Vec<Vec<u8>>,
    leaves: Vec<LeafHash>,
    certificates: bool,
    /// Size of the published checkpoint.
    pub(crate) published: u64,
    /// Serves full tiles and bundles only, where they exist.
    pub(crate) pruned_partials: bool,
    /// One bit of these paths' content is flipped at the given byte.
    pub(crate) damaged: BTreeMap<String, usize>,
    /// So many requests are answered with this status first.
    pub(crate) overload: Option<(u16, u32)>,
    /// Content is compressed and marked so; or not compressed and marked so all the same.
    pub(crate) gzip: Option<Gzip>,
    /// Answers the checkpoint with this instead.
    pub(crate) checkpoint: Option<Vec<u8>>,
    /// Paths asked for.
    pub(crate) requests: Vec<String>,
}

impl NaiveLog {
    pub(crate) fn with(entries: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut log = Self::default();
        entries.into_iter().for_each(|entry| log.push(entry));
        log
    }

    /// A certificate log of `size` entries.
    pub(crate) fn of_certificates(size: u64) -> Self {
        let mut log = Self { certificates: true, ..Self::default() };
        for index in 0..size {
            log.leaves.push(record(index).entry.leaf_hash().unwrap());
            log.entries.push(record(index).to_bytes().unwrap());
        }
        log.published = size;
        log
    }

    pub(crate) fn push(&mut self, entry: Vec<u8>) {
        self.leaves.push(leaf_hash(&entry));
        self.entries.push(entry);
        self.published = self.entries.len() as u64;
    }

    /// Flips a bit of what is served under a path.
    pub(crate) fn damage(&mut self, path: &str, at: usize) {
        self.damaged.insert(path.to_owned(), at);
    }

    pub(crate) fn tree(&self) -> MemoryTree {
        let mut tree = MemoryTree::new();
        tree.extend(self.leaves.iter().copied());
        tree
    }

    pub(crate) fn head(&self) -> TreeHead {
        self.tree().head_at(self.published).unwrap()
    }

    pub(crate) fn note(&self) -> Note {
        let pair = key_pair();
        let mut note = Note::new(&Checkpoint::new(ORIGIN, self.head()).unwrap().to_string()).unwrap();
        let signature = pair.sign(note.text().as_bytes()).as_ref().to_vec();
        note.push(NoteSignature::new(ORIGIN, key().id(), signature).unwrap());
        note
    }

    fn tile(&self, id: TileId) -> Option<Vec<u8>> {
        let full = TileId::in_tree(id.level(), id.index(), self.published)?;
        if id.width() > full.width() || (self.pruned_partials && !id.is_full() && full.is_full()) {
            return None;
        }
        let tree = self.tree();
        let first = id.index() * 256;
        let hashes = (first..first + u64::from(id.width()))
            .map(|index| tree.node(NodeId { level: id.level() * 8, index }));
        Some(hashes.collect::<Option<Vec<_>>>()?.iter().flat_map(|hash| hash.0).collect())
    }

    fn bundle(&self, id: BundleId) -> Option<Vec<u8>> {
        let full = BundleId::in_tree(id.index(), self.published)?;
        if id.width() > full.width() || (self.pruned_partials && !id.is_full() && full.is_full()) {
            return None;
        }
        let first = usize::try_from(id.first_entry()).ok()?;
        let entries = self.entries.get(first..first + usize::from(id.width()))?;
        let mut bytes = Vec::new();
        for entry in entries {
            if self.certificates {
                bytes.extend_from_slice(entry);
            } else {
                bundle::append_entry(&mut bytes, entry).unwrap();
            }
        }
        Some(bytes)
    }

    fn get(&self, path: &str, query: &str) -> Option<Vec<u8>> {
        let mut body = match path {
            "checkpoint" => self.checkpoint.clone().unwrap_or_else(|| self.note().to_bytes()),
            "api/v1/lookup" => json!({ "query": query }).to_string().into_bytes(),
            "api/v1/proof" => self.proof(query.strip_prefix("leaf=")?)?,
            _ => match TilePath::parse(path).ok()? {
                TilePath::Hashes(id) => self.tile(id)?,
                TilePath::Entries(id) if !self.certificates => self.bundle(id)?,
                TilePath::Data(id) if self.certificates => self.bundle(id)?,
                _ => return None,
            },
        };
        if let Some(byte) = self.damaged.get(path).and_then(|at| body.get_mut(*at)) {
            *byte ^= 1;
        }
        Some(body)
    }

    /// Writes what the log publishes into a folder.
    pub(crate) fn write_to(&self, folder: &Path) {
        let write = |path: &str| {
            let file = folder.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, self.get(path, "").unwrap()).unwrap();
        };
        write("checkpoint");
        for level in 0..8 {
            (0..)
                .map_while(|index| TileId::in_tree(level, index, self.published))
                .for_each(|id| write(&id.path()));
        }
        for id in (0..).map_while(|index| BundleId::in_tree(index, self.published)) {
            let path = if self.certificates { TilePath::Data(id) } else { TilePath::Entries(id) };
            write(&path.to_string());
        }
    }

    fn proof(&self, leaf: &str) -> Option<Vec<u8>> {
        let index = self.leaves.iter().position(|known| known.hash().to_string() == leaf)? as u64;
        let proof = InclusionProof::build(index, self.published, &self.tree()).ok()?;
        let hashes: Vec<String> = proof.path.iter().map(Hash::to_base64).collect();
        let body = json!({ "leaf_index": index, "hashes": hashes, "checkpoint": self.note().to_string() });
        Some(body.to_string().into_bytes())
    }

    fn post(&mut self, path: &str, body: &[u8]) -> (u16, Option<u64>, Vec<u8>) {
        let known = self.entries.iter().position(|entry| entry == body).map(|index| index as u64);
        let index = known.unwrap_or(self.entries.len() as u64);
        let answer = match path {
            "add" if body.len() > bundle::MAX_ENTRY_SIZE => return (413, None, b"too large\n".to_vec()),
            "add" => (200, None, format!("{index}\n").into_bytes()),
            "api/v2/log/entries" | "api/v1/entries" => match known {
                Some(index) => return (409, Some(index), Vec::new()),
                None if body == br#"{"worse":true}"# => {
                    return (
                        400,
                        None,
                        br#"{"code":"entry_refused","status":400,"detail":"no\nthanks"}"#.to_vec(),
                    );
                }
                None if body == br#"{"bad":true}"# => return (400, None, b"not a hashed\x07rekord".to_vec()),
                None => (201, None, json!({ "logIndex": index.to_string() }).to_string().into_bytes()),
            },
            "api/v1/batch" => return (200, None, self.batch(body)),
            "ct/v1/add-chain" | "ct/v1/add-pre-chain" => {
                let extensions = Extensions::leaf_index(index).unwrap();
                let sct = json!({
                    "sct_version": 0,
                    "id": Hash::digest(b"spki").to_base64(),
                    "timestamp": 1_800_000_000_000u64,
                    "extensions": STANDARD.encode(extensions.as_bytes()),
                    "signature": STANDARD.encode(b"\x04\x03\0\x02ab"),
                });
                (200, None, sct.to_string().into_bytes())
            }
            _ => return (404, None, Vec::new()),
        };
        if known.is_none() {
            self.push(body.to_vec());
        }
        answer
    }

    fn batch(&mut self, body: &[u8]) -> Vec<u8> {
        let batch: Value = serde_json::from_slice(body).unwrap();
        let results: Vec<Value> = batch["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|request| match self.post("api/v1/entries", request.to_string().as_bytes()) {
                (201, _, body) => json!({ "entry": serde_json::from_slice::<Value>(&body).unwrap() }),
                (409, Some(index), _) => {
                    json!({ "entry": { "logIndex": index.to_string() }, "duplicate": true })
                }
                (status, ..) => json!({ "problem": { "status": status, "code": "malformed" } }),
            })
            .collect();
        json!({ "results": results }).to_string().into_bytes()
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<Full<Bytes>> {
        self.requests.push(path.to_owned());
        if let Some((status, left)) = &mut self.overload
            && *left > 0
        {
            *left -= 1;
            let builder = Response::builder().status(*status).header("retry-after", "0");
            return builder.body(Full::default()).unwrap();
        }
        let (status, duplicate, body) = if *method == Method::POST {
            self.post(path, body)
        } else {
            match self.get(path, query) {
                Some(body) => (200, None, body),
                None => (404, None, b"not here".to_vec()),
            }
        };
        let mut builder = Response::builder().status(status);
        if let Some(index) = duplicate {
            builder = builder.header("x-log-index", index);
        }
        let body = match self.gzip {
            None => body,
            Some(gzip) => {
                builder = builder.header("content-encoding", "gzip");
                if matches!(gzip, Gzip::Compressed) { compress(&body) } else { body }
            }
        };
        builder.body(Full::new(body.into())).unwrap()
    }
}

fn compress(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn key_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[42; 32]).unwrap()
}

/// The key of every log here: forks are signed by the same one, as real forks would be.
pub(crate) fn key() -> VerifierKey {
    VerifierKey::ed25519(ORIGIN, &key_pair().public_key().as_ref().try_into().unwrap()).unwrap()
}

/// A running server, stopped when the test's runtime ends.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) log: Arc<Mutex<NaiveLog>>,
    pub(crate) client: LogClient,
}

impl Server {
    /// Serves the log below `/some/base` of a free port of the loopback interface.
    pub(crate) async fn start(log: NaiveLog) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(log));
        let served = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let served = served.clone();
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            let path = head.uri.path().strip_prefix("/some/base/").unwrap_or_default();
                            let query = head.uri.query().unwrap_or_default();
                            Ok::<_, hyper::Error>(served.lock().unwrap().answer(
                                &head.method,
                                path,
                                query,
                                &body,
                            ))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let client =
            LogClient::new(http, &format!("http://{address}/some/base/")).unwrap().with_retry(RetryPolicy {
                attempts: 3,
                wait: Duration::from_millis(1),
                max_wait: Duration::from_millis(5),
                timeout: Duration::from_secs(10),
            });
        Self { log, client }
    }

    /// Changes the log; the closure must not block.
    pub(crate) fn change(&self, change: impl FnOnce(&mut NaiveLog)) {
        change(&mut self.log.lock().unwrap());
    }

    pub(crate) fn head(&self) -> TreeHead {
        self.log.lock().unwrap().head()
    }
}
