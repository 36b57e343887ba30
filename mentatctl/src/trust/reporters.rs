//! Whose certificates an authority's statements are about. Where the log's configuration does not say it, the keys file that is
//! exported does: a key of one authority must not stop what another one certified.

use std::collections::BTreeSet;

use ca_api::{Authorities, AuthorityRole};
use tlog_client::LogSet;
use trust_store::event::{EventRule, EventRules};
use trust_store::json::Bytes;
use trust_store::pem;

use crate::chain_file;
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::log::event_key::REVOCATION;

/// Narrows the rules about revocations that name no issuer, and whose keys are all this authority's, to the certificates that it
/// issues.
///
/// # Errors
/// When a certificate or key of the authority cannot be read.
pub fn bind(logs: &mut LogSet, authorities: &Authorities) -> Outcome<()> {
    let mut keys: BTreeSet<Bytes> = BTreeSet::new();
    let mut issuers: BTreeSet<Bytes> = BTreeSet::new();
    for authority in &authorities.authorities {
        match authority.role {
            AuthorityRole::Statement => {
                let key = pem::decode(&authority.public_key, "PUBLIC KEY", 1);
                keys.extend(key.or_fail(Exit::Failure, &authority.name)?.into_iter().map(Bytes));
            }
            AuthorityRole::Root | AuthorityRole::CodeSigning | AuthorityRole::TimeStamping => {
                if let Some(pem) = &authority.certificate {
                    let certificates = chain_file::parse(pem, &authority.name)?;
                    issuers.extend(certificates.first().map(|own| Bytes(own.subject_der().to_vec())));
                }
            }
            AuthorityRole::OcspResponder | AuthorityRole::TimestampAuthority => {}
        }
    }
    for log in &mut logs.0 {
        let rules = log.events.rules().iter().flat_map(|rule| narrowed(rule, &keys, &issuers)).collect();
        log.events = EventRules::new(rules).or_fail(Exit::Failure, &log.origin)?;
    }
    Ok(())
}

fn narrowed(rule: &EventRule, keys: &BTreeSet<Bytes>, issuers: &BTreeSet<Bytes>) -> Vec<EventRule> {
    let is_ours = rule.predicate_type == REVOCATION && rule.keys.iter().all(|key| keys.contains(key));
    if !is_ours || rule.issuer_name.is_some() || issuers.is_empty() {
        return vec![rule.clone()];
    }
    issuers.iter().map(|name| EventRule { issuer_name: Some(name.clone()), ..rule.clone() }).collect()
}

/// Whether somebody is believed about the revocation of whatever certificate.
pub fn names_no_issuer(logs: &LogSet) -> bool {
    let mut rules = logs.0.iter().flat_map(|log| log.events.rules());
    rules.any(|rule| rule.predicate_type == REVOCATION && rule.issuer_name.is_none())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_rules_of_this_authoritys_keys_are_narrowed_to_its_issuers() {
        let bytes = |fill: u8| Bytes(vec![fill]);
        let (keys, issuers) = (BTreeSet::from([bytes(1), bytes(2)]), BTreeSet::from([bytes(8), bytes(9)]));
        let rule = |kind: &str, keys: &[u8]| EventRule {
            predicate_type: kind.into(),
            issuer: None,
            issuer_name: None,
            keys: keys.iter().map(|key| bytes(*key)).collect(),
        };
        let names = |rule: &EventRule| {
            let rules = narrowed(rule, &keys, &issuers);
            rules.into_iter().map(|rule| rule.issuer_name.map(|name| name.0)).collect::<Vec<_>>()
        };
        assert_eq!(names(&rule(REVOCATION, &[1, 2])), [Some(vec![8]), Some(vec![9])]);
        assert_eq!(names(&rule(REVOCATION, &[1, 3])), [None], "somebody else's key");
        assert_eq!(names(&rule("another type", &[1])), [None]);
        let named = EventRule { issuer_name: Some(bytes(7)), ..rule(REVOCATION, &[1]) };
        assert_eq!(names(&named), [Some(vec![7])], "what the log says stands");
        assert_eq!(narrowed(&rule(REVOCATION, &[1]), &keys, &BTreeSet::new()).len(), 1);
    }
}
