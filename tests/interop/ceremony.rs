//! A ceremony by its commands: approvers' keys and the other root are OpenSSL's, and OpenSSL follows the cross-certificate.

use std::path::Path;
use std::process::Command;

use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish};

use crate::{have, run};

/// Runs OpenSSL, which must succeed.
fn openssl(args: &[&str]) {
    let (ok, said) = run("openssl", args);
    assert!(ok, "openssl {args:?}: {said}");
}

fn ca(args: &[&str]) -> Finished {
    let mut command = Command::new(binary("ca-service"));
    command.args(args);
    finish(command, b"")
}

fn config(folder: &Path) -> String {
    let secret = folder.join("passphrase");
    std::fs::write(&secret, "a passphrase of the test").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let folder = folder.display();
    let text = format!(
        r#"
data_dir = "{folder}/data"
status_url = "http://127.0.0.1:1"
identity_issuer = "https://ca.example.org"
[server]
listen = "127.0.0.1:0"
[keys]
passphrase = "file:{folder}/passphrase"
[hierarchy]
crl_shards = 1
[profiles.developer]
rules = "internal"
sct = "absent"
[approvals]
threshold = 2
approvers = [
  {{ name = "alice", public_key_file = "{folder}/alice.pub.pem" }},
  {{ name = "bob", public_key_file = "{folder}/bob.pub.pem" }},
]
"#
    );
    let path = format!("{folder}/ca.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_quorum_founds_an_authority_and_lets_another_root_in() {
    if !have("openssl", "openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    for name in ["alice", "bob"] {
        let (key, public) = (file(&format!("{name}.key")), file(&format!("{name}.pub.pem")));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &key]);
        openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
    }
    let config = config(dir.path());
    ca(&["init", "--config", &config]).refused(78, "ceremony prepare");

    let ceremony = |plan: &str, more: &[&str]| {
        let plan = file(plan);
        let prepare = ["ceremony", "prepare", "--config", &config, "--out", &plan];
        let prepared = ca(&[&prepare[..], more].concat()).success();
        ca(&[&prepare[..], more].concat()).refused(1, "exists");
        let papers: Vec<String> = ["alice", "bob"]
            .map(|name| {
                let paper = format!("{plan}.{name}");
                let shown = ca(&[
                    "ceremony",
                    "approve",
                    "--plan",
                    &plan,
                    "--approver",
                    name,
                    "--key",
                    &file(&format!("{name}.key")),
                    "--out",
                    &paper,
                ])
                .success();
                assert_eq!(shown.json()["plan_sha256"], prepared.json()["plan_sha256"]);
                paper
            })
            .into();
        let hold = ["ceremony", "hold", "--config", &config, "--plan", &plan, "--approval", &papers[0]];
        ca(&hold).refused(78, "quorum_missing");
        ca(&[&hold[..], &["--approval", &papers[1]]].concat()).success().json()
    };
    let founded = ceremony("founding.json", &[]);
    assert_eq!(founded["approved_by"], serde_json::json!(["alice", "bob"]));
    let transcript = founded["transcript"].as_str().unwrap();
    let verified = ca(&["ceremony", "verify", "--transcript", transcript]).success().json();
    assert_eq!(verified["finished"], true);

    // Another organisation: a root and a CA below it, both OpenSSL's.
    let (their_key, their_root) = (file("their.key"), file("their-root.pem"));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
        "-nodes",
        "-sha384",
        "-days",
        "900",
        "-subj",
        "/C=DE/O=Other/CN=Other Root",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout",
        &their_key,
        "-out",
        &their_root,
    ]);
    let (key, request, issuer, extensions) =
        (file("issuer.key"), file("issuer.csr"), file("issuer.pem"), file("issuer.ext"));
    std::fs::write(
        &extensions,
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nextendedKeyUsage=codeSigning\n",
    )
    .unwrap();
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/C=DE/O=Other/CN=Other Issuer",
        "-keyout",
        &key,
        "-out",
        &request,
    ]);
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &their_root,
        "-CAkey",
        &their_key,
        "-CAcreateserial",
        "-days",
        "300",
        "-extfile",
        &extensions,
        "-out",
        &issuer,
    ]);
    let root = founded["root"].as_str().unwrap();
    let (ok, said) = run("openssl", &["verify", "-CAfile", root, &issuer]);
    assert!(!ok, "strangers yet: {said}");

    let description = file("extension.toml");
    std::fs::write(
        &description,
        "name = \"let the other root in\"\n[[steps]]\nmake = \"cross-certificate\"\nname = \"other\"\n\
         certificate = \"their-root.pem\"\ndays = 700\n[[steps]]\nmake = \"revocation-lists\"\n",
    )
    .unwrap();
    let held = ceremony("extension.json", &["--description", &description]);
    let cross = held["cross_certificates"][0].as_str().unwrap();
    openssl(&["verify", "-x509_strict", "-CAfile", root, cross]);
    openssl(&["verify", "-CAfile", root, "-untrusted", cross, &issuer]);
    ca(&["check", "--config", &config]).success();
}
