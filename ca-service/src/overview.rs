//! Issuance, expiry and revocation at a glance, from bounded reads.

use std::collections::BTreeMap;

use ca_api::{
    AuthorityStanding, DayOfIssuance, EndingCertificate, EndingWithin, Overview, PublishedList,
    RecentRevocation,
};

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::overview::{COUNTED_ENDS, COUNTED_ISSUANCES, StoredOverview, WINDOWS};
use crate::storage::{CrlPart, State};
use crate::wire::{wire_identity, wire_reason};

impl CertificateAuthority {
    /// What an operator sees at a glance.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn overview(&self) -> Result<Overview, CaError> {
        let now = self.clock.for_records();
        let stored = self.store.overview(now).await?;
        let (issuing, not_issuing) = match self.issuing(now) {
            Ok((authority, _)) => (Some(authority.name.clone()), None),
            Err(CaError::NotIssuing(reason)) => (None, Some(reason.code().to_owned())),
            Err(error) => return Err(error),
        };
        let authorities = self.authorities.values().map(|authority| AuthorityStanding {
            name: authority.name.clone(),
            role: authority.role,
            not_after: authority.not_after.map(|end| end.0),
            revoked: self.has_fallen(&authority.name),
            list: self.published_crl(&authority.name, CrlPart::Complete).map(|list| PublishedList {
                number: list.number,
                this_update: list.this_update,
                next_update: list.next_update,
            }),
        });
        let authorities = authorities.collect();
        let ending = WINDOWS.into_iter().zip(stored.ending);
        Ok(Overview {
            at: now.0,
            issuing,
            not_issuing,
            recorded: stored.recorded,
            waiting_requests: stored.waiting,
            days: days(&stored),
            days_count_at_most: COUNTED_ISSUANCES,
            ending: ending
                .map(|(days, certificates)| EndingWithin { days, certificates, at_most: COUNTED_ENDS })
                .collect(),
            ending_next: stored
                .ending_next
                .into_iter()
                .map(|certificate| EndingCertificate {
                    serial: certificate.serial.to_string(),
                    identity: certificate.identity.as_ref().map(wire_identity),
                    profile: certificate.profile,
                    not_after: certificate.not_after.0,
                })
                .collect(),
            revoked_within_30_days: stored.revoked,
            revocations: stored
                .revocations
                .into_iter()
                .map(|(revocation, identity, profile)| RecentRevocation {
                    serial: revocation.serial.to_string(),
                    identity: identity.as_ref().map(wire_identity),
                    profile,
                    reason: wire_reason(revocation.reason),
                    revoked_at: revocation.revoked_at.0,
                    recorded_at: revocation.recorded_at.0,
                    event_log_index: revocation.event_index,
                })
                .collect(),
            authorities,
        })
    }
}

/// One line for each day, the newest first.
fn days(stored: &StoredOverview) -> Vec<DayOfIssuance> {
    let mut days: BTreeMap<i64, DayOfIssuance> = BTreeMap::new();
    for (day, state, number) in &stored.days {
        let line = days.entry(day.0).or_insert(DayOfIssuance {
            day: day.0,
            issued: 0,
            revoked: 0,
            open: 0,
            maybe_issued: 0,
            abandoned: 0,
        });
        match state {
            State::Delivered => line.issued += number,
            State::Revoked => {
                line.issued += number;
                line.revoked += number;
            }
            State::MaybeIssued => line.maybe_issued += number,
            State::Abandoned => line.abandoned += number,
            State::Intent | State::Signing | State::Signed | State::Logged => line.open += number,
        }
    }
    days.into_values().rev().collect()
}
