//! A release goes to a registry and comes back, and what the registry or somebody who writes to it changes is noticed.

use std::fs;
use std::path::Path;
use std::process::Command;

use mentat_tests::agent::{enrol, sentiment, signed};
use mentat_tests::binary::binary;
use mentat_tests::command::{Finished, finish};
use mentat_tests::registry::{Login, Referrers, Registry};
use mentat_tests::stack::Stack;
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn publish(stack: &Stack, folder: &Path, to: &str) -> Value {
    stack.ctl(&["--json", "publish", text(folder), "--to", to]).success().json()
}

#[test]
fn a_release_comes_back_as_it_was_published() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    for referrers in [Referrers::Listed, Referrers::Unknown] {
        let registry = Registry::start(referrers, Login::Open);
        let to = registry.reference("acme/sentiment");
        let published = publish(&stack, &folder, &to);
        assert_eq!(published["tag"], "1.0.0", "{published}");
        // The tag is the last thing that is written.
        let last = registry.shelf.lock().unwrap().requests.last().cloned().unwrap();
        assert_eq!(last, "PUT /v2/acme/sentiment/manifests/1.0.0");
        let count = registry.shelf.lock().unwrap().manifests.len();
        assert_eq!(publish(&stack, &folder, &to), published, "publishing again changes nothing");
        assert_eq!(registry.shelf.lock().unwrap().manifests.len(), count);

        for (name, reference) in [
            ("by-tag", format!("{to}:1.0.0")),
            ("by-digest", published["reference"].as_str().unwrap().to_owned()),
        ] {
            let output = dir.path().join(format!("{referrers:?}-{name}"));
            let pulled =
                stack.ctl(&["--json", "pull", &reference, "--output", text(&output)]).success().json();
            assert_eq!(
                (&pulled["digest"], &pulled["signer"]),
                (&published["digest"], &"dev@example.com".into())
            );
            for file in ["manifest.yaml", "sentiment.wasm"] {
                assert_eq!(
                    fs::read(output.join(file)).unwrap(),
                    fs::read(folder.join(file)).unwrap(),
                    "{file}"
                );
            }
            stack.ctl(&["verify", text(&output)]).success();
            stack.ctl(&["pull", &reference, "--output", text(&output)]).refused(1, "exists already");
        }
    }
    // The layout that other tools read: one layer, and the bundle where stock clients look for it.
    let registry = Registry::start(Referrers::Unknown, Login::Open);
    stack.ctl(&["sign", "--sidecar", text(&folder)]).success();
    publish(&stack, &folder, &registry.reference("a:latest"));
    let output = dir.path().join("sidecar");
    stack.ctl(&["pull", &registry.reference("a:latest"), "--output", text(&output)]).success();
    let shelf = registry.shelf.lock().unwrap();
    let image: Value = serde_json::from_slice(&shelf.manifests["latest"].1).unwrap();
    assert_eq!(image["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(image["layers"].as_array().unwrap().len(), 1);
    assert_eq!(image["layers"][0]["mediaType"], "application/wasm");
    let bundle = fs::read(folder.join("sentiment.wasm.sigstore.json")).unwrap();
    assert!(shelf.blobs.values().any(|blob| *blob == bundle), "the bundle is a blob of its own");
    assert_eq!(fs::read(output.join("sentiment.wasm.sigstore.json")).unwrap(), bundle);
}

#[test]
fn a_registry_that_lies_is_noticed_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    let registry = Registry::start(Referrers::Unknown, Login::Open);
    let reference = registry.reference("agent:1.0.0");
    publish(&stack, &folder, &registry.reference("agent"));
    let output = dir.path().join("pulls/out");
    fs::create_dir(dir.path().join("pulls")).unwrap();
    let pull = || stack.ctl(&["pull", &reference, "--output", text(&output)]);
    let nothing = || assert_eq!(fs::read_dir(dir.path().join("pulls")).unwrap().count(), 0);

    // Another module under the digest of this one.
    let module = fs::read(folder.join("sentiment.wasm")).unwrap();
    let digest =
        registry.shelf.lock().unwrap().blobs.iter().find(|(_, blob)| **blob == module).unwrap().0.clone();
    let mut altered = module.clone();
    *altered.last_mut().unwrap() ^= 1;
    registry.shelf.lock().unwrap().blobs.insert(digest.clone(), altered);
    pull().refused(1, "digest_mismatch");
    nothing();
    registry.shelf.lock().unwrap().blobs.insert(digest, module);

    // A tag that was moved to other bytes: what is asked for by digest stays what it was.
    let published = publish(&stack, &folder, &registry.reference("agent"));
    let by_digest = published["reference"].as_str().unwrap();
    let name = published["digest"].as_str().unwrap().to_owned();
    let (kind, image) = registry.shelf.lock().unwrap().manifests[&name].clone();
    registry.shelf.lock().unwrap().manifests.insert(name.clone(), (kind.clone(), b"{}".to_vec()));
    stack.ctl(&["pull", by_digest, "--output", text(&output)]).refused(1, "digest_mismatch");
    registry.shelf.lock().unwrap().manifests.insert(name.clone(), (kind, image));

    // Another release under the same version is refused before anything is stored.
    let other = sentiment(dir.path(), "other", |manifest| manifest.replace("wall_ms=5000", "wall_ms=4000"));
    stack.ctl(&["sign", text(&other)]).success();
    let before = registry.shelf.lock().unwrap().manifests.len();
    stack
        .ctl(&["publish", text(&other), "--to", &registry.reference("agent")])
        .refused(1, "published already");
    assert_eq!(registry.shelf.lock().unwrap().manifests.len(), before);

    // Somebody attaches the other release's manifest to this image: the right one is found all the same, and alone it is
    // no release.
    publish(&stack, &other, &registry.reference("agent:other"));
    let list = format!("sha256-{}", name.trim_start_matches("sha256:"));
    let own = registry.shelf.lock().unwrap().manifests[&list].clone();
    let forged = foreign_list(&registry, &own.1);
    let both: Vec<Value> = [entries(&own.1), entries(&forged)].concat();
    registry.shelf.lock().unwrap().manifests.insert(list.clone(), (own.0.clone(), index(&both)));
    pull().success();
    fs::remove_dir_all(&output).unwrap();
    registry.shelf.lock().unwrap().manifests.insert(list.clone(), (own.0.clone(), forged));
    pull().refused(3, "manifest_mismatch");
    nothing();
    registry.shelf.lock().unwrap().manifests.insert(list, own);

    // Revoked since: denied, and nothing is written.
    stack
        .ctl(&[
            "pki",
            "revoke",
            "--cert",
            text(&stack.home().join("signing.crt")),
            "--reason",
            "key-compromise",
        ])
        .success();
    stack.ctl(&["pull", &reference, "--refresh", "--output", text(&output)]).refused(3, "revoked");
    nothing();
}

/// A release whose image names a program for this machine as its module: the image is consistent, and what was attached to the
/// genuine one is attached to it.
#[test]
fn machine_code_as_the_layer_of_an_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let folder = signed(&stack, dir.path(), "agent");
    let registry = Registry::start(Referrers::Unknown, Login::Open);
    let published = publish(&stack, &folder, &registry.reference("agent"));
    let genuine = published["digest"].as_str().unwrap();
    let elf = fs::read(binary("executor")).unwrap()[..4096].to_vec();
    assert!(elf.starts_with(b"\x7fELF"));
    let image = with_layer(&registry, genuine, &elf);
    let reference = format!("{}@{image}", registry.reference("agent"));
    let output = dir.path().join("out");
    stack.ctl(&["pull", &reference, "--output", text(&output)]).refused(3, "digest_mismatch");
    assert!(!output.exists());
    // The same way leads to the genuine one.
    stack.ctl(&["pull", published["reference"].as_str().unwrap(), "--output", text(&output)]).success();
    // And under the genuine digest it is no module of anybody's.
    fs::write(output.join("sentiment.wasm"), &elf).unwrap();
    stack.ctl(&["run", text(&output)]).refused(3, "native_code_refused");
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in trust_store::ArtifactDigest::of(bytes).as_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A copy of an image with other bytes as its layer, and what is attached to the image attached to the copy; the copy's digest.
fn with_layer(registry: &Registry, image: &str, layer: &[u8]) -> String {
    let mut shelf = registry.shelf.lock().unwrap();
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let list = |image: &str| image.replace(':', "-");
    let (kind, bytes) = shelf.manifests[image].clone();
    let mut copy = read(&bytes);
    copy["layers"][0]["digest"] = digest(layer).into();
    copy["layers"][0]["size"] = layer.len().into();
    let copy = copy.to_string().into_bytes();
    let name = digest(&copy);
    shelf.blobs.insert(digest(layer), layer.to_vec());
    let (list_kind, attached) = shelf.manifests[&list(image)].clone();
    let mut entries = entries(&attached);
    for entry in &mut entries {
        let (kind, bytes) = shelf.manifests[entry["digest"].as_str().unwrap()].clone();
        let mut referrer = read(&bytes);
        referrer["subject"]["digest"] = name.clone().into();
        referrer["subject"]["size"] = copy.len().into();
        let bytes = referrer.to_string().into_bytes();
        entry["digest"] = digest(&bytes).into();
        entry["size"] = bytes.len().into();
        shelf.manifests.insert(digest(&bytes), (kind, bytes));
    }
    shelf.manifests.insert(list(&name), (list_kind, index(&entries)));
    shelf.manifests.insert(name.clone(), (kind, copy));
    name
}

fn entries(list: &[u8]) -> Vec<Value> {
    serde_json::from_slice::<Value>(list).unwrap()["manifests"].as_array().unwrap().clone()
}

fn index(entries: &[Value]) -> Vec<u8> {
    let list = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries});
    list.to_string().into_bytes()
}

/// The other image's manifest, attached to the image of `own`: its referrer with the subject exchanged.
fn foreign_list(registry: &Registry, own: &[u8]) -> Vec<u8> {
    let mut shelf = registry.shelf.lock().unwrap();
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let mine: Vec<String> =
        entries(own).iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect();
    let subject = read(&shelf.manifests[&mine[0]].1)["subject"].clone();
    let kind = "application/vnd.mentat.manifest.v1+yaml";
    let foreign = shelf.manifests.iter().find(|(name, (_, bytes))| {
        name.starts_with("sha256:") && !mine.contains(name) && read(bytes)["artifactType"] == kind
    });
    let mut value = read(&foreign.unwrap().1.1);
    value["subject"] = subject;
    let bytes = value.to_string().into_bytes();
    let digest = digest(&bytes);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let entry = serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "artifactType": kind});
    shelf.manifests.insert(digest, (media_type.to_owned(), bytes));
    index(&[entry])
}

/// Runs `mentatctl` with a login in the environment, or without one.
fn with_login(stack: &Stack, login: Option<&str>, args: &[&str]) -> Finished {
    let mut command = Command::new(binary("mentatctl"));
    command
        .env("MENTAT_HOME", stack.home())
        .env("HOME", stack.home())
        .args(["--stack", text(stack.dir())])
        .args(args);
    for name in ["DOCKER_CONFIG", "MENTAT_REGISTRY_USER", "MENTAT_REGISTRY_PASSWORD"] {
        command.env_remove(name);
    }
    if let Some(password) = login {
        command.env("MENTAT_REGISTRY_USER", "u").env("MENTAT_REGISTRY_PASSWORD", password);
    }
    finish(command, b"")
}

#[test]
fn a_registry_that_asks_for_a_login_gets_one_and_it_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    enrol(&stack, "dev@example.com", "signing");
    let folder = signed(&stack, dir.path(), "agent");
    let registry = Registry::start(Referrers::Listed, Login::Token);
    let to = registry.reference("acme/agent");
    let publish = ["publish", text(&folder), "--to", &to];
    with_login(&stack, None, &publish).refused(1, "MENTAT_REGISTRY_USER").one_clear_line();
    let wrong = with_login(&stack, Some("wr0ng"), &publish).refused(1, "does not let this user");
    assert!(!wrong.stderr.contains("wr0ng") && !wrong.stderr.contains("t0ken"), "{}", wrong.stderr);
    with_login(&stack, Some("secret"), &publish).success();
    // What `docker login` stored does as well.
    let docker = stack.home().join(".docker");
    fs::create_dir(&docker).unwrap();
    let config = serde_json::json!({"auths": {registry.host.clone(): {"auth": "dTpzZWNyZXQ="}}});
    fs::write(docker.join("config.json"), config.to_string()).unwrap();
    let output = dir.path().join("out");
    with_login(&stack, None, &["pull", &format!("{to}:1.0.0"), "--output", text(&output)]).success();
}
