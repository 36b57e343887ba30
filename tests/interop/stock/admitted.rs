//! What a stock client signed runs in our executor, until its certificate is revoked. The stock client goes on accepting it.

use std::fs;
use std::time::Duration;

use mentat_tests::agent::sentiment;
use mentat_tests::clock::Deadline;
use serde_json::Value;

use super::client::{self, Client};
use super::{Claim, EMAIL, Payload, Profile, Scene, Trust};

/// A release that a client signed: its folder, and the bundle as the client wrote it.
struct Signed {
    folder: String,
    bundle: std::path::PathBuf,
    module: std::path::PathBuf,
    by: usize,
}

fn sign(scene: &Scene, client: &dyn Client, by: usize, profile: Profile) -> Signed {
    let name = format!("by-{}-{profile:?}", client.name()).to_lowercase();
    let folder = sentiment(scene.dir.path(), &name, |manifest| {
        manifest.replace("mentatlab.sentiment", &format!("mentatlab.{name}"))
    });
    let path = folder.to_str().unwrap().to_owned();
    let statement = scene.stack.ctl(&["statement", &path]).success().stdout;
    fs::write(scene.path("statement.json"), statement).unwrap();
    let bundle = scene.path(&format!("{name}.sigstore.json"));
    client.sign_as_given(scene, &bundle).unwrap_or_else(|said| panic!("{name}: {said}"));
    let given = bundle.to_str().unwrap();
    scene.stack.ctl(&["attach", "--bundle", given, &path]).success();
    Signed { folder: path, module: folder.join("sentiment.wasm"), bundle, by }
}

#[test]
fn what_a_stock_client_signed_is_admitted_until_its_certificate_is_revoked() {
    // Over TLS, where every one of them signs.
    let mut scene = Scene::with(&["--tls"], Trust::Repository);
    let clients = client::installed();
    for client in &clients {
        client.follow(&scene).unwrap_or_else(|said| panic!("{}: {said}", client.name()));
    }
    let mut releases = Vec::new();
    for profile in [Profile::Keyless, Profile::Developer] {
        scene.profile = profile;
        for (by, client) in clients.iter().enumerate().filter(|(_, client)| client.signs(&scene)) {
            releases.push(sign(&scene, &**client, by, profile));
        }
    }
    let run = |release: &Signed| {
        scene.stack.ctl_with_input(&["--json", "run", &release.folder, "--input", "-"], b"good")
    };
    for release in &releases {
        scene.stack.ctl(&["verify", &release.folder]).success();
        run(release).success();
    }
    // A bundle about one release is not evidence about another.
    if let [first, second, ..] = releases.as_slice() {
        let given = first.bundle.to_str().unwrap();
        scene.stack.ctl(&["attach", "--bundle", given, &second.folder]).refused(3, "another release");
    }
    // Where the policy names somebody else, nobody of these is admitted.
    let text = fs::read_to_string(scene.stack.text("/policy")).unwrap();
    let mut policy: Value = serde_json::from_str(&text).unwrap();
    policy["identities"][0]["subject"] = "boss@example.org".into();
    let others = scene.path("others.yaml");
    fs::write(&others, policy.to_string()).unwrap();
    for release in &releases {
        let others = others.to_str().unwrap();
        scene.stack.ctl(&["verify", "--policy", others, &release.folder]).refused(3, "identity_denied");
    }

    let listed = scene.stack.ctl(&["--json", "pki", "list", "--identity", EMAIL]).success().stdout;
    for record in listed.lines() {
        let record: Value = serde_json::from_str(record).unwrap();
        let serial = record["serial"].as_str().unwrap();
        scene.stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]).success();
    }
    let deadline = Deadline::after(Duration::from_secs(180));
    for release in &releases {
        loop {
            let refused = run(release);
            if refused.code != 0 {
                let said = format!("{}{}", refused.stdout, refused.stderr);
                assert!(said.contains("revoked"), "{said}");
                break;
            }
            assert!(!deadline.passed(), "the revocation did not arrive");
            std::thread::sleep(Duration::from_millis(500));
        }
        // The client that signed it knows no revocation: to it, the same evidence is as good as before.
        let claim = Claim {
            payload: Payload::Statement,
            predicate_type: "https://mentat.internal/agent-release/v1",
            bundle: &release.bundle,
            artifact: &release.module,
            email: EMAIL,
        };
        let client = &clients[release.by];
        if client.is_stock() && client.verifies(Payload::Statement) {
            client.verify(&scene, &claim).unwrap_or_else(|said| panic!("{}: {said}", client.name()));
        }
    }
}
