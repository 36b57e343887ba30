//! Every suite runs. Where a manifest names its programs of tests one by one, a file that none of them has as a module is not compiled,
//! and nothing else says so.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::{members, root, rust_sources, text};

/// Where a file looks for its modules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Beside itself: the first file of a program, `mod.rs`, and what is named by its path.
    Beside,
    /// In a folder of its own name.
    Below,
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// The name in `mod name;`, whoever may see it.
fn declared(line: &str) -> Option<&str> {
    let line = if line.starts_with("pub") { line.split_once("mod ")?.1 } else { line.strip_prefix("mod ")? };
    line.strip_suffix(';').filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// The modules that a text declares with `;`, with the path that stands before some.
fn modules(text: &str) -> Vec<(String, Option<String>)> {
    let (mut found, mut path) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.strip_suffix("\"]").map(str::to_owned);
        } else if let Some(name) = declared(line) {
            found.push((name.to_owned(), path.take()));
        } else if !line.starts_with("#[") {
            path = None;
        }
    }
    found
}

/// Collects a file and its modules, all of them relative to the root.
fn reach(file: &Path, place: Place, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(file.to_path_buf()) {
        return;
    }
    let folder = file.parent().unwrap();
    let below = if place == Place::Below { file.with_extension("") } else { folder.to_path_buf() };
    for (name, path) in modules(&text(file)) {
        let candidates = match path {
            Some(path) => vec![(plain(&folder.join(path)), Place::Beside)],
            None => vec![
                (below.join(format!("{name}.rs")), Place::Below),
                (below.join(name).join("mod.rs"), Place::Beside),
            ],
        };
        // Of a text that only looks like a module there is no file.
        if let Some((found, place)) = candidates.into_iter().find(|(path, _)| root().join(path).is_file()) {
            reach(&found, place, reached);
        }
    }
}

#[test]
fn every_file_of_tests_is_in_a_program_of_tests() {
    let sources = rust_sources();
    let (mut forgotten, mut checked) = (Vec::new(), 0);
    for package in members() {
        let home = package.manifest_path.as_std_path().parent().unwrap().strip_prefix(root()).unwrap();
        let (mut reached, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for target in package.targets.iter().filter(|target| target.is_test()) {
            let first = target.src_path.as_std_path().strip_prefix(root()).unwrap();
            reach(first, Place::Beside, &mut reached);
            folders.insert(first.parent().unwrap().to_path_buf());
        }
        // Where a package has suites at all, those of its folder are meant, also if no program begins there.
        folders.insert(home.join("tests"));
        // What lies beside the manifest belongs to other targets too.
        folders.remove(home);
        for file in &sources {
            let folder = folders.iter().find(|folder| file.starts_with(folder));
            let Some(folder) = folder else { continue };
            // A package inside is nobody's suite.
            let mut inside = file.ancestors().skip(1).take_while(|above| *above != folder.as_path());
            if inside.any(|above| root().join(above).join("Cargo.toml").is_file()) {
                continue;
            }
            checked += 1;
            if !reached.contains(file) {
                forgotten.push(file.display().to_string());
            }
        }
    }
    assert!(checked > 100, "the walk found only {checked} files of tests");
    assert!(forgotten.is_empty(), "in no program of tests, so never run: {}", forgotten.join(", "));
}

#[test]
fn modules_are_found_with_their_paths() {
    let text = "mod one;\n#[path = \"../two/three.rs\"]\nmod two;\npub(crate) mod four;\nmod inline {\n// mod five;\n#[cfg(test)]\nmod six;\n";
    let found: Vec<_> = modules(text).into_iter().map(|(name, path)| (name, path.is_some())).collect();
    let expected = [("one", false), ("two", true), ("four", false), ("six", false)];
    assert_eq!(found, expected.map(|(name, path)| (name.to_owned(), path)));
    assert_eq!(plain(Path::new("a/b/../../c/d.rs")), Path::new("c/d.rs"));
}
