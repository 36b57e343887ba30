//! Rules over capabilities that a policy carries as text, in a language that this crate does not know.
//!
//! The policy's `capabilities` says what may be asked for at all. Rules say it with conditions: who may ask for what. They only
//! narrow: a request must be covered by the one *and* permitted by the other. Without an engine that knows the language nothing is
//! permitted.

use alloc::string::String;
use alloc::sync::Arc;
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

/// Judges requests by rules that it has read. Denies what no rule permits and what it cannot evaluate.
pub trait RuleEngine: Send + Sync {
    /// Judges a request.
    ///
    /// # Errors
    /// Why it is denied, in words for the operator.
    fn judge(&self, request: &CapabilityRequest<'_>) -> Result<(), String>;
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
    pub(crate) fn judge(&self, request: &CapabilityRequest<'_>) -> Result<(), String> {
        match &self.engine {
            Some(engine) => engine.judge(request),
            None => {
                Err("the policy's `capability_rules` are in a language that this program was built without"
                    .into())
            }
        }
    }
}

impl fmt::Debug for CapabilityRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.engine.is_some();
        f.debug_struct("CapabilityRules").field("bytes", &self.text.len()).field("read", &read).finish()
    }
}
