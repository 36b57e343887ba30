//! Status: OCSP answers, revocations and lists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_pki::key::KeyUse;
use ca_pki::lint;
use ca_pki::ocsp::{CertId, CertIdHash, OcspRequest};
use ca_pki::timestamp::ImprintHash;
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey};
use ca_service::storage::{CrlPart, Search};
use der::Encode as _;

use crate::figures::{Figures, median};
use crate::issuance::requests;
use crate::load::{Connection, Use, closed_loop, get, post};
use crate::loopback::Loopback;
use crate::rows;
use crate::stack::{ADMIN, Stack};
use crate::stored::{self, Revoked};

const CONNECTIONS: usize = 64;
/// Certificates that are asked about.
const SUBJECTS: usize = 1_000;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let mut out = vec![tag];
    if value.len() > 0x7f {
        out.push(0x81);
    }
    out.push(u8::try_from(value.len()).unwrap());
    out.extend(value);
    out
}

/// A request about a serial number, with a nonce or without.
fn request(issuer: &[u8], serial: &SerialNumber, nonce: Option<[u8; 32]>) -> Vec<u8> {
    let issuer = ca_pki::certificate::parse(issuer).unwrap();
    let name = DistinguishedName::from_der(&issuer.tbs_certificate().subject().to_der().unwrap()).unwrap();
    let spki = issuer.tbs_certificate().subject_public_key_info().to_der().unwrap();
    let key = SubjectPublicKey::from_spki(&spki, KeyUse::Authority).unwrap();
    let id = CertId::new(CertIdHash::Sha1, &name, &key, serial.clone());
    let list = tlv(0x30, &[&tlv(0x30, &[OcspRequest::for_certificate(id).encoded_id()])]);
    let extensions = nonce.map(|nonce| {
        let oid: &[u8] = &[0x06, 9, 0x2b, 6, 1, 5, 5, 7, 48, 1, 2];
        let extension = tlv(0x30, &[oid, &tlv(0x04, &[&tlv(0x04, &[&nonce])])]);
        tlv(0xa2, &[&tlv(0x30, &[&extension])])
    });
    tlv(0x30, &[&tlv(0x30, &[&list, extensions.as_deref().unwrap_or_default()])])
}

async fn open(stack: &Stack) -> Arc<ca_service::CertificateAuthority> {
    let settings = ca_service::Config::read(&stack.config()).unwrap().validate().unwrap();
    ca_service::serve::open(settings, Arc::new(service::SystemClock)).await.expect("the CA opens")
}

/// Issues some certificates; returns the issuer's certificate and their serial numbers.
async fn subjects(stack: &Stack, count: usize) -> (Vec<u8>, Vec<SerialNumber>) {
    let prepared = requests(stack, "plain", count).await;
    let mut connection = Connection::open(&stack.address()).await;
    for request in prepared.iter() {
        let (status, body) = connection.call(request).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(body));
    }
    let authority = open(stack).await;
    let search = Search { limit: u32::try_from(count).unwrap(), ..Search::default() };
    let found = authority.store().search(search).await.unwrap();
    let issuer = authority.authorities()["code-signing"].certificate.clone();
    (issuer, found.into_iter().map(|record| record.serial).collect())
}

pub(crate) async fn answers(figures: &mut Figures, lasting: Duration) {
    let mut stack = Stack::new("ecdsa-p256");
    stack.start_ca();
    let (issuer, serials) = subjects(&stack, SUBJECTS).await;
    let address = stack.address();
    let cached: Vec<Vec<u8>> = serials
        .iter()
        .map(|serial| {
            get(&format!("/ocsp/{}", STANDARD.encode(request(&issuer, serial, None)).replace('/', "%2F")))
        })
        .collect();
    let fresh: Vec<Vec<u8>> = (0..20_000_u32)
        .map(|number| {
            let mut nonce = [9; 32];
            nonce[..4].copy_from_slice(&number.to_be_bytes());
            let serial = &serials[number as usize % serials.len()];
            post("/ocsp", "application/ocsp-request", "", &request(&issuer, serial, Some(nonce)))
        })
        .collect();
    lints(figures, &stack, &issuer, &serials[0]).await;
    let (cached, fresh) = (Arc::new(cached), Arc::new(fresh));
    let mut connection = Connection::open(&address).await;
    connection.call(&cached[0]).await;
    let bare = Loopback::answering(connection.last_answer().to_vec());
    // In turns, so that each meets the machine as the others do.
    let loops = [
        ("ocsp_cached_per_s", &address, &cached),
        ("peer_loopback_answers_per_s", &bare.address, &cached),
        ("ocsp_nonce_per_s", &address, &fresh),
    ];
    let mut rates = loops.map(|_| Vec::new());
    for _ in 0..3 {
        for ((_, address, requests), rates) in loops.iter().zip(&mut rates) {
            let requests = Arc::clone(requests);
            let seen =
                closed_loop(address, CONNECTIONS, lasting, 200, requests, Use::Repeatedly, || ()).await;
            rates.push(seen.per_s());
        }
    }
    for ((name, ..), rates) in loops.into_iter().zip(rates) {
        figures.set(name, median(rates));
    }
}

/// Linting what is about to be signed for strangers, in microseconds each.
async fn lints(figures: &mut Figures, stack: &Stack, issuer: &[u8], serial: &SerialNumber) {
    let authority = open(stack).await;
    let answer = authority.ocsp(&request(issuer, serial, None), None).await.der;
    let token = authority.timestamp_digest(ImprintHash::Sha256, &[7; 32]).await;
    let each = |lint: &dyn Fn() -> lint::Report| {
        let times = (0..5)
            .map(|_| {
                let began = Instant::now();
                for _ in 0..2_000 {
                    lint().into_result().unwrap();
                }
                began.elapsed().as_secs_f64() * 1e6 / 2_000.0
            })
            .collect();
        median(times)
    };
    figures.set("ocsp_lint_us", each(&|| lint::ocsp_response(&answer, None)));
    figures.set("timestamp_lint_us", each(&|| lint::timestamp_token(&token, None)));
}

/// Revocation with a million revoked, and lists of a hundred thousand and a million.
pub(crate) async fn lists(figures: &mut Figures) {
    let mut stack = Stack::new("ecdsa-p256");
    stack.start_ca();
    let _ = subjects(&stack, 1).await;
    stack.stop_ca();
    stored::write(&stack.database(), (0, 100_000), 1_000_000, Revoked::All);
    figures.set(
        "crl_100k_ms",
        median(vec![list_ms(&stack).await, list_ms(&stack).await, list_ms(&stack).await]),
    );
    stored::write(&stack.database(), (100_000, 1_000_000), 1_000_000, Revoked::All);
    let times = vec![list_ms(&stack).await, list_ms(&stack).await, list_ms(&stack).await];
    figures.set("crl_1m_s", median(times) / 1000.0);

    stack.start_ca();
    let (revoked, seen) = revoke(&stack).await;
    figures.set("revoke_ms_at_1m", median(revoked));
    figures.set("revoked_seen_ms", median(seen));
}

/// Revokes some certificates, one by one: how long each took, and how long until OCSP said so, in milliseconds.
pub(crate) async fn revoke(stack: &Stack) -> (Vec<f64>, Vec<f64>) {
    let (issuer, serials) = subjects(stack, 201).await;
    let mut connection = Connection::open(&stack.address()).await;
    let admin = format!("authorization: Bearer {ADMIN}\r\n");
    let (mut revoked, mut seen) = (Vec::new(), Vec::new());
    for serial in &serials {
        let about =
            get(&format!("/ocsp/{}", STANDARD.encode(request(&issuer, serial, None)).replace('/', "%2F")));
        let (_, good) = connection.call(&about).await;
        let good = good.to_vec();
        let path = format!("/api/v1/certificates/{serial}/revoke");
        let call = post(&path, "application/json", &admin, br#"{"reason":"superseded"}"#);
        let began = Instant::now();
        let (status, body) = connection.call(&call).await;
        revoked.push(began.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        let began = Instant::now();
        let (_, answer) = connection.call(&about).await;
        seen.push(began.elapsed().as_secs_f64() * 1000.0);
        assert_ne!(answer, good, "a revocation is seen at once");
    }
    (revoked, seen)
}

/// Making, checking, signing and storing the complete list, in milliseconds.
pub(crate) async fn list_ms(stack: &Stack) -> f64 {
    rows::only_the_complete_list_is_due(&stack.database());
    let authority = open(stack).await;
    let before = authority.published_crl("code-signing", CrlPart::Complete).unwrap().number;
    let began = Instant::now();
    assert_eq!(authority.publish_due().await.unwrap(), 1);
    let took = began.elapsed().as_secs_f64() * 1000.0;
    assert!(authority.published_crl("code-signing", CrlPart::Complete).unwrap().number > before);
    took
}
