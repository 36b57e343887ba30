//! Deploying and stopping are roles of their own, over both transports: each does what it is for, and nothing else that changes
//! something.

use std::time::Duration;

use executor_api::v1::load_agent_request::Part as Sent;
use executor_api::{Base64Bytes, Upload, v1};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::caller_tests::{grpc, http, refusal};
use crate::admission::GrantSet;
use crate::config::CallerRole;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, attestation, wat_echo};

/// Which part of the API a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Administer,
    Deploy,
    Execute,
    Read,
    Stop,
}

const AGENT: &str = "billing.invoice";

async fn server() -> Server {
    let server = Server::with_callers(&[
        ("auditor", CallerRole::Read, &[]),
        ("gateway", CallerRole::Execute, &[]),
        ("guard", CallerRole::Stop, &[]),
        ("pipeline", CallerRole::Deploy, &[]),
        ("team", CallerRole::Deploy, &["mail.*"]),
    ])
    .await;
    let agent = admitted(wat_echo(), GrantSet::default(), CallLimits::default());
    server.executor.admit_for_test(agent.called(AGENT, "dev@example.org")).await;
    server.executor.judge_well_for_test();
    server
}

/// What each caller may do, beside what everybody may.
const CALLERS: [(&str, &[Part]); 6] = [
    ("auditor", &[Part::Read]),
    ("gateway", &[Part::Read, Part::Execute]),
    ("guard", &[Part::Read, Part::Stop]),
    ("pipeline", &[Part::Read, Part::Deploy]),
    ("nobody", &[]),
    ("administrator", &[Part::Administer, Part::Deploy, Part::Execute, Part::Read, Part::Stop]),
];

#[tokio::test]
async fn each_role_changes_what_it_is_for_over_http() {
    let server = server().await;
    let hold = json!({ "releases": { "agent": "no.such" }, "calls": "stop", "dry_run": true });
    let requests: [(Part, &str, Option<&Value>); 14] = [
        (Part::Read, "GET /api/v1/agents", None),
        (Part::Execute, "POST /api/v1/agents/billing.invoice/execute", None),
        (Part::Deploy, "POST /api/v1/agents", None),
        (Part::Deploy, "DELETE /api/v1/agents/no.such", None),
        (Part::Deploy, "POST /api/v1/deployments", None),
        (Part::Deploy, "POST /api/v1/deployments/no.such/promote", None),
        (Part::Deploy, "POST /api/v1/deployments/no.such/rollback", None),
        (Part::Stop, "POST /api/v1/instances/stop", None),
        (Part::Stop, "POST /api/v1/holds", Some(&hold)),
        (Part::Stop, "GET /api/v1/holds", None),
        (Part::Stop, "DELETE /api/v1/holds/none", None),
        (Part::Administer, "POST /api/v1/policy/trial", None),
        (Part::Administer, "POST /api/v1/undrain", None),
        (Part::Administer, "POST /api/v1/evidence/refresh", None),
    ];
    for (who, parts) in CALLERS {
        for (part, request, body) in requests {
            if request.contains("/deployments") && cfg!(not(feature = "deployments")) {
                continue; // nobody has them
            }
            let (status, code, _) = http(&server, who, request, body).await;
            if parts.contains(&part) {
                // What is wrong with it besides is said to those who may.
                assert!(![401, 403].contains(&status), "{who}: {request}: {status} {code}");
            } else {
                let expected =
                    if parts.is_empty() { (401, "unauthorized") } else { (403, "role_not_allowed") };
                assert_eq!((status, code.as_str()), expected, "{who}: {request}");
            }
        }
    }
}

#[tokio::test]
async fn each_role_changes_what_it_is_for_over_grpc() {
    let server = server().await;
    let none = || "no.such".to_owned();
    for (who, parts) in CALLERS {
        let mut client = grpc(&server, who).await;
        let call = v1::ExecuteAgentRequest { agent: AGENT.into(), ..Default::default() };
        let load = futures_util::stream::iter([v1::LoadAgentRequest { part: None }]);
        let answers = [
            (Part::Read, refusal(client.list_instances(v1::ListInstancesRequest {}).await)),
            (Part::Execute, refusal(client.execute_agent(call).await)),
            (Part::Deploy, refusal(client.load_agent(load).await)),
            (Part::Deploy, refusal(client.unload_agent(v1::UnloadAgentRequest { agent: none() }).await)),
            (Part::Deploy, refusal(client.deploy(v1::DeployRequest::default()).await)),
            (Part::Deploy, refusal(client.promote(v1::PromoteRequest { agent: none() }).await)),
            (Part::Deploy, refusal(client.rollback(v1::RollbackRequest { agent: none() }).await)),
            (Part::Stop, refusal(client.stop_instances(v1::StopInstancesRequest::default()).await)),
            (Part::Stop, refusal(client.hold_releases(v1::HoldReleasesRequest::default()).await)),
            (Part::Stop, refusal(client.list_holds(v1::ListHoldsRequest {}).await)),
            (Part::Stop, refusal(client.release_hold(v1::ReleaseHoldRequest { id: none() }).await)),
            (Part::Administer, refusal(client.try_policy(v1::TryPolicyRequest::default()).await)),
        ];
        for (part, (code, reason)) in answers {
            let judged = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            if parts.contains(&part) {
                assert!(!judged, "{who}: {part:?}: {code:?} {reason}");
            } else {
                let expected = if parts.is_empty() {
                    (Code::Unauthenticated, "unauthorized")
                } else {
                    (Code::PermissionDenied, "role_not_allowed")
                };
                assert_eq!((code, reason.as_str()), expected, "{who}: {part:?}");
            }
        }
    }
}

/// What is answered to the head of a request whose body does not come.
async fn answer_to_head(server: &Server, request: &str, who: &str) -> String {
    let head = format!(
        "{request} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        server.address,
        Server::token_of(who),
        1 << 20,
    );
    let mut connection = tokio::net::TcpStream::connect(server.address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") && connection.read_buf(&mut answer).await.unwrap() > 0 {}
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_role_is_judged_before_a_body_is_waited_for() {
    let server = server().await;
    for (request, other) in [
        ("POST /api/v1/agents", Some("auditor")),
        ("POST /api/v1/explain", None),
        ("POST /api/v1/agents/billing.invoice/execute", Some("guard")),
        ("POST /api/v1/agents/billing.invoice/stream", Some("guard")),
        ("POST /api/v1/deployments", Some("gateway")),
        ("POST /api/v1/holds", Some("gateway")),
        ("POST /api/v1/instances/stop", Some("pipeline")),
        ("POST /api/v1/policy/trial", Some("pipeline")),
    ] {
        if request.ends_with("/deployments") && cfg!(not(feature = "deployments")) {
            continue; // nobody has them
        }
        let unknown = ("nobody", 401, "unauthorized");
        let others = other.map(|who| (who, 403, "role_not_allowed"));
        for (who, status, code) in [unknown].into_iter().chain(others) {
            // Well before a body that does not come is given up.
            let answered =
                tokio::time::timeout(Duration::from_secs(5), answer_to_head(&server, request, who)).await;
            let answer = answered.unwrap_or_else(|_| panic!("{who}: {request}: the body is waited for"));
            let expected = (format!("HTTP/1.1 {status} "), format!("\"code\":\"{code}\""));
            assert!(answer.starts_with(&expected.0) && answer.contains(&expected.1), "{request}: {answer}");
        }
    }
    // Of those who may, it is waited for.
    let waits = answer_to_head(&server, "POST /api/v1/holds", "guard");
    assert!(tokio::time::timeout(Duration::from_millis(300), waits).await.is_err());
}

/// A release that nobody vouches for, as it is sent.
fn upload(agent: &str) -> Value {
    let manifest = format!(
        "id: {agent}\nversion: 1.0.0\nruntime: wasm\nmodule: m.wasm\nattestation:\n  version: 2\n  bundle: m.json\n"
    );
    let bundle = String::from_utf8(attestation().bundle().to_json().unwrap()).unwrap();
    let module = Base64Bytes(wat::parse_str("(module)").unwrap());
    serde_json::to_value(Upload { manifest, attestation: Some(bundle), module }).unwrap()
}

#[tokio::test]
async fn who_deploys_some_agents_deploys_no_others() {
    let server = server().await;
    let digest = server.executor.find(AGENT).unwrap().digest;
    let deploy = |agent: &str| json!({ "agent": agent, "digest": digest, "strategy": "blue_green" });
    for (own, other) in [
        (("POST /api/v1/agents", Some(upload("mail.send"))), ("POST /api/v1/agents", Some(upload(AGENT)))),
        (
            ("POST /api/v1/deployments", Some(deploy("mail.send"))),
            ("POST /api/v1/deployments", Some(deploy(AGENT))),
        ),
        (
            ("POST /api/v1/deployments/mail.send/promote", None),
            ("POST /api/v1/deployments/billing.invoice/promote", None),
        ),
        (
            ("POST /api/v1/deployments/mail.send/rollback", None),
            ("POST /api/v1/deployments/billing.invoice/rollback", None),
        ),
        (("DELETE /api/v1/agents/mail.send", None), ("DELETE /api/v1/agents/billing.invoice", None)),
    ] {
        if own.0.contains("/deployments") && cfg!(not(feature = "deployments")) {
            continue; // nobody has them
        }
        let (_, code, _) = http(&server, "team", other.0, other.1.as_ref()).await;
        assert_eq!(code, "agent_not_allowed", "{}", other.0);
        let (status, code, _) = http(&server, "team", own.0, own.1.as_ref()).await;
        assert!(status >= 400 && code != "agent_not_allowed", "{}: {status} {code}", own.0);
    }
    // A digest stands for the agent that runs it, or for none.
    for name in [digest.as_str(), &"0".repeat(64)] {
        let (_, code, _) = http(&server, "team", &format!("DELETE /api/v1/agents/{name}"), None).await;
        assert_eq!(code, "agent_not_allowed", "{name}");
    }
    let mut client = grpc(&server, "team").await;
    let agent = || AGENT.to_owned();
    let strategy = v1::deploy_request::Strategy::BlueGreen.into();
    let deploy = v1::DeployRequest { agent: agent(), strategy, ..Default::default() };
    for (code, reason) in [
        refusal(client.deploy(deploy).await),
        refusal(client.promote(v1::PromoteRequest { agent: agent() }).await),
        refusal(client.rollback(v1::RollbackRequest { agent: agent() }).await),
        refusal(client.unload_agent(v1::UnloadAgentRequest { agent: agent() }).await),
    ] {
        assert_eq!((code, reason.as_str()), (Code::PermissionDenied, "agent_not_allowed"));
    }
    assert!(server.executor.find(AGENT).is_some(), "and nothing was changed");
}

#[tokio::test]
async fn who_has_some_agents_gets_no_verdict_on_others() {
    let server = server().await;
    for (agent, refused) in [("mail.send", None), (AGENT, Some("agent_not_allowed"))] {
        let upload = upload(agent);
        let (status, code, verdict) = http(&server, "team", "POST /api/v1/explain", Some(&upload)).await;
        let expected = if refused.is_some() { 403 } else { 200 };
        assert_eq!((status, code.as_str()), (expected, refused.unwrap_or_default()), "{agent}: {verdict}");
        assert_eq!(verdict["admitted"].is_boolean(), refused.is_none(), "{agent}: {verdict}");

        let Upload { manifest, attestation, module } = serde_json::from_value(upload).unwrap();
        let attestation = attestation.unwrap_or_default().into();
        let header =
            v1::AgentHeader { manifest: manifest.into(), attestation, module_length: module.0.len() as u64 };
        let parts = [Sent::Header(header), Sent::ModuleChunk(module.0.into())];
        let parts = futures_util::stream::iter(parts.map(|part| v1::LoadAgentRequest { part: Some(part) }));
        let explained = grpc(&server, "team").await.explain_agent(parts).await;
        let expected = if refused.is_some() { Code::PermissionDenied } else { Code::Ok };
        assert_eq!(refusal(explained), (expected, refused.unwrap_or_default().to_owned()), "{agent}");
    }
}
