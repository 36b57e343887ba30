//! Object identifiers of the structures that this crate reads.
//!
//! Comparisons inside the crate are on DER content octets (`as_bytes`), so identifiers with arcs larger than this
//! type can hold are still compared exactly.

use const_oid::ObjectIdentifier;

macro_rules! oids {
    ($( $(#[$doc:meta])* $name:ident = $text:literal; )*) => {
        $( $(#[$doc])* pub const $name: ObjectIdentifier = ObjectIdentifier::new_unwrap($text); )*
    };
}

oids! {
    /// id-ce-subjectDirectoryAttributes
    SUBJECT_DIRECTORY_ATTRIBUTES = "2.5.29.9";
    /// id-ce-subjectKeyIdentifier
    SUBJECT_KEY_IDENTIFIER = "2.5.29.14";
    /// id-ce-keyUsage
    KEY_USAGE = "2.5.29.15";
    /// id-ce-subjectAltName
    SUBJECT_ALTERNATIVE_NAME = "2.5.29.17";
    /// id-ce-issuerAltName
    ISSUER_ALTERNATIVE_NAME = "2.5.29.18";
    /// id-ce-basicConstraints
    BASIC_CONSTRAINTS = "2.5.29.19";
    /// id-ce-cRLNumber
    CRL_NUMBER = "2.5.29.20";
    /// id-ce-cRLReasons
    REASON_CODE = "2.5.29.21";
    /// id-ce-invalidityDate
    INVALIDITY_DATE = "2.5.29.24";
    /// id-ce-deltaCRLIndicator
    DELTA_CRL_INDICATOR = "2.5.29.27";
    /// id-ce-issuingDistributionPoint
    ISSUING_DISTRIBUTION_POINT = "2.5.29.28";
    /// id-ce-certificateIssuer
    CERTIFICATE_ISSUER = "2.5.29.29";
    /// id-ce-nameConstraints
    NAME_CONSTRAINTS = "2.5.29.30";
    /// id-ce-cRLDistributionPoints
    CRL_DISTRIBUTION_POINTS = "2.5.29.31";
    /// id-ce-certificatePolicies
    CERTIFICATE_POLICIES = "2.5.29.32";
    /// anyPolicy
    ANY_POLICY = "2.5.29.32.0";
    /// id-ce-policyMappings
    POLICY_MAPPINGS = "2.5.29.33";
    /// id-ce-authorityKeyIdentifier
    AUTHORITY_KEY_IDENTIFIER = "2.5.29.35";
    /// id-ce-policyConstraints
    POLICY_CONSTRAINTS = "2.5.29.36";
    /// id-ce-extKeyUsage
    EXTENDED_KEY_USAGE = "2.5.29.37";
    /// anyExtendedKeyUsage
    ANY_EXTENDED_KEY_USAGE = "2.5.29.37.0";
    /// id-ce-freshestCRL
    FRESHEST_CRL = "2.5.29.46";
    /// id-ce-inhibitAnyPolicy
    INHIBIT_ANY_POLICY = "2.5.29.54";
    /// id-ce-expiredCertsOnCRL (X.509)
    EXPIRED_CERTS_ON_CRL = "2.5.29.60";
    /// id-pe-authorityInfoAccess
    AUTHORITY_INFO_ACCESS = "1.3.6.1.5.5.7.1.1";
    /// id-ad-ocsp, and the arc of the OCSP extensions
    AD_OCSP = "1.3.6.1.5.5.7.48.1";
    /// id-ad-caIssuers
    AD_CA_ISSUERS = "1.3.6.1.5.5.7.48.2";
    /// id-pkix-ocsp-basic
    OCSP_BASIC = "1.3.6.1.5.5.7.48.1.1";
    /// id-pkix-ocsp-nonce
    OCSP_NONCE = "1.3.6.1.5.5.7.48.1.2";
    /// id-pkix-ocsp-nocheck
    OCSP_NOCHECK = "1.3.6.1.5.5.7.48.1.5";
    /// id-pkix-ocsp-archive-cutoff
    OCSP_ARCHIVE_CUTOFF = "1.3.6.1.5.5.7.48.1.6";
    /// id-pkix-ocsp-extended-revoke
    OCSP_EXTENDED_REVOKE = "1.3.6.1.5.5.7.48.1.9";
    /// id-kp-codeSigning
    KP_CODE_SIGNING = "1.3.6.1.5.5.7.3.3";
    /// id-kp-timeStamping
    KP_TIME_STAMPING = "1.3.6.1.5.5.7.3.8";
    /// id-kp-OCSPSigning
    KP_OCSP_SIGNING = "1.3.6.1.5.5.7.3.9";
    /// Embedded list of signed certificate timestamps (RFC 6962 §3.3)
    SCT_LIST = "1.3.6.1.4.1.11129.2.4.2";
    /// Precertificate poison (RFC 6962 §3.1)
    PRECERTIFICATE_POISON = "1.3.6.1.4.1.11129.2.4.3";
    /// emailAddress (PKCS #9)
    EMAIL_ADDRESS = "1.2.840.113549.1.9.1";
    /// commonName
    COMMON_NAME = "2.5.4.3";
    /// id-sha1
    SHA1 = "1.3.14.3.2.26";
    /// id-sha256
    SHA256 = "2.16.840.1.101.3.4.2.1";
    /// id-sha384
    SHA384 = "2.16.840.1.101.3.4.2.2";
    /// id-sha512
    SHA512 = "2.16.840.1.101.3.4.2.3";
    /// id-mgf1
    MGF1 = "1.2.840.113549.1.1.8";
    /// id-ecPublicKey
    EC_PUBLIC_KEY = "1.2.840.10045.2.1";
    /// secp256r1
    SECP256R1 = "1.2.840.10045.3.1.7";
    /// secp384r1
    SECP384R1 = "1.3.132.0.34";
    /// secp521r1
    SECP521R1 = "1.3.132.0.35";
    /// ecdsa-with-SHA256
    ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
    /// ecdsa-with-SHA384
    ECDSA_WITH_SHA384 = "1.2.840.10045.4.3.3";
    /// ecdsa-with-SHA512
    ECDSA_WITH_SHA512 = "1.2.840.10045.4.3.4";
    /// rsaEncryption
    RSA_ENCRYPTION = "1.2.840.113549.1.1.1";
    /// id-RSASSA-PSS
    RSASSA_PSS = "1.2.840.113549.1.1.10";
    /// sha256WithRSAEncryption
    SHA256_WITH_RSA = "1.2.840.113549.1.1.11";
    /// sha384WithRSAEncryption
    SHA384_WITH_RSA = "1.2.840.113549.1.1.12";
    /// sha512WithRSAEncryption
    SHA512_WITH_RSA = "1.2.840.113549.1.1.13";
    /// id-Ed25519
    ED25519 = "1.3.101.112";
    /// id-ml-dsa-44
    ML_DSA_44 = "2.16.840.1.101.3.4.3.17";
    /// id-ml-dsa-65
    ML_DSA_65 = "2.16.840.1.101.3.4.3.18";
    /// id-ml-dsa-87
    ML_DSA_87 = "2.16.840.1.101.3.4.3.19";
}

/// The dotted text of an OBJECT IDENTIFIER's content octets, for messages; hexadecimal where an arc is too large.
pub fn dotted(content: &[u8]) -> alloc::string::String {
    use alloc::string::ToString;
    match ObjectIdentifier::from_bytes(content) {
        Ok(oid) => oid.to_string(),
        Err(_) => hex::encode(content.get(..content.len().min(64)).unwrap_or_default()),
    }
}
