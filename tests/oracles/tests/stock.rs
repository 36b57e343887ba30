//! Bundles that real services and clients made, with the trusted roots of the public instances: the test data of the crate
//! `sigstore-verify`, read where cargo put its source. Each is decided by us and by that crate. Nothing is fetched.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mentat_oracles::exceptions::{Verdicts, settle};
use mentat_oracles::sigstore::Peer;
use serde_json::{Value, json};
use trust_store::UnixTime;
use trust_store::bundle::{Bundle, Content};
use trust_store::conformance::decide_bundle;
use trust_store::provider::AwsLc;
use trust_store::statement::Statement;

/// Long after every bundle was made: what is decided is the time of signing.
const NOW: UnixTime = UnixTime(1_800_000_000);

/// A bundle, and the trusted root that it is of.
struct Case {
    bundle: &'static str,
    root: Root,
}

#[derive(Clone, Copy)]
enum Root {
    Production,
    Staging,
    /// A file beside the bundle.
    File(&'static str),
}

const CASES: &[Case] = &[
    Case { bundle: "bundles/bundle_cve_2022_36056.txt.sigstore", root: Root::Staging },
    Case { bundle: "bundles/bundle_invalid_version.txt.sigstore", root: Root::Production },
    Case { bundle: "bundles/bundle_no_cert_v1.txt.sigstore", root: Root::Production },
    Case { bundle: "bundles/bundle_no_checkpoint.txt.sigstore", root: Root::Staging },
    Case { bundle: "bundles/bundle_no_log_entry.txt.sigstore", root: Root::Production },
    Case { bundle: "bundles/bundle_v3_github.whl.sigstore", root: Root::Production },
    Case { bundle: "bundles/bundle_v3_no_signed_time.txt.sigstore.json", root: Root::Staging },
    Case { bundle: "bundles/conda-attestation-rekor2.sigstore.json", root: Root::Staging },
    Case { bundle: "bundles/conda-attestation.sigstore.json", root: Root::Production },
    Case { bundle: "bundles/cosign-v3-blob.sigstore.json", root: Root::Production },
    Case { bundle: "bundles/dsse-2sigs.sigstore.json", root: Root::Production },
    Case { bundle: "bundles/dsse.sigstore.json", root: Root::Staging },
    Case { bundle: "bundles/github-private-attestation.sigstore.json", root: Root::File("timestamps/github_trusted_root.json") },
    Case { bundle: "bundles/othername.sigstore.json", root: Root::Staging },
    Case { bundle: "bundles/sigstore.js@2.0.0-provenance.sigstore.json", root: Root::Production },
    Case { bundle: "invalid-ct-key_fail/bundle.sigstore.json", root: Root::File("invalid-ct-key_fail/trusted_root.json") },
    Case {
        bundle: "sct-multi-intermediate/staging_bundle.sigstore.json",
        root: Root::File("sct-multi-intermediate/staging_trusted_root.json"),
    },
    Case { bundle: "timestamps/valid_bundle.json", root: Root::File("timestamps/valid_trusted_root.json") },
    Case { bundle: "timestamps/github_sha384_bundle.json", root: Root::File("timestamps/github_trusted_root.json") },
    Case { bundle: "upstream/sigstore-python/a.dsse.staging-rekor-v2.txt.sigstore.json", root: Root::Staging },
    Case { bundle: "upstream/sigstore-python/staging-rekor-v2.txt.sigstore.json", root: Root::Staging },
];

/// Folders of the crates whose files are read.
struct Sources {
    verify: PathBuf,
    roots: PathBuf,
}

impl Sources {
    fn find() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline", "--locked", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .output()
            .expect("cargo metadata");
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata");
        let folder = |name: &str| {
            let packages = metadata["packages"].as_array().expect("packages");
            let package = packages.iter().find(|package| package["name"] == name).expect(name);
            Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder").to_owned()
        };
        Self { verify: folder("sigstore-verify").join("test_data"), roots: folder("sigstore-trust-root").join("src") }
    }

    fn read(&self, name: &str) -> String {
        let path = self.verify.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn root(&self, root: Root) -> String {
        let embedded = |name: &str| std::fs::read_to_string(self.roots.join(name)).expect(name);
        match root {
            Root::Production => embedded("trusted_root.json"),
            Root::Staging => embedded("trusted_root_staging.json"),
            Root::File(name) => self.read(name),
        }
    }
}

/// The digest that the bundle says it is about: whether the bundle holds together is what is asked.
fn digest(bundle: &str) -> String {
    let none = || "0".repeat(64);
    match Bundle::parse(bundle.as_bytes()).map(|bundle| bundle.content) {
        Ok(Content::Dsse(envelope)) => Statement::parse(&envelope.payload)
            .ok()
            .and_then(|statement| statement.subject.first()?.digest.get("sha256").cloned())
            .unwrap_or_else(none),
        Ok(Content::Message { digest: Some((_, digest)), .. }) => {
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        _ => none(),
    }
}

fn ours(bundle: &str, root: &str, digest: &str, key: Option<&str>) -> Result<(), String> {
    let (Ok(bundle), Ok(root)) = (serde_json::from_str::<Value>(bundle), serde_json::from_str::<Value>(root)) else {
        return Err("no JSON".into());
    };
    let identity = key.is_none().then_some("**");
    let line = json!({"id": 1, "bundle": bundle, "trusted_root": root, "artifact_digest": format!("sha256:{digest}"),
        "identity": identity, "issuer": null, "key": key, "policy": null, "time": null,
        "revocation": {"mode": "none", "crls": [], "ocsp": []}});
    let answer: Value = serde_json::from_str(&decide_bundle(&line.to_string(), NOW, Arc::new(AwsLc))).unwrap();
    if answer["decision"] == "admit" { Ok(()) } else { Err(format!("{}: {}", answer["reason"], answer["detail"])) }
}

fn theirs(bundle: &str, root: &str, digest: &str) -> Result<(), String> {
    Peer::new(root.as_bytes())?.verify_digest(bundle.as_bytes(), digest)
}

#[test]
fn bundles_of_real_services_get_the_same_verdict() {
    let sources = Sources::find();
    let mut all = Vec::new();
    for case in CASES {
        let (bundle, root) = (sources.read(case.bundle), sources.root(case.root));
        let digest = digest(&bundle);
        all.push(Verdicts {
            case: case.bundle.into(),
            ours: ours(&bundle, &root, &digest, None),
            theirs: theirs(&bundle, &root, &digest),
        });
    }
    let accepted = all.iter().filter(|verdicts| verdicts.ours.is_ok()).count();
    for verdicts in &all {
        println!("{}: ours {:?}, theirs {:?}", verdicts.case, verdicts.ours, verdicts.theirs);
    }
    settle("sigstore-stock", &all);
    assert!(accepted >= 8, "{accepted} bundles were accepted");
}

#[test]
fn a_bundle_with_a_bare_key_is_verified_under_that_key_and_no_other() {
    let sources = Sources::find();
    let (bundle, root) = (sources.read("managed-key/bundle.sigstore.json"), sources.root(Root::Production));
    let key = sources.read("managed-key/key.pub");
    let digest = digest(&bundle);
    assert_eq!(ours(&bundle, &root, &digest, Some(&key)), Ok(()));
    assert!(ours(&bundle, &root, &"0".repeat(64), Some(&key)).is_err());
    let other = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";
    assert!(ours(&bundle, &root, &digest, Some(other)).is_err());
}
