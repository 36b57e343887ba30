//! Callers: who they are to this executor, and which agents are theirs to call or to deploy.

use std::sync::Arc;

use crate::admission::{Denied, is_named};

/// Somebody who was let in. Cheap to clone. The default is whoever reaches an executor that asks nobody who he is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    name: Arc<str>,
    agents: Option<Arc<[String]>>,
}

impl Caller {
    /// A caller that may call every agent. What one name does, another one never sees.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), agents: None }
    }

    /// The same caller, for these agents only: ids, or the beginning of ids and `*`.
    #[must_use]
    pub fn limited_to(self, agents: impl Into<Arc<[String]>>) -> Self {
        Self { agents: Some(agents.into()), ..self }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether there are agents that it may not call.
    pub(crate) fn is_limited(&self) -> bool {
        self.agents.is_some()
    }

    /// Whether it may call this agent, and see what is about it.
    pub(crate) fn may_call(&self, agent: &str) -> bool {
        self.agents.as_ref().is_none_or(|patterns| is_named(patterns, agent))
    }

    /// Refuses an agent that it may not call.
    ///
    /// # Errors
    ///
    /// `agent_not_allowed`.
    pub(crate) fn allows(&self, agent: &str) -> Result<(), Denied> {
        if self.may_call(agent) {
            return Ok(());
        }
        // The same words for every agent, whether it is there or not.
        Err(Denied::new("agent_not_allowed", "this agent is not one that this caller may call or deploy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_the_agents_that_its_patterns_name() {
        let all = Caller::new("a");
        assert!(all.may_call("billing.invoice") && !all.is_limited());
        let some = all.limited_to(["billing.*".to_owned(), "mail.send".to_owned()]);
        for (agent, may) in [
            ("billing.invoice", true),
            ("billing.", true),
            ("billing", false),
            ("billingx.invoice", false),
            ("mail.send", true),
            ("mail.sender", false),
            ("", false),
        ] {
            assert_eq!(some.may_call(agent), may, "{agent}");
            assert_eq!(
                some.allows(agent).err().map(|denied| denied.code),
                (!may).then_some("agent_not_allowed")
            );
        }
    }
}
