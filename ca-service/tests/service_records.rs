//! What the audit trail says of the service itself, and what the service forgets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_service::storage::audit::Record;
use fixture::approvers::{Office, awaits};
use fixture::faults::{Fault, FaultyStore};
use fixture::program::{Process, command, config, run};
use fixture::{Server, Site, check_ca, enrol_request, key, ocsp_request, settings_text, token_request};
use serde_json::{Value, json};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

/// The trail's records of some kinds of events.
async fn trail(site: &Site, events: &[&str]) -> Vec<Record> {
    let records = site.store().await.audit_records(0, 10_000).await.unwrap();
    records.into_iter().filter(|record| events.contains(&record.event.as_str())).collect()
}

fn detail(record: &Record) -> Value {
    serde_json::from_str(&record.detail).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_stops_crashes_and_changes_of_the_configuration_are_recorded() {
    let site = Site::new().await;
    let file = config(&site);
    Process::start(&file).stop();
    // What a comment says is no change; what a profile and another section say is one.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# a comment\n{text}")).unwrap();
    Process::start(&file).stop();
    let changed = format!("{text}\n[retention]\nunused_token_days = 30\n");
    std::fs::write(&file, &changed).unwrap();
    let killed = Process::start(&file);
    killed.signal("KILL");
    drop(killed);
    Process::start(&file).stop();

    let events = ["configuration.changed", "server.started", "server.stopped"];
    let records = trail(&site, &events).await;
    let said: Vec<(&str, Value)> = records
        .iter()
        .map(|record| (record.event.as_str(), detail(record).get("before").cloned().unwrap_or_default()))
        .collect();
    let before = |what: &str| ("server.started", json!(what));
    let stopped = ("server.stopped", Value::Null);
    let started = detail(&records[0]);
    let expected = [
        before("nothing"),
        stopped.clone(),
        before("stopped"),
        stopped.clone(),
        ("configuration.changed", started["configuration"].clone()),
        before("stopped"),
        before("crashed"),
        stopped,
    ];
    assert_eq!(said, expected);
    let change = detail(&records[4]);
    assert_eq!(change["sections"], json!(["retention"]));
    assert_eq!(change["after"], detail(&records[6])["configuration"]);
    assert_ne!(change["after"], change["before"]);
    let issuing = site.open().await;
    let authorities = started["keys"].as_object().unwrap();
    assert!(authorities.contains_key("root") && authorities.contains_key("code-signing"), "{started}");
    assert_eq!(started["version"], json!(env!("CARGO_PKG_VERSION")));
    check_ca(&issuing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_found_its_address_taken_is_no_crash() {
    let site = Site::new().await;
    let file = config(&site);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let elsewhere = format!("{:?}", taken.local_addr().unwrap().to_string());
    std::fs::write(&file, text.replacen("\"127.0.0.1:0\"", &elsewhere, 1)).unwrap();
    assert_eq!(run(&file, &["serve"]).status.code(), Some(78));
    std::fs::write(&file, &text).unwrap();
    Process::start(&file).stop();
    let started = trail(&site, &["server.started"]).await;
    let before: Vec<_> = started.iter().map(|record| detail(record)["before"].clone()).collect();
    assert_eq!(before, [json!("nothing"), json!("stopped")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_nobody_could_be_told_of_is_no_crash() {
    let site = Site::new().await;
    let file = config(&site);
    // Whoever started it is gone.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = command(&file, &["serve"]).stdout(writer).output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("readiness line"), "{ended:?}");
    Process::start(&file).stop();
    let started = trail(&site, &["server.started"]).await;
    let before: Vec<_> = started.iter().map(|record| detail(record)["before"].clone()).collect();
    assert_eq!(before, [json!("nothing"), json!("stopped")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_configuration_is_recorded_once_although_the_start_failed() {
    let mut site = Site::new().await;
    Server::start(site.open().await).await.finish().await;
    let text = settings_text(site.folder.path(), "[retention]\nunused_token_days = 30\n", "");
    site.settings = ca_service::Config::parse(&text).unwrap().validate().unwrap();
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    store.arm("record_service", Fault::Before);
    ca_service::serve::start(authority.clone()).await.err().unwrap();
    assert_eq!(trail(&site, &["configuration.changed"]).await, []);
    Server::start(authority).await.finish().await;
    let changes = trail(&site, &["configuration.changed"]).await;
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(detail(&changes[0])["sections"], json!(["retention"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_disk_kept_out_of_the_trail_is_in_the_next_record() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let server = Server::start(site.open_with(store.clone(), Arc::new(SystemClock)).await).await;
    store.arm("audit", Fault::Before);
    let wanted = token_request("dev@example.com", "developer");
    let token = server.admin().create_token(&wanted).await.unwrap();
    assert_eq!(trail(&site, &["role.used"]).await, []);
    server.admin().create_token(&wanted).await.unwrap();
    assert_eq!(trail(&site, &["role.used"]).await.len(), 1);
    let issued = server.authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    for (number, fault) in [(1, Fault::Before), (2, Fault::Before)] {
        // Each is another question.
        let asked = fixture::ocsp_request_with_nonce(&issued.chain[0], &issued.serial, &[number; 16]);
        server.client().ocsp(asked).await.unwrap();
        store.arm("audit", fault);
        server.authority.record_signatures().await;
    }
    server.authority.record_signatures().await;
    let signed = trail(&site, &["ocsp.signed"]).await;
    assert_eq!(signed.iter().map(detail).collect::<Vec<_>>(), [json!({ "ahead": 0, "count": 2 })]);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_start_cannot_be_recorded_answers_nothing() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    store.arm("record_service", Fault::Before);
    let refusal = ca_service::serve::start(authority.clone()).await.err().unwrap();
    assert!(refusal.to_string().contains("the database cannot be used"), "{refusal}");
    assert_eq!(trail(&site, &["server.started"]).await, []);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_a_role_and_how_much_is_signed_are_in_the_trail() {
    let site = Site::new().await;
    let server = site.serve().await;
    for _ in 0..3 {
        let wanted = token_request("dev@example.com", "developer");
        server.admin().create_token(&wanted).await.unwrap();
    }
    let used = trail(&site, &["role.used"]).await;
    assert_eq!(used.len(), 1, "{used:?}");
    assert!(used[0].actor.starts_with("admin:"), "{used:?}");
    let token = server.admin().create_token(&token_request("dev@example.com", "developer")).await.unwrap();
    let issued = server.authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    server.client().ocsp(ocsp_request(&issued.chain[0], &issued.serial)).await.unwrap();
    server.authority.record_signatures().await;
    let signed = trail(&site, &["ocsp.signed"]).await;
    assert_eq!(signed.iter().map(detail).collect::<Vec<_>>(), [json!({ "ahead": 0, "count": 1 })]);
    // Nothing was signed since.
    server.authority.record_signatures().await;
    assert_eq!(trail(&site, &["ocsp.signed"]).await.len(), 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_nobody_used_are_forgotten_long_after_they_expired_and_no_others() {
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let wanted = token_request("dev@example.com", "developer");
        tokens.push(authority.create_token(&wanted, "test").await.unwrap().token);
    }
    authority.enrol(&enrol_request(&tokens[0], &key(), None)).await.unwrap();
    assert_eq!(authority.forget_tokens().await.unwrap(), 0);
    // They live for ten minutes; ninety days after that they are still there.
    clock.advance(Duration::from_secs(90 * 86_400 + 599));
    assert_eq!(authority.forget_tokens().await.unwrap(), 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(authority.forget_tokens().await.unwrap(), 2);
    assert_eq!(authority.forget_tokens().await.unwrap(), 0);
    let forgotten = trail(&site, &["tokens.forgotten"]).await;
    assert_eq!(forgotten.len(), 1);
    assert_eq!(detail(&forgotten[0])["count"], json!(2));
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_kept_for_as_long_as_a_request_holds_it() {
    let kept = "[enrolment]\ntoken_approvals = 1\n[retention]\nunused_token_days = 1\n";
    let office = Office::open(kept).await;
    let server = office.site.serve().await;
    let token = office.invite(&server, "dev@example.com").await;
    let asked = enrol_request(&token, &key(), Some("r1"));
    awaits(server.client().enrol(&asked).await);
    // Two days on, for which a request may wait and a token does not live.
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds() + 2 * 86_400));
    let later = office.site.open_with(office.site.store().await, clock).await;
    assert_eq!(later.forget_tokens().await.unwrap(), 0);
    office.approve(&server, "alice").await.unwrap();
    server.client().enrol(&asked).await.unwrap();
    assert_eq!(later.forget_tokens().await.unwrap(), 0);
    server.finish().await;
}
