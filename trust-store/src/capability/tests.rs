use super::*;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use proptest::prelude::*;

fn parse(text: &str) -> Capability {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn accepts_the_spellings_of_existing_manifests() {
    for text in [
        "filesystem:read:/tmp",
        "filesystem:write:/data/out",
        "filesystem:read:/",
        "network:http:*.openai.com",
        "network:https:api.openai.com",
        "network:tcp:db.internal:5432",
        "network:http:127.0.0.1:8080",
        "network:https:localhost:8443",
        "env:OPENAI_API_KEY",
        "compute:memory=64MiB,cpu_ms=1000,wall_ms=5000",
        "extension:media",
        "extension:kv:bucket/a:b",
    ] {
        assert_eq!(parse(text).to_string(), text);
    }
}

#[test]
fn prints_one_canonical_text() {
    for (text, canonical) in [
        ("network:https:API.OpenAI.com:443", "network:https:api.openai.com"),
        ("network:http:h:443", "network:http:h:443"),
        ("compute:wall_ms=5,memory=2048MiB", "compute:memory=2GiB,wall_ms=5"),
        ("compute:memory=1536KiB", "compute:memory=1536KiB"),
    ] {
        assert_eq!(parse(text).to_string(), canonical);
    }
}

#[test]
fn refuses_everything_outside_the_grammar() {
    for text in [
        "",
        "filesystem",
        "filesystem:read",
        "filesystem:exec:/tmp",
        "filesystem:read:tmp",
        "filesystem:read:/tmp/",
        "filesystem:read:/tmp/../etc",
        "filesystem:read:/a//b",
        "filesystem:read:/a\0b",
        "filesystem:read:\\a",
        "Filesystem:read:/tmp",
        "filesystem:read:/a\\b",
        "network:udp:host",
        "network:http:*",
        "network:http:*.com",
        "network:http:a.*.com",
        "network:http:**.a.com",
        "network:http:*.1.2.3.4",
        "network:http:1.2.3",
        "network:http:1.2.3.04",
        "network:http:0x7f.1",
        "network:http:a_b.com",
        "network:http:-a.com",
        "network:http:a..com",
        "network:http:a.com.",
        "network:http:bücher.example",
        "network:http:a.com:0",
        "network:http:a.com:080",
        "network:http:a.com:65536",
        "network:http:a.com:443:1",
        "network:http:[::1]",
        "env:",
        "env:1A",
        "env:A B",
        "env:A=1",
        "compute:",
        "compute:memory=64",
        "compute:memory=0MiB",
        "compute:memory=64MB",
        "compute:cpu_ms=1,cpu_ms=2",
        "compute:cpu_ms=01",
        "compute:cpu_ms=-1",
        "compute:fuel=1",
        "compute:cpu_ms=1,",
        "extension:",
        "extension:Media",
        "extension:media:",
        "extension:media:a b",
        "shell:exec:rm",
        " env:A",
    ] {
        assert!(matches!(text.parse::<Capability>(), Err(Error::Malformed { .. })), "{text}");
    }
    let long = format!("env:{}", "A".repeat(MAX_CAPABILITY_BYTES));
    assert!(matches!(long.parse::<Capability>(), Err(Error::TooLarge { .. })));
}

#[test]
fn containment_is_by_component_label_and_number() {
    for (granted, asked, expected) in [
        ("filesystem:read:/tmp", "filesystem:read:/tmp/a", true),
        ("filesystem:read:/tmp", "filesystem:read:/tmpx", false),
        ("filesystem:read:/tmp/a", "filesystem:read:/tmp", false),
        ("filesystem:read:/", "filesystem:read:/etc", true),
        ("filesystem:write:/tmp", "filesystem:read:/tmp", true),
        ("filesystem:read:/tmp", "filesystem:write:/tmp", false),
        ("network:http:*.openai.com", "network:http:api.openai.com", true),
        ("network:http:*.openai.com", "network:https:api.openai.com", true),
        ("network:http:*.openai.com", "network:http:a.b.openai.com", true),
        ("network:http:*.openai.com", "network:http:openai.com", false),
        ("network:http:*.openai.com", "network:http:evilopenai.com", false),
        ("network:http:*.openai.com", "network:http:*.openai.com", true),
        ("network:http:*.openai.com", "network:http:*.api.openai.com", true),
        ("network:http:*.api.openai.com", "network:http:*.openai.com", false),
        ("network:http:api.openai.com", "network:http:*.openai.com", false),
        ("network:https:a.com", "network:http:a.com", false),
        ("network:https:a.com", "network:tcp:a.com", false),
        ("network:https:a.com", "network:https:a.com:8443", false),
        ("network:http:a.com", "network:http:a.com:443", true),
        ("network:http:a.com:443", "network:http:a.com", false),
        ("network:http:a.com:443", "network:https:a.com", true),
        ("network:http:a.com:80", "network:https:a.com", false),
        ("network:http:a.com", "network:http:a.com:80", false),
        ("env:A", "env:A", true),
        ("env:A", "env:AB", false),
        ("compute:memory=64MiB", "compute:memory=64MiB", true),
        ("compute:memory=64MiB", "compute:memory=65MiB", false),
        ("compute:memory=64MiB", "compute:cpu_ms=1", false),
        ("compute:memory=64MiB,cpu_ms=5", "compute:cpu_ms=5", true),
        ("extension:media", "extension:media:x", true),
        ("extension:media:x", "extension:media", false),
        ("extension:media:x", "extension:media:y", false),
        ("env:A", "extension:a", false),
    ] {
        assert_eq!(parse(granted).covers(&parse(asked)), expected, "{granted} covers {asked}");
    }
}

#[test]
fn a_concrete_host_is_matched_without_case() {
    let pattern = HostPattern::new("*.openai.com").unwrap();
    assert!(pattern.matches("API.openai.com"));
    assert!(!pattern.matches("*.api.openai.com"));
    assert!(!pattern.matches("openai.com"));
}

proptest! {
    #[test]
    fn parse_print_parse_is_stable(text in "(filesystem:(read|write):(/[a-z.]{1,3}){1,3}|network:(http|https|tcp):(\\*\\.)?[a-zA-Z0-9-]{1,5}(\\.[a-z0-9]{1,3}){0,3}(:[0-9]{1,5})?|env:[A-Za-z_][A-Za-z0-9_]{0,5}|compute:(memory=[1-9][0-9]{0,4}(KiB|MiB|GiB))(,cpu_ms=[1-9][0-9]{0,3})?(,wall_ms=[1-9])?|extension:[a-z][a-z0-9-]{0,4}(:[!-~]{1,4})?)") {
        if let Ok(first) = text.parse::<Capability>() {
            let printed = first.to_string();
            let second: Capability = printed.parse().unwrap();
            prop_assert_eq!(&first, &second);
            prop_assert_eq!(second.to_string(), printed);
            prop_assert!(first.covers(&second));
        }
    }

    #[test]
    fn parsing_is_total(text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = text.parse::<Capability>();
        if let Ok(text) = core::str::from_utf8(&bytes) {
            let _ = text.parse::<Capability>();
        }
    }

    #[test]
    fn containment_is_transitive(paths in proptest::collection::vec("(/[ab]){1,3}", 3)) {
        let c: Vec<_> = paths.iter().map(|p| parse(&format!("filesystem:read:{p}"))).collect();
        if c[0].covers(&c[1]) && c[1].covers(&c[2]) {
            prop_assert!(c[0].covers(&c[2]));
        }
    }
}
