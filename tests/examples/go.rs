//! The metric calculator, in Go: a core module by TinyGo, and a command over WASI preview 1 by Go, from one source.

use std::path::Path;

use mentat_tests::stack::Stack;

use crate::toolchain::{Toolchain, make};
use crate::{metrics, ran, release, sdk_folder, signed_and_run, stack};

/// Bytes of the core module; the aim of the SDK.
const LARGEST: u64 = 500_000;
/// Bytes of the command: Go's own runtime is nearly all of it.
const LARGEST_COMMAND: u64 = 5_000_000;

/// What it records, by both compilers.
const METRICS: [&str; 7] = ["sum", "mean", "minimum", "median", "p95", "maximum", "deviation"];

/// Values of a large input.
const MANY: usize = 50_000;

/// Signs and runs what was built, and returns what `run` said after the answer was compared.
fn answered(parent: &Path, stack: &Stack, largest: u64) -> serde_json::Value {
    let example = sdk_folder("examples/metric-calculator");
    let folder = release(parent, "metric-calculator", largest);
    let done = signed_and_run(stack, &folder, &example.join("case.input.json"));
    let expected = std::fs::read_to_string(example.join("case.output.json")).unwrap();
    assert_eq!(done["text"], expected.trim_end());
    let input = parent.join("input");
    std::fs::write(&input, r#"{"values":[]}"#).unwrap();
    ran(stack, folder.to_str().unwrap(), &input).refused(1, "there are no values");
    // Enough for the runtime to ask for more memory than it begins with.
    let many = vec!["0.5"; MANY].join(",");
    std::fs::write(&input, format!(r#"{{"values":[{many}]}}"#)).unwrap();
    let answer = ran(stack, folder.to_str().unwrap(), &input).success().json();
    let answer: serde_json::Value = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
    assert_eq!((&answer["count"], &answer["sum"]), (&MANY.into(), &(MANY / 2).into()));
    done
}

#[test]
fn the_metric_calculator_is_built_by_both_compilers_admitted_and_run() {
    let go = Toolchain::Go.is_here("the metric calculator as a command");
    let tinygo = Toolchain::TinyGo.is_here("the metric calculator as a core module");
    if !go && !tinygo {
        return;
    }
    let example = sdk_folder("examples/metric-calculator");
    let dir = tempfile::tempdir().unwrap();
    let stack = stack(dir.path());
    if go {
        make(&example, &["test", "go"]);
        let done = answered(&dir.path().join("go"), &stack, LARGEST_COMMAND);
        // What a command writes to its standard error is read as what it is.
        assert_eq!(metrics(&done), METRICS);
        assert_eq!(done["log"].as_array().map(Vec::len), Some(0));
        // What is more than its memory ends it as any program that is out of memory.
        let input = dir.path().join("input");
        std::fs::write(&input, format!(r#"{{"values":[{}]}}"#, vec!["0.5"; 100 * MANY].join(","))).unwrap();
        ran(&stack, "mentatlab.metric-calculator", &input).refused(1, "out of memory");
    }
    if tinygo {
        make(&example, &["--always-make"]);
        let done = answered(&dir.path().join("tinygo"), &stack, LARGEST);
        assert_eq!(metrics(&done), METRICS);
    }
}
