//! Sections of the configuration that are refused.

use super::config::{OidcConfig, validate};

#[test]
fn sections_that_would_trust_too_much_are_refused_at_start() {
    let section = |text: &str| toml::from_str::<OidcConfig>(text).map_err(|error| error.to_string());
    let judged = |text: &str, listen: &str| -> Result<(), String> {
        let sections = [section(text)?];
        validate(&sections, listen, |name| name == "keyless").map(drop).map_err(|refusal| refusal.to_string())
    };
    let loopback = "127.0.0.1:8443";
    for good in [
        "issuer = \"https://id.example.org\"",
        "issuer = \"http://127.0.0.1:5556\"",
        "issuer = \"http://[::1]:5556/dex\"",
        "issuer = \"https://id.example.org\"\nidentity = \"uri\"\nsubject_prefix = \"spiffe://example.org/\"",
        "issuer = \"https://id.example.org\"\nidentity = \"github-workflow\"\nserver_url = \"https://git.example.org\"",
    ] {
        assert_eq!(judged(good, loopback), Ok(()), "{good}");
    }
    assert!(
        judged("issuer = \"http://127.0.0.1:5556\"", "0.0.0.0:8443").unwrap_err().contains("beyond loopback")
    );
    for (bad, reason) in [
        ("issuer = \"http://id.example.org\"", "not https"),
        ("issuer = \"http://127.0.0.1.example.org\"", "not https"),
        ("issuer = \"https://user:secret@id.example.org\"", "not https"),
        ("issuer = \"ftp://id.example.org\"", "not https"),
        ("issuer = \"https://id.example.org\"\naudience = \"\"", "audience"),
        ("issuer = \"https://id.example.org\"\nprofile = \"nobody\"", "profile"),
        ("issuer = \"https://id.example.org\"\nidentity = \"uri\"", "subject_prefix"),
        (
            "issuer = \"https://id.example.org\"\nidentity = \"uri\"\nsubject_prefix = \"spiffe://a\"",
            "subject_prefix",
        ),
        ("issuer = \"https://id.example.org\"\nsubject_prefix = \"spiffe://a/\"", "another kind"),
        (
            "issuer = \"https://id.example.org\"\nidentity = \"github-workflow\"\nemail_domains = [\"a.org\"]",
            "another kind",
        ),
        (
            "issuer = \"https://id.example.org\"\nidentity = \"gitlab-pipeline\"\nserver_url = \"http://a.org\"",
            "server_url",
        ),
        ("issuer = \"https://id.example.org\"\nskip_verification = true", "unknown"),
    ] {
        let refusal = judged(bad, loopback).unwrap_err();
        assert!(refusal.contains(reason), "{bad}: {refusal}");
    }
    let twice =
        [section("issuer = \"https://a.org\"").unwrap(), section("issuer = \"https://a.org\"").unwrap()];
    assert!(validate(&twice, loopback, |_| true).unwrap_err().to_string().contains("two sections"));
}
