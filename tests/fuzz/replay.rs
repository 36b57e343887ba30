//! Replays the seeds of fuzz targets: what must hold for any bytes holds for these, and seeds whose name begins with `good` are
//! accepted, those with `bad` refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Whether a target accepts bytes; it panics where what must hold for any does not.
pub(crate) type Property = fn(&[u8]) -> bool;

/// Targets and their seeds.
pub(crate) struct Seeds<'t> {
    /// The folder `tests/fuzz`.
    pub(crate) fuzz: PathBuf,
    /// Names and properties.
    pub(crate) targets: &'t [(&'t str, Property)],
}

impl Seeds<'_> {
    /// Where a target's seeds lie.
    pub(crate) fn folder(&self, target: &str) -> PathBuf {
        self.fuzz.join("seeds").join(target)
    }

    /// Each seed is accepted or refused as its name says, and each target has both kinds.
    pub(crate) fn are_as_they_say(&self) {
        for (target, property) in self.targets {
            let folder = self.folder(target);
            let seeds = names(&folder);
            assert!(seeds.iter().any(|seed| seed.starts_with("good")), "{target} has a good seed");
            assert!(seeds.iter().any(|seed| seed.starts_with("bad")), "{target} has a bad seed");
            for seed in seeds {
                let accepted = property(&fs::read(folder.join(&seed)).unwrap());
                assert_eq!(accepted, seed.starts_with("good"), "{target}/{seed}");
            }
        }
    }

    /// Cuts each seed, as `decode` reads it, at `places` at most, and alters it there in every way that `alter` names.
    pub(crate) fn cut_and_altered_never_panic(
        &self,
        decode: fn(&[u8]) -> Vec<u8>,
        places: usize,
        alter: fn(&[u8], usize) -> Vec<Vec<u8>>,
    ) {
        for (target, property) in self.targets {
            let folder = self.folder(target);
            for seed in names(&folder) {
                let bytes = decode(&fs::read(folder.join(&seed)).unwrap());
                let step = bytes.len().div_ceil(places).max(1);
                for at in (0..bytes.len()).step_by(step) {
                    property(&bytes[..at]);
                    alter(&bytes, at).iter().for_each(|altered| {
                        property(altered);
                    });
                }
            }
        }
    }

    /// Every property has a target, and every target whose name begins with `prefix` a property.
    pub(crate) fn every_target_is_declared(&self, prefix: &str) {
        let manifest = fs::read_to_string(self.fuzz.join("Cargo.toml")).unwrap();
        let files = names(&self.fuzz.join("fuzz_targets"));
        for (target, _) in self.targets {
            assert!(files.contains(&format!("{target}.rs")), "{target}");
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
        let ours = files.iter().filter(|file| file.starts_with(prefix)).count();
        assert_eq!(ours, self.targets.len());
    }
}

/// One bit turned, another octet in its place, and one more before it.
pub(crate) fn turned_replaced_and_grown(bytes: &[u8], at: usize, replacement: u8) -> Vec<Vec<u8>> {
    let (mut turned, mut replaced, mut grown) = (bytes.to_vec(), bytes.to_vec(), bytes.to_vec());
    turned[at] ^= 1;
    replaced[at] = replacement;
    grown.insert(at, b'0');
    vec![turned, replaced, grown]
}

fn names(folder: &Path) -> BTreeSet<String> {
    let items = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
}
