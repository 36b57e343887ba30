//! What runs, and what operators hold, over gRPC as over HTTP.

use std::time::Duration;

use executor_api::hold::{Calls, HoldReport, HoldRequest, Releases};
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{REASON_METADATA, v1};
use tonic::{Code, Status};

use super::tests::{channel, post};
use crate::admission::GrantSet;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, wat_echo, wat_spin};

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
            releases: releases.clone(),
            calls: Calls::Drain,
            drain_seconds: Some(9),
            reason: "r".into(),
            dry_run: true,
        };
        let (status, text) = post(&server, "/api/v1/holds", &over_http).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&text));
        let http: HoldReport = serde_json::from_slice(&text).unwrap();
        let Releases { agent, certificate, digest, from_log_index, issuer, log_index, serial, signer } =
            releases;
        let over_grpc = v1::HoldReleasesRequest {
            releases: Some(v1::Releases {
                agent,
                certificate,
                digest,
                from_log_index,
                issuer,
                log_index,
                serial,
                signer,
            }),
            calls: v1::Calls::Drain.into(),
            drain_seconds: Some(9),
            reason: "r".into(),
            dry_run: true,
        };
        let grpc = client.hold_releases(over_grpc).await.unwrap().into_inner();
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
