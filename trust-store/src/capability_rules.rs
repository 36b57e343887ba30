//! Rules over capabilities that a policy carries as text, in a language that this crate does not know.
//!
//! The policy's `capabilities` says what may be asked for at all. Rules say it with conditions: who may ask for what. They only
//! narrow: a request must be covered by the one *and* permitted by the other. Without an engine that knows the language nothing is
//! permitted.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::capability::Capability;
use crate::policy::TrustLevel;

/// Longest text of rules, bytes.
pub const MAX_RULES_BYTES: usize = 64 << 10;

/// One capability that a signed manifest asks for, and whose manifest it is. Everything here was verified.
#[derive(Clone, Copy, Debug)]
pub struct CapabilityRequest<'a> {
    /// Agent id of the manifest.
    pub agent: &'a str,
    /// Version of the manifest.
    pub version: &'a str,
    /// Who signed it: the mailbox, URI or key name.
    pub signer: &'a str,
    /// Who vouched for the signer's name, if the certificate says so.
    pub issuer: Option<&'a str>,
    /// The level that was reached.
    pub level: TrustLevel,
    /// What is asked for.
    pub capability: &'a Capability,
}

/// Why rules do not permit a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleRefusal {
    /// Rules forbid it, which wins over any that permit it: their names, sorted.
    Forbidden(Vec<String>),
    /// Nobody here knows the language of the rules.
    NoEngine,
    /// No rule permits it.
    NotPermitted,
    /// A rule could not be evaluated, so that what it would have said is unknown.
    Unevaluated {
        /// Why not.
        detail: String,
    },
}

impl fmt::Display for RuleRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(rules) => {
                write!(f, "`capability_rules` forbid it by `{}`", rules.join("`, `"))
            }
            Self::NoEngine => f.write_str(
                "the policy's `capability_rules` are in a language that this program was built without",
            ),
            Self::NotPermitted => f.write_str("no rule of `capability_rules` permits it"),
            Self::Unevaluated { detail } => {
                write!(f, "a rule of `capability_rules` cannot be evaluated: {detail}")
            }
        }
    }
}

/// A request that rules permit, and by which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted {
    /// What was asked for.
    pub capability: Capability,
    /// Names of the rules that permit it, sorted; at least one.
    pub rules: Vec<String>,
}

/// Judges requests by rules that it has read. An implementation MUST deny what no rule permits and what it cannot evaluate, MUST
/// give the same answer to the same request always, and MUST bound its work by the length of the rules.
pub trait RuleEngine: Send + Sync {
    /// The names of the rules that permit a request, sorted.
    ///
    /// # Errors
    /// Why it is denied.
    fn judge(&self, request: &CapabilityRequest<'_>) -> Result<Vec<String>, RuleRefusal>;
}

/// The rules of a policy: their text, and an engine once somebody read it.
#[derive(Clone)]
pub struct CapabilityRules {
    text: Arc<str>,
    engine: Option<Arc<dyn RuleEngine>>,
}

impl CapabilityRules {
    /// Rules that nobody has read yet: they permit nothing.
    pub(crate) fn unread(text: &str) -> Self {
        Self { text: text.into(), engine: None }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same rules, judged by this engine, which has read the text.
    #[must_use]
    pub fn with_engine(self, engine: Arc<dyn RuleEngine>) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// Judges a request.
    ///
    /// # Errors
    /// Why it is denied.
    pub fn judge(&self, request: &CapabilityRequest<'_>) -> Result<Permitted, RuleRefusal> {
        let engine = self.engine.as_ref().ok_or(RuleRefusal::NoEngine)?;
        match engine.judge(request)? {
            // An engine that names no rule has none that permits.
            rules if rules.is_empty() => Err(RuleRefusal::NotPermitted),
            rules => Ok(Permitted { capability: request.capability.clone(), rules }),
        }
    }
}

impl fmt::Debug for CapabilityRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.engine.is_some();
        f.debug_struct("CapabilityRules").field("bytes", &self.text.len()).field("read", &read).finish()
    }
}
