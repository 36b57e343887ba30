//! A log and a witness that know each other by the certificates of a private authority.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::Value;
use server::{Process, Stack, run};

const WITNESS: &str = env!("CARGO_BIN_EXE_witness");
const LOG: &str = env!("CARGO_BIN_EXE_transparency-log");
/// Nobody answers there: whoever asks it has lost.
const PROXY: &str = "http://127.0.0.1:1";
const PROXIES: [(&str, &str); 3] = [("HTTPS_PROXY", PROXY), ("HTTP_PROXY", PROXY), ("ALL_PROXY", PROXY)];

/// Writes the authority's certificate and pairs for `witness` and `log` into the stack's folder.
fn certificates(stack: &Stack) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Private Authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(stack.path("tls.pem"), authority.pem()).unwrap();
    for (name, usage) in
        [("witness", ExtendedKeyUsagePurpose::ServerAuth), ("log", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(stack.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        let file = stack.path(&format!("{name}.key"));
        std::fs::write(&file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A witness on this port that answers nobody without a certificate; its first verifier key.
fn witness(stack: &Stack, port: u16) -> String {
    let vkeys: Vec<_> = stack.logs[0]["vkeys"].as_array().unwrap().iter().map(Value::to_string).collect();
    let text = format!(
        "name = \"witness.test/w1\"\ndata = \"records\"\n[server]\nlisten = \"127.0.0.1:{port}\"\n\
         [server.tls]\ncertificate_file = \"witness.crt\"\nkey_file = \"witness.key\"\nclient_ca_file = \"tls.pem\"\n\
         client_certificates = \"required\"\n\
         [keystore]\ndirectory = \"witness-keys\"\npassphrase = \"file:witness-pass\"\n\
         [[log]]\norigin = {}\nvkeys = [{}]\n",
        stack.logs[0]["origin"],
        vkeys.join(", ")
    );
    std::fs::write(stack.path("witness.toml"), text).unwrap();
    let (code, made, error) = run(WITNESS, &["init", "--config"], &stack.path("witness.toml"));
    assert_eq!(code, Some(0), "{error}");
    let made: Value = serde_json::from_str(&made).unwrap();
    made["witness"]["vkeys"][0].as_str().unwrap().to_owned()
}

fn write_policy(stack: &Stack, vkey: &str, url: &str) {
    let log = stack.logs[0]["vkeys"][0].as_str().unwrap();
    std::fs::write(stack.path("policy"), format!("log {log}\nwitness w1 {vkey} {url}\nquorum w1\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_of_a_private_authority_that_demands_certificates_cosigns() {
    let stack = Stack::with("witness_policy = \"policy\"\nwitness_timeout_seconds = 2\n");
    certificates(&stack);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let vkey = witness(&stack, port);
    write_policy(&stack, &vkey, &format!("https://127.0.0.1:{port}"));
    let _witness =
        Process::start(WITNESS, &stack.path("witness.toml")).unwrap_or_else(|line| panic!("{line}"));
    let plain = std::fs::read_to_string(stack.config()).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let pair = "tls_cert_file = \"log.crt\"\ntls_key_file = \"log.key\"\n";
    for (section, cosigned) in [
        ("", false),
        ("[witnesses]\ntls_ca_file = \"tls.pem\"\n", false),
        (&format!("[witnesses]\n{pair}"), false),
        (&format!("[witnesses]\ntls_ca_file = \"tls.pem\"\n{pair}"), true),
    ] {
        std::fs::write(stack.config(), format!("{plain}{section}")).unwrap();
        let log = Process::start_with(LOG, &stack.config(), &PROXIES).unwrap_or_else(|line| panic!("{line}"));
        let request = stack.authority.leaf("dev@example.test").request(section.as_bytes());
        let sent = client.post(format!("{}/api/v2/log/entries", log.url)).body(request.to_string()).send();
        let patience = std::time::Duration::from_secs(if cosigned { 60 } else { 3 });
        let answer = tokio::time::timeout(patience, sent).await;
        let acknowledged = answer.is_ok_and(|answer| answer.unwrap().status() == 201);
        assert_eq!(acknowledged, cosigned, "{section:?}");
        let checkpoint = client.get(format!("{}/checkpoint", log.url)).send().await.unwrap();
        assert_eq!(checkpoint.status() == 200, cosigned, "{section:?}");
        log.kill();
    }
}

#[test]
fn requests_in_the_clear_and_half_a_pair_are_refused_at_start() {
    let stack = Stack::with("witness_policy = \"policy\"\n");
    certificates(&stack);
    let vkey = witness(&stack, 1);
    let plain = std::fs::read_to_string(stack.config()).unwrap();
    let pair = "[witnesses]\ntls_cert_file = \"log.crt\"\ntls_key_file = \"log.key\"\n";
    for (url, section, why) in [
        ("http://10.1.2.3:8090", "", "would speak plain HTTP to 10.1.2.3"),
        ("http://127.0.0.1:8090", pair, "witnesses.tls_cert_file would be shown to nobody"),
        ("https://127.0.0.1:8090", "[witnesses]\ntls_cert_file = \"log.crt\"\n", "belong together"),
        ("https://127.0.0.1:8090", "[witnesses]\ntls_ca_file = \"nothing.pem\"\n", "witnesses: "),
    ] {
        write_policy(&stack, &vkey, url);
        std::fs::write(stack.config(), format!("{plain}{section}")).unwrap();
        let Err(told) = Process::start(LOG, &stack.config()) else { panic!("{url} {section:?}: it started") };
        assert!(told.starts_with("exit Some(78)") && told.contains(why), "{url} {section:?}: {told}");
    }
}
