//! Every member takes versions, edition and lints from the root, and the root is a table of contents only.

use std::path::Path;

use crate::{members, root, text};

fn manifest(path: &Path) -> toml::Table {
    std::fs::read_to_string(path).unwrap().parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_member_inherits_version_edition_licence_and_lints() {
    let root_lints = manifest(&root().join("Cargo.toml"))["workspace"]["lints"].clone();
    for package in members() {
        let path = package.manifest_path.clone().into_std_path_buf();
        let table = manifest(&path);
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            let inherited =
                table["package"].get(key).and_then(|v| v.get("workspace")).and_then(toml::Value::as_bool);
            assert_eq!(inherited, Some(true), "{}: {key}.workspace = true is missing", package.name);
        }
        let lints = table.get("lints").unwrap_or_else(|| panic!("{}: no [lints]", package.name));
        if lints.get("workspace").and_then(toml::Value::as_bool) == Some(true) {
            continue;
        }
        // The one exception: the executor maps authenticated machine code in one named module, so it may lower
        // `unsafe_code` from forbid to deny; every other lint stays as in the root.
        assert_eq!(
            package.name.as_str(),
            "executor",
            "{} does not inherit the lints of the root",
            package.name
        );
        for group in ["rust", "clippy"] {
            for (lint, level) in root_lints[group].as_table().unwrap() {
                let own = lints.get(group).and_then(|g| g.get(lint));
                if lint == "unsafe_code" {
                    assert_eq!(own.and_then(toml::Value::as_str), Some("deny"), "executor: unsafe_code");
                } else {
                    assert_eq!(own, Some(level), "executor: lint {lint} differs from the root");
                }
            }
        }
    }
}

#[test]
fn every_dependency_takes_its_version_from_the_root() {
    for package in members() {
        let table = manifest(package.manifest_path.as_std_path());
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(toml::Value::as_table) else { continue };
            for (name, value) in dependencies {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(inherited, "{}: {name} has a version of its own", package.name);
            }
        }
    }
}

#[test]
fn the_root_manifest_is_virtual() {
    let table = manifest(&root().join("Cargo.toml"));
    assert!(!table.contains_key("package"), "the root has no code of its own");
    assert_eq!(table["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn pure_crates_say_so_to_the_compiler() {
    for lib in ["transparency-log/tlog/src/lib.rs", "trust-store/src/lib.rs"] {
        let text = text(Path::new(lib));
        assert!(text.contains("no_std"), "{lib} is pure and must be no_std");
    }
}

#[test]
fn every_crate_root_forbids_unsafe_code_but_the_executors() {
    for package in members() {
        for target in &package.targets {
            let product = target.is_lib() || target.is_bin();
            if !product {
                continue;
            }
            let text = std::fs::read_to_string(&target.src_path).unwrap();
            if package.name == "executor" {
                assert!(
                    text.contains("deny(unsafe_code)") || text.contains("forbid(unsafe_code)"),
                    "{}",
                    target.src_path
                );
            } else {
                assert!(
                    text.contains("#![forbid(unsafe_code)]"),
                    "{} does not forbid unsafe code",
                    target.src_path
                );
            }
        }
    }
}
