//! TLS for the listener of `up` itself, as the servers speak it.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{read_file, read_secret};
use crate::tls::Pair;

/// What accepts connections with this certificate.
///
/// # Errors
/// Exit code 78 when certificate or key cannot be used.
pub fn acceptor(files: &Pair) -> Outcome<TlsAcceptor> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read_file(&files.certificate)?)
        .collect::<Result<_, _>>()
        .or_fail(Exit::Refused, files.certificate.display())?;
    let key = PrivateKeyDer::from_pem_slice(read_secret(&files.key)?.as_bytes())
        .or_fail(Exit::Refused, files.key.display())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .or_fail(Exit::Refused, files.certificate.display())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
