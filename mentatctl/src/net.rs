//! The HTTP client that every command shares, and the runtime it runs on.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, read_file, read_secret, refuse_readers};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one request may take; the log answers when a checkpoint covers the entry.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Flags of every command that speaks TLS.
#[derive(Clone, Debug, Default, Args)]
pub struct TlsFlags {
    /// PEM file with the authorities of the servers' TLS certificates
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    tls_ca: Option<PathBuf>,
    /// PEM file with the client certificate for mutual TLS
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "TLS")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its key
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    tls_key: Option<PathBuf>,
}

impl TlsFlags {
    /// The authorities of the servers' TLS certificates, where they were given.
    pub fn ca(&self) -> Option<&Path> {
        self.tls_ca.as_deref()
    }

    /// The client. With a private authority given, only that authority is trusted; that of a stack is trusted besides the
    /// system's.
    ///
    /// # Errors
    /// Exit code 2 when a file cannot be used.
    pub fn client(&self, home: &Home) -> Outcome<Client> {
        let config = home.config();
        let cert = self.tls_cert.as_ref().or(config.tls_cert.as_ref());
        let key = self.tls_key.as_ref().or(config.tls_key.as_ref());
        let mut builder = self.builder(home)?;
        if let Some((cert, key)) = pair(cert, key)? {
            let (chain, secret) = (read_file(cert)?, read_secret(key)?);
            refuse_readers(
                key,
                "if nobody else has read it: chmod 600; else replace it and its certificate",
            )?;
            let identity = identity(&chain, &secret);
            let identity =
                identity.or_fail(Exit::Usage, format!("{} with {}", cert.display(), key.display()))?;
            builder = builder.identity(identity);
        }
        let ca = self.tls_ca.as_ref().or(config.tls_ca.as_ref());
        // What cannot be used of a PEM file shows only here.
        let given: Vec<String> =
            [ca, cert, key].into_iter().flatten().map(|p| p.display().to_string()).collect();
        if given.is_empty() {
            return builder.build().or_fail(Exit::Failure, "making the HTTP client");
        }
        builder.build().map_err(|error| {
            Failure::usage(format!("{}: {}", given.join(", "), crate::exit::chain(&error)))
                .hint("give PEM files: certificates for --tls-ca and --tls-cert, a PKCS#8 key for --tls-key")
        })
    }

    /// The client that shows this certificate, whatever the flags and the configuration name.
    ///
    /// # Errors
    /// Exit code 2 when a file, or the key, cannot be used.
    pub fn client_showing(&self, chain: &[u8], key: &Zeroizing<String>, home: &Home) -> Outcome<Client> {
        let unusable = "showing the certificate at the handshake";
        let identity = identity(chain, key).or_fail(Exit::Usage, unusable)?;
        self.builder(home)?.identity(identity).build().or_fail(Exit::Usage, unusable)
    }

    fn builder(&self, home: &Home) -> Outcome<ClientBuilder> {
        let ca = self.tls_ca.as_ref().or(home.config().tls_ca.as_ref());
        let builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("mentatctl/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        Ok(match (ca, home.stack_tls_ca()) {
            (Some(path), _) => builder.tls_certs_only(authorities(path)?),
            // Nobody asked for it by name: a registry elsewhere keeps the authorities that it has.
            (None, Some(path)) => builder.tls_certs_merge(authorities(path)?),
            (None, None) => builder,
        })
    }
}

/// A certificate, its issuers and its key, to be shown.
fn identity(chain: &[u8], key: &Zeroizing<String>) -> Result<Identity, reqwest::Error> {
    // Reserved once: growing would leave a copy of the key behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(chain.len() + 1 + key.len()));
    pem.extend(chain);
    pem.push(b'\n');
    pem.extend(key.as_bytes());
    Identity::from_pem(&pem)
}

/// A client certificate and its key. One without the other would be left out in silence.
fn pair<'a>(cert: Option<&'a PathBuf>, key: Option<&'a PathBuf>) -> Outcome<Option<(&'a Path, &'a Path)>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(half("tls_cert", "tls_key")),
        (None, Some(_)) => Err(half("tls_key", "tls_cert")),
    }
}

fn half(given: &str, missing: &str) -> Failure {
    Failure::usage(format!("{given} is configured without {missing}"))
        .hint(format!("set {missing} in config.toml too, or give --tls-cert and --tls-key"))
}

/// A client for servers that this program started itself on loopback, with the authority of their TLS certificates where
/// they speak TLS.
///
/// # Errors
/// Exit code 2 when the file cannot be used, 1 when the client cannot be made.
pub fn loopback_client(tls_ca: Option<&PathBuf>) -> Outcome<Client> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .redirect(redirect::Policy::none())
        .no_proxy();
    if let Some(path) = tls_ca {
        builder = builder.tls_certs_only(authorities(path)?);
    }
    builder.build().or_fail(Exit::Failure, "making the HTTP client")
}

/// The certificates of a PEM file, at least one.
fn authorities(path: &Path) -> Outcome<Vec<Certificate>> {
    let certificates =
        Certificate::from_pem_bundle(&read_file(path)?).or_fail(Exit::Usage, path.display())?;
    if certificates.is_empty() {
        return Err(Failure::usage(format!("{} holds no certificate", path.display()))
            .hint("give a PEM file with certificates"));
    }
    Ok(certificates)
}

/// Runs asynchronous work to its end.
///
/// # Errors
/// What the work reports, and exit code 1 when the runtime cannot be made.
pub fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_fail(Exit::Failure, "starting the asynchronous runtime")?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_client_certificate_is_refused_and_named() {
        let (cert, key) = (PathBuf::from("a.crt"), PathBuf::from("a.key"));
        assert!(pair(None, None).unwrap().is_none());
        assert_eq!(pair(Some(&cert), Some(&key)).unwrap(), Some((cert.as_path(), key.as_path())));
        for (cert, key, missing) in [(Some(&cert), None, "tls_key"), (None, Some(&key), "tls_cert")] {
            let line = pair(cert, key).unwrap_err().line();
            assert!(line.contains(&format!("without {missing}")), "{line}");
        }
    }
}
