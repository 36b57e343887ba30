//! The examples in text form, which need no toolchain.

use std::collections::BTreeSet;

use mentat_tests::agent::{from_text, sentiment};

use crate::{sdk_folder, signed_and_run, stack};

#[test]
fn the_text_forms_are_signed_admitted_and_run() {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(dir.path());
    let input = dir.path().join("input");
    std::fs::write(&input, "A good example is a useful one.").unwrap();
    let echo = std::fs::read_to_string(sdk_folder("examples/echo-component.wat")).unwrap();
    let echo = from_text(dir.path(), "mentatlab.echo", &echo);
    let mut manifest = std::fs::read_to_string(echo.join("manifest.yaml")).unwrap();
    manifest.push_str("wasm:\n  memory:\n    maximum: 8\n");
    std::fs::write(echo.join("manifest.yaml"), manifest).unwrap();
    assert_eq!(signed_and_run(&stack, &echo, &input)["text"], "A good example is a useful one.");
    let words = sentiment(dir.path(), "sentiment", |manifest| manifest);
    let answer = signed_and_run(&stack, &words, &input)["text"].as_str().unwrap().to_owned();
    assert!(answer.starts_with(r#"{"words":7,"#) && answer.ends_with(r#""label":"positive"}"#), "{answer}");
}

#[test]
fn every_example_has_a_test_here() {
    let folders: BTreeSet<String> = std::fs::read_dir(sdk_folder("examples"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let tested = [
        "code-reviewer",
        "csv-summary",
        "json-transformer",
        "line-sorter",
        "metric-calculator",
        "sentiment",
        "text-outline",
        "word-count",
    ];
    assert_eq!(folders, tested.map(str::to_owned).into());
}
