//! Every figure that `docs/specification.md` lists names the bench that asserts it, the target exists, and the bench's
//! source asserts the very bound; and no bench asserts what the page does not list.
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

/// A bound, as a page words it and as a source spells it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One row of a table of figures or aims: the figure's name, its bound and the command that asserts it.
struct Figure {
    name: String,
    bound: Bound,
    command: String,
}

fn number(text: &str) -> f64 {
    let digits: String =
        text.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '_')).collect();
    digits.replace([',', '_'], "").parse().unwrap_or_else(|_| panic!("a number begins {text:?}"))
}

fn figures() -> Vec<Figure> {
    let text = std::fs::read_to_string(root().join("docs/specification.md")).unwrap();
    let promised = text.find("\n## Limits").map_or(text.as_str(), |end| &text[..end]);
    let found: Vec<Figure> = promised
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 4, "figure, meaning, bound, command: {line}");
            let bound = match (cells[2].strip_prefix("at least "), cells[2].strip_prefix("at most ")) {
                (Some(least), _) => Bound::AtLeast(number(least)),
                (_, Some(most)) => Bound::AtMost(number(most)),
                _ => panic!("a bound is \"at least\" or \"at most\" a number: {line}"),
            };
            Figure {
                name: cells[0].trim_matches('`').to_owned(),
                bound,
                command: cells[3].trim_matches('`').to_owned(),
            }
        })
        .collect();
    assert!(found.len() > 40, "the tables are not found: {}", found.len());
    found
}

/// The bounds that sources assert: `("name", AtMost(1.0)` or, where every bound is an upper one, `("name", 1.0)`.
fn asserted(source: &str) -> Vec<(String, Bound)> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("(\"") {
        let Some((name, rest)) = source[at + 2..].split_once("\", ") else { continue };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let rest = rest.strip_prefix("Bound::").or_else(|| rest.strip_prefix("Limit::")).unwrap_or(rest);
        if let Some(least) = rest.strip_prefix("AtLeast(") {
            found.push((name.to_owned(), Bound::AtLeast(number(least))));
        } else if let Some(most) = rest.strip_prefix("AtMost(") {
            found.push((name.to_owned(), Bound::AtMost(number(most))));
        } else if rest.starts_with(|c: char| c.is_ascii_digit())
            && rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '_'))
                .starts_with("),")
        {
            found.push((name.to_owned(), Bound::AtMost(number(rest))));
        }
    }
    found
}

/// Bench target → the folder whose sources assert its figures.
fn bench_sources() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("make bench-log", "transparency-log/benches"),
        ("make bench-log-large", "transparency-log/benches"),
        ("make bench-ca", "ca-service/benches"),
        ("make bench-ca-large", "ca-service/benches"),
        ("make bench-verify", "trust-store/benches"),
        ("make bench-exec", "executor/server/benches"),
        ("make bench-stack", "tests/benches"),
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
fn every_figure_is_asserted_with_its_bound_and_every_bound_is_listed() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let sources = bench_sources();
    let figures = figures();
    let mut wrong = Vec::new();
    for figure in &figures {
        let Some(folder) = sources.get(figure.command.as_str()) else {
            wrong.push(format!("{}: `{}` is no bench target", figure.name, figure.command));
            continue;
        };
        let target = figure.command.trim_start_matches("make ");
        if !makefile.lines().any(|l| l.starts_with(&format!("{target}:"))) {
            wrong.push(format!("{}: the Makefile has no {target}", figure.name));
        }
        let bounds = asserted(&text_below(&root().join(folder)));
        if !bounds.contains(&(figure.name.clone(), figure.bound)) {
            wrong.push(format!("{}: no source in {folder} asserts {:?}", figure.name, figure.bound));
        }
    }
    for folder in sources.values().collect::<std::collections::BTreeSet<_>>() {
        let bounds = asserted(&text_below(&root().join(folder)));
        assert!(bounds.len() >= 5, "{folder}: the bounds are not found");
        for (name, _) in bounds {
            if !figures
                .iter()
                .any(|figure| figure.name == name && sources[figure.command.as_str()] == *folder)
            {
                wrong.push(format!("{name}: asserted in {folder}, and not listed in docs/specification.md"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_figure_is_listed_once() {
    let mut seen = std::collections::BTreeSet::new();
    for figure in figures() {
        assert!(seen.insert(figure.name.clone()), "{} stands twice", figure.name);
    }
}
