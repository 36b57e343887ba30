//! The executor over HTTP/JSON.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::deployment::{Deploy, Deployment};
use crate::hold::{Hold, HoldReport, HoldRequest};
use crate::receipt::ReceiptLog;
use crate::trial::{Trial, TrialReport};
use crate::{
    AgentSummary, Base64Bytes, Execute, Executed, Explanation, Problem, Status, Stop, Stopped, Upload,
};

/// Largest answer this client reads, bytes (80 MiB: an output of the largest size in base64, and its envelope).
const MAX_ANSWER: usize = 80 << 20;

/// How long a load may take, whatever other requests may: it is answered when the module is compiled, which an executor of the profile
/// `large` gives eight minutes, and each module before it its own.
const LOAD: Duration = Duration::from_secs(1_200);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The executor refused, and says why.
    #[error("{} (step {}, code {})", .0.detail, .0.step, .0.code)]
    Refused(Box<Problem>),
    /// The executor could not be reached or the connection broke.
    #[error("the executor cannot be reached")]
    Transport(#[source] reqwest::Error),
    /// The answer is not of the documented form.
    #[error("unexpected answer from the executor (HTTP {status})")]
    Answer {
        /// HTTP status of the answer.
        status: u16,
    },
}

impl ClientError {
    /// The stable reason code of a refusal.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

/// A client of one executor.
#[derive(Debug, Clone)]
pub struct ExecutorClient {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl ExecutorClient {
    /// `base` is scheme and authority, such as `https://executor.example:8443`.
    pub fn new(http: reqwest::Client, base: &str) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), token: None }
    }

    /// Sends `token` as bearer token with every request.
    #[must_use]
    pub fn with_token(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// Uploads and admits a module.
    pub async fn load(
        &self,
        manifest: &str,
        attestation: Option<&str>,
        module: &[u8],
    ) -> Result<AgentSummary, ClientError> {
        let request = self.http.post(self.url("/api/v1/agents")).timeout(LOAD);
        self.send(request.json(&upload(manifest, attestation, module))).await
    }

    /// The verdict on a module, with nothing loaded.
    pub async fn explain(
        &self,
        manifest: &str,
        attestation: Option<&str>,
        module: &[u8],
    ) -> Result<Explanation, ClientError> {
        self.post("/api/v1/explain", &upload(manifest, attestation, module)).await
    }

    /// Runs an admitted agent (id or digest) once.
    pub async fn execute(
        &self,
        agent: &str,
        input: &[u8],
        deadline_ms: Option<u64>,
    ) -> Result<Executed, ClientError> {
        let call = Execute { input: Base64Bytes(input.to_vec()), deadline_ms, ..Execute::default() };
        self.call(agent, &call).await
    }

    /// As [`Self::execute`], for one of several calls that one release shall serve while another takes over.
    pub async fn execute_in_session(
        &self,
        agent: &str,
        input: &[u8],
        session: &str,
    ) -> Result<Executed, ClientError> {
        let call = Execute {
            input: Base64Bytes(input.to_vec()),
            session: Some(session.to_owned()),
            ..Execute::default()
        };
        self.call(agent, &call).await
    }

    /// Runs an admitted agent (id or digest) on any terms.
    pub async fn call(&self, agent: &str, call: &Execute) -> Result<Executed, ClientError> {
        self.post(&format!("/api/v1/agents/{agent}/execute"), call).await
    }

    /// What a policy would change for what is loaded, with nothing changed.
    pub async fn try_policy(&self, policy: &str) -> Result<TrialReport, ClientError> {
        self.post("/api/v1/policy/trial", &Trial { policy: policy.to_owned() }).await
    }

    /// Begins to let a loaded release take over.
    pub async fn deploy(&self, request: &Deploy) -> Result<Deployment, ClientError> {
        self.post("/api/v1/deployments", request).await
    }

    /// Lets the release that takes over serve everything now.
    pub async fn promote(&self, agent: &str) -> Result<Deployment, ClientError> {
        self.post(&format!("/api/v1/deployments/{agent}/promote"), &serde_json::json!({})).await
    }

    /// Takes back the release that takes over, or returns to the one before.
    pub async fn rollback(&self, agent: &str) -> Result<Deployment, ClientError> {
        self.post(&format!("/api/v1/deployments/{agent}/rollback"), &serde_json::json!({})).await
    }

    /// Every agent with a route.
    pub async fn deployments(&self) -> Result<Vec<Deployment>, ClientError> {
        self.send(self.http.get(self.url("/api/v1/deployments"))).await
    }

    /// The receipt log.
    pub async fn receipt_log(&self) -> Result<ReceiptLog, ClientError> {
        self.send(self.http.get(self.url("/api/v1/receipts"))).await
    }

    /// The receipt of an instance as proof file (C2SP tlog-proof).
    pub async fn receipt(&self, instance: &str) -> Result<Vec<u8>, ClientError> {
        self.bytes(self.http.get(self.url(&format!("/api/v1/receipts?instance={instance}")))).await
    }

    /// The entry at an index of the receipt log as proof file (C2SP tlog-proof).
    pub async fn receipt_at(&self, index: u64) -> Result<Vec<u8>, ClientError> {
        self.bytes(self.http.get(self.url(&format!("/api/v1/receipts/{index}")))).await
    }

    /// Every admitted agent.
    pub async fn agents(&self) -> Result<Vec<AgentSummary>, ClientError> {
        self.send(self.http.get(self.url("/api/v1/agents"))).await
    }

    /// Forgets an agent. Running instances finish.
    pub async fn unload(&self, agent: &str) -> Result<(), ClientError> {
        let request = self.http.delete(self.url(&format!("/api/v1/agents/{agent}")));
        self.send::<Option<()>>(request).await.map(drop)
    }

    /// Stops running instances.
    pub async fn stop(&self, stop: &Stop) -> Result<Stopped, ClientError> {
        self.post("/api/v1/instances/stop", stop).await
    }

    /// Lets no release run that a hold means, or says what that would reach.
    pub async fn hold(&self, request: &HoldRequest) -> Result<HoldReport, ClientError> {
        self.post("/api/v1/holds", request).await
    }

    /// Every hold in force.
    pub async fn holds(&self) -> Result<Vec<HoldReport>, ClientError> {
        self.send(self.http.get(self.url("/api/v1/holds"))).await
    }

    /// Takes a hold back. `id` is a name that a hold has: nothing but hexadecimal digits.
    pub async fn release_hold(&self, id: &str) -> Result<Hold, ClientError> {
        self.send(self.http.delete(self.url(&format!("/api/v1/holds/{id}")))).await
    }

    /// The executor's own state.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.send(self.http.get(self.url("/api/v1/status"))).await
    }

    /// Fetches all evidence now instead of at the next interval.
    pub async fn refresh_evidence(&self) -> Result<Status, ClientError> {
        self.post("/api/v1/evidence/refresh", &serde_json::json!({})).await
    }

    /// Lets the executor refuse calls; what runs may finish.
    pub async fn drain(&self) -> Result<Status, ClientError> {
        self.post("/api/v1/drain", &serde_json::json!({})).await
    }

    /// Lets it take calls again.
    pub async fn undrain(&self) -> Result<Status, ClientError> {
        self.post("/api/v1/undrain", &serde_json::json!({})).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(self.http.post(self.url(path)).json(body)).await
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        let body = self.bytes(request).await?;
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(text).map_err(|_| ClientError::Answer { status: 200 })
    }

    /// The body of a successful answer.
    async fn bytes(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let mut response = request.send().await.map_err(ClientError::Transport)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(ClientError::Transport)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::Answer { status: status.as_u16() });
            }
            body.extend_from_slice(&chunk);
        }
        let unexpected = ClientError::Answer { status: status.as_u16() };
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if !problem.code.is_empty() => Err(ClientError::Refused(Box::new(problem))),
            _ => Err(unexpected),
        }
    }
}

fn upload(manifest: &str, attestation: Option<&str>, module: &[u8]) -> Upload {
    Upload {
        manifest: manifest.to_owned(),
        attestation: attestation.map(str::to_owned),
        module: Base64Bytes(module.to_vec()),
    }
}
