//! Reading and writing a log over HTTP, with honest and with broken servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod naive_log;

use naive_log::{Ed25519, Gzip, NaiveLog, ORIGIN, Server, entry, key, record};
use serde_json::json;
use tlog::static_ct::DataTileRecord;
use tlog::{BundleId, InclusionProof, MemoryTree, TileId, TreeHead, leaf_hash};
use tlog_client::{BatchResult, EntryFormat, Error, LogClient, Submission};

fn log(size: u64) -> NaiveLog {
    NaiveLog::with((0..size).map(entry))
}

#[tokio::test]
async fn checkpoint_proofs_and_entries_of_an_honest_log() {
    let server = Server::start(log(700)).await;
    let checkpoint = server.client.checkpoint(ORIGIN, &[key()], &Ed25519).await.unwrap();
    assert_eq!(*checkpoint.head(), server.head());
    let tree = server.client.tree(*checkpoint.head());
    for index in [0, 1, 255, 256, 511, 512, 699] {
        let (proof, verified) = tree.inclusion_proof(index).await.unwrap();
        assert_eq!(*verified.leaf(), leaf_hash(&entry(index)));
        assert!(proof.verify(&leaf_hash(&entry(index)), checkpoint.head()).is_ok());
        let found = tree.entry(index, EntryFormat::Bundles).await.unwrap();
        assert_eq!((found.index, found.bytes), (index, entry(index)));
    }
    for old in [0, 1, 256, 300, 700] {
        let old = tree.head_at(old).await.unwrap();
        let proof = tree.consistency_proof(&old).await.unwrap();
        assert_eq!(proof.verify(&old, checkpoint.head()), Ok(()));
    }
    assert_eq!(tree.inclusion_proof(700).await.unwrap_err().code(), "index_out_of_range");
    assert_eq!(tree.entry(700, EntryFormat::Bundles).await.unwrap_err().code(), "index_out_of_range");
    assert_eq!(tree.head_at(701).await.unwrap_err().code(), "consistency_sizes");
}

#[tokio::test]
async fn full_tiles_are_fetched_once() {
    let server = Server::start(log(600)).await;
    let tree = server.client.tree(server.head());
    for index in [3, 200] {
        let _ = tree.inclusion_proof(index).await.unwrap();
    }
    let requests = server.log.lock().unwrap().requests.clone();
    assert_eq!(requests.iter().filter(|path| *path == "tile/0/000").count(), 1, "{requests:?}");
}

#[tokio::test]
async fn partial_tiles_and_bundles_that_are_gone_are_cut_from_full_ones() {
    let mut grown = log(600);
    let old = grown.tree().head_at(300).unwrap();
    grown.pruned_partials = true;
    let server = Server::start(grown).await;
    let tree = server.client.tree(old);
    let (_, verified) = tree.inclusion_proof(299).await.unwrap();
    assert_eq!(*verified.leaf(), leaf_hash(&entry(299)));
    let entries = tree.entries(BundleId::in_tree(1, 300).unwrap(), EntryFormat::Bundles).await.unwrap();
    assert_eq!((entries.len(), &entries[43].bytes), (44, &entry(299)));
    let requests = server.log.lock().unwrap().requests.clone();
    for path in ["tile/0/001.p/44", "tile/0/001", "tile/entries/001.p/44", "tile/entries/001"] {
        assert!(requests.iter().any(|request| request == path), "{path} in {requests:?}");
    }
    let missing = server.client.tile(TileId::new(0, 9, 7).unwrap()).await.unwrap_err();
    assert!(matches!(missing, Error::Status { status: 404, .. }), "{missing}");
}

#[tokio::test]
async fn a_wrong_tile_or_entry_is_refused_and_not_remembered() {
    for (path, code) in [
        ("tile/0/000", "tile_mismatch"),
        ("tile/1/000.p/2", "root_mismatch"),
        ("tile/0/002.p/188", "root_mismatch"),
    ] {
        let server = Server::start(log(700)).await;
        server.change(|log| log.damage(path, 40));
        let tree = server.client.tree(server.head());
        assert_eq!(tree.inclusion_proof(5).await.unwrap_err().code(), code, "{path}");
        server.change(|log| log.damaged.clear());
        let _ = tree.inclusion_proof(5).await.unwrap();
    }
    let server = Server::start(log(700)).await;
    let tree = server.client.tree(server.head());
    let bundle = BundleId::in_tree(0, 700).unwrap();
    // A bit of an entry, then of a length: the bundle no longer holds its entries.
    for (at, code) in [(5, "tile_mismatch"), (0, "malformed")] {
        server.change(|log| log.damage("tile/entries/000", at));
        let refused = tree.entries(bundle, EntryFormat::Bundles).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
}

#[tokio::test]
async fn data_tiles_of_a_certificate_log() {
    let server = Server::start(NaiveLog::of_certificates(260)).await;
    let tree = server.client.tree(server.head());
    for index in [0, 255, 259] {
        let found = tree.entry(index, EntryFormat::DataTiles).await.unwrap();
        assert_eq!(DataTileRecord::parse(&found.bytes), Ok(record(index)));
        assert_eq!(found.leaf, record(index).entry.leaf_hash().unwrap());
    }
    server.change(|log| log.damage("tile/data/001.p/4", 20));
    let refused = tree.entry(259, EntryFormat::DataTiles).await.unwrap_err();
    assert_eq!(refused.code(), "tile_mismatch");
}

#[tokio::test]
async fn compressed_answers_are_read_up_to_their_limit() {
    let server = Server::start(log(300)).await;
    server.change(|log| log.gzip = Some(Gzip::Compressed));
    let tree = server.client.tree(server.head());
    assert_eq!(tree.entry(299, EntryFormat::Bundles).await.unwrap().bytes, entry(299));
    // A kilobyte that stands for a megabyte.
    server.change(|log| log.checkpoint = Some(vec![b'a'; 1 << 20]));
    assert_eq!(server.client.checkpoint_note().await.unwrap_err().code(), "too_large");
    server.change(|log| {
        log.checkpoint = None;
        log.gzip = Some(Gzip::Claimed);
    });
    assert_eq!(server.client.checkpoint_note().await.unwrap_err().code(), "bad_answer");
}

#[tokio::test]
async fn checkpoints_of_strangers_are_refused() {
    let server = Server::start(log(3)).await;
    let other = tlog::VerifierKey::ed25519(ORIGIN, &[1; 32]).unwrap();
    let code = |result: Result<_, Error>| result.map(|_: tlog::VerifiedCheckpoint| ()).unwrap_err().code();
    assert_eq!(code(server.client.checkpoint(ORIGIN, &[other], &Ed25519).await), "no_trusted_signature");
    assert_eq!(code(server.client.checkpoint("other", &[key()], &Ed25519).await), "origin_mismatch");
    let altered = server.log.lock().unwrap().note().to_string().replacen("\n3\n", "\n4\n", 1);
    server.change(|log| log.checkpoint = Some(altered.into_bytes()));
    assert_eq!(code(server.client.checkpoint(ORIGIN, &[key()], &Ed25519).await), "signature_invalid");
    server.change(|log| log.checkpoint = Some(vec![b'a'; 300_000]));
    assert_eq!(code(server.client.checkpoint(ORIGIN, &[key()], &Ed25519).await), "too_large");
}

#[tokio::test]
async fn proofs_of_the_server_are_verified() {
    let server = Server::start(log(30)).await;
    let leaf = leaf_hash(&entry(17));
    let proven = server.client.prove_leaf(&leaf, ORIGIN, &[key()], &Ed25519).await.unwrap().unwrap();
    assert_eq!((proven.inclusion.leaf_index(), *proven.checkpoint.head()), (17, server.head()));
    let unknown = server.client.prove_leaf(&leaf_hash(b"?"), ORIGIN, &[key()], &Ed25519).await.unwrap();
    assert!(unknown.is_none());
    // A server that answers with the proof of another leaf, or with a proof of another tree.
    server.change(|log| log.damage("api/v1/proof", 40));
    assert!(server.client.prove_leaf(&leaf, ORIGIN, &[key()], &Ed25519).await.is_err());
}

#[tokio::test]
async fn lookups_are_encoded() {
    let server = Server::start(log(1)).await;
    let found = server.client.lookup("identity", "a b&c@d/\u{e9}").await.unwrap();
    assert_eq!(found, json!({ "query": "identity=a%20b%26c%40d%2F%C3%A9" }));
    assert_eq!(server.client.log_entry(0).await.unwrap_err().code(), "status");
}

#[tokio::test]
async fn overload_is_waited_for_and_nothing_else() {
    let server = Server::start(log(3)).await;
    for status in [429, 502, 503, 504] {
        server.change(|log| log.overload = Some((status, 2)));
        assert!(server.client.checkpoint_note().await.is_ok(), "{status}");
        server.change(|log| log.overload = Some((status, 3)));
        let refused = server.client.checkpoint_note().await.unwrap_err();
        assert!(
            matches!(refused, Error::Overloaded { status: last, attempts: 3 } if last == status),
            "{refused}"
        );
    }
    server.change(|log| {
        log.overload = Some((500, 1));
        log.requests.clear();
    });
    let refused = server.client.checkpoint_note().await.unwrap_err();
    assert!(matches!(refused, Error::Status { status: 500, .. }), "{refused}");
    assert_eq!(server.log.lock().unwrap().requests.len(), 1);
}

#[tokio::test]
async fn entries_are_submitted() {
    let server = Server::start(log(0)).await;
    let client = &server.client;
    server.change(|log| log.overload = Some((503, 1)));
    assert_eq!(client.add(&b"first"[..]).await.unwrap(), 0);
    assert_eq!(client.add(&b"second"[..]).await.unwrap(), 1);
    assert_eq!(client.add(&b"first"[..]).await.unwrap(), 0);
    let refused = client.add(vec![0; 65_536]).await.unwrap_err();
    assert!(matches!(refused, Error::Status { status: 413, .. }), "{refused}");

    let request = json!({ "hashedRekordRequestV002": {} });
    assert_eq!(client.submit(&request).await.unwrap(), Submission::Accepted(json!({ "logIndex": "2" })));
    assert_eq!(client.submit(&request).await.unwrap(), Submission::Duplicate { index: 2 });
    let event = json!({ "payloadType": "application/vnd.in-toto+json" });
    assert_eq!(client.submit_event(&event).await.unwrap(), Submission::Accepted(json!({ "logIndex": "3" })));
    match client.submit(&json!({ "bad": true })).await.unwrap_err() {
        Error::Status { status: 400, detail } => assert_eq!(detail, "not a hashedrekord"),
        other => panic!("{other}"),
    }
    match client.submit_event(&json!({ "worse": true })).await.unwrap_err() {
        Error::Status { status: 400, detail } => assert_eq!(detail, "entry_refused: nothanks"),
        other => panic!("{other}"),
    }

    let sct = client.add_chain(&[b"leaf", b"issuer"]).await.unwrap();
    assert_eq!((sct.extensions.index(), sct.timestamp), (Some(4), 1_800_000_000_000));
    assert_eq!(sct.signature.signature, b"ab");
    assert_eq!(client.add_pre_chain(&[b"pre"]).await.unwrap().extensions.index(), Some(5));

    let mut expected = MemoryTree::new();
    let sent = [b"first".to_vec(), b"second".to_vec(), request.to_string().into_bytes()];
    expected.extend(sent.iter().map(|entry| leaf_hash(entry)));
    let head = client.checkpoint(ORIGIN, &[key()], &Ed25519).await.unwrap();
    let beginning = client.tree(*head.head()).head_at(3).await.unwrap();
    assert_eq!(beginning, expected.head());
}

#[tokio::test]
async fn each_entry_of_a_batch_has_its_result() {
    let server = Server::start(log(0)).await;
    let requests = [json!({ "a": 1 }), json!({ "bad": true }), json!({ "a": 1 }), json!({ "b": 2 })];
    let results = server.client.submit_batch(&requests).await.unwrap();
    let problem = json!({ "status": 400, "code": "malformed" });
    assert_eq!(
        results,
        [
            BatchResult::Accepted(json!({ "logIndex": "0" })),
            BatchResult::Refused { status: 400, problem },
            BatchResult::Duplicate(json!({ "logIndex": "0" })),
            BatchResult::Accepted(json!({ "logIndex": "1" })),
        ]
    );
}

#[tokio::test]
async fn a_head_nobody_signed_fits_no_tile() {
    let server = Server::start(log(300)).await;
    let head = TreeHead { size: 300, ..TreeHead::EMPTY };
    let refused = server.client.tree(head).inclusion_proof(1).await.unwrap_err();
    assert_eq!(refused.code(), "root_mismatch");
    let proof = InclusionProof { leaf_index: 1, path: vec![] };
    assert_eq!(proof.verify(&leaf_hash(b""), &head).unwrap_err().code(), "proof_length");
}

#[tokio::test]
async fn unreachable_logs_and_unusable_urls() {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for url in
        ["", "log.example", "ftp://log.example", "http://log.example/?q", "http://log.example/#f", "data:,x"]
    {
        assert_eq!(LogClient::new(http.clone(), url).unwrap_err().code(), "bad_base_url", "{url}");
    }
    let client = LogClient::new(http.clone(), "https://log.example/a/b//").unwrap();
    assert_eq!(client.base_url(), "https://log.example/a/b");
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let retry =
        tlog_client::RetryPolicy { attempts: 2, wait: std::time::Duration::ZERO, ..Default::default() };
    let client = LogClient::new(http, &format!("http://127.0.0.1:{port}")).unwrap().with_retry(retry);
    assert_eq!(client.checkpoint_note().await.unwrap_err().code(), "unreachable");
    assert_eq!(client.add(&b"x"[..]).await.unwrap_err().code(), "unreachable");
}
