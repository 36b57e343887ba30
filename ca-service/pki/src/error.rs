//! What can go wrong while an object is parsed, built or assembled, with stable codes for requesters.

use alloc::string::String;
use alloc::vec::Vec;

use crate::lint::Finding;

/// Why a request was refused or an object could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key's algorithm, curve or size is not on the list of requirement C9.
    #[error("key not allowed: {0}")]
    KeyNotAllowed(KeyRefusal),
    /// A finding of severity error: the object must not be signed.
    #[error("the linter refused the object: {}", summary(.0))]
    Lint(Vec<Finding>),
    /// The bytes are not the DER structure they should be.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// The structure that was expected.
        what: &'static str,
        /// Position or nature of the fault; holds no more than a few words of the input.
        detail: String,
    },
    /// An identity (e-mail address or URI) that no certificate may carry.
    #[error("identity not allowed: {0}")]
    IdentityNotAllowed(&'static str),
    /// A distinguished name that no certificate may carry.
    #[error("name not allowed: {0}")]
    NameNotAllowed(&'static str),
    /// A profile's fields contradict each other or a requirement.
    #[error("profile `{profile}`: {reason}")]
    Profile {
        /// Name of the profile in the configuration.
        profile: String,
        /// What contradicts what.
        reason: &'static str,
    },
    /// A subscriber asks for the certificate of an authority: not ignored, because whoever asks for it must know that it is none.
    #[error("the request asks for a CA certificate (basicConstraints CA:TRUE): leave that extension out")]
    AuthorityRequested,
    /// The request is not signed by the key it asks a certificate for.
    #[error("the request is not signed by the key that it carries")]
    ProofOfPossession,
    /// The SCT does not belong to this precertificate and issuer.
    #[error("the SCT does not correspond to the precertificate: {0}")]
    SctMismatch(&'static str),
    /// The signed object does not contain the bytes that were linted and recorded.
    #[error("the signed object differs from what was linted and recorded")]
    SignedBytesDiffer,
    /// More bytes than this structure may have; checked before parsing.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The structure that was expected.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// A well-formed request for something this CA does not do.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// A time outside what X.509 can express (1970 to 9999).
    #[error("time {0} cannot be written into a certificate")]
    UnrepresentableTime(i64),
}

impl Error {
    /// Stable code for problem documents and tests.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyNotAllowed(refusal) => refusal.code(),
            Self::Lint(_) => "lint_error",
            Self::Malformed { .. } => "malformed",
            Self::IdentityNotAllowed(_) => "identity_not_allowed",
            Self::NameNotAllowed(_) => "name_not_allowed",
            Self::Profile { .. } => "profile_invalid",
            Self::AuthorityRequested => "ca_requested",
            Self::ProofOfPossession => "proof_of_possession",
            Self::SctMismatch(_) => "sct_mismatch",
            Self::SignedBytesDiffer => "signed_bytes_differ",
            Self::TooLarge { .. } => "too_large",
            Self::Unsupported(_) => "unsupported",
            Self::UnrepresentableTime(_) => "unrepresentable_time",
        }
    }

    pub(crate) fn malformed(what: &'static str) -> impl Fn(der::Error) -> Self {
        move |error| Self::Malformed { what, detail: alloc::format!("{error}") }
    }
}

/// Which key rule a subject's key breaks (CSBR §6.1.1.3, §6.1.5, §6.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRefusal {
    /// The algorithm is not one this CA certifies (DSA, X25519, …).
    #[error("algorithm not allowed")]
    Algorithm,
    /// The curve is not P-256, P-384 or P-521.
    #[error("curve not allowed: use P-256, P-384 or P-521")]
    Curve,
    /// The algorithm identifier's parameters are missing, extra or of the wrong kind.
    #[error("algorithm parameters are not those of the standard")]
    Parameters,
    /// The point is not an uncompressed point of the curve's size.
    #[error("the public point is not an uncompressed point of its curve")]
    Point,
    /// The key is on the list of keys that were reported compromised.
    #[error("the key was reported compromised")]
    Compromised,
    /// An RSA modulus below 3072 bits (4096 for a CA).
    #[error("RSA modulus too short: at least {0} bits are required")]
    RsaTooShort(u32),
    /// An RSA modulus above 8192 bits.
    #[error("RSA modulus longer than 8192 bits")]
    RsaTooLong,
    /// An even, too small or too large public exponent.
    #[error("RSA public exponent not allowed: it must be odd and between 65537 and 2^256")]
    RsaExponent,
    /// A modulus with a small factor, or with the fingerprint of a known faulty generator (ROCA).
    #[error("RSA modulus is known to be weak")]
    RsaKnownFlaw,
}

impl KeyRefusal {
    /// Stable code for problem documents and tests.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Algorithm => "key_algorithm_not_allowed",
            Self::Curve => "key_curve_not_allowed",
            Self::Parameters => "key_parameters_invalid",
            Self::Point => "key_point_invalid",
            Self::Compromised => "key_compromised",
            Self::RsaTooShort(_) => "rsa_key_too_short",
            Self::RsaTooLong => "rsa_key_too_long",
            Self::RsaExponent => "rsa_exponent_not_allowed",
            Self::RsaKnownFlaw => "rsa_key_known_weak",
        }
    }
}

fn summary(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(finding.rule);
        if !finding.detail.is_empty() {
            text.push_str(" (");
            text.push_str(&finding.detail);
            text.push(')');
        }
    }
    text
}

/// Why an identity token is none, or the key set of its issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Signed with an algorithm outside the list.
    #[error("the token's algorithm is not accepted: use RS256 or ES256")]
    AlgorithmNotAllowed,
    /// The issuer's key set cannot be used.
    #[error("key set of the issuer: {0}")]
    KeySet(&'static str),
    /// The issuer does not publish the key, or not exactly one that fits.
    #[error("the issuer publishes no such key")]
    KeyUnknown,
    /// Not a token.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// The signature does not verify.
    #[error("the token's signature is not valid")]
    SignatureInvalid,
}
