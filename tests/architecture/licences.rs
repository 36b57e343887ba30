//! The licence list of `deny.toml`, checked over `cargo metadata` without cargo-deny.

use std::collections::BTreeSet;

use crate::{metadata, root};

fn allowed() -> BTreeSet<String> {
    let deny: toml::Table =
        std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().expect("deny.toml is TOML");
    deny["licenses"]["allow"].as_array().unwrap().iter().map(|l| l.as_str().unwrap().to_owned()).collect()
}

/// Whether an SPDX expression can be satisfied with the allowed licences alone.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = any_of(&words, &mut at, allowed);
    assert_eq!(at, words.len(), "an SPDX expression that this test cannot read: {expression}");
    result
}

fn any_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut result = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= all_of(words, at, allowed);
    }
    result
}

fn all_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut result = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, allowed);
    }
    result
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word == "(" {
        let result = any_of(words, at, allowed);
        assert_eq!(words.get(*at), Some(&")"), "unbalanced SPDX expression");
        *at += 1;
        return result;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allowed.contains(&format!("{word} WITH {exception}")) || allowed.contains(word);
    }
    allowed.contains(word)
}

#[test]
fn every_package_has_an_allowed_licence() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        match &package.license {
            Some(expression) if satisfied(expression, &allowed) => {}
            Some(expression) => wrong.push(format!("{} {}: {expression}", package.name, package.version)),
            None => wrong.push(format!("{} {}: no licence expression", package.name, package.version)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn licence_expressions_are_read_with_their_precedence() {
    let allowed: BTreeSet<String> = ["MIT", "ISC"].map(str::to_owned).into();
    assert!(satisfied("MIT", &allowed));
    assert!(satisfied("GPL-3.0 OR MIT", &allowed));
    assert!(satisfied("MIT/Apache-2.0", &allowed));
    assert!(satisfied("(MIT OR GPL-3.0) AND ISC", &allowed));
    assert!(!satisfied("MIT AND GPL-3.0", &allowed));
    assert!(!satisfied("GPL-3.0 OR MIT AND GPL-2.0", &allowed));
    assert!(!satisfied("Apache-2.0 WITH LLVM-exception", &allowed));
}
