//! Bare connections of one call: to granted hosts, by name.
//!
//! A guest connects to addresses, and a grant names hosts. What ties them is the look-up: only granted names are looked up,
//! every address of the answer is judged, and the answer is kept for the call. A connection is made to exactly such an address,
//! on a port that was granted for a name that led there; nobody is asked again in between. An address that no name led to is
//! connected to only where the grant names the address itself.
#![cfg_attr(
    not(feature = "sockets"),
    allow(dead_code, reason = "a build without it refuses who would use it")
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use trust_store::capability::{Capability, HostPattern, Protocol};

use super::resolver::{Unusable, usable};
use super::{CONNECT, MAX_BYTES, MAX_REQUESTS, Outlet, Refused, TLS_PORT};
use crate::runtime::NetworkUse;

/// Addresses of a name, when they are known.
pub(crate) type Found = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Refused>> + Send>>;

/// Room for one connection, from the agent's share and from that of all; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permits: [OwnedSemaphorePermit; 2],
}

/// The bare connections that one call may make, and what it made of them.
pub(crate) struct Connections {
    outlet: Outlet,
    granted: Vec<Capability>,
    known: Mutex<Known>,
    sent: AtomicU64,
    received: AtomicU64,
    ran_out: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// The names that led to an address.
    pinned: BTreeMap<IpAddr, Vec<HostPattern>>,
    /// What was found to be granted. Nothing that a guest makes up is kept: there are as many as addresses of names times granted ports.
    approved: BTreeSet<(IpAddr, u16)>,
    /// Places of sockets, by their number in the guest's table.
    places: HashMap<u32, Place>,
    opened: u32,
    looked_up: u32,
}

impl Outlet {
    /// The bare connections of one call, if any is granted.
    pub(crate) fn connections(&self, granted: &[Capability]) -> Option<Arc<Connections>> {
        let granted: Vec<_> = granted.iter().filter(|granted| is_bare(granted)).cloned().collect();
        (!granted.is_empty()).then(|| {
            Arc::new(Connections {
                outlet: self.clone(),
                granted,
                known: Mutex::default(),
                sent: AtomicU64::new(0),
                received: AtomicU64::new(0),
                ran_out: AtomicBool::new(false),
            })
        })
    }
}

/// Whether a capability is one of bare connections.
pub(crate) fn is_bare(capability: &Capability) -> bool {
    matches!(capability, Capability::Network { protocol: Protocol::Tcp, .. })
}

impl Connections {
    /// Room for one more socket.
    pub(crate) fn open(&self) -> Result<Place, Refused> {
        let mut known = self.known.lock();
        known.opened = known.opened.saturating_add(1);
        if known.opened > MAX_REQUESTS {
            return Err(Refused::Quota);
        }
        Ok(Place { _permits: self.outlet.egress.place(&self.outlet.share)? })
    }

    /// The socket with this number has the place until [`Self::let_go`].
    pub(crate) fn keep(&self, socket: u32, place: Place) {
        self.known.lock().places.insert(socket, place);
    }

    /// The socket with this number is gone.
    pub(crate) fn let_go(&self, socket: u32) {
        self.known.lock().places.remove(&socket);
    }

    /// Asks for the addresses of a granted name.
    pub(crate) fn look_up(self: &Arc<Self>, name: &str) -> Result<Found, Refused> {
        let host = HostPattern::new(name).ok().filter(|host| !host.is_wildcard());
        let host = host.ok_or(Refused::Malformed("the host is none"))?;
        let means = |granted: &Capability| match granted {
            Capability::Network { host: granted, .. } => granted.contains(&host),
            _ => false,
        };
        if !self.granted.iter().any(means) {
            return Err(Refused::Destination(format!("the address of {host}")));
        }
        let egress = &self.outlet.egress;
        if egress.denies(&host) {
            return Err(Refused::Host(host.to_string()));
        }
        {
            let mut known = self.known.lock();
            known.looked_up = known.looked_up.saturating_add(1);
            if known.looked_up > MAX_REQUESTS {
                return Err(Refused::Quota);
            }
        }
        if let Ok(address) = host.name().parse() {
            let found = self.pin(&host, vec![address]);
            return Ok(Box::pin(async { found }));
        }
        let call = Arc::clone(self);
        // On its own: a guest that asks and does not wait would hold a place among the questions of everybody.
        let mut asked = JoinSet::new();
        asked.spawn_on(async move { call.ask(&host).await }, &egress.runtime);
        Ok(Box::pin(async move {
            let found = asked.join_next().await.and_then(Result::ok);
            found.unwrap_or(Err(Refused::Unreachable("the host has no address")))
        }))
    }

    /// Asks about a name within the agent's share of questions.
    async fn ask(&self, host: &HostPattern) -> Result<Vec<IpAddr>, Refused> {
        let Outlet { egress, share } = &self.outlet;
        let none = || Refused::Unreachable("the host has no address");
        let asked = async {
            let asking = Arc::clone(&share.asking).acquire_owned().await.map_err(|_| none())?;
            egress.names.addresses(host.name(), asking).await.map_err(|_| none())
        };
        let found = tokio::time::timeout(CONNECT, asked).await.map_err(|_| Refused::TimedOut)??;
        self.pin(host, found)
    }

    /// Keeps what a name led to, if guests may reach all of it.
    fn pin(&self, host: &HostPattern, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Refused> {
        let found = found.into_iter().map(|address| address.to_canonical()).collect();
        let found =
            usable(found, &self.outlet.egress.rules.addresses).map_err(|unusable| match unusable {
                Unusable::Denied(_) => Refused::Address(host.to_string()),
                Unusable::Nothing(_) => Refused::Unreachable("the host has no address"),
            })?;
        let mut known = self.known.lock();
        for address in &found {
            let names = known.pinned.entry(*address).or_default();
            if !names.contains(host) {
                names.push(host.clone());
            }
        }
        Ok(found)
    }

    /// Whether the guest may connect to an address; [`Self::approves`] says so from then on.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<(), Refused> {
        let egress = &self.outlet.egress;
        let (address, port) =
            judged(to).ok_or(Refused::Malformed("an address has a flow or a scope, which nobody judged"))?;
        let itself = HostPattern::new(&address.to_string()).ok();
        let mut known = self.known.lock();
        let mut hosts = known.pinned.get(&address).into_iter().flatten().chain(&itself);
        let host = hosts.find(|host| self.grants(host, port));
        let host = host.ok_or_else(|| Refused::Destination(to.to_string()))?;
        if egress.denies(host) {
            return Err(Refused::Host(host.to_string()));
        }
        if egress.is_blocked(port) {
            return Err(Refused::Port(port));
        }
        if !egress.reaches(address, port) {
            return Err(Refused::Address(to.to_string()));
        }
        known.approved.insert((address, port));
        Ok(())
    }

    /// Whether [`Self::connect`] found that the guest may connect there.
    pub(crate) fn approves(&self, to: SocketAddr) -> bool {
        judged(to).is_some_and(|to| self.known.lock().approved.contains(&to))
    }

    fn grants(&self, host: &HostPattern, port: u16) -> bool {
        let wanted = |port| Capability::Network { protocol: Protocol::Tcp, host: host.clone(), port };
        wanted(Some(port)).is_covered_by(&self.granted)
            || (port == TLS_PORT && wanted(None).is_covered_by(&self.granted))
    }

    /// Bytes that the call may still send.
    pub(crate) fn left_to_send(&self) -> usize {
        left(&self.sent)
    }

    /// Bytes that the call may still receive.
    pub(crate) fn left_to_receive(&self) -> usize {
        left(&self.received)
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes were received.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The call has used its share: what it is told.
    pub(crate) fn run_out(&self) {
        self.ran_out.store(true, Ordering::Relaxed);
    }

    /// Whether the call has used its share and wanted more.
    pub(crate) fn ran_out(&self) -> bool {
        self.ran_out.load(Ordering::Relaxed)
    }

    /// What the call used of the network by its connections.
    pub(crate) fn used(&self) -> NetworkUse {
        let (sent, received) = (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed));
        NetworkUse { requests: self.known.lock().opened, sent, received }
    }
}

/// What is judged of an address. One with more to it would name another interface, or differ where nothing differs.
fn judged(to: SocketAddr) -> Option<(IpAddr, u16)> {
    let more = matches!(to, SocketAddr::V6(to) if to.flowinfo() != 0 || to.scope_id() != 0);
    (!more).then(|| (to.ip().to_canonical(), to.port()))
}

fn left(used: &AtomicU64) -> usize {
    usize::try_from(MAX_BYTES.saturating_sub(used.load(Ordering::Relaxed))).unwrap_or(usize::MAX)
}
