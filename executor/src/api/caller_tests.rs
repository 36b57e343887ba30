//! Who may do what, over both transports: administrators, callers of each role, and whoever nobody knows.

use std::time::Duration;

use executor_api::v1::executor_client::ExecutorClient as GrpcClient;
use executor_api::{REASON_METADATA, v1};
use serde_json::{Value, json};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::tests::channel;
use crate::admission::GrantSet;
use crate::config::CallerRole;
use crate::executor::Terms;
use crate::runtime::CallLimits;
use crate::testing::{Server, admitted, wat_echo};

/// Another module than the one of [`wat_echo`], so that a digest names one agent.
const OTHER: &str =
    r#"(module (memory (export "memory") 1) (func (export "process") (result i32) (i32.const 0)))"#;

/// Two agents, `billing.invoice` and `mail.send`; the digest of the second one.
async fn server() -> (Server, String) {
    let server = Server::with_callers(&[
        ("billing", CallerRole::Execute, &["billing.*"]),
        ("gateway", CallerRole::Execute, &[]),
        ("auditor", CallerRole::Read, &[]),
    ])
    .await;
    let named = |text: &str, name: &str| {
        admitted(text, GrantSet::default(), CallLimits::default()).called(name, "dev@example.org")
    };
    server.executor.admit_for_test(named(wat_echo(), "billing.invoice")).await;
    let digest = server.executor.admit_for_test(named(OTHER, "mail.send")).await;
    (server, digest.to_string())
}

/// Status, code and document of an answer.
pub(super) async fn http(
    server: &Server,
    who: &str,
    request: &str,
    body: Option<&Value>,
) -> (u16, String, Value) {
    let (method, path) = request.split_once(' ').unwrap();
    let client = reqwest::Client::new();
    let url = format!("http://{}{path}", server.address);
    let mut request = client.request(method.parse().unwrap(), url);
    if !who.is_empty() {
        request = request.bearer_auth(Server::token_of(who));
    }
    if method == "POST" {
        request = request.json(body.unwrap_or(&json!({})));
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let document: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    (status, document["code"].as_str().unwrap_or_default().to_owned(), document)
}

#[derive(Clone)]
pub(super) struct Token(String);

impl tonic::service::Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            let token = format!("Bearer {}", Server::token_of(&self.0));
            request.metadata_mut().insert("authorization", token.parse().unwrap());
        }
        Ok(request)
    }
}

pub(super) async fn grpc(server: &Server, who: &str) -> GrpcClient<InterceptedService<Channel, Token>> {
    GrpcClient::with_interceptor(channel(server).await, Token(who.to_owned()))
}

pub(super) fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => {
            let reason = status.metadata().get(REASON_METADATA).map(|reason| reason.to_str().unwrap());
            (status.code(), reason.unwrap_or_default().to_owned())
        }
    }
}

const READS: [&str; 6] = [
    "GET /api/v1/agents",
    "GET /api/v1/agents/billing.invoice",
    "GET /api/v1/instances",
    "GET /api/v1/status",
    "GET /api/v1/receipts",
    "POST /api/v1/explain",
];

#[tokio::test]
async fn each_role_does_what_it_includes_over_http() {
    let (server, _) = server().await;
    let upload = json!({ "manifest": "id: 1", "module": "" });
    let calls = ["POST /api/v1/agents/billing.invoice/execute", "POST /api/v1/agents/billing.invoice/stream"];
    let changes = [
        "POST /api/v1/agents",
        "DELETE /api/v1/agents/nobody",
        "POST /api/v1/drain",
        "POST /api/v1/undrain",
        "POST /api/v1/evidence/refresh",
        "GET /api/v1/holds",
        "POST /api/v1/holds",
        "DELETE /api/v1/holds/none",
        "POST /api/v1/instances/stop",
        "POST /api/v1/policy/trial",
    ];
    for (who, may) in
        // The administrator last: evidence that is fetched anew ends what came in by the tests' own door.
        [("gateway", 2), ("billing", 2), ("auditor", 1), ("nobody", 0), ("", 0), ("administrator", 3)]
    {
        for (level, requests) in [(1, &READS[..]), (2, &calls[..]), (3, &changes[..])] {
            for request in requests {
                let body = (*request == "POST /api/v1/explain").then_some(&upload);
                let (status, code, _) = http(&server, who, request, body).await;
                match (may, level <= may) {
                    (_, true) if level < 3 => assert_eq!(status, 200, "{who}: {request}"),
                    // What is wrong with it besides is said to those who may.
                    (_, true) => assert!(![401, 403].contains(&status), "{who}: {request}: {status}"),
                    (0, false) => {
                        assert_eq!((status, code.as_str()), (401, "unauthorized"), "{who}: {request}")
                    }
                    (_, false) => {
                        assert_eq!((status, code.as_str()), (403, "role_not_allowed"), "{who}: {request}");
                    }
                }
            }
        }
        // How it is, and the page that asks for what it shows.
        for open in ["GET /", "GET /page/page.js", "GET /healthz", "GET /readyz"] {
            assert_ne!(http(&server, who, open, None).await.0, 401, "{who}: {open}");
        }
    }
    let metrics = server.exposition();
    for reason in ["role_not_allowed", "unauthorized"] {
        let counted = format!("mentatlab_callers_refused_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&counted), "{metrics}");
    }
}

#[tokio::test]
async fn each_role_does_what_it_includes_over_grpc() {
    let (server, _) = server().await;
    for (who, may) in [("administrator", 3), ("gateway", 2), ("auditor", 1), ("nobody", 0), ("", 0)] {
        let mut client = grpc(&server, who).await;
        let agent = || "billing.invoice".to_owned();
        let reads = [
            refusal(client.list_agents(v1::ListAgentsRequest {}).await),
            refusal(client.get_status(v1::GetStatusRequest {}).await),
            refusal(client.is_loaded(v1::IsLoadedRequest { agent: agent() }).await),
        ];
        let call = v1::ExecuteAgentRequest { agent: agent(), ..Default::default() };
        let part = v1::execute_agent_stream_request::Part::Call(call.clone());
        let parts = [v1::ExecuteAgentStreamRequest { part: Some(part) }];
        let calls = [
            refusal(client.execute_agent(call).await),
            refusal(client.execute_agent_stream(futures_util::stream::iter(parts)).await),
        ];
        let changes = [refusal(client.unload_agent(v1::UnloadAgentRequest::default()).await)];
        for (level, answers) in [(1, &reads[..]), (2, &calls[..]), (3, &changes[..])] {
            for answer in answers {
                let expected = match (may, level <= may) {
                    (_, true) => (Code::Ok, ""),
                    (0, false) => (Code::Unauthenticated, "unauthorized"),
                    (_, false) => (Code::PermissionDenied, "role_not_allowed"),
                };
                assert_eq!((answer.0, answer.1.as_str()), expected, "{who}: level {level}");
            }
        }
        assert_eq!(refusal(client.health(v1::HealthRequest {}).await).0, Code::Ok, "{who}");
    }
}

#[tokio::test]
async fn a_caller_has_the_agents_that_are_named_for_it_and_no_others() {
    let (server, digest) = server().await;
    let not_allowed = (403, "agent_not_allowed".to_owned());
    // Whether it is there or not, and by whichever name.
    for name in ["mail.send", "nobody.there", &digest] {
        for what in ["execute", "stream"] {
            let request = format!("POST /api/v1/agents/{name}/{what}");
            let (status, code, _) = http(&server, "billing", &request, None).await;
            assert_eq!((status, code), not_allowed, "{request}");
        }
        let (status, code, _) = http(&server, "billing", &format!("GET /api/v1/agents/{name}"), None).await;
        assert_eq!((status, code), not_allowed, "{name}");
        let mut client = grpc(&server, "billing").await;
        let call = v1::ExecuteAgentRequest { agent: name.to_owned(), ..Default::default() };
        let part = v1::execute_agent_stream_request::Part::Call(call.clone());
        let parts = [v1::ExecuteAgentStreamRequest { part: Some(part) }];
        let loaded = v1::IsLoadedRequest { agent: name.to_owned() };
        for refused in [
            refusal(client.execute_agent(call).await),
            refusal(client.execute_agent_stream(futures_util::stream::iter(parts)).await),
            refusal(client.is_loaded(loaded).await),
        ] {
            assert_eq!(refused, (Code::PermissionDenied, "agent_not_allowed".to_owned()), "{name}");
        }
    }
    let listed = |document: &Value| {
        let ids = document.as_array().unwrap().iter();
        ids.map(|agent| agent["agent_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (_, _, own) = http(&server, "billing", "GET /api/v1/agents", None).await;
    assert_eq!(listed(&own), ["billing.invoice"]);
    let (_, _, all) = http(&server, "auditor", "GET /api/v1/agents", None).await;
    assert_eq!(listed(&all), ["billing.invoice", "mail.send"]);
    let mut client = grpc(&server, "billing").await;
    let agents = client.list_agents(v1::ListAgentsRequest {}).await.unwrap().into_inner().agents;
    assert_eq!(agents.len(), 1);
    let metrics = server.exposition();
    assert!(metrics.contains("mentatlab_callers_refused_total{reason=\"agent_not_allowed\"}"), "{metrics}");
}

#[tokio::test]
async fn the_audit_log_says_who_called() {
    let (server, _) = server().await;
    for who in ["administrator", "gateway", "billing"] {
        let (status, ..) = http(&server, who, "POST /api/v1/agents/billing.invoice/execute", None).await;
        assert_eq!(status, 200, "{who}");
    }
    server.executor.execute("mail.send", bytes::Bytes::new(), Terms::default()).await.unwrap();
    server.executor.close().await;
    let audit = std::fs::read_to_string(server.state().join("audit.jsonl")).unwrap();
    let records = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let calls = records.filter(|record| record["event_type"] == "agent_execution");
    let callers: Vec<Value> = calls.map(|record| record["execution"]["caller"].clone()).collect();
    assert_eq!(
        callers,
        [json!("administrator:token"), json!("caller:gateway"), json!("caller:billing"), Value::Null]
    );
}

#[tokio::test]
async fn a_caller_sees_the_receipts_of_its_agents_and_no_others() {
    let (server, _) = server().await;
    let mut instances = Vec::new();
    for agent in ["billing.invoice", "mail.send"] {
        let done = server.executor.execute(agent, bytes::Bytes::new(), Terms::default()).await.unwrap();
        instances.push(done.outcome.instance.to_string());
    }
    for instance in &instances {
        while server.executor.receipts().of_instance(instance).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let [own, other] = &instances[..] else { panic!("{instances:?}") };
    for (who, instance, status) in
        [("billing", own, 200), ("billing", other, 403), ("auditor", other, 200), ("nobody", own, 401)]
    {
        let request = format!("GET /api/v1/receipts?instance={instance}");
        assert_eq!(http(&server, who, &request, None).await.0, status, "{who}");
        let which = Some(v1::get_receipt_request::Which::InstanceId(instance.clone()));
        let answer = grpc(&server, who).await.get_receipt(v1::GetReceiptRequest { which }).await;
        let expected = match status {
            200 => Code::Ok,
            403 => Code::PermissionDenied,
            _ => Code::Unauthenticated,
        };
        assert_eq!(refusal(answer).0, expected, "{who}");
    }
    // By index, and the log as a whole, which has everybody's.
    let mut by_index = Vec::new();
    for index in 0..2 {
        by_index.push(http(&server, "billing", &format!("GET /api/v1/receipts/{index}"), None).await.0);
    }
    by_index.sort_unstable();
    assert_eq!(by_index, [200, 403]);
    for path in ["checkpoint", "tile/entries/000.p/1"] {
        let request = format!("GET /receipts/{path}");
        assert_eq!(http(&server, "billing", &request, None).await.1, "agent_not_allowed", "{path}");
        assert_eq!(http(&server, "auditor", &request, None).await.0, 200, "{path}");
        assert_eq!(http(&server, "", &request, None).await.0, 401, "{path}");
    }
}

#[cfg(feature = "deployments")]
#[tokio::test]
async fn a_caller_sees_the_routes_of_its_agents_and_no_others() {
    let (server, digest) = server().await;
    let body = json!({ "agent": "mail.send", "digest": digest, "strategy": "blue_green" });
    assert_eq!(http(&server, "auditor", "POST /api/v1/deployments", Some(&body)).await.0, 403);
    assert_eq!(http(&server, "administrator", "POST /api/v1/deployments", Some(&body)).await.0, 202);
    let (_, _, own) = http(&server, "billing", "GET /api/v1/deployments", None).await;
    let (_, _, all) = http(&server, "auditor", "GET /api/v1/deployments", None).await;
    assert_eq!((own.as_array().unwrap().len(), all.as_array().unwrap().len()), (0, 1));
    let (_, code, _) = http(&server, "billing", "GET /api/v1/deployments/mail.send", None).await;
    assert_eq!(code, "agent_not_allowed");
    let asked = || v1::GetDeploymentRequest { agent: "mail.send".into() };
    let refused = refusal(grpc(&server, "billing").await.get_deployment(asked()).await);
    assert_eq!(refused, (Code::PermissionDenied, "agent_not_allowed".to_owned()));
    assert_eq!(refusal(grpc(&server, "auditor").await.get_deployment(asked()).await).0, Code::Ok);
}
