//! The agent gives the answers of `cases/`, which the text form is tested against as well.

use mentat_sdk::fake::Host;
use sentiment::analysis::MAX_INPUT;
use sentiment::sentiment;

#[test]
fn every_case_gives_its_answer() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let expected = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let done = Host::new().input(std::fs::read(&path).unwrap()).call(sentiment);
            assert_eq!(
                (done.exit_code, done.text().as_str()),
                (0, expected.trim_end()),
                "{}",
                path.display()
            );
            assert_eq!(done.metrics[0].0, "words");
            seen += 1;
        }
    }
    assert!(seen >= 6);
}

#[test]
fn an_input_that_is_too_large_is_refused() {
    let done = Host::new().input(vec![b'a'; MAX_INPUT + 1]).call(sentiment);
    assert_eq!((done.exit_code, done.output.len(), done.log.len()), (1, 0, 1));
}
