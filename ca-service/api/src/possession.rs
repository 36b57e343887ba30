//! Proof that the caller has the key of a certificate of this authority, and what it is good for: to list, to revoke and to renew one's
//! own certificates, without anybody else's leave.
//!
//! The proof is a signature by the certified key over a text that names the deed, the certificate, the time and all that is asked for
//! ([`KeyProof::message`]). It needs no client certificate at the handshake, and so works behind every proxy. Where the authority takes
//! certificates of its own at the TLS handshake (`enrolment.mutual_tls`), the proof may be left out: what is asked for is then about the
//! certificate of the connection.

use serde::{Deserialize, Serialize};

/// Longest time in seconds that a proof is good for after it was made.
pub const PROOF_SECONDS: i64 = 300;
/// Longest time in seconds by which the clock of whoever made a proof may be ahead of the authority's.
pub const PROOF_AHEAD_SECONDS: i64 = 60;
/// Longest signature in hexadecimal digits: of ML-DSA-44, which has 2,420 octets.
pub const MAX_PROOF_SIGNATURE: usize = 4_840;
/// Seconds for which a challenge is good.
pub const CHALLENGE_SECONDS: u64 = 60;

/// What the key is shown for: the proof for one deed is none for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProvenDeed {
    /// To list the certificates of its identity.
    List,
    /// To renew its certificate.
    Renew,
    /// To revoke its certificate.
    Revoke,
}

impl ProvenDeed {
    /// The word in the signed text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
        }
    }
}

/// Proof of the key of one certificate, for one deed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyProof {
    /// Serial number of the certificate.
    pub serial: String,
    /// When it was made; it is good for five minutes.
    pub time: i64,
    /// For a renewal: [`RenewalChallenge::challenge`], which the signed content begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// Signature over [`Self::message`], hexadecimal: ECDSA in DER with SHA-256 (P-256), SHA-384 (P-384) or SHA-512 (P-521), RSA PKCS #1
    /// v1.5 with SHA-256, Ed25519 and ML-DSA-44 as they are.
    pub signature: String,
}

impl KeyProof {
    /// The text that is signed. `certificate_sha256` is that of the DER certificate in lower-case hexadecimal, so that a proof is for one
    /// authority alone; `content` is everything else that the request asks for.
    #[must_use]
    pub fn message(deed: ProvenDeed, certificate_sha256: &str, time: i64, content: &str) -> String {
        let deed = deed.as_str();
        format!("mentat certified-key proof v1\n{deed}\n{certificate_sha256}\n{time}\n{content}")
    }
}

/// Asks for the certificates of one's own identity, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOwn {
    /// By the key of a certificate that is good now; absent where the connection shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<KeyProof>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

impl ListOwn {
    /// What its proof says beside the certificate.
    #[must_use]
    pub fn content(after: Option<i64>) -> String {
        after.map(|after| after.to_string()).unwrap_or_default()
    }
}

/// Why somebody gives up a certificate of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnReason {
    /// No longer needed.
    CessationOfOperation,
    /// The key was, or may have been, compromised.
    KeyCompromise,
    /// A new certificate took its place.
    Superseded,
}

impl OwnReason {
    /// As the wire writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CessationOfOperation => "cessation-of-operation",
            Self::KeyCompromise => "key-compromise",
            Self::Superseded => "superseded",
        }
    }
}

impl From<OwnReason> for crate::RevocationReason {
    fn from(reason: OwnReason) -> Self {
        match reason {
            OwnReason::CessationOfOperation => Self::CessationOfOperation,
            OwnReason::KeyCompromise => Self::KeyCompromise,
            OwnReason::Superseded => Self::Superseded,
        }
    }
}

/// Revokes the certificate whose key is shown; repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeOwn {
    /// By the key of the certificate, which may have expired; absent where the connection shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<KeyProof>,
    /// Why.
    pub reason: OwnReason,
    /// From when on it must not be trusted, for `key-compromise` only; default is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_at: Option<i64>,
}

impl RevokeOwn {
    /// What its proof says beside the certificate.
    #[must_use]
    pub fn content(reason: OwnReason, compromised_at: Option<i64>) -> String {
        let since = compromised_at.map(|at| at.to_string()).unwrap_or_default();
        format!("{}\n{since}", reason.as_str())
    }
}

/// Asks for what the proof for a renewal must name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskChallenge {
    /// Serial number of the certificate that is to be renewed.
    pub serial: String,
}

/// What the proof for a renewal must name: so it was not made before, nor had from whoever signs what others hand in at their leisure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalChallenge {
    /// 80 hexadecimal digits, for one certificate.
    pub challenge: String,
    /// For how many seconds it is good.
    pub seconds: u64,
}

/// Asks for a new certificate of the same identity and profile, for a new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// By the key of the certificate that is renewed, which must be good now; absent where the connection shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<KeyProof>,
    /// PEM PKCS #10 request for another key. Only its key is taken, after its signature was verified.
    pub csr: String,
    /// Repeating a call with the same id and the same new key returns the first call's certificate, never a second one.
    /// 1 to 64 letters, digits, `-`, `_`, `.`.
    pub request_id: String,
}

impl Renew {
    /// What its proof says beside the certificate.
    #[must_use]
    pub fn content(challenge: &str, request_id: &str, csr: &str) -> String {
        format!("{challenge}\n{request_id}\n{csr}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_texts_are_frozen() {
        let content = RevokeOwn::content(OwnReason::KeyCompromise, Some(1_700_000_000));
        assert_eq!(
            KeyProof::message(ProvenDeed::Revoke, "ab", 1_700_000_060, &content),
            "mentat certified-key proof v1\nrevoke\nab\n1700000060\nkey-compromise\n1700000000"
        );
        assert_eq!(
            KeyProof::message(ProvenDeed::Renew, "ab", 7, &Renew::content("0c", "id", "PEM")),
            "mentat certified-key proof v1\nrenew\nab\n7\n0c\nid\nPEM"
        );
        assert_eq!(
            KeyProof::message(ProvenDeed::List, "ab", 7, &ListOwn::content(None)),
            "mentat certified-key proof v1\nlist\nab\n7\n"
        );
    }

    #[test]
    fn reasons_are_written_as_the_wire_writes_them() {
        for reason in [OwnReason::CessationOfOperation, OwnReason::KeyCompromise, OwnReason::Superseded] {
            let written = serde_json::to_value(reason).ok();
            assert_eq!(written, Some(serde_json::Value::from(reason.as_str())));
        }
    }
}
