//! Which agents run as WebAssembly while a rollout lasts. The others belong to a container engine.

use executor_engine::ModuleDigest;

/// Chooses by the agent id of the signed manifest. Admission is the same for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeRollout {
    percentage: u8,
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Default for RuntimeRollout {
    /// Every agent.
    fn default() -> Self {
        Self::new(100, Vec::new(), Vec::new())
    }
}

impl RuntimeRollout {
    /// `percentage` of all agents, and those that `allow` names; never those that `deny` names. Names end with `*` to mean
    /// every id that begins so.
    pub fn new(percentage: u8, allow: Vec<String>, deny: Vec<String>) -> Self {
        Self { percentage, allow, deny }
    }

    /// Whether this agent runs as WebAssembly. A higher percentage keeps those that a lower one chose.
    pub fn includes(&self, agent: &str) -> bool {
        let named = |patterns| is_named(patterns, agent);
        !named(&self.deny) && (named(&self.allow) || share(agent) < u64::from(self.percentage))
    }
}

/// Whether a pattern names an agent: its id, or the beginning of ids and `*`.
pub(crate) fn is_named(patterns: &[String], agent: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(front) => agent.starts_with(front),
        None => agent == pattern,
    })
}

/// 0 to 99, the same for an agent at every executor.
fn share(agent: &str) -> u64 {
    let [first, second, third, fourth, ..] = ModuleDigest::of(agent.as_bytes()).0;
    u64::from(u32::from_be_bytes([first, second, third, fourth])) % 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_share_keeps_whom_it_had() {
        let ids: Vec<String> = (0..1000).map(|n| format!("agent.n{n}")).collect();
        let of = |percentage| {
            let rollout = RuntimeRollout::new(percentage, Vec::new(), Vec::new());
            ids.iter().filter(|id| rollout.includes(id)).collect::<Vec<_>>()
        };
        let (none, ten, twenty, all) = (of(0), of(10), of(20), of(100));
        assert!(none.is_empty() && all.len() == ids.len());
        assert!((60..140).contains(&ten.len()) && (140..260).contains(&twenty.len()), "{}", ten.len());
        assert!(ten.iter().all(|id| twenty.contains(id)));
    }

    #[test]
    fn a_denial_wins_and_a_name_means_itself() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let rollout = RuntimeRollout::new(0, list(&["a.b", "team.*"]), list(&["team.old", "team.x*"]));
        for (agent, expected) in [
            ("a.b", true),
            ("a.bc", false),
            ("team.new", true),
            ("team.old", false),
            ("team.xy", false),
            ("teams.new", false),
        ] {
            assert_eq!(rollout.includes(agent), expected, "{agent}");
        }
    }
}
