//! `mentatctl new`: what it writes builds, passes its own tests, is signed and runs, in the order in which its last lines tell a
//! newcomer to go, and the time of each step is printed; and it overwrites nothing.

use std::path::Path;

use mentat_tests::clock::Stopwatch;
use mentat_tests::command::mentatctl;

use crate::toolchain::{Toolchain, make};
use crate::{ran, signed_and_run, stack};

/// Language, what it takes, the most bytes of the module, the input that the template brings, and the answer to it.
const TEMPLATES: [(&str, &[Toolchain], u64, &str, &str); 4] = [
    ("rust", &[Toolchain::Rust], 100_000, "input.json", r#"{"greeting":"hello, Ada"}"#),
    ("assemblyscript", &[Toolchain::AssemblyScript], 50_000, "input.json", r#"{"greeting":"hello, Ada"}"#),
    ("go", &[Toolchain::Go, Toolchain::TinyGo], 500_000, "input.json", r#"{"greeting":"hello, Ada"}"#),
    ("c", &[Toolchain::C], 4_000, "input.txt", "hello, Ada"),
];

#[test]
fn a_new_agent_builds_passes_its_tests_is_signed_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(dir.path());
    for (language, toolchains, largest, input, answer) in TEMPLATES {
        let name = format!("greeter-{language}");
        let folder = dir.path().join(&name);
        let mut watch = Stopwatch::start();
        let made = stack
            .ctl(&["--json", "new", &name, "--language", language, "--dir", folder.to_str().unwrap()])
            .success()
            .json();
        for file in made["files"].as_array().unwrap() {
            assert!(folder.join(file.as_str().unwrap()).is_file(), "{file}");
        }
        if !toolchains.iter().all(|toolchain| toolchain.is_here(&format!("the template in {language}"))) {
            continue;
        }
        // What it said comes next is what is done next: the rest of this is a newcomer's way, in a newcomer's order.
        let text = folder.to_str().unwrap();
        let input_path = folder.join(input);
        let next = [
            format!("make -C {text}"),
            format!("make -C {text} test"),
            format!("mentatctl sign {text}"),
            format!("mentatctl run {text} --input {}", input_path.display()),
        ];
        assert_eq!(made["next"], serde_json::json!(next));
        watch.step("new");
        make(&folder, &[]);
        watch.step("build");
        make(&folder, &["test"]);
        watch.step("native test");
        stack.ctl(&["sign", text]).success();
        watch.step("sign");
        let first = ran(&stack, text, &input_path).success().json();
        watch.step("run");
        eprintln!("{language}: {watch}");
        assert_eq!(first["text"], answer, "{language}");
        let size = std::fs::metadata(folder.join(format!("{name}.wasm"))).unwrap().len();
        eprintln!("{name}.wasm: {size} bytes");
        assert!(size <= largest, "{name}.wasm has {size} bytes, and {largest} are allowed");
        for command in ["audit-capabilities", "verify"] {
            stack.ctl(&[command, text]).success();
        }
        if language == "go" {
            // The same source as a command.
            make(&folder, &["go"]);
            assert_eq!(signed_and_run(&stack, &folder, &input_path)["text"], answer, "{language}");
        }
    }
}

#[test]
fn nothing_is_overwritten_and_no_name_leads_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let new = |arguments: &[&str]| mentatctl(dir.path(), [&["new"], arguments].concat());
    new(&["one", "--language", "c", "--dir", &at("one")]).success();
    let before = std::fs::read(Path::new(&at("one")).join("my_agent.c"));
    assert!(before.is_err(), "the file carries the agent's name");
    std::fs::write(Path::new(&at("one")).join("one.c"), "mine").unwrap();
    new(&["one", "--language", "c", "--dir", &at("one")]).refused(2, "nothing was written").one_clear_line();
    assert_eq!(std::fs::read(Path::new(&at("one")).join("one.c")).unwrap(), b"mine");
    for name in ["../one", "One", "fn", "a--b", ""] {
        new(&[name, "--language", "rust", "--dir", &at("two")])
            .refused(2, "cannot be the name")
            .one_clear_line();
    }
    new(&["two", "--language", "cobol", "--dir", &at("two")]).refused(2, "assemblyscript").one_clear_line();
    new(&["two", "--dir", &at("two")]).refused(2, "--language").one_clear_line();
    new(&["two", "--language", "c", "--dir", &at("none/two")]).refused(2, "cannot make").one_clear_line();
    assert!(!Path::new(&at("two")).exists());
    let listed = mentatctl(dir.path(), ["--json", "new", "--list"]).success().json();
    let languages: Vec<_> =
        listed["languages"].as_array().unwrap().iter().map(|row| row["language"].as_str().unwrap()).collect();
    assert_eq!(languages, TEMPLATES.map(|(language, ..)| language));
}
