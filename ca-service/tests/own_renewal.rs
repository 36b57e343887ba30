//! Renewal by the certified key: what it gives, to whom it is refused, and what ends with the certificate that it came of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;

use ca_api::client::ClientError;
use ca_api::possession::{AskChallenge, Renew};
use ca_api::{EnrolmentWay, IssuedCertificate, PlanRevocations, RevocationReason, Revoke, RevokeMany};
use ca_service::issuance::Issued;
use ca_service::possession::PossessionRefusal;
use ca_service::storage::queue::QueueState;
use ca_service::{CaError, CertificateAuthority};
use fixture::approvers::{Office, awaits, refused};
use fixture::deciders::{approve, approver, ask, queue, refusal};
use fixture::{Server, Site, check_ca, enrol_request, key, renewal, renewal_at, token_request};
use rcgen::KeyPair;
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

type Own = (KeyPair, IssuedCertificate);

async fn enrolled(server: &Server, email: &str) -> Own {
    let (token, key) = (server.token(email).await, key());
    let issued = server.client().enrol(&enrol_request(&token.token, &key, None)).await.unwrap();
    (key, issued)
}

fn asking(server: &Server, (key, issued): &Own, new: &KeyPair, request_id: &str) -> Renew {
    renewal(&server.authority, (key, &issued.serial, &issued.certificate), new, request_id)
}

async fn renewed(server: &Server, own: &Own, request_id: &str) -> Own {
    let new = key();
    let issued = server.client().renew(&asking(server, own, &new, request_id)).await.unwrap();
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
    let asked = asking(&server, &own, &new, "first");
    let issued = server.client().renew(&asked).await.unwrap();
    let record = server.admin().show(&issued.serial).await.unwrap();
    let old = server.admin().show(&own.1.serial).await.unwrap();
    assert_eq!((&record.identity, &record.profile), (&old.identity, &old.profile));
    assert_ne!(record.spki_sha256, old.spki_sha256);
    assert!(old.revocation.is_none(), "the old one stands until it ends");
    // Sent again, by whomever: the same certificate. With another key: none.
    assert_eq!(server.client().renew(&asked).await.unwrap(), issued);
    assert_eq!(server.client().renew(&asking(&server, &own, &new, "first")).await.unwrap(), issued);
    assert_eq!(
        code(server.client().renew(&asking(&server, &own, &key(), "first")).await),
        "request_conflict"
    );
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
    let asked = asking(&server, &own, &key(), "a");
    let other_csr = Renew { csr: asking(&server, &own, &key(), "a").csr, ..asked.clone() };
    let other_id = Renew { request_id: "b".to_owned(), ..asked.clone() };
    let mut other_serial = asked.clone();
    other_serial.proof.as_mut().unwrap().serial.clone_from(&theirs.1.serial);
    let other_key = asking(&server, &(key(), own.1.clone()), &key(), "a");
    for refused in [other_csr, other_id, other_serial, other_key] {
        assert_eq!(code(client.renew(&refused).await), "proof_invalid");
    }
    assert_eq!(code(client.renew(&asking(&server, &own, &own.0, "a")).await), "key_unchanged");
    assert_eq!(code(client.renew(&asking(&server, &own, &key(), "no id")).await), "out_of_range");
    let mut no_csr = Renew { csr: "PEM".to_owned(), ..asking(&server, &own, &key(), "a") };
    sign(&mut no_csr, &own);
    assert!(
        matches!(client.renew(&no_csr).await, Err(ClientError::Problem(problem)) if problem.status == 400)
    );
    // Profiles that the operator excepts, and those of ten minutes.
    for profile in ["unlogged", "keyless"] {
        let token = server.admin().create_token(&token_request("dev@example.com", profile)).await.unwrap();
        let key = key();
        let issued = client.enrol(&enrol_request(&token.token, &key, None)).await.unwrap();
        assert_eq!(
            code(client.renew(&asking(&server, &(key, issued), &fixture::key(), "a")).await),
            "not_renewable"
        );
    }
    // Not more than a certificate may bring forth, and no more once it is revoked, whatever for.
    for number in 0..16 {
        renewed(&server, &own, &format!("number-{number}")).await;
    }
    assert_eq!(code(client.renew(&asking(&server, &own, &key(), "seventeen")).await), "renewed_too_often");
    revoke(&server, &theirs, RevocationReason::Superseded, None).await;
    assert_eq!(code(client.renew(&asking(&server, &theirs, &key(), "a")).await), "certificate_revoked");
    server.finish().await;
}

/// Signs what is asked for anew.
fn sign(asked: &mut Renew, (key, issued): &Own) {
    let challenge = asked.proof.as_mut().and_then(|proof| proof.challenge.take());
    let content = Renew::content(challenge.as_deref().unwrap_or_default(), &asked.request_id, &asked.csr);
    let deed = ca_api::possession::ProvenDeed::Renew;
    let proof = fixture::key_proof(key, &issued.serial, &issued.certificate, deed, &content);
    asked.proof = Some(ca_api::possession::KeyProof { challenge, ..proof });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_could_have_been_made_before_renews_nothing() {
    let site = Site::new().await;
    let server = site.serve().await;
    let (own, theirs) =
        (enrolled(&server, "dev@example.com").await, enrolled(&server, "other@example.com").await);
    let other = AskChallenge { serial: theirs.1.serial.clone() };
    let other = server.client().renewal_challenge(&other).await.unwrap();
    assert_eq!((other.challenge.len(), other.seconds), (80, 60));
    // None, anything, and that of another certificate, each signed as it should be.
    for challenge in [None, Some("0".repeat(80)), Some(other.challenge)] {
        let mut asked = asking(&server, &own, &key(), "a");
        asked.proof.as_mut().unwrap().challenge = challenge;
        sign(&mut asked, &own);
        assert_eq!(code(server.client().renew(&asked).await), "challenge_expired");
    }
    // What the text said before there were challenges.
    let mut asked = asking(&server, &own, &key(), "a");
    let content = format!("{}\n{}", asked.request_id, asked.csr);
    let deed = ca_api::possession::ProvenDeed::Renew;
    asked.proof = Some(fixture::key_proof(&own.0, &own.1.serial, &own.1.certificate, deed, &content));
    assert_eq!(code(server.client().renew(&asked).await), "proof_invalid");
    server.client().renew(&asking(&server, &own, &key(), "a")).await.unwrap();
    server.finish().await;
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
        let own = (&own, &*issued.serial.to_string(), &*certificate);
        renewal_at(&authority, own, &key(), "a", clock.unix_seconds())
    };
    let issuer = ca_pki::certificate::parse(&issued.chain[0]).unwrap();
    let issuer = issuer.tbs_certificate().serial_number().as_bytes().to_vec();
    let issuer = ca_pki::SerialNumber::from_magnitude(&issuer).unwrap();
    let reason = ca_pki::crl::RevocationReason::CaCompromise;
    authority.revoke(&issuer, reason, None, "test").await.unwrap();
    let refused = authority.renew_own(&asked(), None).await;
    assert!(matches!(refused, Err(CaError::Possession(PossessionRefusal::IssuerRevoked))), "{refused:?}");
    clock.advance(std::time::Duration::from_secs(2 * 366 * 86_400));
    let refused = authority.renew_own(&asked(), None).await;
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
    let renew = asking(&server, &own, &key(), "a");
    awaits(server.client().renew(&renew).await);
    let shown = office.only(&server).await;
    let said: ca_api::RequestStatement = serde_json::from_str(&shown.statement).unwrap();
    assert_eq!(said.way, EnrolmentWay::Certificate);
    assert_eq!(said.requester, format!("certificate:{}", own.1.serial));
    // Whoever vouched for the first one is no second person for the next.
    assert_eq!(refused(office.approve(&server, "ivan").await).1, "approver_is_requester");
    office.approve(&server, "alice").await.unwrap();
    let issued = server.client().renew(&renew).await.unwrap();
    assert_eq!(server.client().renew(&renew).await.unwrap(), issued);
    // Revoked while the next one waits: nothing comes of it.
    let next = asking(&server, &own, &key(), "b");
    awaits(server.client().renew(&next).await);
    office.approve(&server, "alice").await.unwrap();
    revoke(&server, &own, RevocationReason::Superseded, None).await;
    assert_eq!(code(server.client().renew(&next).await), "certificate_revoked");
    server.finish().await;
}

const PEOPLE: &str =
    "[enrolment]\ntoken_approvals = 1\n[roles.approver]\nsubjects = [\"CN=alice\", \"CN=bob\"]\n";

/// An authority with a clock of its own, and a certificate of somebody whom ivan's token let in.
struct Alone {
    authority: Arc<CertificateAuthority>,
    clock: Arc<TestClock>,
    own: KeyPair,
    issued: Issued,
}

impl Alone {
    async fn at(site: &Site) -> Self {
        let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
        let authority = site.open_with(site.store().await, clock.clone()).await;
        let own = key();
        let mut asked = ask(&authority, "dev@example.com", "first").await;
        asked.csr = fixture::csr(&own);
        if site.settings.config.enrolment.token_approvals > 0 {
            assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
            approve(&authority, &approver("alice")).await.unwrap();
        }
        let issued = authority.enrol(&asked).await.unwrap();
        Self { authority, clock, own, issued }
    }

    fn asking(&self, new: &KeyPair, id: &str) -> Renew {
        let certificate = ca_pki::pem::encode("CERTIFICATE", &self.issued.certificate).unwrap();
        let own = (&self.own, &*self.issued.serial.to_string(), &*certificate);
        renewal_at(&self.authority, own, new, id, self.clock.unix_seconds())
    }

    async fn renew(&self, new: &KeyPair, id: &str) -> Result<Issued, CaError> {
        self.authority.renew_own(&self.asking(new, id), None).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_repeated_gets_what_was_issued_whatever_became_of_the_old_certificate() {
    let site = Site::new().await;
    let alone = Alone::at(&site).await;
    let new = key();
    let first = alone.renew(&new, "a").await.unwrap();
    let reason = ca_pki::crl::RevocationReason::Superseded;
    alone.authority.revoke(&alone.issued.serial, reason, None, "test").await.unwrap();
    assert_eq!(alone.renew(&new, "a").await.unwrap().certificate, first.certificate);
    // Something new is judged.
    let refused = alone.renew(&key(), "b").await;
    assert!(
        matches!(refused, Err(CaError::Possession(PossessionRefusal::CertificateRevoked))),
        "{refused:?}"
    );

    let alone = Alone::at(&site).await;
    alone.clock.advance(std::time::Duration::from_secs(200 * 86_400));
    let first = alone.renew(&new, "a").await.unwrap();
    alone.clock.advance(std::time::Duration::from_secs(200 * 86_400));
    assert_eq!(alone.renew(&new, "a").await.unwrap().certificate, first.certificate);
    let refused = alone.renew(&key(), "b").await;
    assert!(
        matches!(refused, Err(CaError::Possession(PossessionRefusal::CertificateExpired))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_repeated_takes_nothing_from_what_its_identity_has_left() {
    let site = Site::with("[enrolment]\nper_identity = { per_hour = 1, burst = 2 }\n").await;
    let server = site.serve().await;
    let (own, new) = (enrolled(&server, "dev@example.com").await, key());
    let issued = server.client().renew(&asking(&server, &own, &new, "a")).await.unwrap();
    assert_eq!(code(server.client().renew(&asking(&server, &own, &key(), "b")).await), "rate_limited");
    assert_eq!(server.client().renew(&asking(&server, &own, &new, "a")).await.unwrap(), issued);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_were_asked_for_in_time_is_fetched_after_the_old_certificate_has_ended() {
    let site = Site::with(PEOPLE).await;
    let alone = Alone::at(&site).await;
    let left = alone.issued.not_after.0 - alone.clock.unix_seconds();
    alone.clock.advance(std::time::Duration::from_secs(u64::try_from(left - 86_400).unwrap()));
    let new = key();
    assert_eq!(refusal(alone.renew(&new, "a").await), "awaits_approval");
    approve(&alone.authority, &approver("bob")).await.unwrap();
    alone.clock.advance(std::time::Duration::from_secs(2 * 86_400));
    let issued = alone.renew(&new, "a").await.unwrap();
    assert_eq!(alone.renew(&new, "a").await.unwrap().certificate, issued.certificate);
    let refused = alone.renew(&key(), "b").await;
    assert!(
        matches!(refused, Err(CaError::Possession(PossessionRefusal::CertificateExpired))),
        "{refused:?}"
    );
    check_ca(&alone.authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_serves_once_whatever_the_configuration_says_by_then() {
    let mut site = Site::with(PEOPLE).await;
    let (alone, fetched, waiting) = (Alone::at(&site).await, key(), key());
    assert_eq!(refusal(alone.renew(&fetched, "fetched").await), "awaits_approval");
    approve(&alone.authority, &approver("bob")).await.unwrap();
    let first = alone.renew(&fetched, "fetched").await.unwrap();
    assert_eq!(refusal(alone.renew(&waiting, "waiting").await), "awaits_approval");
    let Alone { authority, clock, own, issued } = alone;
    drop(authority);
    site.settings.config.enrolment.token_approvals = 0;
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let alone = Alone { authority, clock, own, issued };
    assert_eq!(alone.renew(&fetched, "fetched").await.unwrap().certificate, first.certificate);
    // What was asked of people stays so.
    assert_eq!(refusal(alone.renew(&waiting, "waiting").await), "awaits_approval");
    // And nobody is asked any more once it would be refused.
    let reason = ca_pki::crl::RevocationReason::Superseded;
    alone.authority.revoke(&alone.issued.serial, reason, None, "test").await.unwrap();
    assert!(queue(&alone.authority, QueueState::Waiting).await.is_empty());
    assert_eq!(queue(&alone.authority, QueueState::Ended).await.len(), 1);
    check_ca(&alone.authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_in_particular_vouched_for_the_first_of_a_line_nobody_approves_the_next() {
    let mut site = Site::with(PEOPLE).await;
    site.settings.config.enrolment.token_approvals = 0;
    let authority = site.open().await;
    let request = token_request("dev@example.com", "developer");
    let token = authority.create_token(&request, "admin:token").await.unwrap();
    let (own, second) = (key(), key());
    let first = authority.enrol(&enrol_request(&token.token, &own, None)).await.unwrap();
    let asking = |authority: &CertificateAuthority, own: &KeyPair, of: &Issued, new: &KeyPair, id: &str| {
        let certificate = ca_pki::pem::encode("CERTIFICATE", &of.certificate).unwrap();
        renewal(authority, (own, &of.serial.to_string(), &certificate), new, id)
    };
    let renewed = authority.renew_own(&asking(&authority, &own, &first, &second, "a"), None).await.unwrap();
    drop(authority);
    site.settings.config.enrolment.token_approvals = 1;
    let authority = site.open().await;
    for (own, of) in [(&own, &first), (&second, &renewed)] {
        let refused = authority.renew_own(&asking(&authority, own, of, &key(), "b"), None).await;
        assert_eq!(refusal(refused), "voucher_unnamed");
    }
    check_ca(&authority).await;
}
