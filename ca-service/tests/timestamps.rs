//! The time-stamp authority as stock clients use it: both forms of a request, its chain, and a new key that leaves old tokens good.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_service::check;
use fixture::{Server, Site};
use sha2::{Digest as _, Sha256, Sha512};
use trust_store::Certificate;
use trust_store::provider::AwsLc;
use trust_store::tsp::{self, TimestampToken};

const MESSAGE: &[u8] = b"the octets of a signature";
const NONCE: &[u8] = &[0x71, 2, 3, 4, 5, 6, 7, 8];

struct Answered {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Answered {
    fn token(&self) -> TimestampToken {
        assert_eq!((self.status, self.content_type.as_str()), (200, "application/timestamp-reply"));
        assert_eq!(ca_pki::lint::timestamp_token(&self.body, None).findings(), []);
        TimestampToken::from_response(&self.body).unwrap()
    }
}

async fn answered(request: reqwest::RequestBuilder) -> Answered {
    let response = request.send().await.unwrap();
    Answered {
        status: response.status().as_u16(),
        content_type: response.headers()["content-type"].to_str().unwrap().to_owned(),
        body: response.bytes().await.unwrap().to_vec(),
    }
}

async fn asked(server: &Server, content_type: &str, body: impl Into<reqwest::Body>) -> Answered {
    let request = server.http.post(format!("{}/api/v1/timestamp", server.base));
    answered(request.header("content-type", content_type).body(body)).await
}

async fn in_json(server: &Server, hash: &str, digest: &[u8]) -> Answered {
    let body = serde_json::json!({ "artifactHash": STANDARD.encode(digest), "hashAlgorithm": hash });
    asked(server, "application/json", body.to_string()).await
}

/// The chain as the authority tells it, its own certificate first.
async fn chain(server: &Server) -> Vec<Certificate> {
    let answer = answered(server.http.get(format!("{}/api/v1/timestamp/certchain", server.base))).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/pem-certificate-chain"));
    let text = String::from_utf8(answer.body).unwrap();
    let pems = text.split_inclusive("-----END CERTIFICATE-----\n");
    pems.map(|pem| Certificate::from_der(&fixture::der(pem)).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_stamp_the_same_octets_and_the_chain_is_told() {
    let site = Site::new().await;
    let server = site.serve().await;
    let told = chain(&server).await;
    // Clients that are given a chain of one skip it.
    assert_eq!(told.len(), 3);
    assert_eq!(told[2].issuer_der(), told[2].subject_der());
    let file = std::fs::read_to_string(&site.outcome.time_stamping_chain).unwrap();
    let filed: Vec<_> = file.split_inclusive("-----END CERTIFICATE-----\n").map(fixture::der).collect();
    assert_eq!(told.iter().map(|certificate| certificate.der().to_vec()).collect::<Vec<_>>(), filed);

    let digest: [u8; 32] = Sha256::digest(MESSAGE).into();
    // With a nonce and the wish for certificates, as sigstore-python sends it.
    let token = asked(&server, "application/timestamp-query", tsp::request(&digest, NONCE)).await.token();
    token.verify(MESSAGE, &told[0], &AwsLc).unwrap();
    assert_eq!(token.nonce(), Some(NONCE));
    assert_eq!(token.certificates(), [told[0].clone()], "its own alone: a set has no order");
    // With neither, as sigstore-go and sigstore-rs send it: no certificates in the answer.
    let mut bare = tsp::request(&digest, &[]);
    bare.truncate(bare.len() - 3);
    bare[1] -= 3;
    let quiet = asked(&server, "application/timestamp-query", bare).await.token();
    quiet.verify(MESSAGE, &told[0], &AwsLc).unwrap();
    assert_eq!((quiet.nonce(), quiet.certificates().len()), (None, 0));
    assert!(quiet.names_signer(&told[0]));
    // In JSON, as sigstore-js sends it, for each of the hashes.
    let json = in_json(&server, "sha256", &digest).await.token();
    json.verify(MESSAGE, &told[0], &AwsLc).unwrap();
    assert_eq!(json.nonce(), None);
    in_json(&server, "sha512", &Sha512::digest(MESSAGE))
        .await
        .token()
        .verify(MESSAGE, &told[0], &AwsLc)
        .unwrap();
    let serials = [token.serial(), quiet.serial(), json.serial()];
    assert!(serials[0] != serials[1] && serials[1] != serials[2] && serials[0] != serials[2]);

    // What is refused before a token is thought of.
    for (content_type, body, status) in [
        ("application/json", "{\"artifactHash\":\"\"}".to_owned(), 400),
        ("application/json", " ".repeat(1025), 413),
        ("text/plain", String::new(), 415),
    ] {
        let refused = asked(&server, content_type, body).await;
        assert_eq!((refused.status, refused.content_type.as_str()), (status, "application/problem+json"));
    }
    assert_eq!(in_json(&server, "sha256", &[7; 31]).await.status, 400);
    assert_eq!(in_json(&server, "sha1", &[7; 20]).await.status, 400);
    let posted = server.http.post(format!("{}/api/v1/timestamp/certchain", server.base));
    assert_eq!(answered(posted).await.status, 405);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_signs_new_tokens_and_old_ones_stay_good() {
    let site = Site::new().await;
    let server = site.serve().await;
    let digest: [u8; 32] = Sha256::digest(MESSAGE).into();
    let before = chain(&server).await;
    let old = in_json(&server, "sha256", &digest).await.token();
    server.serving.stop().await;
    let authority = site.open().await;
    let renewed = authority.renew("timestamp-authority", &site.keyring()).await.unwrap();
    drop(authority);

    let server = site.serve().await;
    let after = chain(&server).await;
    assert_ne!(after[0].der(), before[0].der());
    assert_eq!(
        after[1..].iter().map(Certificate::der).collect::<Vec<_>>(),
        before[1..].iter().map(Certificate::der).collect::<Vec<_>>()
    );
    assert_eq!(after[0].subject_der(), before[0].subject_der());
    let filed = std::fs::read_to_string(&renewed.file).unwrap();
    let filed = filed.split_inclusive("-----END CERTIFICATE-----\n").next().map(fixture::der).unwrap();
    assert_eq!(after[0].der(), filed);
    let new = in_json(&server, "sha256", &digest).await.token();
    // Each by its own certificate, and by no other.
    old.verify(MESSAGE, &before[0], &AwsLc).unwrap();
    new.verify(MESSAGE, &after[0], &AwsLc).unwrap();
    for (token, stranger) in [(&old, &after[0]), (&new, &before[0])] {
        assert_eq!(token.verify(MESSAGE, stranger, &AwsLc).unwrap_err().code.as_str(), "timestamp_invalid");
        assert!(!token.names_signer(stranger));
    }
    let report = check::run(&server.authority).await.unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    server.finish().await;
}
