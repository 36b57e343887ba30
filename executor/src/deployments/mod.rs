//! Which release of an agent serves a call.
//!
//! An agent without a route is served by the release that was loaded last. The first deployment makes a route, and from
//! then on a release serves nothing before it is deployed. The table is replaced as a whole, so that calls never wait for a
//! change; a call that began goes on with the release that it began with.

mod counts;
mod plan;
mod route;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use service::StartRefusal;
use trust_store_files::atomic::{self, Readers};

pub(crate) use counts::Result as CallResult;
pub(crate) use plan::{Decision, Plan};
pub(crate) use route::{Route, Served, Taking};

use crate::admission::Denied;
use crate::state_folder::StateFolder;
use route::StoredRoute;

/// Most agents with a route.
const MAX_ROUTES: usize = 4096;

/// Largest file, bytes.
const MAX_FILE: u64 = 16 << 20;

type Table = BTreeMap<String, Arc<Route>>;

/// The routes of all agents, kept in one file.
pub(crate) struct Deployments {
    path: PathBuf,
    state: Arc<StateFolder>,
    table: ArcSwap<Table>,
    changing: tokio::sync::Mutex<()>,
    spread: AtomicU64,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    routes: BTreeMap<String, StoredRoute>,
}

const VERSION: u32 = 1;

impl Deployments {
    /// Reads the routes below `state`.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read: guessing would run releases that were taken back.
    pub(crate) fn open(state: Arc<StateFolder>) -> std::result::Result<Self, StartRefusal> {
        let path = state.directory().join("deployments.json");
        let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
            StartRefusal::new(
                format!("{} cannot be used", path.display()),
                "restore it, or remove it: then the release that was loaded last serves each agent",
            )
            .because(error)
        };
        let table = if path.exists() {
            let bytes = atomic::read(&path, MAX_FILE).map_err(|error| refuse(error.into()))?;
            let file: File = serde_json::from_slice(&bytes).map_err(|error| refuse(error.into()))?;
            if file.version != VERSION {
                return Err(refuse(format!("version {} is not known", file.version).into()));
            }
            let routes = file.routes.into_iter().map(|(agent, stored)| match Route::restored(stored) {
                Some(route) => Ok((agent, Arc::new(route))),
                None => Err(refuse(format!("the route of {agent} is none").into())),
            });
            routes.collect::<std::result::Result<Table, _>>()?
        } else {
            Table::new()
        };
        Ok(Self {
            path,
            state,
            table: ArcSwap::from_pointee(table),
            changing: tokio::sync::Mutex::default(),
            spread: AtomicU64::new(0),
        })
    }

    /// The release that serves a call: by the caller's session where it names one, else spread evenly.
    pub(crate) fn choose(&self, agent: &str, session: Option<&str>) -> Option<Served> {
        let table = self.table.load();
        let route = table.get(agent)?;
        let digest = route.choose(agent, session, || self.spread.fetch_add(1, Ordering::Relaxed));
        Some(Served { route: Arc::clone(route), digest })
    }

    /// The route of an agent.
    pub(crate) fn route(&self, agent: &str) -> Option<Arc<Route>> {
        self.table.load().get(agent).cloned()
    }

    /// Every route.
    pub(crate) fn all(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Changes the route of an agent; `None` removes it. Durable before it is in force. The change is refused when the
    /// route is not `seen` any more.
    pub(crate) async fn change(
        &self,
        agent: &str,
        seen: Option<&Arc<Route>>,
        route: Option<Route>,
    ) -> std::result::Result<(), Denied> {
        let _alone = self.changing.lock().await;
        let mut table = Table::clone(&self.table.load());
        let same = match (table.get(agent), seen) {
            (None, None) => true,
            (Some(now), Some(seen)) => Arc::ptr_eq(now, seen),
            _ => false,
        };
        if !same {
            return Err(Denied::new(
                "deployment_in_progress",
                "the deployment changed meanwhile; look again",
            ));
        }
        match route {
            Some(_) if !table.contains_key(agent) && table.len() >= MAX_ROUTES => {
                return Err(Denied::new(
                    "too_many_deployments",
                    format!("at most {MAX_ROUTES} agents have a route"),
                ));
            }
            Some(route) => drop(table.insert(agent.to_owned(), Arc::new(route))),
            None => drop(table.remove(agent)),
        }
        let routes = table.iter().map(|(agent, route)| (agent.clone(), route.stored())).collect();
        const WHAT: &str = "deployments.json";
        let bytes = serde_json::to_vec_pretty(&File { version: VERSION, routes })
            .map_err(|error| self.state.failed(&error, WHAT))?;
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || atomic::write(&path, &bytes, Readers::Owner))
            .await
            .map_err(|error| self.state.failed(&error, WHAT))?
            .map_err(|error| self.state.failed(&error, WHAT))?;
        self.state.written();
        self.table.store(Arc::new(table));
        Ok(())
    }
}
