//! Names become addresses once for each request, and every address is judged before any of them is used.
//!
//! The list that was judged is the list that is connected to: nobody is asked a second time in between, so that a name
//! cannot mean one address while it is checked and another one afterwards.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::addresses::AddressRules;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// What asking for a name gives.
pub(crate) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Whoever knows the addresses of names.
pub(crate) trait Names: Send + Sync {
    /// The addresses of a host name, asked for now. The share of whoever asks is held until there is an answer.
    fn addresses(&self, host: &str, share: OwnedSemaphorePermit) -> Found;
}

/// The system's resolver, asked for so many names at once. A question that was asked cannot be taken back: it keeps its place
/// and its thread until the resolver gives up, whoever asked.
pub(crate) struct SystemNames {
    ask: fn(&str) -> io::Result<Vec<IpAddr>>,
    places: Arc<Semaphore>,
}

/// Look-ups for guests at once, and those of one agent, for requests and bare connections together: whoever serves the names of one
/// agent and never answers leaves room for the names of the others.
pub(crate) const MAX_LOOKUPS: usize = 64;
pub(super) const MAX_LOOKUPS_OF_AGENT: usize = MAX_LOOKUPS / 4;

impl SystemNames {
    pub(crate) fn new() -> Self {
        Self::asking(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    /// One that asks whom it is told to, on a thread that may wait.
    pub(super) fn asking(ask: fn(&str) -> io::Result<Vec<IpAddr>>) -> Self {
        Self { ask, places: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Names for SystemNames {
    fn addresses(&self, host: &str, share: OwnedSemaphorePermit) -> Found {
        let (host, ask, places) = (host.to_owned(), self.ask, Arc::clone(&self.places));
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let asked = tokio::task::spawn_blocking(move || {
                let _until_answered = (place, share);
                ask(&host)
            });
            asked.await.map_err(io::Error::other)?
        })
    }
}

/// A name leads where guests may not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address that guests may reach")]
pub(crate) struct AddressDenied(pub(crate) IpAddr);

/// The name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
pub(crate) struct NoAddress(#[source] pub(crate) Option<io::Error>);

tokio::task_local! {
    /// The share of questions of the agent whose request it is. A client is everybody's; it asks in the task of the request.
    pub(super) static ASKING: Arc<Semaphore>;
}

/// Resolves and judges.
pub(crate) struct Judged {
    pub(crate) names: Arc<dyn Names>,
    pub(crate) rules: Arc<AddressRules>,
}

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let asking = ASKING.try_with(Arc::clone);
        let (names, rules) = (Arc::clone(&self.names), Arc::clone(&self.rules));
        Box::pin(async move {
            let none = |error| NoAddress(Some(error));
            // A request whose time is up gives its place in the row back; a question that was asked keeps its share.
            let asking = asking.map_err(|error| none(io::Error::other(error)))?;
            let share = asking.acquire_owned().await.map_err(|error| none(io::Error::other(error)))?;
            let addresses = names.addresses(name.as_str(), share).await.map_err(none)?;
            let addresses = usable(addresses, &rules).map_err(|unusable| match unusable {
                Unusable::Denied(denied) => Box::<dyn std::error::Error + Send + Sync>::from(denied),
                Unusable::Nothing(nothing) => nothing.into(),
            })?;
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Why none of a name's addresses is used.
#[derive(Debug)]
pub(super) enum Unusable {
    Denied(AddressDenied),
    Nothing(NoAddress),
}

/// The addresses of a name that are tried. One that is denied denies the name: which of them is connected to is chance.
pub(super) fn usable(mut found: Vec<IpAddr>, rules: &AddressRules) -> Result<Vec<IpAddr>, Unusable> {
    if let Some(denied) = found.iter().find(|address| !rules.allow(**address)) {
        return Err(Unusable::Denied(AddressDenied(*denied)));
    }
    if found.is_empty() {
        return Err(Unusable::Nothing(NoAddress(None)));
    }
    found.truncate(MAX_ADDRESSES);
    Ok(found)
}
