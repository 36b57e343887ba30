//! gRPC: the same operations under `mentat.executor.v1`.

mod deployments;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use executor_api::v1::executor_server::{Executor as Service, ExecutorServer};
use executor_api::{AgentSummary, MODULE_CHUNK_BYTES, REASON_METADATA, STEP_METADATA, v1};
use executor_engine::ModuleDigest;
use executor_engine::limits::MAX_MODULE_BYTES;
use http::HeaderMap;
use service::Peer;
use tonic::{Code, Request, Response, Status, Streaming};

use super::access::{Access, Role};
use crate::admission::Denied;
use crate::executor::{Executor, Terms};
use crate::runtime::Selector;

/// Largest manifest plus attestation of one message, and largest input or output: the HTTP listener's own limits
/// are of the same size.
const MAX_MESSAGE: usize = 64 << 20;

/// The service behind the listener.
pub struct Grpc {
    executor: Arc<Executor>,
    access: Access,
}

/// The routes for `service::Server::grpc`.
pub fn routes(executor: Arc<Executor>, access: Access) -> tonic::service::Routes {
    let service = ExecutorServer::new(Grpc { executor, access })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    tonic::service::Routes::new(service)
}

impl Grpc {
    /// Refuses what a web page in a browser of this machine can cause, reads included.
    fn not_from_a_page<T>(&self, request: &Request<T>) -> Result<(), Status> {
        // Browsers speak HTTP/1 without TLS and always name a host and an origin there; gRPC clients speak HTTP/2, where
        // the host is no header.
        let text = |name: &str| request.metadata().get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text("host").map(str::parse::<http::uri::Authority>);
        let page = text("origin").is_some() || host.as_ref().is_some_and(Result::is_err);
        let (no_body, none) = (http::Method::GET, HeaderMap::new());
        let named = host.and_then(Result::ok);
        if page || self.access.not_from_a_page(&no_body, named.as_ref(), &none).is_err() {
            return Err(Status::permission_denied("a web page asks for this"));
        }
        Ok(())
    }

    fn allow<T>(&self, role: Role, request: &Request<T>) -> Result<(), Status> {
        self.not_from_a_page(request)?;
        let refused = || Status::unauthenticated("an administrator's token or client certificate is needed");
        let peer = request.extensions().get::<Peer>().ok_or_else(refused)?;
        let mut headers = HeaderMap::new();
        if let Some(value) = request
            .metadata()
            .get("authorization")
            .and_then(|value| http::HeaderValue::from_bytes(value.as_encoded_bytes()).ok())
        {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        self.access.check(role, &headers, peer).map_err(|_| refused())
    }

    async fn receive(
        &self,
        mut stream: Streaming<v1::LoadAgentRequest>,
    ) -> Result<(String, Option<String>, Bytes), Status> {
        use v1::load_agent_request::Part;
        let Some(v1::LoadAgentRequest { part: Some(Part::Header(header)) }) = stream.message().await? else {
            return Err(invalid("the first message is the header"));
        };
        if header.module_length > MAX_MODULE_BYTES as u64 {
            return Err(refuse(&Denied::in_step(
                1,
                "too_large",
                format!("a module has at most {MAX_MODULE_BYTES} bytes"),
            )));
        }
        let text = |bytes: Bytes| {
            String::from_utf8(bytes.into()).map_err(|_| invalid("manifest and attestation are UTF-8"))
        };
        let manifest = text(header.manifest)?;
        let attestation = if header.attestation.is_empty() { None } else { Some(text(header.attestation)?) };
        let expected = usize::try_from(header.module_length).unwrap_or(usize::MAX);
        // Grown as bytes arrive: a promised length reserves nothing.
        let mut module = BytesMut::new();
        while let Some(message) = stream.message().await? {
            let Some(Part::ModuleChunk(chunk)) = message.part else {
                return Err(invalid("after the header come pieces of the module"));
            };
            if chunk.len() > MODULE_CHUNK_BYTES || module.len() + chunk.len() > expected {
                return Err(invalid("a piece is larger than 1 MiB, or there are more bytes than announced"));
            }
            module.extend_from_slice(&chunk);
        }
        if module.len() != expected {
            return Err(invalid("there are fewer bytes than announced"));
        }
        Ok((manifest, attestation, module.freeze()))
    }
}

#[tonic::async_trait]
impl Service for Grpc {
    async fn load_agent(
        &self,
        request: Request<Streaming<v1::LoadAgentRequest>>,
    ) -> Result<Response<v1::LoadAgentResponse>, Status> {
        self.allow(Role::Administer, &request)?;
        let (manifest, attestation, module) = self.receive(request.into_inner()).await?;
        let loaded = self.executor.load(&manifest, attestation.as_deref(), module).await;
        let agent = Some(agent(loaded.map_err(|denied| refuse(&denied))?));
        Ok(Response::new(v1::LoadAgentResponse { agent }))
    }

    async fn explain_agent(
        &self,
        request: Request<Streaming<v1::LoadAgentRequest>>,
    ) -> Result<Response<v1::ExplainAgentResponse>, Status> {
        self.allow(Role::Execute, &request)?;
        let (manifest, attestation, module) = self.receive(request.into_inner()).await?;
        let explanation = self.executor.explain(&manifest, attestation.as_deref(), module).await;
        Ok(Response::new(v1::ExplainAgentResponse {
            admitted: explanation.admitted,
            agent: explanation.agent.map(agent),
            denial: explanation.denial.map(|denial| v1::Denial {
                step: denial.step.into(),
                reason: denial.reason,
                message: denial.message,
            }),
        }))
    }

    async fn execute_agent(
        &self,
        request: Request<v1::ExecuteAgentRequest>,
    ) -> Result<Response<v1::ExecuteAgentResponse>, Status> {
        self.allow(Role::Execute, &request)?;
        let call = request.into_inner();
        let deadline = (call.deadline_ms != 0).then(|| Duration::from_millis(call.deadline_ms));
        let session = (!call.session.is_empty()).then_some(call.session);
        let done = self.executor.execute(&call.agent, call.input, Terms { deadline, session }).await;
        let done = super::executed(done.map_err(|denied| refuse(&denied))?);
        Ok(Response::new(v1::ExecuteAgentResponse {
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
            log: done
                .log
                .into_iter()
                .map(|line| v1::LogLine { level: line.level, text: line.text })
                .collect(),
            metrics: done.metrics.into_iter().map(|m| v1::Metric { name: m.name, value: m.value }).collect(),
            digest: done.digest,
        }))
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
        self.not_from_a_page(&request)?;
        let status = self.executor.status();
        Ok(Response::new(v1::GetStatusResponse {
            version: status.version,
            wasmtime: status.wasmtime,
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
        self.not_from_a_page(&request)?;
        let loaded = self.executor.find(&request.get_ref().agent).is_some();
        Ok(Response::new(v1::IsLoadedResponse { loaded }))
    }

    async fn unload_agent(
        &self,
        request: Request<v1::UnloadAgentRequest>,
    ) -> Result<Response<v1::UnloadAgentResponse>, Status> {
        self.allow(Role::Administer, &request)?;
        let unloaded = match self.executor.unload(&request.get_ref().agent).await {
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
        self.not_from_a_page(&request)?;
        let agents = self.executor.list().into_iter().map(agent).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents }))
    }

    async fn stop_instances(
        &self,
        request: Request<v1::StopInstancesRequest>,
    ) -> Result<Response<v1::StopInstancesResponse>, Status> {
        self.allow(Role::Administer, &request)?;
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

    async fn deploy(&self, request: Request<v1::DeployRequest>) -> Result<Response<v1::Deployment>, Status> {
        self.allow(Role::Administer, &request)?;
        let deployed = self.executor.deploy(&deployments::request(request.into_inner())?).await;
        Ok(Response::new(deployments::answer(deployed.map_err(|denied| refuse(&denied))?)))
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::Deployment>, Status> {
        self.allow(Role::Administer, &request)?;
        let promoted = self.executor.promote(&request.get_ref().agent).await;
        Ok(Response::new(deployments::answer(promoted.map_err(|denied| refuse(&denied))?)))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::Deployment>, Status> {
        self.allow(Role::Administer, &request)?;
        let returned = self.executor.rollback(&request.get_ref().agent).await;
        Ok(Response::new(deployments::answer(returned.map_err(|denied| refuse(&denied))?)))
    }

    async fn get_deployment(
        &self,
        request: Request<v1::GetDeploymentRequest>,
    ) -> Result<Response<v1::Deployment>, Status> {
        self.not_from_a_page(&request)?;
        let found = self.executor.deployment(&request.get_ref().agent);
        Ok(Response::new(deployments::answer(found.map_err(|denied| refuse(&denied))?)))
    }

    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        use v1::get_receipt_request::Which;
        self.not_from_a_page(&request)?;
        let receipts = self.executor.receipts();
        let found = match request.into_inner().which {
            Some(Which::InstanceId(instance)) => receipts.of_instance(&instance),
            Some(Which::Index(index)) => receipts.of_index(index),
            None => return Err(invalid("name an instance or an index")),
        };
        let proof = found.map_err(|denied| refuse(&denied))?;
        Ok(Response::new(v1::GetReceiptResponse { proof }))
    }
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

fn invalid(text: &str) -> Status {
    refuse(&Denied::new("invalid_argument", text))
}

/// A refusal as status: reason and step in metadata, the caller's text as message.
fn refuse(denied: &Denied) -> Status {
    if !denied.operator.is_empty() {
        tracing::info!(code = denied.code, operator = %denied.operator, "request refused");
    }
    let mut status = Status::new(code_of(denied), denied.message.clone());
    let metadata = status.metadata_mut();
    if let Ok(reason) = denied.code.parse() {
        metadata.insert(REASON_METADATA, reason);
    }
    metadata.insert(STEP_METADATA, u32::from(denied.step).into());
    status
}

fn code_of(denied: &Denied) -> Code {
    match denied.code {
        _ if denied.is_about_evidence() => Code::FailedPrecondition,
        "too_large"
        | "malformed"
        | "unsupported"
        | "invalid_module"
        | "native_code_refused"
        | "abi_signature_mismatch"
        | "export_missing"
        | "import_not_granted"
        | "invalid_argument"
        | "ambiguous_digest"
        | "compile_budget"
        | "input_too_large" => Code::InvalidArgument,
        "not_loaded" | "no_deployment" | "receipt_unknown" => Code::NotFound,
        "already_deployed" | "deployment_in_progress" | "nothing_to_promote" | "rollback_refused" => {
            Code::FailedPrecondition
        }
        "too_many_deployments" => Code::ResourceExhausted,
        "pool_exhausted" | "pool_limit" | "memory_limit" | "storage_full" => Code::ResourceExhausted,
        "audit_unavailable"
        | "receipts_unavailable"
        | "receipt_pending"
        | "state_unavailable"
        | "restoring"
        | "compiler_unavailable"
        | "shutdown" => Code::Unavailable,
        "deadline_exceeded" | "cpu_budget" => Code::DeadlineExceeded,
        "trap" | "stopped" | "caller_gone" => Code::Aborted,
        "container_engine_unavailable" | "profile_unavailable" => Code::Unimplemented,
        "internal" | "engine_mismatch" | "compile_failed" => Code::Internal,
        _ => Code::PermissionDenied,
    }
}
