//! A backup is of one moment, and a CA that is restored from it repeats nothing that was done after it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::path::Path;
use std::sync::Arc;

use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};
use ca_service::backup;
use ca_service::storage::backup::SKIPPED_CRL_NUMBERS;
use ca_service::storage::{CrlPart, State};
use ca_service::{CaError, CertificateAuthority};
use fixture::{Site, authorised, check_ca, enrol_request, key, settings, token_request};
use service::SystemClock;
use service::clock::Clock as _;

fn now() -> UnixTime {
    UnixTime(SystemClock.unix_seconds())
}

/// An issuance that is recorded and goes no further.
async fn open_intent(authority: &CertificateAuthority) -> SerialNumber {
    let asked = authorised("open@example.com", &key());
    drop(authority.prepare(asked).await.unwrap());
    let search = ca_service::storage::Search {
        identity: Some("open@example.com".to_owned()),
        limit: 1,
        ..Default::default()
    };
    authority.store().search(search).await.unwrap().remove(0).serial
}

fn number(authority: &CertificateAuthority) -> u64 {
    authority.published_crl("code-signing", CrlPart::Complete).unwrap().number
}

/// A site that looks like the first one, with nothing in it yet.
fn empty(first: &Site) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "", "");
    Site { settings, folder, outcome: first.outcome.clone(), log: first.log.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_authority_repeats_nothing_that_was_done_after_its_backup() {
    let site = Site::new().await;
    let authority = site.open().await;
    let token = |email: &'static str| {
        let authority = Arc::clone(&authority);
        async move { authority.create_token(&token_request(email, "developer"), "test").await.unwrap().token }
    };
    let (before, after) = (token("before@example.com").await, token("after@example.com").await);
    let issued = authority.enrol(&enrol_request(&before, &key(), None)).await.unwrap();
    let open = open_intent(&authority).await;
    // Delivery is noted behind the answer.
    while authority.store().certificate(&issued.serial).await.unwrap().unwrap().state != State::Delivered {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let out = site.folder.path().join("backup");
    // While the CA serves.
    let inventory = backup::create(&site.settings, &out, now()).unwrap();
    assert!(inventory.files.keys().any(|name| name.starts_with("keys/")), "{inventory:?}");
    assert!(!inventory.files.keys().any(|name| name.contains("passphrase")));

    authority.enrol(&enrol_request(&after, &key(), None)).await.unwrap();
    authority.revoke(&issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    let published = number(&authority);

    let other = empty(&site);
    let restored = backup::restore(&other.settings, &out, now()).unwrap();
    assert_eq!((restored.maybe_issued, restored.void_tokens), (1, 1));
    let again = other.open().await;
    assert_eq!(again.store().certificate(&issued.serial).await.unwrap().unwrap().state, State::Delivered);
    let refused = again.enrol(&enrol_request(&after, &key(), None)).await;
    assert!(matches!(refused, Err(CaError::TokenExpired)), "{refused:?}");
    assert_eq!(again.store().certificate(&open).await.unwrap().unwrap().state, State::MaybeIssued);
    again.revoke(&open, RevocationReason::CessationOfOperation, None, "test").await.unwrap();
    again.publish_due().await.unwrap();
    assert!(number(&again) > published);
    assert!(number(&again) > u64::try_from(SKIPPED_CRL_NUMBERS).unwrap());
    let fresh = again.create_token(&token_request("new@example.com", "developer"), "test").await.unwrap();
    again.enrol(&enrol_request(&fresh.token, &key(), None)).await.unwrap();
    check_ca(&again).await;

    let refused = backup::restore(&other.settings, &out, now()).unwrap_err();
    assert!(refused.to_string().contains("exists"), "{refused}");
    assert!(backup::create(&site.settings, &out, now()).is_err(), "a backup is never overwritten");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_or_unfinished_backup_restores_nothing() {
    let site = Site::new().await;
    let out = site.folder.path().join("backup");
    backup::create(&site.settings, &out, now()).unwrap();
    let refused = |what: &str| {
        let other = empty(&site);
        let error = backup::restore(&other.settings, &out, now()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert!(!other.settings.database.file().unwrap().exists());
    };
    let change = |path: &Path, edit: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let original = std::fs::read(path).unwrap();
        std::fs::write(path, edit(original.clone())).unwrap();
        original
    };
    let flip = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    for name in ["ca.sqlite", "ceremony.jsonl"] {
        let original = change(&out.join(name), &flip);
        refused(name);
        std::fs::write(out.join(name), original).unwrap();
    }
    let escape = |bytes: Vec<u8>| {
        String::from_utf8(bytes).unwrap().replace("ceremony.jsonl", "../ceremony.jsonl").into_bytes()
    };
    let original = change(&out.join("backup.json"), &escape);
    refused("../ceremony.jsonl");
    let later = |bytes: Vec<u8>| {
        String::from_utf8(bytes).unwrap().replace("\"sequence\": ", "\"sequence\": 1").into_bytes()
    };
    std::fs::write(out.join("backup.json"), later(original)).unwrap();
    refused("audit record");
    std::fs::remove_file(out.join("backup.json")).unwrap();
    refused("No such file");
}
