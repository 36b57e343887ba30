//! The view from outside: what relying parties are served is fetched, verified and compared; what is wrong there is said, by object, and
//! nothing is said where nothing was ever reached.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ca_pki::crl::RevocationReason;
use ca_service::CertificateAuthority;
use ca_service::issuance::Issued;
use ca_service::outside::{OutsideView, Wrong};
use fixture::signers::{ObedientKeys, Orders};
use fixture::{Server, Site, enrol_request, key, settings, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

async fn issued(authority: &Arc<CertificateAuthority>) -> Issued {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

/// What a look says, by object.
async fn look(authority: &CertificateAuthority, view: &mut OutsideView) -> BTreeMap<String, Option<Wrong>> {
    let seen = authority.look_from_outside(view).await.unwrap();
    seen.into_iter().map(|(object, outcome)| (object, outcome.err())).collect()
}

/// Answers in the place of some paths, by what they begin with.
type Instead = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A cache in front of a server, that shows something else for some paths.
async fn in_front_of(server: &Server) -> (String, Instead) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let instead = Instead::default();
    let (rules, http, behind) = (instead.clone(), server.http.clone(), server.base.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (rules, http, behind) = (rules.clone(), http.clone(), behind.clone());
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut asked).await.unwrap() == 0 {
                        return;
                    }
                }
                let asked = String::from_utf8(asked).unwrap();
                let path = asked.split(' ').nth(1).unwrap();
                let rule = rules.lock().unwrap().iter().find(|(start, _)| path.starts_with(start)).cloned();
                let (status, body) = match rule {
                    Some((_, body)) if body.is_empty() => (404, body),
                    Some((_, body)) => (200, body),
                    None => {
                        let got = http.get(format!("{behind}{path}")).send().await.unwrap();
                        (got.status().as_u16(), got.bytes().await.unwrap().to_vec())
                    }
                };
                let head = format!(
                    "HTTP/1.1 {status} Said\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                // Whoever had enough does not read the rest.
                let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
            });
        }
    });
    (base, instead)
}

const ALL: [&str; 8] = [
    "certificate/code-signing",
    "certificate/root",
    "certificate/time-stamping",
    "list/code-signing",
    "list/root",
    "list/time-stamping",
    "ocsp/code-signing",
    "shard/code-signing",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_as_it_is_published_is_found_to_be_by_its_public_addresses() {
    let site = Site::new().await;
    let server = site.serve().await;
    let authority = &server.authority;
    let (_, gone) = (issued(authority).await, issued(authority).await);
    authority.revoke(&gone.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    let mut view = OutsideView::of(&server.base).unwrap();
    let seen = look(authority, &mut view).await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ALL);
    // The other shards in turn, and the complete list less often.
    for _ in 0..12 {
        let seen = look(authority, &mut view).await;
        assert!(seen.values().all(Option::is_none), "{seen:?}");
        assert!(seen.len() >= ALL.len() - 1, "{seen:?}");
    }
    assert!(seen.values().all(Option::is_none), "{seen:?}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_otherwise_is_said_by_object() {
    let site = Site::new().await;
    let server = site.serve().await;
    let authority = &server.authority;
    let certificate = issued(authority).await;
    authority.publish_due().await.unwrap();
    let (base, instead) = in_front_of(&server).await;
    let fetched = async |path: &str| {
        server.http.get(format!("{base}{path}")).send().await.unwrap().bytes().await.unwrap().to_vec()
    };
    let (list, root_list) = (fetched("/crl/time-stamping.crl").await, fetched("/crl/root.crl").await);
    let root = fetched("/ca/root.cer").await;
    let mut forged = list.clone();
    *forged.last_mut().unwrap() ^= 1;
    let said = |object: &str, path: &str, body: &[u8], wrong: &str| {
        (object.to_owned(), path.to_owned(), body.to_vec(), wrong.to_owned())
    };
    let cases = [
        said("certificate/code-signing", "/ca/code-signing.cer", &root, "another certificate"),
        said("certificate/root", "/ca/root.cer", b"", "the answer is 404"),
        said("list/time-stamping", "/crl/time-stamping.crl", &root_list, "list of another issuer"),
        said("list/time-stamping", "/crl/time-stamping.crl", &forged, "a verifier refuses it"),
        said("list/time-stamping", "/crl/time-stamping.crl", &vec![0; 1 << 20], "much larger"),
        said("list/root", "/crl/root.crl", b"<html>", "a verifier refuses it"),
        said("ocsp/code-signing", "/ocsp/", &list, "a verifier refuses it"),
    ];
    let mut view = OutsideView::of(&base).unwrap();
    for (object, path, body, wrong) in cases {
        *instead.lock().unwrap() = vec![(path, body)];
        let seen = look(authority, &mut view).await;
        let text = seen[&object].as_ref().unwrap_or_else(|| panic!("{object}: {wrong}")).to_string();
        assert!(text.contains(&wrong), "{object}: {text}");
        assert_eq!(seen.values().flatten().count(), 1, "and nothing else: {seen:?}");
    }

    // Old: bearable for as long as a cache may keep it, and not at the next look.
    *instead.lock().unwrap() = vec![("/crl/time-stamping.crl".to_owned(), list)];
    assert_eq!(look(authority, &mut view).await["list/time-stamping"], None);
    authority.publish_all().await.unwrap();
    assert_eq!(look(authority, &mut view).await["list/time-stamping"], None);
    let old = look(authority, &mut view).await["list/time-stamping"].clone();
    assert!(old.unwrap().to_string().contains("older than what was published"));

    // An answer about another certificate than was asked about: the newest one that is good.
    let asked = fixture::ocsp_request(&certificate.chain[0], &certificate.serial);
    let other = authority.ocsp(&asked, None).await.der.to_vec();
    issued(authority).await;
    *instead.lock().unwrap() = vec![("/ocsp/".to_owned(), other)];
    let found = look(authority, &mut view).await["ocsp/code-signing"].clone();
    assert!(found.unwrap().to_string().contains("about another certificate"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_part_of_a_list_and_one_that_is_long_replaced_are_told_at_the_first_look() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let server = Server::start(site.open_with(site.store().await, clock.clone()).await).await;
    let authority = &server.authority;
    let revoked = issued(authority).await;
    issued(authority).await;
    let (base, instead) = in_front_of(&server).await;
    let shard = authority.store().certificate(&revoked.serial).await.unwrap().unwrap().shard.0;
    let path = |shard: u16| format!("/crl/code-signing/{shard}.crl");
    let fetched = async |path: &str| {
        server.http.get(format!("{base}{path}")).send().await.unwrap().bytes().await.unwrap().to_vec()
    };
    let (before, other) = (fetched(&path(shard)).await, fetched(&path((shard + 1) % 4)).await);
    authority.revoke(&revoked.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    let first_look = async |served: &[u8]| {
        *instead.lock().unwrap() = vec![(path(shard), served.to_vec())];
        let seen = look(authority, &mut OutsideView::of(&base).unwrap()).await;
        seen["shard/code-signing"].as_ref().map(Wrong::to_string)
    };
    // It has a lower number, as an older list of the same part has.
    assert_eq!(first_look(&other).await.as_deref(), Some("it is another part of the list"));
    assert_eq!(
        first_look(&fetched("/crl/code-signing.crl").await).await.as_deref(),
        Some("it is another part of the list")
    );
    assert_eq!(first_look(&before).await, None, "a cache may have it");
    clock.advance(Duration::from_secs(301));
    assert_eq!(first_look(&before).await.as_deref(), Some("it is older than what was published long ago"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_was_wrong_is_until_it_is_seen_to_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let text = fixture::settings_text(folder.path(), "", "").replace("crl_shards = 4", "crl_shards = 16");
    let settings = ca_service::Config::parse(&text).unwrap().validate().unwrap();
    let site = Site::with_settings(folder, settings).await;
    let server = site.serve().await;
    issued(&server.authority).await;
    let (base, instead) = in_front_of(&server).await;
    let mut view = OutsideView::of(&base).unwrap();
    *instead.lock().unwrap() = vec![("/crl/code-signing/0.crl".to_owned(), Vec::new())];
    // Its turn is the first; then the others are looked at.
    for _ in 0..3 {
        let seen = look(&server.authority, &mut view).await;
        assert_eq!(seen["shard/code-signing"], Some(Wrong::Refused(404)));
        assert_eq!(seen.values().flatten().count(), 1, "{seen:?}");
    }
    instead.lock().unwrap().clear();
    let seen = look(&server.authority, &mut view).await;
    assert!(seen.values().all(Option::is_none), "{seen:?}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_no_status_although_it_is_what_was_published() {
    let site = Site::new().await;
    let server = site.serve().await;
    issued(&server.authority).await;
    // The same records ten days later, when nobody published.
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    clock.advance(Duration::from_secs(10 * 86_400));
    let seen = look(&authority, &mut OutsideView::of(&server.base).unwrap()).await;
    for object in ["list/code-signing", "shard/code-signing", "ocsp/code-signing"] {
        let text = seen[object].as_ref().unwrap_or_else(|| panic!("{object} has ended")).to_string();
        assert!(text.contains("it is over"), "{object}: {text}");
    }
    assert_eq!(seen["certificate/code-signing"], None);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_where_nothing_was_ever_reached_and_everything_once_it_was() {
    let site = Site::new().await;
    let server = site.serve().await;
    issued(&server.authority).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut nowhere = OutsideView::of(&format!("http://{free}")).unwrap();
    assert_eq!(look(&server.authority, &mut nowhere).await, BTreeMap::new());
    let mut view = OutsideView::of(&server.base).unwrap();
    look(&server.authority, &mut view).await;
    let authority = server.authority.clone();
    server.serving.stop().await;
    let seen = look(&authority, &mut view).await;
    assert!(seen.len() >= ALL.len() - 1);
    assert!(seen.values().all(|wrong| matches!(wrong, Some(Wrong::Unreached(_)))), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_lists_have_gauges_and_the_view_is_configured() {
    let site = Site::new().await;
    let orders = Arc::new(Orders::default());
    let keys = ObedientKeys { inner: site.keys(), orders: orders.clone() };
    let authority = site.open_over(site.store().await, Arc::new(SystemClock), &keys).await;
    let server = Server::start(authority).await;
    let certificate = issued(&server.authority).await;
    let gauge = async |name: &str, label: &str| {
        let text = server.http.get(format!("{}/metrics", server.base)).send().await.unwrap().text().await;
        let start = format!("{name}{{{label}}} ");
        let line = text.unwrap().lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{start}")).parse::<i64>().unwrap()
    };
    for key in ["code-signing", "ocsp-responder", "root", "statement", "timestamp-authority"] {
        assert_eq!(gauge("mentat_ca_key_usable", &format!("key=\"{key}\"")).await, 1, "{key}");
    }
    orders.refuse_ocsp(true);
    let asked = fixture::ocsp_request(&certificate.chain[0], &certificate.serial);
    server.authority.ocsp(&asked, None).await;
    assert_eq!(gauge("mentat_ca_key_usable", "key=\"ocsp-responder\"").await, 0);
    assert_eq!(gauge("mentat_ca_key_usable", "key=\"code-signing\"").await, 1);
    orders.refuse_ocsp(false);
    server.authority.ocsp(&asked, None).await;
    assert_eq!(gauge("mentat_ca_key_usable", "key=\"ocsp-responder\"").await, 1);
    let day = 86_400;
    for (issuer, days) in [("code-signing", 7), ("root", 180)] {
        let label = format!("issuer=\"{issuer}\"");
        let left =
            gauge("mentat_ca_list_next_update_unix_seconds", &label).await - SystemClock.unix_seconds();
        assert!((days * day - 600..=days * day).contains(&left), "{issuer}: {left}");
    }
    server.finish().await;

    let folder = tempfile::tempdir().unwrap();
    let configured = |seconds: &str| {
        let settings = settings(folder.path(), "", &format!("outside_view_seconds = {seconds}"));
        OutsideView::configured(&settings).unwrap().is_some()
    };
    assert!(configured("300") && !configured("0"));
    let text = fixture::settings_text(folder.path(), "", "outside_view_seconds = 59");
    let refusal = ca_service::Config::parse(&text).unwrap().validate().unwrap_err().to_string();
    assert!(refusal.contains("status.outside_view_seconds"), "{refusal}");
}
