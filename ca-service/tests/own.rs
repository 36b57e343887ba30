//! One's own certificates by proof of the certified key: what it opens, and what it does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;

use ca_api::client::ClientError;
use ca_api::possession::{
    KeyProof, ListOwn, OwnReason, PROOF_AHEAD_SECONDS, PROOF_SECONDS, ProvenDeed, RevokeOwn,
};
use ca_api::{CertificateState, IssuedCertificate, RevocationReason, Revoke};
use ca_service::CaError;
use ca_service::possession::PossessionRefusal;
use fixture::{ADMIN, Server, Site, check_ca, enrol_request, key, key_proof, proof_at, token_request};
use rcgen::KeyPair;
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

async fn enrolled(server: &Server, email: &str) -> (KeyPair, IssuedCertificate) {
    let (token, key) = (server.token(email).await, key());
    let issued = server.client().enrol(&enrol_request(&token.token, &key, None)).await.unwrap();
    (key, issued)
}

fn proof((key, issued): &(KeyPair, IssuedCertificate), deed: ProvenDeed, content: &str) -> KeyProof {
    key_proof(key, &issued.serial, &issued.certificate, deed, content)
}

fn giving_up(own: &(KeyPair, IssuedCertificate), reason: OwnReason) -> RevokeOwn {
    let proof = proof(own, ProvenDeed::Revoke, &RevokeOwn::content(reason, None));
    RevokeOwn { proof: Some(proof), reason, compromised_at: None }
}

/// The proof of a request that has one.
fn of(proof: &mut Option<KeyProof>) -> &mut KeyProof {
    proof.as_mut().unwrap()
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    answer.unwrap_err().code().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_key_lists_what_is_theirs_and_nothing_else() {
    let site = Site::new().await;
    let server = site.serve().await;
    let (mine, theirs) =
        (enrolled(&server, "dev@example.com").await, enrolled(&server, "other@example.com").await);
    let again = enrolled(&server, "dev@example.com").await;
    let list = |own: &(KeyPair, IssuedCertificate)| ListOwn {
        proof: Some(proof(own, ProvenDeed::List, "")),
        after: None,
    };
    let found = server.client().list_own(&list(&mine)).await.unwrap();
    let serials: Vec<_> = found.certificates.iter().map(|record| record.serial.clone()).collect();
    assert_eq!(serials, [again.1.serial.clone(), mine.1.serial.clone()]);
    assert_eq!(found.next, None);

    // Another deed, another page, another person's certificate, no certificate.
    let mut other_deed = list(&mine);
    other_deed.proof = Some(proof(&mine, ProvenDeed::Revoke, ""));
    assert_eq!(code(server.client().list_own(&other_deed).await), "proof_invalid");
    let mut other_page = list(&mine);
    other_page.after = Some(1_000);
    assert_eq!(code(server.client().list_own(&other_page).await), "proof_invalid");
    let mut other_person = list(&mine);
    of(&mut other_person.proof).serial.clone_from(&theirs.1.serial);
    assert_eq!(code(server.client().list_own(&other_person).await), "proof_invalid");
    let mut nobody = list(&mine);
    of(&mut nobody.proof).serial = "00".to_owned();
    assert_eq!(code(server.client().list_own(&nobody).await), "certificate_unknown");
    let unproven = ListOwn { proof: None, after: None };
    assert_eq!(code(server.client().list_own(&unproven).await), "proof_missing");
    // The CA's own certificates are nobody's.
    let authorities = server.client().authorities().await.unwrap();
    let root = authorities.authorities.iter().find_map(|one| one.certificate.clone()).unwrap();
    let der = ca_pki::pem::decode("certificate", &["CERTIFICATE"], &root, 65_536).unwrap();
    let parsed = trust_store::Certificate::from_der(&der).unwrap();
    nobody.proof = Some(key_proof(&mine.0, &hex::encode(parsed.serial()), &root, ProvenDeed::List, ""));
    assert_eq!(code(server.client().list_own(&nobody).await), "certificate_unknown");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_key_revokes_its_certificate_at_once_and_no_other() {
    let site = Site::new().await;
    let server = site.serve().await;
    let (mine, theirs) =
        (enrolled(&server, "dev@example.com").await, enrolled(&server, "other@example.com").await);
    let client = server.client();

    // A certificate of another person, and of another authority, however it is asked for.
    let mut asked = giving_up(&mine, OwnReason::KeyCompromise);
    of(&mut asked.proof).serial.clone_from(&theirs.1.serial);
    assert_eq!(code(client.revoke_own(&asked).await), "proof_invalid");
    let with_my_key = (key(), theirs.1.clone());
    assert_eq!(
        code(client.revoke_own(&giving_up(&with_my_key, OwnReason::Superseded)).await),
        "proof_invalid"
    );
    let foreign =
        key_proof(&mine.0, &mine.1.serial, &theirs.1.certificate, ProvenDeed::Revoke, "superseded\n");
    let foreign = RevokeOwn { proof: Some(foreign), reason: OwnReason::Superseded, compromised_at: None };
    assert_eq!(code(client.revoke_own(&foreign).await), "proof_invalid");
    // What is signed is all that is asked for: reason and date.
    let mut other = giving_up(&mine, OwnReason::Superseded);
    other.reason = OwnReason::KeyCompromise;
    assert_eq!(code(client.revoke_own(&other).await), "proof_invalid");
    other.compromised_at = Some(mine.1.not_before);
    assert_eq!(code(client.revoke_own(&other).await), "proof_invalid");
    let content = RevokeOwn::content(OwnReason::Superseded, Some(mine.1.not_before));
    let dated = RevokeOwn {
        proof: Some(proof(&mine, ProvenDeed::Revoke, &content)),
        reason: OwnReason::Superseded,
        compromised_at: Some(mine.1.not_before),
    };
    assert_eq!(code(client.revoke_own(&dated).await), "out_of_range");
    for signature in ["", "zz", "00", &"0".repeat(5_000)] {
        let mut asked = giving_up(&mine, OwnReason::Superseded);
        of(&mut asked.proof).signature = signature.to_owned();
        assert_eq!(code(client.revoke_own(&asked).await), "proof_invalid");
    }
    // Proofs of another time.
    let now = SystemClock.unix_seconds();
    for time in [now - PROOF_SECONDS - 5, now + PROOF_AHEAD_SECONDS + 5, i64::MIN, i64::MAX] {
        let (content, issued) = (RevokeOwn::content(OwnReason::Superseded, None), &mine.1);
        let mut asked = giving_up(&mine, OwnReason::Superseded);
        *of(&mut asked.proof) =
            proof_at(&mine.0, &issued.serial, &issued.certificate, ProvenDeed::Revoke, &content, time);
        assert_eq!(code(client.revoke_own(&asked).await), "proof_expired");
    }
    let before = server.admin().show(&mine.1.serial).await.unwrap();
    assert!(before.revocation.is_none(), "nothing of that was enough");

    let asked = giving_up(&mine, OwnReason::Superseded);
    let revoked = client.revoke_own(&asked).await.unwrap();
    assert_eq!(
        (revoked.serial.as_str(), revoked.reason),
        (mine.1.serial.as_str(), RevocationReason::Superseded)
    );
    assert_eq!(client.revoke_own(&asked).await.unwrap().revoked_at, revoked.revoked_at, "harmless to repeat");
    // A compromise that is learnt of later replaces it, with its date.
    let content = RevokeOwn::content(OwnReason::KeyCompromise, Some(mine.1.not_before));
    let graver = RevokeOwn {
        proof: Some(proof(&mine, ProvenDeed::Revoke, &content)),
        reason: OwnReason::KeyCompromise,
        compromised_at: Some(mine.1.not_before),
    };
    let revoked = client.revoke_own(&graver).await.unwrap();
    assert_eq!((revoked.reason, revoked.revoked_at), (RevocationReason::KeyCompromise, mine.1.not_before));
    assert_eq!(server.admin().show(&mine.1.serial).await.unwrap().state, CertificateState::Revoked);
    assert!(server.admin().show(&theirs.1.serial).await.unwrap().revocation.is_none());
    // Who did it stands in the trail, and the event log has it.
    let records = server.authority.store().audit_records(0, 1_000).await.unwrap();
    let by = format!("certificate:{}", mine.1.serial);
    assert!(
        records.iter().any(|record| record.actor == by && record.event.contains("revoked")),
        "{records:?}"
    );
    server.authority.log_revocations().await.unwrap();
    let logged = server.admin().show(&mine.1.serial).await.unwrap().revocation.unwrap();
    assert!(logged.event_log_index.is_some());
    // It opens nothing any more.
    let list = ListOwn { proof: Some(proof(&mine, ProvenDeed::List, "")), after: None };
    assert_eq!(code(client.list_own(&list).await), "certificate_revoked");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_still_revoked_by_its_key_and_lists_nothing() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let own = key();
    let issued = authority.enrol(&enrol_request(&token.token, &own, None)).await.unwrap();
    let certificate = ca_pki::pem::encode("CERTIFICATE", &issued.certificate).unwrap();
    clock.advance(std::time::Duration::from_secs(2 * 366 * 86_400));
    let proof = |deed, content: &str| {
        let now = clock.unix_seconds();
        proof_at(&own, &issued.serial.to_string(), &certificate, deed, content, now)
    };
    let asked = ListOwn { proof: Some(proof(ProvenDeed::List, "")), after: None };
    let refused = authority.list_own(&asked, None).await;
    assert!(
        matches!(refused, Err(CaError::Possession(PossessionRefusal::CertificateExpired))),
        "{refused:?}"
    );
    let content = RevokeOwn::content(OwnReason::KeyCompromise, None);
    let asked = RevokeOwn {
        proof: Some(proof(ProvenDeed::Revoke, &content)),
        reason: OwnReason::KeyCompromise,
        compromised_at: None,
    };
    authority.revoke_own(&asked, None).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_whose_clock_is_right_revokes_also_where_the_authoritys_was_turned_back() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let own = key();
    let issued = authority.enrol(&enrol_request(&token.token, &own, None)).await.unwrap();
    let certificate = ca_pki::pem::encode("CERTIFICATE", &issued.certificate).unwrap();
    let right = clock.unix_seconds() + 60;
    clock.set_unix_seconds(right - 3_660);
    clock.advance(std::time::Duration::from_secs(60));
    let content = RevokeOwn::content(OwnReason::KeyCompromise, None);
    let serial = issued.serial.to_string();
    let proof = |time| proof_at(&own, &serial, &certificate, ProvenDeed::Revoke, &content, time);
    let asked =
        |time| RevokeOwn { proof: Some(proof(time)), reason: OwnReason::KeyCompromise, compromised_at: None };
    let refused = authority.revoke_own(&asked(right - 1_800), None).await;
    assert!(matches!(refused, Err(CaError::Possession(PossessionRefusal::ProofExpired))), "{refused:?}");
    authority.revoke_own(&asked(right), None).await.unwrap();
    assert!(authority.store().certificate(&issued.serial).await.unwrap().unwrap().revocation.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_that_open_nothing_are_counted() {
    let site = Site::new().await;
    let server = site.serve().await;
    let mine = enrolled(&server, "dev@example.com").await;
    let foreign = (key(), mine.1.clone());
    let refused = server.client().revoke_own(&giving_up(&foreign, OwnReason::Superseded)).await;
    assert_eq!(code(refused), "proof_invalid");
    server.client().revoke_own(&giving_up(&mine, OwnReason::Superseded)).await.unwrap();
    // A key that is tried after its revocation.
    let list = ListOwn { proof: Some(proof(&mine, ProvenDeed::List, "")), after: None };
    assert_eq!(code(server.client().list_own(&list).await), "certificate_revoked");
    let metrics = server.http.get(format!("{}/metrics", server.base)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("mentat_ca_key_proofs_refused_total 2"), "{metrics}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_that_are_not_the_holders_are_refused_and_a_key_with_several_certificates_revokes_one() {
    let site = Site::new().await;
    let server = site.serve().await;
    let mine = enrolled(&server, "dev@example.com").await;
    let token = server.token("dev@example.com").await;
    let second = server.client().enrol(&enrol_request(&token.token, &mine.0, None)).await.unwrap();
    for reason in ["privilege-withdrawn", "ca-compromise", "unspecified", "certificate-hold"] {
        let body =
            serde_json::json!({ "proof": giving_up(&mine, OwnReason::Superseded).proof, "reason": reason });
        let url = format!("{}/api/v1/own/revocations", server.base);
        let answer = server.http.post(url).bearer_auth(ADMIN).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{reason}");
    }
    server.client().revoke_own(&giving_up(&mine, OwnReason::CessationOfOperation)).await.unwrap();
    assert!(server.admin().show(&second.serial).await.unwrap().revocation.is_none());
    // What an administrator ended for another reason stays so.
    let revoke = Revoke { reason: RevocationReason::PrivilegeWithdrawn, compromised_at: None };
    server.admin().revoke(&second.serial, &revoke).await.unwrap();
    let second = (mine.0, second);
    let refused = server.client().revoke_own(&giving_up(&second, OwnReason::Superseded)).await;
    assert_eq!(code(refused), "revoked_for_another_reason");
    server.finish().await;
}
