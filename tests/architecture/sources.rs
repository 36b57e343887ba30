//! Rules over the source text: sizes, names, what weakens a check, where the clock is read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{root, rust_sources, text};

/// The hard limit of a file, in lines.
const MAX_LINES: usize = 500;

/// Every item whose name says that it weakens a check. A new one belongs into this list and into SECURITY.md.
const DANGER: &[(&str, &str)] = &[
    ("executor/src/danger.rs", "DangerLive"),
    ("executor/src/danger.rs", "danger_call_and_keep"),
    ("executor/src/danger.rs", "danger_component"),
    ("executor/src/danger.rs", "danger_engine"),
    ("executor/src/danger.rs", "danger_module"),
    ("executor/src/danger.rs", "danger_prepared"),
    ("executor/src/danger.rs", "danger_runtime"),
    ("hsm/src/danger.rs", "parse_uri_with_pin_value"),
    ("hsm/src/software/kdf.rs", "DangerForTests"),
    ("trust-store/src/policy.rs", "danger_stock_client"),
    ("trust-store/src/policy_document.rs", "DangerIfPresent"),
    ("trust-store/src/policy_document.rs", "DangerSkip"),
    ("trust-store/src/revocation.rs", "DangerIfPresent"),
    ("trust-store/src/revocation.rs", "DangerSkip"),
];

/// The source without its unit tests: everything before the first `#[cfg(test)]` that opens a module.
fn product_part(text: &str) -> &str {
    match text.find("#[cfg(test)]\nmod ") {
        Some(at) => &text[..at],
        None => text,
    }
}

fn is_product(path: &Path) -> bool {
    let parts: Vec<String> = path.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    let file = parts.last().cloned().unwrap_or_default();
    !parts.iter().any(|p| matches!(p.as_str(), "tests" | "benches" | "examples" | "fuzz"))
        && file != "tests.rs"
        && !file.ends_with("_tests.rs")
}

#[test]
fn no_file_is_longer_than_the_limit() {
    let long: Vec<String> = rust_sources()
        .iter()
        .map(|path| (text(path).lines().count(), path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{lines} lines: {}", path.display()))
        .collect();
    assert!(long.is_empty(), "split by the standard's nouns:\n{}", long.join("\n"));
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let vague: Vec<PathBuf> = rust_sources()
        .into_iter()
        .filter(|path| {
            path.iter().any(|part| {
                let part = part.to_string_lossy();
                matches!(
                    part.trim_end_matches(".rs"),
                    "util" | "utils" | "helper" | "helpers" | "common" | "misc" | "manager"
                )
            })
        })
        .collect();
    assert!(vague.is_empty(), "{vague:?}");
}

/// Files that may speak HTTP, gRPC or SQL: the outside of a server, and its storage.
fn is_outside(path: &Path) -> bool {
    let parts: Vec<String> = path.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    let file = parts.last().cloned().unwrap_or_default();
    parts.iter().any(|part| matches!(part.as_str(), "api" | "storage"))
        || matches!(file.as_str(), "api.rs" | "storage.rs" | "serve.rs" | "main.rs")
        // The derived index, which is a database file and nothing else.
        || path == Path::new("transparency-log/src/lookup/index_file.rs")
}

#[test]
fn domain_modules_import_neither_http_nor_sql() {
    // Spelled in two parts so that this file does not find itself.
    let imports = ["warp", "tonic", "sqlx", "rusqlite"].map(|name| [name, "::"].concat());
    let services = ["ca-service", "transparency-log", "executor", "trust-store", "hsm"];
    let found: Vec<String> = rust_sources()
        .iter()
        .filter(|path| path.iter().next().is_some_and(|first| services.iter().any(|name| first == *name)))
        .filter(|path| is_product(path) && !is_outside(path))
        .filter(|path| imports.iter().any(|import| product_part(&text(path)).contains(import.as_str())))
        .map(|path| path.display().to_string())
        .collect();
    assert!(found.is_empty(), "HTTP, gRPC or SQL outside api/ and storage/: {found:?}");
}

#[test]
fn every_folder_of_the_layout_exists() {
    let document = text(Path::new("docs/architecture.md"));
    let layout = document.split("## Layout").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
    let is_folder = |word: &str| {
        word.strip_suffix('/')
            .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
    };
    let (mut top, mut checked) = (PathBuf::new(), 0);
    for line in layout.lines() {
        for (place, word) in line.split([' ', ',', '(', ')']).enumerate().filter(|(_, word)| is_folder(word))
        {
            let folder = if place == 0 {
                top = PathBuf::from(word);
                top.clone()
            } else {
                top.join(word)
            };
            assert!(root().join(&folder).is_dir(), "{} stands in the layout", folder.display());
            checked += 1;
        }
    }
    assert!(checked >= 25, "the layout is not found: {checked}");
}

#[test]
fn the_clock_is_read_only_in_clock_rs() {
    // Spelled in two parts so that this file does not find itself.
    let calls = [["SystemTime", "::now"].concat(), ["Instant", "::now"].concat()];
    let found: Vec<String> = rust_sources()
        .iter()
        .filter(|path| is_product(path) && path.file_name().is_some_and(|name| name != "clock.rs"))
        .filter(|path| calls.iter().any(|call| product_part(&text(path)).contains(call.as_str())))
        .map(|path| path.display().to_string())
        .collect();
    assert!(found.is_empty(), "time is an argument; only clock.rs reads it: {}", found.join(", "));
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["#[ig", "nore"].concat()];
    let mut found = Vec::new();
    for path in rust_sources() {
        let text = text(&path);
        for word in &words {
            if text.contains(word.as_str()) {
                found.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_item_that_weakens_a_check_is_listed_here_and_in_security_md() {
    let mut found: Vec<(String, String)> = Vec::new();
    for path in rust_sources().iter().filter(|p| is_product(p)) {
        for line in product_part(&text(path)).lines() {
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            let Some(item) = defined_item(line) else { continue };
            // The module itself is only a path; what it holds is listed.
            let in_module = path.file_stem().is_some_and(|stem| stem == "danger") && line.starts_with("pub ");
            if in_module || item.to_lowercase().contains("danger") && item != "danger" {
                found.push((path.display().to_string(), item));
            }
        }
    }
    found.sort();
    let listed: Vec<(String, String)> =
        DANGER.iter().map(|(p, i)| ((*p).to_owned(), (*i).to_owned())).collect();
    assert_eq!(found, listed, "the list in this test and the sources differ");
    let security = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    for (_, item) in &listed {
        assert!(security.contains(&format!("`{item}`")), "SECURITY.md does not name {item}");
    }
}

/// The name that a line defines: a function, type, module, constant, field or variant.
fn defined_item(line: &str) -> Option<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rest = line;
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    for keyword in ["fn ", "struct ", "enum ", "trait ", "mod ", "type ", "static "] {
        if let Some(after) = rest.strip_prefix(keyword) {
            return Some(name(after));
        }
    }
    // Fields (`danger_x: bool,`), variants (`DangerX,`) and constants (`DANGER_X: …`).
    let first = name(rest);
    let after = rest.get(first.len()..)?.trim_start();
    (!first.is_empty()
        && (after.starts_with(':') && !after.starts_with("::") || after == "," || after.starts_with('{')))
    .then_some(first)
}

#[test]
fn every_reason_code_is_explained_to_operators_with_its_step() {
    let source = text(Path::new("trust-store/src/reason.rs"));
    let codes: Vec<(String, String)> = source
        .lines()
        .filter_map(|line| {
            let (code, step) = line.split_once("= \"")?.1.split_once("\", step ")?;
            Some((code.to_owned(), step.trim_end_matches(';').to_owned()))
        })
        .collect();
    assert!(codes.len() > 30, "the list of codes was not found");
    let page = text(Path::new("docs/operations/denials.md"));
    let (page, _) = page.split_once("## The executor").unwrap();
    let explained: Vec<(String, String)> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells =
                line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    assert_eq!(explained, codes, "docs/operations/denials.md and the codes differ");
}

#[test]
fn every_code_of_the_executor_s_interfaces_is_explained_to_operators() {
    let reasons = text(Path::new("trust-store/src/reason.rs"));
    let source = text(Path::new("executor/src/api/answers.rs"));
    let body = source.split_once("fn answer_of").unwrap().1.split_once("\n}\n").unwrap().0;
    // Every second piece between quotation marks is a code; what verification denies by has a table of its own.
    let mut codes: BTreeSet<String> = body.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    codes.retain(|code| !reasons.contains(&format!("\"{code}\"")));
    let page = text(Path::new("docs/operations/denials.md"));
    let section = page.split_once("## The executor").unwrap().1.split_once("\n## ").unwrap().0;
    let explained: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code.to_owned())
        .collect();
    assert_eq!(explained, codes, "docs/operations/denials.md and the executor's codes differ");
}
