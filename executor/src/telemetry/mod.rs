//! Traces of calls, for whoever follows a request through several services.
//!
//! A traced call is one span with four below it: how long it was judged (`admission`), waited for a place (`queue`), ran (`run`)
//! and took to be put on record (`receipt`). Its parent is what the caller names in `traceparent` (W3C Trace Context). A call
//! takes its times anyway or not at all: without a [`Tracer`] nothing is measured, and what is exported, in builds with the
//! feature `telemetry`, leaves through a bounded queue that no call ever waits for.

mod context;
#[cfg(feature = "telemetry")]
pub(crate) mod exporter;
#[cfg(feature = "telemetry")]
mod otlp;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use context::TraceParent;
use tokio::sync::oneshot;

use crate::clock;

/// How long an executor that ends waits for its last traces to leave.
const LAST: Duration = Duration::from_secs(2);

/// Where traced calls go.
pub(crate) trait SpanSink: Send + Sync {
    /// Takes a call that is over, or drops it. MUST NOT block.
    fn take(&self, call: TracedCall);

    /// Tells when everything that was taken has left, where that takes time.
    fn flush(&self) -> Option<oneshot::Receiver<()>> {
        None
    }
}

/// Begins traces. Cheap to clone.
#[derive(Clone)]
pub struct Tracer {
    sink: Arc<dyn SpanSink>,
    /// Of 2^64 traces that nobody began before, so many are followed.
    threshold: u64,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}

/// One part of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Admission,
    Queue,
    Run,
    Receipt,
}

impl Phase {
    /// The stable name of its span.
    #[cfg_attr(not(feature = "telemetry"), allow(dead_code, reason = "what is exported has names"))]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Queue => "queue",
            Self::Run => "run",
            Self::Receipt => "receipt",
        }
    }
}

/// A call that is over: times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "telemetry"), allow(dead_code, reason = "what is exported is read"))]
pub(crate) struct TracedCall {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    /// The caller's span.
    pub(crate) parent: Option<[u8; 8]>,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// Each with its own id, its beginning and its end.
    pub(crate) phases: Vec<(Phase, [u8; 8], u64, u64)>,
    pub(crate) agent: Option<String>,
    pub(crate) module: Option<String>,
    pub(crate) instance: Option<String>,
    /// `success`, `guest_error`, or the reason code.
    pub(crate) reason: String,
}

/// A call under way. Dropped, it is over.
pub(crate) struct Trace {
    sink: Arc<dyn SpanSink>,
    started: Instant,
    /// Beginning of the phase that lasts.
    phase: Option<(Phase, [u8; 8], u64)>,
    /// Of the next phases.
    spans: [[u8; 8]; 4],
    call: TracedCall,
}

impl Tracer {
    /// Follows this share (0 to 1) of the traces that begin here. Of those that a caller began it follows the ones that the
    /// caller follows.
    #[cfg_attr(not(feature = "telemetry"), allow(dead_code, reason = "who exports makes one"))]
    pub(crate) fn new(sink: Arc<dyn SpanSink>, ratio: f64) -> Self {
        // Saturating: 1 and more is all of them.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share needs no more bits than these"
        )]
        let threshold = (ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self { sink, threshold }
    }

    /// Waits until what was handed over has left, for seconds at most.
    pub(crate) async fn flush(&self) {
        if let Some(sent) = self.sink.flush() {
            // What has not left by then stays behind: the process ends.
            let _ = tokio::time::timeout(LAST, sent).await;
        }
    }

    /// Begins to follow a call, unless this one is not followed.
    pub(crate) fn begin(&self, parent: Option<TraceParent>) -> Option<Trace> {
        let mut random = [0u8; 56];
        if parent.is_some_and(|parent| !parent.sampled) || aws_lc_rs::rand::fill(&mut random).is_err() {
            return None;
        }
        let (trace, spans) = random.split_first_chunk::<16>()?;
        let (chosen, _) = trace.split_first_chunk::<8>()?;
        if parent.is_none() && (self.threshold == 0 || u64::from_be_bytes(*chosen) > self.threshold) {
            return None;
        }
        let mut ids = spans.chunks_exact(8).map(|id| id.try_into().unwrap_or([1; 8]));
        let mut id = || ids.next().unwrap_or([1; 8]);
        let began = clock::unix_nanos();
        let call = TracedCall {
            trace: parent.map_or(*trace, |parent| parent.trace),
            span: id(),
            parent: parent.map(|parent| parent.span),
            began,
            ended: began,
            phases: Vec::with_capacity(4),
            agent: None,
            module: None,
            instance: None,
            // Whoever drops it without a word went away.
            reason: "caller_gone".into(),
        };
        let spans = [id(), id(), id(), id()];
        Some(Trace { sink: Arc::clone(&self.sink), started: clock::monotonic(), phase: None, spans, call })
    }
}

impl Trace {
    /// What is called.
    pub(crate) fn of(&mut self, agent: &str, module: String, instance: String) {
        self.call.agent = Some(agent.to_owned());
        self.call.module = Some(module);
        self.call.instance = Some(instance);
    }

    /// Begins the next phase, and ends the one before.
    pub(crate) fn enter(&mut self, phase: Phase) {
        let now = self.now();
        self.leave(now);
        let number = phase as usize;
        let span = self.spans.get(number).copied().unwrap_or(self.call.span);
        self.phase = Some((phase, span, now));
    }

    /// How it ended.
    pub(crate) fn end(&mut self, reason: &str) {
        reason.clone_into(&mut self.call.reason);
    }

    fn leave(&mut self, now: u64) {
        if let Some((phase, span, began)) = self.phase.take() {
            self.call.phases.push((phase, span, began, now));
        }
    }

    /// The wall clock of its beginning and a clock that nobody sets: no span ends before it begins.
    fn now(&self) -> u64 {
        let since: Duration = clock::monotonic().saturating_duration_since(self.started);
        self.call.began.saturating_add(since.as_nanos().try_into().unwrap_or(u64::MAX))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let now = self.now();
        self.leave(now);
        self.call.ended = now;
        self.sink.take(self.call.clone());
    }
}

#[cfg(test)]
mod tests;
