//! Every attack that `docs/operations/attacks.md` lists has tests that run, ends with reasons that the program gives, and is counted
//! in metrics that it has, or says why nothing counts it.

use std::path::Path;

use crate::{rust_sources, text};

const PAGE: &str = "docs/operations/attacks.md";

/// The rows of the page's tables: attack, end, metric, tests.
fn rows() -> Vec<[String; 4]> {
    let page = text(Path::new(PAGE));
    let rows: Vec<[String; 4]> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| attack "))
        .map(|line| {
            let cells: Vec<String> =
                line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
            <[String; 4]>::try_from(cells).unwrap_or_else(|_| panic!("attack, end, metric, tests: {line}"))
        })
        .collect();
    assert!(rows.len() > 30, "the tables are not found: {} rows", rows.len());
    for (number, [attack, ..]) in rows.iter().enumerate() {
        assert!(rows[..number].iter().all(|[other, ..]| other != attack), "{attack}: stands there twice");
    }
    rows
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A test that a row cites: its name, and its text with the attributes above it.
struct Cited {
    name: String,
    above: Vec<String>,
    body: String,
}

fn cited(attack: &str, tests: &str) -> Vec<Cited> {
    let mut all = Vec::new();
    for group in tests.split("; ") {
        let (names, file) = group.rsplit_once(" (").unwrap_or_else(|| panic!("{attack}: {group}"));
        let file = file.trim_end_matches(')');
        let source = text(Path::new(file));
        for name in quoted(names) {
            let declared = [format!("fn {name}()"), format!("fn {name}(\n")];
            let at = declared.iter().find_map(|it| source.find(it));
            let at = at.unwrap_or_else(|| panic!("{attack}: {file} has no test {name}"));
            let line = source[..at].rfind('\n').map_or(0, |end| end + 1);
            let above = source[..line].lines().rev().map(str::trim);
            let above = above.take_while(|line| line.starts_with('#')).map(str::to_owned).collect();
            let indented = &source[line..line + source[line..].len() - source[line..].trim_start().len()];
            let end = source[at..].find(&format!("\n{indented}}}\n"));
            let end = end.unwrap_or_else(|| panic!("{attack}: {name} has no end"));
            all.push(Cited { name: name.to_owned(), above, body: source[at..at + end].to_owned() });
        }
    }
    assert!(!all.is_empty(), "{attack}: no test");
    all
}

#[test]
fn every_test_of_the_page_exists() {
    for [attack, _, _, tests] in rows() {
        for Cited { name, above, .. } in cited(&attack, &tests) {
            let runs =
                above.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
            assert!(runs, "{attack}: {name} is no test: {above:?}");
            let is_left_out = |line: &String| line.contains("ignore") || line.contains("cfg");
            assert!(!above.iter().any(is_left_out), "{attack}: {name} does not run everywhere: {above:?}");
        }
    }
}

/// Whoever changes what an attack ends with sees that it is counted elsewhere now.
#[test]
fn a_test_of_every_row_reads_what_it_is_counted_in() {
    for [attack, _, metric, tests] in rows() {
        let tests = cited(&attack, &tests);
        for name in quoted(&metric).filter(|_| !metric.starts_with("none: ")) {
            let reads = |test: &Cited| test.body.contains(name);
            let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
            assert!(tests.iter().any(reads), "{attack}: none of {names:?} reads {name}");
        }
    }
}

#[test]
fn every_reason_of_the_page_is_one_of_the_program() {
    let is_product =
        |path: &Path| ["executor", "trust-store", "mentatctl"].iter().any(|folder| path.starts_with(folder));
    let sources: Vec<String> =
        rust_sources().iter().filter(|path| is_product(path)).map(|path| text(path)).collect();
    for [attack, end, _, _] in rows() {
        let is_code = |word: &&str| {
            word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        for code in quoted(&end).filter(is_code) {
            let literal = format!("\"{code}\"");
            assert!(sources.iter().any(|source| source.contains(&literal)), "{attack}: {code}");
        }
    }
}

#[test]
fn every_metric_of_the_page_is_registered() {
    let registered = ["executor/src/metrics.rs", "executor/src/gauges.rs"].map(|file| text(Path::new(file)));
    for [attack, _, metric, _] in rows() {
        let mut named = 0;
        for name in quoted(&metric) {
            let own = name.strip_suffix("_total").unwrap_or(name);
            let literal = format!("\"{own}\"");
            assert!(registered.iter().any(|source| source.contains(&literal)), "{attack}: {name}");
            named += 1;
        }
        assert!(named > 0 || metric.starts_with("none: "), "{attack}: no metric");
    }
}
