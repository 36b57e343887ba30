//! Who is at the other end of a connection.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls_pki_types::CertificateDer;
use warp::Filter;
use x509_cert::der::Decode;

use crate::budget::Account;
use crate::metrics::RequestMetrics;
use crate::rate_limit::network;

/// Which listener a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// The main listener.
    Primary,
    /// The plain listener for published objects.
    ReadOnly,
}

/// The certificate a client proved to own during the TLS handshake. Its chain was verified against the configured
/// client authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    der: CertificateDer<'static>,
    subject: String,
}

impl ClientCertificate {
    /// Takes a verified certificate.
    ///
    /// # Errors
    /// The parser's error when it is no X.509 certificate.
    pub fn new(der: CertificateDer<'static>) -> Result<Self, x509_cert::der::Error> {
        let subject = x509_cert::Certificate::from_der(&der)?.tbs_certificate().subject().to_string();
        Ok(Self { der, subject })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject, as RFC 4514 writes it (`CN=executor-1,O=Example`).
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    listener: ListenerKind,
    certificate: Option<ClientCertificate>,
    /// What it showed as a holder, DER; then it has no client certificate.
    held: Option<CertificateDer<'static>>,
    /// Where the bytes of its connection's answers are counted, and what is refused.
    answers: Option<(Arc<Account>, Arc<RequestMetrics>)>,
}

/// The other end of a connection. In the extensions of every request; cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Inner>);

impl Peer {
    /// A peer as the listener found it.
    #[must_use]
    pub fn new(address: SocketAddr, listener: ListenerKind, certificate: Option<ClientCertificate>) -> Self {
        Self(Arc::new(Inner { address, listener, certificate, held: None, answers: None }))
    }

    /// A peer that showed a certificate as its holder ([`crate::holder`]).
    #[must_use]
    pub fn holding(address: SocketAddr, listener: ListenerKind, held: CertificateDer<'static>) -> Self {
        Self(Arc::new(Inner { address, listener, certificate: None, held: Some(held), answers: None }))
    }

    /// The same peer, whose answers are counted there.
    pub(crate) fn answered_from(mut self, answers: &Arc<Account>, metrics: &Arc<RequestMetrics>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.answers = Some((Arc::clone(answers), Arc::clone(metrics)));
        }
        self
    }

    /// Whether an answer of so many bytes stays within what its address may leave unread. One for which there is no room is
    /// not given: it need not be made either. A refusal is counted as if it had been.
    #[must_use]
    pub fn may_take(&self, bytes: u64) -> bool {
        let Some((answers, metrics)) = &self.0.answers else { return true };
        let taken = answers.has_share(bytes);
        if !taken {
            metrics.answers_refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Whose address it is: one customer has one of IPv4, or a /64 of IPv6.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        network(self.0.address.ip())
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The listener it connected to.
    #[must_use]
    pub fn listener(&self) -> ListenerKind {
        self.0.listener
    }

    /// The certificate it proved to own, if the connection is TLS and it sent one.
    #[must_use]
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.0.certificate.as_ref()
    }

    /// The certificate, in DER, that it showed as a holder: it proved that its key is the peer's, and the application said that it issued
    /// it.
    #[must_use]
    pub fn held_certificate(&self) -> Option<&[u8]> {
        self.0.held.as_deref()
    }
}

/// Gives a route the peer.
pub fn peer() -> impl Filter<Extract = (Peer,), Error = warp::Rejection> + Copy + Send + Sync {
    warp::ext::get::<Peer>()
}

/// Gives a route the peer's certificate, if it has one.
pub fn client_certificate()
-> impl Filter<Extract = (Option<ClientCertificate>,), Error = Infallible> + Copy + Send + Sync {
    warp::ext::optional::<Peer>().map(|peer: Option<Peer>| peer.and_then(|p| p.certificate().cloned()))
}
