//! Whose releases may follow whose, and loads that do not come to their end.

use std::time::Duration;

use executor_engine::ModuleDigest;

use crate::admission::{AdmittedModule, GrantSet, Publisher, Rules};
use crate::runtime::CallLimits;
use crate::submissions::Submissions;
use crate::testing::{Server, admitted, wat_echo};

fn module() -> AdmittedModule {
    admitted(wat_echo(), GrantSet::default(), CallLimits::default()).called("loading.echo", "a@example.org")
}

#[tokio::test]
async fn an_agent_is_not_taken_over_by_the_signer_of_another_rule() {
    const POLICY: &str = r#"{"version":1,"logs":{"witnesses":"not-required"},"capabilities":{"within":[]},"identities":[
        {"subject":"a@example.org","issuer":"any-of-the-authority","level":"verified"LISTS},
        {"subject":"b@example.org","issuer":"any-of-the-authority","level":"verified"LISTS}]}"#;
    let server = Server::start().await;
    let put_in_force = |lists: &str| {
        let rules = Rules::parse(POLICY.replace("LISTS", lists).as_bytes()).unwrap();
        server.executor.parts.admission.replace(rules);
    };
    let follow = |signer: &str| {
        let followed = server.executor.may_follow("taken.agent", &Publisher::new(signer, ""));
        followed.map_err(|denied| denied.code)
    };
    put_in_force("");
    assert_eq!(follow("b@example.org"), Ok(()), "nobody has it");
    let admitted = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(admitted.called("taken.agent", "a@example.org")).await;
    assert_eq!(follow("a@example.org"), Ok(()));
    assert_eq!(follow("b@example.org"), Err("agent_taken"));
    put_in_force(r#","agents":["taken.*"]"#);
    assert_eq!(follow("b@example.org"), Ok(()), "the policy lists both");
    put_in_force("");
    server.executor.unload("taken.agent").await.unwrap();
    assert_eq!(follow("b@example.org"), Ok(()), "it was unloaded");
    // What waits for fresher evidence since the start is here as well.
    server.executor.waiting.add_publisher_for_test("taken.agent", &Publisher::new("a@example.org", ""));
    assert_eq!(follow("b@example.org"), Err("agent_taken"));
    assert_eq!(follow("a@example.org"), Ok(()));
}

#[tokio::test]
async fn nobody_takes_an_agent_while_nobody_has_looked_at_the_last_run() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("agents");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a-b.agent"), b"mentat-agent-1\n and then something else").unwrap();
    let server = Server::over(state).await;
    let follow = || server.executor.may_follow("taken.agent", &Publisher::new("b@example.org", ""));
    assert_eq!(follow().unwrap_err().code, "restoring");
    server.executor.restore().await;
    assert_eq!(follow(), Ok(()));
}

#[tokio::test]
async fn nobody_takes_an_agent_whose_record_is_damaged_until_it_is_unloaded() {
    let state = tempfile::tempdir().unwrap();
    let module = ModuleDigest::of(b"module");
    let path = Submissions::open(state.path()).unwrap().path("taken.agent", module);
    std::fs::write(&path, b"mentat-agent-1\n and then something else").unwrap();
    let server = Server::over(state).await;
    let follow = |agent: &str| {
        let followed = server.executor.may_follow(agent, &Publisher::new("b@example.org", ""));
        followed.map_err(|denied| denied.code)
    };
    assert_eq!(follow("taken.agent"), Err("restoring"));
    server.executor.restore().await;
    assert_eq!(follow("taken.agent"), Err("agent_taken"));
    assert_eq!(follow("other.agent"), Ok(()));
    server.executor.unload("taken.agent").await.unwrap();
    assert_eq!(follow("taken.agent"), Ok(()));
    assert!(!path.exists());
}

/// Else the operator could not unload it, and the next start would bring it.
#[tokio::test]
async fn what_is_on_disk_is_loaded_although_whoever_loads_it_hangs_up() {
    let server = Server::start().await;
    let executor = &server.executor;
    let record = executor.submissions.path("loading.echo", module().digest());
    let mut load = Box::pin(executor.load_for_test(module()));
    while !record.exists() {
        assert!(futures_util::poll!(load.as_mut()).is_pending(), "it ended without a record");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(load);
    let loaded = async {
        while executor.find("loading.echo").is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), loaded).await.expect("a record without its agent");
    assert_eq!(server.counted("mentatlab_admissions_total{reason=\"admitted\"}"), 1);
    executor.unload("loading.echo").await.unwrap();
    assert!(!record.exists());
}

#[tokio::test]
async fn a_load_that_cannot_be_recorded_is_not_counted_as_one_and_leaves_nothing() {
    let server = Server::start().await;
    let executor = &server.executor;
    let record = executor.submissions.path("loading.echo", module().digest());
    let counted =
        |reason: &str| server.counted(&format!("mentatlab_admissions_total{{reason=\"{reason}\"}}"));
    executor.fail_audit_for_test();
    assert_eq!(executor.load_for_test(module()).await.unwrap_err().code, "storage_full");
    assert!(executor.find("loading.echo").is_none());
    assert!(!record.exists(), "the next start would bring what was not loaded");
    assert_eq!((counted("admitted"), counted("storage_full")), (0, 1));
}

#[tokio::test]
async fn a_release_that_is_loaded_keeps_its_record_when_it_cannot_be_loaded_again() {
    let server = Server::start().await;
    let executor = &server.executor;
    let record = executor.submissions.path("loading.echo", module().digest());
    let files = || std::fs::read_dir(record.parent().unwrap()).unwrap().count();
    for manifest in ["0", "1"] {
        executor.load_by_for_test(module(), manifest).await.unwrap();
        assert_eq!((Submissions::read(&record).unwrap().manifest.as_str(), files()), (manifest, 1));
    }
    executor.fail_audit_for_test();
    assert_eq!(executor.load_by_for_test(module(), "2").await.unwrap_err().code, "storage_full");
    assert!(executor.find("loading.echo").is_some());
    let kept = Submissions::read(&record).unwrap();
    assert_eq!((kept.manifest.as_str(), files()), ("1", 1), "the next start finds what runs");
}
