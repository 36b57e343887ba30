//! What the responder says of what was never issued, and of what is not its own, over HTTP by GET and POST (O2).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_pki::crl::RevocationReason;
use ca_pki::key::KeyUse;
use ca_pki::ocsp::{CertId, CertIdHash, OcspRequest};
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey};
use ca_service::storage::{Search, StoredCertificate};
use ca_service::{CaError, CertificateAuthority};
use der::Encode as _;
use fixture::faults::{Fault, FaultyStore};
use fixture::{Server, Site, authorised, enrol_request, key, tlv, token_request};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};
use trust_store::Certificate;
use trust_store::ocsp::{CertificateStatus, OcspResponse};

/// `OCSPResponse { tryLater }`, `OCSPResponse { unauthorized }` and `OCSPResponse { malformedRequest }` (RFC 6960 §4.2.1), octet by octet.
const TRY_LATER: [u8; 5] = [0x30, 3, 0x0a, 1, 3];
const UNAUTHORIZED: [u8; 5] = [0x30, 3, 0x0a, 1, 6];
const MALFORMED: [u8; 5] = [0x30, 3, 0x0a, 1, 1];

/// Whom a certificate id names.
struct Issuer {
    name: DistinguishedName,
    key: SubjectPublicKey,
}

impl Issuer {
    fn of(certificate: &[u8]) -> Self {
        let parsed = ca_pki::certificate::parse(certificate).unwrap();
        let tbs = parsed.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().unwrap();
        Self {
            name: DistinguishedName::from_der(&tbs.subject().to_der().unwrap()).unwrap(),
            key: SubjectPublicKey::from_spki(&spki, KeyUse::Authority).unwrap(),
        }
    }

    fn asked(&self, hash: CertIdHash, serial: &SerialNumber) -> Vec<u8> {
        OcspRequest::for_certificate(CertId::new(hash, &self.name, &self.key, serial.clone())).to_der()
    }

    /// By SHA-256, with these parameters of it.
    fn asked_with(&self, parameters: &[u8], serial: &SerialNumber) -> Vec<u8> {
        let id = CertId::new(CertIdHash::Sha256, &self.name, &self.key, serial.clone());
        let sha256 = [0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01].to_vec();
        let [name, key] = [id.issuer_name_hash, id.issuer_key_hash].map(|hash| tlv(0x04, &[hash]));
        let hash = tlv(0x30, &[sha256, parameters.to_vec()]);
        let id = tlv(0x30, &[hash, name, key, serial.to_der()]);
        tlv(0x30, &[tlv(0x30, &[tlv(0x30, &[tlv(0x30, &[id])])])])
    }

    /// By a hash of which the responder knows nothing; whose values would be right.
    fn asked_by_sha512(&self, serial: &SerialNumber) -> Vec<u8> {
        use sha2::Digest as _;
        let sha512 = [0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03].to_vec();
        let name = tlv(0x04, &[sha2::Sha512::digest(self.name.as_der()).to_vec()]);
        let key = tlv(0x04, &[sha2::Sha512::digest(self.key.bits()).to_vec()]);
        let id = tlv(0x30, &[tlv(0x30, &[sha512]), name, key, tlv(0x02, &[serial.as_bytes().to_vec()])]);
        tlv(0x30, &[tlv(0x30, &[tlv(0x30, &[tlv(0x30, &[id])])])])
    }
}

/// The answer to a request, the same by POST and by GET.
async fn answer(server: &Server, request: &[u8]) -> Vec<u8> {
    let post = server.http.post(format!("{}/ocsp", server.base)).body(request.to_vec());
    let post = post.header("content-type", "application/ocsp-request").send().await.unwrap();
    let path = STANDARD.encode(request).replace('/', "%2F").replace('+', "%2B");
    let get = server.http.get(format!("{}/ocsp/{path}", server.base)).send().await.unwrap();
    let mut answers = Vec::new();
    for answer in [post, get] {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/ocsp-response");
        answers.push(answer.bytes().await.unwrap().to_vec());
    }
    assert_eq!(meaning(&answers[0]), meaning(&answers[1]));
    answers.swap_remove(0)
}

/// What an answer says: a failure as it is, or the status.
fn meaning(answer: &[u8]) -> Result<CertificateStatus, Vec<u8>> {
    if answer.len() < 10 {
        return Err(answer.to_vec());
    }
    Ok(OcspResponse::from_der(answer).unwrap().responses()[0].status())
}

async fn status(server: &Server, issuer: &Issuer, serial: &SerialNumber) -> CertificateStatus {
    let by = async |hash| meaning(&answer(server, &issuer.asked(hash, serial)).await).unwrap();
    let (sha1, sha256) = (by(CertIdHash::Sha1).await, by(CertIdHash::Sha256).await);
    assert_eq!(sha1, sha256);
    sha256
}

async fn newest(authority: &CertificateAuthority) -> StoredCertificate {
    let search = Search { limit: 1, ..Search::default() };
    authority.store().search(search).await.unwrap().swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_number_that_was_never_given_is_unknown_and_signed_as_such() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let ca = fixture::der(&issued.chain[0]);
    let issuer = Issuer::of(&ca);
    let own = SerialNumber::from_hex(&issued.serial).unwrap();
    assert_eq!(status(&server, &issuer, &own).await, CertificateStatus::Good);
    // The neighbours of one that was given, a short and the longest one.
    let beside = |step: u8| {
        let mut octets = own.as_bytes().to_vec();
        let last = octets.last_mut().unwrap();
        *last = last.wrapping_add(step);
        SerialNumber::from_magnitude(&octets).unwrap()
    };
    let longest = SerialNumber::from_magnitude(&[0x7f; 20]).unwrap();
    for serial in [beside(1), beside(0xff), SerialNumber::from_hex("01").unwrap(), longest] {
        assert_eq!(status(&server, &issuer, &serial).await, CertificateStatus::Unknown, "{serial}");
        let answer = answer(&server, &issuer.asked(CertIdHash::Sha256, &serial)).await;
        let response = OcspResponse::from_der(&answer).unwrap();
        let ca = Certificate::from_der(&ca).unwrap();
        let responder = response.certificates().first().unwrap();
        assert!(responder.verify_signature(&ca, &trust_store::provider::AwsLc).is_ok(), "{serial}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_its_own_is_refused_unsigned() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let serial = SerialNumber::from_hex(&issued.serial).unwrap();
    let issuer = || Issuer::of(&fixture::der(&issued.chain[0]));
    let root = Issuer::of(&fixture::der(&issued.chain[1]));
    let stamping = &server.authority.authorities()["time-stamping"].certificate;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Another CA");
    let foreign = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let foreign = || Issuer::of(foreign.der());
    let others = [
        ("the root's", root),
        ("the other CA's for time stamps", Issuer::of(stamping)),
        ("another authority's", foreign()),
        ("the name alone is right", Issuer { key: foreign().key, ..issuer() }),
        ("the key alone is right", Issuer { name: foreign().name, ..issuer() }),
    ];
    for (what, other) in others {
        for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
            assert_eq!(answer(&server, &other.asked(hash, &serial)).await, UNAUTHORIZED, "{what}");
        }
    }
    assert_eq!(answer(&server, &issuer().asked_by_sha512(&serial)).await, UNAUTHORIZED);
    let asked = issuer().asked(CertIdHash::Sha256, &serial);
    assert_eq!(answer(&server, &asked[..asked.len() - 1]).await, MALFORMED);
    assert_eq!(answer(&server, b"nothing of the kind").await, MALFORMED);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_or_may_have_been_signed_is_never_good() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let server = Server::start(site.open_with(store.clone(), Arc::new(SystemClock)).await).await;
    let authority = &server.authority;
    let issuer = Issuer::of(&authority.authorities()["code-signing"].certificate);

    // Recorded, and not signed yet; then given up before it was.
    let _permission = authority.prepare(authorised("dev@example.com", &key())).await.unwrap();
    let given_up = newest(authority).await;
    assert_eq!(status(&server, &issuer, &given_up.serial).await, CertificateStatus::Unknown);
    let now = ca_pki::UnixTime(service::clock::Clock::unix_seconds(&SystemClock));
    authority.store().abandon(given_up.intent, "test", now).await.unwrap();
    assert_eq!(status(&server, &issuer, &given_up.serial).await, CertificateStatus::Unknown);

    // The record of the signature failed: nobody knows whether there is one.
    store.arm("record_precertificate", Fault::Before);
    let attempt = authority.issue(authority.prepare(authorised("dev@example.com", &key())).await.unwrap());
    assert!(matches!(attempt.await, Err(CaError::Store(_))));
    let half = newest(authority).await;
    assert_eq!(status(&server, &issuer, &half.serial).await, CertificateStatus::Unknown, "{:?}", half.state);
    authority.store().mark_maybe_issued(half.intent, "test", now).await.ok();
    assert_eq!(newest(authority).await.state, ca_service::storage::State::MaybeIssued);
    assert_eq!(status(&server, &issuer, &half.serial).await, CertificateStatus::Unknown);
    authority.revoke(&half.serial, RevocationReason::CessationOfOperation, None, "test").await.unwrap();
    assert!(matches!(status(&server, &issuer, &half.serial).await, CertificateStatus::Revoked { .. }));
    server.finish().await;
}

/// What was signed once is given again without looking at more than what may have changed: clock, revocations, responder.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_is_judged_anew_by_clock_revocations_and_responder() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let issue = async || {
        let request = token_request("dev@example.com", "developer");
        let token = authority.create_token(&request, "test").await.unwrap();
        authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
    };
    let (own, other) = (issue().await, issue().await);
    let issuer = Issuer::of(&own.chain[0]);
    let stranger = Issuer {
        name: Issuer::of(&authority.authorities()["time-stamping"].certificate).name,
        key: Issuer::of(&own.chain[0]).key,
    };
    let (asked, foreign) =
        (issuer.asked(CertIdHash::Sha256, &own.serial), stranger.asked(CertIdHash::Sha256, &own.serial));
    let said = async |request: &[u8]| authority.ocsp(request, None).await;
    let kept = said(&asked).await;
    assert_eq!(meaning(&kept.der), Ok(CertificateStatus::Good));
    clock.advance(Duration::from_secs(60));
    let again = said(&asked).await;
    assert_eq!(
        (&again.der, again.given_at),
        (&kept.der, kept.given_at + 60),
        "signatures differ, these do not"
    );
    // It is kept by hash and serial number, and given for the whole certificate id alone.
    assert_eq!(said(&foreign).await.der, UNAUTHORIZED[..]);

    // Without a time nothing is said again; what is another's is told so all the same.
    clock.set_unix_seconds(clock.unix_seconds() - 3_600);
    assert_eq!(said(&asked).await.der, TRY_LATER[..]);
    assert_eq!(said(&foreign).await.der, UNAUTHORIZED[..]);
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(said(&asked).await.der, kept.der);

    // Another one's revocation has it compared with the record; it holds.
    let revoke = async |serial: &SerialNumber| {
        authority.revoke(serial, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    };
    revoke(&other.serial).await;
    assert_eq!(said(&asked).await.der, kept.der);
    assert_eq!(said(&asked).await.der, kept.der);
    // The responder's own ends it.
    let responder = &authority.authorities()["ocsp-responder"].certificate;
    let responder = Certificate::from_der(responder).unwrap().serial().to_vec();
    revoke(&SerialNumber::from_magnitude(&responder).unwrap()).await;
    assert_eq!(said(&asked).await.der, TRY_LATER[..]);
}

/// Whoever writes certificate ids as nobody else does is limited as with nonces, and takes no answer from anybody.
#[tokio::test(flavor = "multi_thread")]
async fn odd_certificate_ids_are_signed_for_one_client_and_take_no_kept_answers_place() {
    let site = Site::with_status("ocsp_nonce_per_second = 1").await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let issued = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let issuer = Issuer::of(&issued.chain[0]);
    let said = async |parameters: &[u8], client: &str| {
        let client = Some(service::rate_limit::ClientKey::Named(client.into()));
        authority.ocsp(&issuer.asked_with(parameters, &issued.serial), client).await.der
    };
    // Verifiers take none of the odd forms back: that an answer was signed is all that can be read of it.
    let is_successful = |der: &[u8]| der.get(4..7) == Some(&[0x0a, 1, 0][..]);
    // The two forms that clients write are kept side by side.
    let absent = said(&[], "one").await;
    assert_eq!(issuer.asked_with(&[], &issued.serial), issuer.asked(CertIdHash::Sha256, &issued.serial));
    let null = said(&[5, 0], "one").await;
    for der in [&absent, &null] {
        assert_eq!(meaning(der), Ok(CertificateStatus::Good));
    }
    assert_ne!(absent, null);
    let mut limited = 0;
    for number in 0..100 {
        let other = said(&[4, 1, number], "two").await;
        if other == TRY_LATER[..] {
            limited += 1;
        } else {
            assert!(is_successful(&other), "{other:?}");
        }
        assert_eq!((said(&[], "two").await, said(&[5, 0], "two").await), (absent.clone(), null.clone()));
    }
    assert!(limited >= 90, "{limited}");
    // None of the forms outlives the revocation.
    authority.revoke(&issued.serial, RevocationReason::Superseded, None, "test").await.unwrap();
    assert!(is_successful(&said(&[4, 0], "three").await));
    for parameters in [&[][..], &[5, 0]] {
        let revoked = meaning(&said(parameters, "three").await);
        assert!(matches!(revoked, Ok(CertificateStatus::Revoked { .. })), "{revoked:?}");
    }
}

/// The headers of a kept answer are made once: whoever asked first, and by which method, changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_has_the_same_headers_for_everybody() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let issuer = Issuer::of(&fixture::der(&issued.chain[0]));
    let serial = SerialNumber::from_hex(&issued.serial).unwrap();
    let mut tags = Vec::new();
    for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
        let request = issuer.asked(hash, &serial);
        let posted = answer(&server, &request).await;
        let path = STANDARD.encode(&request).replace('/', "%2F").replace('+', "%2B");
        for _ in 0..3 {
            let got = server.http.get(format!("{}/ocsp/{path}", server.base)).send().await.unwrap();
            let header = |name: &str| got.headers()[name].to_str().unwrap().to_owned();
            let tag = header("etag");
            assert_eq!(header("cache-control"), "public, no-transform, must-revalidate, max-age=10");
            assert!(header("last-modified").ends_with(" GMT") && header("expires").ends_with(" GMT"));
            let der = got.bytes().await.unwrap();
            assert_eq!(der, posted);
            assert_eq!(tag, format!("\"{}\"", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&der))));
            tags.push(tag);
        }
    }
    assert!(tags[0] == tags[2] && tags[3] == tags[5] && tags[0] != tags[3], "{tags:?}");
    server.finish().await;
}
