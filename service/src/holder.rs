//! Holders of certificates that the application issued for something else than connections. They connect to look after those
//! certificates, and are nobody anywhere else: what they show is no client certificate ([`Peer::certificate`] has none), and gives no
//! standing that a stranger has not.
//!
//! What the handshake proves is that the key is theirs and that the application issued the certificate. Whether it has ended or was
//! revoked is for the application to say, with its own codes.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::peer::Peer;
use crate::problem::Problem;

/// What an application knows of the certificates that it issued.
pub trait Holders: fmt::Debug + Send + Sync {
    /// Names of the authorities that issue them, DER: clients with several certificates choose by these.
    fn authorities(&self) -> Vec<Vec<u8>>;

    /// Whether a certificate, in DER, is one of these. MUST verify its signature: it is all that the handshake looks at beside the
    /// proof of the key. MUST be bounded: anybody may ask.
    fn issued(&self, certificate: &[u8]) -> bool;

    /// Whether a holder may ask for what is at this path. Everything else is refused to whoever connected with such a certificate,
    /// whatever else they bear.
    fn reach(&self, path: &str) -> bool;
}

/// Refuses what is not for holders.
pub(crate) fn refused(holders: Option<&Arc<dyn Holders>>, peer: &Peer, path: &str) -> Option<Problem> {
    let holders = holders.filter(|_| peer.held_certificate().is_some())?;
    (!holders.reach(path)).then(|| {
        Problem::new(StatusCode::FORBIDDEN, "certificate_not_for_this")
            .with_detail("the certificate of this connection opens nothing here; connect without it")
    })
}

/// Accepts what `listed` does, and certificates of holders.
#[derive(Debug)]
pub(crate) struct Verifier {
    holders: Arc<dyn Holders>,
    /// Of the authorities that the configuration names.
    listed: Option<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(crate) fn new(
        holders: Arc<dyn Holders>,
        listed: Option<Arc<dyn ClientCertVerifier>>,
        provider: &CryptoProvider,
    ) -> Self {
        let mut hints: Vec<_> =
            listed.iter().flat_map(|listed| listed.root_hint_subjects().to_vec()).collect();
        hints.extend(holders.authorities().into_iter().map(DistinguishedName::from));
        Self { holders, listed, hints, algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.listed.as_ref().is_some_and(|listed| listed.client_auth_mandatory())
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.holders.issued(end_entity) {
            return Ok(ClientCertVerified::assertion());
        }
        match &self.listed {
            Some(listed) => listed.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.listed {
            // What such a key signs at a handshake of TLS 1.2 has no form of its own; that of TLS 1.3 has (RFC 8446 section 4.4.3).
            Some(listed) if !self.holders.issued(certificate) => {
                listed.verify_tls12_signature(message, certificate, signed)
            }
            _ => Err(Error::General("such a certificate is shown over TLS 1.3 alone".to_owned())),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
