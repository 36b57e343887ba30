//! The way of traces out of the process: a bounded queue, and one task that sends what is in it (OTLP over HTTP, protobuf).
//!
//! A call hands its trace over and goes on. What finds no room is dropped and counted, and so is a batch that the collector does not
//! take at the second attempt: a trace is worth nothing that a call would have to wait for.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use service::StartRefusal;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{SpanSink, TracedCall, Tracer, otlp};
use crate::config::TelemetrySettings;
use crate::metrics::Metrics;

/// Most calls of one request: some hundred KiB.
const BATCH: usize = 256;

/// How long calls are collected for one request.
const COLLECT: Duration = Duration::from_secs(1);

/// How long a connection may take to be made, and a request.
const CONNECT: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(10);

/// Time between two attempts at a batch.
const PAUSE: Duration = Duration::from_secs(1);

enum Message {
    Call(Box<TracedCall>),
    /// Answered once everything before it is sent.
    Flush(oneshot::Sender<()>),
}

/// The end of the queue that calls see.
struct Queue {
    messages: Sender<Message>,
    metrics: Metrics,
}

impl SpanSink for Queue {
    fn take(&self, call: TracedCall) {
        if self.messages.try_send(Message::Call(Box::new(call))).is_err() {
            self.metrics.traces("dropped", 1);
        }
    }

    fn flush(&self) -> Option<oneshot::Receiver<()>> {
        let (done, sent) = oneshot::channel();
        self.messages.try_send(Message::Flush(done)).ok().map(|()| sent)
    }
}

/// Begins to export. Requests run on the tokio runtime that this is called in, until every [`Tracer`] is gone.
///
/// # Errors
///
/// When no client can be made.
pub(crate) fn start(settings: &TelemetrySettings, metrics: &Metrics) -> Result<Tracer, StartRefusal> {
    let client =
        settings.tls.builder()?.connect_timeout(CONNECT).timeout(REQUEST).build().map_err(|error| {
            StartRefusal::new("no client for [telemetry] can be made", "check telemetry.tls_ca_file")
                .because(error)
        })?;
    let (messages, waiting) = channel(settings.queue);
    let exporter = Exporter { client, url: settings.url.clone(), metrics: metrics.clone() };
    tokio::spawn(exporter.run(waiting));
    Ok(Tracer::new(Arc::new(Queue { messages, metrics: metrics.clone() }), settings.ratio))
}

struct Exporter {
    client: reqwest::Client,
    url: String,
    metrics: Metrics,
}

impl Exporter {
    async fn run(self, mut messages: Receiver<Message>) {
        let mut silent = false;
        while let Some(first) = messages.recv().await {
            let (mut batch, mut waiting) = (Vec::new(), None);
            let mut next = Some(first);
            // The rest of the batch, as far as it comes within the time.
            let collect = async {
                while let Some(message) = next.take() {
                    match message {
                        Message::Call(call) => batch.push(*call),
                        Message::Flush(done) => {
                            waiting = Some(done);
                            return;
                        }
                    }
                    if batch.len() < BATCH {
                        next = messages.recv().await;
                    }
                }
            };
            let _ = timeout(COLLECT, collect).await;
            if batch.is_empty() {
                if let Some(done) = waiting {
                    let _ = done.send(()); // whoever asked may have gone
                }
                continue;
            }
            let count = batch.len() as u64;
            match self.send(otlp::encode(&batch)).await {
                Ok(()) => {
                    if std::mem::take(&mut silent) {
                        tracing::warn!("the collector of traces takes them again");
                    }
                    self.metrics.traces("exported", count);
                }
                Err(why) => {
                    self.metrics.traces("failed", count);
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(why, "the collector takes no traces; they are dropped until it does");
                    }
                }
            }
            if let Some(done) = waiting {
                let _ = done.send(());
            }
        }
    }

    async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let body = bytes::Bytes::from(body);
        match self.attempt(body.clone()).await {
            // What it does not want it does not want the second time either.
            Ok(status) if status.is_success() => return Ok(()),
            Ok(status) if !status.is_server_error() && status.as_u16() != 429 => {
                return Err(status.to_string());
            }
            _ => sleep(PAUSE).await,
        }
        match self.attempt(body).await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(status.to_string()),
            // Not its address, which may hold what opens the collector.
            Err(error) => Err(error.without_url().to_string()),
        }
    }

    async fn attempt(&self, body: bytes::Bytes) -> reqwest::Result<http::StatusCode> {
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        Ok(request.send().await?.status())
    }
}

#[cfg(test)]
#[path = "exporter_tests.rs"]
mod tests;
