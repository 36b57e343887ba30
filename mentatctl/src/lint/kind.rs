//! What a certificate says of itself, for who does not say it: by its place in a hierarchy, its usages and its policies.

use ca_pki::oid;
use trust_store::Certificate;

use super::Kind;

/// Policies by which a subscriber's certificate claims the code-signing baseline requirements.
const BASELINE: [oid::ObjectIdentifier; 2] = [oid::CABF_CODE_SIGNING, oid::CABF_EV_CODE_SIGNING];
/// The longest life that the authority's keyless profile can be configured to.
const KEYLESS_SECONDS: i64 = 3600;

/// The rules that are meant for a certificate in DER. What cannot be read at all is a finding by any rules.
pub fn of_certificate(der: &[u8]) -> Kind {
    let Ok(certificate) = Certificate::from_der(der) else { return Kind::CodeSigning };
    let usage = certificate.extended_key_usage();
    let usable = |purpose: &[u8]| usage.as_ref().is_some_and(|usage| usage.lists(purpose));
    let timestamps = usable(oid::KP_TIME_STAMPING.as_bytes());
    let baseline = certificate.certificate_policies().is_some_and(|policies| {
        let mut named = policies.iter().map(|policy| policy.policy);
        named.any(|id| BASELINE.iter().any(|known| known.as_bytes() == id))
    });
    let seconds = certificate.not_after().0.saturating_sub(certificate.not_before().0);
    match certificate.is_ca() {
        true if certificate.is_self_issued() => Kind::Root,
        true if timestamps => Kind::TimestampIssuer,
        true => Kind::Issuer,
        false if timestamps => Kind::TimestampAuthority,
        false if usable(oid::KP_OCSP_SIGNING.as_bytes()) => Kind::OcspResponder,
        false if baseline => Kind::CodeSigning,
        false if seconds <= KEYLESS_SECONDS => Kind::Keyless,
        false => Kind::Internal,
    }
}
