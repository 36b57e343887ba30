//! `POST /api/v1/agents/{agent}/stream` and `GET /api/v1/streams/{id}`: one JSON line for each event, while the guest runs.

use bytes::Bytes;
use executor_api::stream::{Line, StreamLine};
use executor_api::{Base64Bytes, Execute, FailedCall};
use futures_util::stream::unfold;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use warp::reply::Response;
use warp::{Rejection, Reply};

use super::{Context, answer, parse, problem, terms};
use crate::api::access::Role;
use crate::callers::Caller;
use crate::executor::{Heard, Next, Reading};
use crate::streams::StreamEvent;

/// Starts the call; what is refused before it begins is a problem document.
pub(super) async fn execute(
    agent: String,
    context: Context,
    caller: Caller,
    body: Bytes,
) -> Result<Response, Rejection> {
    Ok(answer(
        async {
            let call: Execute = if body.is_empty() { Execute::default() } else { parse(&body)? };
            let (terms, input) = (terms(&call, &context.headers, caller), Bytes::from(call.input.0));
            let started = context.executor.execute_and_read(&agent, input, terms).await;
            Ok(lines(started.map_err(|denied| problem(&denied))?))
        }
        .await,
    ))
}

/// From which event on.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    from: u64,
}

/// Reads a call on.
pub(super) fn read_on(id: String, wanted: Wanted, context: Context) -> Response {
    let reading = context.allow(Role::Execute).and_then(|caller| {
        context.executor.read_on(&caller, &id, wanted.from).map_err(|denied| problem(&denied))
    });
    answer(reading.map(lines))
}

fn lines(reading: Reading) -> Response {
    let events = unfold(reading, |mut reading| async move {
        let line = match reading.next().await? {
            Heard::Begun(id) => Line::from(StreamLine::Begun { stream_id: id.to_string() }),
            Heard::Gone(events) => Line::from(StreamLine::Gap { events }),
            Heard::Next(number, next) => Line { line: line(next), number },
            Heard::Replaced => Line::from(line(Next::Ended(Err(crate::api::replaced())))),
        };
        let text = serde_json::to_vec(&line).map(|mut text| {
            text.push(b'\n');
            Bytes::from(text)
        });
        Some((text, reading))
    });
    let mut response = warp::reply::stream(events).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn line(next: Next) -> StreamLine {
    match next {
        Next::Event(StreamEvent::Data { stream, sequence, bytes }) => {
            StreamLine::Data { stream: stream.to_string(), sequence, chunk: Base64Bytes(bytes.to_vec()) }
        }
        Next::Event(StreamEvent::End { stream, total_chunks }) => {
            StreamLine::End { stream: stream.to_string(), total_chunks }
        }
        Next::Event(StreamEvent::Log(line)) => StreamLine::Log(crate::api::line(line)),
        Next::Event(StreamEvent::Missed { log_lines }) => StreamLine::Missed { log_lines },
        Next::Ended(Ok(done)) => StreamLine::Result(Box::new(crate::api::executed(done))),
        Next::Ended(Err(denied)) => {
            if !denied.operator.is_empty() {
                tracing::info!(code = denied.code, operator = %denied.operator, "a streamed call has no result");
            }
            let (step, reason, message) = (denied.step, denied.code.to_owned(), denied.message);
            let said = denied.said.map(|said| crate::api::said(*said)).unwrap_or_default();
            StreamLine::Error(FailedCall { step, reason, message, said })
        }
    }
}
