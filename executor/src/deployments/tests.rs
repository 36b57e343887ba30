use std::sync::Arc;

use executor_api::deployment::{Deploy, Phase, Strategy};
use executor_engine::ModuleDigest;

use super::{Deployments, Plan, Route, StateFolder, Taking};

fn digest(text: &str) -> ModuleDigest {
    ModuleDigest::of(text.as_bytes())
}

fn plan(steps: &[u8]) -> Plan {
    Plan::of(&Deploy {
        agent: "a.b".into(),
        digest: String::new(),
        strategy: Strategy::Canary,
        steps: steps.to_vec(),
        step_ms: Some(0),
        min_calls: Some(0),
        max_error_percent: None,
    })
    .unwrap()
}

fn share(route: &Route, sessions: bool) -> Vec<usize> {
    (0..1000)
        .filter(|call| {
            let session = format!("caller-{call}");
            route.choose("a.b", sessions.then_some(session.as_str()), || *call as u64) != route.stable
        })
        .collect()
}

#[test]
fn a_share_is_what_it_says_and_a_larger_one_keeps_the_smaller() {
    let stable = Route::stable(digest("old"), "");
    let at = |percent: u8| stable.with(Taking::new(digest("new"), plan(&[percent, 100]), 0), "");
    assert_eq!(share(&at(10), false).len(), 100);
    let (ten, twenty) = (share(&at(10), true), share(&at(20), true));
    assert!(
        (60..140).contains(&ten.len()) && (150..250).contains(&twenty.len()),
        "{} {}",
        ten.len(),
        twenty.len()
    );
    assert!(ten.iter().all(|caller| twenty.contains(caller)));
    let full = stable.with(Taking::new(digest("new"), plan(&[100]), 0), "");
    assert_eq!(share(&full, true).len(), 1000);
    assert!(share(&stable, true).is_empty());
}

#[test]
fn what_was_taken_back_is_not_returned_to() {
    let route = Route::stable(digest("1"), "").promoted(digest("2"), "").promoted(digest("3"), "");
    assert_eq!(route.history, [digest("1"), digest("2")]);
    let back = route.returned(digest("2"), "");
    assert_eq!((back.stable, back.history), (digest("2"), vec![digest("1")]));
    let many =
        (0..20).fold(Route::stable(digest("0"), ""), |route, n| route.promoted(digest(&format!("v{n}")), ""));
    assert_eq!(many.history.len(), 8);
}

#[tokio::test]
async fn routes_outlive_a_restart_and_changes_do_not_overtake_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = Deployments::open(Arc::new(StateFolder::new(dir.path()))).unwrap();
    assert!(deployments.choose("a.b", None).is_none());
    deployments.change("a.b", None, Some(Route::stable(digest("old"), "pinned"))).await.unwrap();
    let seen = deployments.route("a.b").unwrap();
    let next = seen.with(Taking::new(digest("new"), plan(&[10, 100]), 0), "canary");
    deployments.change("a.b", Some(&seen), Some(next)).await.unwrap();
    let stale = deployments.change("a.b", Some(&seen), None).await.unwrap_err();
    assert_eq!(stale.code, "deployment_in_progress");

    let again = Deployments::open(Arc::new(StateFolder::new(dir.path()))).unwrap();
    let described = again.route("a.b").unwrap().describe("a.b");
    assert_eq!(described.phase, Phase::Progressing);
    assert_eq!((described.candidate.unwrap().percent, described.last.as_str()), (10, "canary"));

    std::fs::write(dir.path().join("deployments.json"), "{\"version\":1,\"routes\":{\"a\":{}}}").unwrap();
    assert!(
        Deployments::open(Arc::new(StateFolder::new(dir.path()))).is_err(),
        "a file that cannot be read is not ignored"
    );
}

#[tokio::test]
async fn a_change_that_cannot_be_kept_does_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = Deployments::open(Arc::new(StateFolder::new(dir.path()))).unwrap();
    std::fs::create_dir(dir.path().join("deployments.json")).unwrap();
    let refused = deployments.change("a.b", None, Some(Route::stable(digest("x"), ""))).await.unwrap_err();
    assert_eq!(refused.code, "state_unavailable");
    assert!(deployments.route("a.b").is_none());
}
