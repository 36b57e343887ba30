//! Renewal by the certified key: what it gives, to whom it is refused, and what ends with the certificate that it came of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::sync::Arc;

use ca_api::client::ClientError;
use ca_api::possession::Renew;
use ca_api::{EnrolmentWay, IssuedCertificate, PlanRevocations, RevocationReason, Revoke, RevokeMany};
use ca_service::CaError;
use ca_service::possession::PossessionRefusal;
use fixture::approvers::{Office, awaits};
use fixture::{Server, Site, check_ca, enrol_request, key, proof_at, renewal, token_request};
use rcgen::KeyPair;
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

type Own = (KeyPair, IssuedCertificate);

async fn enrolled(server: &Server, email: &str) -> Own {
    let (token, key) = (server.token(email).await, key());
    let issued = server.client().enrol(&enrol_request(&token.token, &key, None)).await.unwrap();
    (key, issued)
}

fn asking((key, issued): &Own, new: &KeyPair, request_id: &str) -> Renew {
    renewal((key, &issued.serial, &issued.certificate), new, request_id)
}

async fn renewed(server: &Server, own: &Own, request_id: &str) -> Own {
    let new = key();
    let issued = server.client().renew(&asking(own, &new, request_id)).await.unwrap();
    (new, issued)
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    answer.unwrap_err().code().unwrap().to_owned()
}

async fn is_revoked(server: &Server, own: &Own) -> bool {
    server.admin().show(&own.1.serial).await.unwrap().revocation.is_some()
}

async fn revoke(server: &Server, own: &Own, reason: RevocationReason, compromised_at: Option<i64>) {
    server.admin().revoke(&own.1.serial, &Revoke { reason, compromised_at }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_renews_its_certificate_once_for_each_request_id() {
    let site = Site::new().await;
    let server = site.serve().await;
    let (own, new) = (enrolled(&server, "dev@example.com").await, key());
    let asked = asking(&own, &new, "first");
    let issued = server.client().renew(&asked).await.unwrap();
    let record = server.admin().show(&issued.serial).await.unwrap();
    let old = server.admin().show(&own.1.serial).await.unwrap();
    assert_eq!((&record.identity, &record.profile), (&old.identity, &old.profile));
    assert_ne!(record.spki_sha256, old.spki_sha256);
    assert!(old.revocation.is_none(), "the old one stands until it ends");
    // Sent again, by whomever: the same certificate. With another key: none.
    assert_eq!(server.client().renew(&asked).await.unwrap(), issued);
    assert_eq!(server.client().renew(&asking(&own, &new, "first")).await.unwrap(), issued);
    assert_eq!(code(server.client().renew(&asking(&own, &key(), "first")).await), "request_conflict");
    // Who asked stands in the trail.
    let by = format!("certificate:{}", own.1.serial);
    let trail = server.authority.store().audit_records(0, 1_000).await.unwrap();
    assert!(trail.iter().any(|record| record.actor == by && record.event == "certificate.signing"));
    // What came of it is renewed by its own key.
    let third = renewed(&server, &(new, issued), "first").await;
    assert_eq!(server.admin().show(&third.1.serial).await.unwrap().identity, old.identity);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_exactly_the_holders_request_is_refused_by_reason() {
    let site = Site::with("[enrolment]\nno_renewal = [\"unlogged\"]\n").await;
    let server = site.serve().await;
    let (own, theirs) =
        (enrolled(&server, "dev@example.com").await, enrolled(&server, "other@example.com").await);
    let client = server.client();
    let asked = asking(&own, &key(), "a");
    let other_csr = Renew { csr: asking(&own, &key(), "a").csr, ..asked.clone() };
    let other_id = Renew { request_id: "b".to_owned(), ..asked.clone() };
    let mut other_serial = asked.clone();
    other_serial.proof.serial.clone_from(&theirs.1.serial);
    let other_key = asking(&(key(), own.1.clone()), &key(), "a");
    for refused in [other_csr, other_id, other_serial, other_key] {
        assert_eq!(code(client.renew(&refused).await), "proof_invalid");
    }
    assert_eq!(code(client.renew(&asking(&own, &own.0, "a")).await), "key_unchanged");
    assert_eq!(code(client.renew(&asking(&own, &key(), "no id")).await), "out_of_range");
    let no_csr = Renew::content("a", "PEM");
    let mut no_csr = Renew { csr: "PEM".to_owned(), ..asking_of(&own, &no_csr) };
    no_csr.request_id = "a".to_owned();
    assert!(
        matches!(client.renew(&no_csr).await, Err(ClientError::Problem(problem)) if problem.status == 400)
    );
    // Profiles that the operator excepts, and those of ten minutes.
    for profile in ["unlogged", "keyless"] {
        let token = server.admin().create_token(&token_request("dev@example.com", profile)).await.unwrap();
        let key = key();
        let issued = client.enrol(&enrol_request(&token.token, &key, None)).await.unwrap();
        assert_eq!(code(client.renew(&asking(&(key, issued), &fixture::key(), "a")).await), "not_renewable");
    }
    // Not more than a certificate may bring forth, and no more once it is revoked, whatever for.
    for number in 0..16 {
        renewed(&server, &own, &format!("number-{number}")).await;
    }
    assert_eq!(code(client.renew(&asking(&own, &key(), "seventeen")).await), "renewed_too_often");
    revoke(&server, &theirs, RevocationReason::Superseded, None).await;
    assert_eq!(code(client.renew(&asking(&theirs, &key(), "a")).await), "certificate_revoked");
    server.finish().await;
}

/// A proof of the key over some content.
fn asking_of((key, issued): &Own, content: &str) -> Renew {
    let deed = ca_api::possession::ProvenDeed::Renew;
    let proof = fixture::key_proof(key, &issued.serial, &issued.certificate, deed, content);
    Renew { proof, csr: String::new(), request_id: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_and_one_of_a_revoked_authority_are_not_renewed() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let own = key();
    let issued = authority.enrol(&enrol_request(&token.token, &own, None)).await.unwrap();
    let certificate = ca_pki::pem::encode("CERTIFICATE", &issued.certificate).unwrap();
    let asked = || {
        let (serial, mut asked) =
            (issued.serial.to_string(), renewal((&own, "00", &certificate), &key(), "a"));
        let content = Renew::content(&asked.request_id, &asked.csr);
        let deed = ca_api::possession::ProvenDeed::Renew;
        asked.proof = proof_at(&own, &serial, &certificate, deed, &content, clock.unix_seconds());
        asked
    };
    let issuer = ca_pki::certificate::parse(&issued.chain[0]).unwrap();
    let issuer = issuer.tbs_certificate().serial_number().as_bytes().to_vec();
    let issuer = ca_pki::SerialNumber::from_magnitude(&issuer).unwrap();
    let reason = ca_pki::crl::RevocationReason::CaCompromise;
    authority.revoke(&issuer, reason, None, "test").await.unwrap();
    let refused = authority.renew_own(&asked()).await;
    assert!(matches!(refused, Err(CaError::Possession(PossessionRefusal::IssuerRevoked))), "{refused:?}");
    clock.advance(std::time::Duration::from_secs(2 * 366 * 86_400));
    let refused = authority.renew_own(&asked()).await;
    assert!(
        matches!(refused, Err(CaError::Possession(PossessionRefusal::CertificateExpired))),
        "{refused:?}"
    );
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_key_that_is_not_to_be_trusted_ends_with_it() {
    let site = Site::new().await;
    let server = site.serve().await;
    let family = async |email: &str| {
        let first = enrolled(&server, email).await;
        let second = renewed(&server, &first, "a").await;
        let third = renewed(&server, &second, "a").await;
        [first, second, third]
    };
    // Given up because there is a newer one: that stands.
    let [first, second, third] = family("a@example.com").await;
    revoke(&server, &first, RevocationReason::Superseded, None).await;
    assert!(!is_revoked(&server, &second).await && !is_revoked(&server, &third).await);
    // Found out later: what was renewed with the key ends too, although the first was given up for another reason.
    revoke(&server, &first, RevocationReason::KeyCompromise, Some(first.1.not_before)).await;
    assert!(is_revoked(&server, &second).await && is_revoked(&server, &third).await);
    // Compromised since after the renewals: they were the holder's.
    let [first, second, third] = family("b@example.com").await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    revoke(&server, &first, RevocationReason::KeyCompromise, Some(SystemClock.unix_seconds())).await;
    assert!(!is_revoked(&server, &second).await && !is_revoked(&server, &third).await);
    // From when on is not known: since ever.
    let [first, second, third] = family("c@example.com").await;
    revoke(&server, &first, RevocationReason::KeyCompromise, None).await;
    assert!(is_revoked(&server, &second).await && is_revoked(&server, &third).await);
    // An order that was planned before the renewals means them, whatever its holder did meanwhile.
    let first = enrolled(&server, "d@example.com").await;
    let selection = ca_api::RevocationSelection {
        identity: Some("d@example.com".to_owned()),
        ..ca_api::RevocationSelection::default()
    };
    let plan =
        PlanRevocations { selection, reason: RevocationReason::PrivilegeWithdrawn, compromised_at: None };
    let plan = server.admin().plan_revocations(&plan).await.unwrap();
    let second = renewed(&server, &first, "a").await;
    revoke(&server, &first, RevocationReason::Superseded, None).await;
    let order = RevokeMany {
        order: plan.order,
        confirm: plan.matching,
        approvals: Vec::new(),
        after: None,
        limit: None,
    };
    server.admin().revoke_many(&order).await.unwrap();
    assert!(is_revoked(&server, &second).await);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_people_must_approve_waits_and_ends_with_its_certificate() {
    let config = "[[oidc]]\nissuer = \"IDP\"\n[enrolment]\nprofile_approvals = { developer = 1 }\n";
    let office = Office::open(config).await;
    let server = office.site.serve().await;
    let (own, invited) = (key(), office.invite(&server, "dev@example.com").await);
    let asked = enrol_request(&invited, &own, Some("a"));
    awaits(server.client().enrol(&asked).await);
    office.approve(&server, "alice").await.unwrap();
    let own = (own, server.client().enrol(&asked).await.unwrap());
    let renew = asking(&own, &key(), "a");
    awaits(server.client().renew(&renew).await);
    let shown = office.only(&server).await;
    let said: ca_api::RequestStatement = serde_json::from_str(&shown.statement).unwrap();
    assert_eq!(said.way, EnrolmentWay::Certificate);
    assert_eq!(said.requester, format!("certificate:{}", own.1.serial));
    office.approve(&server, "alice").await.unwrap();
    let issued = server.client().renew(&renew).await.unwrap();
    assert_eq!(server.client().renew(&renew).await.unwrap(), issued);
    // Revoked while the next one waits: nothing comes of it.
    let next = asking(&own, &key(), "b");
    awaits(server.client().renew(&next).await);
    office.approve(&server, "alice").await.unwrap();
    revoke(&server, &own, RevocationReason::Superseded, None).await;
    assert_eq!(code(server.client().renew(&next).await), "certificate_revoked");
    server.finish().await;
}
