//! Who may show a certificate of this authority at the TLS handshake: the holders of those that sign code, to look after them
//! ([`crate::possession`]), and for nothing else.

use service::holder::Holders;
use trust_store::Certificate;
use trust_store::oid;
use trust_store::provider::AwsLc;

use crate::authority::{CertificateAuthority, names};
use crate::error::CaError;

/// Longest certificate that is looked at, in bytes: those of this authority have one to two thousand.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// What may be asked for over such a connection.
const REACHED: [&str; 3] = ["/api/v1/own/certificates", "/api/v1/own/revocations", "/api/v1/renewals"];

/// The CAs for code signing, of every generation: what an earlier one issued is revoked by its holder, too.
#[derive(Debug)]
pub(crate) struct CodeSigners(Vec<Certificate>);

impl CodeSigners {
    pub(crate) fn of(authority: &CertificateAuthority) -> Result<Self, CaError> {
        let issuers = authority.generations(names::CODE_SIGNING);
        let read = |der: &Vec<u8>| {
            Certificate::from_der(der)
                .map_err(|_| CaError::Inconsistent("a certificate of the CA cannot be read"))
        };
        Ok(Self(issuers.map(|issuer| read(&issuer.certificate)).collect::<Result<_, _>>()?))
    }
}

impl Holders for CodeSigners {
    fn authorities(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|issuer| issuer.subject_der().to_vec()).collect()
    }

    /// Its time and its revocation are looked at when something is asked for: they are refused by code, and one that has ended is still
    /// revoked by its holder.
    fn issued(&self, certificate: &[u8]) -> bool {
        if certificate.len() > MAX_CERTIFICATE {
            return false;
        }
        let Ok(certificate) = Certificate::from_der(certificate) else { return false };
        let signs_code = certificate
            .extended_key_usage()
            .is_some_and(|usages| usages.lists(oid::KP_CODE_SIGNING.as_bytes()));
        if !signs_code || certificate.is_precertificate() || certificate.is_ca() {
            return false;
        }
        let mut named = self.0.iter().filter(|issuer| issuer.subject_name() == certificate.issuer_name());
        named.any(|issuer| certificate.verify_signature(issuer, &AwsLc).is_ok())
    }

    fn reach(&self, path: &str) -> bool {
        REACHED.contains(&path)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Code Signing CA");
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn issued(
        by: &CertifiedIssuer<'static, KeyPair>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().to_vec()
    }

    #[test]
    fn only_certificates_of_these_authorities_that_sign_code_are_theirs() {
        let (ours, namesake) = (authority(), authority());
        let signers = CodeSigners(vec![Certificate::from_der(ours.der()).unwrap()]);
        assert_eq!(signers.authorities().len(), 1);
        assert!(signers.issued(&issued(&ours, |_| {})));
        assert!(!signers.issued(&issued(&namesake, |_| {})), "another key of the same name");
        let usage = |usage| issued(&ours, |params| params.extended_key_usages = vec![usage]);
        assert!(!signers.issued(&usage(ExtendedKeyUsagePurpose::OcspSigning)), "the responder's");
        assert!(!signers.issued(&usage(ExtendedKeyUsagePurpose::Any)));
        assert!(!signers.issued(&issued(&ours, |params| params.extended_key_usages.clear())));
        assert!(!signers.issued(&issued(&ours, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        })));
        assert!(!signers.issued(&issued(&ours, |params| {
            let mut poison =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 3], vec![5, 0]);
            poison.set_criticality(true);
            params.custom_extensions = vec![poison];
        })));
        let mut altered = issued(&ours, |_| {});
        if let Some(last) = altered.last_mut() {
            *last ^= 1;
        }
        assert!(!signers.issued(&altered));
        assert!(!signers.issued(&[]) && !signers.issued(ours.der()));
        let long = CustomExtension::from_oid_content(&[1, 2, 3], vec![0; MAX_CERTIFICATE]);
        assert!(!signers.issued(&issued(&ours, |params| params.custom_extensions = vec![long])));
    }
}
