//! Deployments in a build without the feature `deployments`: none can be asked for.

use std::sync::Arc;
use std::time::Duration;

use executor_api::deployment::{Deploy, Deployment};

use super::Executor;
use crate::admission::Denied;
use crate::agents::Release;
use crate::deployments::Served;
use crate::features::Feature;
use crate::runtime::{CallError, Outcome};
use crate::submissions::RecordName;

impl Executor {
    /// Lets no release take over.
    ///
    /// # Errors
    ///
    /// Always: `feature_not_built`.
    pub async fn deploy(&self, _: &Deploy) -> Result<Deployment, Denied> {
        Err(Feature::Deployments.denied())
    }

    /// As [`Self::deploy`].
    ///
    /// # Errors
    ///
    /// Always: `feature_not_built`.
    pub async fn promote(&self, _: &str) -> Result<Deployment, Denied> {
        Err(Feature::Deployments.denied())
    }

    /// As [`Self::deploy`].
    ///
    /// # Errors
    ///
    /// Always: `feature_not_built`.
    pub async fn rollback(&self, _: &str) -> Result<Deployment, Denied> {
        Err(Feature::Deployments.denied())
    }

    /// As [`Self::deploy`].
    ///
    /// # Errors
    ///
    /// Always: `feature_not_built`.
    pub fn deployment(&self, _: &str) -> Result<Deployment, Denied> {
        Err(Feature::Deployments.denied())
    }

    /// No release serves by a route.
    pub(super) fn refuse_in_service(&self, _: &str, _: Option<&str>) -> Result<(), Denied> {
        Ok(())
    }

    /// No agent has a route that would name it.
    pub(super) fn routed_id(&self, _: RecordName) -> Option<String> {
        None
    }

    /// No agent has a route that an unloaded release would be taken out of.
    pub(super) async fn unroute(&self, _: Release<'_>) -> Result<(), Denied> {
        Ok(())
    }

    /// Nothing takes over that would have to be looked after.
    pub(crate) async fn keep_deploying(self: Arc<Self>) {}

    /// Calls are counted for routes, and there are none.
    pub(super) fn count_call(
        served: &Served,
        _: &Result<Outcome, CallError>,
        _: Duration,
        _: Option<Duration>,
    ) {
        match *served {}
    }
}
