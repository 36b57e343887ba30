//! Damage to each file, found while a log is closed, when it is opened, and by its readers while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fixture::{Fixture, add, add_all, entry, os};
use log_store::{Ack, Cosigner, Error, Log, LogKind, LogParts, Publication, Result, Witnessing, check_log};
use tlog::consistency::ConsistencyProof;
use tlog::hash::{TreeHead, leaf_hash};

/// A log of 700 entries, opened twice.
fn grown() -> (Fixture, Vec<(u64, Vec<u8>)>) {
    let fixture = Fixture::new(LogKind::Raw);
    let mut acknowledged = Vec::new();
    for range in [0..300, 300..700] {
        let log = fixture.open().unwrap();
        acknowledged.extend(add_all(&log, range));
        log.close();
    }
    (fixture, acknowledged)
}

#[test]
fn one_flipped_bit_in_any_file_is_refused_or_detected_with_the_files_name() {
    let (fixture, acknowledged) = grown();
    let mut files = Vec::new();
    walk(fixture.directory.path(), &mut files);
    assert!(files.len() >= 6, "{files:?}");
    let tiles = {
        let log = fixture.open().unwrap();
        let publication = log.publication().unwrap();
        let tiles = TILES.map(|(level, index, width)| log.tile(level, index, width, &publication).unwrap());
        log.close();
        tiles
    };
    for path in files {
        let good = std::fs::read(&path).unwrap();
        // What was written, not what is only reserved.
        let used = good.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in (0..used).step_by((used / 40).max(1)).chain([used.saturating_sub(1)]) {
            if used == 0 {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bad).unwrap();
            let checked = check_log(&fixture.options, &os(), |_, _| {});
            let what = format!("{} byte {at}", path.display());
            match &checked {
                Err(Error::Damaged { file, .. }) => assert!(named(file, &path), "{what}: {file:?}"),
                Err(Error::Refused(refused)) => {
                    assert!(
                        refused.to_string().contains(&*path.parent().unwrap().to_string_lossy()),
                        "{what}: {refused}"
                    );
                }
                Err(other) => panic!("{what}: {other}"),
                // A slot that another slot makes up for: nothing may be lost.
                Ok(_) => {
                    let folder = path.parent().and_then(Path::file_name).unwrap().to_str().unwrap();
                    assert!(!["entries", "tiles", "dedup"].contains(&folder), "{what}: passed the check");
                }
            }
            match fixture.open() {
                Ok(log) => {
                    let publication = log.publication().unwrap();
                    assert_eq!(publication.tree().size, 700, "{what}");
                    for (index, bytes) in acknowledged.iter().step_by(13) {
                        match log.entry(*index, &publication) {
                            Ok(stored) => assert_eq!(&stored, bytes, "{what}"),
                            Err(Error::Damaged { file, .. }) => {
                                assert!(named(&file, &path), "{what}: {file:?}")
                            }
                            Err(other) => panic!("{what}: {other}"),
                        }
                    }
                    read_all(&log, &publication, &tiles, &path, &what);
                    log.close();
                }
                Err(Error::Refused(refused)) => {
                    let text = refused.to_string();
                    assert!(text.contains(&*path.parent().unwrap().to_string_lossy()), "{what}: {text}");
                }
                Err(Error::Damaged { file, .. }) => assert!(named(&file, &path), "{what}: {file:?}"),
                Err(other) => panic!("{what}: {other}"),
            }
            std::fs::write(&path, &good).unwrap();
        }
    }
    fixture.open().unwrap().close();
    fixture.check(&acknowledged);
}

/// Witnesses that are there or not.
#[derive(Debug)]
struct Witnesses(AtomicBool);

const LINE: &[u8] = "— witness\n".as_bytes();

impl Cosigner for Witnesses {
    fn cosignatures<'a>(&self, note: &'a [u8]) -> Option<&'a [u8]> {
        note.ends_with(LINE).then(|| &note[note.len() - LINE.len()..])
    }

    fn cosign(
        &self,
        note: &[u8],
        _: &TreeHead,
        _: &dyn Fn(u64) -> Result<ConsistencyProof>,
    ) -> Result<Vec<u8>> {
        if self.0.load(Ordering::SeqCst) {
            Ok([note, LINE].concat())
        } else {
            Err(Error::WitnessQuorum("0 of 1".to_owned()))
        }
    }
}

#[test]
fn a_flipped_bit_in_the_cosigned_checkpoint_leaves_it_or_the_one_before() {
    let mut fixture = Fixture::new(LogKind::Raw);
    let pause = std::time::Duration::from_secs(3600);
    fixture.options.witnessing = Witnessing::OnRequest { pause, refresh: None };
    let witnesses = Arc::new(Witnesses(AtomicBool::new(true)));
    let open = || {
        let signer = Arc::new(fixture::PlainSigner(fixture.options.origin.clone()));
        let cosigner = Some(witnesses.clone() as _);
        Log::open(&fixture.options, LogParts { disk: os(), clock: fixture.clock.clone(), signer, cosigner })
    };
    let mut cosigned = Vec::new();
    for i in 0..2 {
        let log = open().unwrap();
        cosigned.push(add(&log, &entry(i), Ack::Witnessed).unwrap().publication.unwrap().note().clone());
        log.close();
    }
    // What is shown then is what the file has.
    witnesses.0.store(false, Ordering::SeqCst);
    let path = fixture.options.cosigned_file();
    let good = std::fs::read(&path).unwrap();
    let (mut newest, mut before) = (0, 0);
    for at in (0..good.len()).filter(|at| good[*at] != 0) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, bad).unwrap();
        check_log(&fixture.options, &os(), |_, _| {}).unwrap();
        let log = open().unwrap();
        match log.witnessed().map(|shown| shown.note().clone()) {
            Some(note) if note == cosigned[1] => newest += 1,
            Some(note) if note == cosigned[0] => before += 1,
            other => panic!("byte {at}: {other:?}"),
        }
        log.close();
    }
    assert!(newest > 0 && before > 0, "{newest} {before}");
}

#[test]
fn a_tile_that_is_damaged_while_the_log_runs_is_not_handed_out() {
    let (fixture, _) = grown();
    let log = fixture.open().unwrap();
    let publication = log.publication().unwrap();
    let tile = || log.tile(0, 0, 256, &publication);
    let good = tile().unwrap();
    // Found in the tree the first time, read from the file the second time.
    assert_eq!(tile().unwrap(), good);
    let path = fixture.path("tiles/0.tiles");
    let bytes = std::fs::read(&path).unwrap();
    for (what, damage) in [
        ("a flipped bit", {
            let mut bad = bytes.clone();
            bad[5000] ^= 8;
            bad
        }),
        ("a cut file", bytes[..8000].to_vec()),
        ("another tile", {
            let mut bad = bytes.clone();
            bad.copy_within(8192..16384, 0);
            bad
        }),
    ] {
        std::fs::write(&path, damage).unwrap();
        let refused = tile();
        assert!(matches!(&refused, Err(Error::Damaged { file, .. }) if *file == path), "{what}: {refused:?}");
    }
    assert_eq!(log.metrics().damaged_reads, 3);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(tile().unwrap(), good);
    log.close();
}

/// All tiles of a log of 700 entries: level, index, width.
const TILES: [(u8, u64, u16); 4] = [(0, 0, 256), (0, 1, 256), (0, 2, 188), (1, 0, 2)];

/// Tiles, proofs and lookups are right, or the damaged file is named.
fn read_all(log: &Log, publication: &Publication, tiles: &[Bytes; 4], path: &Path, what: &str) {
    let damaged = |error: Error| match error {
        Error::Damaged { file, .. } => assert!(named(&file, path), "{what}: {file:?}"),
        other => panic!("{what}: {other}"),
    };
    for ((level, index, width), good) in TILES.iter().zip(tiles) {
        // The second read takes another way than the first.
        for _ in 0..2 {
            match log.tile(*level, *index, *width, publication) {
                Ok(bytes) => assert_eq!(bytes, *good, "{what}: tile {level}/{index}"),
                Err(error) => damaged(error),
            }
        }
    }
    for index in [0, 255, 256, 300, 511, 512, 699] {
        let leaf = leaf_hash(&entry(index));
        match log.inclusion_proof(index, publication) {
            Ok(proof) => drop(proof.verify(&leaf, &publication.tree()).unwrap()),
            Err(error) => damaged(error),
        }
        match log.index_of(&leaf, publication) {
            Ok(found) => assert_eq!(found, index, "{what}"),
            Err(error) => damaged(error),
        }
    }
    for old in [1, 256, 300, 699] {
        match log.consistency_proof(old, publication) {
            Ok(proof) => {
                let root = log.root_at(old, publication).unwrap();
                proof.verify(&TreeHead { size: old, root }, &publication.tree()).unwrap();
            }
            Err(error) => damaged(error),
        }
    }
}

fn named(file: &Path, path: &Path) -> bool {
    file == path || path.starts_with(file)
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), files)
        } else {
            files.push(entry.path())
        }
    }
}
