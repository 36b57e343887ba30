//! Replays the seeds of the fuzz targets: what must hold for any bytes holds for these, and seeds whose name begins with
//! `good` are accepted, those with `bad` refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../../tests/fuzz/properties/capability_rules.rs"]
mod properties;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let items = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn seeds_are_accepted_or_refused_as_they_say() {
    for (target, property) in properties::TARGETS {
        let folder = fuzz().join("seeds").join(target);
        let seeds = names(&folder);
        assert!(seeds.iter().any(|seed| seed.starts_with("good")), "{target} has a good seed");
        assert!(seeds.iter().any(|seed| seed.starts_with("bad")), "{target} has a bad seed");
        for seed in seeds {
            let accepted = property(&fs::read(folder.join(&seed)).unwrap());
            assert_eq!(accepted, seed.starts_with("good"), "{target}/{seed}");
        }
    }
}

#[test]
fn cut_and_altered_seeds_never_panic() {
    for (target, property) in properties::TARGETS {
        let folder = fuzz().join("seeds").join(target);
        for seed in names(&folder) {
            let bytes = fs::read(folder.join(&seed)).unwrap();
            let step = bytes.len().div_ceil(60).max(1);
            for at in (0..bytes.len()).step_by(step) {
                property(&bytes[..at]);
                let mut altered = bytes.clone();
                altered[at] ^= 1;
                property(&altered);
                altered[at] = b'\n';
                property(&altered);
                altered.insert(at, b'0');
                property(&altered);
            }
        }
    }
}

#[test]
fn every_target_is_declared() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let files = names(&fuzz().join("fuzz_targets"));
    for (target, _) in properties::TARGETS {
        assert!(files.contains(&format!("{target}.rs")), "{target}");
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
    }
    let ours = files.iter().filter(|file| file.starts_with("capability_rules")).count();
    assert_eq!(ours, properties::TARGETS.len());
}
