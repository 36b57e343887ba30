//! Certification paths (RFC 5280 §6): what is asked of one, and what a verified one gives.
//!
//! [`build_path`] finds a way from a certificate to a trust anchor among the candidates given, in whatever order they
//! come, and validates it. A [`VerifiedChain`] exists only if every check passed; later steps (revocation, identity)
//! take it as their argument.
//!
//! Beyond RFC 5280 a trust anchor must itself be valid at the time asked, be a CA, and its own path length and name
//! constraints apply (RFC 5937); a required extended key usage must be listed by the end-entity certificate and by
//! every intermediate that has the extension.

use alloc::string::String;
use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use tlog::signature::SignatureVerifier;

use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::extension::KeyUsage;
use crate::path_building::Builder;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;

pub use crate::policy_tree::{InitialPolicies, ValidPolicies};

/// The most certificates between the end-entity and the anchor that any policy can ask for.
pub const MAX_DEPTH: usize = 16;

/// The most candidate certificates (intermediates and anchors) of one call.
pub const MAX_CANDIDATES: usize = 1_024;

/// Whether a flag of RFC 5280 §6.1.1 (e) is set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ExplicitPolicy {
    /// A path without a valid policy may pass (initial-explicit-policy is not set).
    #[default]
    NotRequired,
    /// A valid policy is needed.
    Required,
}

/// Whether policies may be mapped (RFC 5280 §6.1.1 (d)).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PolicyMapping {
    /// initial-policy-mapping-inhibit is not set.
    #[default]
    Allowed,
    /// initial-policy-mapping-inhibit is set.
    Inhibited,
}

/// Whether anyPolicy in a certificate counts (RFC 5280 §6.1.1 (f)).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AnyPolicyInCertificates {
    /// initial-any-policy-inhibit is not set.
    #[default]
    Counts,
    /// initial-any-policy-inhibit is set.
    Ignored,
}

/// What the first certificate of the path may be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Subject {
    /// Only a certificate whose basic constraints do not make it a CA.
    #[default]
    EndEntityOnly,
    /// Any certificate: for validating CAs and CRL issuers.
    Any,
}

/// What is done with precertificates (RFC 6962 §3.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Precertificates {
    /// They are refused: their poison extension is critical.
    #[default]
    Refused,
    /// The first certificate may be one; only for a log that accepts submissions.
    Accepted,
}

/// A name that the first certificate must bear among its alternative names.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RequiredName {
    /// A mailbox; the host part is compared without case.
    Email(String),
    /// A host name; a certificate's leftmost `*` label stands for one label.
    Dns(String),
    /// A URI, octet for octet.
    Uri(String),
    /// An address of 4 or 16 octets.
    Ip(Vec<u8>),
    /// A distinguished name: the subject, or a directoryName.
    Directory(crate::name::CanonicalName),
}

/// What is asked of a path. The default is RFC 5280 without required usage or name, for end-entity certificates.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PathPolicy {
    /// A purpose that must be listed; `None` if the purpose does not matter.
    pub required_eku: Option<ObjectIdentifier>,
    /// Key usages that the first certificate must state; [`KeyUsage::NONE`] if none.
    pub required_key_usage: KeyUsage,
    /// user-initial-policy-set
    pub initial_policies: InitialPolicies,
    /// initial-explicit-policy
    pub explicit_policy: ExplicitPolicy,
    /// initial-policy-mapping-inhibit
    pub policy_mapping: PolicyMapping,
    /// initial-any-policy-inhibit
    pub any_policy: AnyPolicyInCertificates,
    /// The most intermediates between the first certificate and the anchor; `None` for [`MAX_DEPTH`], which is also
    /// the ceiling.
    pub max_depth: Option<usize>,
    /// A name the first certificate must bear.
    pub required_name: Option<RequiredName>,
    /// What the first certificate may be.
    pub subject: Subject,
    /// What is done with precertificates.
    pub precertificates: Precertificates,
    /// The work this call may do.
    pub budget: Budget,
}

/// A path that passed every check: the proof is that it exists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedChain {
    certificates: Vec<Certificate>,
    time: UnixTime,
    policies: ValidPolicies,
}

impl VerifiedChain {
    pub(crate) fn assert_verified(
        certificates: Vec<Certificate>,
        time: UnixTime,
        policies: ValidPolicies,
    ) -> Self {
        Self { certificates, time, policies }
    }

    /// The certificates, the first one asked about first, the trust anchor last; at least two.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The certificate that was asked about.
    pub fn leaf(&self) -> &Certificate {
        // A chain is never empty: `assert_verified` is called with the path that was walked.
        #[allow(clippy::indexing_slicing, reason = "a verified chain has at least two certificates")]
        &self.certificates[0]
    }

    /// The certificate that issued the first one.
    pub fn issuer(&self) -> &Certificate {
        self.certificates.get(1).unwrap_or(self.leaf())
    }

    /// The trust anchor.
    pub fn anchor(&self) -> &Certificate {
        self.certificates.last().unwrap_or(self.leaf())
    }

    /// Each certificate with its issuer, from the first one up; the anchor is only an issuer.
    pub fn links(&self) -> impl Iterator<Item = (&Certificate, &Certificate)> {
        self.certificates.iter().zip(self.certificates.iter().skip(1))
    }

    /// The time the path was validated for.
    pub fn time(&self) -> UnixTime {
        self.time
    }

    /// The certificate policies that are valid for the path.
    pub fn policies(&self) -> &ValidPolicies {
        &self.policies
    }
}

/// Finds and validates a path from `leaf` to one of `anchors` at `time`.
///
/// `intermediates` may be in any order, contain strangers, duplicates and loops. If several paths fail, the denial
/// of the one that came furthest is reported.
///
/// # Errors
/// A [`Denial`] with a code of step 5, `algorithm_not_allowed`, or `identity_denied` for a missing required name.
pub fn build_path(
    leaf: &Certificate,
    intermediates: &[Certificate],
    anchors: &[Certificate],
    time: UnixTime,
    policy: &PathPolicy,
    verifier: &dyn SignatureVerifier,
) -> Result<VerifiedChain, Denial> {
    let mut budget = policy.budget.clone();
    build_path_where(leaf, intermediates, anchors, time, policy, verifier, &mut budget, &mut |_, _| Ok(()))
}

/// Like [`build_path`], but a path that is valid must also satisfy `accept` (revocation, for one); if it does not,
/// the search goes on. The budget is the caller's, so that several calls can share one.
///
/// # Errors
/// As [`build_path`], and the denials of `accept`.
#[allow(clippy::too_many_arguments, reason = "the inputs of RFC 5280 §6.1.1, a verifier and a budget")]
pub fn build_path_where(
    leaf: &Certificate,
    intermediates: &[Certificate],
    anchors: &[Certificate],
    time: UnixTime,
    policy: &PathPolicy,
    verifier: &dyn SignatureVerifier,
    budget: &mut Budget,
    accept: &mut dyn FnMut(&VerifiedChain, &mut Budget) -> Result<(), Denial>,
) -> Result<VerifiedChain, Denial> {
    if intermediates.len().saturating_add(anchors.len()) > MAX_CANDIDATES {
        return Err(Denial::new(ReasonCode::TooLarge, "more than 1,024 candidate certificates"));
    }
    Builder { leaf, intermediates, anchors, time, policy, verifier }.build(budget, accept)
}
