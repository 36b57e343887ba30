//! Who decides about requests, and who lets others make them: people, as far as the authority can tell.
//!
//! One human comes in many forms: by client certificate, by identity tokens whose subject is another for each audience (pairwise
//! subjects, OpenID Connect Core 1.0 §8.1), by the address in a certificate. What they have in common is their e-mail address. So
//! somebody counts as a person only with one, and two people are one as soon as they share any name at all.

use ca_pki::Identity;

use crate::storage::queue::RequestContent;

/// Somebody in a role that reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// As audit records name them, the role first.
    pub actor: String,
    /// Who that is; none for the bearer of a shared token, and for whoever cannot be told apart from others.
    pub person: Option<Person>,
}

/// Nobody in particular.
impl From<&str> for Operator {
    fn from(actor: &str) -> Self {
        Self { actor: actor.to_owned(), person: None }
    }
}

/// One person. Only [`Person::known_by`] makes it, of somebody who has an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    name: String,
    names: Vec<String>,
}

impl Person {
    /// Somebody of this name, with the e-mail addresses that are proven to be theirs, and everything else that names them. `None` without
    /// an address: there is no telling then whether they are somebody else. What only looks like one (a common name, the name of a
    /// directory's account) is none, for the same human has another one elsewhere.
    #[must_use]
    pub fn known_by(
        name: String,
        addresses: impl IntoIterator<Item = String>,
        others: impl IntoIterator<Item = String>,
    ) -> Option<Self> {
        let mut person = Self { names: vec![name.clone()], name };
        let mut addressed = false;
        for address in addresses {
            addressed |= Identity::email(&address).is_ok();
            person.add(address);
        }
        for other in others {
            person.add(other);
        }
        addressed.then_some(person)
    }

    /// The same with a name that is claimed and not proven: it can only count against them.
    #[must_use]
    pub fn claiming(mut self, other: Option<String>) -> Self {
        if let Some(other) = other {
            self.add(other);
        }
        self
    }

    fn add(&mut self, other: String) {
        if !self.is(&other) {
            self.names.push(other);
        }
    }

    /// The subject of a client certificate, or `oidc:ISSUER#SUBJECT`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whatever they are known by.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a name is one of theirs. Nobody gets around this by the case of a letter.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Whether a request is their own, or one that they vouched for.
    #[must_use]
    pub fn asked_for(&self, content: &RequestContent) -> bool {
        let vouched = content.vouched_by.as_deref().and_then(|actor| actor.split_once(':'));
        self.is(&content.requester)
            || self.is(content.identity.as_str())
            || vouched.is_some_and(|(_, name)| self.is(name))
            || content.requester_names.iter().chain(&content.voucher_names).any(|name| self.is(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_an_address_and_is_known_by_every_name() {
        let known_by = |name: &str, addresses: &[&str], others: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            Person::known_by(name.to_owned(), owned(addresses), owned(others))
        };
        // Neither a name that looks like an address nor an address that is none.
        assert_eq!(known_by("CN=alice@corp.example", &[], &["alice@corp.example"]), None);
        assert_eq!(known_by("CN=alice", &["alice", "https://a.example.org"], &[]), None);
        // What is only claimed makes nobody a person.
        let person = known_by("CN=alice", &["Alice@example.org"], &["alice", "alice@corp.example"]).unwrap();
        let person = person.claiming(Some("a@example.com".to_owned())).claiming(Some("ALICE".to_owned()));
        assert_eq!(
            person.names(),
            ["CN=alice", "Alice@example.org", "alice", "alice@corp.example", "a@example.com"]
        );
        assert!(
            person.is("alice@EXAMPLE.org") && person.is("a@example.com") && !person.is("bob@example.org")
        );
    }
}
