//! `ExecuteAgentStream`: input in pieces, output as it comes.

use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use executor_api::v1;
use executor_api::v1::execute_agent_stream_request::Part;
use executor_api::v1::execute_agent_stream_response::Event;
use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::{Status, Streaming};

use super::refusal::{invalid, refuse};
use super::{MAX_MESSAGE, response, terms};
use crate::executor::{Executor, Next};
use crate::streams::StreamEvent;

/// What the caller reads.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<v1::ExecuteAgentStreamResponse, Status>> + Send>>;

/// Reads the call with its whole input, and starts it.
pub(super) async fn serve(
    executor: &Arc<Executor>,
    mut request: Streaming<v1::ExecuteAgentStreamRequest>,
) -> Result<Events, Status> {
    let Some(v1::ExecuteAgentStreamRequest { part: Some(Part::Call(call)) }) = request.message().await?
    else {
        return Err(invalid("the first message is the call"));
    };
    let terms = terms(&call);
    let mut input = BytesMut::from(call.input);
    while let Some(message) = request.message().await? {
        let Some(Part::InputChunk(chunk)) = message.part else {
            return Err(invalid("after the call come pieces of its input"));
        };
        if input.len() + chunk.len() > MAX_MESSAGE {
            return Err(invalid("the input is larger than any call takes"));
        }
        input.extend_from_slice(&chunk);
    }
    let started = executor.execute_streaming(&call.agent, input.freeze(), terms).await;
    let running = started.map_err(|denied| refuse(&denied))?;
    Ok(Box::pin(unfold(running, |mut running| async move {
        let event = match running.next().await? {
            Next::Event(event) => Ok(wire(event)),
            Next::Ended(Ok(done)) => Ok(Event::Result(response(done))),
            Next::Ended(Err(denied)) => Err(refuse(&denied)),
        };
        Some((event.map(|event| v1::ExecuteAgentStreamResponse { event: Some(event) }), running))
    })))
}

fn wire(event: StreamEvent) -> Event {
    match event {
        StreamEvent::Data { stream, sequence, bytes } => {
            Event::Data(v1::StreamData { stream: stream.to_string(), sequence, chunk: bytes })
        }
        StreamEvent::End { stream, total_chunks } => {
            Event::End(v1::StreamEnd { stream: stream.to_string(), total_chunks })
        }
    }
}
