//! Object identifiers, each named after the standard that defines it.

pub use const_oid::ObjectIdentifier;
// What the verifier reads has its identifiers there; here stand those that only an authority writes or refuses.
pub use trust_store::oid::{
    AD_CA_ISSUERS, AD_OCSP, ANY_EXTENDED_KEY_USAGE, ANY_POLICY, AUTHORITY_INFO_ACCESS,
    AUTHORITY_KEY_IDENTIFIER, BASIC_CONSTRAINTS, CERTIFICATE_POLICIES, COMMON_NAME, CRL_DISTRIBUTION_POINTS,
    CRL_NUMBER, DELTA_CRL_INDICATOR, EC_PUBLIC_KEY, ECDSA_WITH_SHA256 as ECDSA_SHA256,
    ECDSA_WITH_SHA384 as ECDSA_SHA384, ECDSA_WITH_SHA512 as ECDSA_SHA512, ED25519, EXPIRED_CERTS_ON_CRL,
    EXTENDED_KEY_USAGE, FRESHEST_CRL, INHIBIT_ANY_POLICY, INVALIDITY_DATE, ISSUING_DISTRIBUTION_POINT,
    KEY_USAGE, KP_CODE_SIGNING, KP_OCSP_SIGNING, KP_TIME_STAMPING, ML_DSA_44, ML_DSA_65, ML_DSA_87,
    NAME_CONSTRAINTS, OCSP_BASIC, OCSP_NOCHECK as OCSP_NO_CHECK, OCSP_NONCE, POLICY_CONSTRAINTS,
    POLICY_MAPPINGS, PRECERTIFICATE_POISON, REASON_CODE, RSA_ENCRYPTION, RSASSA_PSS as RSA_PSS, SCT_LIST,
    SECP256R1, SECP384R1, SECP521R1, SHA1, SHA256, SHA256_WITH_RSA as RSA_SHA256, SHA384,
    SHA384_WITH_RSA as RSA_SHA384, SHA512, SHA512_WITH_RSA as RSA_SHA512,
    SUBJECT_ALTERNATIVE_NAME as SUBJECT_ALT_NAME, SUBJECT_KEY_IDENTIFIER,
};

macro_rules! oids {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: ObjectIdentifier = ObjectIdentifier::new_unwrap($value);)*
    };
}

oids! {
    /// RFC 5480: curve P-224, refused.
    SECP224R1 = "1.3.132.0.33";

    /// RFC 5758: DSA with SHA-256.
    DSA_SHA256 = "2.16.840.1.101.3.4.3.2";

    /// X.520 countryName.
    COUNTRY = "2.5.4.6";
    /// X.520 localityName.
    LOCALITY = "2.5.4.7";
    /// X.520 stateOrProvinceName.
    STATE = "2.5.4.8";
    /// X.520 organizationName.
    ORGANIZATION = "2.5.4.10";
    /// X.520 organizationalUnitName.
    ORGANIZATIONAL_UNIT = "2.5.4.11";
    /// RFC 4519 domainComponent, refused in subjects.
    DOMAIN_COMPONENT = "0.9.2342.19200300.100.1.25";

    /// RFC 5280 key purpose serverAuth, refused here.
    KP_SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
    /// RFC 5280 key purpose emailProtection.
    KP_EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4";
    /// RFC 9336 key purpose documentSigning.
    KP_DOCUMENT_SIGNING = "1.3.6.1.5.5.7.3.36";
    /// Microsoft lifetime signing.
    KP_LIFETIME_SIGNING = "1.3.6.1.4.1.311.10.3.13";

    /// Sigstore: OIDC issuer as raw bytes (deprecated, still required by some clients).
    SIGSTORE_ISSUER_V1 = "1.3.6.1.4.1.57264.1.1";
    /// Sigstore: OIDC issuer as a DER UTF8String.
    SIGSTORE_ISSUER_V2 = "1.3.6.1.4.1.57264.1.8";

    /// CA/Browser Forum: code signing, non-EV.
    CABF_CODE_SIGNING = "2.23.140.1.4.1";
    /// CA/Browser Forum: EV code signing.
    CABF_EV_CODE_SIGNING = "2.23.140.1.3";
    /// CA/Browser Forum: time stamping.
    CABF_TIME_STAMPING = "2.23.140.1.4.2";

    /// RFC 5652 signed data.
    SIGNED_DATA = "1.2.840.113549.1.7.2";
    /// RFC 3161 id-ct-TSTInfo.
    TST_INFO = "1.2.840.113549.1.9.16.1.4";
    /// RFC 5652 contentType attribute.
    CONTENT_TYPE = "1.2.840.113549.1.9.3";
    /// RFC 5652 messageDigest attribute.
    MESSAGE_DIGEST = "1.2.840.113549.1.9.4";
    /// RFC 5652 signingTime attribute.
    SIGNING_TIME = "1.2.840.113549.1.9.5";
    /// RFC 5035 signingCertificateV2 attribute.
    SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47";
}
