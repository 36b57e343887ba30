//! Every command line in the operators' pages is one that the programs take: a runbook is read when there is no time to mend it.

use std::path::{Path, PathBuf};
use std::process::Command;

use mentat_tests::binary::binary;
use mentat_tests::command::finish;

/// Programs whose command lines are tried.
const PROGRAMS: [&str; 5] = ["ca-service", "executor", "mentatctl", "transparency-log", "witness"];

/// The words of a command line as a shell reads them, up to a comment, a pipe or the next command.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => (quote, begun) = (Some(character), true),
            (None, '|' | '&' | '>' | ';') => break,
            (None, '#') if !begun => break,
            (None, ' ') if begun => {
                words.push(std::mem::take(&mut word));
                begun = false;
            }
            (None, ' ') => {}
            _ => {
                word.push(character);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// The command lines of the shell blocks of a page, each joined with what continues it.
fn command_lines(page: &str) -> Vec<String> {
    let (mut lines, mut inside, mut open) = (Vec::new(), false, String::new());
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside && line.trim_start() == "```sh";
            open.clear();
            continue;
        }
        if !inside {
            continue;
        }
        open.push_str(line.trim());
        match open.strip_suffix('\\') {
            Some(continued) => open = continued.to_owned(),
            None => lines.push(std::mem::take(&mut open)),
        }
    }
    lines
}

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations");
    let mut pages: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .collect();
    pages.sort();
    pages
}

#[test]
fn every_command_of_the_operators_pages_is_understood() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for line in command_lines(&text) {
            let words = words(&line);
            let Some((program, arguments)) = words.split_first() else { continue };
            if !PROGRAMS.contains(&program.as_str()) {
                continue;
            }
            tried += 1;
            // Help is asked for last: what comes before it was read by then.
            let mut command = Command::new(binary(program));
            command.args(arguments).arg("--help");
            let said = finish(command, b"");
            if said.code != 0 {
                wrong.push(format!("{}: {line}\n  {}", page.display(), said.stderr.trim()));
            }
        }
    }
    assert!(tried > 40, "{tried}");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_words_are_those_of_a_shell() {
    let line = "mentatctl sign --key 'a b' \"$X\" agents/*/   # why | not";
    assert_eq!(words(line), ["mentatctl", "sign", "--key", "a b", "$X", "agents/*/"]);
    assert_eq!(words("ca-service check | less"), ["ca-service", "check"]);
    let page = "text\n```sh\none \\\n  two\nthree\n```\nfour\n```toml\nfive\n```\n";
    assert_eq!(command_lines(page), ["one two", "three"]);
}
