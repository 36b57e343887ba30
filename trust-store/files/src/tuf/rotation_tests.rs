//! Relying parties that were away while a repository rotated its root.

use std::fs;
use std::sync::Arc;

use super::tests::{NOW, signers, update};
use super::{Follower, Lifetimes, MAX_ROOT_ROTATIONS, Publisher, Refusal, TRUSTED_ROOT};

#[test]
fn one_update_takes_as_many_roots_as_it_says_and_the_next_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, signers) = (directory.path().join("mirror"), signers());
    let targets = [(TRUSTED_ROOT, &b"x"[..])];
    let mut publisher = Publisher::create(&mirror, &signers, Lifetimes::default(), &targets, NOW).unwrap();
    let pinned = fs::read(mirror.join("1.root.json")).unwrap();
    let follower = |name: &str| Follower::open(&directory.path().join(name), Some(&pinned)).unwrap();
    for _ in 0..MAX_ROOT_ROTATIONS {
        publisher.rotate(&signers, &signers, NOW).unwrap();
    }
    let newest = u64::from(MAX_ROOT_ROTATIONS) + 1;
    assert_eq!(update(&follower("exactly"), &mirror, NOW).unwrap().root_version, newest);
    publisher.rotate(&signers, &signers, NOW).unwrap();
    let late = follower("one more");
    assert_eq!(update(&late, &mirror, NOW).unwrap_err().refusal(), Some(Refusal::Unavailable));
    drop(late);
    assert_eq!(update(&follower("one more"), &mirror, NOW).unwrap().root_version, newest + 1);
    drop(Arc::new(publisher));
}
