//! Events of an event log: in-toto statements in DSSE envelopes, each type believed from its own keys only.
//!
//! A log verifies an event before it takes it, and every reader verifies it again: a log that was made to hold a
//! statement of nobody must not be able to revoke a certificate. What is signed is the statement; the log adds nothing.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tlog::signature::{Algorithm, SignatureVerifier};

use crate::algorithm::{KeyAlgorithm, SubjectPublicKey};
use crate::certificate::Certificate;
use crate::dsse::{Envelope, IN_TOTO_PAYLOAD_TYPE};
use crate::error::Error;
use crate::json::{Bytes, Value};
use crate::reason::{Denial, ReasonCode};
use crate::statement::Statement;

/// Most rules of one log: some types, for each some CAs, for each some keys that followed one another.
pub const MAX_EVENT_RULES: usize = 256;
/// Most keys of one rule. Every one may be tried for a signature.
pub const MAX_EVENT_KEYS: usize = 64;

/// Who may say what: the keys that are believed for one type of event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EventRule {
    /// `predicateType` of the statements.
    pub predicate_type: String,
    /// What the predicate's `issuer` must be: of a revocation, the CA's name for the issuer. `None`: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// DER of the subject's name of the CA that the rule is about: its revocations concern certificates of this issuer
    /// only. `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_name: Option<Bytes>,
    /// SHA-256 of the DER SubjectPublicKeyInfo of that CA. Names are no identities: authorities that were set up alike have the
    /// same, and whoever makes a CA chooses its name. `None`: any key of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_key: Option<Bytes>,
    /// DER SubjectPublicKeyInfo of each key: ECDSA P-256 or P-384, Ed25519 or ML-DSA-44.
    pub keys: Vec<Bytes>,
}

/// The rules of one log. None: nothing is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<EventRule>", into = "Vec<EventRule>")]
pub struct EventRules(Vec<EventRule>);

/// A statement that was signed by a key which is believed for its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEvent {
    statement: Statement,
    /// Sorted; none: any.
    issuers: Arc<[Concerned]>,
    signer: Bytes,
}

/// A CA whose certificates a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concerned {
    /// DER of its subject's name.
    pub name: Bytes,
    /// SHA-256 of its DER SubjectPublicKeyInfo; `None`: any key of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
}

impl Concerned {
    /// Whether `issuer` is this CA.
    pub(crate) fn is(&self, issuer: &Certificate) -> bool {
        match &self.key {
            Some(key) => key.0[..] == issuer.key_digest(),
            None => self.name.0 == issuer.subject_der(),
        }
    }
}

impl EventRules {
    /// Rules whose keys can all be used.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_EVENT_RULES`] or [`MAX_EVENT_KEYS`]; [`Error::Malformed`] for a rule without type
    /// or key, or a key that is no SubjectPublicKeyInfo; [`Error::Unsupported`] for a key of another algorithm.
    pub fn new(rules: Vec<EventRule>) -> Result<Self, Error> {
        if rules.len() > MAX_EVENT_RULES {
            return Err(Error::TooLarge { what: "list of event rules", limit: MAX_EVENT_RULES });
        }
        for rule in &rules {
            if rule.keys.len() > MAX_EVENT_KEYS {
                return Err(Error::TooLarge { what: "list of event keys", limit: MAX_EVENT_KEYS });
            }
            if rule.keys.is_empty() || rule.predicate_type.is_empty() {
                return Err(Error::malformed("event rule", "it names no type, or no key"));
            }
            if rule.issuer_key.as_ref().is_some_and(|key| key.0.len() != 32 || rule.issuer_name.is_none()) {
                return Err(Error::malformed(
                    "event rule",
                    "its issuer's key is no SHA-256, or has no issuer's name",
                ));
            }
            for spki in &rule.keys {
                let key = SubjectPublicKey::from_der(&spki.0)
                    .map_err(|_| Error::malformed("event rule", "a key is no SubjectPublicKeyInfo"))?;
                if algorithm(key.algorithm).is_none() {
                    return Err(Error::unsupported(
                        "event rule",
                        "a key is neither ECDSA P-256 or P-384, nor Ed25519, nor ML-DSA-44",
                    ));
                }
            }
        }
        Ok(Self(rules))
    }

    /// These rules and further ones.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(&self, more: impl IntoIterator<Item = EventRule>) -> Result<Self, Error> {
        Self::new(self.0.iter().cloned().chain(more).collect())
    }

    /// The rules.
    pub fn rules(&self) -> &[EventRule] {
        &self.0
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key is known for this type of event.
    pub fn knows(&self, predicate_type: &str) -> bool {
        self.0.iter().any(|rule| rule.predicate_type == predicate_type)
    }

    /// Whether everything that `other` believes is believed here, too.
    pub fn cover(&self, other: &Self) -> bool {
        other.0.iter().all(|rule| {
            let alike = |own: &&EventRule| {
                own.predicate_type == rule.predicate_type
                    && own.issuer == rule.issuer
                    && own.issuer_name == rule.issuer_name
                    && own.issuer_key == rule.issuer_key
            };
            rule.keys.iter().all(|key| self.0.iter().filter(alike).any(|own| own.keys.contains(key)))
        })
    }

    /// Verifies an event: one signature, by a key that is believed for the statement's type and, where the rule says so,
    /// for the issuer that the statement names. Where several rules believe the key, it speaks for the issuers of all of them.
    ///
    /// # Errors
    /// `malformed`, `too_large` or `unsupported` for what cannot be read; `policy_denied` for a type without a rule;
    /// `signature_invalid` when none of the keys made the signature.
    pub fn verify(
        &self,
        envelope: &Envelope,
        signatures: &dyn SignatureVerifier,
    ) -> Result<VerifiedEvent, Denial> {
        let signature = envelope.single_signature()?;
        if envelope.payload_type != IN_TOTO_PAYLOAD_TYPE {
            return Err(Denial::new(
                ReasonCode::Unsupported,
                format!("an event is an in-toto statement ({IN_TOTO_PAYLOAD_TYPE})"),
            ));
        }
        let statement = Statement::parse(&envelope.payload)?;
        let issuer = statement.predicate.member("issuer").and_then(Value::as_str);
        let message = envelope.pae();
        let made = |spki: &Bytes| {
            SubjectPublicKey::from_der(&spki.0).is_ok_and(|key| {
                algorithm(key.algorithm).is_some_and(|algorithm| {
                    signatures.verify(algorithm, key.key, &message, &signature.sig).is_ok()
                })
            })
        };
        let rules = self
            .0
            .iter()
            .filter(|rule| rule.predicate_type == statement.predicate_type)
            .filter(|rule| rule.issuer.is_none() || rule.issuer.as_deref() == issuer);
        // A key that several rules name is tried once: one signature was made by one key.
        let mut tried = BTreeSet::new();
        let signer = rules.clone().flat_map(|rule| &rule.keys).find(|key| tried.insert(&key.0) && made(key));
        let about = |rule: &EventRule| {
            let name = rule.issuer_name.clone()?;
            Some(Concerned { name, key: rule.issuer_key.clone() })
        };
        match signer {
            Some(signer) => {
                // One rule that names nobody is enough to speak for anybody.
                let issuers: Option<BTreeSet<Concerned>> =
                    rules.filter(|rule| rule.keys.contains(signer)).map(about).collect();
                let issuers = issuers.into_iter().flatten().collect();
                let signer = signer.clone();
                Ok(VerifiedEvent { statement, issuers, signer })
            }
            None if self.knows(&statement.predicate_type) => Err(Denial::new(
                ReasonCode::SignatureInvalid,
                "no key configured for this event type and issuer made the signature",
            )),
            None => Err(Denial::new(ReasonCode::PolicyDenied, "this event type is not configured")),
        }
    }
}

impl TryFrom<Vec<EventRule>> for EventRules {
    type Error = Error;

    fn try_from(rules: Vec<EventRule>) -> Result<Self, Error> {
        Self::new(rules)
    }
}

impl From<EventRules> for Vec<EventRule> {
    fn from(rules: EventRules) -> Self {
        rules.0
    }
}

impl VerifiedEvent {
    /// What was said.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Whether what is said of a certificate may count for one of an issuer of this name (DER). Which key it has is not looked at.
    pub fn concerns_issuer(&self, issuer: &[u8]) -> bool {
        self.issuers.is_empty() || self.issuers.iter().any(|one| one.name.0 == issuer)
    }

    /// The only issuers whose certificates are meant, sorted; none: any.
    pub fn issuers(&self) -> &Arc<[Concerned]> {
        &self.issuers
    }

    /// DER SubjectPublicKeyInfo of the key that made the signature.
    pub fn signer(&self) -> &Bytes {
        &self.signer
    }
}

/// The algorithm with which a key of this kind signs statements.
fn algorithm(key: KeyAlgorithm) -> Option<Algorithm> {
    Some(match key {
        KeyAlgorithm::EcdsaP256 => Algorithm::EcdsaP256Sha256,
        KeyAlgorithm::EcdsaP384 => Algorithm::EcdsaP384Sha384,
        KeyAlgorithm::Ed25519 => Algorithm::Ed25519,
        KeyAlgorithm::MlDsa44 => Algorithm::MlDsa44,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use tlog::signature::InvalidSignature;

    /// A signature is the last 32 bytes of the key and the message's length: enough to tell who signed what.
    struct Toy;

    fn toy(public_key: &[u8], message: &[u8]) -> Vec<u8> {
        [public_key, message].concat()
    }

    impl SignatureVerifier for Toy {
        fn verify(
            &self,
            _: Algorithm,
            key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            if signature == toy(key, message) { Ok(()) } else { Err(InvalidSignature) }
        }

        fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
            Err(InvalidSignature)
        }
    }

    fn spki(fill: u8) -> Bytes {
        Bytes([&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &[fill; 32]].concat())
    }

    fn rule(kind: &str, issuer: Option<&str>, key: u8) -> EventRule {
        EventRule {
            predicate_type: kind.into(),
            issuer: issuer.map(Into::into),
            issuer_name: issuer.map(|name| Bytes(name.into())),
            issuer_key: None,
            keys: vec![spki(key)],
        }
    }

    fn signed(kind: &str, issuer: &str, key: u8) -> Envelope {
        let payload = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"aa"}}}}],"predicateType":"{kind}","predicate":{{"issuer":"{issuer}"}}}}"#
        );
        let message = crate::dsse::pae(IN_TOTO_PAYLOAD_TYPE, payload.as_bytes());
        Envelope::new(IN_TOTO_PAYLOAD_TYPE, payload.into_bytes(), toy(&[key; 32], &message))
    }

    #[test]
    fn each_type_and_issuer_counts_from_its_own_key_only() {
        let rules = EventRules::new(vec![
            rule("revocation", Some("a"), 1),
            rule("revocation", Some("b"), 2),
            rule("anchor", None, 3),
        ])
        .unwrap();
        let code = |envelope: &Envelope| rules.verify(envelope, &Toy).unwrap_err().code;
        for key in 0..5 {
            for (kind, issuer, own) in [("revocation", "a", 1), ("revocation", "b", 2), ("anchor", "x", 3)] {
                let envelope = signed(kind, issuer, key);
                if key == own {
                    let event = rules.verify(&envelope, &Toy).unwrap();
                    assert_eq!(event.statement().predicate_type, kind);
                    assert_eq!(
                        event.concerns_issuer(b"a"),
                        kind == "anchor" || issuer == "a",
                        "{kind} {issuer}"
                    );
                } else {
                    assert_eq!(code(&envelope), ReasonCode::SignatureInvalid, "{kind} of {issuer} by {key}");
                }
            }
        }
        assert_eq!(code(&signed("revocation", "c", 1)), ReasonCode::SignatureInvalid);
        assert_eq!(code(&signed("approval", "a", 1)), ReasonCode::PolicyDenied);
        assert_eq!(
            EventRules::default().verify(&signed("anchor", "x", 3), &Toy).unwrap_err().code,
            ReasonCode::PolicyDenied
        );
        let mut altered = signed("anchor", "x", 3);
        altered.payload.push(b' ');
        assert_eq!(code(&altered), ReasonCode::SignatureInvalid);
        altered.payload_type = "text/plain".into();
        assert_eq!(code(&altered), ReasonCode::Unsupported);
        altered.signatures.clear();
        assert_eq!(code(&altered), ReasonCode::Malformed);
    }

    #[test]
    fn a_key_of_several_rules_speaks_for_the_issuers_of_all_of_them() {
        let of = |name: Option<&str>, key: u8| EventRule {
            issuer_name: name.map(|name| Bytes(name.into())),
            issuer_key: None,
            ..rule("revocation", None, key)
        };
        let concerned = |rules: &[EventRule]| {
            let rules = EventRules::new(rules.to_vec()).unwrap();
            let event = rules.verify(&signed("revocation", "x", 1), &Toy).unwrap();
            ["a", "b", "c"].map(|name| event.concerns_issuer(name.as_bytes()))
        };
        assert_eq!(concerned(&[of(Some("b"), 1), of(Some("a"), 1), of(Some("c"), 2)]), [true, true, false]);
        assert_eq!(concerned(&[of(Some("a"), 1), of(None, 1)]), [true; 3]);
        assert_eq!(concerned(&[of(Some("a"), 1), of(None, 2)]), [true, false, false]);
    }

    #[test]
    fn rules_that_believe_nobody_or_too_many_are_refused() {
        assert!(EventRules::new(vec![rule("", None, 1)]).is_err());
        assert!(EventRules::new(vec![EventRule { keys: Vec::new(), ..rule("a", None, 1) }]).is_err());
        for (name, length) in [(Some("x"), 31), (Some("x"), 0), (None, 32)] {
            let issuer_key = Some(Bytes(vec![0; length]));
            assert!(EventRules::new(vec![EventRule { issuer_key, ..rule("a", name, 1) }]).is_err());
        }
        assert!(
            EventRules::new(vec![EventRule { keys: vec![Bytes(vec![1])], ..rule("a", None, 1) }]).is_err()
        );
        assert!(EventRules::new(vec![EventRule { keys: vec![spki(1); 65], ..rule("a", None, 1) }]).is_err());
        assert!(EventRules::new(vec![rule("a", None, 1); 257]).is_err());
    }

    #[test]
    fn one_set_of_rules_covers_another_only_key_by_key() {
        let rules = |list: &[EventRule]| EventRules::new(list.to_vec()).unwrap();
        let both = rules(&[rule("a", None, 1), rule("a", None, 2), rule("b", Some("x"), 3)]);
        assert!(both.cover(&both) && both.cover(&EventRules::default()));
        let merged = EventRule { keys: vec![spki(2), spki(1)], ..rule("a", None, 1) };
        assert!(both.cover(&rules(&[merged])));
        for other in [rule("a", None, 3), rule("a", Some("x"), 1), rule("b", None, 3), rule("c", None, 1)] {
            assert!(!both.cover(&rules(std::slice::from_ref(&other))), "{other:?}");
        }
        assert!(!EventRules::default().cover(&both));
    }

    #[test]
    fn the_form_is_frozen() {
        let text = r#"[{"predicateType":"t","issuer":"code","issuerName":"MAA=","issuerKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","keys":["MCowBQYDK2VwAyEABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="]}]"#;
        let rules: EventRules = serde_json::from_str(text).unwrap();
        assert_eq!(rules.rules()[0].keys, [spki(7)]);
        assert_eq!(serde_json::to_string(&rules).unwrap(), text);
        assert!(serde_json::from_str::<EventRules>(r#"[{"predicateType":"t","keys":[]}]"#).is_err());
    }
}
