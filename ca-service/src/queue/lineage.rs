//! Who stands behind a certificate that is renewed by its key: whoever vouched for the first of its line, and everybody who is known to
//! have asked for one of them. Where people approve a renewal, none of those is a second person.

use ca_pki::SerialNumber;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{BY_CERTIFICATE, StoredCertificate};

/// Most certificates of a line that are gone back; beyond, nobody is known to have vouched for it.
const MAX_GENERATIONS: usize = 1_000;
/// Most names that are carried on.
const MAX_NAMES: usize = 64;

/// Who stands behind a certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// Whatever those who asked are known by.
    pub(crate) names: Vec<String>,
    /// Who vouched for the first of them, as audit records name them; none where that is not known.
    pub(crate) vouched_by: Option<String>,
    /// Whatever they are known by.
    pub(crate) voucher_names: Vec<String>,
}

impl Lineage {
    /// Takes over the names that an issuance says asked for it.
    fn add(&mut self, evidence: &str) -> Result<(), CaError> {
        let evidence: serde_json::Value = serde_json::from_str(evidence)
            .map_err(|_| CaError::Inconsistent("the evidence of an issuance is not JSON"))?;
        let said = evidence.get("asked_by").and_then(serde_json::Value::as_array);
        for name in said.into_iter().flatten().filter_map(serde_json::Value::as_str) {
            self.name(name);
        }
        Ok(())
    }

    /// Adds a name, once.
    pub(crate) fn name(&mut self, name: &str) {
        if !self.names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            self.names.push(name.to_owned());
        }
    }
}

impl CertificateAuthority {
    /// Who stands behind a certificate that was asked for with a one-time token, a code, or the key of another one.
    pub(crate) async fn lineage(&self, of: &StoredCertificate) -> Result<Lineage, CaError> {
        let mut lineage = Lineage::default();
        let (mut requester, mut intent) = (of.requester.clone(), of.intent);
        for _ in 0..MAX_GENERATIONS {
            lineage.add(&self.store.evidence(intent).await?.unwrap_or_default())?;
            if lineage.names.len() > MAX_NAMES {
                break;
            }
            if let Some(serial) = requester.strip_prefix(BY_CERTIFICATE) {
                let serial = SerialNumber::from_hex(serial)
                    .map_err(|_| CaError::Inconsistent("a renewal does not say of what"))?;
                let parent = self.store.certificate(&serial).await?;
                let parent = parent.ok_or(CaError::Inconsistent("what was renewed is missing"))?;
                (requester, intent) = (parent.requester, parent.intent);
                continue;
            }
            let hash = requester.strip_prefix("token:").and_then(|digits| hex::decode(digits).ok());
            let Some(hash) = hash.and_then(|octets| <[u8; 32]>::try_from(octets).ok()) else { break };
            if let Some(token) = self.store.token(&hash).await? {
                lineage.vouched_by = token.created_by;
                lineage.voucher_names = token.creator_names;
            }
            break;
        }
        Ok(lineage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_from_evidence_once_whatever_their_case() {
        let mut lineage = Lineage::default();
        lineage.add(r#"{"asked_by":["CN=alice","alice@example.org"],"evidence":{}}"#).unwrap();
        lineage.add(r#"{"asked_by":["Alice@example.org","CN=bob"]}"#).unwrap();
        lineage.add(r#"{"method":"one-time-token"}"#).unwrap();
        assert_eq!(lineage.names, ["CN=alice", "alice@example.org", "CN=bob"]);
        assert!(lineage.add("no JSON").is_err());
    }
}
