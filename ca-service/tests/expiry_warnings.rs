//! Warnings of certificates that end soon, against a receiver of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;

use ca_pki::crl::RevocationReason;
use ca_service::expiry::WarningFailure;
use ca_service::webhook::Webhook;
use ca_service::{CertificateAuthority, Config};
use fixture::receiver::{Receiver, SECRET};
use fixture::{Site, enrol_request, key, token_request};
use serde_json::Value;
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

const DAY: i64 = 86_400;

fn serials(message: &Value) -> Vec<String> {
    let certificates = message["certificates"].as_array().unwrap();
    certificates.iter().map(|each| each["serial"].as_str().unwrap().to_owned()).collect()
}

async fn issue(authority: &Arc<CertificateAuthority>, email: &str, profile: &str) -> ca_pki::SerialNumber {
    let token = authority.create_token(&token_request(email, profile), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap().serial
}

#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_that_ends_soon_is_named_once_for_each_number_of_days() {
    let receiver = Receiver::default();
    let url = receiver.start().await;
    let site = Site::with(&format!(
        "[expiry_warnings]\nurl = \"{url}\"\nsecret_file = \"../webhook\"\ndays = [30, 7]\n"
    ))
    .await;
    fixture::secret_file(&site.folder.path().join("webhook"), SECRET);
    let config = site.settings.config.expiry_warnings.clone().unwrap();
    let webhook = Webhook::open(&site.settings, &config).unwrap();

    let authority = site.open().await;
    let lives = issue(&authority, "lives@example.com", "developer").await;
    let revoked = issue(&authority, "revoked@example.com", "developer").await;
    issue(&authority, "short@example.com", "keyless").await;
    authority.revoke(&revoked, RevocationReason::Superseded, None, "test").await.unwrap();
    assert_eq!(authority.send_expiry_warnings(&webhook).await.unwrap(), 0);
    assert_eq!(receiver.taken(), Vec::<Value>::new(), "nothing ends in a month");
    // Delivery is noted behind the answer.
    while authority.store().certificate(&lives).await.unwrap().unwrap().state
        != ca_service::storage::State::Delivered
    {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(authority);

    let later = async |days: i64| {
        let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds() + days * DAY);
        site.open_with(site.store().await, Arc::new(clock)).await
    };
    // The receiver fails first: nothing counts as told.
    let authority = later(340).await;
    receiver.refuses(true);
    let refused = authority.send_expiry_warnings(&webhook).await.unwrap_err();
    assert!(
        matches!(&refused, WarningFailure::Receiver(error) if error.to_string().contains("500")),
        "{refused}"
    );
    assert_eq!(receiver.taken().len(), 1);
    receiver.refuses(false);
    assert_eq!(authority.send_expiry_warnings(&webhook).await.unwrap(), 1);
    let taken = receiver.taken();
    assert_eq!(serials(&taken[0]), [lives.to_string()]);
    assert_eq!(
        (&taken[0]["days"], &taken[0]["certificates"][0]["identity"]),
        (&30.into(), &"lives@example.com".into())
    );
    assert_eq!(
        taken[0]["authorities"][0]["name"], "ocsp-responder",
        "its own certificate ends after a year, too"
    );
    drop(authority);

    // Not again after a restart, but once more in the last week.
    assert_eq!(later(341).await.send_expiry_warnings(&webhook).await.unwrap(), 0);
    let authority = later(359).await;
    assert_eq!(authority.send_expiry_warnings(&webhook).await.unwrap(), 1);
    let taken = receiver.taken();
    assert_eq!((serials(&taken[0]), &taken[0]["days"]), (vec![lives.to_string()], &7.into()));
    assert_eq!(authority.send_expiry_warnings(&webhook).await.unwrap(), 0);
}

#[test]
fn a_receiver_that_could_be_overheard_or_is_not_told_when_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let with = |section: &str| {
        let settings = fixture::settings_text(folder.path(), section, "");
        Config::parse(&settings).unwrap().validate().map(|_| ()).map_err(|refusal| refusal.to_string())
    };
    let section = |url: &str, days: &str| {
        format!("[expiry_warnings]\nurl = \"{url}\"\nsecret_file = \"webhook\"\ndays = {days}\n")
    };
    with(&section("https://hooks.example.org/x", "[30]")).unwrap();
    let refused = with(&section("http://hooks.example.org/x", "[30]")).unwrap_err();
    assert!(refused.contains("expiry_warnings.url would speak plain HTTP"), "{refused}");
    for days in ["[]", "[0]", "[181]", "[7, 7]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]"] {
        let refused = with(&section("https://hooks.example.org/x", days)).unwrap_err();
        assert!(refused.contains("expiry_warnings.days"), "{refused}");
    }
}
