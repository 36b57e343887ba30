//! Requests that waited for people: what the records say of them against the audit trail and the certificates that came of them.

use sha2::{Digest as _, Sha256};

use super::trail::Trail;
use super::{PAGE, Report};
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::queue::statement::{digest, statement};
use crate::storage::queue::{QueueSearch, QueueState, QueuedRequest};

/// Checks every request that is remembered.
pub(super) async fn requests(
    authority: &CertificateAuthority,
    trail: &Trail,
    report: &mut Report,
) -> Result<(), CaError> {
    for state in QueueState::ALL {
        let mut after = 0;
        loop {
            let search = QueueSearch { state: Some(state), after, limit: PAGE };
            let page = authority.store().queue(search).await?;
            let Some(last) = page.last() else { break };
            after = last.number;
            for request in &page {
                report.requests += 1;
                let mut outcome = recorded(authority, request, trail);
                if outcome.is_ok() {
                    outcome = issued(authority, request).await?;
                }
                if let Err(finding) = outcome {
                    let id = hex::encode(request.content.id);
                    report.findings.push(format!("request {id}: {finding}"));
                }
            }
        }
    }
    Ok(())
}

/// What is recorded is what was announced, approved and closed by the trail.
fn recorded(
    authority: &CertificateAuthority,
    request: &QueuedRequest,
    trail: &Trail,
) -> Result<(), &'static str> {
    let content = &request.content;
    let unwritable = "its statement cannot be written";
    let fingerprint = authority.authority_fingerprint().map_err(|_| unwritable)?;
    let shown = digest(&statement(content, &fingerprint).map_err(|_| unwritable)?);
    if content.spki_sha256 != <[u8; 32]>::from(Sha256::digest(&content.spki)) {
        return Err("its key is not the one of the recorded hash");
    }
    if !trail.has_request(&content.id, &shown) {
        return Err("it is not what the audit trail says was recorded");
    }
    let mut of_this = 0;
    for approval in &request.approvals {
        if !trail.has_approval(&content.id, &approval.statement, &approval.approver) {
            return Err("the audit trail does not have an approval of it");
        }
        of_this += usize::from(approval.statement == shown);
    }
    let needs_them = matches!(request.state, QueueState::Approved | QueueState::Issued);
    if needs_them && of_this < usize::from(content.needed) {
        return Err("it was not approved by as many people as it needs");
    }
    if !request.state.is_open() && request.state != QueueState::Issued && !trail.has_closed(&content.id) {
        return Err("the audit trail does not say that it was closed");
    }
    Ok(())
}

/// The certificate that came of it is what was approved.
async fn issued(
    authority: &CertificateAuthority,
    request: &QueuedRequest,
) -> Result<Result<(), &'static str>, CaError> {
    let (intent, content) = match (request.state, request.intent) {
        (QueueState::Issued, Some(intent)) => (intent, &request.content),
        (QueueState::Issued, None) => return Ok(Err("it was issued, and names no issuance")),
        (_, None) => return Ok(Ok(())),
        (_, Some(_)) => return Ok(Err("it names an issuance, and was not issued")),
    };
    let Some(record) = authority.store().issuance(intent).await? else {
        return Ok(Err("its issuance is missing"));
    };
    let same = record.identity.as_ref() == Some(&content.identity)
        && record.spki_sha256 == content.spki_sha256
        && record.profile == content.profile
        && record.requester == content.requester;
    Ok(if same { Ok(()) } else { Err("the certificate that was issued is not what was approved") })
}
