//! The example file is valid; impossible files are refused.

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/operations/ca-service.toml");

fn refusal(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    match Config::parse(&EXAMPLE.replacen(from, to, 1)).and_then(Config::validate) {
        Ok(_) => panic!("{to} was accepted"),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn the_example_file_is_valid_and_its_values_are_the_defaults() {
    let settings = Config::parse(EXAMPLE).unwrap().validate().unwrap();
    let defaults = HierarchyConfig::default();
    let written = &settings.config.hierarchy;
    assert_eq!(written.root, defaults.root);
    assert_eq!(written.crl_shards, defaults.crl_shards);
    assert_eq!(written.root_days, defaults.root_days);
    let status = StatusConfig::default();
    assert_eq!(settings.config.status.refresh_hours, status.refresh_hours);
    assert_eq!(settings.config.status.publish_interval_seconds, status.publish_interval_seconds);
    assert_eq!(settings.config.timestamp.policy, TimestampConfig::default().policy);
    assert_eq!(settings.profiles.len(), 2);
}

#[test]
fn impossible_values_and_combinations_are_refused_at_start() {
    for (from, to, reason) in [
        ("http://status.example.org", "https://status.example.org", "status_url"),
        ("http://status.example.org", "http://status.example.org/", "status_url"),
        ("https://ca.example.org", "nothing", "identity_issuer"),
        (
            "root_key = \"ecdsa-p384\"",
            "root_key = \"rsa-2048\"",
            "hierarchy.root_key = rsa-2048: RSA keys of a CA need at least 4096",
        ),
        (
            "issuer_key = \"ecdsa-p256\"",
            "issuer_key = \"rsa-2048\"",
            "hierarchy.issuer_key = rsa-2048: RSA keys of a CA need at least 4096",
        ),
        (
            "issuer_key = \"ecdsa-p256\"",
            "issuer_key = \"rsa-3072\"",
            "hierarchy.issuer_key = rsa-3072: RSA keys of a CA need at least 4096",
        ),
        ("crl_shards = 128", "crl_shards = 0", "crl_shards"),
        ("serial_prefix = 1", "serial_prefix = 200", "serial_prefix"),
        ("lifetime_seconds = 31536000", "lifetime_seconds = 99999999", "lifetime"),
        ("refresh_hours = 24", "refresh_hours = 168", "refresh_hours"),
        ("crl_days = 7", "crl_days = 11", "crl_days"),
        ("ocsp_hours = 24", "ocsp_hours = 0", "ocsp_hours"),
        ("threads = 2", "threads = 2\nunknown = 1", "unknown"),
        ("credential:keystore", "my passphrase", "passphrase"),
        ("\n[issuance_log]\n", "\n[unknown]\n", "unknown"),
        (
            "https://log.example.org/issuance",
            "http://log.example.org/issuance",
            "issuance_log.url would speak plain HTTP",
        ),
        (
            "https://log.example.org/issuance",
            "http://10.1.2.3/issuance",
            "issuance_log.url would speak plain HTTP",
        ),
        ("https://log.example.org/event", "http://10.1.2.3/event", "event_log.url would speak plain HTTP"),
        ("https://log.example.org/event", "ftp://log.example.org", "event_log.url is no http or https URL"),
        (
            "url = \"https://log.example.org/event\"",
            "url = \"http://127.0.0.1/event\"\ntls_cert_file = \"c\"\ntls_key_file = \"k\"",
            "event_log.tls_cert_file would be shown to nobody",
        ),
        (
            "url = \"https://log.example.org/event\"",
            "url = \"https://log.example.org/event\"\ntls_cert_file = \"c\"",
            "belong together",
        ),
    ] {
        let text = refusal(from, to);
        assert!(text.contains(reason), "{to}: {text}");
    }
}

#[test]
fn a_profile_with_an_embedded_sct_needs_the_log() {
    let mut config = Config::parse(EXAMPLE).unwrap();
    config.issuance_log = None;
    assert!(config.validate().unwrap_err().to_string().contains("embeds an SCT"));
}
