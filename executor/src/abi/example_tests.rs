//! The examples of the SDK, run by the real worker and engine.

use std::path::{Path, PathBuf};

use crate::testing::run;

fn sentiment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/examples/sentiment")
}

fn cases() -> Vec<(PathBuf, Vec<u8>, String)> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(sentiment().join("cases")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let input = std::fs::read(&path).unwrap();
            let expected = std::fs::read_to_string(path.with_extension("json")).unwrap();
            cases.push((path, input, expected.trim_end().to_owned()));
        }
    }
    assert!(cases.len() >= 6);
    cases
}

#[test]
fn the_text_form_of_the_sentiment_analyser_gives_the_expected_answers() {
    let text = std::fs::read_to_string(sentiment().join("sentiment.wat")).unwrap();
    for (path, input, expected) in cases() {
        let outcome = run(&text, &input).unwrap();
        assert_eq!(String::from_utf8(outcome.output).unwrap(), expected, "{}", path.display());
        assert_eq!(outcome.exit_code, 0);
        assert_eq!(outcome.metrics[0].name, "words");
    }
    assert_eq!(run(&text, &vec![b'a'; (1 << 20) + 1]).unwrap().exit_code, 1);
}
