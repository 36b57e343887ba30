//! Accepting connections, within limits.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::both::Transport;
use crate::budget::Holdings;
use crate::connection::{Phase, serve};
use crate::dispatch::{App, Shared};
use crate::exit::StartRefusal;
use crate::metrics::RequestMetrics;
use crate::peer::{ClientCertificate, ListenerKind, Peer};
use crate::rate_limit::network;

/// Answer to a plain connection over the limit, so that a client sees a status instead of a closed connection.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 119\r\n\r\n\
    {\"type\":\"urn:mentat:problem:overloaded\",\"code\":\"overloaded\",\"title\":\"Service Unavailable\",\"status\":503,\"retry_after\":1}";

/// Binds a listener.
pub(crate) fn bind(field: &str, address: SocketAddr) -> Result<TcpListener, StartRefusal> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(4096)
    });
    bound.map_err(|error| {
        let (what, remedy) = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ("is in use by another process", "stop that process or choose another port")
            }
            io::ErrorKind::PermissionDenied => {
                ("may not be bound", "choose a port from 1024 up or grant CAP_NET_BIND_SERVICE")
            }
            io::ErrorKind::AddrNotAvailable => {
                ("is not an address of this machine", "choose one of its addresses")
            }
            _ => ("cannot be bound", "check the address and the system's limits"),
        };
        StartRefusal::new(format!("{field} = {address} {what}"), remedy).because(error)
    })
}

/// What one peer has open.
#[derive(Debug, Default)]
struct OfPeer {
    connections: u32,
    held: Holdings,
}

/// Connections open now, over all listeners.
pub(crate) struct Connections {
    limit: usize,
    per_peer: u32,
    open: Mutex<(usize, HashMap<IpAddr, OfPeer>)>,
    metrics: Arc<RequestMetrics>,
}

impl Connections {
    pub(crate) fn new(limit: usize, per_peer: u32, metrics: Arc<RequestMetrics>) -> Arc<Self> {
        Arc::new(Self { limit, per_peer, open: Mutex::default(), metrics })
    }

    /// A place for a peer: an address, of IPv6 the /64, which is what one customer has.
    fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Admitted> {
        let ip = network(ip);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, peers) = &mut *open;
        let of_peer = peers.entry(ip).or_default();
        if *total >= self.limit || of_peer.connections >= self.per_peer {
            if of_peer.connections == 0 {
                peers.remove(&ip);
            }
            self.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        of_peer.connections += 1;
        let held = of_peer.held.clone();
        *total += 1;
        self.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Some(Admitted { connections: Arc::clone(self), ip, held })
    }
}

/// A place among the open connections, given back when dropped.
struct Admitted {
    connections: Arc<Connections>,
    ip: IpAddr,
    held: Holdings,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, peers) = &mut *open;
        *total = total.saturating_sub(1);
        if let Some(of_peer) = peers.get_mut(&self.ip) {
            of_peer.connections = of_peer.connections.saturating_sub(1);
            if of_peer.connections == 0 {
                peers.remove(&self.ip);
            }
        }
        self.connections.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One accept loop.
pub(crate) struct Acceptor<A> {
    pub(crate) listener: TcpListener,
    pub(crate) kind: ListenerKind,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) app: A,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) stop: watch::Receiver<Phase>,
    /// Held by every connection and every request; closed when the last one ends.
    pub(crate) alive: mpsc::Sender<()>,
}

impl<A: App> Acceptor<A> {
    pub(crate) async fn run(mut self) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = self.stop.wait_for(|phase| *phase != Phase::Serving) => return,
            };
            match accepted {
                Ok((stream, address)) => self.connected(stream, address),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: a pause, or this loop would spin.
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn connected(&self, stream: TcpStream, address: SocketAddr) {
        let Some(admitted) = self.connections.admit(address.ip()) else {
            if self.tls.is_none() {
                // Best effort: an empty socket buffer takes it whole.
                let _ = stream.try_write(OVERLOADED);
            }
            return;
        };
        // Answers are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let (app, shared, held) = (self.app.clone(), Arc::clone(&self.shared), admitted.held.clone());
        let (kind, stop, alive) = (self.kind, self.stop.clone(), self.alive.clone());
        match self.tls.clone() {
            None => {
                let stream = Transport::Plain(stream);
                tokio::spawn(async move {
                    serve(stream, Peer::new(address, kind, None), app, shared, held, stop, alive).await;
                    drop(admitted);
                });
            }
            Some(tls) => {
                tokio::spawn(async move {
                    let mut before_handshake = stop.clone();
                    let secured = tokio::select! {
                        secured = handshake(&tls, stream, address, kind, &shared) => secured,
                        _ = before_handshake.wait_for(|phase| *phase != Phase::Serving) => None,
                    };
                    if let Some((stream, peer)) = secured {
                        serve(stream, peer, app, shared, held, stop, alive).await;
                    }
                    drop(admitted);
                });
            }
        }
    }
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    kind: ListenerKind,
    shared: &Shared,
) -> Option<(Transport, Peer)> {
    let failed = |error: &dyn std::fmt::Display| {
        shared.requests.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, peer = %address, "TLS handshake failed");
    };
    let stream = match tokio::time::timeout(shared.limits.tls_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            failed(&error);
            return None;
        }
        Err(_) => {
            failed(&"timed out");
            return None;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.map(|der| der.clone().into_owned());
    // Verified by rustls, as a holder's or by the configured authorities: asked again, for a resumed session has the certificate alone.
    if let (Some(holders), Some(der)) = (&shared.holders, &shown)
        && holders.issued(der)
    {
        return Some((Transport::Tls(Box::new(stream)), Peer::holding(address, kind, der.clone())));
    }
    // If it cannot be named it must not pass as anonymous.
    match shown.map(ClientCertificate::new).transpose() {
        Ok(certificate) => Some((Transport::Tls(Box::new(stream)), Peer::new(address, kind, certificate))),
        Err(error) => {
            failed(&error);
            None
        }
    }
}

/// Errors of `accept` that concern the connection and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overload_answer_is_well_formed() {
        let text = std::str::from_utf8(OVERLOADED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        let document: crate::problem::ProblemDocument = serde_json::from_str(body).unwrap();
        assert_eq!((document.code.as_str(), document.status), ("overloaded", 503));
    }

    #[test]
    fn places_are_limited_in_all_and_per_peer_and_given_back() {
        let metrics = crate::metrics::Metrics::new(&[]).requests();
        let connections = Connections::new(3, 2, metrics);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = connections.admit(one).unwrap();
        let _second = connections.admit(one).unwrap();
        assert!(connections.admit(one).is_none());
        let _third = connections.admit(two).unwrap();
        assert!(connections.admit(two).is_none());
        drop(first);
        assert!(connections.admit(two).is_some());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_peer() {
        let metrics = crate::metrics::Metrics::new(&[]).requests();
        let connections = Connections::new(10, 1, metrics);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let _held = connections.admit(ip("2001:db8::1")).unwrap();
        assert!(connections.admit(ip("2001:db8::ffff:2")).is_none());
        assert!(connections.admit(ip("2001:db8:0:1::1")).is_some());
    }
}
