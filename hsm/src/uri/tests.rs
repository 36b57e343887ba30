use super::*;

const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn refusal(text: &str) -> (usize, String) {
    match KeyUri::parse(text).unwrap_err() {
        Error::InvalidUri { position, reason } => (position, reason),
        other => panic!("{other}"),
    }
}

#[test]
fn soft_reference_with_a_pinned_key() {
    let uri = KeyUri::parse(&format!("soft:object=issuing-ca?spki-sha256={PIN}")).unwrap();
    assert_eq!(uri.scheme(), Scheme::Soft);
    assert_eq!(uri.path_attribute("object"), Some("issuing-ca"));
    assert_eq!(uri.spki_sha256().unwrap()[..2], [0x9f, 0x86]);
    assert_eq!(uri.to_string(), format!("soft:object=issuing-ca?spki-sha256={PIN}"));
}

#[test]
fn example_of_rfc_7512_section_3_with_encoded_bytes() {
    let text = "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.;id=%69%95%3E%5C%F4%BD%EC%91?pin-source=file:/etc/token_pin";
    let uri = KeyUri::parse(text).unwrap();
    assert_eq!(uri.path_attribute("token"), Some("Software PKCS#11 softtoken"));
    assert_eq!(uri.path_attribute("manufacturer"), Some("Snake Oil, Inc."));
    assert_eq!(uri.path_bytes("id"), Some(&[0x69, 0x95, 0x3e, 0x5c, 0xf4, 0xbd, 0xec, 0x91][..]));
    assert_eq!(uri.query_attribute("pin-source"), Some("file:/etc/token_pin"));
    assert_eq!(KeyUri::parse(&uri.to_string()).unwrap(), uri);
}

#[test]
fn a_plus_is_a_plus() {
    assert_eq!(KeyUri::parse("pkcs11:object=a+b").unwrap().path_attribute("object"), Some("a+b"));
}

#[test]
fn unknown_repeated_and_misplaced_attributes_are_refused_with_the_position() {
    assert_eq!(refusal("soft:object=a;nonsense=1").0, 14);
    assert!(refusal("soft:object=a;object=b").1.contains("twice"));
    assert!(refusal("pkcs11:object=a;module-path=/x").1.contains("no attribute"));
    assert!(refusal("soft:object=a?object=b").1.contains("no attribute"));
    assert!(refusal("soft:object").1.contains("name=value"));
    assert!(refusal("soft:object=a;").1.contains("name=value"));
}

#[test]
fn bad_escapes_and_raw_reserved_characters_are_refused() {
    for text in [
        "soft:object=%",
        "soft:object=%2",
        "soft:object=%zz",
        "soft:object=a b",
        "soft:object=a/b",
        "soft:object=a#b",
    ] {
        assert!(KeyUri::parse(text).is_err(), "{text}");
    }
    assert!(refusal("soft:object=%0a").1.contains("control"));
    assert!(refusal("soft:object=%ff").1.contains("UTF-8"));
}

#[test]
fn a_pin_in_clear_is_refused_and_never_shown() {
    let text = "pkcs11:id=%01?pin-value=1234";
    assert!(refusal(text).1.contains("pin-source"));
    let uri = crate::danger::parse_uri_with_pin_value(text).unwrap();
    assert_eq!(uri.query_attribute("pin-value"), Some("1234"));
    assert!(!format!("{uri} {uri:?}").contains("1234"));
}

#[test]
fn references_that_can_move_to_another_key_are_refused() {
    assert!(refusal("awskms:key-id=alias%2Fca").1.contains("alias"));
    assert!(refusal("transit:object=ca;version=latest").1.contains("latest"));
    assert!(refusal("transit:object=ca").1.contains("version"));
    assert!(refusal("pkcs11:token=ca").1.contains("names no key"));
    assert!(refusal("soft:").1.contains("object"));
    assert!(KeyUri::parse("awskms:key-id=1234abcd-12ab-34cd-56ef-1234567890ab?region=eu-west-1").is_ok());
}

#[test]
fn a_pin_must_be_lower_case_hex_of_full_length() {
    for bad in ["abc", &PIN.to_uppercase(), &PIN[..63]] {
        assert!(refusal(&format!("soft:object=a?spki-sha256={bad}")).1.contains("64 lower-case"));
    }
}

#[test]
fn oversized_and_unknown_references_are_refused() {
    assert!(refusal(&format!("soft:object={}", "a".repeat(3000))).1.contains("2048"));
    assert!(refusal("file:/etc/key").1.contains("unknown scheme"));
    assert!(refusal("").1.contains("no scheme"));
}

#[test]
fn the_way_to_a_key_changes_and_the_key_does_not() {
    let pin = "ab".repeat(32);
    let stored = format!("pkcs11:token=ca;id=%01?module-path=/old.so&pin-source=env:OLD&spki-sha256={pin}");
    let way = KeyUri::parse("pkcs11:token=other;object=x?module-path=/new.so&pin-source=file:/pin").unwrap();
    let uri = KeyUri::parse(&stored).unwrap().reached_by(&way).unwrap();
    assert_eq!(
        uri.to_string(),
        format!("pkcs11:token=ca;id=%01?module-path=/new.so&pin-source=file:/pin&spki-sha256={pin}")
    );
    let soft = KeyUri::parse("soft:object=root").unwrap();
    assert!(matches!(soft.reached_by(&way), Err(Error::Invalid { .. })));
}
