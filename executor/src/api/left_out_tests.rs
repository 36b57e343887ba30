//! What a build leaves out is refused by name, over both transports; what it has is named in its status.

use executor_api::Status;
use executor_api::v1::GetStatusRequest;
use executor_api::v1::executor_client::ExecutorClient as GrpcClient;

use super::tests::channel;
use crate::features::{Feature, built};
use crate::testing::Server;

#[tokio::test]
async fn the_status_names_what_was_built() {
    let server = Server::start().await;
    let expected: Vec<&str> = built().collect();
    let url = format!("http://{}/api/v1/status", server.address);
    let status: Status = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(status.features, expected);
    let mut client = GrpcClient::new(channel(&server).await);
    let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.features, expected);
    assert_eq!(expected.contains(&"deployments"), Feature::Deployments.is_built());
}

#[cfg(not(feature = "deployments"))]
#[tokio::test]
async fn deployments_are_refused_by_name() {
    use executor_api::{REASON_METADATA, v1};
    use tonic::Code;

    use super::tests::{post, problem};
    use crate::admission::GrantSet;
    use crate::runtime::CallLimits;
    use crate::testing::wat_echo;

    let server = Server::start().await;
    let digest = server.admit(wat_echo(), GrantSet::default(), CallLimits::default()).await.to_string();
    let body = serde_json::json!({ "agent": "test.agent", "digest": digest, "strategy": "canary" });
    for path in ["", "/test.agent/promote", "/test.agent/rollback"] {
        let (status, answer) = post(&server, &format!("/api/v1/deployments{path}"), &body).await;
        let problem = problem(&answer);
        assert_eq!((status, problem.code.as_str()), (501, "feature_not_built"), "{path}");
        assert!(problem.detail.contains("`deployments`"), "{problem:?}");
    }
    for path in ["", "/test.agent"] {
        let url = format!("http://{}/api/v1/deployments{path}", server.address);
        assert_eq!(reqwest::get(url).await.unwrap().status(), 501, "{path}");
    }
    let mut client = GrpcClient::new(channel(&server).await);
    let agent = || "test.agent".to_owned();
    let strategy = v1::deploy_request::Strategy::Canary.into();
    let deploy = v1::DeployRequest { agent: agent(), digest, strategy, ..Default::default() };
    for refused in [
        client.deploy(deploy).await.unwrap_err(),
        client.promote(v1::PromoteRequest { agent: agent() }).await.unwrap_err(),
        client.rollback(v1::RollbackRequest { agent: agent() }).await.unwrap_err(),
        client.get_deployment(v1::GetDeploymentRequest { agent: agent() }).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
        assert_eq!(refused.metadata().get(REASON_METADATA).unwrap(), "feature_not_built");
    }
    // Nothing else is missing: calls are served by what was loaded last.
    let call = v1::ExecuteAgentRequest { agent: agent(), input: "hi".into(), ..Default::default() };
    assert_eq!(client.execute_agent(call).await.unwrap().into_inner().output, "hi");
}
