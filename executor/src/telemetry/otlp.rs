//! OTLP: the messages of `opentelemetry.proto.collector.trace.v1` that a trace of calls needs, with their field numbers.
//!
//! Written here because the published crates bring the whole of an SDK with a queue of its own along; the messages are
//! frozen by the protocol's version 1, and what is left out is optional there.

use prost::{Message, Oneof};

use super::TracedCall;

/// Status code of OTLP for what failed.
const ERROR: i32 = 2;
/// Kinds of spans.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
/// Flags: sampled; and whether the parent is another process's is known, or true.
const SAMPLED: u32 = 0x1;
const PARENT_KNOWN: u32 = 0x100;
const PARENT_ELSEWHERE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

/// One request with these calls.
pub(super) fn encode(calls: &[TracedCall]) -> Vec<u8> {
    let scope = Scope { name: "mentat.executor".into(), version: env!("CARGO_PKG_VERSION").into() };
    let resource = Resource {
        attributes: vec![
            text("service.name", "mentat-executor"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
    };
    let spans = calls.iter().flat_map(spans).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    Export { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] }.encode_to_vec()
}

fn spans(call: &TracedCall) -> Vec<Span> {
    let named =
        [("mentat.agent", &call.agent), ("mentat.module", &call.module), ("mentat.instance", &call.instance)];
    let mut attributes: Vec<KeyValue> =
        named.into_iter().filter_map(|(key, value)| Some(text(key, value.as_deref()?))).collect();
    attributes.push(text("mentat.reason", &call.reason));
    let failed = call.reason != "success";
    let mut spans = vec![Span {
        trace_id: call.trace.to_vec(),
        span_id: call.span.to_vec(),
        parent_span_id: call.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: "execute".into(),
        kind: SERVER,
        start_time_unix_nano: call.began,
        end_time_unix_nano: call.ended,
        attributes,
        status: failed.then(|| Status { message: call.reason.clone(), code: ERROR }),
        flags: SAMPLED | PARENT_KNOWN | if call.parent.is_some() { PARENT_ELSEWHERE } else { 0 },
    }];
    spans.extend(call.phases.iter().map(|(phase, span, began, ended)| Span {
        trace_id: call.trace.to_vec(),
        span_id: span.to_vec(),
        parent_span_id: call.span.to_vec(),
        name: phase.as_str().into(),
        kind: INTERNAL,
        start_time_unix_nano: *began,
        end_time_unix_nano: *ended,
        attributes: Vec::new(),
        status: None,
        flags: SAMPLED | PARENT_KNOWN,
    }));
    spans
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::Text(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;

    #[test]
    fn the_form_is_frozen() {
        let call = TracedCall {
            trace: [1; 16],
            span: [2; 8],
            parent: Some([3; 8]),
            began: 5,
            ended: 9,
            phases: vec![(Phase::Run, [4; 8], 6, 8)],
            agent: Some("a.b".into()),
            module: None,
            instance: None,
            reason: "trap".into(),
        };
        // By the field numbers of opentelemetry/proto/trace/v1/trace.proto: 0a 1 bytes, 29 1 fixed64 of field 5 has none, and so on.
        let root = concat!(
            "0a1001010101010101010101010101010101",               // trace_id = 1
            "12080202020202020202",                               // span_id = 2
            "22080303030303030303",                               // parent_span_id = 4
            "2a0765786563757465",                                 // name = 5: execute
            "3002",                                               // kind = 6: server
            "390500000000000000",                                 // start_time_unix_nano = 7
            "410900000000000000",                                 // end_time_unix_nano = 8
            "4a150a0c6d656e7461742e6167656e7412050a03612e62",     // attributes = 9: mentat.agent = a.b
            "4a170a0d6d656e7461742e726561736f6e12060a0474726170", // mentat.reason = trap
            "7a0812047472617018",                                 // status = 15: message trap,
            "02",                                                 // code 2
            "850101030000",                                       // flags = 16: 0x301
        );
        let hex = hex::encode(encode(std::slice::from_ref(&call)));
        assert!(hex.contains(root), "{hex}");
        let run = "12080404040404040404220802020202020202022a0372756e3001390600000000000000410800000000000000850101010000";
        assert!(hex.contains(run), "{hex}");
        let good = TracedCall { reason: "success".into(), ..call };
        assert!(!hex::encode(encode(&[good])).contains("7a08"), "what succeeded has no status");
    }
}
