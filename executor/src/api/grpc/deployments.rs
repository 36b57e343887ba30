//! Deployments over gRPC.

use executor_api::deployment::{Deploy, Deployment, Strategy};
use executor_api::v1;
use tonic::Status;

use super::invalid;

pub(super) fn request(request: v1::DeployRequest) -> Result<Deploy, Status> {
    use v1::deploy_request::Strategy as Wire;
    let strategy = match request.strategy() {
        Wire::BlueGreen => Strategy::BlueGreen,
        Wire::Canary => Strategy::Canary,
        Wire::Rolling => Strategy::Rolling,
        Wire::Unspecified => return Err(invalid("`strategy` is BLUE_GREEN, CANARY or ROLLING")),
    };
    let percent = |value: u32| u8::try_from(value).map_err(|_| invalid("a share is at most 100 percent"));
    Ok(Deploy {
        agent: request.agent,
        digest: request.digest,
        strategy,
        steps: request.steps.into_iter().map(percent).collect::<Result<_, _>>()?,
        step_ms: request.step_ms,
        min_calls: request.min_calls,
        max_error_percent: request.max_error_percent.map(percent).transpose()?,
    })
}

pub(super) fn answer(deployment: Deployment) -> v1::Deployment {
    let candidate = deployment.candidate;
    let (percent, calls, failed) = candidate.as_ref().map_or((0, 0, 0), |c| (c.percent, c.calls, c.failed));
    v1::Deployment {
        agent: deployment.agent,
        stable: deployment.stable,
        candidate: candidate.map(|candidate| candidate.digest).unwrap_or_default(),
        percent: percent.into(),
        calls,
        failed,
        history: deployment.history,
        last: deployment.last,
    }
}
