//! Every way to lead a relying party astray, forged once, with the reason of the refusal.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use hsm::developer::DeveloperKey;
use hsm::{Input, KeyAlgorithm, Purpose, SignatureAlgorithm, Signer as _, SigningIntent};
use serde_json::{Value, json};
use trust_store::UnixTime;
use trust_store::trusted_root::TrustedRoot;

use super::metadata::{key_id, reference, root_part, sign, signed_part};
use super::*;
use crate::Error;

const DAY: i64 = 86_400;
pub(super) const NOW: UnixTime = UnixTime(1_790_000_000);

fn later(days: i64) -> UnixTime {
    UnixTime(NOW.0 + days * DAY)
}

struct Key(DeveloperKey);

impl RoleSigner for Key {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().raw().try_into().unwrap()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
        let signature = self.0.sign(Input::Message(message), SignatureAlgorithm::Ed25519, &intent).unwrap();
        Ok(signature.into_vec())
    }
}

fn key() -> Arc<dyn RoleSigner> {
    Arc::new(Key(DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap()))
}

pub(super) fn signers() -> Signers {
    Signers::one_each(|_| key())
}

/// A publisher's folder with one release, the keys, and a follower that knows the first root and nothing else.
struct Scene {
    directory: tempfile::TempDir,
    signers: Signers,
}

fn root_bytes(marker: &str) -> Vec<u8> {
    let mut root = TrustedRoot::new().to_json().unwrap();
    root.extend_from_slice(format!(" {}", " ".repeat(marker.len())).as_bytes());
    root
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let signers = signers();
        let targets = [(TRUSTED_ROOT, root_bytes("1")), (SIGNING_CONFIG, b"{}".to_vec())];
        let targets = targets.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect::<Vec<_>>();
        drop(
            Publisher::create(
                &directory.path().join("mirror"),
                &signers,
                Lifetimes::default(),
                &targets,
                NOW,
            )
            .unwrap(),
        );
        Self { directory, signers }
    }

    fn mirror(&self) -> std::path::PathBuf {
        self.directory.path().join("mirror")
    }

    fn publisher(&self) -> Publisher {
        Publisher::open(&self.mirror(), Lifetimes::default()).unwrap()
    }

    fn publish(&self, marker: &str, now: UnixTime) {
        self.publisher().publish(&[(TRUSTED_ROOT, &root_bytes(marker))], &self.signers, now).unwrap();
    }

    fn follower(&self) -> Follower {
        let pinned = fs::read(self.mirror().join("1.root.json")).unwrap();
        Follower::open(&self.directory.path().join("memory.json"), Some(&pinned)).unwrap()
    }

    fn update(&self, now: UnixTime) -> Result<Distribution, Error> {
        update(&self.follower(), &self.mirror(), now)
    }

    fn refusal(&self, now: UnixTime) -> Refusal {
        let error = self.update(now).unwrap_err();
        error.refusal().unwrap_or_else(|| panic!("{error}"))
    }

    /// A copy of the mirror as it is, to be put back later.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&self.mirror(), copy.path());
        copy
    }

    fn put_back(&self, copy: &tempfile::TempDir) {
        fs::remove_dir_all(self.mirror()).unwrap();
        copy_folder(copy.path(), &self.mirror());
    }

    fn forge(&self, name: &str, bytes: &[u8]) {
        fs::write(self.mirror().join(name), bytes).unwrap();
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.mirror().join(name)).unwrap()
    }

    /// A file that the true key of the role signed: what a thief of that one key can do.
    fn signed(&self, role: Role, version: u64, own: (&str, Value)) -> Vec<u8> {
        sign(&signed_part(role, version, later(30), &[own]), self.signers.of(role)).unwrap()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

pub(super) fn update(follower: &Follower, mirror: &Path, now: UnixTime) -> Result<Distribution, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(follower.update(Arc::new(Folder::new(mirror)), &[TRUSTED_ROOT, SIGNING_CONFIG], now))
}

#[test]
fn what_was_published_arrives_and_the_next_release_follows() {
    let scene = Scene::new();
    let first = scene.update(NOW).unwrap();
    assert_eq!((first.root_version, first.timestamp_version, first.targets_version), (1, 1, 1));
    assert_eq!(first.target(TRUSTED_ROOT), Some(root_bytes("1").as_slice()));
    assert_eq!(first.trusted_root().unwrap(), TrustedRoot::new());
    assert_eq!(first.signing_config().unwrap_err().refusal(), Some(Refusal::Malformed));
    assert_eq!(first.expires, later(7));
    assert_eq!(scene.update(later(1)).unwrap().timestamp_version, 1, "nothing new is no failure");
    scene.publish("second", later(1));
    let second = scene.update(later(2)).unwrap();
    assert_eq!((second.timestamp_version, second.targets_version), (2, 2));
    assert_eq!(second.target(TRUSTED_ROOT), Some(root_bytes("second").as_slice()));
    assert_eq!(second.target(SIGNING_CONFIG), Some(&b"{}"[..]), "targets that were not replaced stay");
}

#[test]
fn rollback_is_refused_whoever_of_the_roles_goes_back() {
    let scene = Scene::new();
    let old = scene.copy();
    scene.publish("2", NOW);
    let _ = scene.update(NOW).unwrap();
    let new = scene.copy();
    scene.put_back(&old);
    assert_eq!(scene.refusal(NOW), Refusal::Rollback, "the whole mirror went back");

    scene.put_back(&new);
    let snapshot = reference(1, &scene.file("1.snapshot.json"));
    scene.forge(
        "timestamp.json",
        &scene.signed(Role::Timestamp, 3, ("meta", json!({ "snapshot.json": snapshot }))),
    );
    assert_eq!(scene.refusal(NOW), Refusal::Rollback, "a new timestamp names the old snapshot");

    scene.put_back(&new);
    let targets = reference(1, &scene.file("1.targets.json"));
    let snapshot = scene.signed(Role::Snapshot, 3, ("meta", json!({ "targets.json": targets })));
    scene.forge("3.snapshot.json", &snapshot);
    let snapshot = reference(3, &snapshot);
    scene.forge(
        "timestamp.json",
        &scene.signed(Role::Timestamp, 3, ("meta", json!({ "snapshot.json": snapshot }))),
    );
    assert_eq!(scene.refusal(NOW), Refusal::Rollback, "a new snapshot names the old list of targets");
}

#[test]
fn freeze_is_refused_when_any_file_has_expired() {
    let scene = Scene::new();
    let _ = scene.update(NOW).unwrap();
    assert_eq!(scene.refusal(later(8)), Refusal::Expired, "the timestamp that is kept alive is a week old");
    let roles = scene.publisher().refresh(&scene.signers, later(8)).unwrap();
    assert_eq!(roles, [Role::Timestamp]);
    assert_eq!(scene.update(later(8)).unwrap().timestamp_version, 2);

    let roles = scene.publisher().refresh(&scene.signers, later(80)).unwrap();
    assert_eq!(roles, [Role::Targets, Role::Snapshot, Role::Timestamp], "renewed before they expire");
    assert_eq!(scene.update(later(80)).unwrap().targets_version, 2);

    scene.publisher().refresh(&scene.signers, later(364)).unwrap();
    assert_eq!(scene.refusal(later(366)), Refusal::Expired, "the root itself");
    let refused = scene.publisher().refresh(&scene.signers, later(366)).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Expired));
    scene.publisher().rotate(&scene.signers, &scene.signers, later(366)).unwrap();
    assert_eq!(scene.update(later(366)).unwrap().root_version, 2, "a root can be renewed after its end");
}

#[test]
fn mixing_files_of_different_releases_is_refused() {
    for (file, from) in [("2.snapshot.json", "1.snapshot.json"), ("2.targets.json", "1.targets.json")] {
        let scene = Scene::new();
        scene.publish("2", NOW);
        scene.forge(file, &scene.file(from));
        assert_eq!(scene.refusal(NOW), Refusal::Mixed, "{file}");
    }
    let scene = Scene::new();
    let name = fs::read_dir(scene.mirror().join("targets"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.ends_with(TRUSTED_ROOT))
        .unwrap();
    let mut other = root_bytes("1");
    *other.last_mut().unwrap() = b'\n';
    scene.forge(&format!("targets/{name}"), &other);
    assert_eq!(scene.refusal(NOW), Refusal::Mixed, "a target of the right length and name");
    scene.forge(&format!("targets/{name}"), b"short");
    assert_eq!(scene.refusal(NOW), Refusal::Mixed);
}

#[test]
fn only_the_keys_of_a_role_sign_it() {
    let scene = Scene::new();
    let snapshot = json!({ "snapshot.json": reference(1, &scene.file("1.snapshot.json")) });
    let part = signed_part(Role::Timestamp, 2, later(7), &[("meta", snapshot)]);
    for keys in [signers(), scene.signers.clone()] {
        // A stranger's key, and the key of another role.
        scene.forge("timestamp.json", &sign(&part, keys.of(Role::Snapshot)).unwrap());
        assert_eq!(scene.refusal(NOW), Refusal::Signature);
    }
    let foreign = signers();
    let end = later(365);
    let part = root_part(2, end, &foreign).unwrap();
    scene.forge("2.root.json", &sign(&part, foreign.of(Role::Root)).unwrap());
    assert_eq!(scene.refusal(NOW), Refusal::Signature, "a root that the known root did not sign");
    scene.forge("2.root.json", &sign(&part, scene.signers.of(Role::Root)).unwrap());
    assert_eq!(scene.refusal(NOW), Refusal::Signature, "a root that does not sign itself");
    let part = root_part(3, end, &scene.signers).unwrap();
    scene.forge("2.root.json", &sign(&part, scene.signers.of(Role::Root)).unwrap());
    assert_eq!(scene.refusal(NOW), Refusal::RootVersion);
}

#[test]
fn new_keys_follow_and_old_ones_end() {
    let scene = Scene::new();
    let _ = scene.update(NOW).unwrap();
    let before = scene.copy();
    let next = signers();
    scene.publisher().rotate(&scene.signers, &next, later(1)).unwrap();
    assert_eq!(scene.update(later(1)).unwrap().root_version, 2);
    // From the first root on, by somebody who was never here before.
    let fresh = tempfile::tempdir().unwrap();
    let follower = Follower::open(&fresh.path().join("m"), Some(&scene.file("1.root.json"))).unwrap();
    assert_eq!(update(&follower, &scene.mirror(), later(1)).unwrap().root_version, 2);
    // Old keys publish nothing any more, and hiding the new root does not bring them back.
    let refused = scene.publisher().refresh(&scene.signers, later(2)).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Signature));
    scene.publisher().refresh(&next, later(2)).unwrap();
    assert_eq!(scene.update(later(2)).unwrap().timestamp_version, 3);
    scene.put_back(&before);
    scene.publisher().refresh(&scene.signers, later(2)).unwrap();
    assert_eq!(scene.refusal(later(2)), Refusal::Signature, "the known root does not name the old keys");
}

#[test]
fn a_root_may_demand_several_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two, three) = (key(), key(), key());
    let threshold = NonZeroUsize::new(2).unwrap();
    let with = |keys: Vec<Arc<dyn RoleSigner>>| signers().with(Role::Root, keys, threshold);
    let all = with(vec![Arc::clone(&one), Arc::clone(&two), three]);
    let targets = [(TRUSTED_ROOT, &b"x"[..])];
    let mut publisher =
        Publisher::create(directory.path(), &all, Lifetimes::default(), &targets, NOW).unwrap();
    assert_eq!(publisher.keys(Role::Root).len(), 3);
    let refused = publisher.rotate(&with(vec![one]), &all, NOW).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Signature), "one of two");
    let refused =
        Publisher::create(&directory.path().join("x"), &with(vec![two]), Lifetimes::default(), &[], NOW);
    assert_eq!(refused.unwrap_err().refusal(), Some(Refusal::Signature), "fewer keys than must sign");
}

#[test]
fn what_was_verified_before_a_failure_counts() {
    let scene = Scene::new();
    let old = scene.copy();
    scene.publish("2", NOW);
    fs::remove_file(scene.mirror().join("2.snapshot.json")).unwrap();
    assert_eq!(scene.refusal(NOW), Refusal::Unavailable);
    scene.put_back(&old);
    assert_eq!(scene.refusal(NOW), Refusal::Rollback, "timestamp 2 was seen");
}

#[test]
fn a_memory_that_cannot_be_believed_or_kept_stops_the_update() {
    let scene = Scene::new();
    let _ = scene.update(NOW).unwrap();
    let memory = scene.directory.path().join("memory.json");
    let text = fs::read_to_string(&memory).unwrap();
    let damaged = [text.replacen("\"version\":1", "\"version\":2", 1), text[..text.len() / 2].to_owned(), {
        // One character inside a remembered file, still base64.
        let at = text.rfind("\"timestamp.json\":\"").unwrap() + 30;
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &text[..at], &text[at + 1..])
    }];
    for text in damaged {
        fs::write(&memory, text).unwrap();
        assert_eq!(Follower::open(&memory, None).unwrap_err().refusal(), Some(Refusal::Memory));
    }
    fs::write(&memory, text).unwrap();
    assert!(Follower::open(&memory, None).is_ok());
    let stranger = Scene::new();
    let refused = Follower::open(&memory, Some(&stranger.file("1.root.json"))).unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::Memory), "another repository's root");
    assert_eq!(
        Follower::open(&scene.directory.path().join("none"), None).unwrap_err().refusal(),
        Some(Refusal::Memory)
    );
    let nowhere = scene.directory.path().join("no/folder/memory.json");
    let error = Follower::open(&nowhere, Some(&scene.file("1.root.json"))).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // The place goes away between opening and remembering: nothing is given out that was not remembered.
    let fleeting = scene.directory.path().join("fleeting");
    fs::create_dir(&fleeting).unwrap();
    let follower = Follower::open(&fleeting.join("m"), Some(&scene.file("1.root.json"))).unwrap();
    fs::remove_dir_all(&fleeting).unwrap();
    let error = update(&follower, &scene.mirror(), NOW).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // Two at a time would forget what one of them saw.
    let held = scene.follower();
    let second = Follower::open(&memory, None).unwrap_err();
    assert_eq!(second.refusal(), Some(Refusal::Unavailable));
    drop(held);
}

#[test]
fn sizes_shapes_and_places_are_checked() {
    let scene = Scene::new();
    let timestamp = scene.file("timestamp.json");
    for (bytes, refusal) in [
        (vec![b' '; 17 << 10], Refusal::TooLarge),
        (b"{}".to_vec(), Refusal::Malformed),
        (b"[".to_vec(), Refusal::Malformed),
        (scene.file("1.snapshot.json"), Refusal::Malformed),
        (
            String::from_utf8(timestamp.clone()).unwrap().replace("1.0.31", "2.0.0").into_bytes(),
            Refusal::Malformed,
        ),
    ] {
        scene.forge("timestamp.json", &bytes);
        assert_eq!(scene.refusal(NOW), refusal);
    }
    scene.forge("timestamp.json", &timestamp);
    let follower = scene.follower();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let source: Arc<dyn Source> = Arc::new(Folder::new(&scene.mirror()));
    let missing = runtime.block_on(follower.update(Arc::clone(&source), &["other.json"], NOW)).unwrap_err();
    assert_eq!(missing.refusal(), Some(Refusal::TargetMissing));
    for path in ["../memory.json", "/etc/hostname", "a/../../x", "targets\\x"] {
        assert!(
            matches!(runtime.block_on(source.fetch(path, 10)), Err(FetchError::Unavailable(_))),
            "{path}"
        );
    }
    let refused = update(&follower, &scene.mirror().join("none"), NOW).unwrap_err();
    assert_eq!(
        refused.refusal(),
        Some(Refusal::Unavailable),
        "an absent mirror does not mean an absent root"
    );
    assert_eq!(
        Follower::open(&scene.directory.path().join("x"), Some(b"{}")).unwrap_err().refusal(),
        Some(Refusal::Malformed)
    );
}

#[test]
fn a_publisher_continues_only_what_it_can_verify() {
    let scene = Scene::new();
    let again =
        Publisher::create(&scene.mirror(), &scene.signers, Lifetimes::default(), &[], NOW).unwrap_err();
    assert_eq!(again.refusal(), Some(Refusal::Mixed));
    let held = scene.publisher();
    let second = Publisher::open(&scene.mirror(), Lifetimes::default()).unwrap_err();
    assert_eq!(second.refusal(), Some(Refusal::Unavailable), "two publishers would overwrite each other");
    assert_eq!(held.state().targets, [SIGNING_CONFIG, TRUSTED_ROOT]);
    drop(held);
    for name in ["../x", ".x", "a/b", ""] {
        let refused = scene.publisher().publish(&[(name, b"x")], &scene.signers, NOW).unwrap_err();
        assert_eq!(refused.refusal(), Some(Refusal::Malformed), "{name:?}");
    }
    let snapshot = scene.file("1.snapshot.json");
    for (name, refusal) in [("1.snapshot.json", Refusal::Signature), ("timestamp.json", Refusal::Signature)] {
        let genuine = scene.file(name);
        let forged = String::from_utf8(genuine.clone()).unwrap().replace("\"version\": 1", "\"version\": 7");
        scene.forge(name, forged.as_bytes());
        let refused = Publisher::open(&scene.mirror(), Lifetimes::default()).unwrap_err();
        assert_eq!(refused.refusal(), Some(refusal), "{name}");
        scene.forge(name, &genuine);
    }
    assert_eq!(scene.file("1.snapshot.json"), snapshot);
    let empty = tempfile::tempdir().unwrap();
    let none = Publisher::open(empty.path(), Lifetimes::default()).unwrap_err();
    assert_eq!(none.refusal(), Some(Refusal::Unavailable));
}

struct Constant;

impl RoleSigner for Constant {
    fn public_key(&self) -> [u8; 32] {
        [7; 32]
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        Ok(vec![message.len() as u8; 64])
    }
}

#[test]
fn written_form_is_frozen() {
    let constant: Arc<dyn RoleSigner> = Arc::new(Constant);
    let id = key_id(&[7; 32]).unwrap();
    assert_eq!(id, "b6db82967262b4c288a9326762c77b39db2f13d29b51799a526d0ec81001b73b");
    let part = signed_part(
        Role::Timestamp,
        3,
        UnixTime(0),
        &[("meta", json!({ "snapshot.json": reference(2, b"x") }))],
    );
    let expected = format!(
        "{{\n  \"signatures\": [\n    {{\n      \"keyid\": \"{id}\",\n      \"sig\": \"{}\"\n    }}\n  ],\n  \"signed\": {{\n    \
         \"_type\": \"timestamp\",\n    \"expires\": \"1970-01-01T00:00:00Z\",\n    \"meta\": {{\n      \"snapshot.json\": {{\n        \
         \"hashes\": {{\n          \"sha256\": \"{}\"\n        }},\n        \"length\": 1,\n        \"version\": 2\n      }}\n    }},\n    \
         \"spec_version\": \"1.0.31\",\n    \"version\": 3\n  }}\n}}\n",
        "e3".repeat(64),
        "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    );
    let written = sign(&part, [&constant, &constant]).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), expected);
    let root = root_part(1, UnixTime(0), &Signers::one_each(|_| Arc::clone(&constant))).unwrap();
    assert_eq!(
        String::from_utf8(sigstore_tuf::canonical_json::to_canonical_bytes(&root).unwrap()).unwrap(),
        format!(
            concat!(
                r#"{{"_type":"root","consistent_snapshot":true,"expires":"1970-01-01T00:00:00Z","keys":{{"{id}":{{"keytype":"ed25519","#,
                r#""keyval":{{"public":"{public}"}},"scheme":"ed25519"}}}},"roles":{{"root":{{"keyids":["{id}"],"threshold":1}},"#,
                r#""snapshot":{{"keyids":["{id}"],"threshold":1}},"targets":{{"keyids":["{id}"],"threshold":1}},"#,
                r#""timestamp":{{"keyids":["{id}"],"threshold":1}}}},"spec_version":"1.0.31","version":1}}"#
            ),
            id = id,
            public = "07".repeat(32)
        )
    );
}

#[test]
fn refusals_have_stable_and_different_texts() {
    let texts: std::collections::BTreeSet<&str> =
        Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
    assert_eq!(texts.len(), Refusal::ALL.len());
    assert!(texts.iter().all(|text| text.starts_with("tuf_")));
}
