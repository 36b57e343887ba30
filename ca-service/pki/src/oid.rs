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

/// What a workload's certificate says about the workload: the arc 1.3.6.1.4.1.57264.1 (sigstore-contract §4).
pub mod sigstore {
    use super::ObjectIdentifier;

    oids! {
        /// .2: event that triggered the workflow, raw bytes.
        WORKFLOW_TRIGGER = "1.3.6.1.4.1.57264.1.2";
        /// .3: revision of the source, raw bytes.
        WORKFLOW_SHA = "1.3.6.1.4.1.57264.1.3";
        /// .4: name of the workflow, raw bytes.
        WORKFLOW_NAME = "1.3.6.1.4.1.57264.1.4";
        /// .5: repository, raw bytes.
        WORKFLOW_REPOSITORY = "1.3.6.1.4.1.57264.1.5";
        /// .6: git reference, raw bytes.
        WORKFLOW_REF = "1.3.6.1.4.1.57264.1.6";
        /// .9: who built, the workflow at its revision.
        BUILD_SIGNER_URI = "1.3.6.1.4.1.57264.1.9";
        /// .10: digest of the builder's definition.
        BUILD_SIGNER_DIGEST = "1.3.6.1.4.1.57264.1.10";
        /// .11: kind of machine that ran it.
        RUNNER_ENVIRONMENT = "1.3.6.1.4.1.57264.1.11";
        /// .12: repository of the source.
        SOURCE_REPOSITORY_URI = "1.3.6.1.4.1.57264.1.12";
        /// .13: revision of the source.
        SOURCE_REPOSITORY_DIGEST = "1.3.6.1.4.1.57264.1.13";
        /// .14: git reference of the source.
        SOURCE_REPOSITORY_REF = "1.3.6.1.4.1.57264.1.14";
        /// .15: immutable id of the repository.
        SOURCE_REPOSITORY_IDENTIFIER = "1.3.6.1.4.1.57264.1.15";
        /// .16: owner of the repository.
        SOURCE_OWNER_URI = "1.3.6.1.4.1.57264.1.16";
        /// .17: immutable id of the owner.
        SOURCE_OWNER_IDENTIFIER = "1.3.6.1.4.1.57264.1.17";
        /// .18: top-level build instructions.
        BUILD_CONFIG_URI = "1.3.6.1.4.1.57264.1.18";
        /// .19: revision of the build instructions.
        BUILD_CONFIG_DIGEST = "1.3.6.1.4.1.57264.1.19";
        /// .20: event that triggered the build.
        BUILD_TRIGGER = "1.3.6.1.4.1.57264.1.20";
        /// .21: the run itself.
        RUN_INVOCATION_URI = "1.3.6.1.4.1.57264.1.21";
        /// .22: visibility of the source.
        REPOSITORY_VISIBILITY = "1.3.6.1.4.1.57264.1.22";
    }

    /// The five deprecated ones, which hold raw bytes.
    pub const RAW: [ObjectIdentifier; 5] =
        [WORKFLOW_TRIGGER, WORKFLOW_SHA, WORKFLOW_NAME, WORKFLOW_REPOSITORY, WORKFLOW_REF];
}
