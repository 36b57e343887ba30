//! Bad files and bad command lines: one clear line, a documented exit code, nothing panics.

use mentat_tests::agent::sentiment;
use mentat_tests::command::{mentatctl, mentatctl_with_input};

#[test]
fn broken_files_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = sentiment(dir.path(), "good", |manifest| manifest);
    let good = good.to_str().unwrap().to_owned();
    mentatctl(&home, ["audit-capabilities", &good]).success();

    let broken = [
        ("unknown-capability", "- compute:cpu_ms=1000,wall_ms=5000", "- telepathy:read:minds", "telepathy"),
        ("unknown-key", "runtime: wasm", "runtime: wasm\nsurprise: 1", "surprise"),
        ("unknown-runtime", "runtime: wasm", "runtime: cobol", "cobol"),
        ("other-engine", "engine: wasmtime", "engine: wasmedge", "wasmedge"),
        ("path-in-module", "module: sentiment.wasm", "module: ../../etc/passwd", "module"),
        ("duplicate-key", "runtime: wasm", "runtime: wasm\nruntime: wasm", "runtime"),
        ("anchor", "version: 1.0.0", "version: &v 1.0.0", "anchor"),
        ("float", "maximum: 8", "maximum: 8.5", ""),
    ];
    for (name, from, to, names) in broken {
        let folder = sentiment(dir.path(), name, |manifest| manifest.replace(from, to));
        let refused = mentatctl(&home, ["audit-capabilities", folder.to_str().unwrap()]).refused(2, names);
        refused.one_clear_line();
    }
    for (name, bytes) in [
        ("truncated.der", &[0x30, 0x82, 0x01][..]),
        ("empty.der", b""),
        ("noise.der", &[0xff; 300]),
        ("text.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ] {
        let path = file(name, bytes);
        let done = mentatctl(&home, ["lint", &path]);
        assert!([1, 2].contains(&done.code), "{name}: {} {}", done.code, done.stderr);
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    }
    let root = file("root.json", b"{\"mediaType\":\"nonsense\"}");
    let refused = mentatctl(&home, ["verify", &good, "--trusted-root", &root, "--policy", &root]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    refused.one_clear_line();
}

#[test]
fn shells_get_their_completions_and_help_names_the_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "fish", "zsh"] {
        assert!(mentatctl(dir.path(), ["completion", shell]).success().stdout.contains("mentatctl"));
    }
    assert!(mentatctl(dir.path(), ["--version"]).success().stdout.starts_with("mentatctl "));
    assert!(mentatctl(dir.path(), ["--help"]).success().stdout.contains("Exit codes"));
}

#[test]
fn one_bad_conformance_line_never_stops_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let input = b"{\"id\":1,\"kind\":\"inclusion\",\"leaf_index\":0,\"tree_size\":1,\"leaf_hash\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"root\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"proof\":[]}\n\nnonsense\n\xff\xfe\n{\"id\":\"last\"}";
    for kind in ["path", "crl", "ocsp", "signature", "merkle", "bundle"] {
        let done = mentatctl_with_input(dir.path(), ["conformance", kind], input).success();
        let answers: Vec<serde_json::Value> =
            done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), 5, "{kind}: {}", done.stdout);
        assert_eq!(answers[0]["id"], 1);
        assert_eq!(answers[4]["id"], "last");
        for answer in &answers[1..4] {
            assert_eq!(answer["reason"], "malformed", "{kind}: {answer}");
        }
        if kind == "merkle" {
            assert_eq!(answers[0]["decision"], "valid");
        }
    }
}
