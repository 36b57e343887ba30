//! The fake host answers as every other host does: the cases of `sdk/cases.json` that need no addresses.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;

use super::*;
use crate::fake::Host;
use crate::json::{self, Value};
use crate::{Output, Result};

const TABLE: &str = include_str!("../../../cases.json");

fn text(step: &Value, name: &str) -> Option<String> {
    match step.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn number(step: &Value, name: &str) -> Option<f64> {
    match step.get(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    }
}

/// What a step gives. A text that is no UTF-8 cannot be passed in this language: there is nothing to give.
fn done(step: &Value, kept: &BTreeMap<String, i32>) -> Option<i64> {
    let call = text(step, "call").expect("a call");
    if step.get("hex").is_some() {
        return None;
    }
    let named = text(step, "text").unwrap_or_default().repeat(number(step, "times").unwrap_or(1.0) as usize);
    let room = |name: &str| vec![0_u8; number(step, name).unwrap_or_default() as usize];
    let offset = number(step, "offset").unwrap_or_default();
    let handle = match step.get("handle") {
        Some(Value::String(name)) => kept[name],
        Some(Value::Number(handle)) => *handle as i32,
        _ => 0,
    };
    let value = match text(step, "value").as_deref() {
        Some("nan") => f64::NAN,
        Some(_) => f64::INFINITY,
        None => number(step, "value").unwrap_or_default(),
    };
    let given = match call.as_str() {
        "input_len" => return Some(input_len()),
        "read_input" => read_input(&mut room("cap"), offset as usize),
        "write_output" => write_output(&room("bytes")),
        "record_metric" => record_metric(&named, value),
        "buffer_len" => return Some(buffer_len(handle)),
        "buffer_read" => buffer_read(handle, &mut room("cap"), offset as i64),
        "close" => close(handle),
        "request_capability" => request_capability(&named),
        "invoke_capability" => invoke_capability(handle, &named, &room("bytes")),
        "download_media" => download_media(&named),
        "upload_media" => upload_media(&named, &room("bytes")),
        "start_stream" => start_stream(&named),
        "write_stream" => write_stream(handle, &room("bytes")),
        "end_stream" => end_stream(handle),
        other => panic!("no such call: {other}"),
    };
    Some(given.into())
}

fn serve(name: &str, steps: &[Value]) -> Result<Output> {
    let mut kept = BTreeMap::new();
    for (place, step) in steps.iter().enumerate() {
        for _ in 0..number(step, "again").unwrap_or(1.0) as usize {
            let Some(got) = done(step, &kept) else { continue };
            if let Some(name) = text(step, "as") {
                kept.insert(name, got as i32);
            }
            match step.get("gives") {
                Some(Value::Number(want)) => assert_eq!(got, *want as i64, "{name}: step {place}"),
                _ => assert!(got > 0, "{name}: step {place}: {got}"),
            }
        }
    }
    Ok(Output::new())
}

#[test]
fn the_fake_host_answers_as_every_other_host() {
    let table = json::parse(TABLE).unwrap();
    let Some(Value::Array(cases)) = table.get("cases") else { panic!("no cases") };
    assert!(cases.len() >= 10);
    for case in cases {
        let (Some(Value::String(name)), Some(Value::Array(steps))) = (case.get("name"), case.get("steps"))
        else {
            panic!("no case: {case:?}")
        };
        if steps.iter().any(|step| step.get("ptr").is_some()) {
            continue;
        }
        let mut host = Host::new().input("0123456789").environment("TOKEN", "s3cret").media();
        if case.get("streams") != Some(&Value::Bool(false)) {
            host = host.streams();
        }
        assert_eq!(host.call(|_, _| serve(name, steps)).exit_code, 0, "{name}");
    }
}
