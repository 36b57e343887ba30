//! Messages that come one by one: inputs and modules in pieces, of all callers together within one room and each within a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use executor_api::v1::execute_agent_stream_request::Part;
use executor_api::v1::load_agent_request::Part as LoadPart;
use executor_api::{MODULE_CHUNK_BYTES, v1};
use executor_engine::limits::MAX_MODULE_BYTES;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;

use super::refusal::{invalid, refuse};
use crate::admission::{Denied, MAX_MANIFEST_TEXT};

/// KiB of inputs and modules of all callers that are still coming. Once an input is whole its call waits for a place, and
/// places are counted; a module counts until there is a verdict.
const ARRIVING: usize = 256 << 10;

/// What of the room callers may take who load nothing. Three eighths are left for those who load: the largest upload that there is.
const fn for_callers(room: usize) -> usize {
    room / 8 * 5
}

const _: () = assert!(ARRIVING - for_callers(ARRIVING) >= (MAX_MODULE_BYTES + MAX_MANIFEST_TEXT) >> 10);

/// How long a caller may leave between two pieces, and take for all of them.
const PIECE: Duration = Duration::from_secs(20);
const WHOLE: Duration = Duration::from_secs(120);

/// Bounds on what comes in pieces.
pub(super) struct Arriving {
    room: Arc<Semaphore>,
    /// The callers' part of it.
    callers: Arc<Semaphore>,
    piece: Duration,
    whole: Duration,
}

impl Default for Arriving {
    fn default() -> Self {
        Self::within(ARRIVING, PIECE, WHOLE)
    }
}

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// Whoever may load an agent.
    Loader,
    /// Whoever may execute, or only ask for a verdict.
    Caller,
}

/// What has come takes of the room until this is dropped.
pub(super) struct Room {
    of: Vec<Arc<Semaphore>>,
    taken: Vec<OwnedSemaphorePermit>,
    /// KiB of them.
    held: usize,
}

impl Room {
    /// Makes it so large that `bytes` fit, in steps of 64 KiB: pieces of a byte do not make a list of permits that is longer
    /// than what they bring.
    fn hold(&mut self, bytes: usize) -> Result<(), Status> {
        let wanted = bytes.div_ceil(64 << 10) * 64;
        let more = u32::try_from(wanted.saturating_sub(self.held)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let full = |_| refuse(&Denied::new("pool_exhausted", "too many inputs are coming; retry later"));
        for room in &self.of {
            self.taken.push(Arc::clone(room).try_acquire_many_owned(more).map_err(full)?);
        }
        self.held = wanted;
        Ok(())
    }
}

/// A call with the whole of its input, and the room that the input takes until the call has begun.
pub(super) struct Arrived {
    pub(super) call: v1::ExecuteAgentRequest,
    pub(super) input: Bytes,
    pub(super) _room: Room,
}

/// A module with what vouches for it, and the room that they take until there is a verdict.
pub(super) struct Uploaded {
    pub(super) manifest: String,
    pub(super) attestation: Option<String>,
    pub(super) module: Bytes,
    pub(super) _room: Room,
}

impl Arriving {
    fn within(room: usize, piece: Duration, whole: Duration) -> Self {
        let [room, callers] = [room, for_callers(room)].map(|kib| Arc::new(Semaphore::new(kib)));
        Self { room, callers, piece, whole }
    }

    /// Reads the call and its input, which has at most `limit` bytes.
    pub(super) async fn receive<S>(&self, request: S, limit: usize) -> Result<Arrived, Status>
    where
        S: Stream<Item = Result<v1::ExecuteAgentStreamRequest, Status>> + Unpin,
    {
        timeout(self.whole, self.receive_all(request, limit)).await.map_err(|_| late())?
    }

    /// Reads a module with its manifest and attestation.
    pub(super) async fn upload<S>(&self, request: S, sender: Sender) -> Result<Uploaded, Status>
    where
        S: Stream<Item = Result<v1::LoadAgentRequest, Status>> + Unpin,
    {
        timeout(self.whole, self.upload_all(request, sender)).await.map_err(|_| late())?
    }

    fn room(&self, sender: Sender) -> Room {
        let of = match sender {
            Sender::Loader => vec![Arc::clone(&self.room)],
            Sender::Caller => vec![Arc::clone(&self.callers), Arc::clone(&self.room)],
        };
        Room { of, taken: Vec::new(), held: 0 }
    }

    /// The next message.
    async fn message<S, T>(&self, request: &mut S) -> Result<Option<T>, Status>
    where
        S: Stream<Item = Result<T, Status>> + Unpin,
    {
        timeout(self.piece, request.next()).await.map_err(|_| late())?.transpose()
    }

    async fn receive_all<S>(&self, mut request: S, limit: usize) -> Result<Arrived, Status>
    where
        S: Stream<Item = Result<v1::ExecuteAgentStreamRequest, Status>> + Unpin,
    {
        let first = self.message(&mut request).await?;
        let Some(v1::ExecuteAgentStreamRequest { part: Some(Part::Call(mut call)) }) = first else {
            return Err(invalid("the first message is the call"));
        };
        let mut room = self.room(Sender::Caller);
        let mut input = BytesMut::new();
        let mut piece = std::mem::take(&mut call.input);
        loop {
            if input.len() + piece.len() > limit {
                let text = format!("the input is larger than {limit} bytes");
                return Err(refuse(&Denied::new("input_too_large", text)));
            }
            room.hold(input.len() + piece.len())?;
            input.extend_from_slice(&piece);
            piece = match self.message(&mut request).await? {
                Some(v1::ExecuteAgentStreamRequest { part: Some(Part::InputChunk(chunk)) }) => chunk,
                Some(_) => return Err(invalid("after the call come pieces of its input")),
                None => return Ok(Arrived { call, input: input.freeze(), _room: room }),
            };
        }
    }

    async fn upload_all<S>(&self, mut request: S, sender: Sender) -> Result<Uploaded, Status>
    where
        S: Stream<Item = Result<v1::LoadAgentRequest, Status>> + Unpin,
    {
        let first = self.message(&mut request).await?;
        let Some(v1::LoadAgentRequest { part: Some(LoadPart::Header(header)) }) = first else {
            return Err(invalid("the first message is the header"));
        };
        if header.module_length > MAX_MODULE_BYTES as u64 {
            let text = format!("a module has at most {MAX_MODULE_BYTES} bytes");
            return Err(refuse(&Denied::in_step(1, "too_large", text)));
        }
        let mut room = self.room(sender);
        let vouching = header.manifest.len() + header.attestation.len();
        room.hold(vouching)?;
        let text = |bytes: Bytes| {
            String::from_utf8(bytes.into()).map_err(|_| invalid("manifest and attestation are UTF-8"))
        };
        let manifest = text(header.manifest)?;
        let attestation = if header.attestation.is_empty() { None } else { Some(text(header.attestation)?) };
        let expected = usize::try_from(header.module_length).unwrap_or(usize::MAX);
        // Grown as bytes arrive: a promised length reserves nothing.
        let mut module = BytesMut::new();
        while let Some(message) = self.message(&mut request).await? {
            let Some(LoadPart::ModuleChunk(chunk)) = message.part else {
                return Err(invalid("after the header come pieces of the module"));
            };
            if chunk.len() > MODULE_CHUNK_BYTES || module.len() + chunk.len() > expected {
                return Err(invalid("a piece is larger than 1 MiB, or there are more bytes than announced"));
            }
            room.hold(vouching + module.len() + chunk.len())?;
            module.extend_from_slice(&chunk);
        }
        if module.len() != expected {
            return Err(invalid("there are fewer bytes than announced"));
        }
        Ok(Uploaded { manifest, attestation, module: module.freeze(), _room: room })
    }
}

fn late() -> Status {
    refuse(&Denied::new("deadline_exceeded", "the input stopped coming"))
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
        let arriving = Arriving::within(256, short, WHOLE);
        // Whoever stops sending ends, and gives back what he holds.
        let silent = iter([call(b""), piece(100 << 10)]).chain(pending());
        let late = arriving.receive(silent, 1 << 20).await.err().unwrap();
        assert_eq!(reason(&late), "deadline_exceeded");
        assert_eq!((arriving.room.available_permits(), arriving.callers.available_permits()), (256, 160));
        // Pieces that keep coming do not prolong it for ever.
        let drops =
            iter(std::iter::once(call(b"")).chain(std::iter::repeat_with(|| piece(0)))).then(async |item| {
                tokio::task::yield_now().await;
                item
            });
        let hasty = Arriving::within(256, WHOLE, short);
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

    fn header(module_length: u64) -> Result<v1::LoadAgentRequest, Status> {
        let (manifest, attestation) = (Bytes::from(vec![b'm'; 100 << 10]), Bytes::new());
        let header = v1::AgentHeader { manifest, attestation, module_length };
        Ok(v1::LoadAgentRequest { part: Some(LoadPart::Header(header)) })
    }

    fn chunk(bytes: usize) -> Result<v1::LoadAgentRequest, Status> {
        Ok(v1::LoadAgentRequest { part: Some(LoadPart::ModuleChunk(vec![0; bytes].into())) })
    }

    #[tokio::test]
    async fn modules_that_are_still_coming_share_the_room_of_inputs_and_their_time() {
        let short = Duration::from_millis(20);
        let arriving = Arriving::within(512, short, WHOLE);
        let upload = async |pieces: Vec<_>| arriving.upload(iter(pieces), Sender::Loader).await;
        let held = upload(vec![header(300 << 10), chunk(150 << 10), chunk(150 << 10)]).await.unwrap();
        assert_eq!((held.manifest.len(), held.module.len()), (100 << 10, 300 << 10));
        assert_eq!(arriving.room.available_permits(), 512 - 448, "400 KiB, in steps");
        // Neither another module nor an input finds room meanwhile.
        let full = upload(vec![header(0)]).await.err().unwrap();
        assert_eq!(reason(&full), "pool_exhausted");
        let full = arriving.receive(iter([call(b""), piece(100 << 10)]), 1 << 20).await.err().unwrap();
        assert_eq!(reason(&full), "pool_exhausted");
        drop(held);
        let silent = iter([header(9), chunk(8)]).chain(pending());
        let late = arriving.upload(silent, Sender::Loader).await.err().unwrap();
        assert_eq!(reason(&late), "deadline_exceeded");
        for pieces in [vec![chunk(1)], vec![], vec![header(2), chunk(1)], vec![header(1), header(1)]] {
            let refused = upload(pieces).await.err().unwrap();
            assert_eq!(reason(&refused), "invalid_argument");
        }
        assert_eq!(arriving.room.available_permits(), 512);
    }

    #[tokio::test]
    async fn whoever_may_only_execute_leaves_room_for_those_who_load() {
        let arriving = Arriving::within(512, PIECE, WHOLE);
        let explained =
            |bytes: usize| arriving.upload(iter([header(bytes as u64), chunk(bytes)]), Sender::Caller);
        assert_eq!(reason(&explained(300 << 10).await.err().unwrap()), "pool_exhausted");
        let _held = explained(200 << 10).await.unwrap();
        let full = arriving.receive(iter([call(b""), piece(1)]), 1 << 20).await.err().unwrap();
        assert_eq!(reason(&full), "pool_exhausted");
        assert!(arriving.upload(iter([header(0)]), Sender::Loader).await.is_ok());
    }

    #[tokio::test]
    async fn the_largest_module_finds_room_while_callers_fill_theirs() {
        let arriving = Arriving::default();
        let all = u32::try_from(for_callers(ARRIVING)).unwrap();
        let _held = [&arriving.callers, &arriving.room]
            .map(|room| Arc::clone(room).try_acquire_many_owned(all).unwrap());
        let pieces = MAX_MODULE_BYTES / MODULE_CHUNK_BYTES;
        let chunks = std::iter::repeat_with(|| chunk(MODULE_CHUNK_BYTES)).take(pieces);
        let largest = std::iter::once(header(MAX_MODULE_BYTES as u64)).chain(chunks);
        let uploaded = arriving.upload(iter(largest), Sender::Loader).await;
        assert_eq!(uploaded.map(|uploaded| uploaded.module.len()).ok(), Some(MAX_MODULE_BYTES));
    }
}
