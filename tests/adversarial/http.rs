//! Broken requests against the servers: 4xx with a problem document, and the server lives on.

use mentat_tests::stack::Stack;
use serde_json::Value;

async fn post(client: &reqwest::Client, url: &str, kind: &str, body: Vec<u8>) -> (u16, String) {
    let answer = client.post(url).header("content-type", kind).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.text().await.unwrap())
}

#[tokio::test]
async fn broken_requests_get_a_4xx_and_never_a_500() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (ca, log, executor) = (stack.text("/ca/url"), stack.text("/log/url"), stack.text("/executor/url"));
    let json = "application/json";
    let requests: Vec<(String, &str, Vec<u8>)> = vec![
        (format!("{ca}/api/v1/certificates"), json, b"{".to_vec()),
        (format!("{ca}/api/v1/certificates"), json, b"{}".to_vec()),
        (format!("{ca}/api/v1/certificates"), json, br#"{"token":"x","csr":"-----BEGIN CERTIFICATE REQUEST-----\nMII=\n-----END CERTIFICATE REQUEST-----\n"}"#.to_vec()),
        (format!("{ca}/api/v1/tokens"), json, b"{}".to_vec()),
        (format!("{ca}/api/v1/certificates/00/revoke"), json, b"{}".to_vec()),
        (format!("{ca}/api/v1/timestamp"), "application/timestamp-query", vec![0x30, 0x82, 0xff]),
        (format!("{ca}/ocsp"), "application/ocsp-request", vec![0xff; 5000]),
        (format!("{log}/api/v2/log/entries"), json, b"[]".to_vec()),
        (format!("{log}/api/v2/log/entries"), json, br#"{"hashedRekordRequestV002":{}}"#.to_vec()),
        (format!("{log}/issuance/ct/v1/add-chain"), json, br#"{"chain":["AAAA"]}"#.to_vec()),
        (format!("{log}/event/api/v1/entries"), json, br#"{"payload":"","payloadType":"","signatures":[]}"#.to_vec()),
        (format!("{executor}/api/v1/agents"), json, b"\xff\xff".to_vec()),
        (format!("{executor}/api/v1/agents/none/execute"), json, b"{}".to_vec()),
        (format!("{executor}/api/v1/agents/..%2f..%2fetc/execute"), json, b"{}".to_vec()),
    ];
    for (url, kind, body) in requests {
        let (status, text) = post(&client, &url, kind, body).await;
        // OCSP and timestamps answer broken requests in their own protocol.
        let protocol = url.ends_with("/ocsp") || url.ends_with("/timestamp");
        assert!((400..500).contains(&status) || protocol && status == 200, "{url}: {status} {text}");
        assert!(!text.contains("panicked"), "{url}: {text}");
    }
    // A body over every limit is cut off, not swallowed.
    let huge = vec![b'a'; 200 << 20];
    for url in [format!("{ca}/api/v1/certificates"), format!("{log}/api/v2/log/entries")] {
        let sent = client.post(&url).header("content-type", json).body(huge.clone()).send().await;
        if let Ok(answer) = sent {
            assert_eq!(answer.status().as_u16(), 413, "{url}");
        }
    }
    for base in [&ca, &log, &executor] {
        let ready = client.get(format!("{base}/healthz")).send().await.unwrap();
        assert!(ready.status().is_success(), "{base}");
        let metrics = client.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
        assert!(metrics.contains("# TYPE"), "{base}");
        let missing = client.get(format!("{base}/api/v1/nothing-here")).send().await.unwrap();
        assert!(missing.status().is_client_error(), "{base}");
        let problem: Value = missing.json().await.unwrap();
        assert!(problem["title"].is_string(), "{base}: {problem}");
    }
}
