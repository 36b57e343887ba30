//! Deployments in a build without the feature `deployments`: no agent has a route, and the release that was loaded last serves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use executor_engine::ModuleDigest;
use serde::de::IgnoredAny;
use service::StartRefusal;
use trust_store_files::atomic;

use crate::features::Feature;
use crate::state_folder::StateFolder;

/// Largest file, bytes.
const MAX_FILE: u64 = 16 << 20;

/// The routes of all agents, of which there are none.
pub(crate) struct Deployments;

impl Deployments {
    /// Looks whether there are routes below the state folder.
    ///
    /// # Errors
    ///
    /// When there are: without them, releases would serve that were taken back.
    pub(crate) fn open(state: Arc<StateFolder>) -> Result<Self, StartRefusal> {
        let path = state.directory().join("deployments.json");
        if path.exists() && may_have_routes(&path) {
            let what = format!("{} has routes of deployments", path.display());
            Feature::Deployments
                .required(&what, "remove it: then the release that was loaded last serves each agent")?;
        }
        Ok(Self)
    }

    /// The release that a route names for a call: there is none.
    pub(crate) fn choose(&self, _agent: &str, _session: Option<&str>) -> Option<Served> {
        None
    }
}

/// Where the last route ended the file stays. What cannot be read may have some.
fn may_have_routes(path: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Stored {
        routes: BTreeMap<String, IgnoredAny>,
    }
    let stored =
        atomic::read(path, MAX_FILE).ok().and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
    stored.is_none_or(|stored| !stored.routes.is_empty())
}

/// The release that serves a call by a route: there is none.
pub(crate) enum Served {}

impl Served {
    pub(crate) fn digest(&self) -> ModuleDigest {
        match *self {}
    }

    pub(crate) fn begin(&self) {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_out_routes_are_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateFolder::new(folder.path()));
        assert!(Deployments::open(Arc::clone(&state)).is_ok());
        for text in [r#"{"version":1,"routes":{"a.b":{"stable":""}}}"#, r#"{"version":1}"#, ""] {
            std::fs::write(folder.path().join("deployments.json"), text).unwrap();
            let refused = Deployments::open(Arc::clone(&state)).map(|_| ()).unwrap_err().to_string();
            assert!(refused.contains("feature `deployments`"), "{text}: {refused}");
        }
        // What a build with deployments leaves when its last route ended.
        std::fs::write(folder.path().join("deployments.json"), r#"{"version":1,"routes":{}}"#).unwrap();
        assert!(Deployments::open(state).is_ok());
    }
}
