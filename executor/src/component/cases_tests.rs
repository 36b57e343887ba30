//! The cases of `sdk/cases.json` once more, through components: each becomes a component that does its steps over the world
//! `mentat:agent` and answers with what each gave. The types of the component model settle some of them: a component has no
//! addresses, reads a list that it was given without asking, and does not survive a handle that is not its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use executor_engine::limits::MAX_TRANSFER_BYTES;
use serde_json::{Value, json};

use crate::abi::{MAX_NAME_BYTES, cases, granted, steps_of, text};
use crate::admission::{GrantSet, GrantSources};
use crate::egress::{Egress, EgressRules};
use crate::media::{MediaLimits, MediaStore};
use crate::runtime::{Call, CallLimits};
use crate::streams::Pipe;
use crate::testing::texts::{CAPABILITY, ERROR, libc};
use crate::testing::{prepare, runtime};

/// Results of steps stand at 0, what a host function answers here, texts from the next one on.
const ANSWER: u32 = 2048;
const TEXTS: usize = 4096;
/// Zeros and room for lists; what the host hands over stands behind them.
const ROOM: u32 = 131_072;
const PAGES: u32 = 200;

/// Functions of the world: their name in the cases, interface, name there, and type as the component calls them.
const FUNCTIONS: [(&str, &str, &str, &str); 13] = [
    ("input_len", "io", "input-len", "(result i64)"),
    ("read_input", "io", "read-input", "(param i64 i32 i32)"),
    ("write_output", "io", "write-output", "(param i32 i32 i32)"),
    ("record_metric", "metric", "record-metric", "(param i32 i32 f64 i32)"),
    ("request_capability", "capability", "request", "(param i32 i32 i32)"),
    ("invoke_capability", "capability", "[method]handle.invoke", "(param i32 i32 i32 i32 i32 i32)"),
    ("download_media", "media", "download", "(param i32 i32 i32)"),
    ("upload_media", "media", "upload", "(param i32 i32 i32 i32 i32)"),
    ("object_size", "media", "[method]object.size", "(param i32) (result i64)"),
    ("object_read", "media", "[method]object.read", "(param i32 i64 i32 i32)"),
    ("start_stream", "stream", "[static]out-stream.open", "(param i32 i32 i32)"),
    ("write_stream", "stream", "[method]out-stream.write", "(param i32 i32 i32 i32)"),
    ("end_stream", "stream", "[method]out-stream.end", "(param i32 i32)"),
];

const IMPORTS: &str = r#"
  (import "mentat:agent/io@1.0.0" (instance $io
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "input-len" (func (result u64)))
    (export "read-input" (func (param "offset" u64) (param "max" u32) (result (result (list u8) (error $e)))))
    (export "write-output" (func (param "data" (list u8)) (result (result (error $e)))))))
  (import "mentat:agent/metric@1.0.0" (instance $metric
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "record-metric" (func (param "name" string) (param "value" f64) (result (result (error $e)))))))
  (import "mentat:agent/media@1.0.0" (instance $media
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "object" (type $o (sub resource)))
    (export "[method]object.size" (func (param "self" (borrow $o)) (result u64)))
    (export "[method]object.read" (func (param "self" (borrow $o)) (param "offset" u64) (param "max" u32)
      (result (result (list u8) (error $e)))))
    (export "download" (func (param "reference" string) (result (result (own $o) (error $e)))))
    (export "upload" (func (param "media-type" string) (param "data" (list u8)) (result (result string (error $e)))))))
  (import "mentat:agent/stream@1.0.0" (instance $stream
    (alias outer 1 $error (type $e'))
    (export "error" (type $e (eq $e')))
    (export "out-stream" (type $s (sub resource)))
    (export "[static]out-stream.open" (func (param "id" string) (result (result (own $s) (error $e)))))
    (export "[method]out-stream.write" (func (param "self" (borrow $s)) (param "chunk" (list u8)) (result (result u32 (error $e)))))
    (export "[method]out-stream.end" (func (param "self" (borrow $s)) (result (result u64 (error $e)))))))
  (alias export $capability "handle" (type $handle))
  (alias export $media "object" (type $object))
  (alias export $stream "out-stream" (type $out-stream))"#;

/// What a step keeps for later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Capability,
    List,
    Object,
    Stream,
}

impl Kind {
    fn of(call: &str) -> Self {
        match call {
            "request_capability" => Self::Capability,
            "download_media" => Self::Object,
            "start_stream" => Self::Stream,
            _ => Self::List,
        }
    }

    /// Whether a function takes it.
    fn fits(self, call: &str) -> bool {
        match call {
            "invoke_capability" => self == Self::Capability,
            "write_stream" | "end_stream" => self == Self::Stream,
            "buffer_len" => matches!(self, Self::List | Self::Object),
            "buffer_read" => self == Self::Object,
            _ => true,
        }
    }
}

/// What was kept, and what has become of it.
#[derive(Debug, Clone, Copy)]
struct Kept {
    kind: Kind,
    closed: bool,
}

/// What a component gets where a core module gets what the case says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Nothing any more: the call ends there.
    End,
    Handle,
    Number(i64),
}

/// A case of the error of a host function, as [`component`] tells it.
fn error(code: i64) -> Expected {
    let case = match code {
        -1 | -2 => 0,
        -5 => 1,
        -3 => 2,
        -4 => 3,
        -6 => 4,
        -7 => 5,
        -9 => 6,
        -10 => 7,
        -8 => 8,
        other => panic!("no such code: {other}"),
    };
    Expected::Number(-1 - case)
}

/// What a step gives in a component; nothing for one that a component cannot do.
fn expected(step: &Value, kept: &BTreeMap<&str, Kept>) -> Option<Expected> {
    let call = step["call"].as_str().unwrap();
    let held = step["handle"].as_str().map(|name| kept[name]);
    let is_list = held.is_some_and(|held| held.kind == Kind::List);
    if step.get("ptr").is_some() || (is_list && matches!(call, "buffer_read" | "close")) {
        return None;
    }
    let foreign = held.map_or(step.get("handle").is_some(), |held| held.closed || !held.kind.fits(call));
    let longer = step["bytes"].as_u64().is_some_and(|bytes| bytes > MAX_TRANSFER_BYTES as u64);
    // A text is UTF-8, a list no longer than what one call may carry, a handle the guest's own, or there is no call.
    if step.get("hex").is_some() || longer || foreign {
        return Some(Expected::End);
    }
    let gives = step["gives"].as_i64();
    Some(match (call, gives) {
        // A list is given at once, and takes no handle.
        ("invoke_capability", Some(-6)) if text(step).len() <= MAX_NAME_BYTES => Expected::Handle,
        // Whoever has room for more gets what there is.
        ("read_input", Some(-6)) => Expected::Number(10),
        ("write_output" | "record_metric", Some(0..)) => Expected::Number(0),
        (_, Some(number @ 0..)) => Expected::Number(number),
        (_, Some(code)) => error(code),
        (_, None) => Expected::Handle,
    })
}

/// The steps that a component can do, with what each gives.
fn plan<'a>(steps: &[&'a Value]) -> Vec<(&'a Value, Kind, Expected)> {
    let mut kept: BTreeMap<&str, Kept> = BTreeMap::new();
    let mut plan = Vec::new();
    for step in steps {
        let call = step["call"].as_str().unwrap();
        let Some(expected) = expected(step, &kept) else { continue };
        let used = step["handle"].as_str().and_then(|name| kept.get_mut(name));
        let kind = used.as_ref().map_or(Kind::of(call), |kept| kept.kind);
        if let (Some(kept), true) = (used, expected != Expected::End) {
            kept.closed |= call == "close";
        }
        if let (Some(name), true) = (step["as"].as_str(), expected != Expected::End) {
            kept.insert(name, Kept { kind: Kind::of(call), closed: false });
        }
        plan.push((*step, kind, expected));
    }
    plan
}

/// Does a step and leaves what it gave in `$r`; what it keeps is in `$kept_NAME`, and where a list stands in `$at_NAME`.
fn statement(step: &Value, kind: Kind, at: usize) -> String {
    let list = |length: &Value| format!("(i32.const {ROOM}) (i32.const {length})");
    let text = match step["list"].as_str() {
        Some(name) => format!("(local.get $at_{name}) (local.get $kept_{name})"),
        None => format!("(i32.const {at}) (i32.const {})", text(step).len()),
    };
    let args = match step["args"].as_str() {
        Some(args) => {
            format!("(i32.const {}) (i32.const {})", at + step["text"].as_str().unwrap().len(), args.len())
        }
        None => list(&step["bytes"]),
    };
    let handle = match &step["handle"] {
        Value::String(name) => format!("(local.get $kept_{name})"),
        number => format!("(i32.const {number})"),
    };
    let value = step["value"].as_str().map_or_else(|| step["value"].to_string(), str::to_owned);
    let (offset, cap) = (&step["offset"], &step["cap"]);
    let call = step["call"].as_str().unwrap();
    let unit = "(i64.const 0)".to_owned();
    let number = format!("(i64.load32_u (i32.const {}))", ANSWER + 4);
    let length = format!("(i64.load32_u (i32.const {}))", ANSWER + 8);
    let (function, arguments, gives, error_at) = match call {
        "input_len" => return "(local.set $r (call $input_len))".to_owned(),
        "buffer_len" if step["handle"].is_string() && kind == Kind::List => {
            return format!("(local.set $r (i64.extend_i32_u {handle}))");
        }
        "buffer_len" => return format!("(local.set $r (call $object_size {handle}))"),
        "close" => {
            let drop = match kind {
                Kind::Capability | Kind::List => "handle",
                Kind::Object => "object",
                Kind::Stream => "out-stream",
            };
            return format!("(call $drop-{drop} {handle}) (local.set $r (i64.const 0))");
        }
        "read_input" => (call, format!("(i64.const {offset}) (i32.const {cap})"), length, 4),
        "write_output" => (call, list(&step["bytes"]), unit, 4),
        "record_metric" => (call, format!("{text} (f64.const {value})"), unit, 4),
        "request_capability" | "download_media" | "start_stream" => (call, text, number, 4),
        "invoke_capability" => (call, format!("{handle} {text} {args}"), length, 4),
        "upload_media" => (call, format!("{text} {args}"), length, 4),
        "buffer_read" => {
            ("object_read", format!("{handle} (i64.const {offset}) (i32.const {cap})"), length, 4)
        }
        "write_stream" => (call, format!("{handle} {}", list(&step["bytes"])), number, 4),
        "end_stream" => (call, handle, format!("(i64.load (i32.const {}))", ANSWER + 8), 8),
        other => panic!("no such call: {other}"),
    };
    format!(
        "(call ${function} {arguments} (i32.const {ANSWER}))
         (if (i32.eqz (i32.load8_u (i32.const {ANSWER})))
           (then (local.set $r {gives}))
           (else (local.set $r (i64.sub (i64.const -1) (i64.load8_u (i32.const {}))))))",
        ANSWER + error_at
    )
}

/// A component that does the steps, and writes what each gave behind its output.
fn component(steps: &[(&Value, Kind)]) -> String {
    let (mut lowered, mut imports, mut given) = (String::new(), String::new(), String::new());
    for (name, interface, export, ty) in FUNCTIONS {
        writeln!(
            lowered,
            "(core func ${name} (canon lower (func ${interface} \"{export}\") (memory $libc \"memory\") (realloc (func $libc \"realloc\"))))"
        )
        .unwrap();
        writeln!(imports, "(import \"host\" \"{name}\" (func ${name} {ty}))").unwrap();
        writeln!(given, "(export \"{name}\" (func ${name}))").unwrap();
    }
    for resource in ["handle", "object", "out-stream"] {
        writeln!(lowered, "(core func $drop-{resource} (canon resource.drop ${resource}))").unwrap();
        writeln!(imports, "(import \"host\" \"drop-{resource}\" (func $drop-{resource} (param i32)))")
            .unwrap();
        writeln!(given, "(export \"drop-{resource}\" (func $drop-{resource}))").unwrap();
    }
    let (mut data, mut body, mut at) = (String::new(), String::new(), TEXTS);
    let mut locals: BTreeMap<&str, ()> = BTreeMap::new();
    for (place, (step, kind)) in steps.iter().enumerate() {
        let mut bytes = text(step);
        bytes.extend(step["args"].as_str().unwrap_or_default().bytes());
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(data, "(data (i32.const {at}) \"{escaped}\")").unwrap();
        writeln!(body, "{}", statement(step, *kind, at)).unwrap();
        if let Some(name) = step["as"].as_str() {
            locals.insert(name, ());
            writeln!(
                body,
                "(local.set $kept_{name} (i32.wrap_i64 (local.get $r)))
                 (local.set $at_{name} (i32.load (i32.const {})))",
                ANSWER + 4
            )
            .unwrap();
        }
        writeln!(body, "(i64.store (i32.const {}) (local.get $r))", 8 * place).unwrap();
        at += bytes.len();
    }
    assert!(8 * steps.len() <= ANSWER as usize && at <= ROOM as usize);
    let locals: String =
        locals.keys().map(|name| format!(" (local $kept_{name} i32) (local $at_{name} i32)")).collect();
    format!(
        r#"(component{ERROR}{CAPABILITY}{IMPORTS}{libc}
  {lowered}
  (core module $m
    {imports}
    (import "libc" "memory" (memory {PAGES}))
    {data}
    (func (export "process") (result i32) (local $r i64){locals}
      {body}
      (call $write_output (i32.const 0) (i32.const {results}) (i32.const {ANSWER}))
      (i32.store (i32.const {ANSWER}) (i32.const 0)) (i32.const {ANSWER})))
  (core instance $m (instantiate $m (with "host" (instance {given})) (with "libc" (instance $libc))))
  (func (export "process") (result (result (error string)))
    (canon lift (core func $m "process") (memory $libc "memory"))))"#,
        libc = libc(PAGES, ROOM as usize + MAX_TRANSFER_BYTES + 65_536),
        results = 8 * steps.len(),
    )
}

/// Under what a case is played.
struct Scene<'a> {
    grants: &'a dyn Fn() -> GrantSet,
    limits: CallLimits,
}

impl Scene<'_> {
    /// Output and error code of a component that does these steps.
    fn call(&self, case: &Value, steps: &[(&Value, Kind)]) -> Result<Vec<u8>, &'static str> {
        let prepared = prepare(&component(steps), (self.grants)(), self.limits).unwrap();
        let pipe = (case["streams"] != false).then(Arc::<Pipe>::default);
        let call = Call { input: bytes::Bytes::from_static(b"0123456789"), ..Call::default() };
        let registration = runtime().register(&prepared, None);
        let ended = runtime().call_registered(&prepared, call, registration, pipe);
        ended.result.map(|outcome| outcome.output).map_err(|error| error.code())
    }

    /// Does the steps of a case, and every one that ends the guest in a component of its own, behind those before it.
    fn play(&self, case: &Value) {
        let plan = plan(&steps_of(case));
        let mut lasting: Vec<(&Value, Kind)> = Vec::new();
        let mut expected = Vec::new();
        for (step, kind, gives) in &plan {
            if *gives == Expected::End {
                let mut last = lasting.clone();
                last.push((*step, *kind));
                assert_eq!(self.call(case, &last).err(), Some("trap"), "{}: {step}", case["name"]);
            } else {
                lasting.push((*step, *kind));
                expected.push((*step, *gives));
            }
        }
        let output = self.call(case, &lasting).unwrap();
        let results = output[output.len() - 8 * lasting.len()..].chunks(8);
        let results = results.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
        for ((step, gives), got) in expected.into_iter().zip(results) {
            let right = match gives {
                Expected::Number(number) => got == number,
                Expected::Handle => got > 0,
                Expected::End => false,
            };
            assert!(right, "{}: gave {got} where {gives:?} was expected: {step}", case["name"]);
        }
    }
}

#[test]
fn components_get_what_core_modules_get() {
    for case in cases() {
        let media = tempfile::tempdir().unwrap();
        Scene { grants: &|| granted(media.path()), limits: CallLimits::default() }.play(&case);
    }
}

#[test]
fn a_component_learns_what_it_may_not_have_and_where_a_quota_ends() {
    let media = tempfile::tempdir().unwrap();
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let egress = {
        let _here = tokio.enter();
        let clients = [reqwest::Client::builder(), reqwest::Client::builder()];
        Arc::new(Egress::new(clients, EgressRules::default()).unwrap())
    };
    let grants = || {
        let names = ["network:https:api.example.com", "extension:media", "extension:stream"];
        let granted: Vec<_> = names.map(|text| text.parse().unwrap()).into();
        let limits = MediaLimits { object: 8, call: 12, ..MediaLimits::default() };
        let sources = GrantSources {
            media: Some(Arc::new(MediaStore::open(media.path().to_owned(), limits).unwrap())),
            network: Some(Arc::clone(&egress)),
            ..GrantSources::default()
        };
        sources.grant(&granted, granted.clone(), &[]).unwrap()
    };
    let elsewhere = r#"{"url":"https://other.example.com/"}"#;
    let scene = Scene { grants: &grants, limits: CallLimits { streamed: 4, ..CallLimits::default() } };
    for case in [
        json!({ "name": "a handle stands for what was granted and for nothing else", "steps": [
            { "call": "request_capability", "text": "network:https:api.example.com", "as": "n", "gives": "handle" },
            { "call": "request_capability", "text": "network:https:other.example.com", "gives": -3 },
            { "call": "invoke_capability", "handle": "n", "text": "request", "args": elsewhere, "gives": -4 },
            { "call": "invoke_capability", "handle": "n", "text": "request", "args": "no request", "gives": -1 },
            { "call": "close", "handle": "n", "gives": 0 },
            { "call": "invoke_capability", "handle": "n", "text": "request", "args": elsewhere, "gives": -5 }] }),
        json!({ "name": "what was kept is read back in pieces, and media have quotas", "steps": [
            { "call": "upload_media", "text": "text/plain", "bytes": 8, "as": "r", "gives": "handle" },
            { "call": "buffer_len", "handle": "r", "gives": 71 },
            { "call": "download_media", "list": "r", "as": "o", "gives": "handle" },
            { "call": "buffer_len", "handle": "o", "gives": 8 },
            { "call": "buffer_read", "handle": "o", "cap": 5, "offset": 0, "gives": 5 },
            { "call": "buffer_read", "handle": "o", "cap": 5, "offset": 5, "gives": 3 },
            { "call": "buffer_read", "handle": "o", "cap": 5, "offset": 8, "gives": 0 },
            { "call": "upload_media", "text": "text/plain", "bytes": 9, "gives": -6 },
            { "call": "upload_media", "text": "text/plain", "bytes": 4, "gives": "handle" },
            { "call": "upload_media", "text": "text/plain", "bytes": 1, "gives": -6 },
            { "call": "close", "handle": "o", "gives": 0 },
            { "call": "buffer_len", "handle": "o", "gives": -5 },
            { "call": "close", "handle": "o", "gives": -5 }] }),
        json!({ "name": "streams have a quota, and an end", "steps": [
            { "call": "start_stream", "text": "s", "as": "s", "gives": "handle" },
            { "call": "write_stream", "handle": "s", "bytes": 4, "gives": 4 },
            { "call": "write_stream", "handle": "s", "bytes": 1, "gives": -6 },
            { "call": "end_stream", "handle": "s", "gives": 1 },
            { "call": "end_stream", "handle": "s", "gives": -5 },
            { "call": "close", "handle": "s", "gives": 0 },
            { "call": "end_stream", "handle": "s", "gives": -5 }] }),
        json!({ "name": "a call with a single answer has no streams", "streams": false, "steps": [
            { "call": "start_stream", "text": "s", "gives": -8 }] }),
    ] {
        scene.play(&case);
    }
}
