//! Requests that waited for people: what the records say of them against the audit trail and the certificates that came of them.

use std::collections::HashSet;

use ca_pki::oid::ObjectIdentifier;
use ca_pki::{DistinguishedName, extension};
use der::Encode as _;
use sha2::{Digest as _, Sha256};

use super::trail::Trail;
use super::{PAGE, Report};
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::queue::statement::{digest, statement};
use crate::storage::queue::{QueueSearch, QueueState, QueuedRequest, RequestContent};

/// The arc of the extensions that say whose identity it is.
const SIGSTORE: &str = "1.3.6.1.4.1.57264.1.";

/// Checks every request that is remembered.
pub(super) async fn requests(
    authority: &CertificateAuthority,
    trail: &Trail,
    report: &mut Report,
) -> Result<(), CaError> {
    let mut found = HashSet::new();
    for state in QueueState::ALL {
        let mut after = 0;
        loop {
            let search = QueueSearch { state: Some(state), after, limit: PAGE };
            let page = authority.store().queue(search).await?;
            let Some(last) = page.last() else { break };
            after = last.number;
            for request in &page {
                report.requests += 1;
                found.insert(hex::encode(request.content.id));
                let mut outcome = recorded(request, trail);
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
    for id in trail.open_requests().filter(|id| !found.contains(*id)) {
        report.findings.push(format!("request {id}: the audit trail has it open, and its record is missing"));
    }
    Ok(())
}

/// What is recorded is what was announced, approved and closed by the trail.
fn recorded(request: &QueuedRequest, trail: &Trail) -> Result<(), &'static str> {
    let content = &request.content;
    let shown = digest(&statement(content).map_err(|_| "its statement cannot be written")?);
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
    let lives = request.state.is_open() || request.state == QueueState::Issued;
    match (lives, trail.has_closed(&content.id)) {
        (true, true) => Err("the audit trail says that it was closed"),
        (false, false) => Err("the audit trail does not say that it was closed"),
        _ => Ok(()),
    }
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
    let unlike = "the certificate that was issued is not what was approved";
    if !same || record.issuer != content.issuer {
        return Ok(Err(unlike));
    }
    let evidence = authority.store().evidence(intent).await?.unwrap_or_default();
    if !names(&evidence, request) {
        return Ok(Err("its issuance says of other approvals that it was based on them"));
    }
    // Of what was begun and never signed there is none.
    if record.signature.is_none() {
        return Ok(Ok(()));
    }
    Ok(if says(&authority.assembled(&record)?, content).unwrap_or(false) { Ok(()) } else { Err(unlike) })
}

/// Whether the evidence of an issuance names this request, what it says, and who approved that.
fn names(evidence: &str, request: &QueuedRequest) -> bool {
    let Ok(shown) = statement(&request.content).map(|text| digest(&text)) else { return false };
    let evidence: serde_json::Value = serde_json::from_str(evidence).unwrap_or_default();
    let said = |name: &str| evidence.get("approval").and_then(|approval| approval.get(name));
    let of_this = request.approvals.iter().filter(|approval| approval.statement == shown);
    let mut approvers: Vec<&str> = of_this.map(|approval| approval.approver.as_str()).collect();
    let named =
        said("approvers").and_then(|named| named.as_array()?.iter().map(|name| name.as_str()).collect());
    let mut named: Vec<&str> = named.unwrap_or_default();
    // Rows come in the order of the database's collation, which was another one when it was built otherwise or brought elsewhere.
    approvers.sort_unstable();
    named.sort_unstable();
    said("request") == Some(&hex::encode(request.content.id).into())
        && said("statement_sha256") == Some(&hex::encode(shown).into())
        && named == approvers
}

/// Whether a certificate has the subject, validity and extensions that were approved.
fn says(certificate: &[u8], content: &RequestContent) -> Option<bool> {
    let parsed = ca_pki::certificate::parse(certificate).ok()?;
    let tbs = parsed.tbs_certificate();
    let subject = DistinguishedName::from_der(&tbs.subject().to_der().ok()?).ok()?;
    let [begins, ends] = [tbs.validity().not_before, tbs.validity().not_after]
        .map(|time| i64::try_from(time.to_unix_duration().as_secs()).ok());
    let mut expected = extension::sigstore_issuer(&content.identity_issuer).ok()?.to_vec();
    for (oid, text) in &content.claims {
        expected.push(extension::sigstore_claim(ObjectIdentifier::new(oid).ok()?, text).ok()?);
    }
    let found: Vec<_> = tbs.extensions().into_iter().flatten().collect();
    let of_sigstore = found.iter().filter(|one| one.extn_id.to_string().starts_with(SIGSTORE)).count();
    Some(
        subject.to_text() == content.terms.subject
            && ends? - begins? < content.terms.lifetime_seconds
            && content.terms.ends_by.is_none_or(|end| ends.is_some_and(|ends| ends <= end))
            && of_sigstore == expected.len()
            && expected.iter().all(|one| found.contains(&one)),
    )
}
