//! A copy of a log in a folder is read as the log is, and believed as little.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod naive_log;

use naive_log::{Ed25519, NaiveLog, ORIGIN, entry, key, record};
use serde_json::json;
use tlog_client::{BundleId, EntryFormat, LogClient};

#[tokio::test]
async fn a_copy_has_the_entries_and_proofs_of_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = NaiveLog::with((0..700).map(entry));
    log.write_to(folder.path());
    let copy = LogClient::over_folder(folder.path());
    let checkpoint = copy.checkpoint(ORIGIN, &[key()], &Ed25519).await.unwrap();
    assert_eq!(*checkpoint.head(), log.head());
    let tree = copy.tree(*checkpoint.head());
    for index in [0, 255, 256, 699] {
        assert_eq!(tree.entry(index, EntryFormat::Bundles).await.unwrap().bytes, entry(index));
        let (_, included) = tree.inclusion_proof(index).await.unwrap();
        assert_eq!(*included.leaf(), tlog::leaf_hash(&entry(index)));
    }
    // What is not there was never promised.
    std::fs::remove_file(folder.path().join("tile/entries/001")).unwrap();
    let gone = tree.entry(300, EntryFormat::Bundles).await.unwrap_err();
    assert_eq!(gone.code(), "status");
}

#[tokio::test]
async fn a_copy_of_a_certificate_log_that_was_altered_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = NaiveLog::of_certificates(300);
    log.write_to(folder.path());
    let copy = LogClient::over_folder(folder.path());
    let tree = copy.tree(log.head());
    let read = async || tree.entries(BundleId::in_tree(0, 300).unwrap(), EntryFormat::DataTiles).await;
    assert_eq!(read().await.unwrap()[7].bytes, record(7).to_bytes().unwrap());
    let file = folder.path().join("tile/data/000");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[15] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(read().await.unwrap_err().code(), "tile_mismatch");
}

#[tokio::test]
async fn a_copy_takes_nothing_and_its_files_have_limits() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path();
    let copy = LogClient::over_folder(log);
    assert_eq!(copy.submit(&json!({})).await.unwrap_err().code(), "status");
    assert_eq!(copy.add("x").await.unwrap_err().code(), "status");
    std::fs::write(log.join("checkpoint"), vec![b'x'; 8 << 20]).unwrap();
    assert_eq!(copy.checkpoint_note().await.unwrap_err().code(), "too_large");
    std::fs::remove_file(log.join("checkpoint")).unwrap();
    std::fs::create_dir(log.join("checkpoint")).unwrap();
    assert_eq!(copy.checkpoint_note().await.unwrap_err().code(), "unreadable_copy");
}
