//! How trust reaches those who need it: as TUF metadata, and through the endorsements of others.

use std::fs;
use std::path::Path;

use mentat_tests::agent::{enrol, sentiment, signed};
use mentat_tests::command::mentatctl;
use mentat_tests::files::hand_out;
use mentat_tests::stack::Stack;
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn trust_metadata_is_followed_and_never_back() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let release = signed(&stack, dir.path(), "agent");
    let repository = dir.path().join("tuf");
    let keystore = dir.path().join("tuf-keys");
    let passphrase = dir.path().join("passphrase");
    fs::write(&passphrase, "correct horse battery staple").unwrap();
    fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let source = format!("file:{}", passphrase.display());
    let repository_flags =
        ["--repository", text(&repository), "--keystore", text(&keystore), "--passphrase", &source];
    let publisher = |command: &str, more: &[&str]| {
        stack.ctl(&[&["--json", "trust", command], &repository_flags[..], more].concat())
    };
    stack.ctl(&["trust", "lint"]).success();
    publisher("init-repository", &[]).success();
    publisher("init-repository", &[]).refused(1, "exists");

    // A relying party that knows one file, pinned by hand.
    let home = dir.path().join("relying");
    let root = dir.path().join("pinned.json");
    fs::copy(repository.join("1.root.json"), &root).unwrap();
    let url = hand_out(&repository);
    let update =
        |more: &[&str]| mentatctl(&home, [&["--json", "trust", "update", "--mirror", &url], more].concat());
    update(&[]).refused(3, "tuf_memory");
    let first = update(&["--root", text(&root)]).success().json();
    assert_eq!((first["root_version"].as_u64(), first["timestamp_version"].as_u64()), (Some(1), Some(1)));
    let policy = stack.text("/policy");
    let verify = ["verify", text(&release), "--policy", &policy];
    mentatctl(&home, verify).success();

    // What was distributed is believed for as long as its publisher vouched for it, also by whoever never asks again.
    let end = home.join("trusted_root.lifetime.json");
    assert!(fs::read_to_string(&end).unwrap().contains(first["expires"].as_str().unwrap()));
    let in_a_year = [&verify[..], &["--at", "2099-01-01T00:00:00Z"]].concat();
    mentatctl(&home, &in_a_year).refused(3, "tuf_expired");
    let given = home.join("trusted_root.json");
    let followed = fs::read(&given).unwrap();
    fs::write(&given, [&followed[..], b" "].concat()).unwrap();
    mentatctl(&home, verify).refused(3, "tuf_mixed");
    fs::write(&given, followed).unwrap();
    mentatctl(&home, verify).success();

    let old = dir.path().join("old");
    copy(&repository, &old);
    publisher("publish", &[]).success();
    let refreshed = publisher("refresh", &[]).success().json();
    assert_eq!(refreshed["versions"]["timestamp"], 3);
    assert_eq!(update(&[]).success().json()["timestamp_version"], 3);
    // Yesterday's mirror, carried here on a disk.
    let carried = |folder: &Path| mentatctl(&home, ["trust", "update", "--mirror", text(folder)]);
    carried(&old).refused(3, "tuf_rollback");
    carried(&dir.path().join("nowhere")).refused(69, "tuf_unavailable");

    let rotated = publisher("rotate", &["--role", "timestamp", "--role", "root"]).success().json();
    assert_eq!(rotated["versions"]["root"], 2);
    assert_eq!(update(&[]).success().json()["root_version"], 2);
    publisher("refresh", &[]).success();
    assert_eq!(update(&[]).success().json()["timestamp_version"], 5);
    // Files of two releases put together.
    let mixed = dir.path().join("mixed");
    copy(&repository, &mixed);
    fs::copy(mixed.join("1.snapshot.json"), mixed.join("3.snapshot.json")).unwrap();
    let stranger = dir.path().join("stranger");
    mentatctl(&stranger, ["trust", "update", "--mirror", text(&mixed), "--root", text(&root)])
        .refused(3, "tuf_mixed");
    assert!(!stranger.join("trusted_root.json").exists(), "nothing that was refused is written");
    // A keystore that is not the repository's.
    let other = dir.path().join("other-keys");
    let elsewhere = dir.path().join("elsewhere");
    stack
        .ctl(&[
            "trust",
            "init-repository",
            "--repository",
            text(&elsewhere),
            "--keystore",
            text(&other),
            "--passphrase",
            &source,
        ])
        .success();
    stack
        .ctl(&[
            "trust",
            "refresh",
            "--repository",
            text(&repository),
            "--keystore",
            text(&other),
            "--passphrase",
            &source,
        ])
        .refused(1, "tuf_signature");
    mentatctl(&home, verify).success();
}

#[test]
fn a_release_that_others_endorse_reaches_the_level_community() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let release = signed(&stack, dir.path(), "agent");
    let release = text(&release);
    let policy: Value = serde_json::from_str(&fs::read_to_string(stack.text("/policy")).unwrap()).unwrap();
    let mut policy = policy;
    policy["required_level"] = "community".into();
    policy["identities"] = serde_json::json!([{ "subject": "*@example.com", "issuer": "any-of-the-authority", "level": "signed" }]);
    policy["endorsements"] = serde_json::json!({ "at-least": { "count": 2, "endorsers": [
        { "subject": "*@review.example", "issuer": "any-of-the-authority", "level": "signed" } ] } });
    let path = dir.path().join("policy.yaml");
    fs::write(&path, policy.to_string()).unwrap();
    let policy = ["--policy", text(&path)];
    let verify = || stack.ctl(&[&["verify", release, "--refresh"], &policy[..]].concat());
    let denied = verify();
    assert!(
        denied.stderr.contains("0 of 2") && denied.stderr.contains("*@review.example"),
        "{}",
        denied.stderr
    );
    denied.refused(3, "endorsement_missing");

    // The signer's own voice does not count, nor does one voice twice, nor a stranger's.
    stack.ctl(&[&["endorse", release], &policy[..]].concat()).refused(1, "endorsement_missing");
    let endorse = |address: &str, name: &str| {
        let (cert, key) =
            (stack.home().join(format!("{name}.crt")), stack.home().join(format!("{name}.key")));
        if !cert.exists() {
            enrol(&stack, address, name);
        }
        stack
            .ctl(&[&["endorse", release, "--cert", text(&cert), "--key", text(&key)], &policy[..]].concat())
            .success();
    };
    endorse("one@review.example", "one");
    let denied = verify();
    assert!(
        denied.stderr.contains("1 of 2 accepted signers endorsed the artifact (one@review.example"),
        "{}",
        denied.stderr
    );
    endorse("one@review.example", "one");
    endorse("who@elsewhere.example", "stranger");
    verify().refused(3, "endorsement_missing");
    endorse("two@review.example", "two");
    let verdict =
        stack.ctl(&[&["--json", "verify", release, "--refresh"], &policy[..]].concat()).success().json();
    assert_eq!(verdict["trust_level"], "community");

    // What does not verify is not endorsed, and stays as it is.
    let folder = Path::new(release);
    let before = fs::read(folder.join("manifest.yaml")).unwrap();
    fs::write(folder.join("sentiment.wasm"), b"\0asm\x01\0\0\0").unwrap();
    stack.ctl(&[&["endorse", release], &policy[..]].concat()).refused(3, "digest_mismatch");
    assert_eq!(fs::read(folder.join("manifest.yaml")).unwrap(), before);
    let unsigned = sentiment(dir.path(), "unsigned", |manifest| manifest);
    stack.ctl(&["audit-capabilities", text(&unsigned)]).success();
    stack.ctl(&[&["endorse", text(&unsigned)], &policy[..]].concat()).refused(3, "not signed");
}

/// What an authority signed before it got a new key is verified as before; what is new is distributed by the next start.
#[test]
fn a_new_key_of_the_timestamp_authority_reaches_everybody_and_old_bundles_stay_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut stack = Stack::up(&dir.path().join("stack"));
    let artifact = dir.path().join("artifact").to_str().unwrap().to_owned();
    fs::write(&artifact, "an artifact\n").unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let email = "dev@example.org";
    let sign = |stack: &Stack, bundle: &str| {
        let token = stack.ctl(&["pki", "identity-token", "--email", email]).success().stdout;
        stack
            .ctl(&["sign-bundle", "--identity-token", token.trim(), "--bundle", bundle, &artifact])
            .success();
    };
    let verify = |stack: &Stack, bundle: &str| {
        let issuer = stack.text("/oidc/url");
        let identity = ["--certificate-identity", email, "--certificate-oidc-issuer", &issuer];
        stack.ctl(&[&["verify-bundle", "--bundle", bundle], &identity[..], &[&artifact]].concat())
    };
    sign(&stack, &at("old"));
    let before = fs::read_to_string(stack.text("/trusted_root")).unwrap();
    assert_eq!(stack.down(), 0);
    let config = stack.dir().join("config/ca-service.toml");
    let renewed = std::process::Command::new(mentat_tests::binary::binary("ca-service"))
        .args(["renew", "--authority", "timestamp-authority", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(renewed.status.success(), "{}", String::from_utf8_lossy(&renewed.stderr));
    stack.restart();

    let after = fs::read_to_string(stack.text("/trusted_root")).unwrap();
    let stamps = |text: &str| {
        let root: serde_json::Value = serde_json::from_str(text).unwrap();
        root["timestampAuthorities"].as_array().unwrap().len()
    };
    assert_eq!((stamps(&before), stamps(&after)), (1, 2));
    let both = fs::read_to_string(stack.text("/client_trust_config")).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&both).unwrap()["trustedRoot"],
        serde_json::from_str::<serde_json::Value>(&after).unwrap()
    );
    sign(&stack, &at("new"));
    verify(&stack, &at("old")).success();
    verify(&stack, &at("new")).success();
    // Who follows the repository over HTTP gets the same.
    let followed = dir.path().join("followed");
    let (mirror, root) = (stack.text("/tuf/url"), stack.text("/tuf/root"));
    stack
        .ctl(&[
            "trust",
            "update",
            "--mirror",
            &mirror,
            "--root",
            &root,
            "--output",
            followed.to_str().unwrap(),
        ])
        .success();
    assert_eq!(fs::read_to_string(followed.join("trusted_root.json")).unwrap(), after);
    stack.ctl(&["trust", "lint", "--trusted-root", &stack.text("/trusted_root")]).success();
    // A start after which nothing is new writes nothing.
    assert_eq!(stack.down(), 0);
    stack.restart();
    assert_eq!(fs::read_to_string(stack.text("/trusted_root")).unwrap(), after);
    assert!(!stack.dir().join("trust/tuf/3.targets.json").exists());
}
