//! What approvers are shown: the whole of a request as one text.
//!
//! The text is made from the very fields that the certificate will be made from, each time anew, and approvals name its SHA-256. A
//! row that somebody changed in the database has another text, which nobody approved.

use ca_api::{ClaimedExtension, EnrolmentWay, RequestStatement};
use sha2::{Digest as _, Sha256};

use crate::error::CaError;
use crate::storage::queue::{RequestContent, Way};
use crate::wire::wire_identity;

/// The text of a request.
///
/// # Errors
/// [`CaError::Inconsistent`] when it cannot be written.
pub fn statement(content: &RequestContent) -> Result<String, CaError> {
    let extensions =
        content.claims.iter().map(|(oid, value)| ClaimedExtension { oid: oid.clone(), value: value.clone() });
    let said = RequestStatement {
        authority: content.terms.issuer_key.clone(),
        issuer: content.issuer.clone(),
        request: hex::encode(content.id),
        identity: wire_identity(&content.identity),
        identity_issuer: content.identity_issuer.clone(),
        profile: content.profile.clone(),
        kind: content.terms.kind.clone(),
        subject: content.terms.subject.clone(),
        lifetime_seconds: content.terms.lifetime_seconds,
        ends_by: content.terms.ends_by,
        policies: content.terms.policies.clone(),
        sct: content.terms.sct.clone(),
        // Not the recorded hash: the key itself is what is certified.
        spki_sha256: hex::encode(Sha256::digest(&content.spki)),
        extensions: extensions.collect(),
        requester: content.requester.clone(),
        requester_names: content.requester_names.clone(),
        way: match content.way {
            Way::Certificate => EnrolmentWay::Certificate,
            Way::Token => EnrolmentWay::Token,
            Way::Code => EnrolmentWay::Code,
            Way::IdentityToken => EnrolmentWay::IdentityToken,
        },
        vouched_by: content.vouched_by.clone(),
        voucher_names: content.voucher_names.clone(),
        evidence: content.evidence.clone(),
        approvals_needed: content.needed,
        created_at: content.created_at.0,
        expires_at: content.expires_at.0,
    };
    serde_json::to_string(&said).map_err(|_| CaError::Inconsistent("a request cannot be written"))
}

/// What approvals name it by.
#[must_use]
pub fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use ca_pki::{Identity, UnixTime};

    use super::*;
    use crate::storage::queue::Terms;

    fn content() -> RequestContent {
        RequestContent {
            id: [7; 16],
            requester: "token:00".to_owned(),
            request_id: "a".to_owned(),
            token: Some([0; 32]),
            way: Way::Token,
            requester_names: vec!["dev@example.org".to_owned()],
            vouched_by: Some("issuer:CN=carol".to_owned()),
            voucher_names: vec!["CN=carol".to_owned(), "carol@example.org".to_owned()],
            identity: Identity::Email("dev@example.com".to_owned()),
            identity_issuer: "https://ca.example.org".to_owned(),
            profile: "developer".to_owned(),
            issuer: "code-signing-2".to_owned(),
            terms: Terms {
                issuer_key: "ab".to_owned(),
                kind: "internal".to_owned(),
                subject: "CN=dev@example.com,O=MentatLab,C=US".to_owned(),
                lifetime_seconds: 86_400,
                ends_by: Some(1_800_000_000),
                policies: vec!["1.3.6.1.4.1.32473.1.1".to_owned()],
                sct: "embedded".to_owned(),
            },
            spki: vec![1, 2, 3],
            spki_sha256: [0; 32],
            claims: vec![("1.2.3".to_owned(), "main".to_owned())],
            evidence: "{}".to_owned(),
            needed: 2,
            created_at: UnixTime(1_700_000_000),
            expires_at: UnixTime(1_700_600_000),
        }
    }

    #[test]
    fn what_is_approved_is_frozen() {
        let expected = "{\"authority\":\"ab\",\"issuer\":\"code-signing-2\",\"request\":\"07070707070707070707070707070707\",\
             \"identity\":{\"email\":\"dev@example.com\"},\"identity_issuer\":\"https://ca.example.org\",\
             \"profile\":\"developer\",\"kind\":\"internal\",\"subject\":\"CN=dev@example.com,O=MentatLab,C=US\",\
             \"lifetime_seconds\":86400,\"ends_by\":1800000000,\"policies\":[\"1.3.6.1.4.1.32473.1.1\"],\"sct\":\"embedded\",\
             \"spki_sha256\":\"039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81\",\
             \"extensions\":[{\"oid\":\"1.2.3\",\"value\":\"main\"}],\"requester\":\"token:00\",\
             \"requester_names\":[\"dev@example.org\"],\"way\":\"token\",\"vouched_by\":\"issuer:CN=carol\",\
             \"voucher_names\":[\"CN=carol\",\"carol@example.org\"],\"evidence\":\"{}\",\"approvals_needed\":2,\
             \"created_at\":1700000000,\"expires_at\":1700600000}";
        assert_eq!(statement(&content()).unwrap(), expected);
        // As it was before the end of the issuing authority was shown.
        let mut before = content();
        before.terms.ends_by = None;
        assert_eq!(statement(&before).unwrap(), expected.replace("\"ends_by\":1800000000,", ""));
    }

    #[test]
    fn whatever_the_certificate_would_say_changes_the_text() {
        let text = |change: fn(&mut RequestContent)| {
            let mut changed = content();
            change(&mut changed);
            statement(&changed).unwrap()
        };
        let shown = text(|_| {});
        for change in [
            (|content| content.identity = Identity::Uri("dev@example.com".to_owned()))
                as fn(&mut RequestContent),
            |content| content.identity = Identity::Email("dev@example.org".to_owned()),
            |content| content.identity_issuer.push('/'),
            |content| content.profile = "release".to_owned(),
            |content| content.issuer = "code-signing".to_owned(),
            |content| content.terms.issuer_key = "cd".to_owned(),
            |content| content.terms.kind = "keyless".to_owned(),
            |content| content.terms.subject.clear(),
            |content| content.terms.lifetime_seconds += 1,
            |content| content.terms.ends_by = Some(1_800_000_001),
            |content| content.terms.policies.push("1.2.3".to_owned()),
            |content| content.terms.sct = "absent".to_owned(),
            |content| content.spki = vec![1, 2, 4],
            |content| content.claims.clear(),
            |content| content.requester.push('1'),
            |content| content.requester_names.clear(),
            |content| content.needed = 1,
            |content| content.expires_at = UnixTime(1_800_000_000),
            |content| content.evidence = "{\"a\":1}".to_owned(),
            |content| content.vouched_by = None,
            |content| content.voucher_names.clear(),
            |content| content.way = Way::Code,
            |content| content.id = [8; 16],
        ] {
            assert_ne!(text(change), shown);
        }
    }
}
