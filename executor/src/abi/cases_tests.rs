//! The cases of `sdk/cases.json`, which the fake hosts of the SDKs are held to as well: each becomes a module that does its steps
//! and answers with what each gave.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use trust_store::capability::Capability;

use super::census::{self, FUNCTIONS};
use super::{ErrorCode, MAX_MEDIA_TYPE_BYTES, MAX_NAME_BYTES};
use crate::admission::{GrantSet, GrantSources};
use crate::media::{MediaLimits, MediaStore};
use crate::runtime::{Call, CallLimits};
use crate::streams::Pipe;
use crate::testing::{guest_state, prepare, runtime};

/// Pages of memory, the same in every host with addresses.
const PAGES: u32 = 200;
/// Where texts stand, and where zeros and room for results are. Results of steps stand at 0.
const TEXTS: usize = 4096;
const ROOM: u32 = 131_072;

/// The table that every host is held to.
pub(crate) fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/cases.json");
    let mut table: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = std::mem::take(table["cases"].as_array_mut().unwrap());
    assert!(cases.len() >= 10);
    cases
}

/// Its steps, each as often as it says.
pub(crate) fn steps_of(case: &Value) -> Vec<&Value> {
    let again = |step: &Value| usize::try_from(step["again"].as_u64().unwrap_or(1)).unwrap();
    let steps = case["steps"].as_array().unwrap();
    steps.iter().flat_map(|step| std::iter::repeat_n(step, again(step))).collect()
}

/// The text of a step.
pub(crate) fn text(step: &Value) -> Vec<u8> {
    match (step["text"].as_str(), step["hex"].as_str()) {
        (Some(text), _) => {
            text.repeat(usize::try_from(step["times"].as_u64().unwrap_or(1)).unwrap()).into_bytes()
        }
        (None, Some(hex)) => {
            let pairs = (0..hex.len()).step_by(2);
            pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        }
        (None, None) => Vec::new(),
    }
}

/// The call of a step. Its text, if it has one, stands at `at`.
fn expression(step: &Value, at: usize) -> String {
    let range = |length: &Value| {
        let ptr = step["ptr"].as_i64().unwrap_or(ROOM.into());
        format!("(i32.const {ptr}) (i32.const {length})")
    };
    let text = match (step.get("text"), step.get("hex")) {
        (None, None) => range(&step["bytes"]),
        _ => format!("(i32.const {at}) (i32.const {})", text(step).len()),
    };
    let handle = match &step["handle"] {
        Value::String(name) => format!("(local.get $kept_{name})"),
        number => format!("(i32.const {number})"),
    };
    let value = step["value"].as_str().map_or_else(|| step["value"].to_string(), str::to_owned);
    let (bytes, room) = (range(&step["bytes"]), range(&step["cap"]));
    let call = step["call"].as_str().unwrap();
    let arguments = match call {
        "input_len" => String::new(),
        "read_input" => format!("{room} (i32.const {})", step["offset"]),
        "write_output" => bytes,
        "record_metric" => format!("{text} (f64.const {value})"),
        "buffer_len" | "close" | "end_stream" => handle,
        "buffer_read" => format!("{handle} {room} (i64.const {})", step["offset"]),
        "request_capability" | "download_media" | "start_stream" => text,
        "invoke_capability" => format!("{handle} {text} {bytes}"),
        "upload_media" => format!("{text} {bytes}"),
        "write_stream" => format!("{handle} {bytes}"),
        other => panic!("no such call: {other}"),
    };
    let called = format!("(call ${call} {arguments})");
    if call.ends_with("_len") { called } else { format!("(i64.extend_i32_s {called})") }
}

/// A module that does the steps, and writes what each gave behind its output.
fn module(steps: &[&Value]) -> String {
    let (mut imports, mut data, mut body) = (String::new(), String::new(), String::new());
    for function in FUNCTIONS {
        let types = |types: &[census::Value]| {
            types.iter().map(|ty| format!(" {}", format!("{ty:?}").to_lowercase())).collect::<String>()
        };
        writeln!(
            imports,
            "(import \"mentat\" \"{0}\" (func ${0} (param{1}) (result{2})))",
            function.name,
            types(function.params),
            types(function.results)
        )
        .unwrap();
    }
    let mut at = TEXTS;
    for (place, step) in steps.iter().enumerate() {
        let bytes = text(step);
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(data, "(data (i32.const {at}) \"{escaped}\")").unwrap();
        writeln!(body, "(local.set $r {})", expression(step, at)).unwrap();
        if let Some(name) = step["as"].as_str() {
            writeln!(body, "(local.set $kept_{name} (i32.wrap_i64 (local.get $r)))").unwrap();
        }
        writeln!(body, "(i64.store (i32.const {}) (local.get $r))", 8 * place).unwrap();
        at += bytes.len();
    }
    assert!(8 * steps.len() <= TEXTS && at <= ROOM as usize);
    let kept: BTreeSet<&str> = steps.iter().filter_map(|step| step["as"].as_str()).collect();
    let locals: String = kept.iter().map(|name| format!(" (local $kept_{name} i32)")).collect();
    format!(
        "(module {imports} (memory (export \"memory\") {PAGES}) {data}
         (func (export \"process\") (result i32) (local $r i64){locals}
           {body} (drop (call $write_output (i32.const 0) (i32.const {}))) (i32.const 0)))",
        8 * steps.len()
    )
}

/// What a case is played with.
pub(crate) fn granted(media: &Path) -> GrantSet {
    let granted: Vec<Capability> =
        ["env:TOKEN", "extension:media", "extension:stream"].map(|text| text.parse().unwrap()).into();
    let sources = GrantSources {
        env: [("TOKEN".to_owned(), "s3cret".to_owned())].into(),
        media: Some(Arc::new(MediaStore::open(media.to_owned(), MediaLimits::default()).unwrap())),
        ..GrantSources::default()
    };
    sources.grant(&granted, granted.clone(), &[]).unwrap()
}

#[test]
fn the_executor_answers_as_the_fake_hosts_do() {
    for case in cases() {
        let dir = tempfile::tempdir().unwrap();
        let steps = steps_of(&case);
        let prepared = prepare(&module(&steps), granted(dir.path()), CallLimits::default()).unwrap();
        let pipe = (case["streams"] != false).then(Arc::<Pipe>::default);
        let call = Call { input: bytes::Bytes::from_static(b"0123456789"), ..Call::default() };
        let registration = runtime().register(&prepared, None);
        let outcome = runtime().call_registered(&prepared, call, registration, pipe).result.unwrap();
        let results = outcome.output.len() - 8 * steps.len();
        let results =
            outcome.output[results..].chunks(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
        for ((place, step), got) in steps.iter().enumerate().zip(results) {
            let right = step["gives"].as_i64().map_or(got > 0, |want| got == want);
            assert!(right, "{}: step {place} gave {got}: {step}", case["name"]);
        }
    }
}

#[test]
fn a_text_that_is_too_long_is_a_limit_for_components_as_well() {
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let mut state = guest_state();
    let capability: Capability = "env:TOKEN".parse().unwrap();
    assert_eq!(state.request(&long).err(), Some(ErrorCode::Limit));
    assert_eq!(state.request(&long[1..]).err(), Some(ErrorCode::InvalidArgument));
    assert_eq!(state.invoke(&capability, &long, b"").err(), Some(ErrorCode::Limit));
    assert_eq!(state.download(&long).err(), Some(ErrorCode::Limit));
    assert_eq!(state.upload(&long[..=MAX_MEDIA_TYPE_BYTES], b"").err(), Some(ErrorCode::Limit));
    assert_eq!(state.open_stream(&long).err(), Some(ErrorCode::Limit));
    let (extras, calls) = state.extras_and_calls();
    assert_eq!(extras.metrics.record(&calls.limits, &long, 1.0), Err(ErrorCode::Limit));
    assert_eq!(extras.metrics.record(&calls.limits, &long[1..], 1.0), Err(ErrorCode::InvalidArgument));
}
