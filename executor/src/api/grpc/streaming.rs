//! `ExecuteAgentStream` and `StreamEvents`: input in pieces, output as it comes.

use std::pin::Pin;
use std::sync::Arc;

use executor_api::v1;
use executor_api::v1::execute_agent_stream_response::Event;
use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::{Status, Streaming};

use super::arriving::{Arrived, Arriving};
use super::refusal::refuse;
use super::{response, terms};
use crate::api::replaced;
use crate::executor::{Executor, Heard, Next, Reading, Terms};
use crate::streams::StreamEvent;

/// What the caller reads.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<v1::ExecuteAgentStreamResponse, Status>> + Send>>;

/// Reads the call with its whole input, and starts it for whoever `of` names.
pub(super) async fn serve(
    executor: &Arc<Executor>,
    arriving: &Arriving,
    request: Streaming<v1::ExecuteAgentStreamRequest>,
    of: Terms,
) -> Result<Events, Status> {
    let Arrived { call, input, _room } = arriving.receive(request, executor.input_limit()).await?;
    let terms = Terms { trace: of.trace, caller: of.caller, ..terms(&call) };
    let started = executor.execute_and_read(&call.agent, input, terms).await;
    Ok(events(started.map_err(|denied| refuse(&denied))?))
}

/// What a reader hears, as messages. Dropping them is how the reader goes.
pub(super) fn events(reading: Reading) -> Events {
    Box::pin(unfold(reading, |mut reading| async move {
        let (number, event) = match reading.next().await? {
            Heard::Begun(id) => (None, Ok(Event::Begun(v1::StreamBegun { stream_id: id.to_string() }))),
            Heard::Gone(events) => (None, Ok(Event::Gap(v1::StreamGap { events }))),
            Heard::Next(number, Next::Event(event)) => (number, Ok(wire(event))),
            Heard::Next(number, Next::Ended(Ok(done))) => (number, Ok(Event::Result(response(done)))),
            Heard::Next(_, Next::Ended(Err(denied))) => (None, Err(refuse(&denied))),
            Heard::Replaced => (None, Err(refuse(&replaced()))),
        };
        let message = event.map(|event| v1::ExecuteAgentStreamResponse { event: Some(event), number });
        Some((message, reading))
    }))
}

fn wire(event: StreamEvent) -> Event {
    match event {
        StreamEvent::Data { stream, sequence, bytes } => {
            Event::Data(v1::StreamData { stream: stream.to_string(), sequence, chunk: bytes })
        }
        StreamEvent::End { stream, total_chunks } => {
            Event::End(v1::StreamEnd { stream: stream.to_string(), total_chunks })
        }
        StreamEvent::Log(line) => Event::Log(super::line(crate::api::line(line))),
        StreamEvent::Missed { log_lines } => Event::Missed(v1::StreamMissed { log_lines }),
    }
}
