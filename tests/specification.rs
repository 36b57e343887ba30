//! Every figure that `docs/specification.md` promises names the bench that asserts it, the target exists, and the bench's
//! source writes a figure of that name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failure must stop with the place it happened"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// One row of a figures table: the figure's name, the promised bound and the command that asserts it.
struct Figure {
    name: String,
    bound: String,
    command: String,
}

fn figures() -> Vec<Figure> {
    let text = std::fs::read_to_string(root().join("docs/specification.md")).unwrap();
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert!(cells.len() >= 4, "figure, meaning, bound, command: {line}");
            Figure {
                name: cells[0].trim_matches('`').to_owned(),
                bound: cells[2].to_owned(),
                command: cells[cells.len() - 1].trim_matches('`').to_owned(),
            }
        })
        .collect()
}

/// Bench target → the folder whose sources assert its figures.
fn bench_sources() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("make bench-log", "transparency-log/benches"),
        ("make bench-log-large", "transparency-log/benches"),
        ("make bench-ca", "ca-service/benches"),
        ("make bench-verify", "trust-store/benches"),
        ("make bench-exec", "executor/benches"),
    ])
}

fn text_below(folder: &Path) -> String {
    let mut out = String::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "rs") {
                out.push_str(&std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    out
}

#[test]
fn every_figure_names_a_bench_that_asserts_it() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let sources = bench_sources();
    let mut wrong = Vec::new();
    for figure in figures() {
        let Some(folder) = sources.get(figure.command.as_str()) else {
            wrong.push(format!("{}: `{}` is no bench target", figure.name, figure.command));
            continue;
        };
        let target = figure.command.trim_start_matches("make ");
        if !makefile.lines().any(|l| l.starts_with(&format!("{target}:"))) {
            wrong.push(format!("{}: the Makefile has no {target}", figure.name));
        }
        if !text_below(&root().join(folder)).contains(&format!("\"{}\"", figure.name)) {
            wrong.push(format!("{}: no source in {folder} writes \"{}\"", figure.name, figure.name));
        }
        if !figure.bound.chars().any(|c| c.is_ascii_digit()) {
            wrong.push(format!("{}: the bound has no number", figure.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_figure_is_promised_once() {
    let mut seen = std::collections::BTreeSet::new();
    for figure in figures() {
        assert!(seen.insert(figure.name.clone()), "{} stands twice", figure.name);
    }
}
