//! TLS with rustls on aws-lc: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, client certificates where configured.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{ClientCertificates, TlsConfig};
use crate::exit::StartRefusal;
use crate::holder::{Holders, Verifier};
use crate::secret;

/// Longest PEM file that is read, in bytes.
pub(crate) const MAX_PEM_LEN: usize = 1024 * 1024;

/// With `holders`, their certificates are accepted beside those of the configured authorities.
pub(crate) fn server_config(
    config: &TlsConfig,
    holders: Option<&Arc<dyn Holders>>,
) -> Result<Arc<ServerConfig>, StartRefusal> {
    let chain = certificates(&config.certificate_file)?;
    let key = private_key(&config.key_file)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let refuse = |what: &str, error: rustls::Error| {
        StartRefusal::new(
            format!("{} {what}", config.certificate_file.display()),
            "check that certificate and key belong together",
        )
        .because(error)
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("cannot be used", error))?;
    let listed = client_verifier(config, &provider)?;
    let builder = match (holders, listed) {
        (None, None) => builder.with_no_client_auth(),
        (None, Some(listed)) => builder.with_client_cert_verifier(listed),
        (Some(holders), listed) => {
            let verifier = Verifier::new(Arc::clone(holders), listed, &provider);
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let mut server =
        builder.with_single_cert(chain, key).map_err(|error| refuse("and its key cannot be used", error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// Who verifies client certificates by the authorities that the configuration names, if it names any.
fn client_verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, StartRefusal> {
    let Some(path) = &config.client_ca_file else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            StartRefusal::new(
                format!("{} holds an unusable authority", path.display()),
                "check that certificate and key belong together",
            )
            .because(error)
        })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = match config.client_certificates {
        ClientCertificates::Required => verifier,
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|error| {
        StartRefusal::new(
            format!("{} cannot be used to verify clients", path.display()),
            "put the authorities' certificates into it",
        )
        .because(error)
    })?;
    Ok(Some(verifier))
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// [`StartRefusal`] naming the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartRefusal> {
    let refuse = |what: &str| {
        StartRefusal::new(format!("{} {what}", path.display()), "give a PEM file with CERTIFICATE blocks")
    };
    let length = std::fs::metadata(path).map_err(|e| refuse("cannot be read").because(e))?.len();
    if length > MAX_PEM_LEN as u64 {
        return Err(refuse("is longer than 1 MiB"));
    }
    let pem = std::fs::read(path).map_err(|e| refuse("cannot be read").because(e))?;
    let found = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| refuse("is not valid PEM"))?;
    if found.is_empty() { Err(refuse("holds no certificate")) } else { Ok(found) }
}

/// The private key of a PEM file that only its owner can read.
///
/// # Errors
/// [`StartRefusal`] naming the file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, StartRefusal> {
    let pem = secret::read(path, MAX_PEM_LEN)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        StartRefusal::new(
            format!("{} holds no private key", path.display()),
            "give a PEM file with an unencrypted PRIVATE KEY block",
        )
    })
}
