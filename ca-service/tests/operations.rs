//! What an operator does beside the running server: renewing, setting the clock right, proving that the trail is whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_pki::UnixTime;
use ca_pki::crl::RevocationReason;
use ca_service::ceremony;
use ca_service::storage::backup::SKIPPED_CRL_NUMBERS;
use ca_service::storage::sql_store::SqlStore;
use ca_service::storage::{CertificateStore as _, CrlPart};
use ca_service::{CaError, CertificateAuthority, check};
use fixture::{Site, check_ca, enrol_request, key, ocsp_request, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::ocsp::OcspResponse;

async fn issued(authority: &Arc<CertificateAuthority>) -> ca_service::issuance::Issued {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

fn execute(site: &Site, statement: &str) {
    fixture::execute(&site.settings, statement);
}

async fn findings(site: &Site) -> Vec<String> {
    check::run(&*site.open().await).await.unwrap().findings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_responder_and_a_renewed_time_stamp_authority_answer_after_the_next_start() {
    let site = Site::new().await;
    let authority = site.open().await;
    let issued = issued(&authority).await;
    for name in ["ocsp-responder", "timestamp-authority"] {
        let before = authority.authorities()[name].certificate.clone();
        let renewed = authority.renew(name, &site.keyring()).await.unwrap();
        let after = site.open().await.authorities()[name].certificate.clone();
        assert_ne!(after, before);
        let pem = std::fs::read_to_string(&renewed.file).unwrap();
        assert_eq!(fixture::der(pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap()), after);
    }
    let subject = |authority: &CertificateAuthority, name: &str| {
        let parsed = ca_pki::certificate::parse(&authority.authorities()[name].certificate).unwrap();
        der::Encode::to_der(parsed.tbs_certificate().subject()).unwrap()
    };
    let reopened = site.open().await;
    assert_eq!(subject(&reopened, "ocsp-responder"), subject(&authority, "ocsp-responder"));
    let answer = reopened.ocsp(&ocsp_request(&issued.chain[0], &issued.serial), None).await;
    let response = OcspResponse::from_der(&answer.der).unwrap();
    assert_eq!(response.responses().len(), 1);
    check_ca(&reopened).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_wrong_for_a_while_is_declared_right_again() {
    let site = Site::new().await;
    let present = SystemClock.unix_seconds();
    let wrong = Arc::new(TestClock::at_unix_seconds(present + 10 * 365 * 86_400));
    let ahead = site.open_with(site.store().await, wrong).await;
    // Everything of that time is dated in the future, the lists included.
    ahead.publish_due().await.unwrap();
    drop(ahead);
    let right = Arc::new(TestClock::at_unix_seconds(present + 60));
    let authority = site.open_with(site.store().await, right.clone()).await;
    assert!(matches!(authority.publish_due().await, Err(CaError::Clock(_))));
    let accepted = authority.accept_time("test").await.unwrap();
    assert!(accepted.recorded > accepted.accepted && accepted.accepted == present + 60);
    drop(authority);
    let authority = site.open_with(site.store().await, right.clone()).await;
    assert!(authority.publish_due().await.unwrap() >= 1);
    let list = authority.published_crl("root", ca_service::storage::CrlPart::Complete).unwrap();
    assert_eq!(list.this_update, present + 60);
    right.advance(Duration::from_secs(5));
    issued(&authority).await;
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_whose_end_was_cut_does_not_cover_the_records() {
    let site = Site::new().await;
    let authority = site.open().await;
    let issued = issued(&authority).await;
    authority.revoke(&issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    drop(authority);
    assert_eq!(findings(&site).await, Vec::<String>::new());
    let cut = "DELETE FROM audit WHERE sequence = (SELECT max(sequence) FROM audit)";
    let mut seen = Vec::new();
    // Lists, the revocation, both signatures and the token's creation are the last records.
    for _ in 0..5 {
        execute(&site, cut);
        let now = findings(&site).await;
        assert!(!now.is_empty());
        seen.extend(now);
    }
    for part in ["publication", "revocation", "announce its signature"] {
        assert!(seen.iter().any(|finding| finding.contains(part)), "{part}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_ends_before_its_anchor_is_found() {
    let site = Site::new().await;
    let authority = site.open().await;
    issued(&authority).await;
    let anchor = authority.anchor().await.unwrap().unwrap();
    assert_eq!(authority.anchor().await.unwrap(), None, "only the note of the anchor was added");
    let head = authority.store().latest_audit().await.unwrap().unwrap();
    assert_eq!((head.event.as_str(), head.sequence), ("audit.anchored", anchor.sequence + 1));
    let statement = &site.log.events()[usize::try_from(anchor.event_index).unwrap()];
    let payload = statement["payload"].as_str().unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload).unwrap();
    assert!(String::from_utf8(payload).unwrap().contains(&hex::encode(anchor.hash)));
    drop(authority);
    let report = check::run(&*site.open().await).await.unwrap();
    assert_eq!((report.anchored, report.findings), (Some(anchor.sequence), Vec::new()));
    // A record that nothing else speaks of.
    execute(&site, "DELETE FROM audit WHERE sequence >= (SELECT max(sequence) - 1 FROM audit)");
    let seen = findings(&site).await;
    assert!(seen.iter().any(|finding| finding.contains("event log")), "{seen:?}");
}

/// As after `pg_restore`, or a snapshot of the file system.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_other_programs_restored_repeats_nothing() {
    let site = Site::new().await;
    let authority = site.open().await;
    issued(&authority).await;
    let unused =
        authority.create_token(&token_request("late@example.com", "developer"), "test").await.unwrap();
    authority.publish_due().await.unwrap();
    let number = |authority: &CertificateAuthority| {
        authority.published_crl("code-signing", CrlPart::Complete).unwrap().number
    };
    let published = number(&authority);
    drop(authority);
    let now = UnixTime(SystemClock.unix_seconds());
    let accepted = ca_service::backup::accept(&site.settings, now).await.unwrap();
    assert_eq!(accepted.void_tokens, 1);
    let authority = site.open().await;
    let late = authority.enrol(&enrol_request(&unused.token, &key(), None)).await;
    assert!(matches!(late, Err(CaError::TokenExpired)), "{late:?}");
    authority.publish_due().await.unwrap();
    assert!(number(&authority) > published + u64::try_from(SKIPPED_CRL_NUMBERS).unwrap());
    issued(&authority).await;
    check_ca(&authority).await;
}

/// Whoever is told to hold a ceremony over a database that cannot be read founds a second CA beside the certificates of the
/// first.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_not_taken_for_a_missing_one() {
    let site = Site::new().await;
    let Some(database) = site.settings.database.file() else { return };
    let whole = std::fs::read(database).unwrap();
    let refusal = async || {
        let opened = ca_service::serve::open(site.settings.clone(), Arc::new(SystemClock)).await;
        opened.err().unwrap().to_string()
    };
    for damaged in [&whole[..4096], &b"not a database, whoever wrote this here".repeat(200)[..]] {
        std::fs::write(database, damaged).unwrap();
        let text = refusal().await;
        assert!(text.contains("hold no new ceremony") && text.contains("newest backup"), "{text}");
        assert!(!text.contains("ceremony first"), "{text}");
    }
    std::fs::remove_file(database).unwrap();
    let text = refusal().await;
    assert!(text.contains("does not exist") && text.contains("ceremony first: ca-service init"), "{text}");
}

/// Who looks with a newer program must not lock the older one, which serves, out of its next start.
#[tokio::test(flavor = "multi_thread")]
async fn looking_at_an_authority_changes_nothing_in_the_schema_neither() {
    let site = Site::new().await;
    let reading = SqlStore::open_to_read(&site.settings.database).await.unwrap();
    assert!(reading.probe().await.is_err(), "what was opened to be read is written to");
    assert_eq!(reading.authorities().await.unwrap().len(), 6);
    let look = async || ca_service::serve::open_to_read(site.settings.clone(), Arc::new(SystemClock)).await;
    check_ca(&look().await.unwrap()).await;

    let Some(database) = site.settings.database.file() else { return };
    let pragma = |set: Option<i64>| {
        let connection = rusqlite::Connection::open(database).unwrap();
        if let Some(number) = set {
            connection.pragma_update(None, "user_version", number).unwrap();
        }
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let newest = pragma(None);
    execute(
        &site,
        "DROP TABLE used_identity_token; DROP INDEX revocation_recorded; DROP TABLE enrolment_approval; \
         DROP TABLE enrolment_request; ALTER TABLE token DROP COLUMN created_by; \
         ALTER TABLE token DROP COLUMN creator_names; DROP TABLE renewal_end; DROP TABLE key_end; \
         DROP TABLE problem_report",
    );
    pragma(Some(3));
    let description = "name = \"lists\"\n[[steps]]\nmake = \"revocation-lists\"";
    let description = toml::from_str(description).unwrap();
    for (number, wanted) in [(3, "of an earlier program"), (newest + 1, "of a newer program")] {
        pragma(Some(number));
        let refused = look().await.err().unwrap().to_string();
        assert!(refused.contains(wanted) && refused.contains(&format!("schema {number}")), "{refused}");
        let refused = ceremony::prepare(&site.settings, &description, &SystemClock).await;
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains(wanted), "{refused}");
        assert_eq!(pragma(None), number);
    }
    pragma(Some(3));
    let authority = ca_service::serve::open(site.settings.clone(), Arc::new(SystemClock)).await.unwrap();
    assert_eq!(pragma(None), newest);
    check_ca(&authority).await;
}
