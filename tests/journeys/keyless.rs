//! Signing without a key that anybody keeps: by an identity token. And what may be named to be signed: a folder, a manifest, a
//! module.

use std::fs;
use std::path::Path;
use std::process::Command;

use mentat_tests::agent::{enrol, sentiment};
use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish};
use mentat_tests::stack::Stack;

const EMAIL: &str = "ci@example.com";

fn token(stack: &Stack) -> String {
    stack.ctl(&["pki", "identity-token", "--email", EMAIL]).success().stdout.trim().to_owned()
}

fn verify_bundle(stack: &Stack, bundle: &Path, issuer: &str, artifact: &Path) -> Finished {
    let (bundle, artifact) = (bundle.to_str().unwrap(), artifact.to_str().unwrap());
    let identity = ["--certificate-identity", EMAIL, "--certificate-oidc-issuer", issuer];
    stack.ctl(&[&["verify-bundle", "--bundle", bundle], &identity[..], &[artifact]].concat())
}

#[test]
fn a_release_is_signed_by_a_token_that_stands_in_a_file_the_environment_or_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = sentiment(dir.path(), "agent", |manifest| manifest);
    let agent = folder.to_str().unwrap();
    let signed = |said: Finished| {
        assert_eq!(said.success().json()["signer"], EMAIL);
        let verdict = stack.ctl(&["--json", "verify", agent]).success().json();
        assert_eq!(
            (&verdict["signer"]["subject"], &verdict["trust_level"]),
            (&EMAIL.into(), &"verified".into())
        );
        assert_eq!(verdict["signer"]["issuer"], stack.text("/oidc/url"));
    };

    signed(stack.ctl(&["--json", "sign", agent, "--identity-token", &token(&stack)]));
    let file = dir.path().join("token");
    fs::write(&file, format!("{}\n", token(&stack))).unwrap();
    let file = file.to_str().unwrap();
    signed(stack.ctl(&["--json", "sign", agent, "--identity-token-file", file]));
    // As a pipeline has it: addresses and a token, and no file but the agent.
    let with_variable = |token: &str, more: &[&str]| {
        let mut command = Command::new(binary("mentatctl"));
        command.env("MENTAT_HOME", stack.home()).env("SIGSTORE_ID_TOKEN", token);
        command.args(["--json", "sign", agent, "--log-url", &stack.text("/log/url")]);
        command.args(["--tsa-url", &stack.text("/tsa/url")]).args(more);
        finish(command, b"")
    };
    signed(with_variable(&token(&stack), &["--ca-url", &stack.text("/ca/url")]));
    // No key is left, and the certificate is one of minutes.
    assert_eq!(fs::read_dir(stack.home()).unwrap().count(), 0);
    let listed = stack.ctl(&["--json", "pki", "list", "--identity", EMAIL]).success().stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");

    // Whoever names a key means it, whatever the environment holds.
    let (cert, key) = enrol(&stack, "dev@example.com", "dev");
    let own = with_variable("no token at all", &["--cert", &cert, "--key", &key]).success().json();
    assert_eq!(own["signer"], "dev@example.com");
    stack
        .ctl(&["sign", agent, "--identity-token-file", file, "--key", &key])
        .refused(2, "cannot be used with");
    let refused = stack.ctl(&["sign", agent, "--identity-token", "no token at all"]).refused(1, "malformed");
    assert!(!refused.stderr.contains("no token at all"), "a token is a secret: {}", refused.stderr);
    fs::write(file, "\n").unwrap();
    stack
        .ctl(&["sign", agent, "--identity-token-file", file])
        .refused(2, "no identity token")
        .one_clear_line();
    stack.ctl(&["sign", agent, "--identity-token-file", "/none"]).refused(2, "/none");
}

#[test]
fn a_module_is_signed_with_the_manifest_that_names_it_and_as_a_file_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, key) = enrol(&stack, EMAIL, "ci");
    let sign = |path: &Path, more: &[&str]| {
        let named = ["--json", "sign", path.to_str().unwrap(), "--cert", &cert, "--key", &key];
        stack.ctl(&[&named[..], more].concat())
    };
    let folder = sentiment(dir.path(), "agent", |manifest| manifest);
    let (module, manifest) = (folder.join("sentiment.wasm"), folder.join("manifest.yaml"));
    // The module is not there yet: it is made of its text, as for the folder.
    assert_eq!(sign(&module, &[]).success().json()["agent"], "mentatlab.sentiment");
    for named in [&folder, &manifest, &module] {
        stack.ctl(&["verify", named.to_str().unwrap()]).success();
    }
    // A module is one by its octets too, and a manifest is another's when it names another.
    let other = folder.join("other");
    fs::copy(&module, &other).unwrap();
    sign(&other, &[]).refused(2, "is the manifest of");
    let in_text = ["sign", other.to_str().unwrap(), "--cert", &cert, "--key", &key];
    stack.ctl(&in_text).refused(2, "is the manifest of").one_clear_line();
    stack.ctl(&["verify", other.to_str().unwrap()]).refused(2, "is the manifest of");
    let text = fs::read_to_string(&manifest).unwrap().replace("module: sentiment.wasm", "module: other");
    fs::write(folder.join("other.yaml"), text).unwrap();
    assert_eq!(sign(&other, &["--manifest", "other.yaml"]).success().json()["agent"], "mentatlab.sentiment");
    stack.ctl(&["verify", folder.join("other.yaml").to_str().unwrap()]).success();

    // Without a manifest it is a file: whoever verifies files accepts it, no executor does.
    let alone = dir.path().join("alone.wasm");
    fs::copy(&module, &alone).unwrap();
    let bundle = dir.path().join("alone.wasm.sigstore.json");
    let (waiting, elsewhere) =
        (dir.path().join("alone.wasm.pending.json"), ["--log-url", "http://127.0.0.1:9"]);
    sign(&alone, &elsewhere).refused(69, "log submit --resume");
    assert!(waiting.exists() && !bundle.exists());
    let resume = ["--json", "log", "submit", "--resume", alone.to_str().unwrap()];
    stack.ctl(&[&resume[..], &elsewhere].concat()).refused(69, "stays pending");
    fs::write(&alone, b"\0asm\x01\0\0\0").unwrap();
    stack.ctl(&resume).refused(2, "changed since it was signed");
    fs::copy(&module, &alone).unwrap();
    let done = stack.ctl(&resume).success().json();
    assert_eq!((&done["signer"], waiting.exists()), (&EMAIL.into(), false));
    // Of those whom it enrolled, the authority itself is the issuer.
    let issuer = stack.text("/ca/url");
    verify_bundle(&stack, &bundle, &issuer, &alone).success();
    verify_bundle(&stack, &bundle, &issuer, &manifest).refused(3, "digest_mismatch");
    assert!(sign(&alone, &[]).success().json()["log_index"].is_u64());
    verify_bundle(&stack, &bundle, &issuer, &alone).success();
    stack.ctl(&["verify", alone.to_str().unwrap()]).refused(2, "manifest.yaml");
    fs::write(&alone, b"hello").unwrap();
    sign(&alone, &[]).refused(2, "no WebAssembly module");
}
