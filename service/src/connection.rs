//! One connection from its first byte to its last.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch::Receiver;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::aside::Aside;
use crate::both::Transport;
use crate::budget::{Account, Holdings, Standing};
use crate::config::Limits;
use crate::dispatch::{App, Dispatcher, Shared};
use crate::metrics::RequestMetrics;
use crate::peer::Peer;
use crate::stream::{Protocol, Stream, detect};
use crate::watch::{self, Activity, HeaderRule, Verdict};

/// How far a stop has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// No new requests; those under way finish.
    Draining,
    /// Whatever is left is cut off.
    Aborted,
}

/// Serves a connection whose TLS handshake, if any, is done.
///
/// The protocol is detected here and not by hyper-util's automatic connection, which waits for ever for a client that
/// sends nothing or half of the HTTP/2 preface. `held` counts what the peer holds, over all its connections; `alive` is kept
/// until the last request of the connection has ended.
pub(crate) async fn serve<A: App>(
    mut io: Transport,
    peer: Peer,
    app: A,
    shared: Arc<Shared>,
    held: Holdings,
    stop: Receiver<Phase>,
    alive: mpsc::Sender<()>,
) {
    let limits = shared.limits;
    let mut before_first_byte = stop.clone();
    let detected = tokio::select! {
        detected = timeout(limits.header_timeout, detect(&mut io)) => detected,
        _ = before_first_byte.wait_for(|phase| *phase != Phase::Serving) => return,
    };
    let Ok(Ok((protocol, prefix))) = detected else { return };
    let standing = if peer.certificate().is_some() { Standing::Certified } else { Standing::Anonymous };
    let notice = Arc::new(Notify::new());
    let answers = Account::new(&shared.answers, &held.answers, standing, &notice);
    let bodies = Account::new(&shared.bodies, &held.bodies, standing, &notice);
    let waiting = Account::new(&shared.waiting, &held.waiting, standing, &notice);
    let peer = peer.answered_from(&answers, &shared.requests);
    let activity = Arc::new(Activity::new(answers, bodies, waiting));
    let metrics = Arc::clone(&shared.requests);
    let io = TokioIo::new(Stream::new(io, prefix, Arc::clone(&activity), limits.stall_timeout));
    let dispatcher = Arc::new(Dispatcher {
        shared,
        app: Mutex::new(app),
        peer,
        activity: Arc::clone(&activity),
        _alive: alive,
    });
    let service = service_fn(move |request| Arc::clone(&dispatcher).handle(request));
    match protocol {
        Protocol::Http1 => {
            let connection = http1_builder(&limits).serve_connection(io, service);
            let watcher = Watcher { activity, limits, metrics, rule: HeaderRule::Timed, stop, notice };
            watcher.drive(connection, http1::Connection::graceful_shutdown).await;
        }
        Protocol::Http2 => {
            let connection = http2_builder(&limits).serve_connection(io, service);
            let watcher = Watcher { activity, limits, metrics, rule: HeaderRule::IdleOnly, stop, notice };
            watcher.drive(connection, http2::Connection::graceful_shutdown).await;
        }
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    // No timer: hyper would set one for every request; the watcher below keeps the same limit with one a connection.
    builder
        .header_read_timeout(None)
        .max_headers(100)
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(64 * 1024));
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(256 * 1024)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(limits.stall_timeout)
        .keep_alive_timeout(limits.stall_timeout);
    builder
}

/// What a connection waits for.
enum Event {
    Ended(hyper::Result<()>),
    Phase(Phase),
    Gone,
    /// Others need what it holds.
    GivesWay,
    Tick,
}

/// What happens to a connection beside its requests: a stop, others in need, and the watcher's ticks.
async fn rare(stop: &mut Receiver<Phase>, notice: &Notify, ticks: &mut tokio::time::Interval) -> Event {
    tokio::select! {
        biased;
        changed = stop.changed() => {
            let phase = *stop.borrow_and_update();
            if changed.is_err() { Event::Gone } else { Event::Phase(phase) }
        }
        () = notice.notified() => Event::GivesWay,
        _ = ticks.tick() => Event::Tick,
    }
}

struct Watcher {
    activity: Arc<Activity>,
    limits: Limits,
    metrics: Arc<RequestMetrics>,
    rule: HeaderRule,
    stop: Receiver<Phase>,
    notice: Arc<Notify>,
}

impl Watcher {
    async fn drive<C>(mut self, connection: C, say_goodbye: fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut ticks = tokio::time::interval(watch::interval(&self.limits));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said_goodbye = false;
        let mut aside = Aside::default();
        loop {
            let event = {
                let mut rare = pin!(rare(&mut self.stop, &self.notice, &mut ticks));
                aside.look_at_once();
                std::future::poll_fn(|context| match connection.as_mut().poll(context) {
                    Poll::Ready(outcome) => Poll::Ready(Event::Ended(outcome)),
                    Poll::Pending => aside.poll(context, rare.as_mut()),
                })
                .await
            };
            match event {
                Event::Ended(Ok(())) => return,
                Event::Ended(Err(error)) => {
                    tracing::debug!(%error, "connection ended with an error");
                    return;
                }
                // A closed channel means the server is gone.
                Event::Gone => return,
                Event::Phase(Phase::Serving) => {}
                Event::Phase(Phase::Draining) => say_goodbye(connection.as_mut()),
                Event::Phase(Phase::Aborted) => return,
                Event::GivesWay => {
                    self.metrics.connections_displaced.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!("connection closed: others need what it holds");
                    return;
                }
                Event::Tick => match self.activity.judge(&self.limits, self.rule) {
                    Verdict::Keep => {}
                    Verdict::SlowHeaders => return,
                    Verdict::Unread => {
                        self.metrics.answers_unread.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!("connection closed: its peer does not read an answer");
                        return;
                    }
                    // Goodbye was said and the peer has had a tick to hear it.
                    Verdict::Idle if said_goodbye => return,
                    Verdict::Idle => {
                        said_goodbye = true;
                        say_goodbye(connection.as_mut());
                    }
                },
            }
        }
    }
}
