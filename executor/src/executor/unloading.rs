//! The way out: what was loaded, or waits since a start, is taken away, on record.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use executor_api::audit::AuditEvent;
use executor_engine::ModuleDigest;

use super::Executor;
use super::restoring::Removed;
use crate::admission::Denied;
use crate::agents::{Agent, Release, ambiguous};
use crate::callers::Caller;
use crate::records::audit_unavailable;
use crate::runtime::{KillCause, Selector};
use crate::submissions::Submissions;

impl Executor {
    /// Forgets every release of an agent, or the one agent that runs a module, with what waits of it since a start, and stops what runs
    /// of it. Returns how many instances were stopped.
    ///
    /// # Errors
    ///
    /// When there is none, when a digest names several agents or the release that serves beside others (`in_service`), or when
    /// the agent's record cannot be removed.
    pub async fn unload(self: &Arc<Self>, name: &str) -> Result<u64, Denied> {
        self.unload_of(name, None).await
    }

    /// The same for a caller, of the agents that are its own.
    ///
    /// # Errors
    ///
    /// `agent_not_allowed`, and as [`Self::unload`].
    pub async fn unload_for(self: &Arc<Self>, caller: &Caller, name: &str) -> Result<u64, Denied> {
        let of = self.allow_release(caller, name)?;
        self.unload_of(name, of).await
    }

    async fn unload_of(self: &Arc<Self>, name: &str, of: Option<String>) -> Result<u64, Denied> {
        let (executor, name) = (Arc::clone(self), name.to_owned());
        self.carried_out(async move { executor.take_away(&name, of.as_deref()).await }).await
    }

    /// With an id beside a module, nothing of any other agent: one may have come since somebody asked who runs it.
    async fn take_away(&self, name: &str, of: Option<&str>) -> Result<u64, Denied> {
        self.refuse_in_service(name, of)?;
        // Beside an id it is clear what is meant, whoever else has the module.
        if of.is_none() {
            self.refuse_ambiguous(name)?;
        }
        let removed = match (of, ModuleDigest::parse(name)) {
            (Some(id), Some(digest)) => self.agents.remove_release(id, digest),
            _ => self.agents.remove(name),
        };
        let removed = match removed {
            Err(denied) if denied.code != "not_loaded" => return Err(denied),
            removed => removed,
        };
        let waiting = self.waiting.remove(name, of);
        let agents = match removed {
            Err(denied) if waiting.is_empty() => return Err(denied),
            removed => removed.unwrap_or_default(),
        };
        // Before anything is waited for: neither a log that takes nothing nor a slow disk keeps a guest running.
        let runtime = &self.parts.runtime;
        let stop =
            |agent: &Arc<Agent>| runtime.stop(&Selector::admission(agent.admission()), KillCause::Operator);
        let stopped: Vec<u64> = agents.iter().map(stop).collect();
        self.parts.metrics.stopped(stopped.iter().sum());
        let mut recorded = Ok(());
        let mut paths = Vec::new();
        for (agent, stopped) in agents.iter().zip(&stopped) {
            recorded = recorded.and(self.unroute(agent.as_ref().into()).await);
            paths.push(self.submissions.path(agent.id(), agent.digest));
            let detail = format!("{stopped} instances stopped");
            recorded = recorded.and(self.record_unload(agent.as_ref().into(), detail));
        }
        for Removed { path, name: of, id, code } in waiting {
            // One that nobody knows yet stands in no route.
            let id = id.or_else(|| of.is_of(name).then(|| name.to_owned())).or_else(|| self.routed_id(of));
            let id = id.unwrap_or_default();
            let release = Release { id: &id, digest: of.module, loaded: None };
            recorded = recorded.and(self.unroute(release).await);
            let detail = format!("it waited since the start: {code}");
            recorded = recorded.and(self.record_unload(release, detail));
            paths.push(path);
        }
        // A load under way has its record on disk before the agent is there: what it brings is not what was to go.
        let _no_load = self.loading.lock().await;
        let loaded: HashSet<PathBuf> =
            self.agents.all().iter().map(|agent| self.submissions.path(agent.id(), agent.digest)).collect();
        paths.retain(|path| !loaded.contains(path));
        for agent in &agents {
            // Extensions keep nothing for an agent that nobody can call any more.
            if self.agents.find(agent.id()).is_err() {
                self.parts.admission.forget(agent.id());
            }
        }
        let removed = paths.iter().try_for_each(|path| Submissions::remove(path));
        removed.map_err(|error| {
            self.state.failed(&error, &format!("the record of {name} would bring it back at the next start"))
        })?;
        recorded.map(|()| stopped.iter().sum())
    }

    /// Refuses a module that several agents run, whether they are loaded or wait for their verdict since a start.
    fn refuse_ambiguous(&self, name: &str) -> Result<(), Denied> {
        let Some(module) = ModuleDigest::parse(name) else { return Ok(()) };
        let mut agents = self.waiting.agents_of(module);
        let loaded = self.agents.of_module(module);
        agents.extend(loaded.iter().map(|agent| ModuleDigest::of(agent.id().as_bytes())));
        if agents.len() > 1 { Err(ambiguous()) } else { Ok(()) }
    }

    fn record_unload(&self, release: Release<'_>, detail: String) -> Result<(), Denied> {
        let event =
            AuditEvent { event_type: "unload".into(), detail: Some(detail), ..self.release_event(release) };
        self.parts.audit.record(event).map_err(audit_unavailable)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::restoring::Name;
    use super::*;
    use crate::admission::GrantSet;
    use crate::clock;
    use crate::runtime::CallLimits;
    use crate::testing::{Server, admitted, wat_echo};

    const AGENT: &str = "unload.again";

    #[tokio::test]
    async fn what_runs_a_module_in_the_place_of_a_callers_agent_is_not_unloaded_for_it() {
        let server = Server::start().await;
        let executor = &server.executor;
        let module =
            |agent| admitted(wat_echo(), GrantSet::default(), CallLimits::default()).called(agent, "s");
        let digest = executor.admit_for_test(module("unload.others")).await.to_string();
        // The caller was allowed to unload this module when another agent ran it.
        let refused = executor.take_away(&digest, Some("unload.own")).await.unwrap_err();
        assert_eq!(refused.code, "not_loaded");
        assert!(executor.find("unload.others").is_some());
        let caller = Caller::new("own").limited_to(["unload.own".to_owned()]);
        assert_eq!(executor.unload_for(&caller, &digest).await.unwrap_err().code, "agent_not_allowed");
        executor.unload("unload.others").await.unwrap();
        executor.admit_for_test(module("unload.own")).await;
        executor.unload_for(&caller, &digest).await.unwrap();
        assert!(executor.find("unload.own").is_none());
    }

    /// A release that was looked at after a start and waits for newer evidence.
    fn wait(executor: &Executor, agent: &str, module: ModuleDigest) {
        let path = executor.submissions.path(agent, module);
        executor.waiting.add_for_test(9, path.clone());
        let read = Name { agent: agent.to_owned(), module, publisher: None };
        let denied = Denied::in_step(11, "checkpoint_stale", "");
        assert!(executor.waiting.judged(&path, Some(read), &denied, clock::monotonic()));
    }

    #[tokio::test]
    async fn by_a_digest_a_caller_unloads_its_own_release_and_hears_of_no_other() {
        let server = Server::start().await;
        let executor = &server.executor;
        let module =
            |agent| admitted(wat_echo(), GrantSet::default(), CallLimits::default()).called(agent, "s");
        let caller = Caller::new("own").limited_to(["unload.own*".to_owned()]);
        let unload = async |name: &str| {
            let unloaded = executor.unload_for(&caller, name).await;
            unloaded.map(drop).map_err(|denied| denied.code)
        };
        let module_of_all = executor.admit_for_test(module("unload.own")).await;
        let digest = module_of_all.to_string();
        // Somebody else has the same module, and it waits.
        wait(executor, "unload.others", module_of_all);
        assert_eq!(unload(&digest).await, Ok(()), "which one is meant is clear");
        assert!(executor.find("unload.own").is_none());
        assert_eq!(unload(&digest).await, Err("agent_not_allowed"), "only the other one is left");
        // Its own waits, and the other one waits, too, or is loaded.
        for loaded in [false, true] {
            if loaded {
                executor.admit_for_test(module("unload.others")).await;
            }
            wait(executor, "unload.own", module_of_all);
            assert_eq!(unload(&digest).await, Ok(()), "others' loaded: {loaded}");
            assert!(executor.waiting.denial_of_release("unload.own", module_of_all).is_none());
        }
        assert!(executor.find("unload.others").is_some());
        assert!(executor.waiting.denial_of_release("unload.others", module_of_all).is_some());
        // Of two that are its own it has to say which.
        executor.admit_for_test(module("unload.own")).await;
        wait(executor, "unload.own2", module_of_all);
        assert_eq!(unload(&digest).await, Err("ambiguous_digest"));
        assert_eq!(unload("unload.own2").await, Ok(()));
        assert_eq!(unload(&digest).await, Ok(()));
        // Whosever it is.
        executor.waiting.add_for_test(10, PathBuf::from("unread.agent"));
        assert_eq!(unload(&digest).await, Err("restoring"));
    }

    #[tokio::test]
    async fn a_load_of_what_is_being_unloaded_keeps_its_record() {
        let server = Server::start().await;
        let executor = &server.executor;
        let module = || admitted(wat_echo(), GrantSet::default(), CallLimits::default()).called(AGENT, "s");
        let digest = module().digest();
        executor.load_for_test(module()).await.unwrap();
        let record = executor.submissions.path(AGENT, digest);
        // A load stands between its record and its agent, as it does while an audit log is slow.
        let loading = executor.loading.lock().await;
        let unloading = {
            let executor = Arc::clone(executor);
            tokio::spawn(async move { executor.unload(AGENT).await })
        };
        while executor.find(AGENT).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        executor.admit_for_test(module()).await;
        drop(loading);
        unloading.await.unwrap().unwrap();
        assert!(executor.find(AGENT).is_some() && record.exists(), "the next start finds it");
        executor.unload(AGENT).await.unwrap();
        assert!(!record.exists());
    }
}
