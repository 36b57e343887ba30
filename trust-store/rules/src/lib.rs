//! Cedar for the `capability_rules` of a trust policy.
//!
//! `trust_store` asks for each capability of a signed manifest, after it was found to be covered by `capabilities`. Here the answer
//! comes from rules in [Cedar](https://docs.cedarpolicy.com): what no `permit` permits is denied, a `forbid` that applies wins, and
//! a rule that cannot be evaluated denies. Rules are checked against [`SCHEMA`] when they are read, so that a misspelt attribute or
//! kind is an error then and not a rule that never applies.
//!
//! Pure: no files, no clock, no network. Work is bounded by the sizes that [`CedarRules::read`] takes.

#![forbid(unsafe_code)]

mod facts;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, PolicyId, PolicySet, Request, Response, Schema, ValidationMode,
    Validator,
};
use trust_store::capability_rules::{CapabilityRequest, MAX_RULES_BYTES, RuleEngine};
use trust_store::policy::TrustPolicy;

/// What rules may speak of, as Cedar's schema.
pub const SCHEMA: &str = include_str!("capabilities.cedarschema");

/// Most rules of one policy.
pub const MAX_RULES: usize = 256;

/// Rules that were read and fit [`SCHEMA`].
pub struct CedarRules {
    schema: Schema,
    rules: PolicySet,
    authorizer: Authorizer,
}

/// Why rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// Two rules have the same `@id`.
    #[error("two rules have the id `{0}`")]
    DuplicateId(String),
    /// The text is no Cedar, or does not fit the schema.
    #[error("the capability rules cannot be used: {0}")]
    Malformed(String),
    /// A template: nobody here fills its slots.
    #[error("a rule has the slot of a template, and nobody fills it")]
    Template,
    /// More than is read.
    #[error("the capability rules have more than {limit} {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
}

/// Gives a policy's rules the engine that judges by them. A policy without rules stays as it is.
///
/// # Errors
/// When its rules cannot be used.
pub fn complete(mut policy: TrustPolicy) -> Result<TrustPolicy, RulesError> {
    if let Some(rules) = policy.capability_rules.take() {
        let engine = CedarRules::read(rules.text())?;
        policy.capability_rules = Some(rules.with_engine(Arc::new(engine)));
    }
    Ok(policy)
}

impl CedarRules {
    /// Reads rules and checks them against [`SCHEMA`], strictly.
    ///
    /// # Errors
    /// [`RulesError`]; a text without a rule is one that permits nothing.
    pub fn read(text: &str) -> Result<Self, RulesError> {
        if text.len() > MAX_RULES_BYTES {
            return Err(RulesError::TooLarge { what: "bytes", limit: MAX_RULES_BYTES });
        }
        let malformed = |error: &dyn fmt::Display| RulesError::Malformed(error.to_string());
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| malformed(&error))?;
        let rules = PolicySet::from_str(text).map_err(|error| malformed(&error))?;
        if rules.templates().next().is_some() {
            return Err(RulesError::Template);
        }
        if rules.policies().count() > MAX_RULES {
            return Err(RulesError::TooLarge { what: "rules", limit: MAX_RULES });
        }
        let mut ids = HashSet::new();
        for id in rules.policies().filter_map(|rule| rule.annotation("id")) {
            if !ids.insert(id.to_owned()) {
                return Err(RulesError::DuplicateId(id.to_owned()));
            }
        }
        let checked = Validator::new(schema.clone()).validate(&rules, ValidationMode::Strict);
        if let Some(error) = checked.validation_errors().next() {
            return Err(malformed(error));
        }
        Ok(Self { schema, rules, authorizer: Authorizer::new() })
    }

    fn respond(&self, request: &CapabilityRequest<'_>) -> Result<Response, String> {
        let (agent, action, resource) = facts::of(request)?;
        let unusable =
            |error: &dyn fmt::Display| format!("the request does not fit the rules' schema: {error}");
        let asked = Request::new(agent.uid(), action, resource.uid(), Context::empty(), Some(&self.schema))
            .map_err(|error| unusable(&error))?;
        let entities = Entities::from_entities([agent, resource], Some(&self.schema))
            .map_err(|error| unusable(&error))?;
        Ok(self.authorizer.is_authorized(&asked, &self.rules, &entities))
    }

    /// The name by which an operator knows a rule.
    fn name(&self, id: &PolicyId) -> String {
        let named = self.rules.policy(id).and_then(|rule| rule.annotation("id"));
        named.map_or_else(|| id.to_string(), str::to_owned)
    }
}

impl RuleEngine for CedarRules {
    fn judge(&self, request: &CapabilityRequest<'_>) -> Result<(), String> {
        let response = self.respond(request)?;
        // Cedar leaves a rule out that it cannot evaluate. What it would have said is unknown, and unknown denies.
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(format!("a rule of `capability_rules` cannot be evaluated: {error}"));
        }
        match response.decision() {
            Decision::Allow => Ok(()),
            Decision::Deny => {
                let mut forbidding: Vec<String> =
                    response.diagnostics().reason().map(|id| self.name(id)).collect();
                forbidding.sort();
                Err(match forbidding.as_slice() {
                    [] => "no rule of `capability_rules` permits it".to_owned(),
                    names => format!("`capability_rules` forbid it by `{}`", names.join("`, `")),
                })
            }
        }
    }
}

impl fmt::Debug for CedarRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CedarRules").field("rules", &self.rules.policies().count()).finish()
    }
}

#[cfg(test)]
mod tests;
