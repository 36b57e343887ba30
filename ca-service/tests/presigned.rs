//! OCSP answers that are signed ahead: the same bytes however they are asked for, after a restart too, and never shown when a record
//! says something else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, pem};
use ca_service::issuance::Issued;
use ca_service::presigned::Presigning;
use ca_service::{CaError, CertificateAuthority};
use fixture::signers::{ObedientKeys, Orders};
use fixture::{Server, Site, check_ca, enrol_request, key, ocsp_request, renewal, settings, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::Certificate;
use trust_store::ocsp::{CertificateStatus, OcspResponse};

async fn issued(authority: &Arc<CertificateAuthority>, profile: &str) -> Issued {
    let token = authority.create_token(&token_request("dev@example.com", profile), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

async fn revoke(authority: &Arc<CertificateAuthority>, issued: &Issued) {
    authority.revoke(&issued.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
}

async fn answer(authority: &CertificateAuthority, issued: &Issued) -> Vec<u8> {
    authority.ocsp(&ocsp_request(&issued.chain[0], &issued.serial), None).await.der.to_vec()
}

fn status(der: &[u8]) -> CertificateStatus {
    OcspResponse::from_der(der).unwrap().responses()[0].status()
}

/// Every file of the folder, with its path below it.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.strip_prefix(folder).unwrap().display().to_string(), path));
            }
        }
    }
    found.sort();
    found
}

/// The file of the answer to a request.
fn file(authority: &CertificateAuthority, issued: &Issued) -> PathBuf {
    let path = STANDARD.encode(ocsp_request(&issued.chain[0], &issued.serial));
    let path = if path.ends_with('/') { format!("{path}index") } else { path };
    authority.presigned_folder().join(path)
}

async fn pass(authority: &CertificateAuthority) -> (u64, u64) {
    let Presigning { signed, kept } = authority.presign_all().await.unwrap();
    (signed, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_is_signed_ahead_and_served_as_it_lies_there() {
    let site = Site::new().await;
    let authority = site.open().await;
    let (good, gone) = (issued(&authority, "developer").await, issued(&authority, "developer").await);
    assert_eq!(pass(&authority).await, (0, 0), "nothing is revoked");
    revoke(&authority, &gone).await;
    assert!(files(authority.presigned_folder()).is_empty());
    // They wait since the revocation; then the list names it.
    assert_eq!(pass(&authority).await, (0, 2), "for both hashes of certificate ids");
    assert_eq!(pass(&authority).await, (0, 2));
    assert_eq!(files(authority.presigned_folder()).len(), 2);
    let ready = std::fs::read(file(&authority, &gone)).unwrap();
    assert!(matches!(status(&ready), CertificateStatus::Revoked { .. }));
    assert_eq!(answer(&authority, &gone).await, ready);
    assert_eq!(status(&answer(&authority, &good).await), CertificateStatus::Good);
    drop(authority);

    // A restart remembers nothing, and a minute later an answer of its own would have another time.
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds() + 60));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    assert_eq!(answer(&authority, &gone).await, ready);
    assert_eq!(pass(&authority).await, (0, 2));
    // Before half of its life is over, it is signed anew.
    clock.advance(Duration::from_secs(13 * 3_600));
    let later = answer(&authority, &gone).await;
    assert_ne!(later, ready);
    assert_eq!(pass(&authority).await, (2, 0));
    assert_ne!(std::fs::read(file(&authority, &gone)).unwrap(), ready);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_there_and_is_not_what_would_be_said_is_not_shown() {
    let site = Site::with_status("ocsp_presign = \"all\"").await;
    let authority = site.open().await;
    let (one, other) = (issued(&authority, "developer").await, issued(&authority, "developer").await);
    assert_eq!(pass(&authority).await, (4, 0));
    let (at, ready) = (file(&authority, &one), std::fs::read(file(&authority, &one)).unwrap());
    assert_eq!(status(&ready), CertificateStatus::Good);
    let shown = async |bytes: &[u8]| {
        std::fs::write(&at, bytes).unwrap();
        // Without what this process remembers.
        answer(&*site.open().await, &one).await == *bytes
    };
    assert!(shown(&ready).await);
    for place in 0..ready.len() {
        let mut altered = ready.clone();
        altered[place] ^= 1;
        // The first octets, a time, the signature, the certificate: a few of each are enough.
        if place % 37 == 0 || place + 3 > ready.len() {
            assert!(!shown(&altered).await, "octet {place}");
        }
    }
    assert!(!shown(&ready[..ready.len() - 1]).await);
    assert!(!shown(&[ready.as_slice(), b"\0"].concat()).await);
    assert!(!shown(b"").await);
    let of_other = std::fs::read(file(&authority, &other)).unwrap();
    assert!(!shown(&of_other).await, "another certificate's");
    assert!(shown(&ready).await);

    // Revoked: the answers are gone before the call returns, and one that came in between is not shown.
    revoke(&authority, &one).await;
    assert!(!at.exists());
    assert!(matches!(status(&answer(&authority, &one).await), CertificateStatus::Revoked { .. }));
    assert!(!shown(&ready).await);
    let reopened = site.open().await;
    assert!(matches!(status(&answer(&reopened, &one).await), CertificateStatus::Revoked { .. }));
    assert_eq!(pass(&reopened).await, (2, 2));
    assert!(matches!(status(&std::fs::read(&at).unwrap()), CertificateStatus::Revoked { .. }));
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_all_are_of_those_that_live_long_and_go_with_them() {
    let site = Site::with_status("ocsp_presign = \"all\"").await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let developer = issued(&authority, "developer").await;
    issued(&authority, "keyless").await;
    assert_eq!(pass(&authority).await, (2, 0), "ten minutes are not worth it");
    assert!(file(&authority, &developer).exists());
    let lives = developer.not_after.0 - clock.unix_seconds();
    clock.advance(Duration::from_secs(u64::try_from(lives + 1).unwrap()));
    assert_eq!(pass(&authority).await, (0, 0));
    assert_eq!(files(authority.presigned_folder()), [], "after the end the lists answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_ahead_where_nothing_is_wanted() {
    let site = Site::with_status("ocsp_presign = \"none\"").await;
    let server = site.serve().await;
    let gone = issued(&server.authority, "developer").await;
    revoke(&server.authority, &gone).await;
    assert_eq!(pass(&server.authority).await, (0, 0));
    assert!(!server.authority.presigned_folder().exists());
    assert!(matches!(status(&answer(&server.authority, &gone).await), CertificateStatus::Revoked { .. }));
    server.finish().await;
    let folder = tempfile::tempdir().unwrap();
    let text = fixture::settings_text(folder.path(), "", "ocsp_presign = \"some\"");
    assert!(ca_service::Config::parse(&text).unwrap_err().to_string().contains("ocsp_presign"));
    let usual = settings(folder.path(), "", "").config.status;
    assert_eq!(usual.ocsp_presign, ca_service::presigned::PresignScope::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_replaces_the_answer_of_a_revocation_by_itself() {
    let site = Site::with_status("ocsp_presign = \"all\"").await;
    let authority = site.open().await;
    let gone = issued(&authority, "developer").await;
    pass(&authority).await;
    let before = std::fs::read(file(&authority, &gone)).unwrap();
    drop(authority);
    let server = site.serve().await;
    server.authority.revoke(&gone.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    let ready = loop {
        match std::fs::read(file(&server.authority, &gone)) {
            Ok(ready) => break ready,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_ne!(ready, before);
    assert!(matches!(status(&ready), CertificateStatus::Revoked { .. }));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_renewals_go_with_those_about_the_certificate_that_they_end_with() {
    let site = Site::with_status("ocsp_presign = \"all\"").await;
    let authority = site.open().await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let own = key();
    let first = authority.enrol(&enrol_request(&token.token, &own, None)).await.unwrap();
    let (serial, text) = (first.serial.to_string(), pem::encode("CERTIFICATE", &first.certificate).unwrap());
    let asked = renewal(&authority, (&own, &serial, &text), &key(), "a");
    let second = authority.renew_own(&asked, None).await.unwrap();
    let other = issued(&authority, "developer").await;
    assert_eq!(pass(&authority).await, (6, 0));
    authority.revoke(&first.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    assert!(authority.store().certificate(&second.serial).await.unwrap().unwrap().revocation.is_some());
    assert!(!file(&authority, &first).exists());
    assert!(!file(&authority, &second).exists(), "a copy of the folder says good of what has ended");
    assert_eq!(files(authority.presigned_folder()).len(), 2, "by either hash");
    assert!(file(&authority, &other).exists());
    pass(&authority).await;
    for gone in [&first, &second] {
        let ready = std::fs::read(file(&authority, gone)).unwrap();
        assert!(matches!(status(&ready), CertificateStatus::Revoked { .. }));
    }
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

/// O1, O2: a responder answers for the CA that named it, and for no other.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_ahead_about_what_the_root_or_the_time_stamping_ca_issued() {
    let site = Site::new().await;
    let authority = site.open().await;
    let gone = issued(&authority, "developer").await;
    revoke(&authority, &gone).await;
    for (name, issuer) in [("timestamp-authority", "time-stamping"), ("code-signing", "root")] {
        assert!(matches!(authority.responder_of(issuer), Err(CaError::Inconsistent(_))), "{issuer}");
        let serial = own_serial(&authority, name);
        authority.revoke(&serial, RevocationReason::CaCompromise, None, "test").await.unwrap();
        authority.publish_due().await.unwrap();
        pass(&authority).await;
        assert!(file(&authority, &gone).exists());
        assert_eq!(files(authority.presigned_folder()).len(), 2, "{name}: those about the developer's alone");
    }
    check_ca(&authority).await;
}

/// The serial number of one of the CA's own certificates.
fn own_serial(authority: &CertificateAuthority, name: &str) -> SerialNumber {
    let certificate = Certificate::from_der(&authority.authorities()[name].certificate).unwrap();
    SerialNumber::from_magnitude(certificate.serial()).unwrap()
}

/// The site's authority with keys that obey.
async fn obedient(site: &Site) -> (Arc<CertificateAuthority>, Arc<Orders>) {
    let orders = Arc::new(Orders::default());
    let keys = ObedientKeys { inner: site.keys(), orders: orders.clone() };
    (site.open_over(site.store().await, Arc::new(SystemClock), &keys).await, orders)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_could_not_sign_waits_for_the_next_attempt() {
    let site = Site::new().await;
    let (authority, orders) = obedient(&site).await;
    let (listed, unlisted) = (issued(&authority, "developer").await, issued(&authority, "developer").await);
    revoke(&authority, &listed).await;
    pass(&authority).await;
    // Of this one no list tells yet: only its revocation handed it over.
    authority.revoke(&unlisted.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    orders.refuse_ocsp(true);
    let refused = authority.presign_all().await;
    assert!(matches!(refused, Err(CaError::Signing(_))), "{refused:?}");
    orders.refuse_ocsp(false);
    assert_eq!(pass(&authority).await, (0, 2));
    assert!(file(&authority, &unlisted).exists(), "its place was lost");
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_does_not_wait_hours_after_a_failure() {
    let site = Site::new().await;
    let authority = site.open().await;
    let (before, during) = (issued(&authority, "developer").await, issued(&authority, "developer").await);
    revoke(&authority, &before).await;
    drop(authority);
    let (authority, orders) = obedient(&site).await;
    orders.refuse_ocsp(true);
    let server = Server::start(authority).await;
    let refusals = async |number: usize| {
        while orders.refused() < number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    refusals(1).await;
    server.authority.revoke(&during.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    refusals(2).await;
    orders.refuse_ocsp(false);
    for gone in [&before, &during] {
        let lies_there = async {
            while !file(&server.authority, gone).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), lies_there).await.expect("nobody tries again");
    }
    server.authority.publish_due().await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_whose_responder_is_missing_holds_up_no_other() {
    let site = Site::new().await;
    let authority = site.open().await;
    let old = issued(&authority, "developer").await;
    authority.renew("code-signing", &site.keyring()).await.unwrap();
    drop(authority);
    fixture::execute(&site.settings, "DELETE FROM authority WHERE name = 'ocsp-responder'");
    let authority = site.open().await;
    let new = issued(&authority, "developer").await;
    for gone in [&old, &new] {
        revoke(&authority, gone).await;
    }
    assert_eq!(pass(&authority).await, (0, 2));
    assert!(file(&authority, &new).exists() && !file(&authority, &old).exists());
}

/// The second look at the record, where a revocation comes while an answer is signed.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_overtaken_by_a_revocation_does_not_stay() {
    let site = Site::with_status("ocsp_presign = \"all\"").await;
    let (authority, orders) = obedient(&site).await;
    let gone = issued(&authority, "developer").await;
    orders.hold_ocsp(true);
    let under_way = tokio::spawn({
        let authority = authority.clone();
        async move { authority.presign_all().await }
    });
    while orders.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    authority.revoke(&gone.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    orders.hold_ocsp(false);
    // What it signed before is not what would be said; the answer for the other hash is.
    assert_eq!(under_way.await.unwrap().unwrap().signed, 2);
    let lie_there = files(authority.presigned_folder());
    assert_eq!(lie_there.len(), 1, "{lie_there:?}");
    let said = status(&std::fs::read(&lie_there[0].1).unwrap());
    assert!(matches!(said, CertificateStatus::Revoked { .. }));
    pass(&authority).await;
    assert_eq!(files(authority.presigned_folder()).len(), 2);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_ahead_any_more_does_not_stay() {
    let mut site = Site::with_status("ocsp_presign = \"all\"").await;
    let authority = site.open().await;
    let (good, late) = (issued(&authority, "developer").await, issued(&authority, "developer").await);
    let gone = issued(&authority, "developer").await;
    revoke(&authority, &gone).await;
    assert_eq!(pass(&authority).await, (4, 2));
    drop(authority);
    site.settings = settings(site.folder.path(), "", "ocsp_presign = \"none\"");
    let authority = site.open().await;
    authority.revoke(&late.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    assert!(!file(&authority, &late).exists(), "a copy says good of it");
    assert_eq!(files(authority.presigned_folder()).len(), 4);
    authority.publish_due().await.unwrap();
    drop(authority);
    let vanishes = async |path: &Path| {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    for (scope, stays) in [("revoked", true), ("none", false)] {
        site.settings = settings(site.folder.path(), "", &format!("ocsp_presign = \"{scope}\""));
        let server = site.serve().await;
        let left = if stays { file(&server.authority, &good) } else { file(&server.authority, &gone) };
        tokio::time::timeout(Duration::from_secs(60), vanishes(&left)).await.expect("it stays");
        assert_eq!(file(&server.authority, &gone).exists(), stays, "{scope}");
        server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_responder_signed_that_was_revoked_is_offered_no_more() {
    let site = Site::new().await;
    let authority = site.open().await;
    let gone = issued(&authority, "developer").await;
    revoke(&authority, &gone).await;
    pass(&authority).await;
    assert_eq!(files(authority.presigned_folder()).len(), 2);
    let responder = own_serial(&authority, "ocsp-responder");
    authority.revoke(&responder, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    assert_eq!(pass(&authority).await, (0, 0));
    assert_eq!(files(authority.presigned_folder()), []);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

/// RFC 9919 §5, RFC 9111: what caches are told of an answer is what it says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn answers_signed_ahead_and_on_demand_have_the_same_bytes_by_get_and_post_and_the_headers_of_their_times()
 {
    let site = Site::new().await;
    let authority = site.open().await;
    let (good, gone) = (issued(&authority, "developer").await, issued(&authority, "developer").await);
    revoke(&authority, &gone).await;
    pass(&authority).await;
    let ready = std::fs::read(file(&authority, &gone)).unwrap();
    drop(authority);
    let server = site.serve().await;
    for (issued, expected) in [(&gone, Some(ready)), (&good, None)] {
        let request = ocsp_request(&issued.chain[0], &issued.serial);
        let url = format!("{}/ocsp/{}", server.base, STANDARD.encode(&request).replace('/', "%2F"));
        let got = server.http.get(&url).send().await.unwrap();
        assert_eq!(got.status(), 200);
        let header = |name: &str| got.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/ocsp-response");
        let (control, etag) = (header("cache-control"), header("etag"));
        let (modified, expires) = (header("last-modified"), header("expires"));
        let der = got.bytes().await.unwrap().to_vec();
        let posted = server.client().ocsp(request.clone()).await.unwrap();
        assert_eq!(der, posted);
        assert!(expected.is_none_or(|expected| expected == der), "what lies ready is served");
        let response = OcspResponse::from_der(&der).unwrap();
        let single = &response.responses()[0];
        let date = |seconds: i64| {
            let text = ca_pki::UnixTime(seconds).to_rfc3339();
            (text[8..10].to_owned(), text[0..4].to_owned(), text[11..19].to_owned())
        };
        for (shown, is) in [(&modified, single.this_update().0), (&expires, single.next_update().unwrap().0)]
        {
            let (day, year, time) = date(is);
            assert!(
                shown.contains(&format!(", {day} ")) && shown.ends_with(&format!(" {year} {time} GMT")),
                "{shown}"
            );
        }
        assert_eq!(control, "public, no-transform, must-revalidate, max-age=10");
        for (name, value) in [("if-none-match", &etag), ("if-modified-since", &modified)] {
            let again = server.http.get(&url).header(name, value).send().await.unwrap();
            assert_eq!(again.status(), 304, "{name}");
            assert!(again.headers()["etag"] == etag && again.headers()["expires"] == expires);
            assert_eq!(again.bytes().await.unwrap().len(), 0);
        }
        let other = server.http.get(&url).header("if-none-match", "\"other\"").send().await.unwrap();
        assert_eq!(other.status(), 200);
        // Answers to POST are kept by no cache, and a fresh one is nobody else's.
        let post = server
            .http
            .post(format!("{}/ocsp", server.base))
            .header("content-type", "application/ocsp-request");
        let post = post.body(request).send().await.unwrap();
        assert_eq!(post.headers()["cache-control"], "no-store");
        let nonce = fixture::ocsp_request_with_nonce(&issued.chain[0], &issued.serial, &[7; 32]);
        let fresh =
            server.http.get(format!("{}/ocsp/{}", server.base, STANDARD.encode(nonce).replace('/', "%2F")));
        let fresh = fresh.send().await.unwrap();
        assert_eq!(fresh.headers()["cache-control"], "no-store");
        assert!(!fresh.headers().contains_key("etag"));
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cache_keeps_an_answer_to_its_end() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let server = Server::start(site.open_with(site.store().await, clock.clone()).await).await;
    let short = issued(&server.authority, "keyless").await;
    let request = STANDARD.encode(ocsp_request(&short.chain[0], &short.serial)).replace('/', "%2F");
    let max_age = async || {
        let got = server.http.get(format!("{}/ocsp/{request}", server.base)).send().await.unwrap();
        let text = got.headers()["cache-control"].to_str().unwrap().to_owned();
        text.rsplit_once("max-age=").unwrap().1.parse::<i64>().unwrap()
    };
    let lives = short.not_after.0 - clock.unix_seconds();
    clock.advance(Duration::from_secs(u64::try_from(lives - 8).unwrap()));
    assert_eq!(max_age().await, 7);
    clock.advance(Duration::from_secs(3));
    // The same answer, of which five seconds are left.
    assert_eq!(max_age().await, 4);
    server.serving.stop().await;
}
