//! The rules for certificates.

use std::collections::BTreeSet;

use ca_pki::certificate::{Form, build};
use ca_pki::lint::{self, CertificateRules};
use ca_pki::oid::{self, ObjectIdentifier};
use ca_pki::profile::{Kind, Profile, ProfileConfig, SctPolicy, SubscriberKeys, SubscriberRules};
use ca_pki::{Identity, NameFields};

use super::fixture::tree::{
    Content, GENERALIZED_TIME, INTEGER, NULL, Node, extension, set_critical, set_value,
};
use super::fixture::{Hierarchy, Key, decided, name, serial};
use super::{Change, LATE, LONG_AGO, UNKNOWN, broken};

const SHA1_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5");

fn extensions(certificate: &mut Node) -> &mut Node {
    certificate.at(&[0]).tagged(0xa3).at(&[0])
}

fn both_algorithms(certificate: &mut Node, oid: ObjectIdentifier) {
    for path in [&[1, 0][..], &[0, 2, 0]] {
        certificate.at(path).set(oid.as_bytes());
    }
}

/// The attribute of a subject.
fn attribute(certificate: &mut Node, oid: ObjectIdentifier) -> &mut Node {
    let sets = certificate.at(&[0, 5]).elements().iter_mut();
    sets.map(|set| set.at(&[0])).find(|each| each.begins_with(oid)).unwrap()
}

fn drop_attribute(certificate: &mut Node, oid: ObjectIdentifier) {
    certificate.at(&[0, 5]).elements().retain_mut(|set| !set.at(&[0]).begins_with(oid));
}

fn distribution_point(url: &str) -> Vec<u8> {
    let wrapped = |tag, inside| Node { tag, content: Content::Elements(vec![inside]) };
    let name = wrapped(0xa0, wrapped(0xa0, Node::leaf(0x86, url)));
    Node::sequence(vec![Node::sequence(vec![name])]).to_der()
}

fn purposes(oids: &[ObjectIdentifier]) -> Vec<u8> {
    Node::sequence(oids.iter().copied().map(Node::oid).collect()).to_der()
}

fn access(method: ObjectIdentifier, url: &str) -> Vec<u8> {
    Node::sequence(vec![Node::sequence(vec![Node::oid(method), Node::leaf(0x86, url)])]).to_der()
}

fn authority(path_length: u8) -> Vec<u8> {
    Node::sequence(vec![Node::leaf(1, [0xff]), Node::leaf(INTEGER, [path_length])]).to_der()
}

/// DER of a KeyUsage that is digitalSignature, and of one that is dataEncipherment.
const DIGITAL_SIGNATURE: [u8; 4] = [3, 2, 7, 0x80];
const DATA_ENCIPHERMENT: [u8; 4] = [3, 2, 4, 0x10];

const OF_EVERY_CERTIFICATE: [(&str, Change); 24] = [
    ("certificate_parses", |it| it.at(&[0, 4, 0]).set("never")),
    ("version_3", |it| it.at(&[0, 0, 0]).set([1])),
    ("serial_positive", |it| it.at(&[0, 1]).set([0])),
    ("serial_at_most_20_octets", |it| it.at(&[0, 1]).set([1; 21])),
    ("serial_has_64_bits", |it| it.at(&[0, 1]).set([1; 7])),
    ("signature_algorithms_equal", |it| it.at(&[1, 0]).set(oid::ECDSA_SHA384.as_bytes())),
    ("signature_algorithm_without_parameters", |it| {
        for path in [&[1][..], &[0, 2]] {
            it.at(path).elements().push(Node::leaf(NULL, []));
        }
    }),
    ("validity_in_order", |it| it.at(&[0, 4, 1]).set(LONG_AGO)),
    ("utc_time_through_2049", |it| *it.at(&[0, 4, 1]) = Node::leaf(GENERALIZED_TIME, "20270101000000Z")),
    ("issuer_not_empty", |it| *it.at(&[0, 3]) = Node::sequence(Vec::new())),
    ("canonical_der", |it| set_critical(extensions(it).of(oid::SUBJECT_KEY_IDENTIFIER), false, true)),
    ("extensions_unique", |it| {
        let again = extensions(it).of(oid::SUBJECT_KEY_IDENTIFIER).clone();
        extensions(it).elements().push(again);
    }),
    ("extension_must_not_be_critical", |it| {
        set_critical(extensions(it).of(oid::SUBJECT_KEY_IDENTIFIER), true, true);
    }),
    ("no_unknown_critical_extension", |it| {
        extensions(it).elements().push(extension(UNKNOWN, true, &[NULL, 0]));
    }),
    ("empty_subject_needs_critical_alt_name", |it| *it.at(&[0, 5]) = Node::sequence(Vec::new())),
    ("authority_key_identifier_present", |it| extensions(it).without(oid::AUTHORITY_KEY_IDENTIFIER)),
    ("subject_key_identifier_present", |it| extensions(it).without(oid::SUBJECT_KEY_IDENTIFIER)),
    ("key_allowed", |it| it.at(&[0, 6, 0, 1]).set(oid::SECP224R1.as_bytes())),
    ("issuer_name_byte_identical", |it| *it.at(&[0, 3]) = it.at(&[0, 5]).clone()),
    ("signature_algorithm_is_the_issuers", |it| both_algorithms(it, oid::ECDSA_SHA384)),
    ("authority_key_identifier_is_the_issuers", |it| {
        let value = Node::sequence(vec![Node::leaf(0x80, [1])]).to_der();
        set_value(extensions(it).of(oid::AUTHORITY_KEY_IDENTIFIER), &value);
    }),
    ("validity_within_the_issuers", |it| it.at(&[0, 4, 1]).set(LATE)),
    ("crl_shard_of_the_serial_number", |it| {
        let other = distribution_point("http://status.example.org/other.crl");
        set_value(extensions(it).of(oid::CRL_DISTRIBUTION_POINTS), &other);
    }),
    ("end_entity_is_not_a_ca", |it| {
        extensions(it).elements().push(extension(oid::BASIC_CONSTRAINTS, true, &authority(0)));
    }),
];

const OF_SUBSCRIBERS: [(&str, Change); 16] = [
    ("exactly_one_email_or_uri", |it| extensions(it).without(oid::SUBJECT_ALT_NAME)),
    ("key_usage_required", |it| extensions(it).without(oid::KEY_USAGE)),
    ("key_usage_required", |it| set_value(extensions(it).of(oid::KEY_USAGE), &DATA_ENCIPHERMENT)),
    ("eku_required", |it| {
        set_value(extensions(it).of(oid::EXTENDED_KEY_USAGE), &purposes(&[oid::KP_SERVER_AUTH]));
    }),
    ("eku_unusual", |it| {
        let value = purposes(&[oid::KP_CODE_SIGNING, UNKNOWN]);
        set_value(extensions(it).of(oid::EXTENDED_KEY_USAGE), &value);
    }),
    ("crl_distribution_points", |it| extensions(it).without(oid::CRL_DISTRIBUTION_POINTS)),
    ("crl_distribution_points", |it| {
        set_critical(extensions(it).of(oid::CRL_DISTRIBUTION_POINTS), true, true);
    }),
    ("crl_distribution_points", |it| {
        let other = distribution_point("ldap://status.example.org/cn=list");
        set_value(extensions(it).of(oid::CRL_DISTRIBUTION_POINTS), &other);
    }),
    ("authority_information_access", |it| extensions(it).without(oid::AUTHORITY_INFO_ACCESS)),
    ("authority_information_access", |it| {
        set_critical(extensions(it).of(oid::AUTHORITY_INFO_ACCESS), true, true);
    }),
    ("aia_missing_ca_issuers_http_url", |it| {
        let other = access(oid::AD_CA_ISSUERS, "https://status.example.org/ca.cer");
        set_value(extensions(it).of(oid::AUTHORITY_INFO_ACCESS), &other);
    }),
    ("aia_ocsp_not_http", |it| {
        let other = access(oid::AD_OCSP, "https://status.example.org/ocsp");
        set_value(extensions(it).of(oid::AUTHORITY_INFO_ACCESS), &other);
    }),
    ("certificate_policies_present", |it| extensions(it).without(oid::CERTIFICATE_POLICIES)),
    ("max_validity_period_460_days", |it| it.at(&[0, 4, 1]).set("300101000000Z")),
    ("max_validity_period_39_months", |it| it.at(&[0, 4, 0]).set(LONG_AGO)),
    ("signature_algorithm_not_supported", |it| both_algorithms(it, SHA1_WITH_RSA)),
];

const OF_THE_BASELINE: [(&str, Change); 9] = [
    ("requires_org", |it| drop_attribute(it, oid::ORGANIZATION)),
    ("subject_locality_or_province_required", |it| drop_attribute(it, oid::LOCALITY)),
    ("subject_country_name", |it| drop_attribute(it, oid::COUNTRY)),
    ("subject_country_name", |it| attribute(it, oid::COUNTRY).at(&[1]).set("ZZ")),
    ("common_name_required", |it| drop_attribute(it, oid::COMMON_NAME)),
    ("subject_prohibited", |it| attribute(it, oid::LOCALITY).at(&[0]).set(oid::DOMAIN_COMPONENT.as_bytes())),
    ("subject_without_metadata_values", |it| attribute(it, oid::LOCALITY).at(&[1]).set("-")),
    ("ecdsa_prohibited_curve", |it| it.at(&[0, 6, 0, 1]).set(oid::SECP224R1.as_bytes())),
    ("rsa_key_size", |it| {
        let algorithm = Node::sequence(vec![Node::oid(oid::RSA_ENCRYPTION), Node::leaf(NULL, [])]);
        let modulus = [&[0_u8][..], &[0xc5; 256]].concat();
        let numbers = vec![Node::leaf(INTEGER, modulus), Node::leaf(INTEGER, [1, 0, 1])];
        let bits = [vec![0], Node::sequence(numbers).to_der()].concat();
        *it.at(&[0, 6]) = Node::sequence(vec![algorithm, Node::leaf(3, bits)]);
    }),
];

const OF_ROOTS: [(&str, Change); 6] = [
    ("ca_basic_constraints_critical", |it| {
        set_critical(extensions(it).of(oid::BASIC_CONSTRAINTS), false, false);
    }),
    ("ca_key_usage", |it| set_value(extensions(it).of(oid::KEY_USAGE), &DIGITAL_SIGNATURE)),
    ("root_without_extended_key_usage", |it| {
        let value = purposes(&[oid::KP_CODE_SIGNING]);
        extensions(it).elements().push(extension(oid::EXTENDED_KEY_USAGE, false, &value));
    }),
    ("root_without_path_length", |it| set_value(extensions(it).of(oid::BASIC_CONSTRAINTS), &authority(2))),
    ("root_without_policies", |it| {
        let policy = Node::sequence(vec![Node::sequence(vec![Node::oid(UNKNOWN)])]).to_der();
        extensions(it).elements().push(extension(oid::CERTIFICATE_POLICIES, false, &policy));
    }),
    ("root_is_self_issued", |it| *it.at(&[0, 3]) = Node::parse(name("Another").as_der())),
];

const OF_ISSUERS: [(&str, Change); 9] = [
    ("ca_basic_constraints_critical", |it| {
        set_critical(extensions(it).of(oid::BASIC_CONSTRAINTS), false, false);
    }),
    ("issuer_path_length_0", |it| set_value(extensions(it).of(oid::BASIC_CONSTRAINTS), &authority(1))),
    ("ca_key_usage", |it| set_value(extensions(it).of(oid::KEY_USAGE), &DIGITAL_SIGNATURE)),
    ("issuer_single_purpose", |it| {
        let value = purposes(&[oid::KP_CODE_SIGNING, oid::KP_TIME_STAMPING]);
        set_value(extensions(it).of(oid::EXTENDED_KEY_USAGE), &value);
    }),
    ("certificate_policies_present", |it| extensions(it).without(oid::CERTIFICATE_POLICIES)),
    ("crl_distribution_points", |it| {
        set_critical(extensions(it).of(oid::CRL_DISTRIBUTION_POINTS), true, true);
    }),
    ("crl_distribution_points", |it| {
        let other = distribution_point("https://status.example.org/root.crl");
        set_value(extensions(it).of(oid::CRL_DISTRIBUTION_POINTS), &other);
    }),
    ("authority_information_access", |it| extensions(it).without(oid::AUTHORITY_INFO_ACCESS)),
    ("aia_missing_ca_issuers_http_url", |it| {
        let other = access(oid::AD_CA_ISSUERS, "ldap://status.example.org/cn=root");
        set_value(extensions(it).of(oid::AUTHORITY_INFO_ACCESS), &other);
    }),
];

const OF_CROSS_CERTIFICATES: [(&str, Change); 1] = [("cross_certificate_path_length_1", |it| {
    set_value(extensions(it).of(oid::BASIC_CONSTRAINTS), &authority(0));
})];

const OF_RESPONDERS: [(&str, Change); 5] = [
    ("end_entity_is_not_a_ca", |it| set_value(extensions(it).of(oid::BASIC_CONSTRAINTS), &authority(0))),
    ("key_usage_digital_signature", |it| set_value(extensions(it).of(oid::KEY_USAGE), &DATA_ENCIPHERMENT)),
    ("ocsp_signing_purpose", |it| {
        set_value(extensions(it).of(oid::EXTENDED_KEY_USAGE), &purposes(&[oid::KP_CODE_SIGNING]));
    }),
    ("ocsp_nocheck_present", |it| extensions(it).without(oid::OCSP_NO_CHECK)),
    // What the rules of other kinds say of pointers, those of this kind do not.
    ("extension_must_not_be_critical", |it| {
        let point = distribution_point("http://status.example.org/1.crl");
        extensions(it).elements().push(extension(oid::CRL_DISTRIBUTION_POINTS, true, &point));
    }),
];

const OF_TIMESTAMP_AUTHORITIES: [(&str, Change); 4] = [
    ("end_entity_is_not_a_ca", |it| set_value(extensions(it).of(oid::BASIC_CONSTRAINTS), &authority(0))),
    ("key_usage_digital_signature", |it| set_value(extensions(it).of(oid::KEY_USAGE), &DATA_ENCIPHERMENT)),
    ("time_stamping_critical_and_sole", |it| {
        set_critical(extensions(it).of(oid::EXTENDED_KEY_USAGE), false, false);
    }),
    ("validity_at_most_135_months", |it| it.at(&[0, 4, 1]).set(LATE)),
];

const OF_KEYLESS: [(&str, Change); 2] = [
    ("crl_distribution_points", |it| extensions(it).without(oid::CRL_DISTRIBUTION_POINTS)),
    ("extension_must_not_be_critical", |it| {
        let value = access(oid::AD_CA_ISSUERS, "http://status.example.org/ca.cer");
        extensions(it).elements().push(extension(oid::AUTHORITY_INFO_ACCESS, true, &value));
    }),
];

fn subscriber(rules: SubscriberRules) -> Profile {
    let named = NameFields {
        country: Some("US".into()),
        organization: Some("MentatLab".into()),
        locality: Some("Springfield".into()),
        ..NameFields::default()
    };
    let subject = if rules == SubscriberRules::Keyless { NameFields::default() } else { named };
    let keys = SubscriberKeys::Classical;
    let sct = SctPolicy::Absent;
    let config = ProfileConfig { rules, lifetime_seconds: None, subject, policies: Vec::new(), keys, sct };
    Profile::subscriber("subscriber", &config).unwrap()
}

pub(super) fn certificates(it: &Hierarchy) -> BTreeSet<&'static str> {
    let (identity, key) = (Identity::email("dev@example.com").unwrap(), Key::p256());
    let mut rules = BTreeSet::new();
    let mut judged = |object: &[u8], kind, issuer, table: &[(&'static str, Change)]| {
        rules.extend(broken(object, table, |der| lint::certificate(der, &CertificateRules { kind, issuer })));
    };
    for (kind, tables) in [
        (SubscriberRules::Internal, &[&OF_EVERY_CERTIFICATE[..], &OF_SUBSCRIBERS][..]),
        (SubscriberRules::Csbr, &[&OF_THE_BASELINE[..]]),
        (SubscriberRules::Keyless, &[&OF_KEYLESS[..]]),
    ] {
        let profile = subscriber(kind);
        let (serial, subject) = (serial(9), profile.subject_for(&identity).unwrap());
        let asked = decided(&serial, &subject, Some(&identity), &key);
        let leaf = it.key.assemble(&build(&profile, &it.issuer, &asked, Form::Certificate).unwrap());
        for table in tables {
            judged(&leaf, profile.kind(), Some(&it.issuer), table);
        }
    }
    judged(&it.root, Kind::Root, None, &OF_ROOTS);
    judged(&it.intermediate, Kind::CodeSigningIssuer, Some(&it.root_issuer), &OF_ISSUERS);
    for (kind, days, table) in [
        (Kind::CrossCertificate, 1825, &OF_CROSS_CERTIFICATES[..]),
        (Kind::OcspResponder, 365, &OF_RESPONDERS),
        (Kind::TimestampAuthority, 1825, &OF_TIMESTAMP_AUTHORITIES),
    ] {
        let profile = Profile::infrastructure(kind, days, &[]).unwrap();
        let (serial, subject) = (serial(3), name("Something of an authority"));
        let asked = decided(&serial, &subject, None, &key);
        let tbs = build(&profile, &it.root_issuer, &asked, Form::Certificate).unwrap();
        judged(&it.root_key.assemble(&tbs), kind, None, table);
    }
    rules
}
