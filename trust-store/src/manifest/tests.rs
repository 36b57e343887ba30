use super::*;
use alloc::vec;

const EXAMPLE: &str = r#"{
  "id": "mentatlab.wasm-example", "version": "1.2.0", "runtime": "wasm", "module": "agent.wasm",
  "wasm": {
    "engine": "wasmtime", "memory": {"initial": 16, "maximum": 64},
    "capabilities": ["network:http:*.openai.com", "filesystem:read:/tmp", "env:OPENAI_API_KEY"],
    "wasi": {"version": "preview2", "preopens": {"/data": "read-only"}, "env": ["MODE=fast", "LOG=info"]}
  }
}"#;

fn read(text: &str) -> Result<Manifest, Error> {
    Manifest::from_value(&json::parse::<Value>("test", text.as_bytes(), 65_536)?)
}

#[test]
fn types_the_example() {
    let manifest = read(EXAMPLE).unwrap();
    assert_eq!(manifest.id().as_str(), "mentatlab.wasm-example");
    assert_eq!(manifest.runtime(), &Runtime::Wasm);
    assert_eq!(manifest.wasm().memory, Memory { initial_mb: Some(16), maximum_mb: Some(64) });
    let requested: Vec<String> = manifest.requested_capabilities().iter().map(ToString::to_string).collect();
    assert_eq!(
        requested,
        vec![
            "env:LOG",
            "env:MODE",
            "env:OPENAI_API_KEY",
            "filesystem:read:/data",
            "filesystem:read:/tmp",
            "network:http:*.openai.com",
        ]
    );
}

#[test]
fn canonical_form_and_digest_are_frozen() {
    let manifest = read(EXAMPLE).unwrap();
    let expected = concat!(
        r#"{"id":"mentatlab.wasm-example","module":"agent.wasm","runtime":"wasm","version":"1.2.0","wasm":"#,
        r#"{"capabilities":["network:http:*.openai.com","filesystem:read:/tmp","env:OPENAI_API_KEY"],"#,
        r#""engine":"wasmtime","memory":{"initial":16,"maximum":64},"wasi":{"env":["MODE=fast","LOG=info"],"#,
        r#""preopens":{"/data":"read-only"},"version":"preview2"}}}"#
    );
    assert_eq!(core::str::from_utf8(manifest.canonical_json()).unwrap(), expected);
    assert_eq!(
        hex::encode(manifest.digest()),
        "e2cb01fb3fcc35c9f59af8c338bdb7bd2840ff707e971bcbf8df5b4ca738f12f"
    );
    assert_eq!(Manifest::from_json(expected.as_bytes()).unwrap(), manifest);
    assert!(Manifest::from_json(EXAMPLE.as_bytes()).is_err(), "only the canonical text is read as such");
}

#[test]
fn the_attestation_block_is_split_off_and_not_signed() {
    let with = EXAMPLE.replacen('{', "{\"attestation\": {\"version\": 2},", 1);
    let document = json::parse::<Value>("test", with.as_bytes(), 65_536).unwrap();
    let (manifest, block) = Manifest::from_document(document).unwrap();
    assert_eq!(manifest, read(EXAMPLE).unwrap());
    assert_eq!(block.unwrap().member("version"), Some(&Value::Integer(2)));
    assert!(read(&with).is_err());
}

#[test]
fn refuses_unknown_keys_and_wrong_values() {
    for (from, to) in [
        ("\"runtime\"", "\"extra\": 1, \"runtime\""),
        ("\"engine\"", "\"engin\": \"wasmtime\", \"engine\""),
        ("\"id\": \"mentatlab.wasm-example\"", "\"id\": \"Mentat\""),
        ("\"id\": \"mentatlab.wasm-example\"", "\"id\": \"a..b\""),
        ("\"id\": \"mentatlab.wasm-example\"", "\"id\": 5"),
        ("1.2.0", "1.2"),
        ("1.2.0", "01.2.0"),
        ("1.2.0", "1.2.0-01"),
        ("\"agent.wasm\"", "\"../agent.wasm\""),
        ("\"module\": \"agent.wasm\",", ""),
        ("\"initial\": 16", "\"initial\": 65"),
        ("\"initial\": 16", "\"initial\": 0"),
        ("\"initial\": 16", "\"initial\": 1.5"),
        ("\"initial\": 16", "\"initial\": null"),
        ("\"maximum\": 64", "\"maximum\": 4097"),
        ("env:OPENAI_API_KEY", "env:OPENAI-API-KEY"),
        ("read-only", "rw"),
        ("/data", "data"),
        ("LOG=info", "MODE=slow"),
        ("LOG=info", "LOG"),
    ] {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE);
        assert!(matches!(read(&text), Err(Error::Malformed { .. })), "{to}: {:?}", read(&text));
    }
}

#[test]
fn names_what_is_not_supported() {
    for (from, to) in [
        ("\"engine\": \"wasmtime\"", "\"engine\": \"wasmedge\""),
        ("\"runtime\": \"wasm\"", "\"runtime\": \"ruby\""),
        ("preview2", "preview3"),
        ("\"runtime\"", "\"schema\": 2, \"runtime\""),
        ("\"runtime\"", "\"sandbox\": {\"process\": {\"seccomp\": \"strict\"}}, \"runtime\""),
    ] {
        assert!(matches!(read(&EXAMPLE.replacen(from, to, 1)), Err(Error::Unsupported { .. })), "{to}");
    }
}

#[test]
fn a_pipeline_has_a_document_and_asks_for_nothing_itself() {
    let good = r#"{"id":"a","version":"1.0.0","runtime":"pipeline","module":"pipeline.json"}"#;
    let manifest = read(good).unwrap();
    assert_eq!(manifest.runtime(), &Runtime::Pipeline);
    assert_eq!(manifest.requested_capabilities(), []);
    let image = format!(r#","image":"r/x@sha256:{}"}}"#, "a".repeat(64));
    for (from, to) in [
        (r#","module":"pipeline.json""#, ""),
        ("}", r#","wasm":{}}"#),
        ("}", r#","wasm":{"capabilities":["env:A"]}}"#),
        ("}", image.as_str()),
    ] {
        let text = good.replacen(from, to, 1);
        assert!(matches!(read(&text), Err(Error::Malformed { .. })), "{text}");
    }
}

#[test]
fn a_container_runtime_needs_an_image_by_digest() {
    let good = format!(
        r#"{{"id":"a","version":"1.0.0-rc.1+b","runtime":"python3.12","image":"r/x@sha256:{}"}}"#,
        "a".repeat(64)
    );
    assert!(matches!(read(&good).unwrap().runtime(), Runtime::Python(text) if text == "python3.12"));
    assert!(read(&good.replace("@sha256:", ":latest")).is_err());
    assert!(read(&good.replace("\"image\"", "\"module\"")).is_err());
}
