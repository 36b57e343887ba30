//! What a caller may see: everything, or what is about the agents that it may call.

use std::collections::BTreeSet;

use bytes::Bytes;
use executor_api::receipt::Receipt;
use executor_api::{AgentSummary, InstanceSummary};
use executor_engine::ModuleDigest;
use tlog::proof_file::ProofFile;

use super::Executor;
use crate::admission::Denied;
use crate::agents::ambiguous;
use crate::callers::Caller;
use crate::runtime::LiveInstance;

/// Most instances of one list.
const MAX_LISTED: usize = 1000;

impl Executor {
    /// Refuses an agent that the caller may not call.
    ///
    /// # Errors
    ///
    /// `agent_not_allowed`.
    pub(crate) fn allow(&self, caller: &Caller, agent: &str) -> Result<(), Denied> {
        caller.allows(agent).inspect_err(|denied| self.parts.metrics.caller_refused(denied.code))
    }

    /// The same for what a caller names: an id, whether it is loaded or not, or the digest of a module, which stands for every agent
    /// that runs it or waits with it for its verdict since the start. One that stands for none is refused alike, so that nobody learns
    /// what is there beside its own.
    ///
    /// # Errors
    ///
    /// `agent_not_allowed`; `restoring` while it is not known yet for which agents a digest stands.
    pub(crate) fn allow_name(&self, caller: &Caller, name: &str) -> Result<(), Denied> {
        let module = match ModuleDigest::parse(name) {
            Some(_) if !caller.is_limited() => return Ok(()),
            Some(module) => module,
            None => return self.allow(caller, name),
        };
        // Those that wait first: what is loaded meanwhile is among the loaded ones by then.
        let waiting = self.waiting.ids_of(module);
        // Looked up: whoever may call nothing here must not have every agent looked at for each digest that it makes up.
        let agents = self.agents.of_module(module);
        let mut ids: Vec<&str> = agents.iter().map(|agent| agent.id()).collect();
        let waiting = if ids.is_empty() { waiting? } else { waiting.unwrap_or_default() };
        ids.extend(waiting.iter().map(String::as_str));
        if ids.is_empty() {
            return self.allow(caller, "");
        }
        ids.into_iter().try_for_each(|id| self.allow(caller, id))
    }

    /// The same for what is to go: an id, or the digest of a release, which stands for the one agent of the caller that runs it or waits
    /// with it, whoever else does. For a digest and a caller who may not unload every agent, which agent that is.
    ///
    /// # Errors
    ///
    /// `agent_not_allowed`; `ambiguous_digest` where several agents of the caller's own have the module; `restoring` while it is not
    /// known yet whether one of its own waits with it.
    pub(super) fn allow_release(&self, caller: &Caller, name: &str) -> Result<Option<String>, Denied> {
        let module = match ModuleDigest::parse(name) {
            Some(module) if caller.is_limited() => module,
            _ => return self.allow(caller, name).map(|()| None),
        };
        let is_own = |id: &str| !id.is_empty() && caller.may_call(id);
        // Those that wait first: what is loaded meanwhile is among the loaded ones by then.
        let waiting = self.waiting.ids_of(module);
        let mut own: BTreeSet<String> = self
            .agents
            .of_module(module)
            .iter()
            .map(|agent| agent.id().to_owned())
            .filter(|id| is_own(id))
            .collect();
        let waiting = if own.is_empty() { waiting? } else { waiting.unwrap_or_default() };
        own.extend(waiting.into_iter().filter(|id| is_own(id)));
        let Some(id) = own.pop_first() else { return self.allow(caller, "").map(|()| None) };
        if own.is_empty() { Ok(Some(id)) } else { Err(ambiguous()) }
    }

    /// Every loaded agent that the caller may call, in order of ids.
    pub fn list_for(&self, caller: &Caller) -> Vec<AgentSummary> {
        let mut agents = self.list();
        agents.retain(|agent| caller.may_call(&agent.agent_id));
        agents
    }

    /// What is loaded under an id or digest.
    ///
    /// # Errors
    ///
    /// `agent_not_allowed`, for an id whether it is loaded or not.
    pub fn find_for(&self, caller: &Caller, name: &str) -> Result<Option<AgentSummary>, Denied> {
        self.allow_name(caller, name)?;
        let found = self.find(name);
        found.as_ref().map_or(Ok(()), |summary| self.allow(caller, &summary.agent_id))?;
        Ok(found)
    }

    /// What runs now of the agents that the caller may call, at most `MAX_LISTED` of it.
    pub fn instances_for(&self, caller: &Caller) -> Vec<InstanceSummary> {
        let mut live = self.parts.runtime.live().list();
        live.retain(|live| caller.may_call(&live.owner.agent));
        live.truncate(MAX_LISTED);
        let summary = |live: LiveInstance| InstanceSummary {
            instance_id: live.id.to_string(),
            agent_id: live.owner.agent.clone(),
            digest: live.owner.digest.to_string(),
            signer: live.owner.signer.clone(),
        };
        live.into_iter().map(summary).collect()
    }

    /// The routes of the agents that the caller may call.
    #[cfg(feature = "deployments")]
    pub fn deployments_for(&self, caller: &Caller) -> Vec<executor_api::deployment::Deployment> {
        let mut deployments = self.deployments();
        deployments.retain(|deployment| caller.may_call(&deployment.agent));
        deployments
    }

    /// The receipt of an instance as proof file.
    ///
    /// # Errors
    ///
    /// When there is none, or when it is about an agent that the caller may not call.
    pub fn receipt_of_instance(&self, caller: &Caller, instance: &str) -> Result<Bytes, Denied> {
        self.of_its_agents(caller, self.receipts().of_instance(instance)?)
    }

    /// The entry at an index of the receipt log as proof file.
    ///
    /// # Errors
    ///
    /// When there is none, or when it is about an agent that the caller may not call, or about none.
    pub fn receipt_of_index(&self, caller: &Caller, index: u64) -> Result<Bytes, Denied> {
        self.of_its_agents(caller, self.receipts().of_index(index)?)
    }

    fn of_its_agents(&self, caller: &Caller, proof: Bytes) -> Result<Bytes, Denied> {
        // Reading it costs something, and most callers may see all of them.
        if caller.is_limited() {
            self.allow(caller, agent_of(&proof).as_deref().unwrap_or_default())?;
        }
        Ok(proof)
    }

    /// Refuses whoever may not see the receipts of all agents, which is what tiles have.
    pub(crate) fn allow_whole_receipt_log(&self, caller: &Caller) -> Result<(), Denied> {
        if caller.is_limited() { self.allow(caller, "") } else { Ok(()) }
    }
}

/// The agent of a receipt; nothing for entries that are about none.
fn agent_of(proof: &[u8]) -> Option<String> {
    let entry = ProofFile::parse(proof).ok()?.extra?;
    Receipt::from_entry(&entry).ok().map(|receipt| receipt.agent)
}
