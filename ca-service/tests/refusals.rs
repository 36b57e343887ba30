//! Malformed and forbidden requests: each gets its own code, none a 500.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use ca_api::{CreateToken, Enrol, Identity, RevocationReason, Revoke};
use ca_pki::SerialNumber;
use ca_service::reconciler::Reach;
use ca_service::storage::{Search, State, Step};
use ca_service::{CaError, CertificateAuthority, check};
use fixture::approvers::refused;
use fixture::own::Own;
use fixture::{ADMIN, Server, Site, check_ca, csr, enrol_request, key, settings, token_request};
use rcgen::{CertificateParams, KeyPair, RsaKeySize};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

/// The code of what is refused, as something that the requester did.
async fn refusal_of(server: &Server, csr: String) -> String {
    let token = server.token("dev@example.com").await;
    let asked = Enrol { token: token.token, csr, request_id: None };
    let (status, code) = refused(server.client().enrol(&asked).await);
    assert!((400..500).contains(&status), "{status} {code}");
    code
}

fn pem(der: &[u8]) -> String {
    ca_pki::pem::encode("CERTIFICATE REQUEST", der).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_good_once_for_their_own_requester() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let key_one = key();
    let first = server.client().enrol(&enrol_request(&token.token, &key_one, Some("r-1"))).await.unwrap();
    let again = server.client().enrol(&enrol_request(&token.token, &key_one, Some("r-1"))).await.unwrap();
    assert_eq!(first.serial, again.serial);
    for (key, id, code) in [
        (&key_one, None, "token_used"),
        (&key_one, Some("r-2"), "token_used"),
        (&key(), Some("r-1"), "request_conflict"),
        (&key_one, Some("not allowed!"), "out_of_range"),
    ] {
        let refused = server.client().enrol(&enrol_request(&token.token, key, id)).await.unwrap_err();
        assert_eq!(refused.code(), Some(code));
    }
    let unknown = server.client().enrol(&enrol_request("mentat_enrol_00", &key_one, None)).await.unwrap_err();
    assert_eq!(unknown.code(), Some("token_unknown"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_gives_one_certificate_to_many_at_once() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let attempts = (0..16).map(|_| {
        let (client, asked) = (server.client(), enrol_request(&token.token, &key(), None));
        tokio::spawn(async move { client.enrol(&asked).await })
    });
    let mut issued = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Ok(_) => issued += 1,
            Err(error) => assert_eq!(error.code(), Some("token_used")),
        }
    }
    assert_eq!(issued, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weak_foreign_and_broken_requests_are_refused_with_their_reasons() {
    let site = Site::new().await;
    let server = site.serve().await;
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    assert_eq!(refusal_of(&server, csr(&rsa)).await, "rsa_key_too_short");
    let mut authority = CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let asked = authority.serialize_request(&key()).unwrap().pem().unwrap();
    assert_eq!(refusal_of(&server, asked).await, "ca_requested");
    let mut twice = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    twice.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0])];
    let asked = twice.serialize_request(&key()).unwrap().pem().unwrap();
    assert_eq!(refusal_of(&server, asked).await, "malformed");
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    assert_eq!(refusal_of(&server, csr(&ed25519)).await, "key_algorithm_not_allowed");

    let good = CertificateParams::default().serialize_request(&key()).unwrap().der().to_vec();
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(refusal_of(&server, pem(&forged)).await, "proof_of_possession");
    // ecdsa-with-SHA256 is …4.3.2; …4.1 is ecdsa-with-SHA1.
    let mut sha1 = good.clone();
    let at = sha1.windows(8).position(|window| window == [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]).unwrap();
    sha1[at + 7] = 1;
    assert_eq!(refusal_of(&server, pem(&sha1)).await, "unsupported");
    let mut version = good.clone();
    let at = version.windows(3).position(|window| window == [2, 1, 0]).unwrap();
    version[at + 2] = 7;
    assert_eq!(refusal_of(&server, pem(&version)).await, "malformed");
    for length in [0, 1, 10, good.len() - 1] {
        assert_eq!(refusal_of(&server, pem(&good[..length])).await, "malformed");
    }
    for text in [
        "",
        "x",
        "-----BEGIN CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\n!!\n-----END CERTIFICATE REQUEST-----",
    ] {
        assert_eq!(refusal_of(&server, text.to_owned()).await, "malformed");
    }
    let mut huge = CertificateParams::default();
    huge.distinguished_name.push(rcgen::DnType::CommonName, "a".repeat(20_000));
    assert_eq!(
        refusal_of(&server, huge.serialize_request(&key()).unwrap().pem().unwrap()).await,
        "too_large"
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn md5_and_sha1_rsa_requests_are_refused() {
    let site = Site::new().await;
    let server = site.serve().await;
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072).unwrap();
    let good = CertificateParams::default().serialize_request(&rsa).unwrap().der().to_vec();
    // sha256WithRSAEncryption is …1.1.11; 4 is MD5, 5 is SHA-1.
    for (arc, code) in [(4, "unsupported"), (5, "unsupported"), (12, "proof_of_possession")] {
        let mut altered = good.clone();
        let at =
            altered.windows(9).position(|w| w == [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]).unwrap();
        altered[at + 8] = arc;
        assert_eq!(refusal_of(&server, pem(&altered)).await, code);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_that_no_certificate_may_carry_get_no_token() {
    let site = Site::new().await;
    let server = site.serve().await;
    let bad = [
        Identity::Email("nobody".into()),
        Identity::Email("a@b@c".into()),
        Identity::Email(format!("{}@example.com", "a".repeat(300))),
        Identity::Uri("not a uri".into()),
        Identity::Uri(format!("https://example.com/{}", "a".repeat(2000))),
    ];
    for identity in bad {
        let asked = CreateToken { identity, profile: "developer".into(), ttl_seconds: 600 };
        assert_eq!(
            server.admin().create_token(&asked).await.unwrap_err().code(),
            Some("identity_not_allowed")
        );
    }
    for (profile, ttl, code) in [("nope", 600, "profile_unknown"), ("developer", 1, "out_of_range")] {
        let asked = CreateToken { ttl_seconds: ttl, ..token_request("dev@example.com", profile) };
        assert_eq!(server.admin().create_token(&asked).await.unwrap_err().code(), Some(code));
    }
    let anonymous =
        server.client().create_token(&token_request("dev@example.com", "developer")).await.unwrap_err();
    assert_eq!(anonymous.code(), Some("unauthorized"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_requests_get_problem_documents() {
    let site = Site::new().await;
    let server = site.serve().await;
    let post = |path: &str, body: Vec<u8>| {
        let request = server.http.post(format!("{}{path}", server.base)).bearer_auth(ADMIN);
        request.header("content-type", "application/json").body(body).send()
    };
    let cases: [(&str, Vec<u8>, u16, &str); 9] = [
        ("/api/v1/tokens", b"".to_vec(), 400, "malformed"),
        ("/api/v1/tokens", b"[1,2".to_vec(), 400, "malformed"),
        (
            "/api/v1/tokens",
            br#"{"identity":{"email":"a@b.c"},"profile":"developer","ttl_seconds":60,"x":1}"#.to_vec(),
            400,
            "malformed",
        ),
        ("/api/v1/certificates", br#"{"token":1}"#.to_vec(), 400, "malformed"),
        ("/api/v1/certificates", vec![b' '; 100_000], 413, "too_large"),
        (
            "/api/v1/certificates/zz/revoke",
            br#"{"reason":"key-compromise"}"#.to_vec(),
            404,
            "certificate_unknown",
        ),
        ("/api/v1/certificates/0a/revoke", br#"{"reason":"certificate-hold"}"#.to_vec(), 400, "malformed"),
        ("/api/v1/nothing", b"{}".to_vec(), 404, "not_found"),
        ("/api/v1/timestamp", vec![b' '; 5_000], 413, "too_large"),
    ];
    for (path, body, status, code) in cases {
        let response = post(path, body).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let problem: ca_api::Problem = response.json().await.unwrap();
        assert_eq!(problem.code, code, "{path}");
    }
    for (method, path, allow) in [
        (reqwest::Method::GET, "/api/v1/tokens", "POST"),
        (reqwest::Method::DELETE, "/api/v1/certificates", "GET, HEAD, POST"),
        (reqwest::Method::POST, "/api/v1/authorities", "GET, HEAD"),
        (reqwest::Method::PUT, "/ocsp", "GET, HEAD, POST"),
        (reqwest::Method::POST, "/readyz", "GET, HEAD"),
    ] {
        let refused = server.http.request(method, format!("{}{path}", server.base)).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), refused.headers()["allow"].as_bytes()),
            (405, allow.as_bytes()),
            "{path}"
        );
    }
    let unknown = Revoke { reason: RevocationReason::Superseded, compromised_at: None };
    assert_eq!(
        server.admin().revoke("0a0b", &unknown).await.unwrap_err().code(),
        Some("certificate_unknown")
    );
    assert_eq!(server.admin().show("0a0b").await.unwrap_err().code(), Some("certificate_unknown"));
    server.finish().await;
}

/// What the server answers to a request whose body never ends, within the patience for a pause.
async fn answer_to_a_part(server: &Server, path: &str, headers: &str, part: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut connection = tokio::net::TcpStream::connect(server.serving.running.addr()).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n");
    connection.write_all(&[head.as_bytes(), part].concat()).await.unwrap();
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_long_are_refused_without_being_waited_for() {
    let site = Site::new().await;
    let server = site.serve().await;
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n1\r\n \r\n".to_vec()].concat();
    for path in ["/api/v1/certificates", "/ocsp", "/api/v1/timestamp"] {
        // Declared and not sent; sent beyond the limit without an end.
        for (headers, part) in
            [("content-length: 4000000", &b"{"[..]), ("transfer-encoding: chunked", &chunk[..])]
        {
            let answer = answer_to_a_part(&server, path, headers, part).await;
            assert_eq!(answer, "HTTP/1.1 413", "{path} {headers}");
        }
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ocsp_answers_everything_with_an_ocsp_response() {
    let site = Site::new().await;
    let server = site.serve().await;
    let malformed = ca_pki::ocsp::OcspFailure::MalformedRequest.to_der();
    for body in [Vec::new(), b"x".to_vec(), vec![0x30, 0x80], vec![0x30; 2048]] {
        assert_eq!(server.client().ocsp(body).await.unwrap(), malformed);
    }
    for path in ["/ocsp/", "/ocsp/%%%", "/ocsp/AAAA", "/ocsp/MAA="] {
        let response = server.http.get(format!("{}{path}", server.base)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.bytes().await.unwrap(), malformed, "{path}");
    }
    for path in [
        "/crl/nothing.crl",
        "/crl/root",
        "/crl/code-signing/99.crl",
        "/crl/code-signing/-1.crl",
        "/ca/statement.cer",
    ] {
        let response = server.http.get(format!("{}{path}", server.base)).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_or_token_that_breaks_a_rule_is_never_signed() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = fixture::settings(folder.path(), "", "");
    // What the configuration's own check refuses: an answer for eleven days (O2), a clock without an error (T2).
    settings.ocsp_seconds = 11 * 86_400;
    settings.config.timestamp.accuracy_seconds = 0;
    let site = Site::with_settings(folder, settings).await;
    let server = site.serve().await;
    let issuer = server.authority.authorities()["code-signing"].certificate.clone();
    let serial = SerialNumber::from_hex("0102030405").unwrap();
    let answer = server.client().ocsp(fixture::ocsp_request(&issuer, &serial)).await.unwrap();
    assert_eq!(answer, ca_pki::ocsp::OcspFailure::InternalError.to_der());
    let token = server.authority.timestamp_digest(ca_pki::timestamp::ImprintHash::Sha256, &[7; 32]).await;
    assert_eq!(token, ca_pki::timestamp::Failure::SystemFailure.to_der());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_only_listener_serves_status_and_nothing_else() {
    let site = Site::new().await;
    let server = site.serve().await;
    let base = format!("http://{}", server.serving.running.read_only_addr().unwrap());
    for (path, status) in [
        ("/crl/root.crl", 200),
        ("/crl/code-signing/3.crl", 200),
        ("/ca/code-signing.cer", 200),
        ("/api/v1/authorities", 404),
        ("/api/v1/certificates", 404),
    ] {
        let response = server.http.get(format!("{base}{path}")).bearer_auth(ADMIN).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    let first = server.http.get(format!("{base}/crl/root.crl")).send().await.unwrap();
    let etag = first.headers()["etag"].clone();
    let again =
        server.http.get(format!("{base}/crl/root.crl")).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    server.finish().await;
}

/// C9: keys that others reported.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_operators_file_get_no_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (blocked, other) = (key(), key());
    let spki = rcgen::PublicKeyData::subject_public_key_info(&blocked);
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(spki));
    let file = folder.path().join("blocked-keys.txt");
    std::fs::write(&file, format!("# reported\n{digest}\n")).unwrap();
    let site = Site::with(&format!("[enrolment]\nblocked_keys_file = {file:?}\n")).await;
    let server = site.serve().await;
    assert_eq!(refusal_of(&server, csr(&blocked)).await, "key_compromised");
    let token = server.admin().create_token(&token_request("dev@example.com", "developer")).await.unwrap();
    server.authority.enrol(&enrol_request(&token.token, &other, None)).await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_reported_after_it_was_certified_renews_nothing_and_is_found() {
    let mut site = Site::new().await;
    let clock = TestClock::at_unix_seconds(SystemClock.unix_seconds());
    let own = Own::enrolled(&site.open().await, "dev@example.com").await;
    let spki = rcgen::PublicKeyData::subject_public_key_info(&own.key);
    let file = site.folder.path().join("blocked-keys.txt");
    std::fs::write(&file, hex::encode(<sha2::Sha256 as sha2::Digest>::digest(spki))).unwrap();
    let more = format!("[enrolment]\nblocked_keys_file = {file:?}\n");
    site.settings = settings(site.folder.path(), &more, "");
    let authority = site.open().await;
    let refused = own.renewed(&authority, &clock, "a").await.err();
    assert!(matches!(refused, Some(CaError::KeyCompromised)), "{refused:?}");
    let found = check::run(&authority).await.unwrap().findings;
    assert!(found.len() == 1 && found[0].contains("enrolment.blocked_keys_file"), "{found:?}");
    let reason = ca_pki::crl::RevocationReason::KeyCompromise;
    authority.revoke(&own.issued.serial, reason, None, "test").await.unwrap();
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

/// What waits for the log before its certificate is signed, and what waits for it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_reported_while_its_issuance_waited_gets_no_certificate() {
    for (profile, step) in [("developer", Step::Precertificate), ("unlogged", Step::Certificate)] {
        let mut site = Site::new().await;
        let authority = site.open().await;
        let own = key();
        let token = authority.create_token(&token_request("dev@example.com", profile), "test").await.unwrap();
        site.log.set_down(true);
        let attempt = authority.enrol(&enrol_request(&token.token, &own, None)).await;
        assert!(matches!(attempt, Err(CaError::Log(_))), "{profile}: {attempt:?}");
        let newest = async |authority: &CertificateAuthority| {
            let search = Search { limit: 1, ..Search::default() };
            let found = authority.store().search(search).await.unwrap().swap_remove(0);
            (found.state, found.step)
        };
        assert_eq!(newest(&authority).await, (State::Signed, step));
        drop(authority);
        let spki = rcgen::PublicKeyData::subject_public_key_info(&own);
        let file = site.folder.path().join("blocked-keys.txt");
        std::fs::write(&file, hex::encode(<sha2::Sha256 as sha2::Digest>::digest(spki))).unwrap();
        let more = format!("[enrolment]\nblocked_keys_file = {file:?}\n");
        site.settings = settings(site.folder.path(), &more, "");
        site.log.set_down(false);
        let authority = site.open().await;
        let done = authority.reconcile(Reach::Everything).await.unwrap();
        assert_eq!((done.finished, done.waiting, done.given_up), (0, 0, 1), "{profile}");
        assert_eq!(newest(&authority).await, (State::Revoked, step));
        authority.publish_due().await.unwrap();
        check_ca(&authority).await;
    }
}
