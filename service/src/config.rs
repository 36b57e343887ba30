//! The `[server]` section: as it is written ([`ServerConfig`]) and as it is used ([`Settings`]).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::StartRefusal;
use crate::holder::Holders;
use crate::rate_limit::Rate;
use crate::tls;

/// The section as it is written. Every field has a usable default; unknown fields are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// `IP:PORT` of the main listener; port 0 lets the system choose. Without TLS only a loopback address is accepted.
    pub listen: String,
    /// `IP:PORT` of the plain listener for published objects (CRLs, OCSP, CA certificates, checkpoints); absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_listen: Option<String>,
    /// TLS of the main listener; absent: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// What a peer may send and hold open.
    pub limits: LimitsConfig,
    /// Requests per client; absent: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitConfig>,
    /// Seconds that requests under way get to finish after a stop was asked for.
    pub drain_seconds: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            read_only_listen: None,
            tls: None,
            limits: LimitsConfig::default(),
            rate_limit: None,
            drain_seconds: 30,
        }
    }
}

/// TLS as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file: the server's certificate, then its intermediates.
    pub certificate_file: PathBuf,
    /// PEM file with the private key (PKCS#8, SEC1 or PKCS#1), readable by its owner only.
    pub key_file: PathBuf,
    /// PEM file with the authorities whose client certificates are accepted; absent: none are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client must show a certificate. Needs `client_ca_file`.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificates {
    /// Whoever has none is refused during the handshake. The default where `client_ca_file` is given.
    #[default]
    Required,
    /// Whoever has one is known by it; the others stay anonymous.
    Optional,
}

/// Limits as they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections on all listeners together.
    pub connections: u32,
    /// Connections of one address; of IPv6, of one /64.
    pub connections_per_peer: u32,
    /// Bytes of a request body (gRPC messages have their own limit).
    pub body_bytes: u64,
    /// Bytes of answers that peers have not taken yet, together. What is held beside it is 64 KiB for each connection.
    pub answer_bytes: u64,
    /// The same for one address; of IPv6, for one /64.
    pub answer_bytes_per_peer: u64,
    /// Bytes of request bodies that are not answered yet, together. What is held beside it is 64 KiB for each connection.
    pub request_bytes: u64,
    /// The same for one address; of IPv6, for one /64.
    pub request_bytes_per_peer: u64,
    /// Bytes of a request's headers.
    pub header_bytes: u32,
    /// Milliseconds for the headers of a request, from its first byte to its last.
    pub header_timeout_ms: u32,
    /// Milliseconds a body may pause, and an answer that the peer reads.
    pub stall_timeout_ms: u32,
    /// Milliseconds for a whole request body, and a second more for each 16 KiB of it that have come. The same for an
    /// answer; several of one connection share the 16 KiB.
    pub body_timeout_ms: u32,
    /// Milliseconds for the TLS handshake.
    pub tls_timeout_ms: u32,
    /// Seconds a connection may stay without a request.
    pub idle_seconds: u32,
    /// Requests at the same time on one HTTP/2 connection.
    pub http2_streams: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 512,
            body_bytes: 4 * 1024 * 1024,
            answer_bytes: 256 * 1024 * 1024,
            answer_bytes_per_peer: 64 * 1024 * 1024,
            request_bytes: 256 * 1024 * 1024,
            request_bytes_per_peer: 64 * 1024 * 1024,
            header_bytes: 32 * 1024,
            header_timeout_ms: 10_000,
            stall_timeout_ms: 20_000,
            body_timeout_ms: 60_000,
            tls_timeout_ms: 10_000,
            idle_seconds: 75,
            http2_streams: 256,
        }
    }
}

/// Rate limit as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Requests a second one client may make in the long run.
    pub per_second: NonZeroU32,
    /// Requests it may make at once after a pause.
    pub burst: NonZeroU32,
}

/// Where and how a listener speaks; only made by [`ServerConfig::validate`], so a plain main listener is on loopback.
#[derive(Clone, Debug)]
pub enum Listen {
    /// Plain HTTP.
    Plain(SocketAddr),
    /// TLS, with or without client certificates.
    Tls(SocketAddr, Arc<rustls::ServerConfig>),
}

impl Listen {
    /// The address to bind.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Plain(address) | Self::Tls(address, _) => *address,
        }
    }
}

/// The validated section.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) primary: Listen,
    pub(crate) read_only: Option<SocketAddr>,
    pub(crate) limits: Limits,
    pub(crate) rate: Option<Rate>,
    pub(crate) drain: Duration,
    /// Who connects with certificates of the application's own; never without TLS.
    pub(crate) holders: Option<Arc<dyn Holders>>,
}

impl Settings {
    /// The main listener.
    #[must_use]
    pub const fn primary(&self) -> &Listen {
        &self.primary
    }

    /// The largest request body in bytes.
    #[must_use]
    pub const fn body_limit(&self) -> u64 {
        self.limits.body_bytes
    }
}

/// Validated limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) connections_per_peer: u32,
    pub(crate) body_bytes: u64,
    pub(crate) answer_bytes: u64,
    pub(crate) answer_bytes_per_peer: u64,
    pub(crate) request_bytes: u64,
    pub(crate) request_bytes_per_peer: u64,
    pub(crate) header_bytes: u32,
    pub(crate) header_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) tls_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) http2_streams: u32,
}

impl ServerConfig {
    /// Makes relative paths start at `base`, the folder of the configuration file.
    pub fn resolve_paths(&mut self, base: &Path) {
        if let Some(tls) = &mut self.tls {
            let files = [&mut tls.certificate_file, &mut tls.key_file];
            for file in files.into_iter().chain(&mut tls.client_ca_file) {
                *file = base.join(&*file);
            }
        }
    }

    /// Checks the section and loads what it names.
    ///
    /// # Errors
    /// [`StartRefusal`] for a value outside its range, plain HTTP elsewhere than on loopback, and TLS files that cannot be
    /// used.
    pub fn validate(&self) -> Result<Settings, StartRefusal> {
        self.validate_for(None)
    }

    /// The same, where certificates of the application's own are accepted at the handshake.
    ///
    /// # Errors
    /// As [`Self::validate`], and without TLS.
    pub(crate) fn validate_for(&self, holders: Option<Arc<dyn Holders>>) -> Result<Settings, StartRefusal> {
        if holders.is_some() && self.tls.is_none() {
            return Err(StartRefusal::new(
                "certificates are shown at the TLS handshake, and there is no [server.tls]",
                "add the section, or do not accept them",
            ));
        }
        let address = parse_address("server.listen", &self.listen)?;
        let primary = match &self.tls {
            Some(tls) => Listen::Tls(address, tls::server_config(tls, holders.as_ref())?),
            None if address.ip().is_loopback() => Listen::Plain(address),
            None => {
                return Err(StartRefusal::new(
                    format!(
                        "server.listen = {address} would speak plain HTTP on an address others can reach"
                    ),
                    "add a [server.tls] section or listen on 127.0.0.1",
                ));
            }
        };
        let read_only = self
            .read_only_listen
            .as_deref()
            .map(|text| parse_address("server.read_only_listen", text))
            .transpose()?;
        if let Some(read_only) = read_only
            && read_only.port() != 0
            && read_only == address
        {
            return Err(StartRefusal::new(
                format!("server.listen and server.read_only_listen are both {address}"),
                "give them different ports",
            ));
        }
        Ok(Settings {
            primary,
            read_only,
            limits: self.limits.validate()?,
            rate: self.rate_limit.map(|rate| Rate::new(rate.per_second, rate.burst)),
            drain: Duration::from_secs(in_range("drain_seconds", u64::from(self.drain_seconds), 0, 3600)?),
            holders,
        })
    }
}

impl LimitsConfig {
    pub(crate) fn validate(&self) -> Result<Limits, StartRefusal> {
        let check = |name: &str, value: u64, low: u64, high: u64| {
            in_range(&format!("limits.{name}"), value, low, high)
        };
        let millis =
            |name: &str, value: u32| check(name, u64::from(value), 50, 3_600_000).map(Duration::from_millis);
        check("connections_per_peer", u64::from(self.connections_per_peer), 1, 1_000_000)?;
        check("header_bytes", u64::from(self.header_bytes), 8192, 1024 * 1024)?;
        check("http2_streams", u64::from(self.http2_streams), 1, 10_000)?;
        let connections = check("connections", u64::from(self.connections), 1, 1_000_000)?;
        Ok(Limits {
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            connections_per_peer: self.connections_per_peer,
            body_bytes: check("body_bytes", self.body_bytes, 1, 16 * 1024 * 1024 * 1024)?,
            answer_bytes: check("answer_bytes", self.answer_bytes, 1024 * 1024, 1 << 40)?,
            answer_bytes_per_peer: check(
                "answer_bytes_per_peer",
                self.answer_bytes_per_peer,
                1024 * 1024,
                self.answer_bytes,
            )?,
            request_bytes: check("request_bytes", self.request_bytes, 1024 * 1024, 1 << 40)?,
            request_bytes_per_peer: check(
                "request_bytes_per_peer",
                self.request_bytes_per_peer,
                1024 * 1024,
                self.request_bytes,
            )?,
            header_bytes: self.header_bytes,
            header_timeout: millis("header_timeout_ms", self.header_timeout_ms)?,
            stall_timeout: millis("stall_timeout_ms", self.stall_timeout_ms)?,
            body_timeout: millis("body_timeout_ms", self.body_timeout_ms)?,
            tls_timeout: millis("tls_timeout_ms", self.tls_timeout_ms)?,
            idle_timeout: Duration::from_secs(check(
                "idle_seconds",
                u64::from(self.idle_seconds),
                1,
                86_400,
            )?),
            http2_streams: self.http2_streams,
        })
    }
}

fn in_range(name: &str, value: u64, low: u64, high: u64) -> Result<u64, StartRefusal> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(StartRefusal::new(
            format!("server.{name} = {value} is out of range"),
            format!("choose a value from {low} to {high}"),
        ))
    }
}

fn parse_address(field: &str, text: &str) -> Result<SocketAddr, StartRefusal> {
    // The one host name whose meaning does not depend on a resolver.
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    if let Some(port) = local {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| {
        StartRefusal::new(
            format!("{field} = {:?} is not an address", text.chars().take(80).collect::<String>()),
            "write IP:PORT, for example 127.0.0.1:8443 or [::1]:8443",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        toml::from_str::<ServerConfig>(text).unwrap().validate().unwrap_err().to_string()
    }

    #[test]
    fn an_empty_section_is_loopback_with_limits() {
        let settings = toml::from_str::<ServerConfig>("").unwrap().validate().unwrap();
        assert!(settings.primary().address().ip().is_loopback());
        assert!(settings.rate.is_none());
    }

    #[test]
    fn plain_http_elsewhere_than_on_loopback_is_refused() {
        for address in ["0.0.0.0:80", "10.0.0.1:8080", "[::]:80"] {
            let refusal = refusal(&format!("listen = {address:?}"));
            assert!(refusal.contains("plain HTTP") && refusal.contains("[server.tls]"), "{refusal}");
        }
        assert!(toml::from_str::<ServerConfig>("listen = '[::1]:0'").unwrap().validate().is_ok());
    }

    #[test]
    fn the_read_only_listener_may_be_plain_anywhere_but_not_the_same_port() {
        let config: ServerConfig =
            toml::from_str("listen = '127.0.0.1:8443'\nread_only_listen = '0.0.0.0:80'").unwrap();
        assert_eq!(config.validate().unwrap().read_only.unwrap().port(), 80);
        assert!(
            refusal("listen = '127.0.0.1:80'\nread_only_listen = '127.0.0.1:80'").contains("different ports")
        );
    }

    #[test]
    fn relative_paths_start_at_the_configuration_file() {
        let mut config: ServerConfig = toml::from_str(
            "[tls]\ncertificate_file = 'tls/a.pem'\nkey_file = '/abs/a.key'\nclient_ca_file = 'ca.pem'",
        )
        .unwrap();
        config.resolve_paths(Path::new("/etc/x"));
        let tls = config.tls.unwrap();
        assert_eq!(tls.certificate_file, Path::new("/etc/x/tls/a.pem"));
        assert_eq!(tls.key_file, Path::new("/abs/a.key"));
        assert_eq!(tls.client_ca_file.as_deref(), Some(Path::new("/etc/x/ca.pem")));
    }

    #[test]
    fn values_out_of_range_and_unknown_fields_are_refused() {
        assert!(refusal("[limits]\nheader_timeout_ms = 0").contains("limits.header_timeout_ms"));
        assert!(refusal("[limits]\nbody_bytes = 0").contains("limits.body_bytes"));
        assert!(refusal("[limits]\nanswer_bytes = 1000").contains("limits.answer_bytes"));
        assert!(
            refusal("[limits]\nanswer_bytes = 2000000\nanswer_bytes_per_peer = 2000001").contains("per_peer")
        );
        assert!(refusal("drain_seconds = 100000").contains("drain_seconds"));
        assert!(refusal("listen = 'example.com:80'").contains("IP:PORT"));
        assert!(toml::from_str::<ServerConfig>("lisen = 'x'").is_err());
        assert!(toml::from_str::<ServerConfig>("[rate_limit]\nper_second = 0\nburst = 1").is_err());
    }
}
