//! Cedar for the `capability_rules` of a trust policy.
//!
//! `trust_store` asks for each capability of a signed manifest, after it was found to be covered by `capabilities`. Here the answer
//! comes from rules in [Cedar](https://docs.cedarpolicy.com): what no `permit` permits is denied, a `forbid` that applies wins, and
//! a rule that cannot be evaluated denies. Rules are checked against [`SCHEMA`] when they are read, so that a misspelt attribute or
//! kind is an error then and not a rule that never applies.
//!
//! Pure: no files, no clock, no network. Work is bounded by the sizes that [`CedarRules::read`] takes: [`MAX_RULES`],
//! [`MAX_TOKENS`] of each, [`MAX_DEPTH`], and the length of the text.

#![forbid(unsafe_code)]

mod facts;
mod shape;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Policy, PolicyId, PolicySet, Request, Response, Schema,
    ValidationMode, Validator,
};
pub use shape::{MAX_DEPTH, MAX_TOKENS};
use trust_store::capability_rules::{CapabilityRequest, MAX_RULES_BYTES, RuleEngine, RuleRefusal};
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
        shape::check(text)?;
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
        for id in rules.policies().filter_map(annotated) {
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

    fn respond(&self, request: &CapabilityRequest<'_>) -> Result<Response, RuleRefusal> {
        let unusable = |error: &dyn fmt::Display| RuleRefusal::Unevaluated {
            detail: format!("the request does not fit the schema: {error}"),
        };
        let (agent, action, resource) = facts::of(request).map_err(|error| unusable(&error))?;
        let asked = Request::new(agent.uid(), action, resource.uid(), Context::empty(), Some(&self.schema))
            .map_err(|error| unusable(&error))?;
        let entities = Entities::from_entities([agent, resource], Some(&self.schema))
            .map_err(|error| unusable(&error))?;
        Ok(self.authorizer.is_authorized(&asked, &self.rules, &entities))
    }

    /// The name by which an operator knows a rule: its `@id`, or its place in the text, from 1.
    fn name(&self, id: &PolicyId) -> String {
        let named = self.rules.policy(id).and_then(annotated);
        named.map_or_else(|| place(id), str::to_owned)
    }
}

/// The name that a rule gives itself.
fn annotated(rule: &Policy) -> Option<&str> {
    rule.annotation("id").filter(|id| !id.is_empty())
}

/// Cedar calls the rules of a text `policy0` and so on.
fn place(id: &PolicyId) -> String {
    let id = id.to_string();
    let index = id.strip_prefix("policy").and_then(|digits| digits.parse::<usize>().ok());
    index.map_or(id, |index| format!("rule {}", index.saturating_add(1)))
}

impl RuleEngine for CedarRules {
    fn judge(&self, request: &CapabilityRequest<'_>) -> Result<Vec<String>, RuleRefusal> {
        let response = self.respond(request)?;
        // Cedar leaves a rule out that it cannot evaluate. What it would have said is unknown, and unknown denies.
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(RuleRefusal::Unevaluated { detail: error.to_string() });
        }
        let mut deciding: Vec<String> = response.diagnostics().reason().map(|id| self.name(id)).collect();
        deciding.sort();
        match response.decision() {
            Decision::Allow => Ok(deciding),
            Decision::Deny if deciding.is_empty() => Err(RuleRefusal::NotPermitted),
            Decision::Deny => Err(RuleRefusal::Forbidden(deciding)),
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
