//! The bans of `deny.toml`, checked over the normal graph without cargo-deny. `deny.toml` is read, so that the two
//! cannot differ.

use std::collections::BTreeSet;

use cargo_metadata::semver::{Version, VersionReq};

use crate::{metadata, root};

/// One ban: a name and, where only some versions are meant, which.
struct Ban {
    name: String,
    versions: Option<VersionReq>,
}

fn bans() -> Vec<Ban> {
    let deny: toml::Table =
        std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().expect("deny.toml is TOML");
    deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert!(entry["reason"].as_str().is_some_and(|r| !r.is_empty()), "a ban needs a reason: {entry}");
            let spec = entry["crate"].as_str().unwrap();
            match spec.split_once(':') {
                Some((name, versions)) => {
                    Ban { name: name.to_owned(), versions: Some(VersionReq::parse(versions).unwrap()) }
                }
                None => Ban { name: spec.to_owned(), versions: None },
            }
        })
        .collect()
}

/// Everything that the product is made of or built with (tests are not): name and version. Asked of `cargo tree`, which
/// resolves features exactly; `cargo metadata` also lists optional packages that nothing switches on.
fn product() -> BTreeSet<(String, Version)> {
    let output = std::process::Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--workspace", "--exclude", "mentat-tests", "-e", "normal,build", "--prefix", "none"])
        .args(["--no-dedupe", "--offline", "--locked"])
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), Version::parse(words.next()?.strip_prefix('v')?).ok()?))
        })
        .collect()
}

#[test]
fn no_banned_package_is_in_the_product() {
    let product = product();
    let mut found = Vec::new();
    for ban in bans() {
        for (name, version) in product.iter().filter(|(name, _)| *name == ban.name) {
            if ban.versions.as_ref().is_none_or(|versions| versions.matches(version)) {
                found.push(format!("{name} {version}"));
            }
        }
    }
    assert!(found.is_empty(), "banned packages are in the graph: {}", found.join(", "));
}

#[test]
fn every_package_comes_from_the_public_registry_or_this_tree() {
    for package in &metadata().packages {
        let Some(source) = &package.source else { continue };
        assert!(source.is_crates_io(), "{} {} comes from {source}", package.name, package.version);
    }
}

#[test]
fn a_ban_would_be_noticed() {
    let product = product();
    for known in ["rustls", "aws-lc-sys", "der"] {
        let present = product.iter().any(|(name, _)| name == known);
        assert!(present, "the walk of the graph misses {known}, so it would miss a banned package");
    }
    let old = bans().into_iter().find(|b| b.name == "rustls").and_then(|b| b.versions).unwrap();
    assert!(old.matches(&"0.23.44".parse().unwrap()) && !old.matches(&"0.23.45".parse().unwrap()));
}
