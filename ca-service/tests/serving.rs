//! One server at a time: the second is refused, on SQLite and on PostgreSQL, and one that lost its place there commits nothing behind
//! its successor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use fixture::Site;
use fixture::program::{Process, command, config, config_elsewhere, run, said};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_and_commands_that_only_read_are_not() {
    let site = Site::new().await;
    let here = config(&site);
    let first = Process::start(&here);
    // A file is locked where it is; a schema can be reached from other folders.
    let (elsewhere, reason) = match site.settings.database.file() {
        Some(_) => (vec![here.clone(); 3], "another process works on"),
        None => {
            let machines = ["second", "third", "fourth"].map(|machine| config_elsewhere(&site, machine));
            (machines.to_vec(), "another_server_serves")
        }
    };
    let other = &elsewhere[0];
    let refused = [vec!["serve"], vec!["renew", "--authority", "root"], vec!["accept-time"]];
    let refused: Vec<_> = elsewhere
        .iter()
        .zip(refused)
        .map(|(config, arguments)| command(config, &arguments).spawn().unwrap())
        .collect();
    for child in refused {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        let text = said(&output);
        assert!(text.contains(reason) && text.contains("stop"), "{text}");
        assert!(output.stdout.is_empty());
    }
    for config in [&here, other] {
        let checked = run(config, &["check", "--without-logs"]);
        assert!(checked.status.success(), "{}", said(&checked));
    }
    if site.settings.database.file().is_some() {
        let out = site.folder.path().join("backup");
        let saved = run(&here, &["backup", "--out", out.to_str().unwrap()]);
        assert!(saved.status.success(), "{}", said(&saved));
    }
    // The one that serves noticed nothing.
    assert_eq!(first.ready().await.0, 200);
    first.admin().create_token(&fixture::token_request("dev@example.com", "developer")).await.unwrap();
    first.stop();
    let next = Process::start(other);
    next.admin().create_token(&fixture::token_request("dev@example.com", "developer")).await.unwrap();
    next.stop();
    assert!(run(&here, &["check", "--without-logs"]).status.success());
}

#[cfg(feature = "postgres")]
mod on_a_server {
    use std::sync::Arc;
    use std::time::Duration;

    use super::fixture::program::with_database_at;
    use super::fixture::tunnel::Tunnel;
    use super::fixture::{check_ca, enrol_request, key, ocsp_request, token_request};
    use ca_api::{RevocationReason, Revoke};
    use ca_pki::UnixTime;
    use ca_pki::timestamp::Failure;
    use ca_service::config::Settings;
    use ca_service::issuance::Issued;
    use ca_service::storage::CertificateStore as _;
    use ca_service::storage::Database;
    use ca_service::storage::postgres::Location;
    use ca_service::storage::sql_store::SqlStore;
    use ca_service::storage::{CrlPart, Selection, StoreError};
    use ca_service::{CaError, CertificateAuthority, occupancy};
    use service::{Readiness, SystemClock};
    use trust_store::ocsp::{CertificateStatus, OcspResponse};

    use super::*;

    /// A site with its records on the server of `MENTAT_POSTGRES`; none without one.
    async fn site() -> Option<Site> {
        let site = Site::new().await;
        site.settings.database.file().is_none().then_some(site)
    }

    /// Runs a query with one number in its answer.
    async fn ask(settings: &Settings, query: &str) -> i64 {
        let config = settings.config.database.clone().unwrap();
        let (client, driver) = tokio_postgres::connect(&config.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(driver);
        client.batch_execute(&format!("SET search_path = {}", config.schema)).await.unwrap();
        client.query_one(query, &[]).await.unwrap().get(0)
    }

    /// The sessions that hold the lock of the site's server, and what is done with each.
    async fn lock_holders(settings: &Settings, each: &str) -> i64 {
        let schema = &settings.config.database.as_ref().unwrap().schema;
        let query = format!(
            "SELECT count({each}) FROM pg_locks, \
             (SELECT hashtextextended('{schema} mentat ca server', 0) AS key) AS named \
             WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
             AND classid::bigint = (key >> 32) & 4294967295 AND objid::bigint = key & 4294967295 \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        ask(settings, &query).await
    }

    const END: &str = "pg_terminate_backend(pid)";

    /// What an OCSP answer says, if it says anything.
    fn status(answer: &[u8]) -> Option<CertificateStatus> {
        let response = OcspResponse::from_der(answer).ok()?;
        response.responses().first().map(|one| one.status())
    }

    /// Longer than a server believes that the records are its own without having looked.
    const LONG: Duration = Duration::from_secs(12);

    /// A certificate of the site, and the question about its status.
    async fn issued(site: &Site) -> (Vec<u8>, Issued) {
        let authority = site.open().await;
        let token =
            authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
        let enrolled = authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap();
        let question = ocsp_request(&enrolled.chain[0], &enrolled.serial);
        drop(authority);
        (question, enrolled)
    }

    /// Asks a server for what it gives without recording anything, in this order: a kept OCSP answer, a time stamp, a list. What it
    /// gives is what its name says, what it refuses is refused as it should be.
    async fn gives(process: &Process, question: &[u8]) -> Option<CertificateStatus> {
        let kept = status(&process.admin().ocsp(question.to_vec()).await.unwrap());
        let digest = serde_json::json!({
            "artifactHash": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "hashAlgorithm": "sha256",
        });
        let stamp = Process::http().post(format!("{}/api/v1/timestamp", process.base)).json(&digest);
        let stamp = stamp.send().await.unwrap().bytes().await.unwrap();
        let list = Process::http().get(format!("{}/crl/code-signing.crl", process.base));
        let list = list.send().await.unwrap().status().as_u16();
        match kept {
            Some(_) => assert!(stamp != Failure::SystemFailure.to_der() && list == 200, "{list}"),
            None => assert!(stamp == Failure::SystemFailure.to_der() && list == 503, "{list}"),
        }
        kept
    }

    /// Waits until `/readyz` says this.
    async fn says(process: &Process, code: u16, text: &str) {
        for _ in 0..1_200 {
            let (found, said) = process.ready().await;
            if found == code && said.contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it still says {:?}", process.ready().await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_stood_still_while_its_lock_was_lost_does_nothing_behind_its_successor() {
        let Some(site) = site().await else { return };
        let (here, there) = (config(&site), config_elsewhere(&site, "second"));
        let (question, issued) = issued(&site).await;

        let first = Process::start(&here);
        assert_eq!(gives(&first, &question).await, Some(CertificateStatus::Good));
        assert_eq!(lock_holders(&site.settings, "pid").await, 1);
        // Its machine stands still, and the database server gives its session up.
        first.signal("STOP");
        assert_eq!(lock_holders(&site.settings, END).await, 1);
        let second = Process::start(&there);
        let revocation = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: None };
        second.admin().revoke(&issued.serial.to_string(), &revocation).await.unwrap();
        let trail = "SELECT count(*) FROM audit WHERE event = 'token.created'";
        let before = ask(&site.settings, trail).await;
        tokio::time::sleep(LONG).await;

        first.signal("CONT");
        // Its kept answer says what is not true any more. Nobody is given it, nor anything else that it does not record: also not
        // before it has asked the database anything.
        assert_eq!(gives(&first, &question).await, None);
        let refused = first.admin().create_token(&token_request("dev@example.com", "developer")).await;
        assert_eq!(refused.unwrap_err().code(), Some("another_server_serves"));
        assert_eq!(ask(&site.settings, trail).await, before, "nothing was committed");
        let (code, text) = first.ready().await;
        assert!(code == 503 && text.contains("another server serves"), "{code} {text}");
        assert_eq!(gives(&first, &question).await, None);
        assert!(matches!(gives(&second, &question).await, Some(CertificateStatus::Revoked { .. })));
        assert_eq!(second.ready().await.0, 200);
        second.admin().create_token(&token_request("dev@example.com", "developer")).await.unwrap();
        drop(first);
        second.stop();
        assert!(run(&here, &["check", "--without-logs"]).status.success());
    }

    /// The tunnel to the database is dead and not closed: no statement fails, and no statement is answered.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_cannot_reach_the_database_gives_nothing_that_a_successor_may_contradict() {
        let Some(site) = site().await else { return };
        let (here, there) = (config(&site), config_elsewhere(&site, "second"));
        let (question, issued) = issued(&site).await;
        let tunnel = Tunnel::to(&site.settings.config.database.as_ref().unwrap().url).await;
        with_database_at(&here, &site, &tunnel.url);

        let first = Process::start(&here);
        assert_eq!(gives(&first, &question).await, Some(CertificateStatus::Good));
        tunnel.set_dead(true);
        says(&first, 503, "another server may have taken over").await;
        assert_eq!(gives(&first, &question).await, None);
        // Nobody took over: it goes on by itself, over new connections.
        tunnel.set_dead(false);
        says(&first, 200, "").await;
        assert_eq!(gives(&first, &question).await, Some(CertificateStatus::Good));
        first.admin().create_token(&token_request("dev@example.com", "developer")).await.unwrap();

        tunnel.set_dead(true);
        // Its lock ends at the latest when whoever takes over ends it.
        lock_holders(&site.settings, END).await;
        let second = Process::start(&there);
        let revocation = Revoke { reason: RevocationReason::KeyCompromise, compromised_at: None };
        second.admin().revoke(&issued.serial.to_string(), &revocation).await.unwrap();
        tokio::time::sleep(LONG).await;
        assert_eq!(gives(&first, &question).await, None);
        tunnel.set_dead(false);
        says(&first, 503, "another_server_serves").await;
        assert_eq!(gives(&first, &question).await, None);
        let refused = first.admin().create_token(&token_request("dev@example.com", "developer")).await;
        assert_eq!(refused.unwrap_err().code(), Some("another_server_serves"));
        assert!(matches!(gives(&second, &question).await, Some(CertificateStatus::Revoked { .. })));
        drop(first);
        second.stop();
        assert!(run(&there, &["check", "--without-logs"]).status.success());
    }

    /// A server that is asked nothing learns of its successor as well; and it ends, for it has nothing to do any more.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_idle_server_finds_out_that_another_took_over() {
        let Some(site) = site().await else { return };
        let (here, there) = (config(&site), config_elsewhere(&site, "second"));
        let first = Process::start(&here);
        first.signal("STOP");
        lock_holders(&site.settings, END).await;
        let second = Process::start(&there);
        first.signal("CONT");
        says(&first, 503, "another_server_serves").await;
        let (code, text) = first.ended(&here).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("another_server_serves: another server took the records over"), "{text}");
        assert_eq!(second.ready().await.0, 200);
        second.stop();
    }

    /// Without anybody else, a lost session is made again, and still keeps others out.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_lock_that_was_lost_is_taken_again_where_nobody_took_it() {
        let Some(site) = site().await else { return };
        let mut settings = site.settings.clone();
        let _occupied = occupancy::occupy(&mut settings).await.unwrap();
        let store = SqlStore::open(&settings.database).await.unwrap();
        assert_eq!(lock_holders(&settings, END).await, 1);
        for _ in 0..600 {
            if lock_holders(&settings, "pid").await == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // From another machine, whose folder nobody has locked.
        let mut elsewhere = site.settings.clone();
        elsewhere.data_dir = site.folder.path().join("elsewhere");
        let refused = occupancy::occupy(&mut elsewhere).await.unwrap_err().to_string();
        assert!(refused.contains("another_server_serves"), "{refused}");
        store.probe().await.unwrap();
        assert_eq!(store.write_failure(), None);
    }

    async fn opened(site: &Site, settings: &Settings) -> Arc<CertificateAuthority> {
        let store = SqlStore::open(&settings.database).await.unwrap();
        site.open_with(Arc::new(store), Arc::new(SystemClock)).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_opened_under_an_earlier_claim_reads_and_neither_writes_nor_signs() {
        let Some(site) = site().await else { return };
        let unclaimed = site.open().await;
        let mut settings = site.settings.clone();
        let occupied = occupancy::occupy(&mut settings).await.unwrap();
        let first = opened(&site, &settings).await;
        first.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
        // Who opened it before anybody claimed it is fenced off by the first claim.
        let refused = unclaimed.create_token(&token_request("dev@example.com", "developer"), "test").await;
        assert!(matches!(refused, Err(CaError::Store(StoreError::AnotherServes))));

        drop(occupied);
        let mut later = site.settings.clone();
        let _occupied = occupancy::occupy(&mut later).await.unwrap();
        let second = opened(&site, &later).await;
        let refused = first.create_token(&token_request("dev@example.com", "developer"), "test").await;
        assert!(matches!(refused, Err(CaError::Store(StoreError::AnotherServes))));
        assert_eq!(first.store().write_failure(), Some(StoreError::AnotherServes));
        assert!(matches!(first.readiness(), Readiness::NotReady(_)));
        assert!(first.publish_all().await.is_err(), "no list");
        let stamp = ca_pki::timestamp::ImprintHash::Sha256;
        assert_eq!(
            first.timestamp_digest(stamp, &[7; 32]).await,
            ca_pki::timestamp::Failure::SystemFailure.to_der()
        );
        assert!(first.anchor().await.is_err(), "no statement");
        assert!(!first.store().authorities().await.unwrap().is_empty(), "it reads");
        // Nothing of a store that is opened under the lost claim either.
        let refused = SqlStore::open(&settings.database).await.err();
        assert_eq!(refused, Some(StoreError::AnotherServes));

        second.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
        second.publish_due().await.unwrap();
        assert!(second.published_crl("root", CrlPart::Complete).is_some());
        check_ca(&second).await;
    }

    /// Whose looks do not come, because it is given no more sessions, knows by what it writes that nobody took over.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_writes_serves_without_its_looks() {
        let Some(site) = site().await else { return };
        let config = site.settings.config.database.clone().unwrap();
        let schema = &config.schema;
        let role = format!("{schema}_limited");
        fixture::execute(
            &site.settings,
            &format!(
                "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}; \
                 GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"
            ),
        );
        // The last user that a URL names is the one.
        let url = format!("{}{}user={role}", config.url, if config.url.contains('?') { '&' } else { '?' });
        let mut settings = site.settings.clone();
        settings.database = Database::Postgres(Location::new(&url, schema, None).unwrap());
        let occupied = occupancy::occupy(&mut settings).await.unwrap();
        let store = SqlStore::open(&settings.database).await.unwrap();
        // Its writer looked once, when it was opened; from now on it writes.
        store.probe().await.unwrap();
        let looks = format!("usename = '{role}' AND query LIKE 'SELECT value AS claim%'");
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE {looks}");
        while ask(&site.settings, &count).await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fixture::execute(&site.settings, &format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
        assert_eq!(ask(&site.settings, &count.replace("count(*)", &format!("count({END})"))).await, 1);
        for _ in 0..LONG.as_secs() {
            store.probe().await.unwrap();
            assert_eq!(store.write_failure(), None);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(ask(&site.settings, &count).await, 0, "it looked after all");
        // What it wrote counts for as long as a look.
        tokio::time::sleep(LONG).await;
        assert_eq!(store.write_failure(), Some(StoreError::SuccessorUnknown));
        store.probe().await.unwrap();
        assert_eq!(store.write_failure(), None);
        drop((store, occupied));
        fixture::execute(&site.settings, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }

    /// A look at a whole table is given the time that it takes, and holds nobody up who asks about one certificate; what should be
    /// answered at once is given up, and the database does not go on with it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_look_at_a_large_table_is_waited_for_and_what_is_given_up_ends() {
        let Some(site) = site().await else { return };
        let (_, issued) = issued(&site).await;
        // Reading the table takes longer than any statement about few rows may.
        fixture::execute(
            &site.settings,
            "ALTER TABLE certificate RENAME TO certificate_kept; CREATE VIEW certificate AS \
             SELECT kept.* FROM certificate_kept kept, pg_sleep(33) AS slept",
        );
        let store = Arc::new(SqlStore::open(&site.settings.database).await.unwrap());
        let selection = || Selection { issuer: Some("code-signing".to_owned()), ..Selection::default() };
        let mut plans: Vec<_> = (0..20)
            .map(|_| {
                let (store, selection) = (Arc::clone(&store), selection());
                tokio::spawn(async move { store.count_selected(selection).await })
            })
            .collect();
        let schema = &site.settings.config.database.as_ref().unwrap().schema;
        let at_work = format!(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE state = 'active' \
             AND relation = '{schema}.certificate_kept'::regclass AND query LIKE '%count%'"
        );
        while ask(&site.settings, &at_work).await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let prompt = tokio::time::timeout(Duration::from_secs(10), store.token(&[7; 32])).await;
        assert_eq!(prompt.expect("a plan holds up what is read at once").unwrap(), None);
        // Nor does what the authority does by itself: which lists are due, and what the event log has not.
        let own = async { (store.due_crls(UnixTime(0)).await, store.unlogged_revocations(1).await) };
        let (lists, revocations) = tokio::time::timeout(Duration::from_secs(10), own)
            .await
            .expect("a plan holds up the authority's own work");
        assert!(lists.is_ok() && revocations.is_ok(), "{lists:?} {revocations:?}");
        let refused = store.certificate(&issued.serial).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        let points = at_work.replace("%count%", "%WHERE c.serial%");
        assert_eq!(ask(&site.settings, &points).await, 0, "the database goes on with it");
        let counted = plans.remove(0).await.unwrap().unwrap();
        assert_eq!(counted.matching, 1);
        for plan in plans {
            plan.abort();
        }
        ask(&site.settings, &at_work.replace("count(*)", &format!("count({END})"))).await;
    }
}
