//! Certificate policy processing (RFC 5280 §6.1.2–6.1.5 as updated by RFC 9618).
//!
//! RFC 5280 describes a tree that mappings can make exponential; RFC 9618 replaces it by a graph with one node per
//! policy and depth. Nodes are not pruned as they lose their children: the graph is empty exactly when its last
//! level is, and the final set is found by walking from the last level up.

use alloc::vec::Vec;

use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::oid;
use crate::reason::{Denial, ReasonCode};

/// The policies a caller accepts (user-initial-policy-set).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum InitialPolicies {
    /// any-policy
    #[default]
    Any,
    /// Only these, as content octets of their object identifiers.
    Only(Vec<Vec<u8>>),
}

/// The policies that are valid for a path (user-constrained-policy-set).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ValidPolicies {
    /// None; the path is accepted because it need not have one.
    #[default]
    None,
    /// Every policy.
    Any,
    /// These, as content octets of their object identifiers.
    Only(Vec<Vec<u8>>),
}

struct Node<'a> {
    policy: &'a [u8],
    expected: Vec<&'a [u8]>,
    parents: Vec<usize>,
}

/// The valid_policy_graph; `levels` is empty once the graph is NULL.
pub(crate) struct PolicyGraph<'a> {
    levels: Vec<Vec<Node<'a>>>,
}

/// What is to be done with policy mappings (policy_mapping > 0 or not).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mapping {
    Allowed,
    Inhibited,
}

/// Whether anyPolicy in this certificate counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AnyPolicy {
    Counts,
    Ignored,
}

const ANY: &[u8] = oid::ANY_POLICY.as_bytes();

impl<'a> PolicyGraph<'a> {
    /// The graph with one anyPolicy node at depth 0 (§6.1.2 (a)).
    pub(crate) fn new() -> Self {
        Self {
            levels: Vec::from([Vec::from([Node {
                policy: ANY,
                expected: Vec::from([ANY]),
                parents: Vec::new(),
            }])]),
        }
    }

    /// True if the graph is NULL.
    pub(crate) fn is_null(&self) -> bool {
        self.levels.last().is_none_or(Vec::is_empty)
    }

    /// §6.1.3 (d) and (e): the level of one more certificate.
    pub(crate) fn add_certificate(
        &mut self,
        certificate: &'a Certificate,
        any_policy: AnyPolicy,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        let Some(policies) = certificate.certificate_policies() else {
            self.levels.clear();
            return Ok(());
        };
        let Some(previous) = self.levels.last().filter(|level| !level.is_empty()) else {
            self.levels.clear();
            return Ok(());
        };
        let mut level: Vec<Node<'a>> = Vec::new();
        let mut lists_any = false;
        for information in policies.iter() {
            let policy = information.policy;
            if policy == ANY {
                lists_any = true;
                continue;
            }
            let mut parents = parents_expecting(previous, policy, budget)?;
            if parents.is_empty() {
                parents.extend(previous.iter().position(|node| node.policy == ANY));
            }
            if !parents.is_empty() {
                level.push(Node { policy, expected: Vec::from([policy]), parents });
            }
        }
        if lists_any && any_policy == AnyPolicy::Counts {
            for policy in previous.iter().flat_map(|node| node.expected.iter().copied()) {
                budget.spend_steps(1 + level.len())?;
                if !level.iter().any(|node| node.policy == policy) {
                    let parents = parents_expecting(previous, policy, budget)?;
                    level.push(Node { policy, expected: Vec::from([policy]), parents });
                }
            }
        }
        if level.is_empty() {
            self.levels.clear();
        } else {
            self.levels.push(level);
        }
        Ok(())
    }

    /// §6.1.4 (a) and (b): the mappings of a certificate that is not the last.
    pub(crate) fn map(
        &mut self,
        certificate: &'a Certificate,
        mapping: Mapping,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        let Some(mappings) = certificate.policy_mappings() else { return Ok(()) };
        if mappings.iter().any(|(issuer, subject)| issuer == ANY || subject == ANY) {
            return Err(Denial::new(ReasonCode::PolicyNotAllowed, "a policy mapping names anyPolicy"));
        }
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        if mapping == Mapping::Inhibited {
            for (issuer, _) in mappings.iter() {
                budget.spend_steps(1 + level.len())?;
                level.retain(|node| node.policy != issuer);
            }
            return Ok(());
        }
        let any_parents = level.iter().find(|node| node.policy == ANY).map(|node| node.parents.clone());
        let mut mapped: Vec<&[u8]> = Vec::new();
        for (issuer, subject) in mappings.iter() {
            budget.spend_steps(1 + level.len() + mapped.len())?;
            let first_time = !mapped.contains(&issuer);
            mapped.push(issuer);
            match level.iter_mut().find(|node| node.policy == issuer) {
                Some(node) if first_time => node.expected = Vec::from([subject]),
                Some(node) => node.expected.push(subject),
                None => {
                    if let Some(parents) = &any_parents {
                        let expected = Vec::from([subject]);
                        level.push(Node { policy: issuer, expected, parents: parents.clone() });
                    }
                }
            }
        }
        Ok(())
    }

    /// §6.1.5 (g): the user-constrained-policy-set.
    pub(crate) fn user_constrained(
        &self,
        initial: &InitialPolicies,
        budget: &mut Budget,
    ) -> Result<ValidPolicies, Denial> {
        if self.is_null() {
            return Ok(ValidPolicies::None);
        }
        let (authority, authority_any) = self.authority_constrained(budget)?;
        let chosen: Vec<Vec<u8>> = match initial {
            InitialPolicies::Any if authority_any => return Ok(ValidPolicies::Any),
            InitialPolicies::Any => authority.iter().map(|policy| policy.to_vec()).collect(),
            InitialPolicies::Only(wanted) => {
                budget.spend_steps(wanted.len().saturating_mul(1 + authority.len()))?;
                let valid = |policy: &&Vec<u8>| authority_any || authority.contains(&policy.as_slice());
                wanted.iter().filter(valid).cloned().collect()
            }
        };
        Ok(if chosen.is_empty() { ValidPolicies::None } else { ValidPolicies::Only(chosen) })
    }

    /// The policies directly below an anyPolicy node on a way to the last level, and whether anyPolicy itself
    /// reaches it.
    fn authority_constrained(&self, budget: &mut Budget) -> Result<(Vec<&'a [u8]>, bool), Denial> {
        let mut found: Vec<&'a [u8]> = Vec::new();
        let mut any = false;
        let mut reachable: Vec<bool> =
            self.levels.last().map(|level| alloc::vec![true; level.len()]).unwrap_or_default();
        let last = self.levels.len().saturating_sub(1);
        for (depth, level) in self.levels.iter().enumerate().rev() {
            let above = depth.checked_sub(1).and_then(|up| self.levels.get(up));
            let mut reachable_above = alloc::vec![false; above.map_or(0, Vec::len)];
            for (node, _) in level.iter().zip(&reachable).filter(|(_, reached)| **reached) {
                budget.spend_steps(1 + node.parents.len() + found.len())?;
                if node.policy == ANY {
                    any |= depth == last;
                    // An anyPolicy node's only parent is anyPolicy; nothing constrains above it.
                }
                for parent in &node.parents {
                    let Some(parent_node) = above.and_then(|level| level.get(*parent)) else { continue };
                    if parent_node.policy == ANY && node.policy != ANY && !found.contains(&node.policy) {
                        found.push(node.policy);
                    }
                    if let Some(mark) = reachable_above.get_mut(*parent) {
                        *mark = true;
                    }
                }
            }
            reachable = reachable_above;
        }
        Ok((found, any))
    }
}

fn parents_expecting(
    previous: &[Node<'_>],
    policy: &[u8],
    budget: &mut Budget,
) -> Result<Vec<usize>, Denial> {
    let mut parents = Vec::new();
    for (i, node) in previous.iter().enumerate() {
        budget.spend_steps(1 + node.expected.len())?;
        if node.expected.contains(&policy) {
            parents.push(i);
        }
    }
    Ok(parents)
}
