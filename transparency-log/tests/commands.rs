//! Every command that a refusal or a runbook names is one that the programs have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All text files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "md" || kind == "toml") {
            found.push(path);
        }
    }
}

/// The words behind a program's name: its subcommand and the options named with it.
fn commands(text: &str, program: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(&format!("{program} ")) {
        let before = text[..at].chars().next_back();
        if !matches!(before, Some('`' | ' ' | '#')) {
            continue;
        }
        let rest = text[at + program.len() + 1..].trim_start();
        let line = rest.split(['`', '\n', '"']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(command) = words
            .next()
            .filter(|word| ["init", "serve", "repair", "check", "index", "add-log"].contains(word))
        else {
            // A command in backticks must be one of those.
            assert!(before != Some('`') || !line.contains("--"), "`{program} {line}` is no command");
            continue;
        };
        let options = words
            .map(|word| word.trim_matches(['[', ']', ',', ';', '.']))
            .filter(|word| word.starts_with("--"))
            .map(str::to_owned);
        found.insert(std::iter::once(command.to_owned()).chain(options).collect());
    }
    found
}

#[test]
fn commands_named_by_refusals_and_runbooks_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for folder in ["transparency-log/src", "transparency-log/store/src", "docs/operations"] {
        files(&root.join(folder), &mut sources);
    }
    let mut seen = 0;
    for (program, binary) in [
        ("transparency-log", env!("CARGO_BIN_EXE_transparency-log")),
        ("witness", env!("CARGO_BIN_EXE_witness")),
    ] {
        let named: BTreeSet<_> = sources
            .iter()
            .flat_map(|path| commands(&std::fs::read_to_string(path).unwrap(), program))
            .collect();
        for words in named {
            let help = Command::new(binary).args([&words[0], "--help"]).output().unwrap();
            assert!(help.status.success(), "{program} {}: there is no such command", words[0]);
            let help = String::from_utf8(help.stdout).unwrap();
            for option in &words[1..] {
                assert!(help.contains(option.as_str()), "{program} {} has no {option}", words[0]);
            }
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} commands were found: the search looks in the wrong place");
}

/// The example shows every field of the configuration.
#[test]
fn every_field_is_documented_in_the_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let example = std::fs::read_to_string(root.join("docs/operations/transparency-log.toml")).unwrap();
    let service = std::fs::read_to_string(root.join("docs/operations/service.md")).unwrap();
    let source = std::fs::read_to_string(root.join("transparency-log/src/config.rs")).unwrap();
    let mut seen = 0;
    for line in source.lines() {
        let Some((name, _)) = line.trim().strip_prefix("pub ").and_then(|rest| rest.split_once(':')) else {
            continue;
        };
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') || name == "server" {
            continue;
        }
        let name = match name {
            "logs" => "[[log]]",
            "events" => "[[log.event]]",
            "keystore" | "batching" | "publishing" => continue,
            other => other,
        };
        assert!(example.contains(name), "{name} is missing in docs/operations/transparency-log.toml");
        seen += 1;
    }
    assert!(seen > 20, "only {seen} fields were found");
    let service_source = std::fs::read_to_string(root.join("service/src/config.rs")).unwrap();
    let raw = service_source.split("/// Where and how a listener speaks").next().unwrap();
    for line in raw.lines() {
        if let Some((name, _)) = line.trim().strip_prefix("pub ").and_then(|rest| rest.split_once(':'))
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'2')
        {
            assert!(service.contains(name), "{name} is missing in docs/operations/service.md");
        }
    }
    toml::from_str::<transparency_log::config::Config>(&example)
        .expect("the example is a valid configuration");
}

/// The runbook's sections about the server itself are headed by words of its refusals; those of the store's are tested there.
#[test]
fn every_section_of_the_runbook_stands_for_a_refusal() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let runbook = std::fs::read_to_string(root.join("docs/operations/log-refusals.md")).unwrap();
    let mut sources = Vec::new();
    files(&root.join("transparency-log/src"), &mut sources);
    let sources: String = sources.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut seen = BTreeSet::new();
    for heading in runbook.lines().filter_map(|line| line.strip_prefix("### ")) {
        for words in heading.split([',', '…']).map(str::trim).filter(|words| !words.is_empty()) {
            assert!(sources.contains(words), "{heading:?}: nothing says {words:?}");
            seen.insert(words);
        }
    }
    for refusal in
        ["cannot use the lookup index", "cannot use the witness policy", "cannot open the keystore"]
    {
        assert!(seen.contains(refusal), "{refusal:?} has no section");
    }
}

/// And the other way: whatever the server says when it refuses to start stands in a runbook, in its own words.
#[test]
fn every_refusal_to_start_stands_in_a_runbook() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = |name: &str| std::fs::read_to_string(root.join("docs/operations").join(name)).unwrap();
    let pages: String = ["log-refusals.md", "service.md", "witness.md"].map(page).concat();
    let pages = words(&pages.replace('`', " "));
    let mut sources = Vec::new();
    for folder in ["transparency-log/src", "service/src"] {
        files(&root.join(folder), &mut sources);
    }
    let mut seen = 0;
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for said in
            ["StartRefusal::new(", " refuse(", "(refuse("].iter().flat_map(|call| code.split(call).skip(1))
        {
            let Some(line) = refusal(said) else { continue };
            for piece in line.split(['{', '}']).step_by(2).map(words) {
                let piece = piece.trim_matches([' ', ':', '"', '=', ',']);
                if piece.chars().filter(|c| c.is_alphabetic()).count() > 3 {
                    let shown = path.display();
                    assert!(pages.contains(piece), "{shown}: {line:?}: no runbook says {piece:?}");
                }
            }
            seen += 1;
        }
    }
    assert!(seen > 90, "only {seen} refusals were found: the search looks in the wrong place");
}

/// The text that a call begins with, as far as it is written there.
fn refusal(call: &str) -> Option<String> {
    let call = call.trim_start();
    let call = ["format!(", "&config.certificate_file,", "path,", "&files.record,"]
        .iter()
        .fold(call, |call, before| call.strip_prefix(before).unwrap_or(call).trim_start());
    let text = call.strip_prefix('"')?;
    let end = text.char_indices().find(|(at, c)| *c == '"' && !text[..*at].ends_with('\\'))?.0;
    Some(words(&text[..end].replace("\\\n", " ").replace("\\\"", "\"")))
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
