//! A hierarchy with RSA keys: what it issues and revokes is judged as that of any other, by the verifier and, where it is installed, openssl.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;
use crate::skip;

use std::process::Command;

use ca_api::{IssuedCertificate, RevocationReason, Revoke};
use ca_service::config::Config;
use fixture::{Server, Site, der, enrol_request, key, ocsp_request};
use rcgen::{KeyPair, RsaKeySize};
use service::SystemClock;
use service::clock::Clock as _;
use trust_store::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use trust_store::budget::Budget;
use trust_store::crl::Crl;
use trust_store::ocsp::OcspResponse;
use trust_store::path::{PathPolicy, build_path};
use trust_store::provider::AwsLc;
use trust_store::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy};
use trust_store::{Certificate, ReasonCode, UnixTime};

async fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let keys = "[hierarchy]\nroot_key = \"rsa-4096\"\nissuer_key = \"rsa-4096\"";
    let text = fixture::settings_text(folder.path(), "", "").replace("[hierarchy]", keys);
    let settings = Config::parse(&text).unwrap().validate().unwrap();
    Site::with_settings(folder, settings).await
}

fn rsa(size: RsaKeySize) -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap()
}

/// A certificate with its two issuers.
struct Issued {
    serial: String,
    chain: [Certificate; 3],
}

impl Issued {
    async fn to(server: &Server, email: &str, key: &KeyPair) -> Self {
        let token = server.token(email).await;
        let issued: IssuedCertificate =
            server.client().enrol(&enrol_request(&token.token, key, None)).await.unwrap();
        let read = |pem: &str| Certificate::from_der(&der(pem)).unwrap();
        let chain = [read(&issued.certificate), read(&issued.chain[0]), read(&issued.chain[1])];
        Self { serial: issued.serial, chain }
    }

    /// What the verifier makes of it with this evidence.
    fn judged(&self, evidence: &RevocationEvidence) -> Result<(), ReasonCode> {
        let now = UnixTime(SystemClock.unix_seconds());
        let [leaf, issuer, root] = &self.chain;
        let policy = PathPolicy::default();
        let chain =
            build_path(leaf, std::slice::from_ref(issuer), std::slice::from_ref(root), now, &policy, &AwsLc)
                .map_err(|it| it.code)?;
        let check = RevocationCheck {
            evidence,
            policy: &RevocationPolicy::default(),
            now,
            proven_at: None,
            intermediates: &[],
            verifier: &AwsLc,
        };
        check.check_chain(&chain, &mut Budget::default()).map(drop).map_err(|denial| denial.code)
    }

    /// By the list of its shard, then by the responder's answer, each with the root's list.
    async fn statuses(&self, server: &Server) -> [Result<(), ReasonCode>; 2] {
        let serial = ca_pki::SerialNumber::from_hex(&self.serial).unwrap();
        let record = server.authority.store().certificate(&serial).await.unwrap().unwrap();
        let list = async |path: &str| {
            let url = format!("{}/crl/{path}.crl", server.base);
            let answer = server.http.get(url).send().await.unwrap().bytes().await.unwrap();
            Crl::from_der(&answer).unwrap()
        };
        let (shard, root) = (list(&format!("code-signing/{}", record.shard.0)).await, list("root").await);
        let asked = ocsp_request(self.chain[1].der(), &serial);
        let answer = server.http.post(format!("{}/ocsp", server.base)).body(asked);
        let answer = answer.header("content-type", "application/ocsp-request").send().await.unwrap();
        let answer = OcspResponse::from_der(&answer.bytes().await.unwrap()).unwrap();
        let by_list = RevocationEvidence { crls: vec![shard, root.clone()], ..RevocationEvidence::default() };
        let by_answer =
            RevocationEvidence { crls: vec![root], ocsp: vec![answer], ..RevocationEvidence::default() };
        [self.judged(&by_list), self.judged(&by_answer)]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hierarchy_of_rsa_keys_issues_and_revokes_and_the_verifier_judges_it() {
    let site = site().await;
    let server = site.serve().await;
    let short = server.token("short@example.com").await;
    let refused = server.client().enrol(&enrol_request(&short.token, &rsa(RsaKeySize::_2048), None)).await;
    assert_eq!(refused.unwrap_err().code(), Some("rsa_key_too_short"));

    let developers = [("rsa@example.com", rsa(RsaKeySize::_3072)), ("p256@example.com", key())];
    for (email, key) in developers {
        let [issued, other] =
            [Issued::to(&server, email, &key).await, Issued::to(&server, email, &key).await];
        for certificate in &issued.chain {
            assert_eq!(certificate.signature_algorithm(), SignatureAlgorithm::RsaPkcs1Sha384, "{email}");
        }
        for authority in &issued.chain[1..] {
            assert_eq!(authority.key_algorithm(), KeyAlgorithm::Rsa);
            // The modulus of 512 octets, and what is around it.
            assert!((512..560).contains(&authority.spki_der().len()), "{}", authority.spki_der().len());
        }
        assert_eq!(issued.statuses(&server).await, [Ok(()), Ok(())], "{email}");
        by_openssl(&site, &issued);

        let superseded = Revoke { reason: RevocationReason::Superseded, compromised_at: None };
        server.admin().revoke(&issued.serial, &superseded).await.unwrap();
        server.authority.publish_due().await.unwrap();
        assert_eq!(issued.statuses(&server).await, [Err(ReasonCode::Revoked); 2], "{email}");
        assert_eq!(other.statuses(&server).await, [Ok(()), Ok(())], "{email}");
    }
    server.finish().await;
}

/// What is renewed under RSA keys goes on, and a successor has the key type that the configuration names.
#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_ca_is_succeeded_by_one_and_its_responder_is_renewed() {
    let site = site().await;
    let authority = site.open().await;
    for name in ["ocsp-responder", "timestamp-authority", "code-signing"] {
        authority.renew(name, &site.keyring()).await.unwrap();
    }
    drop(authority);
    let server = site.serve().await;
    let issued = Issued::to(&server, "dev@example.com", &key()).await;
    let successor = &server.authority.authorities()["code-signing-2"];
    assert_eq!(issued.chain[1].der(), successor.certificate);
    assert_eq!(issued.chain[1].key_algorithm(), KeyAlgorithm::Rsa);
    server.authority.publish_due().await.unwrap();
    server.finish().await;
}

/// Chain and strictness as openssl sees them; said loudly where there is none.
fn by_openssl(site: &Site, issued: &Issued) {
    let file = |name: &str, certificate: &Certificate| {
        let path = site.folder.path().join(name);
        std::fs::write(&path, certificate.to_pem()).unwrap();
        path
    };
    let [leaf, issuer, root] = &issued.chain;
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-CAfile"]).arg(file("root.pem", root));
    command.arg("-untrusted").arg(file("issuer.pem", issuer)).arg(file("leaf.pem", leaf));
    match command.output() {
        Err(error) => skip::skipped(format_args!("openssl verify: {error}")),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}
