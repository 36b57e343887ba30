//! Whose releases may follow whose under one agent id.
//!
//! An id that a rule's `agents` lists belongs to whom the lists name. One that no list names belongs to whoever came first: a
//! signer of another rule could otherwise put a module of its own where callers expect somebody else's.

use trust_store::policy::{IdentityRule, TrustPolicy};

use super::Denied;

/// Who signed a release, as policy names signers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publisher {
    subject: String,
    issuer: Option<String>,
}

impl Publisher {
    /// A signer's name, and who vouched for it; nobody where that is empty.
    pub(crate) fn new(subject: &str, issuer: &str) -> Self {
        let issuer = (!issuer.is_empty()).then(|| issuer.to_owned());
        Self { subject: subject.to_owned(), issuer }
    }

    /// The rules by which it may publish an agent.
    fn rules<'a>(&self, policy: &'a TrustPolicy, agent: &str) -> Vec<&'a IdentityRule> {
        let accepts = |rule: &&IdentityRule| {
            rule.accepts_name(&self.subject, self.issuer.as_deref()) && rule.may_publish(Some(agent))
        };
        policy.identities.iter().filter(accepts).collect()
    }
}

/// Refuses what `next` signed as a release of an agent under which `here` has one.
///
/// It may follow when a rule that it is accepted by is one that the other release has its level from, or when the lists of both
/// name the agent. Whom policy lets publish the agent no longer holds nothing.
pub(crate) fn may_follow(
    policy: &TrustPolicy,
    agent: &str,
    here: &Publisher,
    next: &Publisher,
) -> Result<(), Denied> {
    let mut from = here.rules(policy, agent);
    let level = from.iter().map(|rule| rule.level).max();
    from.retain(|rule| Some(rule.level) == level);
    if from.is_empty() {
        return Ok(());
    }
    let by = next.rules(policy, agent);
    let shared = by.iter().any(|rule| from.iter().any(|other| std::ptr::eq(*rule, *other)));
    let listed = |rules: &[&IdentityRule]| rules.iter().any(|rule| rule.names_agent(agent));
    if shared || (listed(&from) && listed(&by)) {
        return Ok(());
    }
    let text = "a release of this agent is here that a signer of another rule signed; list the agent under `agents` of both rules \
                in the policy's `identities`, or unload that release first";
    Err(Denied::in_step(6, "agent_taken", text).for_operator(format!("{next:?} would follow {here:?}")))
}

#[cfg(test)]
mod tests {
    use trust_store::pattern::Pattern;
    use trust_store::policy::{IssuerRule, TrustLevel};

    use super::*;

    const AGENT: &str = "shop.cart";

    fn rule(subject: &str, level: TrustLevel, agents: &[&str]) -> IdentityRule {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let agents = (!agents.is_empty()).then(|| agents.iter().map(|text| pattern(text)).collect());
        IdentityRule { subject: pattern(subject), issuer: IssuerRule::AnyOfTheAuthority, level, agents }
    }

    fn follows(identities: Vec<IdentityRule>, here: &str, next: &str) -> Result<(), &'static str> {
        let policy = TrustPolicy { identities, ..TrustPolicy::default() };
        let publisher = |subject| Publisher::new(subject, "");
        may_follow(&policy, AGENT, &publisher(here), &publisher(next)).map_err(|denied| denied.code)
    }

    #[test]
    fn without_lists_an_id_belongs_to_the_rule_that_came_first() {
        use TrustLevel::{Signed, Verified};
        let two = || vec![rule("a@x", Verified, &[]), rule("b@x", Verified, &[])];
        assert_eq!(follows(two(), "a@x", "b@x"), Err("agent_taken"));
        assert_eq!(follows(two(), "a@x", "a@x"), Ok(()));
        // One rule for both is the operator's word that they are one party.
        assert_eq!(follows(vec![rule("*@x", Verified, &[])], "a@x", "b@x"), Ok(()));
        // A wider rule of a lower level does not open what a narrow one of a higher level stands for; the other way it may.
        let layers = || vec![rule("*@x", Signed, &[]), rule("release@x", Verified, &[])];
        assert_eq!(follows(layers(), "release@x", "dev@x"), Err("agent_taken"));
        assert_eq!(follows(layers(), "dev@x", "release@x"), Ok(()));
        // Nobody of the policy holds it any more.
        assert_eq!(follows(vec![rule("b@x", Verified, &[])], "a@x", "b@x"), Ok(()));
    }

    #[test]
    fn lists_of_both_rules_let_one_follow_the_other_and_one_list_does_not() {
        let verified = TrustLevel::Verified;
        let lists = |a: &[&str], b: &[&str]| {
            follows(vec![rule("a@x", verified, a), rule("b@x", verified, b)], "a@x", "b@x")
        };
        assert_eq!(lists(&["shop.*"], &["shop.cart"]), Ok(()));
        assert_eq!(lists(&[], &["shop.cart"]), Err("agent_taken"));
        assert_eq!(lists(&["shop.*"], &[]), Err("agent_taken"));
        // A list that leaves the agent out takes it from who has it.
        assert_eq!(lists(&["billing.*"], &[]), Ok(()));
    }

    #[test]
    fn a_name_that_another_issuer_vouches_for_is_another_publisher() {
        let issued = |issuer: &str| IdentityRule {
            issuer: IssuerRule::Matching(Pattern::new(issuer).unwrap()),
            ..rule("a@x", TrustLevel::Verified, &[])
        };
        let identities = vec![issued("https://one"), issued("https://two")];
        let policy = TrustPolicy { identities, ..TrustPolicy::default() };
        let [one, two] = ["https://one", "https://two"].map(|issuer| Publisher::new("a@x", issuer));
        assert_eq!(may_follow(&policy, AGENT, &one, &two).unwrap_err().code, "agent_taken");
        assert!(may_follow(&policy, AGENT, &one, &one).is_ok());
    }
}
