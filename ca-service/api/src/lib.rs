//! What travels between the certificate authority and its clients: JSON types, and with the feature `client` an HTTP
//! client for them.
//!
//! Every request type refuses unknown fields and bounds its texts ([`limits`]). Times are seconds since
//! 1970-01-01T00:00:00Z. Certificates and requests are PEM, serial numbers lower-case hexadecimal.
//!
//! | call | types |
//! |---|---|
//! | `POST /api/v1/tokens` (issuer) | [`CreateToken`] → [`EnrolmentToken`] |
//! | `POST /api/v1/codes` | [`RequestCode`] → [`MailedCode`] |
//! | `POST /api/v1/certificates` | [`Enrol`] → [`IssuedCertificate`], or 202 with [`RequestStatus`] |
//! | `GET /api/v1/requests/ID/status` | [`RequestStatus`] |
//! | `GET /api/v1/requests` (auditor) | [`QueueQuery`] → [`RequestQueue`] |
//! | `GET /api/v1/requests/ID` (auditor) | [`QueuedRequest`] |
//! | `POST /api/v1/requests/approve` (approver) | [`ApproveRequests`] → [`DecidedRequests`] |
//! | `POST /api/v1/requests/deny` (approver) | [`DenyRequests`] → [`DecidedRequests`] |
//! | `GET /api/v1/certificates` (auditor) | [`ListQuery`] → [`CertificateList`] |
//! | `GET /api/v1/certificates/SERIAL` (auditor) | [`CertificateRecord`] |
//! | `POST /api/v1/certificates/SERIAL/revoke` (administrator) | [`Revoke`] → [`Revocation`] |
//! | `POST /api/v1/renewals/challenges` | [`possession::AskChallenge`] → [`possession::RenewalChallenge`] |
//! | `POST /api/v1/renewals` (by proof of the key, there or at the handshake) | [`possession::Renew`] → [`IssuedCertificate`], or 202 with [`RequestStatus`] |
//! | `POST /api/v1/own/certificates` (by proof of the key, there or at the handshake) | [`possession::ListOwn`] → [`CertificateList`] |
//! | `POST /api/v1/own/revocations` (by proof of the key, there or at the handshake) | [`possession::RevokeOwn`] → [`Revocation`] |
//! | `POST /api/v1/revocations/plan` (approver) | [`PlanRevocations`] → [`RevocationPlan`] |
//! | `POST /api/v1/revocations` (administrator) | [`RevokeMany`] → [`RevokeManyDone`] |
//! | `GET /api/v1/certificates/SERIAL/status?at=TIME` | [`StatusQuery`] → [`StatusOnDate`] |
//! | `POST /api/v1/problem-reports` (auditor) | [`ReportProblem`] → [`ProblemReport`] |
//! | `GET /api/v1/problem-reports` (auditor) | [`ProblemQuery`] → [`ProblemReports`] |
//! | `POST /api/v1/problem-reports/ID/close` (administrator) | [`CloseReport`] → [`ProblemReport`] |
//! | `POST /api/v1/policy/explain` (auditor) | [`ExplainToken`] → [`TokenExplanation`] |
//! | `GET /api/v1/overview` (auditor) | [`Overview`] |
//! | `GET /api/v1/authorities` | [`Authorities`] |
//! | `POST /api/v1/timestamp` | RFC 3161 DER, or [`TimestampJson`] → DER |
//! | `GET /crl/…`, `GET /ca/…`, `/ocsp` | RFC 5280, RFC 6960 DER |
#![forbid(unsafe_code)]

mod authority;
mod certificate;
#[cfg(feature = "client")]
pub mod client;
mod explanation;
mod identity;
pub mod limits;
mod mass_revocation;
mod overview;
pub mod possession;
mod problem;
mod problem_report;
mod queue;
mod revocation;
mod timestamp;
mod token;

pub use authority::{Authorities, Authority, AuthorityRole};
pub use certificate::{
    CertificateList, CertificateRecord, CertificateState, DatedStatus, Enrol, IssuedCertificate, ListQuery,
    StatusOnDate, StatusQuery,
};
pub use explanation::{
    ExplainToken, ExplainedRule, RefusedToken, RuleVerdict, SignatureStanding, TokenExplanation, TokenOutcome,
};
pub use identity::Identity;
pub use mass_revocation::{PlanRevocations, RevocationPlan, RevocationSelection, RevokeMany, RevokeManyDone};
pub use overview::{
    AuthorityStanding, DayOfIssuance, EndingCertificate, EndingWithin, Overview, PublishedList,
    RecentRevocation,
};
pub use problem::Problem;
pub use problem_report::{
    CloseReport, ProblemGround, ProblemQuery, ProblemReport, ProblemReports, ProblemState, ReportProblem,
};
pub use queue::{
    ApproveRequests, ClaimedExtension, DecidedRequests, DenyRequests, EnrolmentWay, QueueQuery,
    QueuedRequest, RequestApproval, RequestQueue, RequestState, RequestStatement, RequestStatus,
    ShownRequest,
};
pub use revocation::{Revocation, RevocationReason, Revoke};
pub use timestamp::{DigestAlgorithm, TimestampJson};
pub use token::{CreateToken, EnrolmentToken, MailedCode, RequestCode};
