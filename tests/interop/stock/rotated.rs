//! Every role gets new keys, one after the other, and what was signed under the old ones stays good: for us, and for whoever
//! follows the repository from its first root.

use std::path::PathBuf;
use std::time::Duration;

use mentat_tests::agent::{enrol, sentiment};
use mentat_tests::clock::Deadline;
use serde_json::Value;

use super::client::{self, Client};
use super::{Claim, EMAIL, PROVENANCE, Payload, Scene, Trust};

/// Signs the blob under the present keys.
fn sign(scene: &Scene, client: &dyn Client, name: &str) -> PathBuf {
    let bundle = scene.path(&format!("{name}-{}.sigstore.json", client.name()));
    client.sign(scene, Payload::Blob, &bundle).unwrap_or_else(|said| panic!("{name}: {said}"));
    bundle
}

fn verify(scene: &Scene, client: &dyn Client, bundle: &PathBuf) {
    let artifact = scene.artifact();
    let claim = Claim {
        payload: Payload::Blob,
        predicate_type: PROVENANCE,
        bundle,
        artifact: &artifact,
        email: EMAIL,
    };
    client
        .verify(scene, &claim)
        .unwrap_or_else(|said| panic!("{} on {}: {said}", client.name(), bundle.display()));
}

/// A release by a developer's certificate of its own.
fn release(scene: &Scene, name: &str) -> (String, String) {
    let (certificate, key) = enrol(&scene.stack, &format!("{name}@example.org"), name);
    let folder = sentiment(scene.dir.path(), name, |manifest| {
        manifest.replace("mentatlab.sentiment", &format!("mentatlab.{name}"))
    });
    let folder = folder.to_str().unwrap().to_owned();
    scene.stack.ctl(&["sign", &folder, "--cert", &certificate, "--key", &key]).success();
    (folder, certificate)
}

/// How much the trusted root lists of each kind.
fn listed(scene: &Scene) -> [usize; 4] {
    let text = std::fs::read_to_string(scene.stack.text("/trusted_root")).unwrap();
    let root: Value = serde_json::from_str(&text).unwrap();
    ["certificateAuthorities", "timestampAuthorities", "tlogs", "ctlogs"]
        .map(|member| root[member].as_array().unwrap().len())
}

#[test]
fn what_was_signed_stays_good_through_new_keys_of_every_role() {
    let mut scene = Scene::new();
    let clients = client::installed();
    // Ours, and the stock clients that are there.
    let signers = clients.iter().filter(|client| client.signs(&scene));
    let mut bundles: Vec<PathBuf> = signers.map(|client| sign(&scene, &**client, "first")).collect();
    let (old, _) = release(&scene, "old");
    assert_eq!(listed(&scene), [1, 1, 1, 1]);
    scene.stack.ctl(&["trust", "rotate", "--authority", "code-signing"]).refused(78, "another");

    for (place, (flag, name, then)) in [
        ("--authority", "timestamp-authority", [1, 2, 1, 1]),
        ("--authority", "time-stamping", [1, 3, 1, 1]),
        ("--authority", "ocsp-responder", [1, 3, 1, 1]),
        ("--authority", "code-signing", [2, 3, 1, 1]),
        ("--authority", "statement", [2, 3, 1, 1]),
        ("--log", "signing", [2, 3, 2, 1]),
        ("--log", "issuance", [2, 3, 2, 2]),
        ("--log", "event", [2, 3, 2, 2]),
        // The root, and then the CAs that it certifies: the anchor of before stays.
        ("--authority", "root", [2, 3, 2, 2]),
        ("--authority", "code-signing", [3, 3, 2, 2]),
        ("--authority", "time-stamping", [3, 4, 2, 2]),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(scene.stack.down(), 0);
        scene.stack.ctl(&["trust", "rotate", flag, name]).success();
        scene.stack.restart();
        assert_eq!(listed(&scene), then, "{name}");
        scene.stack.ctl(&["trust", "lint"]).success();
        bundles.push(sign(&scene, &*clients[0], &format!("after-{place}-{name}")));
        for bundle in [&bundles[0], bundles.last().unwrap()] {
            verify(&scene, &*clients[0], bundle);
        }
    }
    // The repository's own keys, all of them; whoever pinned the first root follows.
    let roles = ["root", "targets", "snapshot", "timestamp"].map(|role| ["--role", role]).concat();
    scene.stack.ctl(&[&["trust", "rotate"], &roles[..]].concat()).success();
    scene.trust = Trust::Repository;
    for client in &clients {
        client.follow(&scene).unwrap_or_else(|said| panic!("{}: {said}", client.name()));
        let newest = client.signs(&scene).then(|| sign(&scene, &**client, "last"));
        for bundle in bundles.iter().chain(&newest) {
            verify(&scene, &**client, bundle);
        }
    }

    // The executor: releases of before and after run, and each is refused once its certificate is revoked, by its own issuer.
    let (new, _) = release(&scene, "new");
    let run = |folder: &str| scene.stack.ctl_with_input(&["--json", "run", folder, "--input", "-"], b"good");
    let deadline = Deadline::after(Duration::from_secs(180));
    for folder in [&old, &new] {
        // Its evidence about shards and issuers that are new to it comes with the next fetch.
        while run(folder).code != 0 {
            assert!(!deadline.passed(), "{}", run(folder).stderr);
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    for (folder, name) in [(&old, "old"), (&new, "new")] {
        let identity = format!("{name}@example.org");
        let record = scene.stack.ctl(&["--json", "pki", "list", "--identity", &identity]).success().stdout;
        let record: Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
        let serial = record["serial"].as_str().unwrap();
        scene.stack.ctl(&["pki", "revoke", "--serial", serial, "--reason", "key-compromise"]).success();
        loop {
            let refused = run(folder);
            if refused.code != 0 {
                let said = format!("{}{}", refused.stdout, refused.stderr);
                assert!(said.contains("revoked"), "{said}");
                break;
            }
            assert!(!deadline.passed(), "the revocation did not arrive");
            std::thread::sleep(Duration::from_millis(500));
        }
        if name == "old" {
            run(&new).success();
        }
    }
}
