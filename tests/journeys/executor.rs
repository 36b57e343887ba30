//! An executor's operator: what is admitted runs, what is not is explained.

use mentat_tests::agent::{sentiment, signed};
use mentat_tests::stack::Stack;
use serde_json::Value;

#[test]
fn an_admitted_module_runs_and_everything_else_is_denied_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    let agent = folder.to_str().unwrap();

    stack.ctl(&["explain", agent]).success();
    let input = dir.path().join("text");
    std::fs::write(&input, "Not good. I love it! never bad").unwrap();
    let ran = stack.ctl(&["--json", "run", agent, "--input", input.to_str().unwrap()]).success().json();
    let answer: Value = serde_json::from_str(ran["text"].as_str().unwrap()).unwrap();
    assert_eq!(answer["words"], 7);
    assert_eq!((answer["positive"].as_u64(), answer["negative"].as_u64()), (Some(2), Some(1)));
    assert_eq!(ran["exit_code"], 0);
    // A loaded agent is called by its id; the same input gives the same answer.
    let again = stack
        .ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], b"Not good. I love it! never bad");
    assert_eq!(again.success().stdout.trim_end(), ran["text"].as_str().unwrap());
    // Nothing without attestation ever runs.
    let unsigned = sentiment(dir.path(), "unsigned", |manifest| manifest);
    stack.ctl(&["audit-capabilities", unsigned.to_str().unwrap()]).success();
    let refused = stack.ctl(&["--json", "run", unsigned.to_str().unwrap()]);
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    stack.ctl(&["run", "mentatlab.unknown"]).refused(1, "mentatlab.unknown");
}

#[test]
fn the_wat_module_meets_its_description_on_odd_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    stack.ctl(&["run", folder.to_str().unwrap()]).success();
    let run = |input: &[u8]| {
        let done = stack.ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], input).success();
        serde_json::from_str::<Value>(done.stdout.trim_end()).unwrap()
    };
    let empty = run(b"\n");
    assert_eq!((empty["words"].as_u64(), empty["label"].as_str()), (Some(0), Some("neutral")));
    let binary = run(&(0..=255_u8).cycle().take(4096).collect::<Vec<_>>());
    assert_eq!(binary["words"], 32, "two runs of letters in each of sixteen rounds");
    let long = run("word ".repeat(10_000).as_bytes());
    assert_eq!(long["top"][0]["count"], 10_000);
    let many: String = (0..20_000_u32).map(|n| format!("{} ", letters(n))).collect();
    assert_eq!(run(many.as_bytes())["distinct"], 12_288, "the table holds so many and no more");
    let too_large = vec![b'a'; (1 << 20) + 1];
    stack
        .ctl_with_input(&["run", "mentatlab.sentiment", "--input", "-"], &too_large)
        .refused(1, "ended with code 1");
}

/// A word for a number.
fn letters(mut number: u32) -> String {
    let mut word = String::from("w");
    for _ in 0..4 {
        word.push(char::from(b'a' + u8::try_from(number % 26).unwrap()));
        number /= 26;
    }
    word
}
