//! gRPC: the same operations under `mentat.executor.v1`.

mod arriving;
mod deployments;
mod front;
mod health;
mod holds;
mod reflection;
mod refusal;
mod streaming;

use std::sync::Arc;
use std::time::Duration;

use executor_api::health::health_server::HealthServer;
use executor_api::reflection::server_reflection_server::ServerReflectionServer;
use executor_api::v1::executor_server::{Executor as Service, ExecutorServer};
use executor_api::{AgentSummary, InstanceSummary, v1};
use executor_engine::ModuleDigest;
use service::Peer;
use tonic::{Request, Response, Status, Streaming};

use arriving::{Arriving, Sender, Uploaded};
use front::{Front, Judged, MAX_NAMES};
use refusal::{invalid, refuse};

use super::access::{Access, Role};
use crate::callers::Caller;
use crate::executor::{Executed, Executor, Terms};
use crate::runtime::Selector;
use crate::telemetry::TraceParent;

/// Largest manifest plus attestation of one message, and largest input or output: the HTTP listener's own limits
/// are of the same size. Methods that take names have a limit of their own.
const MAX_MESSAGE: usize = 64 << 20;

/// The service behind the listener. Cheap to clone.
#[derive(Clone)]
pub struct Grpc {
    executor: Arc<Executor>,
    access: Access,
    arriving: Arc<Arriving>,
}

/// The routes for `service::Server::grpc`: the executor's own service, the standard ones for health and reflection.
pub fn routes(executor: Arc<Executor>, access: Access) -> Front {
    let metrics = executor.metrics().clone();
    let grpc = Grpc { executor, access: access.clone(), arriving: Arc::default() };
    let service = ExecutorServer::new(grpc.clone()).max_encoding_message_size(MAX_MESSAGE);
    let names = tonic::service::Routes::new(service.clone().max_decoding_message_size(MAX_NAMES))
        .add_service(HealthServer::new(grpc.clone()).max_decoding_message_size(MAX_NAMES))
        .add_service(ServerReflectionServer::new(grpc).max_decoding_message_size(MAX_NAMES));
    Front::new(access, metrics, names, service.max_decoding_message_size(MAX_MESSAGE))
}

impl Grpc {
    /// Refuses what a web page in a browser of this machine can cause, reads included.
    fn not_from_a_page<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.judge(None, request).map(drop)
    }

    fn allow<T>(&self, role: Role, request: &Request<T>) -> Result<Caller, Status> {
        self.judge(Some(role), request)
    }

    /// What [`front`] found out of the sender. A method that has another role there is judged again, and so is not open for that.
    fn judge<T>(&self, role: Option<Role>, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(judged) = request.extensions().get::<Judged>()
            && judged.role == role
        {
            return Ok(judged.caller.clone());
        }
        let peer = request.extensions().get::<Peer>();
        front::judge(&self.access, role, request.metadata().as_ref(), peer).map_err(|denied| refuse(&denied))
    }
}

#[tonic::async_trait]
impl Service for Grpc {
    async fn load_agent(
        &self,
        request: Request<Streaming<v1::LoadAgentRequest>>,
    ) -> Result<Response<v1::LoadAgentResponse>, Status> {
        let caller = self.allow(Role::Deploy, &request)?;
        let upload = self.arriving.upload(request.into_inner(), Sender::Loader).await?;
        let Uploaded { manifest, attestation, module, _room } = upload;
        let loaded = self.executor.load(&caller, &manifest, attestation.as_deref(), module).await;
        let agent = Some(agent(loaded.map_err(|denied| refuse(&denied))?));
        Ok(Response::new(v1::LoadAgentResponse { agent }))
    }

    async fn explain_agent(
        &self,
        request: Request<Streaming<v1::LoadAgentRequest>>,
    ) -> Result<Response<v1::ExplainAgentResponse>, Status> {
        let caller = self.allow(Role::Read, &request)?;
        let upload = self.arriving.upload(request.into_inner(), Sender::Caller).await?;
        let Uploaded { manifest, attestation, module, _room } = upload;
        let explained = self.executor.explain(&caller, &manifest, attestation.as_deref(), module).await;
        let explanation = explained.map_err(|denied| refuse(&denied))?;
        Ok(Response::new(v1::ExplainAgentResponse {
            admitted: explanation.admitted,
            agent: explanation.agent.map(agent),
            denial: explanation.denial.map(denial),
        }))
    }

    async fn execute_agent(
        &self,
        request: Request<v1::ExecuteAgentRequest>,
    ) -> Result<Response<v1::ExecuteAgentResponse>, Status> {
        let caller = self.allow(Role::Execute, &request)?;
        let trace = trace(&request);
        let call = request.into_inner();
        let terms = Terms { trace, caller, ..terms(&call) };
        let done = self.executor.execute(&call.agent, call.input, terms).await;
        Ok(Response::new(response(done.map_err(|denied| refuse(&denied))?)))
    }

    type ExecuteAgentStreamStream = streaming::Events;

    async fn execute_agent_stream(
        &self,
        request: Request<Streaming<v1::ExecuteAgentStreamRequest>>,
    ) -> Result<Response<Self::ExecuteAgentStreamStream>, Status> {
        let caller = self.allow(Role::Execute, &request)?;
        let terms = Terms { trace: trace(&request), caller, ..Terms::default() };
        streaming::serve(&self.executor, &self.arriving, request.into_inner(), terms).await.map(Response::new)
    }

    type StreamEventsStream = streaming::Events;

    async fn stream_events(
        &self,
        request: Request<v1::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let caller = self.allow(Role::Execute, &request)?;
        let v1::StreamEventsRequest { stream_id, from } = request.into_inner();
        let reading = self.executor.read_on(&caller, &stream_id, from).map_err(|denied| refuse(&denied))?;
        Ok(Response::new(streaming::events(reading)))
    }

    async fn health(
        &self,
        request: Request<v1::HealthRequest>,
    ) -> Result<Response<v1::HealthResponse>, Status> {
        self.not_from_a_page(&request)?;
        let problems = self.executor.problems();
        Ok(Response::new(v1::HealthResponse { ready: problems.is_empty(), problems }))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.allow(Role::Read, &request)?;
        let status = self.executor.status();
        Ok(Response::new(v1::GetStatusResponse {
            version: status.version,
            wasmtime: status.wasmtime,
            features: status.features,
            profile: status.profile,
            confinement: status.confinement,
            unconfined: status.unconfined,
            agents: status.agents,
            live_instances: status.live_instances,
            pool_slots: status.pool_slots,
            evidence_epoch: status.evidence_epoch,
            evidence_age_s: status.evidence_age_s,
            policy: status.policy,
            audit_sequence: status.audit_sequence,
            policy_problem: status.policy_problem,
            draining_since: status.draining_since,
            tiers: status
                .tiers
                .into_iter()
                .map(|tier| v1::Tier {
                    level: tier.level,
                    isolation: tier.isolation,
                    enforced: tier.enforced,
                    missing: tier.missing,
                })
                .collect(),
            sources: status
                .sources
                .into_iter()
                .map(|source| v1::EvidenceSource {
                    name: source.name,
                    url: source.url,
                    ok: source.ok,
                    detail: source.detail,
                    age_s: source.age_s,
                })
                .collect(),
        }))
    }

    async fn is_loaded(
        &self,
        request: Request<v1::IsLoadedRequest>,
    ) -> Result<Response<v1::IsLoadedResponse>, Status> {
        let caller = self.allow(Role::Read, &request)?;
        let found = self.executor.find_for(&caller, &request.get_ref().agent);
        let loaded = found.map_err(|denied| refuse(&denied))?.is_some();
        Ok(Response::new(v1::IsLoadedResponse { loaded }))
    }

    async fn try_policy(
        &self,
        request: Request<v1::TryPolicyRequest>,
    ) -> Result<Response<v1::TryPolicyResponse>, Status> {
        self.allow(Role::Administer, &request)?;
        let report = self.executor.try_policy(&request.get_ref().policy).await;
        let report = report.map_err(|denied| refuse(&denied))?;
        let agents = report.agents.into_iter().map(|verdict| v1::TrialVerdict {
            agent_id: verdict.agent_id,
            digest: verdict.digest,
            now: verdict.now.map(denial),
            then: verdict.then.map(denial),
        });
        let agents = agents.collect();
        Ok(Response::new(v1::TryPolicyResponse { in_force: report.in_force, tried: report.tried, agents }))
    }

    async fn unload_agent(
        &self,
        request: Request<v1::UnloadAgentRequest>,
    ) -> Result<Response<v1::UnloadAgentResponse>, Status> {
        let caller = self.allow(Role::Deploy, &request)?;
        let name = &request.get_ref().agent;
        let unloaded = match self.executor.unload_for(&caller, name).await {
            Ok(_) => true,
            Err(denied) if denied.code == "not_loaded" => false,
            Err(denied) => return Err(refuse(&denied)),
        };
        Ok(Response::new(v1::UnloadAgentResponse { unloaded }))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let caller = self.allow(Role::Read, &request)?;
        let agents = self.executor.list_for(&caller).into_iter().map(agent).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents }))
    }

    async fn stop_instances(
        &self,
        request: Request<v1::StopInstancesRequest>,
    ) -> Result<Response<v1::StopInstancesResponse>, Status> {
        self.allow(Role::Stop, &request)?;
        let stop = request.into_inner();
        let given = |text: String| (!text.is_empty()).then_some(text);
        let digest = match given(stop.digest) {
            None => None,
            Some(text) => {
                Some(ModuleDigest::parse(&text).ok_or_else(|| invalid("`digest` is 64 hexadecimal digits"))?)
            }
        };
        let selector =
            Selector { agent: given(stop.agent), digest, signer: given(stop.signer), ..Selector::default() };
        let stopped = self.executor.stop(&selector).map_err(|denied| refuse(&denied))?;
        Ok(Response::new(v1::StopInstancesResponse { stopped }))
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let caller = self.allow(Role::Read, &request)?;
        let instance = |InstanceSummary { instance_id, agent_id, digest, signer }| v1::Instance {
            instance_id,
            agent_id,
            digest,
            signer,
        };
        let instances = self.executor.instances_for(&caller).into_iter().map(instance).collect();
        Ok(Response::new(v1::ListInstancesResponse { instances }))
    }

    async fn hold_releases(
        &self,
        request: Request<v1::HoldReleasesRequest>,
    ) -> Result<Response<v1::HoldReport>, Status> {
        self.allow(Role::Stop, &request)?;
        let report = self.executor.hold(&holds::request(request.into_inner())?).await;
        Ok(Response::new(holds::report(report.map_err(|denied| refuse(&denied))?)))
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        // For those who give them: the reasons are theirs.
        self.allow(Role::Stop, &request)?;
        let holds = self.executor.holds().into_iter().map(holds::report).collect();
        Ok(Response::new(v1::ListHoldsResponse { holds }))
    }

    async fn release_hold(
        &self,
        request: Request<v1::ReleaseHoldRequest>,
    ) -> Result<Response<v1::Hold>, Status> {
        self.allow(Role::Stop, &request)?;
        let hold = self.executor.release_hold(&request.get_ref().id).await;
        Ok(Response::new(holds::hold(hold.map_err(|denied| refuse(&denied))?)))
    }

    async fn deploy(&self, request: Request<v1::DeployRequest>) -> Result<Response<v1::Deployment>, Status> {
        let caller = self.allow(Role::Deploy, &request)?;
        let order = deployments::request(request.into_inner())?;
        self.executor.allow(&caller, &order.agent).map_err(|denied| refuse(&denied))?;
        let deployed = self.executor.deploy(&order).await;
        Ok(Response::new(deployments::answer(deployed.map_err(|denied| refuse(&denied))?)))
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::Deployment>, Status> {
        let caller = self.allow(Role::Deploy, &request)?;
        let agent = &request.get_ref().agent;
        self.executor.allow(&caller, agent).map_err(|denied| refuse(&denied))?;
        let promoted = self.executor.promote(agent).await;
        Ok(Response::new(deployments::answer(promoted.map_err(|denied| refuse(&denied))?)))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::Deployment>, Status> {
        let caller = self.allow(Role::Deploy, &request)?;
        let agent = &request.get_ref().agent;
        self.executor.allow(&caller, agent).map_err(|denied| refuse(&denied))?;
        let returned = self.executor.rollback(agent).await;
        Ok(Response::new(deployments::answer(returned.map_err(|denied| refuse(&denied))?)))
    }

    async fn get_deployment(
        &self,
        request: Request<v1::GetDeploymentRequest>,
    ) -> Result<Response<v1::Deployment>, Status> {
        let caller = self.allow(Role::Read, &request)?;
        let asked = &request.get_ref().agent;
        let found = self.executor.allow(&caller, asked).and_then(|()| self.executor.deployment(asked));
        Ok(Response::new(deployments::answer(found.map_err(|denied| refuse(&denied))?)))
    }

    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        use v1::get_receipt_request::Which;
        let caller = self.allow(Role::Read, &request)?;
        let found = match request.into_inner().which {
            Some(Which::InstanceId(instance)) => self.executor.receipt_of_instance(&caller, &instance),
            Some(Which::Index(index)) => self.executor.receipt_of_index(&caller, index),
            None => return Err(invalid("name an instance or an index")),
        };
        let proof = found.map_err(|denied| refuse(&denied))?;
        Ok(Response::new(v1::GetReceiptResponse { proof }))
    }
}

#[cfg(test)]
pub(super) fn refused(denied: &crate::admission::Denied) -> Status {
    refuse(denied)
}

fn terms(call: &v1::ExecuteAgentRequest) -> Terms {
    Terms {
        deadline: (call.deadline_ms != 0).then(|| Duration::from_millis(call.deadline_ms)),
        session: (!call.session.is_empty()).then(|| call.session.clone()),
        idempotency_key: (!call.idempotency_key.is_empty()).then(|| call.idempotency_key.clone()),
        receipt: call.receipt,
        resumable: call.resumable,
        ..Terms::default()
    }
}

/// The trace that the caller names.
fn trace<T>(request: &Request<T>) -> Option<TraceParent> {
    TraceParent::parse(request.metadata().get("traceparent")?.to_str().ok()?)
}

fn response(mut done: Executed) -> v1::ExecuteAgentResponse {
    let receipt = done.receipt.take().unwrap_or_default();
    let done = super::executed(done);
    v1::ExecuteAgentResponse {
        output: done.output.0.into(),
        exit_code: done.exit_code,
        usage: Some(v1::Usage {
            wall_us: done.usage.wall_us,
            memory_bytes: done.usage.memory_bytes,
            epoch_ticks: done.usage.epoch_ticks,
            fuel: done.usage.fuel,
            dropped_log_lines: done.usage.dropped_log_lines,
            refused_growths: done.usage.refused_growths,
        }),
        instance_id: done.instance_id,
        log: done.log.into_iter().map(line).collect(),
        metrics: done.metrics.into_iter().map(|m| v1::Metric { name: m.name, value: m.value }).collect(),
        digest: done.digest,
        repeated: done.repeated,
        receipt,
    }
}

fn line(executor_api::LogLine { level, text }: executor_api::LogLine) -> v1::LogLine {
    v1::LogLine { level, text }
}

fn agent(summary: AgentSummary) -> v1::Agent {
    v1::Agent {
        agent_id: summary.agent_id,
        version: summary.version,
        digest: summary.digest,
        signer: summary.signer,
        issuer: summary.issuer,
        trust_level: summary.trust_level,
        requested: summary.requested,
        granted: summary.granted,
        log_index: summary.log_index,
        policy: summary.policy,
        kind: summary.kind,
    }
}

fn denial(denied: executor_api::Denied) -> v1::Denial {
    v1::Denial { step: denied.step.into(), reason: denied.reason, message: denied.message }
}
