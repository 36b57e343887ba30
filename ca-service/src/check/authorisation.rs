//! Certificates against what they were issued for: the evidence names how the requester showed who they are, and a one-time token was used
//! for this very issuance.

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{BY_CERTIFICATE, State, StoredCertificate};

/// What the requester of a certificate by a one-time token is called, before the token's hash.
const BY_TOKEN: &str = "token:";

/// Judges a certificate. The CA's own are authorised by their ceremony; what was given up gave its token back.
pub(super) async fn judge(
    authority: &CertificateAuthority,
    record: &StoredCertificate,
) -> Result<Result<(), String>, CaError> {
    if record.identity.is_none() || record.state == State::Abandoned {
        return Ok(Ok(()));
    }
    let evidence = authority.store().evidence(record.intent).await?.unwrap_or_default();
    let expected = method(&record.requester);
    if shown(&evidence).as_deref() != Some(expected) {
        return Ok(Err(format!("its evidence does not name the method {expected}")));
    }
    let Some(hash) = record.requester.strip_prefix(BY_TOKEN) else { return Ok(Ok(())) };
    let mut octets = [0; 32];
    if hex::decode_to_slice(hash, &mut octets).is_err() {
        return Ok(Err("it does not say which one-time token it was issued for".to_owned()));
    }
    Ok(match authority.store().token(&octets).await? {
        None => Err("its one-time token is missing".to_owned()),
        Some(token) if token.used_by != Some(record.intent) => {
            Err("its one-time token was not used for it".to_owned())
        }
        Some(token)
            if Some(&token.identity) != record.identity.as_ref() || token.profile != record.profile =>
        {
            Err("its one-time token is for another identity or profile".to_owned())
        }
        Some(_) => Ok(()),
    })
}

/// How a requester of this name shows who they are.
fn method(requester: &str) -> &'static str {
    if requester.starts_with(BY_TOKEN) {
        "one-time-token"
    } else if requester.starts_with(BY_CERTIFICATE) {
        "certified-key"
    } else {
        "oidc"
    }
}

/// How the evidence says that it was shown; of an approved request, what was shown when it was made.
fn shown(evidence: &str) -> Option<String> {
    let evidence: serde_json::Value = serde_json::from_str(evidence).ok()?;
    let method = |value: &serde_json::Value| value.get("method")?.as_str().map(str::to_owned);
    method(&evidence).or_else(|| method(evidence.get("evidence")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_names_the_method_itself_or_within_what_was_approved() {
        assert_eq!(shown(r#"{"method":"oidc"}"#).as_deref(), Some("oidc"));
        let approved =
            r#"{"approval":{},"evidence":{"method":"one-time-token"},"fetched_by":{"method":"oidc"}}"#;
        assert_eq!(shown(approved).as_deref(), Some("one-time-token"));
        for nothing in ["", "{}", "[]", r#"{"method":1}"#, r#"{"fetched_by":{"method":"oidc"}}"#] {
            assert_eq!(shown(nothing), None, "{nothing}");
        }
        assert_eq!(method("token:00"), "one-time-token");
        assert_eq!(method("certificate:01"), "certified-key");
        assert_eq!(method("https://token.example.org dev"), "oidc");
    }
}
