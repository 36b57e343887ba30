//! The one place where a domain error becomes an answer for the outside.

use ca_pki::TokenRefusal;
use http::StatusCode;
use service::Problem;

use crate::error::CaError;
use crate::oidc::OidcError;
use crate::possession::PossessionRefusal;
use crate::problem_report::ReportRefusal;
use crate::queue::QueueRefusal;
use crate::storage::StoreError;
use crate::storage::queue::QueueLimit;

/// The problem document of an error. Internal texts go to the log only.
#[must_use]
pub fn problem(error: &CaError) -> Problem {
    let refused = |status, code, detail: String| Problem::new(status, code).with_detail(detail);
    match error {
        CaError::AddressNotAllowed => refused(
            StatusCode::FORBIDDEN,
            "address_not_allowed",
            "addresses of this domain get no code; ask an administrator for a one-time token".to_owned(),
        ),
        CaError::Approval(refusal) => refused(StatusCode::FORBIDDEN, refusal.code(), refusal.to_string()),
        CaError::CertificateUnknown => {
            refused(StatusCode::NOT_FOUND, "certificate_unknown", error.to_string())
        }
        CaError::Clock(_) => Problem::unavailable("clock_untrusted", 10)
            .with_detail("the CA's clock is being checked; nothing is signed meanwhile")
            .with_internal(error),
        CaError::KeyEvidenceMissing => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, "key_evidence_missing", error.to_string())
        }
        CaError::KeyCompromised => refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "key_compromised",
            "a certificate for this key was revoked because the key was compromised; make a new key".to_owned(),
        ),
        CaError::IssuancePending => Problem::unavailable("issuance_pending", 2)
            .with_detail("the certificate is being issued; repeat the call with the same request_id"),
        CaError::IssuanceFailed => refused(
            StatusCode::CONFLICT,
            "issuance_failed",
            "the issuance ended without a certificate; ask for a new token".to_owned(),
        ),
        CaError::Log(_) => Problem::unavailable("log_unavailable", 5)
            .with_detail("the transparency log did not answer; repeat the call with the same request_id")
            .with_internal(error),
        CaError::NotIssuing(reason) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, reason.code(), reason.to_string())
        }
        CaError::Mail(_) => Problem::unavailable("mail_unavailable", 30)
            .with_detail("the mail server did not take the letter; ask again")
            .with_internal(error),
        CaError::NoMail => refused(
            StatusCode::NOT_FOUND,
            "no_mail",
            "this authority sends no codes; ask an administrator for a one-time token".to_owned(),
        ),
        CaError::Oidc(OidcError::Unavailable(_) | OidcError::Token(TokenRefusal::KeySet(_))) => {
            Problem::unavailable("issuer_unavailable", 5)
                .with_detail("the identity issuer's keys cannot be fetched at the moment")
                .with_internal(error)
        }
        CaError::Oidc(refusal @ (OidcError::ClaimNotAllowed(_) | OidcError::RoleNotGiven)) => {
            refused(StatusCode::FORBIDDEN, refusal.code(), refusal.to_string())
        }
        CaError::Oidc(refusal) => refused(StatusCode::UNAUTHORIZED, refusal.code(), refusal.to_string()),
        CaError::OutOfRange { field, reason } => {
            refused(StatusCode::BAD_REQUEST, "out_of_range", format!("{field} {reason}"))
        }
        CaError::Pki(error) | CaError::Request(error) => refusal(error),
        CaError::Possession(refusal) => {
            let status = match refusal {
                PossessionRefusal::ChallengeExpired
                | PossessionRefusal::ProofExpired
                | PossessionRefusal::ProofInvalid
                | PossessionRefusal::ProofMissing => StatusCode::UNAUTHORIZED,
                PossessionRefusal::CertificateExpired
                | PossessionRefusal::CertificateRevoked
                | PossessionRefusal::IssuerRevoked
                | PossessionRefusal::NotRenewable => StatusCode::FORBIDDEN,
                PossessionRefusal::KeyUnchanged => StatusCode::UNPROCESSABLE_ENTITY,
                PossessionRefusal::RenewedTooOften => StatusCode::CONFLICT,
            };
            refused(status, refusal.code(), refusal.to_string())
        }
        CaError::ProfileUnknown => refused(
            StatusCode::BAD_REQUEST,
            "profile_unknown",
            "there is no such profile; GET /api/v1/authorities lists them".to_owned(),
        ),
        CaError::Queue(refusal) => of_queue(refusal),
        CaError::Report(refusal) => {
            let status = match refusal {
                ReportRefusal::Unknown => StatusCode::NOT_FOUND,
                ReportRefusal::Closed => StatusCode::CONFLICT,
                ReportRefusal::Full => StatusCode::TOO_MANY_REQUESTS,
            };
            refused(status, refusal.code(), refusal.to_string())
        }
        CaError::RequestConflict => refused(StatusCode::CONFLICT, "request_conflict", error.to_string()),
        CaError::RevokedForAnotherReason => refused(
            StatusCode::CONFLICT,
            "revoked_for_another_reason",
            "the certificate is revoked already; its reason can only change to key-compromise or ca-compromise"
                .to_owned(),
        ),
        CaError::RoleInsufficient(_) => {
            refused(StatusCode::FORBIDDEN, "role_insufficient", error.to_string())
        }
        CaError::SelectionChanged { .. } => {
            refused(StatusCode::CONFLICT, "selection_changed", error.to_string())
        }
        CaError::Signing(_) => Problem::unavailable("signing_unavailable", 5)
            .with_detail("the signing key cannot be used at the moment")
            .with_internal(error),
        CaError::Store(StoreError::AnotherServes) => Problem::unavailable("another_server_serves", 30)
            .with_detail("another server of this authority took over; ask that one")
            .with_internal(error),
        CaError::Store(StoreError::Full(_)) => Problem::storage_full(error),
        CaError::Store(StoreError::SuccessorUnknown | StoreError::Unavailable(_)) => Problem::unavailable("store_unavailable", 5)
            .with_detail("the database is not available; repeat the call later, an enrolment with the same request_id")
            .with_internal(error),
        CaError::Store(_)
        | CaError::Inconsistent(_)
        | CaError::AuthorityKey { .. }
        | CaError::OtherKey { .. } => Problem::internal(error),
        CaError::TokenExpired => refused(StatusCode::UNAUTHORIZED, "token_expired", error.to_string()),
        CaError::TokenUnknown => refused(StatusCode::UNAUTHORIZED, "token_unknown", error.to_string()),
        CaError::TokenUsed => refused(
            StatusCode::CONFLICT,
            "token_used",
            "the token was used; tokens are good for one certificate".to_owned(),
        ),
        CaError::TooManyCertificates { after_seconds } => {
            refused(StatusCode::TOO_MANY_REQUESTS, "rate_limited", error.to_string())
                .with_retry_after(*after_seconds)
        }
        CaError::TooManyCodes { after_seconds } => Problem::too_many_requests(*after_seconds),
        CaError::NothingToRevoke => refused(StatusCode::CONFLICT, "nothing_to_revoke", error.to_string()),
    }
}

/// A refusal about requests that wait for people.
fn of_queue(refusal: &QueueRefusal) -> Problem {
    let status = match refusal {
        QueueRefusal::Full(QueueLimit::All) => {
            return Problem::unavailable(refusal.code(), 60)
                .with_detail("as many requests wait for approval as may; ask again later");
        }
        QueueRefusal::Full(QueueLimit::Identity) => {
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, refusal.code()).with_retry_after(60);
            return problem.with_detail("as many requests of this identity wait for approval as may");
        }
        // For whoever cannot be told that it was taken (`queue::accepted`).
        QueueRefusal::Awaiting { .. } => {
            return Problem::unavailable(refusal.code(), 15)
                .with_detail(format!("{refusal}; repeat the call with the same key"));
        }
        QueueRefusal::ApproverIsRequester(_)
        | QueueRefusal::ApproverRepeated(_)
        | QueueRefusal::ApproverUnnamed
        | QueueRefusal::Denied(_)
        | QueueRefusal::Unapproved { .. }
        | QueueRefusal::RequesterUnnamed
        | QueueRefusal::VoucherUnnamed => StatusCode::FORBIDDEN,
        QueueRefusal::Changed(_)
        | QueueRefusal::Closed { .. }
        | QueueRefusal::Ended(_)
        | QueueRefusal::Expired => StatusCode::CONFLICT,
        QueueRefusal::Unknown(_) => StatusCode::NOT_FOUND,
    };
    Problem::new(status, refusal.code()).with_detail(refusal.to_string())
}

/// A refusal by rules of the formats: the requester's to mend, except where the CA's own objects break them.
fn refusal(error: &ca_pki::Error) -> Problem {
    let status = match error {
        ca_pki::Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ca_pki::Error::Malformed { .. } => StatusCode::BAD_REQUEST,
        ca_pki::Error::SctMismatch(_) => {
            return Problem::unavailable("log_unavailable", 5)
                .with_detail("the transparency log's answer cannot be used")
                .with_internal(error);
        }
        ca_pki::Error::Profile { .. }
        | ca_pki::Error::SignedBytesDiffer
        | ca_pki::Error::UnrepresentableTime(_) => {
            return Problem::internal(error);
        }
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Problem::new(status, error.code()).with_detail(error.to_string())
}

impl From<CaError> for Problem {
    fn from(error: CaError) -> Self {
        problem(&error)
    }
}
