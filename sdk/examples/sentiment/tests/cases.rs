//! The Rust form gives the answers of `cases/`, which the text form is tested against as well.

use sentiment::analysis::{SLOTS, Slot, analyse};

#[test]
fn every_case_gives_its_answer() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let mut text = std::fs::read(&path).unwrap();
            let expected = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let mut table = vec![Slot::FREE; SLOTS];
            let answer = analyse(&mut text, &mut table);
            assert_eq!(std::str::from_utf8(answer.as_bytes()).unwrap(), expected.trim_end(), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 6);
}
