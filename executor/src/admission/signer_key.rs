//! Whose modules may share a process.

use trust_store::certificate::Certificate;
use trust_store::identity::SubjectKind;
use trust_store::policy::TrustLevel;
use trust_store::verifier::VerifiedArtifact;

/// A signer, as the boundary between worker processes: modules under one key may reach each other once they break out, and
/// modules under different ones may not. So it holds everything by which two parties of the same name differ, and the level,
/// because what reached another one may have less.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SignerKey {
    kind: SubjectKind,
    subject: String,
    vouched: Vouched,
    level: TrustLevel,
}

/// Who says that the name is the signer's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Vouched {
    /// SHA-256 of the anchor of the chain, where the certificate names no issuer: each authority knows names of its own.
    Authority([u8; 32]),
    /// The issuer that the certificate names.
    Issuer(String),
    /// The policy, which names the key.
    Policy,
}

impl Vouched {
    fn by(issuer: Option<&str>, anchor: Option<[u8; 32]>) -> Self {
        match (issuer, anchor) {
            (Some(issuer), _) => Self::Issuer(issuer.to_owned()),
            (None, Some(anchor)) => Self::Authority(anchor),
            (None, None) => Self::Policy,
        }
    }
}

impl SignerKey {
    pub(super) fn of(verified: &VerifiedArtifact) -> Self {
        let (identity, anchor) = (verified.identity(), verified.chain().last().map(Certificate::fingerprint));
        let vouched = Vouched::by(identity.issuer(), anchor);
        let level = verified.trust_level();
        Self { kind: identity.kind(), subject: identity.subject().to_owned(), vouched, level }
    }

    /// The name, for readers.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// A mailbox that nobody vouched for.
    #[cfg(test)]
    pub(crate) fn for_test(subject: &str, level: TrustLevel) -> Self {
        Self { kind: SubjectKind::Email, subject: subject.to_owned(), vouched: Vouched::Policy, level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_parties_of_one_name_are_two_signers() {
        let key = |kind, subject: &str, issuer, anchor, level| SignerKey {
            kind,
            subject: subject.to_owned(),
            vouched: Vouched::by(issuer, anchor),
            level,
        };
        let (email, signed) = (SubjectKind::Email, TrustLevel::Signed);
        let (one, other) = (Some([1; 32]), Some([2; 32]));
        let all = [
            key(email, "a@example.org", Some("https://i.example"), one, signed),
            key(email, "a@example.org", Some("https://j.example"), one, signed),
            key(email, "a@example.org", None, one, signed),
            key(email, "a@example.org", None, other, signed),
            key(email, "a@example.org", None, one, TrustLevel::Community),
            // The name of a key is the operator's text.
            key(SubjectKind::Key, "a@example.org", None, None, signed),
            key(SubjectKind::Uri, "a@example.org", None, one, signed),
            key(email, "a@example.org\nhttps://i.example", None, one, signed),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        // Which authority chained to the same issuer's word is no difference.
        assert_eq!(all[0], key(email, "a@example.org", Some("https://i.example"), other, signed));
    }
}
