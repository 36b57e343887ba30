//! Warnings of certificates that end soon, against a receiver of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use ca_pki::crl::RevocationReason;
use ca_service::expiry::WarningFailure;
use ca_service::webhook::Webhook;
use ca_service::{CertificateAuthority, Config};
use fixture::{Site, enrol_request, key, token_request};
use serde_json::Value;
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SECRET: &str = "0123456789abcdef";
const DAY: i64 = 86_400;

/// What a receiver saw: the signature and the body of each message; it answers with what is told.
#[derive(Clone, Default)]
struct Receiver {
    messages: Arc<Mutex<Vec<(String, String)>>>,
    refuse: Arc<Mutex<bool>>,
}

impl Receiver {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    let (head, body) = loop {
                        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
                        let text = String::from_utf8_lossy(&seen).into_owned();
                        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                        let length = head.to_lowercase().split("content-length: ").nth(1).unwrap().to_owned();
                        if body.len() >= length.lines().next().unwrap().trim().parse().unwrap() {
                            break (head.to_lowercase(), body.to_owned());
                        }
                    };
                    assert!(head.starts_with("post /hook"), "{head}");
                    let signature = head.split("mentat-signature: ").nth(1).unwrap().lines().next().unwrap();
                    this.messages.lock().unwrap().push((signature.to_owned(), body));
                    let status = if *this.refuse.lock().unwrap() { "500 Broken" } else { "204 Taken" };
                    let answer =
                        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
            }
        });
        url
    }

    fn refuses(&self, refuse: bool) {
        *self.refuse.lock().unwrap() = refuse;
    }

    /// What came since the last look, each message proven to be the authority's.
    fn taken(&self) -> Vec<Value> {
        let messages = std::mem::take(&mut *self.messages.lock().unwrap());
        let proven = messages.into_iter().map(|(signature, body)| {
            let (time, mac) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
            let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
            hmac::verify(&key, format!("{time}.{body}").as_bytes(), &hex::decode(mac).unwrap()).unwrap();
            let message: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(message["sent_at"].to_string(), time);
            message
        });
        proven.collect()
    }
}

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
