//! Renewals against what became of the certificates that they came of: none stands where its end was demanded.

use ca_pki::SerialNumber;
use ca_pki::crl::RevocationReason;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{BY_CERTIFICATE, State, StoredCertificate, StoredRevocation};

/// Judges a certificate; what came of no other one is none of this module's.
pub(super) async fn judge(
    authority: &CertificateAuthority,
    record: &StoredCertificate,
) -> Result<Result<(), String>, CaError> {
    let Some(serial) = record.requester.strip_prefix(BY_CERTIFICATE) else { return Ok(Ok(())) };
    let Ok(serial) = SerialNumber::from_hex(serial) else {
        return Ok(Err("it does not say what it renews".to_owned()));
    };
    let Some(renewed) = authority.store().certificate(&serial).await? else {
        return Ok(Err(format!("{serial}, which it renews, is missing")));
    };
    if matches!(record.state, State::Intent | State::Abandoned | State::Revoked) {
        return Ok(Ok(()));
    }
    let Some(revocation) = &renewed.revocation else { return Ok(Ok(())) };
    let ends = match authority.store().renewal_end(&serial).await? {
        Some(end) => end.which.since.is_none_or(|since| since <= record.created_at),
        None => ended_with(revocation, record),
    };
    Ok(if ends { Err(format!("it stands, although {serial}, which it renews, was revoked")) } else { Ok(()) })
}

/// What a revocation of before demands were recorded said of renewals.
fn ended_with(revocation: &StoredRevocation, record: &StoredCertificate) -> bool {
    match revocation.reason {
        RevocationReason::KeyCompromise => revocation.revoked_at <= record.created_at,
        RevocationReason::AffiliationChanged
        | RevocationReason::CaCompromise
        | RevocationReason::PrivilegeWithdrawn => true,
        _ => false,
    }
}
