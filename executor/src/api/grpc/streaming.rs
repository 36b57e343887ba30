//! `ExecuteAgentStream`: input in pieces, output as it comes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use executor_api::v1;
use executor_api::v1::execute_agent_stream_request::Part;
use executor_api::v1::execute_agent_stream_response::Event;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::refusal::{invalid, refuse};
use super::{response, terms};
use crate::admission::Denied;
use crate::executor::{Executor, Next, Terms};
use crate::streams::StreamEvent;
use crate::telemetry::TraceParent;

/// KiB of inputs of all callers that are still coming. Once an input is whole its call waits for a place, and places are
/// counted.
const ARRIVING: usize = 256 << 10;

/// How long a caller may leave between two pieces, and take for all of them: what the listener gives bodies over HTTP.
const PIECE: Duration = Duration::from_secs(20);
const WHOLE: Duration = Duration::from_secs(120);

/// What the caller reads.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<v1::ExecuteAgentStreamResponse, Status>> + Send>>;

/// Bounds on inputs that come in pieces.
pub(super) struct Arriving {
    room: Arc<Semaphore>,
    piece: Duration,
    whole: Duration,
}

impl Default for Arriving {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(ARRIVING)), piece: PIECE, whole: WHOLE }
    }
}

/// A call with the whole of its input, and the room that the input takes until the call has begun.
struct Arrived {
    call: v1::ExecuteAgentRequest,
    input: Bytes,
    _room: Vec<OwnedSemaphorePermit>,
}

impl Arriving {
    /// Reads the call and its input, which has at most `limit` bytes.
    async fn receive<S>(&self, request: S, limit: usize) -> Result<Arrived, Status>
    where
        S: Stream<Item = Result<v1::ExecuteAgentStreamRequest, Status>> + Unpin,
    {
        timeout(self.whole, self.receive_all(request, limit)).await.map_err(|_| late())?
    }

    async fn part<S>(&self, request: &mut S) -> Result<Option<Option<Part>>, Status>
    where
        S: Stream<Item = Result<v1::ExecuteAgentStreamRequest, Status>> + Unpin,
    {
        let message = timeout(self.piece, request.next()).await.map_err(|_| late())?;
        Ok(message.transpose()?.map(|message| message.part))
    }

    async fn receive_all<S>(&self, mut request: S, limit: usize) -> Result<Arrived, Status>
    where
        S: Stream<Item = Result<v1::ExecuteAgentStreamRequest, Status>> + Unpin,
    {
        let Some(Some(Part::Call(mut call))) = self.part(&mut request).await? else {
            return Err(invalid("the first message is the call"));
        };
        let mut room = Vec::new();
        let mut input = BytesMut::new();
        let mut piece = std::mem::take(&mut call.input);
        loop {
            if input.len() + piece.len() > limit {
                let text = format!("the input is larger than {limit} bytes");
                return Err(refuse(&Denied::new("input_too_large", text)));
            }
            // Taken in steps, so that pieces of a byte do not make a list of permits longer than the input.
            let held: usize = room.iter().map(OwnedSemaphorePermit::num_permits).sum();
            let wanted = (input.len() + piece.len()).div_ceil(64 << 10) * 64;
            if let Some(more) = u32::try_from(wanted.saturating_sub(held)).ok().filter(|more| *more > 0) {
                let full =
                    |_| refuse(&Denied::new("pool_exhausted", "too many inputs are coming; retry later"));
                room.push(Arc::clone(&self.room).try_acquire_many_owned(more).map_err(full)?);
            }
            input.extend_from_slice(&piece);
            piece = match self.part(&mut request).await? {
                Some(Some(Part::InputChunk(chunk))) => chunk,
                Some(_) => return Err(invalid("after the call come pieces of its input")),
                None => return Ok(Arrived { call, input: input.freeze(), _room: room }),
            };
        }
    }
}

fn late() -> Status {
    refuse(&Denied::new("deadline_exceeded", "the input stopped coming"))
}

/// Reads the call with its whole input, and starts it.
pub(super) async fn serve(
    executor: &Arc<Executor>,
    arriving: &Arriving,
    request: Streaming<v1::ExecuteAgentStreamRequest>,
    trace: Option<TraceParent>,
) -> Result<Events, Status> {
    let Arrived { call, input, _room } = arriving.receive(request, executor.input_limit()).await?;
    let terms = Terms { trace, ..terms(&call) };
    let started = executor.execute_streaming(&call.agent, input, terms).await;
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

#[cfg(test)]
mod tests {
    use executor_api::REASON_METADATA;
    use futures_util::stream::{iter, pending};

    use super::*;

    fn call(input: &'static [u8]) -> Result<v1::ExecuteAgentStreamRequest, Status> {
        let call = v1::ExecuteAgentRequest {
            agent: "a".into(),
            input: Bytes::from_static(input),
            ..v1::ExecuteAgentRequest::default()
        };
        Ok(v1::ExecuteAgentStreamRequest { part: Some(Part::Call(call)) })
    }

    fn piece(bytes: usize) -> Result<v1::ExecuteAgentStreamRequest, Status> {
        Ok(v1::ExecuteAgentStreamRequest { part: Some(Part::InputChunk(vec![7; bytes].into())) })
    }

    fn reason(status: &Status) -> &str {
        status.metadata().get(REASON_METADATA).unwrap().to_str().unwrap()
    }

    #[tokio::test]
    async fn an_input_in_pieces_is_put_together_and_bounded() {
        let arriving = Arriving::default();
        let arrived = arriving.receive(iter([call(b"ab"), piece(3), piece(0), piece(1)]), 6).await.unwrap();
        assert_eq!(arrived.input.as_ref(), b"ab\x07\x07\x07\x07");
        drop(arrived);
        let refused = arriving.receive(iter([call(b"ab"), piece(3), piece(2)]), 6).await.err().unwrap();
        assert_eq!(reason(&refused), "input_too_large");
        for pieces in [vec![piece(1)], vec![call(b""), call(b"")], vec![]] {
            let refused = arriving.receive(iter(pieces), 6).await.err().unwrap();
            assert_eq!(reason(&refused), "invalid_argument");
        }
        assert_eq!(arriving.room.available_permits(), ARRIVING);
    }

    #[tokio::test]
    async fn inputs_that_are_still_coming_share_one_room_and_have_a_time() {
        let short = Duration::from_millis(20);
        let arriving = Arc::new(Arriving { room: Arc::new(Semaphore::new(128)), piece: short, whole: WHOLE });
        // Whoever stops sending ends, and gives back what he holds.
        let silent = iter([call(b""), piece(100 << 10)]).chain(pending());
        let late = arriving.receive(silent, 1 << 20).await.err().unwrap();
        assert_eq!(reason(&late), "deadline_exceeded");
        assert_eq!(arriving.room.available_permits(), 128);
        // Pieces that keep coming do not prolong it for ever.
        let drops =
            iter(std::iter::once(call(b"")).chain(std::iter::repeat_with(|| piece(0)))).then(async |item| {
                tokio::task::yield_now().await;
                item
            });
        let hasty = Arriving { room: Arc::clone(&arriving.room), piece: WHOLE, whole: short };
        assert_eq!(
            reason(&hasty.receive(Box::pin(drops), 1 << 20).await.err().unwrap()),
            "deadline_exceeded"
        );
        // Two that fit the limit of one do not fit together.
        let held = arriving.receive(iter([call(b""), piece(100 << 10)]), 1 << 20).await.unwrap();
        let full = arriving.receive(iter([call(b""), piece(1)]), 1 << 20).await.err().unwrap();
        assert_eq!(reason(&full), "pool_exhausted");
        drop(held);
        assert!(arriving.receive(iter([call(b""), piece(1)]), 1 << 20).await.is_ok());
    }
}
