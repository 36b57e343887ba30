//! Streams that are read on after a connection broke, over both transports: by whom, from where, and by one reader at a time.

use bytes::Bytes;
use executor_api::stream::{Line, StreamLine};
use executor_api::v1::execute_agent_stream_request::Part;
use executor_api::v1::execute_agent_stream_response::Event;
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{Base64Bytes, Execute, v1};
use tonic::codegen::Body;
use tonic::{Code, Streaming};

use super::caller_tests::{grpc, http, refusal};
use super::stream_tests::{STREAMS, streaming};
use super::tests::channel;
use crate::admission::GrantSet;
use crate::config::CallerRole;
use crate::runtime::{CallLimits, Selector};
use crate::testing::{Server, admitted, wat_spin};

const AGENT: &str = "resume.streams";

async fn admit(server: &Server, text: &str, agent: &str, grants: GrantSet) {
    let admitted = admitted(text, grants, CallLimits::default()).called(agent, "dev@example.org");
    server.executor.admit_for_test(admitted).await;
}

/// Begins a resumable call: its events, and the name of its stream.
async fn begin<T>(
    client: &mut GrpcClient<T>,
    agent: &str,
) -> (Streaming<v1::ExecuteAgentStreamResponse>, String)
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<tonic::codegen::StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let input = Bytes::from_static(b"012345678");
    let call = v1::ExecuteAgentRequest { agent: agent.into(), input, resumable: true, ..Default::default() };
    let parts = [v1::ExecuteAgentStreamRequest { part: Some(Part::Call(call)) }];
    let answer = client.execute_agent_stream(futures_util::stream::iter(parts)).await;
    let mut events = answer.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    let (Some(Event::Begun(begun)), None) = (first.event, first.number) else { panic!("no name") };
    (events, begun.stream_id)
}

fn from(stream_id: &str, from: u64) -> v1::StreamEventsRequest {
    v1::StreamEventsRequest { stream_id: stream_id.to_owned(), from }
}

/// Everything that is left, with its numbers.
async fn rest(mut events: Streaming<v1::ExecuteAgentStreamResponse>) -> Vec<(Option<u64>, String)> {
    let mut seen = Vec::new();
    while let Some(message) = events.message().await.unwrap() {
        let what = match message.event.unwrap() {
            Event::Data(data) => format!("data {}", data.sequence),
            Event::End(end) => format!("end {}", end.total_chunks),
            Event::Result(done) => String::from_utf8(done.output.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        seen.push((message.number, what));
    }
    seen
}

/// What is left of [`STREAMS`] from an event on.
fn expected(from: usize) -> Vec<(Option<u64>, String)> {
    let all = ["data 0", "data 1", "data 2", "end 3", "done"];
    (0..).zip(all).skip(from).map(|(number, what)| (Some(number), what.to_owned())).collect()
}

#[tokio::test]
async fn a_stream_is_read_on_over_grpc_after_its_connection_broke() {
    let server = Server::start().await;
    admit(&server, STREAMS, AGENT, streaming()).await;
    let mut client = GrpcClient::new(channel(&server).await);
    let (mut events, id) = begin(&mut client, AGENT).await;
    assert_eq!(events.message().await.unwrap().unwrap().number, Some(0));
    drop(events);
    // Over another connection, from what came last; and once more, as if that one had broken as well.
    let mut other = GrpcClient::new(channel(&server).await);
    for next in [1, 0, 4] {
        let events = other.stream_events(from(&id, next)).await.unwrap().into_inner();
        assert_eq!(rest(events).await, expected(next as usize));
    }
    assert!(rest(other.stream_events(from(&id, 5)).await.unwrap().into_inner()).await.is_empty());
    let beyond = refusal(other.stream_events(from(&id, 6)).await);
    assert_eq!(beyond, (Code::InvalidArgument, "invalid_argument".to_owned()));
    let unknown = refusal(other.stream_events(from(&"0".repeat(32), 0)).await);
    assert_eq!(unknown, (Code::NotFound, "stream_unknown".to_owned()));
}

#[tokio::test]
async fn a_stream_is_read_on_over_http_after_its_connection_broke() {
    let server = Server::start().await;
    admit(&server, STREAMS, AGENT, streaming()).await;
    let url = format!("http://{}/api/v1/agents/{AGENT}/stream", server.address);
    let input = Base64Bytes(b"012345678".to_vec());
    let call = Execute { input, resumable: true, ..Execute::default() };
    let mut answer = reqwest::Client::new().post(url).json(&call).send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap().lines().next().unwrap();
    let Ok(Line { line: StreamLine::Begun { stream_id }, number: None }) = serde_json::from_str(first) else {
        panic!("{first}")
    };
    drop(answer);
    let url = format!("http://{}/api/v1/streams/{stream_id}", server.address);
    for (query, first) in [("", 0), ("?from=3", 3)] {
        let text = reqwest::get(format!("{url}{query}")).await.unwrap().text().await.unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap());
        let seen: Vec<_> = lines
            .map(|line| {
                let what = match line.line {
                    StreamLine::Data { sequence, .. } => format!("data {sequence}"),
                    StreamLine::End { total_chunks, .. } => format!("end {total_chunks}"),
                    StreamLine::Result(done) => done.text.unwrap(),
                    other => panic!("{other:?}"),
                };
                (line.number, what)
            })
            .collect();
        assert_eq!(seen, expected(first), "{query}");
    }
    let answer = reqwest::get(format!("{url}?from=x")).await.unwrap();
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn a_stream_belongs_to_the_caller_who_began_it() {
    let server = Server::with_callers(&[
        ("gateway", CallerRole::Execute, &[]),
        ("billing", CallerRole::Execute, &[]),
        ("auditor", CallerRole::Read, &[]),
    ])
    .await;
    admit(&server, STREAMS, AGENT, streaming()).await;
    let (events, id) = begin(&mut grpc(&server, "gateway").await, AGENT).await;
    drop(events);
    for (who, code, reason, status) in [
        ("billing", Code::NotFound, "stream_unknown", 404),
        ("administrator", Code::NotFound, "stream_unknown", 404),
        ("auditor", Code::PermissionDenied, "role_not_allowed", 403),
        ("nobody", Code::Unauthenticated, "unauthorized", 401),
    ] {
        let refused = refusal(grpc(&server, who).await.stream_events(from(&id, 0)).await);
        assert_eq!(refused, (code, reason.to_owned()), "{who}");
        let (answered, told, _) = http(&server, who, &format!("GET /api/v1/streams/{id}"), None).await;
        assert_eq!((answered, told.as_str()), (status, reason), "{who}");
    }
    let own = grpc(&server, "gateway").await.stream_events(from(&id, 0)).await.unwrap().into_inner();
    assert_eq!(rest(own).await, expected(0));
    for (reason, times) in [("begun", 1), ("stream_unknown", 4), ("read_on", 1)] {
        let series = format!("mentatlab_resumable_streams_total{{reason=\"{reason}\"}}");
        assert_eq!(server.counted(&series), times, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_takes_the_place_of_the_reader_before() {
    let server = Server::start().await;
    let agent = "resume.spin";
    admit(&server, wat_spin(), agent, streaming()).await;
    let mut client = GrpcClient::new(channel(&server).await);
    let (mut first, id) = begin(&mut client, agent).await;
    // A question about the stream reads nothing of it.
    let url = format!("http://{}/api/v1/streams/{id}", server.address);
    let asked = reqwest::Client::new().head(url).send().await.unwrap();
    assert_eq!((asked.status().as_u16(), asked.bytes().await.unwrap().len()), (200, 0));
    let told = tokio::time::timeout(std::time::Duration::from_millis(200), first.message()).await;
    assert!(told.is_err(), "it has the place still");
    let mut second = client.stream_events(from(&id, 0)).await.unwrap().into_inner();
    let replaced = refusal(first.message().await);
    assert_eq!(replaced, (Code::Aborted, "reader_replaced".to_owned()));
    assert!(first.message().await.unwrap().is_none(), "and nothing follows");
    assert_eq!(server.counted("mentatlab_resumable_streams_total{reason=\"reader_replaced\"}"), 1);
    let selector = Selector { agent: Some(agent.to_owned()), ..Selector::default() };
    assert_eq!(server.executor.stop(&selector).unwrap(), 1);
    assert_eq!(refusal(second.message().await), (Code::Aborted, "stopped".to_owned()));
    // How it ended is kept, too.
    let mut third = client.stream_events(from(&id, 0)).await.unwrap().into_inner();
    assert_eq!(refusal(third.message().await), (Code::Aborted, "stopped".to_owned()));
}
