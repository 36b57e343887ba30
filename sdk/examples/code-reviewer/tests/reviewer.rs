//! The agent on a host that is no executor.

use code_reviewer::review::{MAX_FINDINGS, review};
use code_reviewer::reviewer;
use mentat_sdk::fake::{Done, Host};
use mentat_sdk::{HostError, Level, Value};

const INPUT: &str = include_str!("../case.input.json");
const OUTPUT: &str = include_str!("../case.output.json");
const DIFF: &str = include_str!("../case.diff");

/// Reviews what a host answers.
fn answered(status: f64, text: &str) -> Done {
    let answer =
        Value::Object(vec![("status".into(), status.into()), ("text".into(), text.into())]).to_json();
    let host =
        Host::new().input(INPUT).grant("network:https:patches.example.com", move |operation, request| {
            assert_eq!(
                (operation, request),
                ("request", &br#"{"url":"https://patches.example.com/17.diff"}"#[..])
            );
            Ok(answer.clone().into_bytes())
        });
    host.call(reviewer)
}

#[test]
fn the_case_gives_its_answer() {
    let done = answered(200.0, DIFF);
    assert_eq!((done.exit_code, done.text().as_str()), (0, OUTPUT.trim_end()), "{:?}", done.log);
    assert_eq!(done.metrics, [("findings".to_owned(), 2.0)]);
}

#[test]
fn every_rule_finds_its_line_and_nothing_else_does() {
    let rules = |name: &str, line: &str| {
        let diff = format!("--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{line}\n");
        review(&diff).unwrap().findings.into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    let key = format!("key = \"AKIA{}\"", "7".repeat(16));
    for (line, rule) in [
        ("<<<<<<< ours", "conflict"),
        (">>>>>>> theirs", "conflict"),
        (&["-----BEGIN RSA ", "PRIVATE KEY-----"].concat(), "secret"),
        (&key, "secret"),
        ("a.unwrap();", "unwrap"),
        ("dbg!(a);", "print"),
        ("console.log(a)", "print"),
        (&"x".repeat(121), "long"),
    ] {
        assert_eq!(rules("a.rs", line), [rule], "{line}");
    }
    for (name, line) in
        [("a.txt", "a.unwrap();"), ("a.rs", "a.unwrap_or(b)"), ("a.rs", "AKIA7"), ("a.rs", "")]
    {
        assert!(rules(name, line).is_empty(), "{line}");
    }
    assert!(rules("a.rs", &"ü".repeat(120)).is_empty());
}

#[test]
fn what_is_no_diff_is_refused_where_it_goes_wrong() {
    for (diff, wrong) in [
        ("", "it is no unified diff"),
        ("hello", "it is no unified diff"),
        ("+++ b/a\n@@ -1 +x @@\n", "line 2 is no head of a hunk"),
        ("+++ b/a\n@@ -1 +1 @@\n-a\n", "the last hunk is cut off"),
        ("+++ b/a\n@@ -1 +1 @@\n-a\n-b\n", "line 4 is none of a hunk"),
        ("+++ b/a\n@@ -1 +1 @@\n*a\n", "line 3 is none of a hunk"),
    ] {
        assert_eq!(review(diff), Err(wrong.to_owned()), "{diff}");
    }
    let many = format!("+++ b/a.rs\n@@ -0,0 +1,500 @@\n{}", "+dbg!(a)\n".repeat(500));
    assert_eq!(review(&many).unwrap().findings.len(), MAX_FINDINGS);
    let done = answered(200.0, "hello");
    let line = "input: https://patches.example.com/17.diff: it is no unified diff";
    assert_eq!((done.exit_code, done.log), (2, vec![(Level::Error, line.to_owned())]));
}

#[test]
fn another_host_is_refused_before_anything_is_sent() {
    let ask = |url: &str| {
        let host = Host::new().input(format!(r#"{{"url":"{url}"}}"#));
        host.grant("network:https:patches.example.com", |_, _| panic!("nothing is sent")).call(reviewer)
    };
    for url in [
        "https://evil.example/17.diff",
        "http://patches.example.com/17.diff",
        "https://patches.example.com.evil.example/",
    ] {
        let done = ask(url);
        assert_eq!(
            (done.exit_code, done.log),
            (3, vec![(Level::Error, HostError::NotInManifest.to_string())]),
            "{url}"
        );
    }
    for url in ["ftp://patches.example.com/", "patches.example.com", "https:///17.diff"] {
        assert_eq!(ask(url).exit_code, 2, "{url}");
    }
    assert_eq!(answered(404.0, "").exit_code, 1);
    assert_eq!(answered(302.0, DIFF).exit_code, 1);
}
