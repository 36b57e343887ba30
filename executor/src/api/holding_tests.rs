//! What runs, and what operators hold, over gRPC as over HTTP.

use std::time::Duration;

use executor_api::hold::{Calls, Hold, HoldReport, HoldRequest, Releases};
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{REASON_METADATA, v1};
use tonic::{Code, Status};

use super::caller_tests::http;
use super::tests::{channel, post, problem};
use crate::admission::GrantSet;
use crate::runtime::{CallLimits, Selector};
use crate::testing::{Server, admitted, patient, wat_echo, wat_spin};

/// `held.spin` of one signer and `held.echo` of another one.
async fn server() -> Server {
    let server = Server::start().await;
    for (text, agent, signer) in
        [(wat_spin(), "held.spin", "h@example.org"), (wat_echo(), "held.echo", "o@example.org")]
    {
        let admitted = admitted(text, GrantSet::default(), CallLimits::default()).called(agent, signer);
        server.executor.admit_for_test(admitted).await;
    }
    server.executor.judge_well_for_test();
    server
}

fn order(releases: v1::Releases) -> v1::HoldReleasesRequest {
    let calls = v1::Calls::Stop.into();
    let reason = "a stolen key".into();
    v1::HoldReleasesRequest { releases: Some(releases), calls, reason, ..Default::default() }
}

/// The same order over gRPC.
fn over_grpc(request: HoldRequest) -> v1::HoldReleasesRequest {
    let HoldRequest { releases, calls, drain_seconds, reason, dry_run } = request;
    let Releases { agent, certificate, digest, from_log_index, issuer, log_index, serial, signer } = releases;
    let releases =
        v1::Releases { agent, certificate, digest, from_log_index, issuer, log_index, serial, signer };
    let calls = match calls {
        Calls::Drain => v1::Calls::Drain,
        Calls::Stop => v1::Calls::Stop,
    };
    v1::HoldReleasesRequest { releases: Some(releases), calls: calls.into(), drain_seconds, reason, dry_run }
}

/// An order to stop.
fn stopping(releases: Releases) -> HoldRequest {
    HoldRequest { releases, calls: Calls::Stop, drain_seconds: None, reason: "r".into(), dry_run: false }
}

fn by_agent(agent: &str) -> Releases {
    Releases { agent: Some(agent.into()), ..Releases::default() }
}

/// What both transports refuse an order with: the status and the code of each.
async fn refusals(server: &Server, request: &HoldRequest) -> (u16, String, Code, String) {
    let (status, body) = post(server, "/api/v1/holds", request).await;
    assert!(status >= 400, "{request:?}: {}", String::from_utf8_lossy(&body));
    let mut client = GrpcClient::new(channel(server).await);
    let refused = client.hold_releases(over_grpc(request.clone())).await.unwrap_err();
    let (code, reason) = refusal(&refused);
    (status, problem(&body).code, code, reason.to_owned())
}

fn refusal(status: &Status) -> (Code, &str) {
    (status.code(), status.metadata().get(REASON_METADATA).unwrap().to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_listed_and_held_over_grpc() {
    let server = server().await;
    let mut client = GrpcClient::new(channel(&server).await);
    let call = |agent: &str| v1::ExecuteAgentRequest { agent: agent.into(), ..Default::default() };
    let in_flight = tokio::spawn({
        let (mut client, call) = (client.clone(), call("held.spin"));
        async move { client.execute_agent(call).await }
    });
    let listed = loop {
        assert!(!in_flight.is_finished(), "it ended before it was seen");
        let listed = client.list_instances(v1::ListInstancesRequest {}).await.unwrap().into_inner();
        match listed.instances.into_iter().find(|instance| instance.agent_id == "held.spin") {
            Some(instance) => break instance,
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    assert!(listed.instance_id.starts_with("i-") && listed.digest.len() == 64, "{listed:?}");
    assert_eq!(listed.signer, "h@example.org");

    let of_signer = v1::Releases { signer: Some("h@example.org".into()), ..Default::default() };
    let report = client.hold_releases(order(of_signer.clone())).await.unwrap().into_inner();
    let hold = report.hold.unwrap();
    assert_eq!((report.agents.len(), report.agents[0].instances, report.dry_run), (1, 1, false));
    assert_eq!((hold.releases.as_ref(), hold.calls()), (Some(&of_signer), v1::Calls::Stop));
    assert_eq!(refusal(&in_flight.await.unwrap().unwrap_err()), (Code::Aborted, "stopped"));
    let refused = client.execute_agent(call("held.spin")).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::FailedPrecondition, "withheld"));
    client.execute_agent(call("held.echo")).await.unwrap();

    let holds = client.list_holds(v1::ListHoldsRequest {}).await.unwrap().into_inner().holds;
    assert_eq!(holds.len(), 1);
    assert_eq!(holds[0].hold.as_ref(), Some(&hold));
    let unknown = client.release_hold(v1::ReleaseHoldRequest { id: "none".into() }).await.unwrap_err();
    assert_eq!(refusal(&unknown), (Code::NotFound, "hold_unknown"));
    let id = hold.id.clone();
    assert_eq!(client.release_hold(v1::ReleaseHoldRequest { id }).await.unwrap().into_inner(), hold);
    assert!(client.list_holds(v1::ListHoldsRequest {}).await.unwrap().into_inner().holds.is_empty());
}

#[tokio::test]
async fn an_order_reaches_the_same_over_both_transports() {
    let server = server().await;
    let mut client = GrpcClient::new(channel(&server).await);
    for (releases, reached) in [
        (Releases { certificate: Some("ab".repeat(32)), ..Releases::default() }, 0),
        (Releases { log_index: Some(7), ..Releases::default() }, 0),
        // What is in no log that was asked about came at no known time.
        (Releases { from_log_index: Some(7), ..Releases::default() }, 2),
        (Releases { agent: Some("held.echo".into()), from_log_index: Some(7), ..Releases::default() }, 1),
        (Releases { issuer: Some("CN=x".into()), serial: Some("0a:0B".into()), ..Releases::default() }, 0),
    ] {
        let over_http = HoldRequest {
            releases,
            calls: Calls::Drain,
            drain_seconds: Some(9),
            reason: "r".into(),
            dry_run: true,
        };
        let (status, text) = post(&server, "/api/v1/holds", &over_http).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&text));
        let http: HoldReport = serde_json::from_slice(&text).unwrap();
        let grpc = client.hold_releases(over_grpc(over_http)).await.unwrap().into_inner();
        let hold = grpc.hold.unwrap();
        assert_eq!((http.agents.len(), grpc.agents.len()), (reached, reached), "{http:?}");
        assert_eq!((hold.id, hold.drain_seconds, grpc.dry_run), (http.hold.id, 9, true));
        let ids = grpc.agents.iter().map(|agent| &agent.agent_id);
        assert!(ids.eq(http.agents.iter().map(|agent| &agent.agent_id)));
    }
    for wrong in [
        order(v1::Releases::default()),
        v1::HoldReleasesRequest { releases: None, ..order(v1::Releases::default()) },
        v1::HoldReleasesRequest {
            calls: v1::Calls::Unspecified.into(),
            ..order(v1::Releases { agent: Some("a".into()), ..Default::default() })
        },
        order(v1::Releases { serial: Some("0a".into()), ..Default::default() }),
    ] {
        let refused = client.hold_releases(wrong).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::InvalidArgument, "invalid_argument"));
    }
    assert!(server.executor.holds().is_empty(), "a dry run changes nothing");
}

#[tokio::test]
async fn what_is_wrong_with_an_order_is_refused_alike_over_both_transports() {
    let server = server().await;
    let text = |text: &str| Some(text.to_owned());
    let drained = |seconds| HoldRequest {
        calls: Calls::Drain,
        drain_seconds: Some(seconds),
        ..stopping(by_agent("held.echo"))
    };
    for wrong in [
        stopping(Releases::default()),
        stopping(by_agent("")),
        stopping(by_agent("held.echo\nheld.spin")),
        stopping(Releases { certificate: text("12"), ..Releases::default() }),
        stopping(Releases { digest: text(&"x".repeat(64)), ..Releases::default() }),
        stopping(Releases { issuer: text("CN=x"), ..Releases::default() }),
        stopping(Releases { serial: text("00"), issuer: text("CN=x"), ..Releases::default() }),
        HoldRequest { drain_seconds: Some(1), ..stopping(by_agent("held.echo")) },
        HoldRequest { reason: "x".repeat(513), ..stopping(by_agent("held.echo")) },
        drained(0),
        drained(3601),
    ] {
        for dry_run in [false, true] {
            let refused = refusals(&server, &HoldRequest { dry_run, ..wrong.clone() }).await;
            let code = || "invalid_argument".to_owned();
            assert_eq!(refused, (422, code(), Code::InvalidArgument, code()), "{wrong:?}");
        }
    }
    // A number that stands for nothing.
    let mut client = GrpcClient::new(channel(&server).await);
    let odd = v1::HoldReleasesRequest { calls: 9, ..over_grpc(drained(9)) };
    let refused = client.hold_releases(odd).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "invalid_argument"));
    // What is taken back and was not given.
    let (status, code, _) = http(&server, "", "DELETE /api/v1/holds/none", None).await;
    assert_eq!((status, code.as_str()), (404, "hold_unknown"));
    let refused = client.release_hold(v1::ReleaseHoldRequest { id: String::new() }).await.unwrap_err();
    assert_eq!(refusal(&refused), (Code::NotFound, "hold_unknown"));
    assert!(server.executor.holds().is_empty());
}

#[tokio::test]
async fn an_order_too_many_is_refused_and_may_be_tried() {
    let state = tempfile::tempdir().unwrap();
    let hold = |index: u64| Hold {
        id: format!("{index:016x}"),
        releases: Releases { log_index: Some(index), ..Releases::default() },
        calls: Calls::Stop,
        drain_seconds: 0,
        reason: String::new(),
        since: 0,
    };
    let kept: Vec<Hold> = (0..1024).map(hold).collect();
    let file = serde_json::json!({ "version": 1, "holds": kept });
    std::fs::write(state.path().join("holds.json"), file.to_string()).unwrap();
    let server = Server::over(state).await;
    let echo = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(echo.called("held.more", "o@example.org")).await;
    server.executor.judge_well_for_test();

    let order = stopping(by_agent("held.more"));
    let code = || "too_many_holds".to_owned();
    assert_eq!(refusals(&server, &order).await, (409, code(), Code::ResourceExhausted, code()));
    let mut client = GrpcClient::new(channel(&server).await);
    assert_eq!(client.list_holds(v1::ListHoldsRequest {}).await.unwrap().into_inner().holds.len(), 1024);
    let call = v1::ExecuteAgentRequest { agent: "held.more".into(), ..Default::default() };
    client.execute_agent(call).await.expect("nothing holds it");
    let tried = over_grpc(HoldRequest { dry_run: true, ..order });
    assert_eq!(client.hold_releases(tried).await.unwrap().into_inner().agents.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_over_both_transports_whom_it_would_end_and_ends_nobody() {
    let server = Server::start().await;
    let spin = admitted(wat_spin(), GrantSet::default(), patient()).called("tried.spin", "t@example.org");
    let digest = server.executor.admit_for_test(spin).await.to_string();
    server.executor.judge_well_for_test();
    let mut client = GrpcClient::new(channel(&server).await);
    let in_flight = tokio::spawn({
        let mut client = client.clone();
        let call = v1::ExecuteAgentRequest { agent: "tried.spin".into(), ..Default::default() };
        async move { client.execute_agent(call).await }
    });
    let order = HoldRequest { dry_run: true, ..stopping(by_agent("tried.spin")) };
    let told = loop {
        assert!(!in_flight.is_finished(), "it ended before it was seen");
        let told = client.hold_releases(over_grpc(order.clone())).await.unwrap().into_inner();
        if told.agents[0].instances == 1 {
            break told;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(told.dry_run);
    let (status, body) = post(&server, "/api/v1/holds", &order).await;
    assert_eq!(status, 200);
    let over_http: HoldReport = serde_json::from_slice(&body).unwrap();
    let [agent] = &told.agents[..] else { panic!("{told:?}") };
    let [also] = &over_http.agents[..] else { panic!("{over_http:?}") };
    assert_eq!((agent.agent_id.as_str(), agent.signer.as_str()), ("tried.spin", "t@example.org"));
    assert_eq!((&agent.digest, agent.instances, agent.log_index), (&digest, 1, None));
    assert_eq!((&also.digest, also.instances, &also.certificate), (&digest, 1, &agent.certificate));
    assert_eq!(told.hold.unwrap().id, over_http.hold.id);

    assert!(client.list_holds(v1::ListHoldsRequest {}).await.unwrap().into_inner().holds.is_empty());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!in_flight.is_finished(), "it was only asked about");
    let selector = Selector { agent: Some("tried.spin".into()), ..Selector::default() };
    assert_eq!(server.executor.stop(&selector).unwrap(), 1);
    assert_eq!(refusal(&in_flight.await.unwrap().unwrap_err()), (Code::Aborted, "stopped"));
    server.executor.close().await;
    let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    assert!(!audit.contains("\"event_type\":\"hold\""), "{audit}");
}
