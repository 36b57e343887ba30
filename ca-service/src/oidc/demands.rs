//! What a section demands that a token says: for certificates (`[[oidc]]`) and for roles (`[[roles.oidc]]`) alike.
//!
//! Values are compared exactly, in upper and lower case as the issuer writes them. There are no patterns: one that is a little
//! too wide lets in whom nobody thought of.

use std::collections::BTreeMap;

use ca_pki::TokenRefusal;
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use serde_json::Value;

use super::OidcError;

/// Most claims that one section may demand.
const MAX_CLAIMS: usize = 16;
/// Most values that one claim may have.
const MAX_VALUES: usize = 256;
/// Longest name and value in bytes.
const MAX_TEXT: usize = 512;
/// Claims that have their own checks.
const RESERVED: [&str; 5] = ["aud", "exp", "iat", "iss", "nbf"];
/// An address, and whether the issuer says that it verified it.
const EMAIL: [&str; 2] = ["email", "email_verified"];

/// What a section demands, validated: by name of a claim the values of which one must be there, as the claim or in its list. All
/// names must fit; `email` counts with a true `email_verified` only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands(BTreeMap<String, Vec<String>>);

/// What is wrong with a section, and the remedy.
pub(super) type Fault = (&'static str, &'static str);

impl Demands {
    /// Validates what a section says.
    pub(super) fn new(written: &BTreeMap<String, Vec<String>>) -> Result<Self, Fault> {
        if written.len() > MAX_CLAIMS {
            return Err(("demands more than 16 claims", "remove some"));
        }
        let text =
            |text: &String| !text.is_empty() && text.len() <= MAX_TEXT && !text.contains(char::is_control);
        let sound = |(name, values): (&String, &Vec<String>)| {
            text(name) && !values.is_empty() && values.len() <= MAX_VALUES && values.iter().all(text)
        };
        if !written.iter().all(sound) {
            return Err(("has a claim without values, or with empty or too long ones", "name the values"));
        }
        if written.keys().any(|name| RESERVED.contains(&name.as_str())) {
            return Err(("demands a claim that is checked by itself", "remove iss, aud, exp, nbf and iat"));
        }
        let [_, verified] = EMAIL;
        if written.get(verified).is_some_and(|values| values.iter().any(|value| value != "true")) {
            return Err((
                "takes addresses that were not verified",
                "write email_verified = [\"true\"], or leave it out",
            ));
        }
        Ok(Self(written.clone()))
    }

    /// Whether nothing is demanded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of these claims is demanded.
    pub(super) fn name_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.0.contains_key(*name))
    }

    /// Whether a subject is demanded, and each that is allowed begins with one of these.
    pub(super) fn subjects_begin_with_one_of(&self, beginnings: &[&str]) -> bool {
        let begins = |subject: &String| beginnings.iter().any(|beginning| subject.starts_with(beginning));
        self.0.get("sub").is_some_and(|subjects| subjects.iter().all(begins))
    }

    /// What a token says of each demand, in the order of their names.
    #[must_use]
    pub fn findings(&self, said: &NamedClaims) -> Vec<Finding> {
        let [address, verified] = EMAIL;
        let mut findings: Vec<_> =
            self.0.iter().map(|(name, allowed)| Finding::of(name, allowed, said)).collect();
        if self.0.contains_key(address) && !self.0.contains_key(verified) {
            findings.push(Finding::of(verified, &["true".to_owned()], said));
        }
        findings
    }

    /// The values that decided, by name of the claim.
    ///
    /// # Errors
    /// [`OidcError::ClaimNotAllowed`] naming the first claim that does not fit.
    pub fn met(&self, said: &NamedClaims) -> Result<BTreeMap<String, String>, OidcError> {
        let decided = self.findings(said).into_iter().map(|finding| match finding.fits {
            Some(value) => Ok((finding.claim, value)),
            None => Err(OidcError::ClaimNotAllowed(finding.claim)),
        });
        decided.collect()
    }
}

/// What a token says of one demand.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The claim.
    pub claim: String,
    /// The values of which one must be there.
    pub allowed: Vec<String>,
    /// What the token says; none where it says nothing.
    pub said: Option<Value>,
    /// The value that fits, if one does.
    pub fits: Option<String>,
}

impl Finding {
    fn of(name: &str, allowed: &[String], said: &NamedClaims) -> Self {
        let fits = said.one_of(name, allowed).map(str::to_owned);
        Self { claim: name.to_owned(), allowed: allowed.to_vec(), said: said.0.get(name).cloned(), fits }
    }
}

/// What a token says, by name.
#[derive(Debug)]
pub struct NamedClaims(BTreeMap<String, Value>);

impl NamedClaims {
    /// Parses the payload of a token.
    ///
    /// # Errors
    /// [`TokenRefusal::Malformed`] when it is no object, or a name stands twice.
    pub fn parse(payload: &[u8]) -> Result<Self, OidcError> {
        serde_json::from_slice(payload)
            .map_err(|_| TokenRefusal::Malformed("the claims are no object, or one stands twice").into())
    }

    /// The first of these values that a claim is, or has in its list.
    fn one_of<'a>(&self, name: &str, allowed: &'a [String]) -> Option<&'a str> {
        let found = |value: &Value| {
            let said = match value {
                Value::String(text) => text.as_str(),
                Value::Bool(true) => "true",
                Value::Bool(false) => "false",
                _ => return None,
            };
            allowed.iter().map(String::as_str).find(|value| *value == said)
        };
        match self.0.get(name)? {
            Value::Array(values) => values.iter().find_map(found),
            value => found(value),
        }
    }
}

impl<'de> Deserialize<'de> for NamedClaims {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = NamedClaims;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with each name once")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NamedClaims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    // Else who reads the first and who reads the last would see two tokens.
                    if claims.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name stands twice"));
                    }
                }
                Ok(NamedClaims(claims))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands(written: &Value) -> Result<Demands, Fault> {
        Demands::new(&serde_json::from_value(written.clone()).unwrap())
    }

    #[test]
    fn what_decided_is_named_and_so_is_what_did_not_fit() {
        let written = serde_json::json!({ "repository": ["acme/a", "acme/b"], "ref": ["refs/heads/main"] });
        let demands = demands(&written).unwrap();
        let met = |payload: &str| demands.met(&NamedClaims::parse(payload.as_bytes()).unwrap());
        let decided = met(r#"{"repository":"acme/b","ref":"refs/heads/main","sub":"x"}"#).unwrap();
        assert_eq!(
            serde_json::json!(decided),
            serde_json::json!({"repository":"acme/b","ref":"refs/heads/main"})
        );
        for (payload, claim) in [
            (r#"{"repository":"acme/b","ref":"refs/heads/other"}"#, "ref"),
            (r#"{"repository":"acme/b"}"#, "ref"),
            (r#"{"repository":"acme/bb","ref":"refs/heads/main"}"#, "repository"),
            (r#"{"repository":"Acme/b","ref":"refs/heads/main"}"#, "repository"),
            (r#"{"repository":["acme/c"],"ref":"refs/heads/main"}"#, "repository"),
            (r#"{"repository":null,"ref":"refs/heads/main"}"#, "repository"),
        ] {
            assert_eq!(met(payload), Err(OidcError::ClaimNotAllowed(claim.to_owned())), "{payload}");
        }
    }

    #[test]
    fn an_address_counts_when_it_was_verified() {
        let demands = demands(&serde_json::json!({ "email": ["a@example.org"] })).unwrap();
        let met = |payload: &str| demands.met(&NamedClaims::parse(payload.as_bytes()).unwrap());
        assert_eq!(met(r#"{"email":"a@example.org","email_verified":true}"#).unwrap().len(), 2);
        let refused = Err(OidcError::ClaimNotAllowed("email_verified".to_owned()));
        assert_eq!(met(r#"{"email":"a@example.org"}"#), refused);
    }

    #[test]
    fn demands_without_sense_are_refused() {
        let many: BTreeMap<String, Vec<String>> =
            (0..17).map(|number| (format!("c{number}"), vec!["v".to_owned()])).collect();
        assert_eq!(Demands::new(&many).unwrap_err().0, "demands more than 16 claims");
        for (written, wanted) in [
            (serde_json::json!({ "ref": [] }), "without values"),
            (serde_json::json!({ "ref": [""] }), "without values"),
            (serde_json::json!({ "aud": ["a"] }), "checked by itself"),
        ] {
            assert!(demands(&written).unwrap_err().0.contains(wanted), "{written}");
        }
        assert!(demands(&serde_json::json!({})).unwrap().is_empty());
    }
}
