//! OpenSSL accepts what is good and refuses what is revoked: chain, CRL, OCSP, timestamp token.

use std::path::Path;

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;
use serde_json::Value;

use crate::{have, run};

#[tokio::test]
async fn openssl_accepts_what_is_good_and_refuses_what_is_revoked() {
    if !have("openssl", "openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let (cert, _) = enrol(&stack, "dev@example.com", "signing");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let chains = stack.dir().join("ca-service/chains");
    let root = chains.join("root.pem").display().to_string();
    // The certificate file holds the end-entity certificate first, then its issuer.
    let chain_text = std::fs::read_to_string(&cert).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let split = chain_text.find(end).unwrap() + end.len();
    let (leaf, issuer) = (file("leaf.pem"), file("issuer.pem"));
    std::fs::write(&leaf, &chain_text[..split]).unwrap();
    std::fs::write(&issuer, &chain_text[split..]).unwrap();

    let verify =
        ["verify", "-CAfile", &root, "-untrusted", &issuer, "-purpose", "any", "-x509_strict", &leaf];
    let (ok, said) = run("openssl", &verify);
    assert!(ok, "{said}");
    let (ok, said) = run("openssl", &["verify", "-CAfile", &issuer, &leaf]);
    assert!(!ok, "an intermediate alone is no anchor: {said}");

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let crls = fetch_crls(&client, &stack, &leaf, &issuer, dir.path()).await;
    let with_crls = |good: bool| {
        let args = [
            "verify",
            "-crl_check_all",
            "-CAfile",
            &root,
            "-untrusted",
            &issuer,
            "-CRLfile",
            &crls,
            "-purpose",
            "any",
            &leaf,
        ];
        let (ok, said) = run("openssl", &args);
        assert_eq!(ok, good, "{said}");
        said
    };
    with_crls(true);
    let ocsp_url = stack_ocsp(&client, &stack).await;
    let ocsp = [
        "ocsp",
        "-issuer",
        &issuer,
        "-cert",
        &leaf,
        "-url",
        &ocsp_url,
        "-CAfile",
        &root,
        "-verify_other",
        &issuer,
        "-no_nonce",
    ];
    let (ok, said) = run("openssl", &ocsp);
    assert!(ok && said.contains(": good") && said.contains("Response verify OK"), "{said}");

    stack.ctl(&["pki", "revoke", "--cert", &cert, "--reason", "key-compromise"]).success();
    let (_, said) = run("openssl", &ocsp);
    assert!(said.contains(": revoked") && said.contains("keyCompromise"), "OCSP tells at once: {said}");
    // The list follows within the publish interval.
    let mut refused = false;
    for _ in 0..100 {
        fetch_crls(&client, &stack, &leaf, &issuer, dir.path()).await;
        let args = [
            "verify",
            "-crl_check_all",
            "-CAfile",
            &root,
            "-untrusted",
            &issuer,
            "-CRLfile",
            &crls,
            "-purpose",
            "any",
            &leaf,
        ];
        let (ok, said) = run("openssl", &args);
        if !ok {
            assert!(said.contains("certificate revoked"), "{said}");
            refused = true;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert!(refused, "the list never named the revoked certificate");

    // A timestamp over a file, asked for and verified by OpenSSL.
    let (data, query, reply) = (file("data"), file("query.tsq"), file("reply.tsr"));
    std::fs::write(&data, "what was there").unwrap();
    let (ok, said) = run("openssl", &["ts", "-query", "-data", &data, "-sha256", "-cert", "-out", &query]);
    assert!(ok, "{said}");
    let answer = client
        .post(stack.text("/tsa/url"))
        .header("content-type", "application/timestamp-query")
        .body(std::fs::read(&query).unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "application/timestamp-reply");
    std::fs::write(&reply, answer.bytes().await.unwrap()).unwrap();
    let untrusted = chains.join("time-stamping.pem").display().to_string();
    let check =
        ["ts", "-verify", "-queryfile", &query, "-in", &reply, "-CAfile", &root, "-untrusted", &untrusted];
    let (ok, said) = run("openssl", &check);
    assert!(ok && said.contains("OK"), "{said}");
    std::fs::write(&data, "something else").unwrap();
    let (ok, said) = run(
        "openssl",
        &["ts", "-verify", "-data", &data, "-in", &reply, "-CAfile", &root, "-untrusted", &untrusted],
    );
    assert!(!ok, "{said}");
}

async fn stack_ocsp(client: &reqwest::Client, stack: &Stack) -> String {
    let url = format!("{}/api/v1/authorities", stack.text("/ca/url"));
    let authorities: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    authorities["ocsp"].as_str().unwrap().to_owned()
}

/// The CRLs that both certificates name, as one PEM file.
async fn fetch_crls(client: &reqwest::Client, stack: &Stack, leaf: &str, issuer: &str, dir: &Path) -> String {
    let mut pem = String::new();
    for certificate in [leaf, issuer] {
        let (_, said) =
            run("openssl", &["x509", "-in", certificate, "-noout", "-ext", "crlDistributionPoints"]);
        let url = said.split("URI:").nth(1).unwrap_or_else(|| panic!("no distribution point: {said}"));
        let url = url.split_whitespace().next().unwrap();
        let der = client.get(url).send().await.unwrap().bytes().await.unwrap();
        let path = dir.join("one.crl");
        std::fs::write(&path, der).unwrap();
        let (ok, text) = run("openssl", &["crl", "-inform", "DER", "-in", path.to_str().unwrap()]);
        assert!(ok, "{url}: {text} {}", stack.dir().display());
        pem.push_str(&text);
    }
    let path = dir.join("all.crl.pem");
    std::fs::write(&path, pem).unwrap();
    path.display().to_string()
}
