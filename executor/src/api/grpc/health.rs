//! The standard health service.

use std::pin::Pin;
use std::time::Duration;

use executor_api::health::health_check_response::ServingStatus;
use executor_api::health::health_server::Health;
use executor_api::health::{HealthCheckRequest, HealthCheckResponse};
use executor_api::v1::executor_server::SERVICE_NAME;
use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::{Request, Response, Status};

use super::Grpc;

/// Time between two looks of a watcher.
const LOOK: Duration = Duration::from_secs(1);

impl Grpc {
    fn serving(&self) -> ServingStatus {
        if self.executor.problems().is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

fn known(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Grpc {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.not_from_a_page(&request)?;
        if !known(&request.get_ref().service) {
            return Err(Status::not_found("this server has no such service"));
        }
        Ok(Response::new(answer(self.serving())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.not_from_a_page(&request)?;
        let known = known(&request.get_ref().service);
        let changes = unfold((self.clone(), None), move |(grpc, before)| async move {
            loop {
                // A watcher of what does not exist is told so and may wait for it, says the protocol.
                let now = if known { grpc.serving() } else { ServingStatus::ServiceUnknown };
                if before != Some(now) {
                    return Some((Ok(answer(now)), (grpc, Some(now))));
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
