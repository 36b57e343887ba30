//! Deployments in a build without the feature `deployments`: no agent has a route, and the release that was loaded last serves.

use std::sync::Arc;

use executor_engine::ModuleDigest;
use service::StartRefusal;

use crate::features::Feature;
use crate::state_folder::StateFolder;

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
        if path.exists() {
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
        std::fs::write(folder.path().join("deployments.json"), r#"{"version":1,"routes":{}}"#).unwrap();
        let refused = Deployments::open(state).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("feature `deployments`"), "{refused}");
    }
}
