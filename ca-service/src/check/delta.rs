//! Delta lists: with the complete list that it builds on, each must say what the complete list of its own number says (RFC 5280
//! §5.2.4). The base itself is not kept; the audit trail says what was revoked after it.

use ca_pki::SerialNumber;
use trust_store::crl::{Crl, CrlNumber};

use super::NOW;
use super::trail::Trail;
use crate::storage::{CrlPart, StoredCrl};

/// What is wrong with the delta list of an issuer, if it has one.
pub(super) fn findings(issuer: &str, published: &[StoredCrl], trail: &Trail) -> Vec<String> {
    let part = |wanted| published.iter().find(|crl| crl.issuer == issuer && crl.part == wanted);
    let (Some(complete), Some(delta)) = (part(CrlPart::Complete), part(CrlPart::Delta)) else {
        return Vec::new();
    };
    match judge(issuer, complete, delta, trail) {
        Ok(missing) => missing
            .into_iter()
            .map(|serial| {
                format!(
                    "list {issuer} Delta: {serial} is in the complete list, and neither in the base nor here"
                )
            })
            .collect(),
        Err(finding) => vec![format!("list {issuer} Delta: {finding}")],
    }
}

/// Each is published by itself, so a reading between the two finds them so. The next one finds another list then; what is the same list still
/// was left behind.
pub(super) fn of_another_number(delta: u64, complete: u64) -> String {
    format!("its number {delta} is not that of the complete list{NOW}{complete})")
}

/// What was revoked after the base and is missing.
fn judge(
    issuer: &str,
    complete: &StoredCrl,
    delta: &StoredCrl,
    trail: &Trail,
) -> Result<Vec<SerialNumber>, String> {
    if delta.number != complete.number {
        return Err(of_another_number(delta.number, complete.number));
    }
    let read = |crl: &StoredCrl| Crl::from_der(&crl.der).map_err(|error| format!("{error:?}"));
    let (complete, delta) = (read(complete)?, read(delta)?);
    let base = delta.base_number().and_then(number).ok_or("it does not say what it builds on")?;
    let since = trail.published(issuer, -1, base).ok_or("it builds on a list that was never published")?;
    let mut missing = Vec::new();
    for (octets, _) in complete.entries() {
        let serial = SerialNumber::from_magnitude(octets).map_err(|error| error.to_string())?;
        if trail.revoked(&serial).is_some_and(|at| at > since)
            && delta.entry(octets, delta.issuer_name()).is_none()
        {
            missing.push(serial);
        }
    }
    Ok(missing)
}

fn number(number: &CrlNumber) -> Option<u64> {
    number.octets().iter().try_fold(0_u64, |value, octet| {
        value.checked_mul(256).and_then(|value| value.checked_add(u64::from(*octet)))
    })
}
