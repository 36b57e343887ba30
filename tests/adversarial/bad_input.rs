//! Bad files and bad command lines: one clear line, a documented exit code, nothing panics.

use mentat_tests::agent::sentiment;
use mentat_tests::command::{Finished, mentatctl, mentatctl_with_input};

/// One line on standard error, without panic or backtrace.
fn one_line(done: &Finished) {
    let lines: Vec<&str> = done.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "one clear line is wanted:\n{}", done.stderr);
    assert!(lines[0].starts_with("error: ") && lines[0].len() > 20, "{}", lines[0]);
}

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
        one_line(&refused);
    }
    for (command, names) in [
        (vec!["verify", "/nonexistent/manifest.yaml"], "does not exist"),
        (vec!["verify", good.as_str()], "trusted root"),
        (vec!["sign", good.as_str()], "signing.key"),
        (vec!["run", good.as_str()], "executor"),
        (vec!["pki", "list"], "certificate authority"),
        (vec!["log", "monitor"], "log keys"),
        (vec!["--stack", "/nonexistent", "pki", "list"], "stack"),
    ] {
        let done = mentatctl(&home, &command);
        assert!([2, 78].contains(&done.code), "{command:?}: {} {}", done.code, done.stderr);
        assert!(done.stderr.contains(names), "{command:?}: {}", done.stderr);
        one_line(&done);
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
    one_line(&refused);
}

#[test]
fn wrong_command_lines_exit_with_2_and_say_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        vec!["frobnicate"],
        vec!["sign"],
        vec!["pki", "request-cert"],
        vec!["pki", "request-cert", "--email", "a@b.c", "--uri", "https://x"],
        vec!["pki", "revoke"],
        vec!["pki", "token", "create", "--email", "a@b.c", "--minutes", "0"],
        vec!["completion", "tcsh"],
        vec!["tls", "issue", "--dir", "x"],
        vec!["log", "proof"],
    ] {
        let done = mentatctl(dir.path(), &line);
        assert_eq!(done.code, 2, "{line:?}: {}", done.stderr);
        assert!(!done.stderr.is_empty() && !done.stderr.contains("panicked"), "{line:?}");
    }
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
