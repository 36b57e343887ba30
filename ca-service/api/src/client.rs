//! An HTTP client for the CA. The caller brings a ready `reqwest::Client` (its TLS roots, client certificate, timeouts).

use std::fmt;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::limits::MAX_ANSWER;
use crate::possession::{AskChallenge, ListOwn, Renew, RenewalChallenge, RevokeOwn};
use crate::{
    ApproveRequests, Authorities, CertificateList, CertificateRecord, CloseReport, CreateToken,
    DecidedRequests, DenyRequests, Enrol, EnrolmentToken, ExplainToken, IssuedCertificate, ListQuery,
    MailedCode, PlanRevocations, Problem, ProblemQuery, ProblemReport, ProblemReports, QueueQuery,
    QueuedRequest, ReportProblem, RequestCode, RequestQueue, RequestStatus, Revocation, RevocationPlan,
    Revoke, RevokeMany, RevokeManyDone, StatusOnDate, StatusQuery, TokenExplanation,
};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The answer is not what the call promises.
    #[error("the CA's answer is not understood: {0}")]
    Answer(String),
    /// The request is recorded, and its certificate waits for people's approval.
    #[error("the request {} waits for approval: {} of {} people approved it", .0.id, .0.approvals_given, .0.approvals_needed)]
    AwaitsApproval(Box<RequestStatus>),
    /// The CA refused or failed; the problem says why.
    #[error("{}: {} ({})", .0.code, .0.detail, .0.status)]
    Problem(Problem),
    /// The answer is longer than 128 MiB.
    #[error("the CA's answer is too large")]
    TooLarge,
    /// No answer.
    #[error("the CA cannot be reached at {url}: {source}")]
    Transport {
        /// The address.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
}

impl ClientError {
    /// The stable code of a problem document, `None` for failures without one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::AwaitsApproval(_) => Some("awaits_approval"),
            Self::Problem(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

/// Calls a CA.
#[derive(Clone)]
pub struct CaClient {
    http: reqwest::Client,
    base: String,
    admin_token: Option<String>,
}

impl fmt::Debug for CaClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CaClient").field("base", &self.base).finish_non_exhaustive()
    }
}

impl CaClient {
    /// A client for the CA at `base`, such as `https://ca.example.org:8443`.
    #[must_use]
    pub fn new(http: reqwest::Client, base: &str) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), admin_token: None }
    }

    /// The same client with an administrator's bearer token for the calls that need it.
    #[must_use]
    pub fn with_admin_token(mut self, token: &str) -> Self {
        self.admin_token = Some(token.trim().to_owned());
        self
    }

    /// Makes a one-time enrolment token. Administrator.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_token(&self, request: &CreateToken) -> Result<EnrolmentToken, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/tokens").json(request)).await
    }

    /// Has a code sent to an e-mail address: a one-time token for whoever reads it there.
    ///
    /// # Errors
    /// [`ClientError`]; code `no_mail` when the authority sends none, `address_not_allowed` for a domain it does not serve.
    pub async fn request_code(&self, request: &RequestCode) -> Result<MailedCode, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/codes").json(request)).await
    }

    /// Enrols: proves possession of the key in the request and gets its certificate.
    ///
    /// # Errors
    /// [`ClientError`]; code `issuance_pending` asks to repeat the call with the same `request_id`, and so does
    /// [`ClientError::AwaitsApproval`] once [`Self::request_status`] says that the request was approved.
    pub async fn enrol(&self, request: &Enrol) -> Result<IssuedCertificate, ClientError> {
        self.issued(self.request(Method::POST, "/api/v1/certificates").json(request)).await
    }

    /// What the proof for a renewal must name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn renewal_challenge(&self, asked: &AskChallenge) -> Result<RenewalChallenge, ClientError> {
        self.json(self.http.post(format!("{}/api/v1/renewals/challenges", self.base)).json(asked)).await
    }

    /// Renews a certificate by its key: gets another one of the same identity and profile for a new key.
    ///
    /// # Errors
    /// As [`Self::enrol`]; code `not_renewable` where a one-time token or an identity token is needed, `key_unchanged`.
    pub async fn renew(&self, request: &Renew) -> Result<IssuedCertificate, ClientError> {
        // Without the administrator's token: nobody has to be one for this.
        self.issued(self.http.post(format!("{}/api/v1/renewals", self.base)).json(request)).await
    }

    async fn issued(&self, builder: RequestBuilder) -> Result<IssuedCertificate, ClientError> {
        let (status, body) = self.answer(builder).await?;
        if status == StatusCode::ACCEPTED {
            return Err(ClientError::AwaitsApproval(Box::new(parsed(&body)?)));
        }
        parsed(&body)
    }

    /// How a request stands that waits for approval. Whoever knows its id may ask.
    ///
    /// # Errors
    /// [`ClientError`]; code `request_unknown` when there is none.
    pub async fn request_status(&self, id: &str) -> Result<RequestStatus, ClientError> {
        // Without the administrator's token: nobody has to be one for this.
        let path = format!("/api/v1/requests/{}/status", segment(id));
        self.json(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Lists requests that wait for approval. Auditor.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn queue(&self, query: &QueueQuery) -> Result<RequestQueue, ClientError> {
        self.json(self.request(Method::GET, "/api/v1/requests").query(query)).await
    }

    /// Shows one request. Auditor.
    ///
    /// # Errors
    /// [`ClientError`]; code `request_unknown` when there is none.
    pub async fn queued_request(&self, id: &str) -> Result<QueuedRequest, ClientError> {
        self.json(self.request(Method::GET, &format!("/api/v1/requests/{}", segment(id)))).await
    }

    /// Approves requests, each by the text that was shown. Approver, by a client certificate or an identity token.
    ///
    /// # Errors
    /// [`ClientError`]; code `request_changed` when it is not what was shown, `approver_is_requester`, `request_closed`.
    pub async fn approve_requests(&self, asked: &ApproveRequests) -> Result<DecidedRequests, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/requests/approve").json(asked)).await
    }

    /// Denies requests. Approver.
    ///
    /// # Errors
    /// [`ClientError`], as [`Self::approve_requests`].
    pub async fn deny_requests(&self, asked: &DenyRequests) -> Result<DecidedRequests, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/requests/deny").json(asked)).await
    }

    /// Reports a problem with a certificate. Auditor.
    ///
    /// # Errors
    /// [`ClientError`]; code `certificate_unknown` when there is none, `reports_full`.
    pub async fn report_problem(&self, asked: &ReportProblem) -> Result<ProblemReport, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/problem-reports").json(asked)).await
    }

    /// Lists reported problems. Auditor.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn problems(&self, query: &ProblemQuery) -> Result<ProblemReports, ClientError> {
        self.json(self.request(Method::GET, "/api/v1/problem-reports").query(query)).await
    }

    /// Decides that a certificate stands, whatever was reported. Administrator.
    ///
    /// # Errors
    /// [`ClientError`]; code `report_unknown`, `report_closed`.
    pub async fn close_problem(&self, id: i64, asked: &CloseReport) -> Result<ProblemReport, ClientError> {
        self.json(self.request(Method::POST, &format!("/api/v1/problem-reports/{id}/close")).json(asked))
            .await
    }

    /// Explains what would become of an identity token. Auditor.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain_token(&self, request: &ExplainToken) -> Result<TokenExplanation, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/policy/explain").json(request)).await
    }

    /// Lists certificates. Administrator.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self, query: &ListQuery) -> Result<CertificateList, ClientError> {
        self.json(self.request(Method::GET, "/api/v1/certificates").query(query)).await
    }

    /// Shows one certificate. Administrator.
    ///
    /// # Errors
    /// [`ClientError`]; code `certificate_unknown` when there is none.
    pub async fn show(&self, serial: &str) -> Result<CertificateRecord, ClientError> {
        self.json(self.request(Method::GET, &format!("/api/v1/certificates/{}", segment(serial)))).await
    }

    /// The newest certificate of a key, by the SHA-256 of its SubjectPublicKeyInfo in hexadecimal, that can be used now.
    ///
    /// # Errors
    /// [`ClientError`]; code `certificate_unknown` when there is none.
    pub async fn certificate_of_key(&self, spki_sha256: &str) -> Result<IssuedCertificate, ClientError> {
        let path = format!("/api/v1/certificates/by-key/{}", segment(spki_sha256));
        // Without the administrator's token: nobody has to be one for this.
        self.json(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Revokes one certificate; repeating it is harmless. Administrator.
    ///
    /// # Errors
    /// [`ClientError`]; code `certificate_unknown` when there is none.
    pub async fn revoke(&self, serial: &str, request: &Revoke) -> Result<Revocation, ClientError> {
        let path = format!("/api/v1/certificates/{}/revoke", segment(serial));
        self.json(self.request(Method::POST, &path).json(request)).await
    }

    /// Lists certificates of one's own identity, by the key of one of them.
    ///
    /// # Errors
    /// [`ClientError`]; code `proof_invalid` for another key, `certificate_revoked`, `certificate_expired`.
    pub async fn list_own(&self, request: &ListOwn) -> Result<CertificateList, ClientError> {
        // Without the administrator's token: nobody has to be one for this.
        self.json(self.http.post(format!("{}/api/v1/own/certificates", self.base)).json(request)).await
    }

    /// Revokes one's own certificate, by its key; repeating it is harmless.
    ///
    /// # Errors
    /// [`ClientError`]; code `proof_invalid` for another key, `certificate_unknown` when there is none.
    pub async fn revoke_own(&self, request: &RevokeOwn) -> Result<Revocation, ClientError> {
        self.json(self.http.post(format!("{}/api/v1/own/revocations", self.base)).json(request)).await
    }

    /// A certificate's status on a date. Administrator or auditor.
    ///
    /// # Errors
    /// [`ClientError`]; code `certificate_unknown` when there is none.
    pub async fn status_on(&self, serial: &str, query: &StatusQuery) -> Result<StatusOnDate, ClientError> {
        let path = format!("/api/v1/certificates/{}/status", segment(serial));
        self.json(self.request(Method::GET, &path).query(query)).await
    }

    /// Says what a revocation of many would touch. Administrator.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan_revocations(&self, request: &PlanRevocations) -> Result<RevocationPlan, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/revocations/plan").json(request)).await
    }

    /// Carries out a piece of a planned revocation; repeating it is harmless. Administrator.
    ///
    /// # Errors
    /// [`ClientError`]; code `selection_changed` when certificates came or went since the plan, `quorum_missing` and the other
    /// codes of approvals when it needs more of them.
    pub async fn revoke_many(&self, request: &RevokeMany) -> Result<RevokeManyDone, ClientError> {
        self.json(self.request(Method::POST, "/api/v1/revocations").json(request)).await
    }

    /// The CA's own certificates.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn authorities(&self) -> Result<Authorities, ClientError> {
        self.json(self.request(Method::GET, "/api/v1/authorities")).await
    }

    /// Sends a DER TimeStampReq and returns the DER TimeStampResp, whose status the caller checks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn timestamp(&self, request: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        let builder = self.request(Method::POST, "/api/v1/timestamp");
        self.der(builder.header("content-type", "application/timestamp-query").body(request)).await
    }

    /// Sends a DER OCSPRequest and returns the DER OCSPResponse, whose status the caller checks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ocsp(&self, request: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        let builder = self.request(Method::POST, "/ocsp");
        self.der(builder.header("content-type", "application/ocsp-request").body(request)).await
    }

    /// Fetches a CRL: of a shard, or complete.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn crl(&self, issuer: &str, shard: Option<u16>) -> Result<Vec<u8>, ClientError> {
        let path = match shard {
            Some(shard) => format!("/crl/{}/{shard}.crl", segment(issuer)),
            None => format!("/crl/{}.crl", segment(issuer)),
        };
        self.der(self.request(Method::GET, &path)).await
    }

    /// Fetches a published object from any URL, such as the CRL a certificate names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch(&self, url: &str) -> Result<Vec<u8>, ClientError> {
        // Not through `request`: another host must not see the administrator's token.
        self.der(self.http.get(url)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let builder = self.http.request(method, format!("{}{path}", self.base));
        match &self.admin_token {
            Some(token) => builder.bearer_auth(token),
            None => builder,
        }
    }

    async fn json<T: DeserializeOwned>(&self, builder: RequestBuilder) -> Result<T, ClientError> {
        parsed(&self.der(builder).await?)
    }

    async fn der(&self, builder: RequestBuilder) -> Result<Vec<u8>, ClientError> {
        Ok(self.answer(builder).await?.1)
    }

    async fn answer(&self, builder: RequestBuilder) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let transport = |source| ClientError::Transport { url: self.base.clone(), source };
        let response = builder.send().await.map_err(transport)?;
        let status = response.status();
        let body = self.body(response).await?;
        if status.is_success() { Ok((status, body)) } else { Err(problem(status, &body)) }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let transport = |source| ClientError::Transport { url: self.base.clone(), source };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(ClientError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Answer(error.to_string()))
}

/// A path segment without anything that could leave it.
fn segment(text: &str) -> String {
    text.chars().filter(|each| each.is_ascii_alphanumeric() || "-_".contains(*each)).collect()
}

fn problem(status: StatusCode, body: &[u8]) -> ClientError {
    let mut problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    problem.status = status.as_u16();
    if problem.code.is_empty() {
        problem.code = "http_error".to_owned();
    }
    if problem.detail.is_empty() {
        problem.detail = status.to_string();
    }
    ClientError::Problem(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_without_a_problem_document_still_have_a_code() {
        let error = problem(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(error.code(), Some("http_error"));
        let error =
            problem(StatusCode::CONFLICT, br#"{"type":"x","code":"token_used","detail":"d","more":1}"#);
        assert_eq!(error.code(), Some("token_used"));
        assert_eq!(error.to_string(), "token_used: d (409)");
    }

    #[test]
    fn serial_numbers_cannot_leave_their_path_segment() {
        assert_eq!(segment("../x?y#z"), "xyz");
    }
}
