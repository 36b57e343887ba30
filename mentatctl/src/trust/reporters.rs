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

/// An issuing CA: DER of its name, SHA-256 of its key.
type Issuer = (Bytes, Bytes);

/// Narrows the rules about revocations that name no issuer, or no issuer's key, and whose keys are all this authority's, to the
/// certificates that its issuing CAs made. Not to those of its root, below which there may be other authorities.
///
/// # Errors
/// When a certificate or key of the authority cannot be read.
pub fn bind(logs: &mut LogSet, authorities: &Authorities) -> Outcome<()> {
    let mut keys: BTreeSet<Bytes> = BTreeSet::new();
    let mut issuers: BTreeSet<Issuer> = BTreeSet::new();
    for authority in &authorities.authorities {
        match authority.role {
            AuthorityRole::Statement => {
                let key = pem::decode(&authority.public_key, "PUBLIC KEY", 1);
                keys.extend(key.or_fail(Exit::Failure, &authority.name)?.into_iter().map(Bytes));
            }
            AuthorityRole::CodeSigning | AuthorityRole::TimeStamping => {
                if let Some(pem) = &authority.certificate {
                    let certificates = chain_file::parse(pem, &authority.name)?;
                    issuers.extend(
                        certificates
                            .first()
                            .map(|own| (Bytes(own.subject_der().to_vec()), Bytes(own.key_digest().to_vec()))),
                    );
                }
            }
            AuthorityRole::Root | AuthorityRole::OcspResponder | AuthorityRole::TimestampAuthority => {}
        }
    }
    for log in &mut logs.0 {
        let rules = log.events.rules().iter().flat_map(|rule| narrowed(rule, &keys, &issuers)).collect();
        log.events = EventRules::new(rules).or_fail(Exit::Failure, &log.origin)?;
    }
    Ok(())
}

fn narrowed(rule: &EventRule, keys: &BTreeSet<Bytes>, issuers: &BTreeSet<Issuer>) -> Vec<EventRule> {
    let is_ours = rule.predicate_type == REVOCATION && rule.keys.iter().all(|key| keys.contains(key));
    let meant = issuers.iter().filter(|(name, _)| rule.issuer_name.as_ref().is_none_or(|it| it == name));
    let narrower: Vec<EventRule> = meant
        .map(|(name, key)| EventRule {
            issuer_name: Some(name.clone()),
            issuer_key: Some(key.clone()),
            ..rule.clone()
        })
        .collect();
    if !is_ours || rule.issuer_key.is_some() || narrower.is_empty() { vec![rule.clone()] } else { narrower }
}

/// Whether somebody is believed about the revocation of certificates of whatever CA, or of whichever has a name.
pub fn names_no_issuer(logs: &LogSet) -> bool {
    let mut rules = logs.0.iter().flat_map(|log| log.events.rules());
    rules.any(|rule| rule.predicate_type == REVOCATION && rule.issuer_key.is_none())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_rules_of_this_authoritys_keys_are_narrowed_to_its_issuers() {
        let bytes = |fill: u8| Bytes(vec![fill]);
        let issuers = BTreeSet::from([(bytes(8), bytes(18)), (bytes(9), bytes(19))]);
        let keys = BTreeSet::from([bytes(1), bytes(2)]);
        let rule = |kind: &str, keys: &[u8]| EventRule {
            predicate_type: kind.into(),
            issuer: None,
            issuer_name: None,
            issuer_key: None,
            keys: keys.iter().map(|key| bytes(*key)).collect(),
        };
        let about = |rule: &EventRule| {
            let rules = narrowed(rule, &keys, &issuers);
            let first = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.0[0]);
            rules
                .into_iter()
                .map(|rule| (first(rule.issuer_name), first(rule.issuer_key)))
                .collect::<Vec<_>>()
        };
        assert_eq!(about(&rule(REVOCATION, &[1, 2])), [(Some(8), Some(18)), (Some(9), Some(19))]);
        assert_eq!(about(&rule(REVOCATION, &[1, 3])), [(None, None)], "somebody else's key");
        assert_eq!(about(&rule("another type", &[1])), [(None, None)]);
        let named = |name| EventRule { issuer_name: Some(bytes(name)), ..rule(REVOCATION, &[1]) };
        assert_eq!(about(&named(9)), [(Some(9), Some(19))], "a name gets its key");
        assert_eq!(about(&named(7)), [(Some(7), None)], "what the log says of others stands");
        let whole = EventRule { issuer_key: Some(bytes(7)), ..named(9) };
        assert_eq!(about(&whole), [(Some(9), Some(7))]);
        assert_eq!(narrowed(&rule(REVOCATION, &[1]), &keys, &BTreeSet::new()).len(), 1);
    }
}
