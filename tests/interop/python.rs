//! Python's reference clients: its TUF implementation follows our repository, Sigstore's reads our trust files, and its
//! JSON Schema validator agrees with our parser about manifests.

use std::fs;
use std::path::Path;
use std::process::Command;

use mentat_tests::files::hand_out;
use mentat_tests::skip::skipped;
use mentat_tests::stack::Stack;
use serde_json::{Value, json};
use trust_store::manifest::{JSON_SCHEMA, Manifest};

/// A Python that has these modules, from `MENTAT_PYTHON` or the path; says loudly what is missing.
pub(crate) fn python(modules: &[&str], packages: &str) -> Option<String> {
    let python = std::env::var("MENTAT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imports: String = modules.iter().map(|module| format!("import {module}\n")).collect();
    let found =
        Command::new(&python).arg("-c").arg(imports).output().is_ok_and(|output| output.status.success());
    if !found {
        skipped(format_args!(
            "no {python} with {} (python3 -m venv DIR; DIR/bin/pip install {packages}; MENTAT_PYTHON=DIR/bin/python)",
            modules.join(", ")
        ));
    }
    found.then_some(python)
}

fn script(python: &str, script: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(python).arg("-c").arg(script).args(args).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// Follows a repository in a folder through a transport that reads files, from a pinned root; prints the trusted root.
const FOLLOW: &str = r#"
import os, sys
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.api.exceptions import DownloadHTTPError
class Files(FetcherInterface):
    def _fetch(self, url):
        path = url.removeprefix("file://")
        if not os.path.isfile(path):
            raise DownloadHTTPError("absent", 404)
        with open(path, "rb") as f:
            yield f.read()
mirror, root, local = sys.argv[1:4]
os.makedirs(local, exist_ok=True)
updater = Updater(local, "file://" + mirror + "/", local, "file://" + mirror + "/targets/", fetcher=Files(),
                  config=UpdaterConfig(prefix_targets_with_hash=True), bootstrap=open(root, "rb").read())
updater.refresh()
info = updater.get_targetinfo("trusted_root.json")
print(open(updater.download_target(info, os.path.join(local, "out.json")), "rb").read().decode(), end="")
"#;

#[test]
fn pythons_tuf_client_follows_our_repository_through_a_rotation() {
    let Some(python) = python(&["tuf.ngclient"], "tuf") else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("passphrase"), "correct horse battery staple").unwrap();
    fs::set_permissions(at("passphrase"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (repository, keys, source) = (at("tuf"), at("keys"), format!("file:{}", at("passphrase")));
    let publisher = |args: &[&str]| {
        let flags = ["--repository", &repository, "--keystore", &keys, "--passphrase", &source];
        stack.ctl(&[&["trust"], args, &flags[..]].concat()).success();
    };
    publisher(&["init-repository"]);
    fs::copy(Path::new(&repository).join("1.root.json"), at("root.json")).unwrap();
    let expected = fs::read_to_string(stack.text("/trusted_root")).unwrap();
    let follow = || script(&python, FOLLOW, &[&repository, &at("root.json"), &at("local")]);
    let (ok, said) = follow();
    assert!(ok && said == expected, "{said}");
    for args in
        [&["refresh"][..], &["publish"], &["rotate", "--role", "timestamp", "--role", "root"], &["refresh"]]
    {
        publisher(args);
        let (ok, said) = follow();
        assert!(ok && said == expected, "after {args:?}: {said}");
    }
    // And it refuses what we refuse.
    fs::copy(Path::new(&repository).join("1.snapshot.json"), Path::new(&repository).join("3.snapshot.json"))
        .unwrap();
    fs::remove_dir_all(at("local")).unwrap();
    assert!(!follow().0, "files of two releases");
}

#[test]
fn pythons_sigstore_client_takes_our_trust_by_file_and_by_tuf() {
    let Some(python) = python(&["sigstore.models"], "sigstore") else { return };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let output = dir.path().join("exported").to_str().unwrap().to_owned();
    stack.ctl(&["trust", "export", "--output", &output]).success();
    // The repository that `up` made, behind a web server; the client's own folders stay in ours.
    let repository = stack.dir().join("trust/tuf");
    let url = hand_out(&repository);
    let read = r#"
import os, pathlib, sys
os.environ["XDG_DATA_HOME"] = os.environ["XDG_CACHE_HOME"] = sys.argv[4]
from sigstore.models import ClientTrustConfig
by_file = ClientTrustConfig.from_json(open(sys.argv[1]).read())
by_tuf = ClientTrustConfig.from_tuf(sys.argv[2], bootstrap_root=pathlib.Path(sys.argv[3]))
for config in (by_file, by_tuf):
    assert len(config.trusted_root.get_fulcio_certs()) >= 2
    assert config.trusted_root.get_timestamp_authorities()
    assert config.signing_config.get_tlogs() and config.signing_config.get_tsas() and config.signing_config.get_fulcio()
assert by_file.trusted_root.get_fulcio_certs() == by_tuf.trusted_root.get_fulcio_certs()
print("read")
"#;
    let root = repository.join("1.root.json");
    let local = dir.path().join("local");
    let (ok, said) = script(
        &python,
        read,
        &[
            &format!("{output}/client_trust_config.json"),
            &url,
            root.to_str().unwrap(),
            local.to_str().unwrap(),
        ],
    );
    assert!(ok && said.trim() == "read", "{said}");
}

/// Whether the schema can say what is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    Both,
    /// Listed in docs/formats/manifest.md.
    ParserAlone,
}

const MANIFEST: &str = r#"{"id":"mentatlab.wasm-example","version":"1.2.0-rc.1+b.2","runtime":"wasm","module":"agent.wasm","schema":1,
    "wasm":{"engine":"wasmtime","memory":{"initial":16,"maximum":64},"deterministic":true,
    "capabilities":["network:http:*.openai.com:8080","filesystem:read:/tmp","filesystem:write:/","env:OPENAI_API_KEY",
    "compute:memory=64MiB,cpu_ms=1000","extension:media:a/b"],
    "wasi":{"version":"preview2","preopens":{"/data":"read-only","/":"read-write"},"env":["MODE=fast","LOG="]}}}"#;

/// A change of the manifest above, and whom it is refused by.
const REFUSED: &[(&str, &str, Judge)] = &[
    ("\"runtime\":\"wasm\"", "\"extra\":1,\"runtime\":\"wasm\"", Judge::Both),
    ("\"engine\"", "\"engin\":\"wasmtime\",\"engine\"", Judge::Both),
    ("\"initial\"", "\"minimum\":1,\"initial\"", Judge::Both),
    ("\"preopens\"", "\"mounts\":{},\"preopens\"", Judge::Both),
    ("\"id\":\"mentatlab.wasm-example\",", "", Judge::Both),
    ("\"version\":\"1.2.0-rc.1+b.2\",", "", Judge::Both),
    ("\"runtime\":\"wasm\",", "", Judge::Both),
    ("\"module\":\"agent.wasm\",", "", Judge::Both),
    ("mentatlab.wasm-example", "Mentat", Judge::Both),
    ("mentatlab.wasm-example", "a..b", Judge::Both),
    ("mentatlab.wasm-example", ".a", Judge::Both),
    ("mentatlab.wasm-example", "-a", Judge::Both),
    ("\"mentatlab.wasm-example\"", "5", Judge::Both),
    ("1.2.0-rc.1+b.2", "1.2", Judge::Both),
    ("1.2.0-rc.1+b.2", "01.2.0", Judge::Both),
    ("1.2.0-rc.1+b.2", "1.2.0-01", Judge::Both),
    ("1.2.0-rc.1+b.2", "1.2.0-", Judge::Both),
    ("1.2.0-rc.1+b.2", "1.2.0+", Judge::Both),
    ("\"runtime\":\"wasm\"", "\"runtime\":\"ruby\"", Judge::Both),
    ("\"runtime\":\"wasm\"", "\"runtime\":\"python 3\"", Judge::Both),
    ("\"runtime\":\"wasm\"", "\"runtime\":\"python3\"", Judge::Both),
    ("agent.wasm", "../agent.wasm", Judge::Both),
    ("agent.wasm", "..", Judge::Both),
    ("agent.wasm", "", Judge::Both),
    ("agent.wasm", "c:agent", Judge::Both),
    ("\"schema\":1", "\"schema\":2", Judge::Both),
    ("\"engine\":\"wasmtime\"", "\"engine\":\"wasmedge\"", Judge::Both),
    ("\"initial\":16", "\"initial\":0", Judge::Both),
    ("\"initial\":16", "\"initial\":1.5", Judge::Both),
    ("\"initial\":16", "\"initial\":null", Judge::Both),
    ("\"initial\":16", "\"initial\":\"16\"", Judge::Both),
    ("\"maximum\":64", "\"maximum\":4097", Judge::Both),
    ("\"deterministic\":true", "\"deterministic\":\"yes\"", Judge::Both),
    ("env:OPENAI_API_KEY", "env:OPENAI-API-KEY", Judge::Both),
    ("env:OPENAI_API_KEY", "environment:A", Judge::Both),
    ("filesystem:read:/tmp", "filesystem:exec:/tmp", Judge::Both),
    ("filesystem:read:/tmp", "filesystem:read:tmp", Judge::Both),
    ("filesystem:read:/tmp", "filesystem:read:/a/../b", Judge::Both),
    ("filesystem:read:/tmp", "filesystem:read:/tmp/", Judge::Both),
    ("network:http:*.openai.com:8080", "network:udp:a.example", Judge::Both),
    ("network:http:*.openai.com:8080", "network:http:a_b.example", Judge::Both),
    ("network:http:*.openai.com:8080", "network:http:*", Judge::Both),
    ("network:http:*.openai.com:8080", "network:http:a.example:080", Judge::Both),
    ("compute:memory=64MiB,cpu_ms=1000", "compute:memory=64MB", Judge::Both),
    ("compute:memory=64MiB,cpu_ms=1000", "compute:cpu_ms=0", Judge::Both),
    ("compute:memory=64MiB,cpu_ms=1000", "compute:", Judge::Both),
    ("extension:media:a/b", "extension:Media", Judge::Both),
    ("extension:media:a/b", "extension:media:", Judge::Both),
    ("preview2", "preview3", Judge::Both),
    ("read-only", "rw", Judge::Both),
    ("/data", "data", Judge::Both),
    ("LOG=", "LOG", Judge::Both),
    ("LOG=", "1LOG=", Judge::Both),
    ("\"initial\":16", "\"initial\":65", Judge::ParserAlone),
    ("LOG=", "MODE=slow", Judge::ParserAlone),
    ("compute:memory=64MiB,cpu_ms=1000", "compute:cpu_ms=1,cpu_ms=1", Judge::ParserAlone),
    ("network:http:*.openai.com:8080", "network:http:a.example:65536", Judge::ParserAlone),
    ("network:http:*.openai.com:8080", "network:http:*.com", Judge::ParserAlone),
    ("network:http:*.openai.com:8080", "network:http:1.2.3", Judge::ParserAlone),
];

fn parses(manifest: &Value) -> bool {
    let value = serde_json::from_value::<trust_store::json::Value>(manifest.clone()).unwrap();
    Manifest::from_document(value).is_ok()
}

#[test]
fn the_manifests_schema_agrees_with_the_parser() {
    let good: Value = serde_json::from_str(MANIFEST).unwrap();
    let container = json!({
        "id": "a", "version": "0.0.0", "runtime": "node22",
        "image": format!("r.example/x@sha256:{}", "a".repeat(64)),
    });
    let pipeline = json!({ "id": "a", "version": "0.0.0", "runtime": "pipeline", "module": "pipeline.json" });
    let mut cases =
        vec![(good.clone(), true, true), (container.clone(), true, true), (pipeline.clone(), true, true)];
    for bad in [json!({ "image": container["image"] }), json!({ "wasm": {} }), json!({ "module": "a/b" })] {
        let mut changed = pipeline.clone();
        for (key, value) in bad.as_object().unwrap() {
            changed[key] = value.clone();
        }
        cases.push((changed, false, false));
    }
    let mut attested = good;
    attested["attestation"] = json!({
        "version": 2, "bundle": "m.sigstore.json", "certificate_chain": ["x"], "revocation": { "crl": ["AA=="] },
        "further_bundles": ["AAAA"], "signer": { "subject": "a", "issuer": "b" }, "signature": "c2ln",
    });
    cases.push((attested, true, true));
    for bad in [
        json!({ "image": "r.example/x:latest" }),
        json!({ "image": null, "module": "m.wasm" }),
        json!({ "wasm": {} }),
    ] {
        let mut changed = container.clone();
        for (key, value) in bad.as_object().unwrap() {
            changed[key] = value.clone();
        }
        cases.push((changed, false, false));
    }
    for (from, to, judge) in REFUSED {
        let text = MANIFEST.replacen(from, to, 1);
        assert_ne!(text, MANIFEST, "{from} is not in the example");
        cases.push((serde_json::from_str(&text).unwrap(), false, *judge == Judge::ParserAlone));
    }
    for (manifest, by_parser, _) in &cases {
        assert_eq!(parses(manifest), *by_parser, "the parser: {manifest}");
    }
    let Some(python) = python(&["jsonschema"], "jsonschema") else { return };
    let validate = r#"
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
wrong = [(case, expected) for case, expected in json.load(open(sys.argv[2])) if validator.is_valid(case) != expected]
print(json.dumps(wrong))
sys.exit(bool(wrong))
"#;
    let dir = tempfile::tempdir().unwrap();
    let (schema, file) = (dir.path().join("schema.json"), dir.path().join("cases.json"));
    fs::write(&schema, JSON_SCHEMA).unwrap();
    let listed: Vec<_> = cases.iter().map(|(manifest, _, by_schema)| json!([manifest, by_schema])).collect();
    fs::write(&file, serde_json::to_string(&listed).unwrap()).unwrap();
    let (ok, said) = script(&python, validate, &[schema.to_str().unwrap(), file.to_str().unwrap()]);
    assert!(ok, "{said}");
}

#[test]
fn every_manifest_of_the_tree_is_valid_by_the_schema() {
    let Some(python) = python(&["jsonschema"], "jsonschema") else { return };
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
    let mut open = vec![sdk];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_name().to_str() {
                Some("target" | "node_modules") => {}
                Some("manifest.yaml") => {
                    let value =
                        trust_store_files::yaml::parse("manifest", &fs::read(entry.path()).unwrap(), 1 << 20);
                    found.push(serde_json::to_value(value.unwrap()).unwrap());
                }
                _ if entry.path().is_dir() => open.push(entry.path()),
                _ => {}
            }
        }
    }
    assert!(!found.is_empty());
    let validate = "import json,sys\nfrom jsonschema import Draft202012Validator as V\n\
                    for m in json.loads(sys.argv[2]): V(json.loads(sys.argv[1])).validate(m)\n";
    let (ok, said) = script(&python, validate, &[JSON_SCHEMA, &serde_json::to_string(&found).unwrap()]);
    assert!(ok, "{said}");
}
