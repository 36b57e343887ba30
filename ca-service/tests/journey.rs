//! From token to revocation over HTTP, judged by other readers: `trust_store` and, where it is installed, openssl.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;
use crate::skip;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ca_api::{AuthorityRole, CertificateState, Identity, ListQuery, RevocationReason, Revoke};
use ca_pki::certificate::parse;
use ca_pki::lint;
use ca_pki::ocsp::{CertId, CertIdHash};
use ca_pki::timestamp::{ImprintHash, TimestampRequest};
use ca_pki::{DistinguishedName, SerialNumber, SubjectPublicKey};
use der::Encode;
use fixture::{Server, Site, csr, der, enrol_request, key, token_request};
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};

/// Runs openssl; `None`, said loudly, where there is none.
fn openssl(arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new("openssl").args(arguments).output() {
        Err(error) => {
            skip::skipped(format_args!("openssl {arguments:?}: {error}"));
            None
        }
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
    }
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_carries_the_tokens_identity_and_exactly_one_sct() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let key = key();
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
    let asked = ca_api::Enrol {
        token: token.token,
        csr: params.serialize_request(&key).unwrap().pem().unwrap(),
        request_id: None,
    };
    let issued = server.client().enrol(&asked).await.unwrap();
    let leaf = der(&issued.certificate);
    let parsed = parse(&leaf).unwrap();
    let tbs = parsed.tbs_certificate();
    assert_eq!(tbs.subject().to_string(), "CN=dev@example.com,O=MentatLab,C=US");
    let (critical, names): (bool, GeneralNames) = {
        let found = tbs
            .extensions()
            .unwrap()
            .iter()
            .find(|each| each.extn_id == ca_pki::oid::SUBJECT_ALT_NAME)
            .unwrap();
        (found.critical, der::Decode::from_der(found.extn_value.as_bytes()).unwrap())
    };
    assert!(!critical);
    assert!(matches!(&names[..], [GeneralName::Rfc822Name(name)] if name.as_str() == "dev@example.com"));
    assert!(tbs.get_extension::<x509_cert::ext::pkix::BasicConstraints>().unwrap().is_none());
    let value = |oid| {
        let found = tbs.extensions().unwrap().iter().find(|each| each.extn_id == oid);
        found.map(|each| each.extn_value.as_bytes().to_vec())
    };
    assert_eq!(ca_pki::sct::list(&value(ca_pki::oid::SCT_LIST).unwrap()).unwrap().len(), 1);
    assert_eq!(value(ca_pki::oid::PRECERTIFICATE_POISON), None);
    assert_eq!(value(ca_pki::oid::SIGSTORE_ISSUER_V1).unwrap(), fixture::ISSUER.as_bytes());
    assert_eq!(value(ca_pki::oid::SIGSTORE_ISSUER_V2).unwrap()[2..], *fixture::ISSUER.as_bytes());
    assert_eq!(issued.chain.len(), 2);
    assert_eq!(issued.log_index, Some(0));
    assert_eq!(site.log.len(), 1);
    if let Some((accepted, text)) = openssl(&[
        "verify",
        "-x509_strict",
        "-CAfile",
        &write(site.folder.path(), "root.pem", &issued.chain[1]),
        "-untrusted",
        &write(site.folder.path(), "intermediate.pem", &issued.chain[0]),
        &write(site.folder.path(), "leaf.pem", &issued.certificate),
    ]) {
        assert!(accepted, "{text}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_profile_issues_and_the_hardware_profile_asks_for_evidence() {
    let site = Site::new().await;
    let server = site.serve().await;
    for profile in ["keyless", "unlogged"] {
        let token = server.admin().create_token(&token_request("dev@example.com", profile)).await.unwrap();
        let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
        assert!(issued.log_index.is_some(), "{profile} is logged before delivery");
    }
    let uri = ca_api::CreateToken {
        identity: Identity::Uri(
            "https://ci.example.org/repository/.workflows/release.yml@refs/tags/v1.0.0-rc.1".into(),
        ),
        profile: "developer".into(),
        ttl_seconds: 60,
    };
    let token = server.admin().create_token(&uri).await.unwrap();
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    assert_eq!(
        parse(&der(&issued.certificate)).unwrap().tbs_certificate().subject().to_string(),
        "O=MentatLab,C=US"
    );
    let token = server.admin().create_token(&token_request("dev@example.com", "hardware")).await.unwrap();
    let refused = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap_err();
    assert_eq!(refused.code(), Some("key_evidence_missing"));
    server.finish().await;
}

fn crl_url_of(certificate: &[u8]) -> String {
    let parsed = parse(certificate).unwrap();
    let points = parsed
        .tbs_certificate()
        .get_extension::<x509_cert::ext::pkix::CrlDistributionPoints>()
        .unwrap()
        .unwrap()
        .1;
    let x509_cert::ext::pkix::name::DistributionPointName::FullName(names) =
        points.0[0].distribution_point.clone().unwrap()
    else {
        panic!("full name");
    };
    let GeneralName::UniformResourceIdentifier(uri) = &names[0] else { panic!("URI") };
    uri.as_str().to_owned()
}

fn ocsp_request(hash: CertIdHash, issuer: &[u8], serial: &str) -> Vec<u8> {
    let issuer = parse(issuer).unwrap();
    let name = DistinguishedName::from_der(&issuer.tbs_certificate().subject().to_der().unwrap()).unwrap();
    let spki = issuer.tbs_certificate().subject_public_key_info().to_der().unwrap();
    let key = SubjectPublicKey::from_spki(&spki, ca_pki::key::KeyUse::Authority).unwrap();
    let id = CertId::new(hash, &name, &key, SerialNumber::from_hex(serial).unwrap());
    let encoded = ca_pki::ocsp::OcspRequest::for_certificate(id).encoded_id().to_vec();
    let wrap = |inner: Vec<u8>| [vec![0x30, u8::try_from(inner.len()).unwrap()], inner].concat();
    // OCSPRequest { TBSRequest { requestList { Request { CertID } } } }
    wrap(wrap(wrap(wrap(encoded))))
}

/// Polls until the published list of a certificate's shard contains it or `patience` is over.
async fn listed(server: &Server, certificate: &[u8], serial: &SerialNumber, wanted: bool) -> bool {
    let url = crl_url_of(certificate);
    let path = url.strip_prefix("http://status.example.org").unwrap();
    for _ in 0..100 {
        let response = server.http.get(format!("{}{path}", server.base)).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/pkix-crl");
        let crl = trust_store::crl::Crl::from_der(&response.bytes().await.unwrap()).unwrap();
        let found = crl.entry(serial.as_bytes(), crl.issuer_name()).is_some();
        if found == wanted {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    !wanted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_seen_at_once_by_ocsp_and_soon_by_the_shard() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let leaf = der(&issued.certificate);
    let issuer = der(&issued.chain[0]);
    let serial = SerialNumber::from_hex(&issued.serial).unwrap();
    assert!(!listed(&server, &leaf, &serial, false).await);
    let status = |hash| {
        let request = ocsp_request(hash, &issuer, &issued.serial);
        let client = server.client();
        async move { trust_store::ocsp::OcspResponse::from_der(&client.ocsp(request).await.unwrap()).unwrap() }
    };
    for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
        let answer = status(hash).await;
        assert_eq!(answer.unusable(), None);
        assert_eq!(answer.responses()[0].status(), trust_store::ocsp::CertificateStatus::Good);
    }
    let asked = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: None };
    let revoked = server.admin().revoke(&issued.serial, &asked).await.unwrap();
    for hash in [CertIdHash::Sha1, CertIdHash::Sha256] {
        let answer = status(hash).await;
        assert!(matches!(
            answer.responses()[0].status(),
            trust_store::ocsp::CertificateStatus::Revoked { .. }
        ));
    }
    assert!(listed(&server, &leaf, &serial, true).await);
    // Repeating changes nothing; an earlier date moves it back and is a change.
    assert_eq!(server.admin().revoke(&issued.serial, &asked).await.unwrap().recorded_at, revoked.recorded_at);
    let earlier = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: Some(issued.not_before) };
    assert_eq!(server.admin().revoke(&issued.serial, &earlier).await.unwrap().revoked_at, issued.not_before);
    let future = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: Some(issued.not_after) };
    assert_eq!(
        server.admin().revoke(&issued.serial, &future).await.unwrap_err().code(),
        Some("out_of_range")
    );
    // The statement reaches the event log when the reconciler runs.
    server.authority.log_revocations().await.unwrap();
    assert!(!site.log.events().is_empty());
    let shown = server.admin().show(&issued.serial).await.unwrap();
    assert_eq!(shown.state, CertificateState::Revoked);
    assert!(shown.revocation.unwrap().event_log_index.is_some());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_agrees_about_ocsp_and_crl() {
    let site = Site::new().await;
    let server = site.serve().await;
    let token = server.token("dev@example.com").await;
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let folder = site.folder.path();
    let leaf = write(folder, "leaf.pem", &issued.certificate);
    let issuer = write(folder, "issuer.pem", &issued.chain[0]);
    let root = write(folder, "root.pem", &issued.chain[1]);
    let chain = write(folder, "chain.pem", [issued.chain[0].clone(), issued.chain[1].clone()].concat());
    let ocsp = |digest: &str| {
        let url = format!("{}/ocsp", server.base);
        openssl(&[
            "ocsp",
            &format!("-{digest}"),
            "-issuer",
            &issuer,
            "-cert",
            &leaf,
            "-url",
            &url,
            "-CAfile",
            &chain,
            "-verify_other",
            &issuer,
            "-no_nonce",
        ])
    };
    let with_nonce = || {
        let url = format!("{}/ocsp", server.base);
        openssl(&["ocsp", "-issuer", &issuer, "-cert", &leaf, "-url", &url, "-CAfile", &chain])
    };
    for digest in ["sha1", "sha256"] {
        let Some((_, text)) = ocsp(digest) else { return };
        assert!(text.contains("Response verify OK") && text.contains("leaf.pem: good"), "{text}");
    }
    let (_, text) = with_nonce().unwrap();
    assert!(text.contains("Response verify OK") && !text.contains("no nonce"), "{text}");
    let asked = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: None };
    server.admin().revoke(&issued.serial, &asked).await.unwrap();
    let (_, text) = ocsp("sha256").unwrap();
    assert!(text.contains("leaf.pem: revoked") && text.contains("keyCompromise"), "{text}");
    let serial = SerialNumber::from_hex(&issued.serial).unwrap();
    assert!(listed(&server, &der(&issued.certificate), &serial, true).await);
    let pem = |bytes: Vec<u8>| ca_pki::pem::encode("X509 CRL", &bytes).unwrap();
    let root_crl = pem(server.client().crl("root", None).await.unwrap());
    for (shard, name) in
        [(None, "complete"), (Some(server.admin().show(&issued.serial).await.unwrap().crl_shard), "shard")]
    {
        let crl = pem(server.client().crl("code-signing", shard).await.unwrap());
        let crls = write(folder, &format!("{name}.pem"), [crl, root_crl.clone()].concat());
        let (accepted, text) = openssl(&[
            "verify",
            "-crl_check_all",
            "-extended_crl",
            "-CRLfile",
            &crls,
            "-CAfile",
            &root,
            "-untrusted",
            &issuer,
            &leaf,
        ])
        .unwrap();
        assert!(!accepted && text.contains("certificate revoked"), "{name}: {text}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_stamps_verify_and_bad_requests_are_rejected() {
    let site = Site::new().await;
    let server = site.serve().await;
    let folder = site.folder.path();
    let data = write(folder, "stamped", "something to stamp");
    let query = folder.join("query.tsq").display().to_string();
    let Some(_) = openssl(&["ts", "-query", "-data", &data, "-sha256", "-cert", "-out", &query]) else {
        return;
    };
    let reply = server.client().timestamp(std::fs::read(&query).unwrap()).await.unwrap();
    let asked = TimestampRequest::from_der(&std::fs::read(&query).unwrap()).unwrap();
    assert_eq!(lint::timestamp_token(&reply, Some(&asked)).findings(), []);
    let other = TimestampRequest::for_digest(ImprintHash::Sha256, &[7; 32]).unwrap();
    let rules: Vec<_> =
        lint::timestamp_token(&reply, Some(&other)).findings().iter().map(|found| found.rule).collect();
    assert_eq!(rules, ["imprint_echoed", "nonce_echoed"]);
    let reply = write(folder, "reply.tsr", reply);
    let chain = site.outcome.time_stamping_chain.display().to_string();
    let root = site.outcome.root.display().to_string();
    let (accepted, text) = openssl(&[
        "ts",
        "-verify",
        "-in",
        &reply,
        "-queryfile",
        &query,
        "-CAfile",
        &root,
        "-untrusted",
        &chain,
    ])
    .unwrap();
    assert!(accepted, "{text}");
    // Without certReq the token carries no certificates, and the two are still the same authority's.
    openssl(&["ts", "-query", "-data", &data, "-sha512", "-no_nonce", "-out", &query]).unwrap();
    let reply =
        write(folder, "reply.tsr", server.client().timestamp(std::fs::read(&query).unwrap()).await.unwrap());
    let (accepted, text) = openssl(&[
        "ts",
        "-verify",
        "-in",
        &reply,
        "-queryfile",
        &query,
        "-CAfile",
        &root,
        "-untrusted",
        &chain,
    ])
    .unwrap();
    assert!(accepted, "{text}");
    openssl(&["ts", "-query", "-data", &data, "-sha1", "-out", &query]).unwrap();
    let reply = server.client().timestamp(std::fs::read(&query).unwrap()).await.unwrap();
    assert_eq!(reply, ca_pki::timestamp::Failure::BadAlgorithm.to_der());
    let json = |body: &str| {
        let request = server.http.post(format!("{}/api/v1/timestamp", server.base));
        request.header("content-type", "application/json").body(body.to_owned()).send()
    };
    let hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let reply = json(&format!(r#"{{"artifactHash":"{hash}","hashAlgorithm":"sha256"}}"#)).await.unwrap();
    assert_eq!(reply.headers()["content-type"], "application/timestamp-reply");
    assert_eq!(lint::timestamp_token(&reply.bytes().await.unwrap(), None).findings(), []);
    for bad in [
        "{}",
        "[]",
        r#"{"artifactHash":"AA==","hashAlgorithm":"sha256"}"#,
        r#"{"artifactHash":"","hashAlgorithm":"sha1"}"#,
    ] {
        assert_eq!(json(bad).await.unwrap().status(), 400, "{bad}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_lists_and_searches_say_what_there_is() {
    let site = Site::new().await;
    let server = site.serve().await;
    let authorities = server.client().authorities().await.unwrap();
    let roles: Vec<_> = authorities.authorities.iter().map(|each| each.role).collect();
    assert_eq!(
        roles,
        [
            AuthorityRole::Root,
            AuthorityRole::CodeSigning,
            AuthorityRole::TimeStamping,
            AuthorityRole::OcspResponder,
            AuthorityRole::TimestampAuthority,
            AuthorityRole::Statement
        ]
    );
    assert_eq!(authorities.authorities[1].crl_shards.len(), 4);
    assert_eq!(authorities.authorities[4].chain.len(), 2);
    for number in 0..3 {
        let token = server.token(&format!("dev{number}@example.com")).await;
        server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    }
    let query = ListQuery { limit: Some(2), ..ListQuery::default() };
    let first = server.admin().list(&query).await.unwrap();
    assert_eq!(first.certificates.len(), 2);
    let second = server.admin().list(&ListQuery { after: first.next, ..query }).await.unwrap();
    assert!(second.certificates[0].created_at <= first.certificates[1].created_at);
    let by_identity = ListQuery { identity: Some("dev1@example.com".into()), ..ListQuery::default() };
    let found = server.admin().list(&by_identity).await.unwrap();
    assert_eq!(found.certificates.len(), 1);
    // Delivery is noted behind the answer.
    let mut state = found.certificates[0].state;
    for _ in 0..200 {
        if state == CertificateState::Delivered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        state = server.admin().list(&by_identity).await.unwrap().certificates[0].state;
    }
    assert_eq!(state, CertificateState::Delivered);
    assert_eq!(server.client().list(&by_identity).await.unwrap_err().code(), Some("unauthorized"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_the_issuer_puts_it_on_the_roots_list() {
    let site = Site::new().await;
    let server = site.serve().await;
    let authorities = server.client().authorities().await.unwrap();
    let intermediate = der(authorities.authorities[1].certificate.as_ref().unwrap());
    let parsed = parse(&intermediate).unwrap();
    let serial = SerialNumber::from_magnitude(parsed.tbs_certificate().serial_number().as_bytes()).unwrap();
    let asked = Revoke { reason: RevocationReason::CaCompromise, compromised_at: None };
    server.admin().revoke(&serial.to_string(), &asked).await.unwrap();
    assert!(listed(&server, &intermediate, &serial, true).await);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ceremony_is_refused_and_the_transcript_verifies() {
    let site = Site::new().await;
    let lines = ca_service::transcript::verify(&site.outcome.transcript).unwrap();
    assert_eq!(lines.last().unwrap().event, "ceremony.finished");
    assert_eq!(lines.iter().filter(|line| line.event == "certificate.issued").count(), 5);
    let keys = hsm::software::KeystoreOptions::default();
    let refused =
        ca_service::ceremony::run(&site.settings, std::sync::Arc::new(service::SystemClock), keys).await;
    assert!(refused.unwrap_err().what().contains("a ceremony was held here"));
    let _ = csr(&key());
}
