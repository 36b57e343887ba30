//! The way out for guests: one HTTP request at a time, to a destination that was granted.
//!
//! ```text
//! request ─▶ one form ─▶ grant ─▶ operator's hosts, ports, clear text ─▶ name resolved once ─▶ each address judged ─▶ sent
//! ```
//!
//! Nothing is decided on a form that differs from what is sent, and the addresses that are judged are those that are
//! connected to. Redirects go back to the guest, whose next request begins at the front. Connections are not shared
//! between calls. Bare connections take the same way (`Connections`): by the name that was granted, to the addresses
//! that were judged for it.

mod addresses;
#[cfg(test)]
mod bounds_tests;
mod connections;
#[cfg(test)]
mod connections_tests;
pub(crate) mod message;
mod resolver;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use executor_engine::limits::MAX_TRANSFER_BYTES;
use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trust_store::capability::{Capability, HostPattern, Protocol};

pub use addresses::{AddressRules, Network, NoNetwork};
#[cfg(feature = "sockets")]
pub(crate) use connections::Found;
pub(crate) use connections::{Connections, is_bare};
use message::Outgoing;
pub(crate) use resolver::MAX_LOOKUPS;
use resolver::{ASKING, AddressDenied, Judged, MAX_LOOKUPS_OF_AGENT, Names, NoAddress, SystemNames};

use crate::abi::ErrorCode;
use crate::runtime::{Cancel, NetworkUse};
use crate::waiting::{Interrupted, wait_for};

/// Ports that are blocked whatever is granted: shells, mail, remote desktops.
const BLOCKED_PORTS: [u16; 3] = [22, 25, 3389];

/// What a grant without a port means.
const TLS_PORT: u16 = 443;

/// Requests of one call.
const MAX_REQUESTS: u32 = 32;

/// Bytes of bodies of one call, each way.
const MAX_BYTES: u64 = 64 << 20;

/// Bytes of the body of one answer: in base64 it fits one transfer.
const MAX_BODY: usize = MAX_TRANSFER_BYTES / 2;

/// Requests of all guests under way, and of the guests of one agent: a host that never answers one agent leaves room for the
/// requests of the others.
const MAX_UNDER_WAY: usize = 256;
const MAX_OF_AGENT: usize = MAX_UNDER_WAY / 4;

/// How long a connection may take to be made, and a whole exchange.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
pub(crate) const EXCHANGE: Duration = Duration::from_secs(30);

/// What the operator says about destinations. No manifest widens it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressRules {
    /// Addresses.
    pub addresses: AddressRules,
    /// Hosts that no guest reaches.
    pub deny_hosts: Vec<HostPattern>,
    /// Hosts that may be spoken to without TLS, where the grant says `http`.
    pub clear_text: Vec<HostPattern>,
    /// Further ports that no guest reaches.
    pub blocked_ports: Vec<u16>,
    /// Where this executor listens. On these ports neither loopback nor these addresses are reached, whatever was opened: on
    /// loopback whoever speaks to the executor may be its administrator.
    pub own: Vec<SocketAddr>,
}

impl EgressRules {
    /// Which addresses are reached on the executor's own ports.
    fn without_own(&self) -> AddressRules {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let own = self.own.iter().map(|own| Network::host(own.ip()));
        let [v4, v6] = loopback.map(|address| match address {
            IpAddr::V4(_) => Network::new(address, 8),
            IpAddr::V6(_) => Network::host(address),
        });
        let deny = self.addresses.deny.iter().copied().chain([v4, v6]).chain(own).collect();
        AddressRules { open: self.addresses.open.clone(), deny }
    }
}

/// Why a request was not sent, or has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0} leads to an address that guests may not reach")]
    Address(String),
    #[error("too many requests of guests are under way")]
    Busy,
    #[error("{0} may not be spoken to without TLS")]
    ClearText(String),
    #[error("{0} was not granted")]
    Destination(String),
    #[error("the operator denies {0}")]
    Host(String),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the port {0} is blocked")]
    Port(u16),
    #[error("the call has used its share of the network")]
    Quota,
    #[error("the call is being stopped")]
    Stopped,
    #[error("there was no answer in time")]
    TimedOut,
    #[error("{0}")]
    TooLarge(&'static str),
    #[error("{0}")]
    Unreachable(&'static str),
}

impl Refused {
    /// The stable reason code.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Address(_) => "egress_denied_address",
            Self::Busy => "egress_busy",
            Self::ClearText(_) => "egress_denied_clear_text",
            Self::Destination(_) => "egress_denied_destination",
            Self::Host(_) => "egress_denied_host",
            Self::Malformed(_) => "egress_malformed",
            Self::Port(_) => "egress_denied_port",
            Self::Quota => "egress_quota",
            Self::Stopped => "egress_stopped",
            Self::TimedOut => "egress_timeout",
            Self::TooLarge(_) => "egress_too_large",
            Self::Unreachable(_) => "egress_unreachable",
        }
    }

    /// What the guest is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Address(_) | Self::ClearText(_) | Self::Destination(_) | Self::Host(_) | Self::Port(_) => {
                ErrorCode::PolicyDenied
            }
            Self::Busy | Self::Quota | Self::Stopped | Self::TooLarge(_) => ErrorCode::Limit,
            Self::Malformed(_) => ErrorCode::InvalidArgument,
            Self::TimedOut => ErrorCode::TimedOut,
            Self::Unreachable(_) => ErrorCode::Io,
        }
    }
}

/// The way out. One for each executor.
pub struct Egress {
    client: reqwest::Client,
    /// For the ports that the executor listens on: it is not among what was opened.
    closed: reqwest::Client,
    /// For bare connections; the clients have it, too.
    names: Arc<dyn Names>,
    rules: EgressRules,
    runtime: Handle,
    under_way: Arc<Semaphore>,
}

/// One agent's share of the way out.
#[derive(Debug, Clone)]
struct Share {
    /// Requests and connections under way.
    under_way: Arc<Semaphore>,
    /// Names that the resolver is asked for.
    asking: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        let places = |places| Arc::new(Semaphore::new(places));
        Self { under_way: places(MAX_OF_AGENT), asking: places(MAX_LOOKUPS_OF_AGENT) }
    }
}

/// The way out of one agent, with its share of it.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    egress: Arc<Egress>,
    share: Share,
}

impl Outlet {
    pub(crate) fn new(egress: &Arc<Egress>) -> Self {
        Self { egress: Arc::clone(egress), share: Share::default() }
    }

    /// As [`Egress::perform`], within the agent's share.
    pub(crate) fn perform(
        &self,
        granted: &Capability,
        arguments: &[u8],
        kill: &Cancel,
        deadline: Instant,
        used: &mut NetworkUse,
    ) -> Result<Vec<u8>, Refused> {
        self.egress.perform(&self.share, granted, arguments, kill, deadline, used)
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Egress {
    /// A way out by these rules. `clients` say whom to believe over TLS; they must follow neither redirects nor proxies.
    /// Requests run on the tokio runtime that this is called in.
    ///
    /// # Errors
    ///
    /// When no client can be made.
    pub fn new(clients: [reqwest::ClientBuilder; 2], rules: EgressRules) -> reqwest::Result<Self> {
        Self::with_names(clients, rules, Arc::new(SystemNames::new()))
    }

    fn with_names(
        clients: [reqwest::ClientBuilder; 2],
        rules: EgressRules,
        names: Arc<dyn Names>,
    ) -> reqwest::Result<Self> {
        let [client, closed] = clients;
        let client = Self::client(client, &names, rules.addresses.clone())?;
        let closed = Self::client(closed, &names, rules.without_own())?;
        let under_way = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        Ok(Self { client, closed, names, rules, runtime: Handle::current(), under_way })
    }

    fn client(
        client: reqwest::ClientBuilder,
        names: &Arc<dyn Names>,
        addresses: AddressRules,
    ) -> reqwest::Result<reqwest::Client> {
        let judged = Judged { names: Arc::clone(names), rules: Arc::new(addresses) };
        client
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT)
            .timeout(EXCHANGE)
            .dns_resolver(Arc::new(judged))
            .build()
    }

    /// Why a capability cannot be provided here, whatever policy grants.
    pub(crate) fn lacks(
        &self,
        protocol: Protocol,
        host: &HostPattern,
        port: Option<u16>,
    ) -> Option<&'static str> {
        // A manifest that names no port means the protocol's.
        let port = port.or((protocol == Protocol::Tcp).then_some(TLS_PORT));
        if port.is_some_and(|port| self.is_blocked(port)) {
            return Some("the port is blocked for guests");
        }
        self.denies(host).then_some("the operator denies this host")
    }

    fn is_blocked(&self, port: u16) -> bool {
        BLOCKED_PORTS.contains(&port) || self.rules.blocked_ports.contains(&port)
    }

    fn is_own(&self, port: u16) -> bool {
        self.rules.own.iter().any(|own| own.port() == port)
    }

    /// Whether an address is one that guests reach on this port.
    fn reaches(&self, address: IpAddr, port: u16) -> bool {
        self.rules.addresses.allow(address) && (!self.is_own(port) || self.rules.without_own().allow(address))
    }

    fn denies(&self, host: &HostPattern) -> bool {
        self.rules.deny_hosts.iter().any(|denied| denied.contains(host))
    }

    /// Sends a guest's request if `granted` covers its destination, and waits for the answer. Blocks the thread of the
    /// call until there is one, the call is stopped or its time is up.
    fn perform(
        &self,
        of_agent: &Share,
        granted: &Capability,
        arguments: &[u8],
        kill: &Cancel,
        deadline: Instant,
        used: &mut NetworkUse,
    ) -> Result<Vec<u8>, Refused> {
        used.requests += 1;
        if used.requests > MAX_REQUESTS {
            return Err(Refused::Quota);
        }
        let request = Outgoing::read(arguments)?;
        self.judge(granted, &request)?;
        used.sent = used.sent.saturating_add(request.body.len() as u64);
        if used.sent > MAX_BYTES || used.received >= MAX_BYTES {
            return Err(Refused::Quota);
        }
        let answer = self.wait(of_agent, request, kill, deadline)?;
        used.received = used.received.saturating_add(answer.body.len() as u64);
        message::answer(answer.status, &answer.headers, answer.body, MAX_TRANSFER_BYTES)
    }

    /// Everything that is known without asking anybody for an address.
    fn judge(&self, granted: &Capability, request: &Outgoing) -> Result<(), Refused> {
        let wanted = request.capability()?;
        let Capability::Network { host, .. } = &wanted else {
            return Err(Refused::Malformed("the host is none"));
        };
        if !wanted.is_covered_by([granted]) {
            return Err(Refused::Destination(wanted.to_string()));
        }
        if self.denies(host) {
            return Err(Refused::Host(request.host.clone()));
        }
        if self.is_blocked(request.port) {
            return Err(Refused::Port(request.port));
        }
        if !request.is_encrypted() && !self.rules.clear_text.iter().any(|clear| clear.contains(host)) {
            return Err(Refused::ClearText(request.host.clone()));
        }
        // No resolver is asked about an address.
        match request.host.parse() {
            Ok(address) if !self.reaches(address, request.port) => {
                Err(Refused::Address(request.host.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Room for one more, of the agent's share and of all.
    fn place(&self, of_agent: &Share) -> Result<[OwnedSemaphorePermit; 2], Refused> {
        let take =
            |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().map_err(|_| Refused::Busy);
        Ok([take(&of_agent.under_way)?, take(&self.under_way)?])
    }

    fn wait(
        &self,
        of_agent: &Share,
        request: Outgoing,
        kill: &Cancel,
        deadline: Instant,
    ) -> Result<Answer, Refused> {
        let place = self.place(of_agent)?;
        let client = if self.is_own(request.port) { self.closed.clone() } else { self.client.clone() };
        let exchange = ASKING.scope(Arc::clone(&of_agent.asking), async move {
            let answer = exchange(&client, request).await;
            drop(place);
            answer
        });
        wait_for(&self.runtime, exchange, kill, deadline).unwrap_or_else(|interrupted| {
            Err(match interrupted {
                Interrupted::Broken => Refused::Unreachable("the exchange broke off"),
                Interrupted::Stopped => Refused::Stopped,
                Interrupted::TimedOut => Refused::TimedOut,
            })
        })
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

async fn exchange(client: &reqwest::Client, request: Outgoing) -> Result<Answer, Refused> {
    let host = request.host;
    let failed = |error: reqwest::Error| why(&error, &host);
    let sent = client.request(request.method, request.url).headers(request.headers).body(request.body);
    let mut response = sent.send().await.map_err(failed)?;
    let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Refused::TooLarge("the answer is longer than one host call may give"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body })
}

/// Sorts what the client reports by type, never by text.
fn why(error: &reqwest::Error, host: &str) -> Refused {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if cause.is::<AddressDenied>() {
            return Refused::Address(host.to_owned());
        }
        if cause.is::<NoAddress>() {
            return Refused::Unreachable("the host has no address");
        }
        next = cause.source();
    }
    if error.is_timeout() {
        Refused::TimedOut
    } else if error.is_connect() {
        Refused::Unreachable("no connection to the host could be made")
    } else {
        Refused::Unreachable("the exchange broke off")
    }
}
