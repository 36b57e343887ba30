//! Somebody who signs: keys, requests for certificates and log entries, as bytes of HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mentat_tests::stack::Stack;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use serde_json::{Value, json};

use super::load::{Connection, post};

/// Who signs.
pub(crate) const EMAIL: &str = "dev@example.org";

pub(crate) struct Signer {
    token: String,
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Signer {
    /// Somebody with a certificate of the stack.
    pub(crate) async fn new(stack: &Stack) -> Self {
        let token =
            stack.ctl(&["pki", "identity-token", "--email", EMAIL]).success().stdout.trim().to_owned();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut connection = Connection::open(&address(&stack.text("/ca/url"))).await;
        let (status, body) = connection.call(&certificate_request(&token, &key)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        let answer: Value = serde_json::from_slice(body).unwrap();
        let pem = answer["signedCertificateEmbeddedSct"]["chain"]["certificates"][0].as_str().unwrap();
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        Self { token, key, certificate: STANDARD.decode(text).unwrap() }
    }

    /// A request to log the signature over some bytes.
    pub(crate) fn entry(&self, artifact: &[u8]) -> Vec<u8> {
        let digest = trust_store::ArtifactDigest::of(artifact);
        let body = json!({ "hashedRekordRequestV002": {
            "digest": STANDARD.encode(digest.as_bytes()),
            "signature": {
                "content": STANDARD.encode(self.key.sign(artifact).unwrap()),
                "verifier": {
                    "x509Certificate": { "rawBytes": STANDARD.encode(&self.certificate) },
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                },
            },
        } });
        json_post("/api/v2/log/entries", &body)
    }

    /// So many requests for keyless certificates, each for a key of its own.
    pub(crate) fn certificate_requests(&self, count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| {
                certificate_request(&self.token, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
            })
            .collect()
    }
}

fn certificate_request(token: &str, key: &KeyPair) -> Vec<u8> {
    let body = json!({
        "credentials": { "oidcIdentityToken": token },
        "publicKeyRequest": {
            "publicKey": { "algorithm": "ECDSA", "content": key.public_key_pem() },
            "proofOfPossession": STANDARD.encode(key.sign(EMAIL.as_bytes()).unwrap()),
        },
    });
    json_post("/api/v2/signingCert", &body)
}

fn json_post(path: &str, body: &Value) -> Vec<u8> {
    post(path, "application/json", "", body.to_string().as_bytes())
}

/// Host and port of a plain URL.
pub(crate) fn address(url: &str) -> String {
    url.strip_prefix("http://").expect("plain HTTP").to_owned()
}
