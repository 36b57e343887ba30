//! R1: what is reported has a time by which it must be decided, and is seen until it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;
use std::time::Duration;

use ca_api::client::ClientError;
use ca_api::possession::OwnReason;
use ca_api::{CloseReport, ProblemGround, ProblemQuery, ProblemReport, ProblemState, ReportProblem};
use ca_pki::SerialNumber;
use ca_pki::crl::RevocationReason;
use ca_service::problem_report::ReportRefusal;
use ca_service::reconciler::Reach;
use ca_service::storage::OpenProblems;
use ca_service::{CaError, CertificateAuthority};
use fixture::faults::{Fault, FaultyStore};
use fixture::lines::Lines;
use fixture::own::Own;
use fixture::{Server, Site, check_ca, enrol_request, key, token_request};
use service::SystemClock;
use service::clock::{Clock as _, TestClock};

const DAY: i64 = 86_400;

async fn issued(authority: &Arc<CertificateAuthority>) -> String {
    issued_with_chain(authority).await.0
}

/// The serial number of a new certificate, and the certificate of its issuer.
async fn issued_with_chain(authority: &Arc<CertificateAuthority>) -> (String, Vec<u8>) {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    let issued = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
    (issued.serial.to_string(), issued.chain[0].clone())
}

fn problem(serial: &str, ground: ProblemGround) -> ReportProblem {
    ReportProblem { serial: serial.to_owned(), ground, detail: "a researcher wrote".to_owned() }
}

fn code(answer: Result<ProblemReport, ClientError>) -> String {
    answer.unwrap_err().code().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ground_has_its_time_and_what_waits_too_long_is_counted() {
    let site = Site::new().await;
    let start = SystemClock.unix_seconds();
    let clock = Arc::new(TestClock::at_unix_seconds(start));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let (serial, issuer) = issued_with_chain(&authority).await;
    for (ground, days) in [
        (ProblemGround::SubscriberRequest, 1),
        (ProblemGround::KeyCompromise, 1),
        (ProblemGround::SuspectCode, 1),
        (ProblemGround::Other, 5),
    ] {
        let report = authority.report_problem(&problem(&serial, ground), "auditor:eve").await.unwrap();
        assert_eq!(report.due_at - report.received_at, days * DAY, "{ground:?}");
        assert_eq!((report.state, report.reported_by.as_str()), (ProblemState::Open, "auditor:eve"));
    }
    // A CA below the root has a week.
    let of_ca = ca_pki::certificate::parse(&issuer).unwrap();
    let of_ca = hex::encode(of_ca.tbs_certificate().serial_number().as_bytes());
    let report = authority
        .report_problem(&problem(&of_ca, ProblemGround::KeyCompromise), "auditor:eve")
        .await
        .unwrap();
    assert_eq!(report.due_at - report.received_at, 7 * DAY);

    let counted = async || {
        let OpenProblems { open, overdue, first_due } =
            authority.store().tend_problems(ca_pki::UnixTime(clock.unix_seconds())).await.unwrap();
        (open, overdue, first_due.map(|due| due.0 - start))
    };
    assert_eq!(counted().await, (5, 0, Some(DAY)));
    clock.advance(Duration::from_secs(86_401));
    assert_eq!(counted().await, (5, 3, Some(DAY)));
    // A revocation decides all reports of its certificate; another stays open.
    authority
        .revoke(&SerialNumber::from_hex(&serial).unwrap(), RevocationReason::KeyCompromise, None, "test")
        .await
        .unwrap();
    assert_eq!(counted().await, (1, 0, Some(7 * DAY)));
    let states: Vec<_> =
        authority.store().problems(false, 0).await.unwrap().iter().map(|each| each.state).collect();
    assert_eq!(states[..4], [ProblemState::Revoked; 4]);
    assert_eq!(states[4], ProblemState::Open);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_decided_once_and_refusals_say_why() {
    let site = Site::new().await;
    let server = site.serve().await;
    let serial = issued(&server.authority).await;
    let admin = server.admin();
    let report = admin.report_problem(&problem(&serial, ProblemGround::Other)).await.unwrap();
    let stands = CloseReport { decision: "the code is what it says".to_owned() };
    let closed = admin.close_problem(report.id, &stands).await.unwrap();
    assert_eq!((closed.state, closed.decision.as_deref()), (ProblemState::Stands, Some(&*stands.decision)));
    assert_eq!(code(admin.close_problem(report.id, &stands).await), "report_closed");
    assert_eq!(code(admin.close_problem(99, &stands).await), "report_unknown");
    assert_eq!(
        code(admin.report_problem(&problem("00aa", ProblemGround::Other)).await),
        "certificate_unknown"
    );
    let silent = ReportProblem { detail: " ".to_owned(), ..problem(&serial, ProblemGround::Other) };
    assert_eq!(code(admin.report_problem(&silent).await), "out_of_range");
    assert_eq!(
        code(server.client().report_problem(&problem(&serial, ProblemGround::Other)).await),
        "unauthorized"
    );
    let open = admin.problems(&ProblemQuery { open: true, after: None }).await.unwrap();
    assert_eq!((open.reports.len(), open.next), (0, None));
    assert_eq!(admin.problems(&ProblemQuery::default()).await.unwrap().reports, [closed]);
    let trail = server.authority.store().audit_records(0, 1_000).await.unwrap();
    let events: Vec<_> = trail.iter().map(|record| record.event.as_str()).collect();
    assert!(events.contains(&"problem.reported") && events.contains(&"problem.closed"));
    server.finish().await;
}

#[tokio::test]
async fn what_waits_too_long_is_a_metric_and_an_error_of_the_log_once() {
    let (lines, _hearing) = Lines::heard();
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let server = Server::start(site.open_with(site.store().await, clock.clone()).await).await;
    let (authority, start) = (&server.authority, clock.unix_seconds());
    let shown = async || {
        authority.tend_problems().await.unwrap();
        let metric = async |which: &str| server.metric(&format!("mentat_ca_problem_reports_{which}")).await;
        (metric("open").await, metric("overdue").await, metric("first_due_unix_seconds").await)
    };
    assert_eq!(shown().await, (0, 0, 0));
    let serial = issued(authority).await;
    for ground in [ProblemGround::Other, ProblemGround::KeyCompromise] {
        authority.report_problem(&problem(&serial, ground), "auditor:eve").await.unwrap();
    }
    assert_eq!(shown().await, (2, 0, start + DAY));
    let said = || lines.with("reported problems should have been decided");
    assert_eq!(said(), Vec::<String>::new());
    clock.advance(Duration::from_secs(86_401));
    for _ in 0..2 {
        assert_eq!(shown().await, (2, 1, start + DAY));
    }
    assert_eq!(said().len(), 1, "once: {:?}", said());
    assert!(said()[0].starts_with("ERROR") && said()[0].contains("overdue=1"), "{:?}", said());
    authority.close_problem(2, "the key is where it was", "admin:a").await.unwrap();
    assert_eq!(shown().await, (1, 0, start + 5 * DAY));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_profile_is_gone_from_the_configuration_is_decided_in_time() {
    let mut site = Site::new().await;
    let serial = issued(&site.open().await).await;
    assert!(site.settings.profiles.remove("developer").is_some());
    let authority = site.open().await;
    let asked = problem(&serial, ProblemGround::KeyCompromise);
    let report = authority.report_problem(&asked, "auditor:eve").await.unwrap();
    assert_eq!(report.due_at - report.received_at, DAY);
    check_ca(&authority).await;
}

/// How each report stands.
async fn states(authority: &CertificateAuthority) -> Vec<ProblemState> {
    authority.tend_problems().await.unwrap();
    authority.store().problems(false, 0).await.unwrap().iter().map(|each| each.state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_decides_what_was_reported_before_it_and_of_a_key_only_one_that_says_so() {
    use ProblemState::{Open, Revoked};
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let reported = async |serial: &SerialNumber, ground| {
        clock.advance(Duration::from_secs(1));
        authority.report_problem(&problem(&serial.to_string(), ground), "auditor:eve").await.unwrap()
    };
    let replaced = Own::enrolled(&authority, "dev@example.com").await.issued.serial;
    let before = reported(&replaced, ProblemGround::SuspectCode).await;
    authority.revoke(&replaced, RevocationReason::Superseded, None, "test").await.unwrap();
    assert_eq!(before.state, Open);
    // Revoked it was already, and for something else.
    for ground in [ProblemGround::KeyCompromise, ProblemGround::SuspectCode, ProblemGround::Other] {
        assert_eq!(reported(&replaced, ground).await.state, Open, "{ground:?}");
    }
    assert_eq!(states(&authority).await, [Revoked, Open, Open, Open]);
    clock.advance(Duration::from_secs(1));
    authority.revoke(&replaced, RevocationReason::KeyCompromise, None, "test").await.unwrap();
    assert_eq!(states(&authority).await, [Revoked; 4]);
    assert_eq!(reported(&replaced, ProblemGround::KeyCompromise).await.state, Revoked, "it is known");
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_key_decides_no_report_against_its_holder() {
    use ProblemState::{Open, Revoked};
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let own = Own::enrolled(&authority, "dev@example.com").await;
    let serial = own.issued.serial.to_string();
    for ground in [ProblemGround::KeyCompromise, ProblemGround::SuspectCode, ProblemGround::SubscriberRequest]
    {
        authority.report_problem(&problem(&serial, ground), "auditor:eve").await.unwrap();
    }
    clock.advance(Duration::from_secs(1));
    own.given_up_for(&authority, &clock, OwnReason::Superseded, None).await;
    assert_eq!(states(&authority).await, [Open, Open, Revoked]);
    own.given_up(&authority, &clock, None).await;
    assert_eq!(states(&authority).await, [Revoked, Open, Revoked]);
    authority.close_problem(2, "nothing but the key was lost", "admin:a").await.unwrap();
    assert_eq!(states(&authority).await, [Revoked, ProblemState::Stands, Revoked]);
    check_ca(&authority).await;
}

/// An operator who decides the same as the holder, or for another reason, changes nothing of the record, and has decided all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_agrees_with_the_holders_revocation_decides_what_was_reported() {
    use ProblemState::{Open, Revoked};
    let site = Site::new().await;
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(site.store().await, clock.clone()).await;
    let mut expected = Vec::new();
    for (reason, agrees) in [(RevocationReason::KeyCompromise, true), (RevocationReason::Superseded, false)] {
        let own = Own::enrolled(&authority, "dev@example.com").await;
        let serial = own.issued.serial.to_string();
        for ground in [ProblemGround::SuspectCode, ProblemGround::Other] {
            authority.report_problem(&problem(&serial, ground), "auditor:eve").await.unwrap();
        }
        clock.advance(Duration::from_secs(1));
        own.given_up(&authority, &clock, None).await;
        assert_eq!(states(&authority).await, [&expected[..], &[Open; 2]].concat(), "the holder's word alone");
        let said = authority.revoke(&own.issued.serial, reason, None, "admin:a").await;
        assert_eq!(said.is_ok(), agrees, "{said:?}");
        expected.extend([Revoked; 2]);
        assert_eq!(states(&authority).await, expected, "{reason:?}");
    }
    // The operator first, and then the holder with an earlier date, before anybody looked at the reports.
    let own = Own::enrolled(&authority, "dev@example.com").await;
    clock.advance(Duration::from_secs(10));
    authority
        .report_problem(&problem(&own.issued.serial.to_string(), ProblemGround::SuspectCode), "auditor:eve")
        .await
        .unwrap();
    authority.revoke(&own.issued.serial, RevocationReason::KeyCompromise, None, "admin:a").await.unwrap();
    own.given_up(&authority, &clock, Some(own.issued.not_before.0)).await;
    expected.push(Revoked);
    assert_eq!(states(&authority).await, expected);
    check_ca(&authority).await;
}

/// What ends with a key is gone over later, and again, and nobody decides by that what was reported meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_revocation_decides_no_report_that_came_after_it() {
    use ProblemState::{Open, Revoked};
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let clock = Arc::new(TestClock::at_unix_seconds(SystemClock.unix_seconds()));
    let authority = site.open_with(store.clone(), clock.clone()).await;
    let own = Own::enrolled(&authority, "dev@example.com").await;
    let other = Own::enrolled_for(&authority, "pipeline@example.com", own.same_key()).await;
    store.arm("end_keys", Fault::Before);
    let reason = RevocationReason::KeyCompromise;
    let left = authority.revoke(&own.issued.serial, reason, None, "admin:a").await;
    assert!(matches!(left, Err(CaError::Store(_))), "{left:?}");
    clock.advance(Duration::from_secs(1));
    for own in [&own, &other] {
        let serial = own.issued.serial.to_string();
        authority.report_problem(&problem(&serial, ProblemGround::SuspectCode), "auditor:eve").await.unwrap();
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(authority.reconcile_local(Reach::Everything).await.unwrap().of_keys, 1);
    // The other one's record says it only now.
    assert_eq!(states(&authority).await, [Open, Revoked]);
    authority.revoke(&own.issued.serial, reason, None, "admin:a").await.unwrap();
    assert_eq!(states(&authority).await, [Revoked; 2]);
    authority.publish_due().await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_reports_are_open_at_once_and_a_store_that_fails_loses_none() {
    let site = Site::new().await;
    let store = Arc::new(FaultyStore::new(site.store().await));
    let authority = site.open_with(store.clone(), Arc::new(SystemClock)).await;
    let serial = issued(&authority).await;
    for fault in [Fault::Before, Fault::After] {
        store.arm("report_problem", fault);
        authority.report_problem(&problem(&serial, ProblemGround::Other), "auditor:eve").await.unwrap_err();
    }
    assert_eq!(authority.store().problems(true, 0).await.unwrap().len(), 1, "what may have been written was");
    let report =
        async |actor: &str| authority.report_problem(&problem(&serial, ProblemGround::Other), actor).await;
    for _ in 1..750 {
        report("auditor:eve").await.unwrap();
    }
    let is_full = |refused: Result<_, CaError>| matches!(refused, Err(CaError::Report(ReportRefusal::Full)));
    assert!(is_full(report("auditor:eve").await), "a quarter is left to others");
    for _ in 0..250 {
        report("auditor:mallory").await.unwrap();
    }
    assert!(is_full(report("auditor:oscar").await));
    // One of them is read as one, not as the first of a page.
    store.forget_calls();
    assert_eq!(authority.problem(7).await.unwrap().id, 7);
    let unknown = authority.problem(1_001).await;
    assert!(matches!(unknown, Err(CaError::Report(ReportRefusal::Unknown))), "{unknown:?}");
    assert_eq!(store.calls(), ["problem"; 2]);
    store.arm("close_problem", Fault::Before);
    authority.close_problem(1, "it stands", "admin:a").await.unwrap_err();
    // What is recorded is done, although the look at the others fails.
    store.arm("tend_problems", Fault::Before);
    authority.close_problem(1, "it stands", "admin:a").await.unwrap();
    store.arm("tend_problems", Fault::Before);
    let reported = report("auditor:eve").await.unwrap();
    assert!(!store.is_armed() && reported.state == ProblemState::Open);
    // By pages, also of the open ones alone.
    let open = authority.store().problems(true, 0).await.unwrap();
    assert_eq!((open.len(), open[0].id, open[99].id), (100, 2, 101));
    assert_eq!(authority.store().problems(true, 1_000).await.unwrap(), [reported]);
    check_ca(&authority).await;
}
