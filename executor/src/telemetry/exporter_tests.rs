//! A collector in this process: what leaves is a span tree with the caller's span as its parent, and nobody waits for it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use parking_lot::Mutex;
use service::ClientTls;

use super::*;
use crate::admission::GrantSet;
use crate::runtime::CallLimits;
use crate::testing::{Server, wat_echo};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Bodies of requests, and what the first ones are answered with.
fn collector(answers: Vec<&'static str>) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&bodies);
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
            let end = loop {
                if let Some(end) = read.windows(4).position(|end| end == b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => read.extend_from_slice(&buffer[..count]),
                    _ => break 0,
                }
            };
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            assert!(
                head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"),
                "{head}"
            );
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let length: usize = length.parse().unwrap();
            while read.len() < end + length {
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => read.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            kept.lock().push(read[end..].to_vec());
            let status = answers.next().unwrap_or("200 OK");
            let _ = write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (url, bodies)
}

fn settings(url: String, queue: usize) -> TelemetrySettings {
    TelemetrySettings { url, ratio: 1.0, queue, tls: ClientTls::new("telemetry", None, None, None).unwrap() }
}

/// A protobuf message, read by nothing but its wire form: field numbers and what they hold.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => varint(&mut bytes).to_be_bytes().to_vec(),
            1 | 5 => {
                let (value, rest) = bytes.split_at(if key & 7 == 1 { 8 } else { 4 });
                bytes = rest;
                value.to_vec()
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                value.to_vec()
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, value));
    }
    found
}

fn all(message: &[u8], field: u64) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|(number, _)| *number == field).map(|(_, value)| value).collect()
}

fn one(message: &[u8], field: u64) -> Vec<u8> {
    all(message, field).into_iter().next().unwrap_or_default()
}

/// Name, trace, id and parent of every span of a request, by the field numbers of the protocol.
fn spans(body: &[u8]) -> Vec<(String, String, String, String)> {
    let scopes = all(body, 1).into_iter().flat_map(|resource| all(&resource, 2));
    let spans = scopes.flat_map(|scope| all(&scope, 2));
    let span = |span: Vec<u8>| {
        let hex = |field| hex::encode(one(&span, field));
        (String::from_utf8(one(&span, 5)).unwrap(), hex(1), hex(2), hex(4))
    };
    spans.map(span).collect()
}

async fn wait(bodies: &Mutex<Vec<Vec<u8>>>, count: usize) -> Vec<Vec<u8>> {
    for _ in 0..10_000 {
        if bodies.lock().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let bodies = bodies.lock().clone();
    assert_eq!(bodies.len(), count);
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_either_interface_is_a_tree_below_its_callers_span() {
    let (url, bodies) = collector(Vec::new());
    let metrics = Metrics::default();
    let server = Server::traced(start(&settings(url, 64), &metrics).unwrap()).await;
    server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await;
    let header = format!("00-{TRACE}-{PARENT}-01");
    let address = server.address;
    let over_http = reqwest::Client::new()
        .post(format!("http://{address}/api/v1/agents/test.agent/execute"))
        .header("traceparent", &header)
        .header(CONTENT_TYPE, "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(over_http.status(), 200);
    let channel =
        tonic::transport::Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = executor_api::v1::executor_client::ExecutorClient::new(channel);
    let call = executor_api::v1::ExecuteAgentRequest { agent: "test.agent".into(), ..Default::default() };
    let mut request = tonic::Request::new(call);
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    client.execute_agent(request).await.unwrap();

    let mut found = Vec::new();
    for _ in 0..10_000 {
        found = bodies.lock().iter().flat_map(|body| spans(body)).collect::<Vec<_>>();
        if found.len() == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(found.len(), 10, "two calls of five spans each: {found:?}");
    assert!(found.iter().all(|(_, trace, ..)| trace == TRACE), "{found:?}");
    let roots: Vec<_> = found.iter().filter(|(_, _, _, parent)| parent == PARENT).collect();
    assert_eq!(roots.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["execute", "execute"]);
    for (_, _, root, _) in roots {
        let below: Vec<&str> =
            found.iter().filter(|(_, _, _, parent)| parent == root).map(|(name, ..)| name.as_str()).collect();
        assert_eq!(below, ["admission", "queue", "run", "receipt"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_and_counts_and_a_batch_is_tried_twice() {
    let (url, bodies) = collector(vec!["503 Service Unavailable", "200 OK", "400 Bad Request", "200 OK"]);
    let metrics = Metrics::default();
    let tracer = start(&settings(url, 1), &metrics).unwrap();
    drop(tracer.begin(None));
    // Not only when the time for collecting is over.
    tracer.flush().await;
    let first = wait(&bodies, 2).await;
    assert_eq!(first[0], first[1], "the same once more");
    drop(tracer.begin(None));
    // It does not want it, and is not asked again.
    wait(&bodies, 3).await;
    while metrics.traces_of("failed") == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!((metrics.traces_of("exported"), metrics.traces_of("failed")), (1, 1));

    // Nobody takes anything out: there is room for one.
    let (messages, waiting) = channel(1);
    let tracer = Tracer::new(Arc::new(Queue { messages, metrics: metrics.clone() }), 1.0);
    for _ in 0..100 {
        drop(tracer.begin(None));
    }
    assert_eq!(metrics.traces_of("dropped"), 99);
    drop(waiting);
}

#[tokio::test]
async fn the_address_of_a_collector_that_is_gone_is_not_in_what_is_logged() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://name:s3cret@{address}/v1/traces?token=s3cret");
    let exporter = Exporter { client: reqwest::Client::new(), url, metrics: Metrics::default() };
    let why = exporter.send(Vec::new()).await.unwrap_err();
    assert!(!why.contains("s3cret") && !why.is_empty(), "{why}");
}
