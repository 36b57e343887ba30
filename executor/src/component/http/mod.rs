//! `wasi:http/incoming-handler`: a component that answers one HTTP request for each call.
//!
//! The input of the call is the request and its output the answer, both in the JSON of [`exchange`]. There is no socket and no server: the
//! request is made from the input, and the body of the answer is collected while the guest writes it, so that every limit of a call
//! holds as for any other guest. `wasi:http/types` is linked for components that export the handler and for no others;
//! `wasi:http/outgoing-handler` is linked for nobody (docs/adr/0032-egress-by-capability.md).
//!
//! Builds without the feature `http-handler` have `absent` in the place of all this.

mod exchange;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::task::Poll;

use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::p2::bindings::ProxyIndices;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use self::exchange::Given;
use super::Failed;
use crate::abi::sinks::Level;
use crate::runtime::GuestState;

/// Most bytes of the header fields of one message.
const MAX_FIELDS: usize = 64 << 10;

/// Most bytes that a guest writes to a body at once. Two such pieces lie in each body that nobody reads, and those of requests nobody
/// ever does: it is memory of the host that counts as nobody's.
const MAX_PIECE: usize = 16 << 10;

/// Most messages, bodies, streams and pollables of one handler: with the two above, 24 MiB of the host.
const MAX_RESOURCES: usize = 256;

/// A component's handler.
pub(super) struct Handler(ProxyIndices);

/// What the functions of `wasi:http/types` need of one call.
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: NoWayOut,
}

impl Default for Http {
    fn default() -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(MAX_FIELDS);
        Self { ctx, hooks: NoWayOut }
    }
}

/// Requests of guests leave by a capability, and by nothing else.
struct NoWayOut;

type Sent = Result<(http::Response<WasiBody>, Done), Error>;
type Done = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for NoWayOut {
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        1
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_PIECE
    }

    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Done,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let extras = self.extras();
        let Http { ctx, hooks } = &mut **extras.http.get_or_insert_default();
        WasiHttpCtxView { hooks, table: &mut extras.table, ctx }
    }
}

/// Links `wasi:http/types`. Who may import it is decided before.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let options = types::LinkOptions::default();
    types::add_to_linker::<_, WasiHttp>(linker, &options, GuestState::http)
}

impl Handler {
    /// The handler of a component, if it has one.
    pub(super) fn of(pre: &InstancePre<GuestState>) -> Option<Self> {
        ProxyIndices::new(pre).ok().map(Self)
    }

    /// Makes an instance and lets it answer the request of the call: the call's exit code.
    pub(super) async fn serve(
        &self,
        pre: &InstancePre<GuestState>,
        store: &mut Store<GuestState>,
    ) -> Result<i32, Failed> {
        let limit = store.data().limits().output;
        let request = match exchange::read(&store.data().input) {
            Ok(request) => request,
            Err(refused) => {
                // It never reached the agent, whose fault it is not.
                store.data_mut().output = refused.answer(limit);
                return Ok(0);
            }
        };
        store.data_mut().extras().table.set_max_capacity(MAX_RESOURCES);
        let instance = pre.instantiate_async(&mut *store).await.map_err(Failed::Instantiate)?;
        store.data_mut().instantiated();
        let proxy = self.0.load(&mut *store, &instance).map_err(Failed::Run)?;
        let (sender, receiver) = oneshot::channel();
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request).map_err(Failed::Host)?;
        let out = http.new_response_outparam(sender).map_err(Failed::Host)?;
        // What is there is taken at once, however much else was done meanwhile.
        let mut answer = pin!(tokio::task::unconstrained(collected(receiver, limit)));
        let mut given = None;
        let called = {
            let handler = proxy.wasi_http_incoming_handler();
            let mut call = pin!(handler.call_handle(&mut *store, request, out));
            loop {
                tokio::select! {
                    biased;
                    called = &mut call => break called,
                    answer = &mut answer, if given.is_none() => given = Some(answer),
                }
            }
        };
        if let Err(error) = called {
            match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(0)) => {}
                Some(exit) => return Ok(exit.0),
                None => return Err(Failed::Run(error)),
            }
        }
        // Nobody writes any more: what is not finished now stays so.
        if given.is_none()
            && let Poll::Ready(answer) = futures_util::poll!(answer.as_mut())
        {
            given = Some(answer);
        }
        let given =
            given.unwrap_or_else(|| Err("the handler returned before its answer was finished".into()));
        let state = store.data_mut();
        let answered = given.and_then(|given| Ok((given.is_failure(), given.answer(limit)?)));
        Ok(match answered {
            Ok((failed, answer)) => {
                state.output = answer;
                i32::from(failed)
            }
            Err(text) => {
                state.log(Some(Level::Error), Ok(&format!("http: {text}")));
                1
            }
        })
    }
}

/// Takes what a guest answers while it writes it, at most `limit` bytes.
async fn collected(
    receiver: oneshot::Receiver<Result<http::Response<HyperOutgoingBody>, ErrorCode>>,
    limit: usize,
) -> Result<Given, String> {
    let response = match receiver.await {
        Ok(Ok(response)) => response,
        Ok(Err(code)) => return Err(format!("the handler answered with the error {code:?}")),
        Err(_) => return Err("the handler gave no answer".into()),
    };
    let (head, mut frames) = response.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = frames.frame().await {
        let frame = frame.map_err(|_| "the answer broke off")?;
        // Trailers say nothing that a call could carry.
        if let Ok(data) = frame.into_data() {
            if body.len().saturating_add(data.len()) > limit {
                return Err("the answer is longer than a call may write".into());
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(Given { status: head.status.as_u16(), headers: head.headers, body })
}
