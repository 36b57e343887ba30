//! What each role may do, and that nobody else may.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use ca_api::client::{CaClient, ClientError};
use ca_api::{ListQuery, RevocationReason, Revoke};
use fixture::{Site, enrol_request, key, settings, token_request};
use service::secret;

const ISSUER: &str = "issuer-0123456789abcdef0123456789";
const AUDITOR: &str = "auditor-0123456789abcdef01234567";

fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> String {
    outcome.unwrap_err().code().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_let_others_enrol_auditors_read_and_strangers_do_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut roles = String::new();
    for (role, token) in [("issuer", ISSUER), ("auditor", AUDITOR)] {
        let path = folder.path().join(role);
        secret::write_new(&path, token.as_bytes()).unwrap();
        roles.push_str(&format!("\n[roles.{role}]\ntoken_file = \"{}\"\n", path.display()));
    }
    let settings = settings(folder.path(), &roles, "");
    let site = Site::with_settings(folder, settings).await;
    let server = site.serve().await;
    let by = |token: &str| server.client().with_admin_token(token);
    let (issuer, auditor, stranger) = (by(ISSUER), by(AUDITOR), by("somebody-0123456789abcdef0123456"));

    let token = issuer.create_token(&token_request("dev@example.com", "developer")).await.unwrap();
    let issued = server.client().enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    let revoke = Revoke { reason: RevocationReason::Superseded, compromised_at: None };
    let reads = |client: CaClient| {
        let serial = issued.serial.clone();
        async move {
            assert_eq!(client.list(&ListQuery::default()).await.unwrap().certificates.len(), 6);
            assert_eq!(client.show(&serial).await.unwrap().serial, serial);
        }
    };
    reads(issuer.clone()).await;
    reads(auditor.clone()).await;
    let wanted = token_request("dev2@example.com", "developer");
    assert_eq!(code(auditor.create_token(&wanted).await), "role_insufficient");
    for client in [&issuer, &auditor] {
        assert_eq!(code(client.revoke(&issued.serial, &revoke).await), "role_insufficient");
    }
    for client in [&stranger, &server.client()] {
        assert_eq!(code(client.create_token(&wanted).await), "unauthorized");
        assert_eq!(code(client.list(&ListQuery::default()).await), "unauthorized");
        assert_eq!(code(client.show(&issued.serial).await), "unauthorized");
        assert_eq!(code(client.revoke(&issued.serial, &revoke).await), "unauthorized");
    }
    server.admin().revoke(&issued.serial, &revoke).await.unwrap();
    server.finish().await;
}
