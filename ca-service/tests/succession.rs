//! New keys for the CAs that issue: a successor takes over, and what the old one issued stays as good, and as revocable, as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_pki::crl::RevocationReason;
use ca_service::CaError;
use ca_service::CertificateAuthority;
use ca_service::issuance::Issued;
use ca_service::standing::NotIssuing;
use ca_service::storage::CrlPart;
use fixture::lines::Lines;
use fixture::{Server, Site, check_ca, enrol_request, key, ocsp_request, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::ocsp::{CertificateStatus, OcspResponse};
use trust_store::provider::AwsLc;
use trust_store::tsp::{self, TimestampToken};
use trust_store::{Certificate, UnixTime};

async fn issued(authority: &Arc<CertificateAuthority>) -> Issued {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

/// What the responder says, signed on behalf of the very CA that issued the certificate.
async fn status(authority: &CertificateAuthority, issued: &Issued) -> CertificateStatus {
    let answer = authority.ocsp(&ocsp_request(&issued.chain[0], &issued.serial), None).await;
    let response = OcspResponse::from_der(&answer.der).unwrap();
    let issuer = Certificate::from_der(&issued.chain[0]).unwrap();
    let now = UnixTime(issued.not_before.0 + 60);
    response.find_responder(&issuer, now.max(response.produced_at()), &AwsLc).unwrap();
    response.responses()[0].status()
}

fn listed(authority: &CertificateAuthority, issuer: &str) -> Vec<Vec<u8>> {
    let list = authority.published_crl(issuer, CrlPart::Complete).unwrap();
    let crl = trust_store::crl::Crl::from_der(&list.der).unwrap();
    crl.entries().map(|(serial, _)| serial.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_issues_and_the_old_ca_answers_for_what_it_issued() {
    let site = Site::new().await;
    let authority = site.open().await;
    let old = issued(&authority).await;
    let renewed = authority.renew("code-signing", &site.keyring()).await.unwrap();
    assert_eq!(renewed.authority, "code-signing-2");
    // The running CA goes on as it was; the next start takes the new one.
    assert_eq!(issued(&authority).await.chain, old.chain);
    drop(authority);

    let server = site.serve().await;
    let authority = Arc::clone(&server.authority);
    let new = issued(&authority).await;
    assert_ne!(new.chain[0], old.chain[0]);
    assert_eq!(new.chain[1], old.chain[1], "the same root");
    let parsed = |der: &[u8]| Certificate::from_der(der).unwrap();
    assert_eq!(parsed(&new.certificate).issuer_der(), parsed(&new.chain[0]).subject_der());
    assert_ne!(parsed(&new.chain[0]).subject_der(), parsed(&old.chain[0]).subject_der());
    // Each certificate names the lists of its own issuer, which are there.
    let names = |der: &[u8], text: &str| der.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(names(&old.certificate, "/crl/code-signing/") && names(&new.certificate, "/crl/code-signing-2/"));
    assert!(listed(&authority, "code-signing").is_empty() && listed(&authority, "code-signing-2").is_empty());
    for each in [&old, &new] {
        assert_eq!(status(&authority, each).await, CertificateStatus::Good);
    }
    // Relying parties are told of both, the newest first; so is the log, by its file.
    let bundle: serde_json::Value = server
        .http
        .get(format!("{}/api/v2/trustBundle", server.base))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let told = |place: usize| fixture::der(bundle["chains"][place]["certificates"][0].as_str().unwrap());
    assert_eq!((told(0), told(1)), (new.chain[0].clone(), old.chain[0].clone()));
    let names: Vec<String> =
        server.client().authorities().await.unwrap().authorities.into_iter().map(|each| each.name).collect();
    assert_eq!(
        names,
        [
            "root",
            "code-signing-2",
            "code-signing",
            "time-stamping",
            "ocsp-responder-2",
            "ocsp-responder",
            "timestamp-authority",
            "statement"
        ]
    );
    let file = std::fs::read_to_string(&renewed.file).unwrap();
    let filed: Vec<_> = file.split_inclusive("-----END CERTIFICATE-----\n").map(fixture::der).collect();
    assert_eq!(filed, [new.chain[0].clone(), old.chain[0].clone(), old.chain[1].clone()]);

    // Revocation reaches each by its own list and responder.
    for each in [&old, &new] {
        authority.revoke(&each.serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
        assert!(matches!(status(&authority, each).await, CertificateStatus::Revoked { .. }));
    }
    authority.publish_due().await.unwrap();
    assert_eq!(listed(&authority, "code-signing"), [old.serial.as_bytes()]);
    assert_eq!(listed(&authority, "code-signing-2"), [new.serial.as_bytes()]);
    // A responder of either generation can be renewed in its turn, and so can the successor be succeeded.
    for name in ["ocsp-responder", "ocsp-responder-2", "code-signing"] {
        authority.renew(name, &site.keyring()).await.unwrap();
    }
    // What was added beside it is unknown to it: the next one proves the whole state.
    server.serving.stop().await;
    let authority = site.open().await;
    let third = issued(&authority).await;
    assert!(authority.authorities().contains_key("code-signing-3"));
    assert_eq!(status(&authority, &third).await, CertificateStatus::Good);
    for each in [&old, &new] {
        assert!(matches!(status(&authority, each).await, CertificateStatus::Revoked { .. }));
    }
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_without_its_responder_issues_nothing() {
    let site = Site::new().await;
    site.open().await.renew("code-signing", &site.keyring()).await.unwrap();
    // As if it had been interrupted before its last step.
    fixture::execute(&site.settings, "DELETE FROM authority WHERE name = 'ocsp-responder-2'");
    let authority = site.open().await;
    let made = issued(&authority).await;
    assert_eq!(made.chain[0], authority.authorities()["code-signing"].certificate);
    assert_eq!(status(&authority, &made).await, CertificateStatus::Good);
    // The file says what holds, whatever the interruption left.
    let file = site.outcome.code_signing_chain.clone();
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "cut").unwrap();
    authority.write_chains().unwrap();
    let filed = std::fs::read_to_string(&file).unwrap();
    let filed: Vec<_> = filed.split_inclusive("-----END CERTIFICATE-----\n").map(fixture::der).collect();
    assert_eq!(filed, made.chain, "{whole}");
    // Repeated, it makes the next one.
    let renewed = authority.renew("code-signing", &site.keyring()).await.unwrap();
    assert_eq!(renewed.authority, "code-signing-3");
    let authority = site.open().await;
    assert_eq!(issued(&authority).await.chain[0], authority.authorities()["code-signing-3"].certificate);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_ca_for_time_stamps_certifies_the_authority_anew() {
    let site = Site::new().await;
    let authority = site.open().await;
    let stamp = async |authority: &CertificateAuthority| {
        let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(b"signature").into();
        TimestampToken::from_response(&authority.timestamp(&tsp::request(&digest, &[1])).await).unwrap()
    };
    let before = stamp(&authority).await;
    assert_eq!(authority.renew("time-stamping", &site.keyring()).await.unwrap().authority, "time-stamping-2");
    let reopened = site.open().await;
    let after = stamp(&reopened).await;
    let chain: Vec<_> = reopened.authorities()["timestamp-authority"].chain.clone();
    assert_eq!(chain[1], reopened.authorities()["time-stamping-2"].certificate);
    let signer = Certificate::from_der(&chain[0]).unwrap();
    after.verify(b"signature", &signer, &AwsLc).unwrap();
    assert!(before.verify(b"signature", &signer, &AwsLc).is_err());
    let old = Certificate::from_der(&authority.authorities()["timestamp-authority"].certificate).unwrap();
    before.verify(b"signature", &old, &AwsLc).unwrap();
    reopened.publish_due().await.unwrap();
    check_ca(&reopened).await;
}

/// A root that is succeeded goes on as the anchor of what is below it; what is made next is below the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_root_certifies_the_next_cas_and_the_old_one_stays_an_anchor() {
    let site = Site::new().await;
    let authority = site.open().await;
    let old = issued(&authority).await;
    let renewed = authority.renew("root", &site.keyring()).await.unwrap();
    assert_eq!(renewed.authority, "root-2");
    assert!(renewed.file.ends_with("root-2.pem") && renewed.serial.is_some() && renewed.not_after.is_some());
    drop(authority);
    // Nothing issues under it yet.
    let authority = site.open().await;
    assert_eq!(issued(&authority).await.chain, old.chain);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
    assert!(listed(&authority, "root-2").is_empty());
    for kind in ["code-signing", "time-stamping"] {
        authority.renew(kind, &site.keyring()).await.unwrap();
    }
    drop(authority);

    let authority = site.open().await;
    authority.publish_due().await.unwrap();
    let (first, second) =
        (&authority.authorities()["root"].certificate, &authority.authorities()["root-2"].certificate);
    let new = issued(&authority).await;
    assert_eq!((&old.chain[1], &new.chain[1]), (first, second));
    let parsed = |der: &[u8]| Certificate::from_der(der).unwrap();
    assert_ne!(parsed(first).subject_der(), parsed(second).subject_der(), "names stand for keys");
    assert_ne!(parsed(first).spki_der(), parsed(second).spki_der());
    assert_eq!(parsed(&new.chain[0]).issuer_der(), parsed(second).subject_der());
    assert_eq!(&authority.authorities()["timestamp-authority"].chain[2], second);
    for each in [&old, &new] {
        assert_eq!(status(&authority, each).await, CertificateStatus::Good);
    }
    // The file that logs are given: every CA whose certificates may be good, and both anchors at its end.
    let file = site.settings.data_dir.join("chains/code-signing.pem");
    let text = std::fs::read_to_string(file).unwrap();
    let filed: Vec<_> = text.split_inclusive("-----END CERTIFICATE-----\n").map(fixture::der).collect();
    assert_eq!(filed, [new.chain[0].clone(), old.chain[0].clone(), second.clone(), first.clone()]);
    check_ca(&authority).await;

    // With the old root falls what is below it, and nothing of the new one's.
    let serial = |name: &str| {
        let serial = parsed(&authority.authorities()[name].certificate).serial().to_vec();
        ca_pki::SerialNumber::from_magnitude(&serial).unwrap()
    };
    authority.revoke(&serial("root"), RevocationReason::KeyCompromise, None, "test").await.unwrap();
    assert!(authority.has_fallen("code-signing") && !authority.has_fallen("code-signing-2"));
    assert_eq!(issued(&authority).await.chain, new.chain);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_signed_by_the_newest_key_and_the_file_of_keys_names_all() {
    let site = Site::new().await;
    let authority = site.open().await;
    let signer = |authority: &CertificateAuthority, index: u64| {
        let event = site.log.events()[usize::try_from(index).unwrap()].clone();
        let key = event["signatures"][0]["keyid"].as_str().unwrap().to_owned();
        let named =
            |one: &&ca_service::authority::LoadedAuthority| hex::encode(one.public_key.spki_sha256()) == key;
        authority.authorities().values().find(named).unwrap().name.clone()
    };
    let anchored = authority.anchor().await.unwrap().unwrap();
    assert_eq!(signer(&authority, anchored.event_index), "statement");
    let renewed = authority.renew("statement", &site.keyring()).await.unwrap();
    assert_eq!((&*renewed.authority, &renewed.serial, &renewed.not_after), ("statement-2", &None, &None));
    let text = std::fs::read_to_string(&renewed.file).unwrap();
    assert!(renewed.file.ends_with("statement.pub.pem") && text.matches("BEGIN PUBLIC KEY").count() == 2);
    drop(authority);

    let authority = site.open().await;
    issued(&authority).await;
    let anchored = authority.anchor().await.unwrap().unwrap();
    assert_eq!(signer(&authority, anchored.event_index), "statement-2");
    let newest = authority.authorities()["statement-2"].signer.public_key().to_pem();
    assert!(text.starts_with(&newest), "the newest first");
    // An interruption left the file as it was: the next start writes it.
    std::fs::write(&renewed.file, newest).unwrap();
    authority.write_chains().unwrap();
    assert_eq!(std::fs::read_to_string(&renewed.file).unwrap(), text);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_authority_or_follows_another_is_not_renewed() {
    let site = Site::new().await;
    let authority = site.open().await;
    for name in
        ["root-2", "statement-2", "code-signing-2", "time-stamping-2", "timestamp-authority-2", "nobody"]
    {
        let refused = authority.renew(name, &site.keyring()).await;
        assert!(matches!(refused, Err(CaError::OutOfRange { field: "authority", .. })), "{name}");
    }
    let refused = authority.renew("ocsp-responder-2", &site.keyring()).await;
    assert!(matches!(refused, Err(CaError::Inconsistent(_))));
    check_ca(&authority).await;
}

/// Whatever the certificates of a token are, they are sorted as X.690 demands, and the rules know that order.
#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_of_the_time_stamp_authority_makes_tokens_that_may_be_signed() {
    let site = Site::new().await;
    for _ in 0..12 {
        let authority = site.open().await;
        let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(b"signature").into();
        TimestampToken::from_response(&authority.timestamp(&tsp::request(&digest, &[1])).await).unwrap();
        authority.renew("timestamp-authority", &site.keyring()).await.unwrap();
    }
    let authority = site.open().await;
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test]
async fn thirty_days_before_the_issuing_ca_retires_the_log_says_so_and_a_metric_says_when() {
    const SAID: &str = "the issuing CA issues nothing any more soon";
    let folder = tempfile::tempdir().unwrap();
    let text =
        fixture::settings_text(folder.path(), "", "").replace("issuing_days = 1825", "issuing_days = 90");
    let settings = ca_service::Config::parse(&text).unwrap().validate().unwrap();
    let site = Site::with_settings(folder, settings).await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let own = ca_pki::certificate::parse(&authority.authority("code-signing").unwrap().certificate).unwrap();
    let begins = own.tbs_certificate().validity().not_before.to_unix_duration().as_secs();
    let retires = i64::try_from(begins).unwrap() + 90 * 86_400;
    for (before, said) in [(30 * 86_400 + 1, false), (30 * 86_400, true)] {
        let (lines, _hearing) = Lines::heard();
        let ahead = u64::try_from(retires - before - clock.unix_seconds()).unwrap();
        clock.advance(Duration::from_secs(ahead));
        let server = Server::start(site.open_with(site.store().await, clock.clone()).await).await;
        assert_eq!(server.metric("mentat_ca_issues_until_unix_seconds").await, retires);
        assert!(server.metric("mentat_ca_first_expiry_unix_seconds").await <= retires);
        // What every start does first has been done when a list was published.
        server.authority.publish_all().await.unwrap();
        for _ in 0..100 {
            if lines.with(SAID).is_empty() != said {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let heard = lines.with(SAID);
        assert_eq!(heard.len(), usize::from(said), "{heard:?}");
        assert!(
            heard.iter().all(|line| line.starts_with("ERROR") && line.contains("\"code-signing\"")),
            "{heard:?}"
        );
        server.finish().await;
    }
}

/// An interruption between a CA and its responder leaves the one before at work: its retirement is what must be warned of.
#[tokio::test]
async fn a_successor_without_its_responder_hides_nothing_of_the_retirement_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        fixture::settings_text(folder.path(), "", "").replace("issuing_days = 1825", "issuing_days = 90");
    let settings = ca_service::Config::parse(&text).unwrap().validate().unwrap();
    let site = Site::with_settings(folder, settings).await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let open = async || site.open_with(site.store().await, clock.clone()).await;
    let own = open().await.authority("code-signing").unwrap().certificate.clone();
    let own = ca_pki::certificate::parse(&own).unwrap();
    let begins = own.tbs_certificate().validity().not_before.to_unix_duration().as_secs();
    let retires = i64::try_from(begins).unwrap() + 90 * 86_400;
    let ahead = u64::try_from(retires - 20 * 86_400 - clock.unix_seconds()).unwrap();
    clock.advance(Duration::from_secs(ahead));
    open().await.renew("code-signing", &site.keyring()).await.unwrap();
    fixture::execute(&site.settings, "DELETE FROM authority WHERE name = 'ocsp-responder-2'");

    let (lines, _hearing) = Lines::heard();
    let server = Server::start(open().await).await;
    assert_eq!(server.metric("mentat_ca_issues_until_unix_seconds").await, retires);
    assert!(server.metric("mentat_ca_first_expiry_unix_seconds").await <= retires);
    const SAID: [(&str, &str); 2] = [
        ("the issuing CA issues nothing any more soon", "\"code-signing\""),
        ("the newest issuing CA has no OCSP responder", "\"code-signing-2\""),
    ];
    for (text, of) in SAID {
        for _ in 0..500 {
            if !lines.with(text).is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let heard = lines.with(text);
        assert!(
            heard.len() == 1 && heard[0].starts_with("ERROR") && heard[0].contains(of),
            "{text}: {heard:?}"
        );
    }
    server.finish().await;
}

/// ca-requirements §8: after a year it only says what became of what it issued.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_issued_for_a_year_issues_nothing_more_and_goes_on_answering() {
    let folder = tempfile::tempdir().unwrap();
    // The other suites have all the time of its certificate; here is what an operator has who says nothing.
    let text = fixture::settings_text(folder.path(), "", "").replace("issuing_days = 1825\n", "");
    assert!(!text.contains("issuing_days"));
    let settings = ca_service::Config::parse(&text).unwrap().validate().unwrap();
    let site = Site::with_settings(folder, settings).await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let open = async || site.open_with(site.store().await, clock.clone()).await;
    let authority = open().await;
    clock.advance(Duration::from_secs(364 * 86_400));
    let old = issued(&authority).await;
    clock.advance(Duration::from_secs(86_400 + 3_600));
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let refused = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap_err();
    assert!(matches!(refused, CaError::NotIssuing(NotIssuing::Retired)), "{refused}");
    // Its lists and answers go on, and its responder is renewed.
    authority.revoke(&old.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    assert_eq!(listed(&authority, "code-signing").len(), 1);
    authority.renew("ocsp-responder", &site.keyring()).await.unwrap();
    authority.renew("code-signing", &site.keyring()).await.unwrap();
    drop(authority);
    let authority = open().await;
    assert!(matches!(status(&authority, &old).await, CertificateStatus::Revoked { .. }));
    let new = issued(&authority).await;
    assert_ne!(new.chain[0], old.chain[0]);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}
