//! Object identifiers, each named after the standard that defines it.

pub use const_oid::ObjectIdentifier;

macro_rules! oids {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: ObjectIdentifier = ObjectIdentifier::new_unwrap($value);)*
    };
}

oids! {
    /// RFC 5480: EC public key.
    EC_PUBLIC_KEY = "1.2.840.10045.2.1";
    /// RFC 5480: curve P-224, refused.
    SECP224R1 = "1.3.132.0.33";
    /// RFC 5480: curve P-256.
    SECP256R1 = "1.2.840.10045.3.1.7";
    /// RFC 5480: curve P-384.
    SECP384R1 = "1.3.132.0.34";
    /// RFC 5480: curve P-521.
    SECP521R1 = "1.3.132.0.35";
    /// RFC 8410: Ed25519.
    ED25519 = "1.3.101.112";
    /// RFC 3279: RSA public key.
    RSA_ENCRYPTION = "1.2.840.113549.1.1.1";
    /// RFC 9881: ML-DSA-44.
    ML_DSA_44 = "2.16.840.1.101.3.4.3.17";
    /// RFC 9881: ML-DSA-65.
    ML_DSA_65 = "2.16.840.1.101.3.4.3.18";
    /// RFC 9881: ML-DSA-87.
    ML_DSA_87 = "2.16.840.1.101.3.4.3.19";

    /// RFC 5758: ECDSA with SHA-256.
    ECDSA_SHA256 = "1.2.840.10045.4.3.2";
    /// RFC 5758: ECDSA with SHA-384.
    ECDSA_SHA384 = "1.2.840.10045.4.3.3";
    /// RFC 5758: ECDSA with SHA-512.
    ECDSA_SHA512 = "1.2.840.10045.4.3.4";
    /// RFC 4055: RSA PKCS#1 v1.5 with SHA-256.
    RSA_SHA256 = "1.2.840.113549.1.1.11";
    /// RFC 4055: RSA PKCS#1 v1.5 with SHA-384.
    RSA_SHA384 = "1.2.840.113549.1.1.12";
    /// RFC 4055: RSA PKCS#1 v1.5 with SHA-512.
    RSA_SHA512 = "1.2.840.113549.1.1.13";
    /// RFC 4055: RSASSA-PSS.
    RSA_PSS = "1.2.840.113549.1.1.10";
    /// RFC 5758: DSA with SHA-256.
    DSA_SHA256 = "2.16.840.1.101.3.4.3.2";

    /// FIPS 180-1: SHA-1, for certificate ids of old OCSP clients only.
    SHA1 = "1.3.14.3.2.26";
    /// FIPS 180-4: SHA-256.
    SHA256 = "2.16.840.1.101.3.4.2.1";
    /// FIPS 180-4: SHA-384.
    SHA384 = "2.16.840.1.101.3.4.2.2";
    /// FIPS 180-4: SHA-512.
    SHA512 = "2.16.840.1.101.3.4.2.3";

    /// X.520 commonName.
    COMMON_NAME = "2.5.4.3";
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

    /// RFC 5280 subjectKeyIdentifier.
    SUBJECT_KEY_IDENTIFIER = "2.5.29.14";
    /// RFC 5280 keyUsage.
    KEY_USAGE = "2.5.29.15";
    /// RFC 5280 subjectAltName.
    SUBJECT_ALT_NAME = "2.5.29.17";
    /// RFC 5280 basicConstraints.
    BASIC_CONSTRAINTS = "2.5.29.19";
    /// RFC 5280 cRLNumber.
    CRL_NUMBER = "2.5.29.20";
    /// RFC 5280 reasonCode.
    REASON_CODE = "2.5.29.21";
    /// RFC 5280 invalidityDate.
    INVALIDITY_DATE = "2.5.29.24";
    /// RFC 5280 deltaCRLIndicator.
    DELTA_CRL_INDICATOR = "2.5.29.27";
    /// RFC 5280 issuingDistributionPoint.
    ISSUING_DISTRIBUTION_POINT = "2.5.29.28";
    /// RFC 5280 nameConstraints.
    NAME_CONSTRAINTS = "2.5.29.30";
    /// RFC 5280 cRLDistributionPoints.
    CRL_DISTRIBUTION_POINTS = "2.5.29.31";
    /// RFC 5280 certificatePolicies.
    CERTIFICATE_POLICIES = "2.5.29.32";
    /// RFC 5280 anyPolicy.
    ANY_POLICY = "2.5.29.32.0";
    /// RFC 5280 policyMappings.
    POLICY_MAPPINGS = "2.5.29.33";
    /// RFC 5280 authorityKeyIdentifier.
    AUTHORITY_KEY_IDENTIFIER = "2.5.29.35";
    /// RFC 5280 policyConstraints.
    POLICY_CONSTRAINTS = "2.5.29.36";
    /// RFC 5280 extKeyUsage.
    EXTENDED_KEY_USAGE = "2.5.29.37";
    /// RFC 5280 anyExtendedKeyUsage, refused everywhere.
    ANY_EXTENDED_KEY_USAGE = "2.5.29.37.0";
    /// RFC 5280 freshestCRL.
    FRESHEST_CRL = "2.5.29.46";
    /// RFC 5280 inhibitAnyPolicy.
    INHIBIT_ANY_POLICY = "2.5.29.54";
    /// X.509 expiredCertsOnCRL (requirement R4).
    EXPIRED_CERTS_ON_CRL = "2.5.29.60";
    /// RFC 5280 authorityInfoAccess.
    AUTHORITY_INFO_ACCESS = "1.3.6.1.5.5.7.1.1";
    /// RFC 5280 access method OCSP.
    AD_OCSP = "1.3.6.1.5.5.7.48.1";
    /// RFC 5280 access method caIssuers.
    AD_CA_ISSUERS = "1.3.6.1.5.5.7.48.2";

    /// RFC 5280 key purpose serverAuth, refused here.
    KP_SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
    /// RFC 5280 key purpose codeSigning.
    KP_CODE_SIGNING = "1.3.6.1.5.5.7.3.3";
    /// RFC 5280 key purpose emailProtection.
    KP_EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4";
    /// RFC 5280 key purpose timeStamping.
    KP_TIME_STAMPING = "1.3.6.1.5.5.7.3.8";
    /// RFC 5280 key purpose OCSPSigning.
    KP_OCSP_SIGNING = "1.3.6.1.5.5.7.3.9";
    /// RFC 9336 key purpose documentSigning.
    KP_DOCUMENT_SIGNING = "1.3.6.1.5.5.7.3.36";
    /// Microsoft lifetime signing.
    KP_LIFETIME_SIGNING = "1.3.6.1.4.1.311.10.3.13";

    /// RFC 6960 basic response.
    OCSP_BASIC = "1.3.6.1.5.5.7.48.1.1";
    /// RFC 6960 / 9654 nonce.
    OCSP_NONCE = "1.3.6.1.5.5.7.48.1.2";
    /// RFC 6960 id-pkix-ocsp-nocheck.
    OCSP_NO_CHECK = "1.3.6.1.5.5.7.48.1.5";

    /// RFC 6962 SCT list extension.
    SCT_LIST = "1.3.6.1.4.1.11129.2.4.2";
    /// RFC 6962 precertificate poison extension.
    PRECERTIFICATE_POISON = "1.3.6.1.4.1.11129.2.4.3";

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
