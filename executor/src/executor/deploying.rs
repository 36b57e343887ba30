//! Deployments: each switch, a return included, is an admission decision of its own and is on record before it happens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use executor_api::audit::AuditEvent;
use executor_api::deployment::{Deploy, Deployment, DeploymentRecord, RECORD_FORMAT};
use executor_engine::ModuleDigest;

use super::Executor;
use crate::admission::Denied;
use crate::agents::{Agent, Release};
use crate::clock;
use crate::deployments::{CallResult, Decision, Plan, Route, Served, Taking};
use crate::records::{audit_unavailable, cut, receipts_unavailable};
use crate::runtime::{CallError, KillCause, Outcome, Stop};
use crate::submissions::RecordName;

/// Time between two looks at what takes over.
const LOOK: Duration = Duration::from_millis(100);

/// One change of a route.
struct Change<'a> {
    what: &'static str,
    why: &'static str,
    release: Release<'a>,
    percent: u8,
}

impl Executor {
    /// Begins to let a loaded release take over.
    ///
    /// # Errors
    ///
    /// When the release is not loaded or may not run now, when it does not start, or when another deployment of the
    /// agent is in progress. What served before serves on.
    pub async fn deploy(self: &Arc<Self>, request: &Deploy) -> Result<Deployment, Denied> {
        let (executor, request) = (Arc::clone(self), request.clone());
        self.carried_out(async move { executor.begin_to_deploy(&request).await }).await
    }

    async fn begin_to_deploy(&self, request: &Deploy) -> Result<Deployment, Denied> {
        let plan = Plan::of(request)?;
        let id = request.agent.as_str();
        let target = self.release(id, &request.digest)?;
        self.may_run(&target)?;
        self.starts(&target).await?;
        let seen = self.deployments.route(id);
        let next = match &seen {
            None => {
                let current = self.agents.find(id)?;
                let pinned = Route::stable(current.digest, "pinned");
                if current.digest == target.digest {
                    pinned
                } else {
                    pinned.with(Taking::new(target.digest, plan, 0), "deploy: requested")
                }
            }
            Some(route) if route.taking.is_some() => {
                let text = "another release takes over; promote it or roll it back first";
                return Err(Denied::new("deployment_in_progress", text));
            }
            Some(route) if route.stable == target.digest => {
                return Err(Denied::new("already_deployed", "this release serves every call of the agent"));
            }
            Some(route) => route.with(Taking::new(target.digest, plan, 0), "deploy: requested"),
        };
        let percent = next.taking.as_ref().map_or(100, |taking| taking.percent());
        let change = Change { what: "deploy", why: "requested", release: target.as_ref().into(), percent };
        self.switch(seen.as_ref(), next, change).await
    }

    /// Lets the release that takes over serve everything now.
    ///
    /// # Errors
    ///
    /// When there is none, or when it may not run any more.
    pub async fn promote(self: &Arc<Self>, id: &str) -> Result<Deployment, Denied> {
        let (executor, id) = (Arc::clone(self), id.to_owned());
        self.carried_out(async move { executor.promote_now(&id).await }).await
    }

    async fn promote_now(&self, id: &str) -> Result<Deployment, Denied> {
        let seen = self.deployments.route(id).ok_or_else(|| no_route(id))?;
        let Some(taking) = &seen.taking else {
            return Err(Denied::new("nothing_to_promote", "no release takes over now"));
        };
        let target = self.release_of(id, taking.digest)?;
        self.may_run(&target)?;
        let change =
            Change { what: "promote", why: "requested", release: target.as_ref().into(), percent: 100 };
        self.switch(Some(&seen), seen.promoted(taking.digest, "promote: requested"), change).await
    }

    /// Takes back the release that takes over, or returns to the one that served before.
    ///
    /// # Errors
    ///
    /// When there is nothing to return to that may run now; the message names why, release by release.
    pub async fn rollback(self: &Arc<Self>, id: &str) -> Result<Deployment, Denied> {
        let seen = self.deployments.route(id).ok_or_else(|| no_route(id))?;
        let (executor, id) = (Arc::clone(self), id.to_owned());
        self.carried_out(async move { executor.take_back(&id, &seen, "requested").await }).await
    }

    /// The route of an agent.
    ///
    /// # Errors
    ///
    /// When it has none.
    pub fn deployment(&self, id: &str) -> Result<Deployment, Denied> {
        self.deployments.route(id).map(|route| route.describe(id)).ok_or_else(|| no_route(id))
    }

    /// Every route.
    pub fn deployments(&self) -> Vec<Deployment> {
        self.deployments.all().iter().map(|(id, route)| route.describe(id)).collect()
    }

    /// Refuses to unload the release that serves an agent's calls while another one of it is loaded, or waits for its verdict since
    /// a start: nobody decided that the other one serves. With an id beside a module, of that agent alone.
    pub(super) fn refuse_in_service(&self, name: &str, of: Option<&str>) -> Result<(), Denied> {
        let Some(digest) = ModuleDigest::parse(name) else {
            return if self.deployments.route(name).is_some() {
                self.waiting.refuse_unread()
            } else {
                Ok(())
            };
        };
        for (id, _) in self.deployments.all().iter().filter(|(_, route)| route.stable == digest) {
            if of.is_some_and(|of| of != id) {
                continue;
            }
            if self.agents.release(id, digest).is_none() && !self.waiting.has(id, digest) {
                continue;
            }
            self.waiting.refuse_unread()?;
            if self.has_other(id, digest) {
                let text = "this release serves the agent's calls; deploy another one first, or unload the agent by its id";
                return Err(Denied::new("in_service", text));
            }
        }
        Ok(())
    }

    /// The agent of a record that was not read, if it has a route.
    pub(super) fn routed_id(&self, name: RecordName) -> Option<String> {
        self.deployments.all().keys().find(|id| name.is_of(id)).cloned()
    }

    /// Whether another release of an agent is loaded, or waits.
    fn has_other(&self, id: &str, digest: ModuleDigest) -> bool {
        self.agents.all().iter().any(|other| other.id() == id && other.digest != digest)
            || self.waiting.has_other(id, digest)
    }

    /// Takes a release that was unloaded, or waits no more, out of its agent's route. With the last one the route ends, and with the one
    /// that serves, unless another one is there by now: then calls are refused until somebody decides who serves them.
    pub(super) async fn unroute(&self, release: Release<'_>) -> Result<(), Denied> {
        let Some(seen) = self.deployments.route(release.id) else { return Ok(()) };
        let (why, percent) = ("unloaded", 0);
        if !self.has_other(release.id, release.digest) {
            let change = Change { what: "end", why, release, percent };
            return self.switch_to(Some(&seen), None, change).await;
        }
        if seen.taking.as_ref().is_none_or(|taking| taking.digest != release.digest) {
            return Ok(());
        }
        let change = Change { what: "rollback", why, release, percent };
        self.switch_to(Some(&seen), Some(seen.without("rollback: unloaded")), change).await
    }

    /// Looks after releases that take over, until the process ends.
    pub(crate) async fn keep_deploying(self: Arc<Self>) {
        let mut told: HashMap<String, &'static str> = HashMap::new();
        loop {
            tokio::time::sleep(LOOK).await;
            for (id, route) in self.deployments.all().iter() {
                let Some(taking) = route.taking.clone() else { continue };
                match self.look(id, route, &taking).await {
                    Ok(()) => drop(told.remove(id)),
                    // Once, not ten times a second.
                    Err(denied) if told.insert(id.clone(), denied.code) != Some(denied.code) => {
                        tracing::error!(agent = id, code = denied.code, reason = %denied.message,
                            operator = %denied.operator, "a deployment cannot go on");
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// One look at a release that takes over.
    pub(super) async fn look(&self, id: &str, route: &Arc<Route>, taking: &Taking) -> Result<(), Denied> {
        let may_run =
            self.release_of(id, taking.digest).and_then(|agent| self.may_run(&agent).map(|()| agent));
        let agent = match may_run {
            Ok(agent) => agent,
            // Its calls are refused meanwhile, which says nothing against it.
            Err(denied) if denied.may_pass() => return Ok(()),
            Err(denied) => return self.take_back(id, route, denied.code).await.map(drop),
        };
        match taking.judge() {
            Decision::Hold => Ok(()),
            Decision::RollBack(failing) => self.take_back(id, route, failing.code()).await.map(drop),
            Decision::Advance => {
                let next = taking.advanced();
                let (release, percent) = (agent.as_ref().into(), next.percent());
                let change = Change { what: "advance", why: "healthy", release, percent };
                self.switch(Some(route), route.with(next, "advance: healthy"), change).await.map(drop)
            }
            Decision::Promote => {
                let release = agent.as_ref().into();
                let change = Change { what: "promote", why: "healthy", release, percent: 100 };
                let next = route.promoted(taking.digest, "promote: healthy");
                self.switch(Some(route), next, change).await.map(drop)
            }
        }
    }

    async fn take_back(&self, id: &str, seen: &Arc<Route>, why: &'static str) -> Result<Deployment, Denied> {
        let candidates = match &seen.taking {
            Some(_) => vec![seen.stable],
            None => Vec::new(),
        };
        let mut refused = Vec::new();
        for digest in candidates.into_iter().chain(seen.history.iter().rev().copied()) {
            let admissible =
                self.release_of(id, digest).and_then(|agent| self.may_run(&agent).map(|()| agent));
            match admissible {
                Ok(agent) => {
                    let last = format!("rollback: {why}");
                    let next = if digest == seen.stable {
                        seen.without(&last)
                    } else {
                        seen.returned(digest, &last)
                    };
                    let release = agent.as_ref().into();
                    let change = Change { what: "rollback", why, release, percent: 100 };
                    return self.switch(Some(seen), next, change).await;
                }
                // Nobody decided that one from before it serves, when it may be there again in a moment.
                Err(denied) if denied.may_pass() => {
                    let message = format!("{digest} is what served before: {}", denied.message);
                    return Err(Denied { message, ..denied });
                }
                Err(denied) => refused.push(format!("{digest}: {}", denied.code)),
            }
        }
        let reasons =
            if refused.is_empty() { "no other release served before".to_owned() } else { refused.join("; ") };
        Err(Denied::new("rollback_refused", cut(&format!("nothing to return to may run: {reasons}"))))
    }

    /// Puts a change on record and into force, in this order.
    async fn switch(
        &self,
        seen: Option<&Arc<Route>>,
        next: Route,
        change: Change<'_>,
    ) -> Result<Deployment, Denied> {
        let described = next.describe(change.release.id);
        self.switch_to(seen, Some(next), change).await.map(|()| described)
    }

    /// The same where there may be no route afterwards.
    async fn switch_to(
        &self,
        seen: Option<&Arc<Route>>,
        next: Option<Route>,
        change: Change<'_>,
    ) -> Result<(), Denied> {
        let Change { what, why, release, percent } = change;
        let (id, loaded) = (release.id, release.loaded);
        let stable = seen.map(|route| route.stable).or(next.as_ref().map(|route| route.stable));
        let record = DeploymentRecord {
            agent: id.to_owned(),
            change: what.to_owned(),
            format: RECORD_FORMAT.to_owned(),
            from: stable.unwrap_or(release.digest).to_string(),
            log_index: loaded.and_then(|agent| agent.facts.log_index),
            module: release.digest.to_string(),
            percent,
            policy: hex::encode(self.parts.admission.policy_digest()),
            signer: loaded.map(|agent| agent.prepared.owner().signer.clone()).unwrap_or_default(),
            time_ms: clock::unix_millis(),
            version: loaded.map(|agent| agent.facts.version.clone()).unwrap_or_default(),
            why: why.to_owned(),
        };
        let slot = self.parts.receipts.room().await.map_err(receipts_unavailable)?;
        let event = AuditEvent {
            event_type: format!("deployment_{what}"),
            detail: Some(cut(&format!("{percent} %: {why}"))),
            ..self.release_event(release)
        };
        self.parts.audit.record_durably(event).await.map_err(audit_unavailable)?;
        if let Err(denied) = self.deployments.change(id, seen, next).await {
            // The record of the change is there already; this one takes it back.
            let event = AuditEvent {
                event_type: "deployment_failed".into(),
                detail: Some(cut(&format!("{what}: {}", denied.code))),
                ..self.release_event(release)
            };
            if self.parts.audit.record(event).is_err() {
                tracing::error!(agent = id, what, "that a change of a route failed could not be recorded");
            }
            return Err(denied);
        }
        slot.step(record);
        self.parts.metrics.deployment(what);
        tracing::info!(agent = id, digest = %release.digest, percent, what, why, "deployment");
        Ok(())
    }

    /// Makes an instance and drops it: a release that does not even start gets no calls.
    async fn starts(&self, agent: &Arc<Agent>) -> Result<(), Denied> {
        if let Some(pipeline) = agent.prepared.pipeline() {
            self.steps_may_run(pipeline)?;
        }
        let (runtime, prepared) = (Arc::clone(&self.parts.runtime), Arc::clone(&agent.prepared));
        let place = self.queue.enter(&agent.share).await?;
        let tried = tokio::task::spawn_blocking(move || {
            let outcome = runtime.dry_run(&prepared);
            drop(place);
            outcome
        });
        let outcome = tried
            .await
            .map_err(|error| Denied::new("internal", "the trial failed").for_operator(error.to_string()))?;
        outcome.map_err(|error| Denied::new(error.code(), format!("the release does not start: {error}")))
    }

    fn release(&self, id: &str, digest: &str) -> Result<Arc<Agent>, Denied> {
        let digest = ModuleDigest::parse(digest)
            .ok_or_else(|| Denied::new("invalid_argument", "`digest` is 64 hexadecimal digits"))?;
        self.release_of(id, digest)
    }

    /// Counts a call for the release that served it. What says nothing about the release is not counted. A caller who was in a
    /// `hurry` and got nothing by then gave up: how much time a call has is the caller's to say, and no fault of the release.
    pub(super) fn count_call(
        served: &Served,
        ended: &Result<Outcome, CallError>,
        took: Duration,
        hurry: Option<Duration>,
    ) {
        match (ended, hurry) {
            (Ok(outcome), _) if outcome.exit_code == 0 => served.count(CallResult::Good, took),
            (Err(CallError::Stopped(Stop::Killed(KillCause::CallerGone))), _) => served.count_abandoned(took),
            (Err(error), _) if error.is_of_others() => served.count_nothing(),
            (_, Some(hurry)) if took >= hurry => served.count_abandoned(hurry),
            (Ok(_) | Err(_), _) => served.count(CallResult::Failed, took),
        }
    }
}

fn no_route(id: &str) -> Denied {
    let shown: String = id.chars().take(128).flat_map(char::escape_default).collect();
    Denied::new("no_deployment", format!("no release of {shown} was deployed; the one loaded last serves"))
}
