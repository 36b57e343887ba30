//! What `mentatctl sign` writes is a bundle of theirs: `cosign verify-blob` takes it for the module as it is, whatever was named to
//! be signed and whoever signed.

use std::fs;
use std::path::Path;
use std::process::Command;

use mentat_tests::agent::{enrol, sentiment};

use super::client::{program, run};
use super::{EMAIL, Scene};

/// `cosign verify-blob` with the stack's trusted root.
fn verify_blob(
    scene: &Scene,
    cosign: &Path,
    bundle: &Path,
    issuer: &str,
    artifact: &Path,
) -> Result<(), String> {
    let mut command = Command::new(cosign);
    command.arg("verify-blob").arg("--bundle").arg(bundle);
    command.args(["--trusted-root", &scene.stack.text("/trusted_root")]);
    command.args(["--certificate-identity", EMAIL, "--certificate-oidc-issuer", issuer]);
    run(scene, command.arg(artifact))
}

#[test]
fn cosign_verifies_what_mentatctl_sign_made_of_a_folder_a_manifest_and_a_module() {
    let Some(cosign) = program("cosign") else { return };
    let scene = Scene::new();
    let (certificate, key) = enrol(&scene.stack, EMAIL, "release");
    let token = scene.token();
    let (authority, oidc) = (scene.stack.text("/ca/url"), scene.issuer());
    let signers = [
        (vec!["--cert", &certificate, "--key", &key], &authority),
        (vec!["--identity-token", &token], &oidc),
    ];
    let mut module = scene.path("none");
    for (place, (signer, issuer)) in signers.iter().enumerate() {
        for named in ["", "manifest.yaml", "sentiment.wasm"] {
            let name = format!("release-{place}-{}", named.len());
            let folder = sentiment(scene.dir.path(), &name, |manifest| manifest);
            module = folder.join("sentiment.wasm");
            let target = folder.join(named);
            let sign = ["sign", "--sidecar", target.to_str().unwrap()];
            scene.stack.ctl(&[&sign[..], signer].concat()).success();
            let bundle = folder.join("sentiment.wasm.sigstore.json");
            verify_blob(&scene, &cosign, &bundle, issuer, &module)
                .unwrap_or_else(|said| panic!("{name}: {said}"));
            // The claim is about this module and this signer.
            let other = folder.join("manifest.yaml");
            assert!(verify_blob(&scene, &cosign, &bundle, issuer, &other).is_err(), "{name}: another file");
            let stranger = "https://elsewhere.example";
            assert!(
                verify_blob(&scene, &cosign, &bundle, stranger, &module).is_err(),
                "{name}: another issuer"
            );
            scene.stack.ctl(&["verify", folder.to_str().unwrap()]).success();
        }
        // A module without a manifest.
        let alone = scene.path(&format!("alone-{place}.wasm"));
        fs::copy(&module, &alone).unwrap();
        scene.stack.ctl(&[&["sign", alone.to_str().unwrap()], &signer[..]].concat()).success();
        let bundle = scene.path(&format!("alone-{place}.wasm.sigstore.json"));
        verify_blob(&scene, &cosign, &bundle, issuer, &alone).unwrap_or_else(|said| panic!("alone: {said}"));
    }
    // A bundle that stands in the manifest is the same bundle.
    let folder = sentiment(scene.dir.path(), "inline", |manifest| manifest);
    let inline = folder.to_str().unwrap();
    scene.stack.ctl(&["sign", inline, "--cert", &certificate, "--key", &key]).success();
    let manifest = trust_store_files::ManifestFile::load(&folder.join("manifest.yaml")).unwrap();
    let bundle = folder.join("taken-out.sigstore.json");
    match manifest.block().unwrap().bundle().unwrap() {
        trust_store::attestation::BundleSource::Inline(given) => fs::write(&bundle, given).unwrap(),
        other => panic!("{other:?}"),
    }
    verify_blob(&scene, &cosign, &bundle, &authority, &folder.join("sentiment.wasm")).unwrap();
}
