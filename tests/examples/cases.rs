//! The fake host in C answers as every other host does: a program is written from `sdk/cases.json`, one call for each step. The
//! other hosts read the table themselves: the executor, and the tests of the SDKs for Rust, Go and AssemblyScript.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::sdk_folder;

const HEAD: &str = r#"
#include <math.h>
#include <stdio.h>
#include "fake/mentat_fake.h"

static uint8_t room[(8 << 20) + 1];
static int wrong;

static int32_t token(const char *operation, const void *arguments, size_t len, void *result, size_t cap) {
  (void)arguments, (void)len, (void)cap;
  if (strcmp(operation, "get") != 0) return MENTAT_INVALID_ARGUMENT;
  memcpy(result, "s3cret", 6);
  return 6;
}

static void begin(int streams) {
  mentat_fake_reset();
  mentat_fake.input = "0123456789";
  mentat_fake.input_len = 10;
  mentat_fake.capability = "env:TOKEN";
  mentat_fake.operation = token;
  mentat_fake.media = 1;
  mentat_fake.streams = streams;
}

static int64_t gives(const char *step, int64_t got, int handle, int64_t want) {
  if (handle ? got > 0 : got == want) return got;
  printf("%s: %lld\n", step, (long long)got);
  wrong = 1;
  return got;
}

"#;

/// The bytes of a text as the elements of an array, and their number.
fn text(step: &Value) -> (String, usize) {
    let bytes: Vec<u8> = match (step["text"].as_str(), step["hex"].as_str()) {
        (Some(text), _) => {
            let times = step["times"].as_u64().unwrap_or(1);
            text.repeat(times.try_into().unwrap()).into_bytes()
        }
        (None, Some(hex)) => {
            let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap().try_into().unwrap()).collect();
            digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
        }
        (None, None) => return ("room".to_owned(), 0),
    };
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    (format!("\"{escaped}\""), bytes.len())
}

fn expression(step: &Value) -> String {
    let (text, len) = text(step);
    let handle = match &step["handle"] {
        Value::String(name) => format!("kept_{name}"),
        number => number.to_string(),
    };
    let value = match &step["value"] {
        Value::String(name) if name == "nan" => "NAN".to_owned(),
        Value::String(_) => "INFINITY".to_owned(),
        number => number.to_string(),
    };
    let (bytes, cap, offset) = (&step["bytes"], &step["cap"], &step["offset"]);
    let call = step["call"].as_str().unwrap();
    let arguments = match call {
        "input_len" => String::new(),
        "read_input" => format!("room, {cap}, {offset}"),
        "write_output" => format!("room, {bytes}"),
        "record_metric" => format!("{text}, {len}, {value}"),
        "buffer_len" | "close" | "end_stream" => handle,
        "buffer_read" => format!("{handle}, room, {cap}, {offset}"),
        "request_capability" | "download_media" | "start_stream" => format!("{text}, {len}"),
        "invoke_capability" => format!("{handle}, {text}, {len}, room, {bytes}"),
        "upload_media" => format!("{text}, {len}, room, {bytes}"),
        "write_stream" => format!("{handle}, room, {bytes}"),
        other => panic!("no such call: {other}"),
    };
    format!("mentat_{call}({arguments})")
}

#[test]
fn the_fake_host_in_c_answers_as_every_other_host() {
    let table: Value = serde_json::from_slice(&std::fs::read(sdk_folder("cases.json")).unwrap()).unwrap();
    let mut program = format!("#include <string.h>{HEAD}int main(void) {{\n");
    let mut steps_done = 0;
    for case in table["cases"].as_array().unwrap() {
        let steps = case["steps"].as_array().unwrap();
        if steps.iter().any(|step| step.get("ptr").is_some()) {
            continue;
        }
        let kept: std::collections::BTreeSet<&str> =
            steps.iter().filter_map(|step| step["as"].as_str()).collect();
        let names: String = kept.iter().map(|name| format!("int32_t kept_{name} = 0; ")).collect();
        writeln!(program, "  {{ {names}begin({});", i32::from(case["streams"] != false)).unwrap();
        for (place, step) in steps.iter().enumerate() {
            let (is_handle, want) =
                (i32::from(step["gives"].is_string()), step["gives"].as_i64().unwrap_or(0));
            let label = format!("{}: step {place}", case["name"].as_str().unwrap());
            let again = step["again"].as_u64().unwrap_or(1);
            let keep = step["as"].as_str().map(|name| format!("kept_{name} = (int32_t)")).unwrap_or_default();
            let call = expression(step);
            writeln!(
                program,
                "    for (int turn = 0; turn < {again}; turn++) {keep}gives(\"{label}\", {call}, {is_handle}, {want});"
            )
            .unwrap();
            steps_done += 1;
        }
        writeln!(program, "  }}").unwrap();
    }
    assert!(steps_done > 90, "{steps_done}");
    program.push_str("  return wrong;\n}\n");
    let dir = tempfile::tempdir().unwrap();
    let (source, built) = (dir.path().join("cases.c"), dir.path().join("cases"));
    std::fs::write(&source, program).unwrap();
    let sdk = sdk_folder("c");
    let done = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-g", "-I"])
        .arg(&sdk)
        .arg("-o")
        .arg(&built)
        .args([&source, &sdk.join("fake/mentat_fake.c")])
        .arg("-lm")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = Command::new(&built).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
