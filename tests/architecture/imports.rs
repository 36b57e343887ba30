//! Who may import whom: the table of `docs/architecture.md`, read from the document itself so that the two cannot differ.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, PackageId};

use crate::{members, metadata, root, text};

/// Crates outside the workspace that must not be reachable from a crate by normal dependencies, whatever lies between.
const NEVER_REACHED: &[(&str, &[&str])] = &[
    (
        "tlog",
        &["tokio", "hyper", "reqwest", "warp", "sqlx", "rusqlite", "wasmtime", "aws-lc-rs", "getrandom"],
    ),
    ("trust-store", &["tokio", "hyper", "reqwest", "warp", "sqlx", "rusqlite", "wasmtime", "hsm"]),
    ("capability-rules", &["tokio", "hyper", "reqwest", "warp", "sqlx", "rusqlite", "wasmtime", "hsm"]),
    ("trust-store-files", &["warp", "sqlx", "rusqlite", "wasmtime"]),
    ("hsm", &["warp", "hyper", "sqlx", "rusqlite", "wasmtime"]),
    ("log-store", &["warp", "hyper", "reqwest", "tonic", "wasmtime"]),
    ("tlog-client", &["warp", "sqlx", "rusqlite", "wasmtime"]),
    ("ca-pki", &["warp", "hyper", "reqwest", "sqlx", "rusqlite", "wasmtime", "hsm"]),
    ("ca-api", &["warp", "sqlx", "rusqlite", "wasmtime"]),
    ("executor-api", &["warp", "sqlx", "rusqlite", "wasmtime"]),
    ("service", &["sqlx", "rusqlite", "wasmtime", "trust-store", "tlog"]),
    ("executor-engine", &["warp", "hyper", "tokio", "sqlx", "rusqlite", "hsm"]),
    ("ca-service", &["wasmtime", "log-store"]),
    ("transparency-log", &["wasmtime", "ca-pki"]),
    ("executor", &["sqlx", "rusqlite", "ca-pki"]),
    ("executor-server", &["sqlx", "rusqlite", "ca-pki"]),
    (
        "executor-compiler",
        &["tokio", "hyper", "reqwest", "warp", "sqlx", "rusqlite", "hsm", "tlog", "trust-store"],
    ),
    ("mentatctl", &["wasmtime", "cranelift-codegen", "sqlx", "rusqlite", "warp", "service"]),
];

/// The rows of the import table: crate → workspace crates it may import.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let document = text(Path::new("docs/architecture.md"));
    let start = document.find("## Who may import whom").expect("the section of the table");
    let names: HashSet<String> = members().iter().map(|p| p.name.to_string()).collect();
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).filter(|name| names.contains(name)).collect()
    };
    let mut rows = BTreeMap::new();
    for line in
        document[start..].lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 4, "a row of the import table has four cells: {line}");
        let everything = cells[2].trim_start().starts_with("all ");
        for name in quoted(cells[0]) {
            let allowed = if everything {
                names.iter().cloned().collect()
            } else {
                quoted(cells[2]).into_iter().collect()
            };
            assert!(rows.insert(name.clone(), allowed).is_none(), "{name} has two rows");
        }
    }
    rows
}

#[test]
fn every_member_has_a_row_and_imports_only_what_its_row_allows() {
    let table = table();
    let names: HashSet<String> = members().iter().map(|p| p.name.to_string()).collect();
    let mut wrong = Vec::new();
    for package in members() {
        let Some(allowed) = table.get(package.name.as_str()) else {
            wrong.push(format!("{} has no row in docs/architecture.md", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            // Tests may reach further than the product: what a crate is made of is its normal and build dependencies.
            if dependency.kind == DependencyKind::Development || !names.contains(&dependency.name) {
                continue;
            }
            if !allowed.contains(&dependency.name) {
                wrong.push(format!(
                    "{} imports {}, which its row does not allow",
                    package.name, dependency.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_names_every_crate_of_the_workspace_and_no_cycle() {
    let table = table();
    assert_eq!(table.len(), members().len(), "rows: {:?}", table.keys().collect::<Vec<_>>());
    // A row may only allow what does not, over any path, allow it back.
    for name in table.keys().filter(|n| *n != "mentat-tests") {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = table[name].iter().collect();
        while let Some(next) = open.pop() {
            assert_ne!(next, name, "{name} may import itself through the table");
            if seen.insert(next) {
                open.extend(table[next].iter());
            }
        }
    }
}

#[test]
fn nothing_forbidden_is_reachable_through_third_parties() {
    let resolve = metadata().resolve.as_ref().expect("a resolved graph");
    let name_of: HashMap<&PackageId, &str> =
        metadata().packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let edges: HashMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node
                .deps
                .iter()
                .filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal))
                .map(|d| &d.pkg)
                .collect();
            (&node.id, normal)
        })
        .collect();
    let mut wrong = Vec::new();
    for (name, never) in NEVER_REACHED {
        let start =
            members().into_iter().find(|p| p.name == *name).unwrap_or_else(|| panic!("no crate {name}"));
        let mut seen: HashMap<&PackageId, Option<&PackageId>> = HashMap::from([(&start.id, None)]);
        let mut open = vec![&start.id];
        while let Some(id) = open.pop() {
            for next in &edges[id] {
                if !seen.contains_key(next) {
                    seen.insert(next, Some(id));
                    open.push(next);
                }
            }
        }
        for (id, _) in seen.iter().filter(|(id, _)| never.contains(&name_of[*id])) {
            let mut path = vec![name_of[id]];
            let mut at = *id;
            while let Some(Some(parent)) = seen.get(at) {
                path.push(name_of[parent]);
                at = parent;
            }
            path.reverse();
            wrong.push(path.join(" -> "));
        }
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The graph above unifies the features of the whole workspace; what ends up in the executor's own build is asked of
/// cargo for that package alone.
#[test]
fn the_executor_holds_no_compiler_and_no_certificate_authority() {
    let output = std::process::Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "-p", "executor-server", "-e", "normal", "--prefix", "none", "--offline", "--locked"])
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert!(crates.contains("wasmtime"), "the executor runs wasmtime");
    for never in [
        "cedar-policy",
        "cranelift-codegen",
        "wasmtime-internal-cranelift",
        "wasmtime-internal-winch",
        "ca-service",
        "ca-pki",
        "sqlx",
        "rusqlite",
    ] {
        assert!(!crates.contains(never), "{never} is in the executor's dependency tree");
    }
}
