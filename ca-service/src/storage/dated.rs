//! A certificate's status on a date, from its record.

use ca_pki::UnixTime;
use ca_pki::crl::RevocationReason;

use super::{State, Step, StoredCertificate};

/// What holds of a certificate on a date, by all that is recorded today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatedStatus {
    /// Valid and not revoked.
    Good,
    /// Revoked by then.
    Revoked {
        /// From when on.
        at: UnixTime,
        /// Why.
        reason: RevocationReason,
    },
    /// Its validity had not begun.
    NotYetValid,
    /// Its validity had ended.
    Expired,
    /// It was never finished.
    Unknown,
}

impl StoredCertificate {
    /// The status on a date. A revocation counts from its own date on, whenever it was recorded.
    #[must_use]
    pub fn status_on(&self, at: UnixTime) -> DatedStatus {
        if let Some(revocation) = &self.revocation
            && revocation.revoked_at <= at
        {
            return DatedStatus::Revoked { at: revocation.revoked_at, reason: revocation.reason };
        }
        let finished =
            matches!(self.state, State::Signed | State::Logged | State::Delivered | State::Revoked)
                && self.step == Step::Certificate
                && self.signature.is_some();
        if !finished {
            DatedStatus::Unknown
        } else if at < self.not_before {
            DatedStatus::NotYetValid
        } else if at > self.not_after {
            DatedStatus::Expired
        } else {
            DatedStatus::Good
        }
    }
}
