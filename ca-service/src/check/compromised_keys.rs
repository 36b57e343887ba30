//! Certificates against the keys that are in other hands: none stands that has one of them.

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{State, StoredCertificate};

/// Judges a certificate; of what was never signed, or is revoked, nothing is demanded.
pub(super) async fn judge(
    authority: &CertificateAuthority,
    record: &StoredCertificate,
) -> Result<Result<(), String>, CaError> {
    if matches!(record.state, State::Intent | State::Abandoned | State::Revoked) {
        return Ok(Ok(()));
    }
    if authority.settings().blocked_keys.contains(&record.spki_sha256) {
        return Ok(Err("it stands, although its key is one of enrolment.blocked_keys_file".to_owned()));
    }
    let compromised = authority.store().is_compromised(&record.spki_sha256).await?;
    Ok(if compromised {
        Err("it stands, although its key was revoked as compromised with another certificate".to_owned())
    } else {
        Ok(())
    })
}
