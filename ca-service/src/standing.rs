//! Whether the CA's own certificates may still sign: neither they nor anything above them is revoked, and they have not ended.
//!
//! A CA whose certificate was revoked goes on publishing its lists and answering for what it issued; it issues nothing. What is
//! known as revoked is only added to while the process lives: no revocation is ever taken back.

use std::fmt;
use std::sync::PoisonError;

use ca_pki::certificate::Issuer;
use ca_pki::{SerialNumber, UnixTime};

use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::error::CaError;
use crate::storage::StoreError;

/// Why a CA issues nothing; in ascending order of gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotIssuing {
    /// An interruption left it without its OCSP responder, or there is none at all.
    Incomplete,
    /// It has issued for as long as it may: a successor does from here on, and it only says what became of its certificates.
    Retired,
    /// Its certificate has ended.
    Expired,
    /// Its certificate, or one above it, was revoked.
    Revoked,
}

impl NotIssuing {
    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Expired => "issuing_ca_expired",
            Self::Incomplete => "issuing_ca_incomplete",
            Self::Retired => "issuing_ca_retired",
            Self::Revoked => "issuing_ca_revoked",
        }
    }
}

impl fmt::Display for NotIssuing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Expired => "the certificate of the issuing CA has expired; it needs a successor",
            Self::Incomplete => "there is no issuing CA with its OCSP responder",
            Self::Retired => "the issuing CA has issued for as long as it may; it needs a successor",
            Self::Revoked => "the issuing CA was revoked, or a CA above it; it needs a successor",
        })
    }
}

/// How one of the CA's own certificates fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fall {
    /// It was revoked: its key may be in other hands, so nothing that it signs is worth anything.
    Itself,
    /// A CA above it was: its lists and answers go on telling of that.
    Above,
}

impl CertificateAuthority {
    /// The CA that issues to subscribers: the newest whose responder is there too. One that an interruption left without goes on
    /// publishing its lists, and issues nothing. Those before it were retired: they never issue again, whatever becomes of it.
    ///
    /// # Errors
    /// [`CaError::NotIssuing`] when there is none, or it does not stand.
    pub fn issuing(&self, now: UnixTime) -> Result<(&LoadedAuthority, &Issuer), CaError> {
        let newest = self.newest_issuing().ok_or(CaError::NotIssuing(NotIssuing::Incomplete))?;
        self.standing(newest, now).map_err(CaError::NotIssuing)?;
        let (authority, issuer) = self.issuer(&newest.name)?;
        if now >= self.retires_at(issuer) {
            return Err(CaError::NotIssuing(NotIssuing::Retired));
        }
        Ok((authority, issuer))
    }

    /// The newest CA for code signing that has its responder, whether it stands or not.
    pub(crate) fn newest_issuing(&self) -> Option<&LoadedAuthority> {
        self.generations(names::CODE_SIGNING).find(|it| self.responder_of(&it.name).is_ok())
    }

    /// From when on a CA for code signing issues nothing to subscribers (ca-requirements §8): what signs new certificates and what must
    /// answer for ten years more are soon different keys, and no list grows for ever.
    #[must_use]
    pub fn retires_at(&self, issuer: &Issuer) -> UnixTime {
        issuer.not_before.plus(i64::from(self.settings.config.hierarchy.issuing_days) * 86_400)
    }

    /// From when on the CA that issues to subscribers issues nothing any more: it retires, or its certificate ends.
    pub(crate) fn issues_until(&self) -> Option<UnixTime> {
        let issuer = self.newest_issuing()?.issuer.as_ref()?;
        Some(self.retires_at(issuer).min(issuer.not_after))
    }

    /// When the first of the CA's own certificates ends, or the issuing CA retires.
    pub(crate) fn first_end(&self) -> Option<UnixTime> {
        let ends = self.authorities.values().filter_map(|each| each.not_after);
        ends.chain(self.issues_until()).min()
    }

    /// Refuses what was decided before the CA's own certificate fell: asked once more before each signature on a certificate.
    ///
    /// # Errors
    /// [`CaError::NotIssuing`], [`CaError::Inconsistent`] for an unknown authority.
    pub fn may_issue(&self, name: &str, now: UnixTime) -> Result<(), CaError> {
        self.standing(self.authority(name)?, now).map_err(CaError::NotIssuing)
    }

    /// Whether it is revoked, itself or a CA above it.
    #[must_use]
    pub fn has_fallen(&self, name: &str) -> bool {
        self.fall(name).is_some()
    }

    /// Refuses where another server took the records over, or may have: what it recorded since is unknown here, a revocation among it.
    ///
    /// # Errors
    /// [`StoreError::AnotherServes`], [`StoreError::SuccessorUnknown`].
    pub(crate) fn still_serves(&self) -> Result<(), StoreError> {
        match self.store.write_failure() {
            Some(error @ (StoreError::AnotherServes | StoreError::SuccessorUnknown)) => Err(error),
            _ => Ok(()),
        }
    }

    /// How it fell, if it did.
    pub(crate) fn fall(&self, name: &str) -> Option<Fall> {
        self.fallen.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Whether an authority may sign something new.
    fn standing(&self, authority: &LoadedAuthority, now: UnixTime) -> Result<(), NotIssuing> {
        if self.has_fallen(&authority.name) {
            return Err(NotIssuing::Revoked);
        }
        match authority.not_after {
            Some(end) if end < now => Err(NotIssuing::Expired),
            _ => Ok(()),
        }
    }

    /// Looks which of the CA's own certificates are revoked; at the start, and again and again, because another instance may have
    /// revoked one.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn look_at_own_certificates(&self) -> Result<(), CaError> {
        for authority in self.authorities.values().filter(|it| !it.certificate.is_empty()) {
            let serial = serial_of(authority)?;
            let record = self.store.certificate(&serial).await?;
            if record.is_some_and(|record| record.revocation.is_some()) {
                self.note_own_revocation(&serial);
            }
        }
        Ok(())
    }

    /// Takes note that one of the CA's own certificates is revoked: with it falls everything below it.
    pub(crate) fn note_own_revocation(&self, serial: &SerialNumber) {
        let own = self.authorities.values().find(|it| serial_of(it).is_ok_and(|found| found == *serial));
        // Of those that were renewed the present certificates alone are there; the former ones sign nothing.
        let Some(revoked) = own else { return };
        let below = self.authorities.values().filter(|it| it.chain.contains(&revoked.certificate));
        let below: Vec<&str> =
            below.map(|it| it.name.as_str()).filter(|name| *name != revoked.name).collect();
        let mut fallen = self.fallen.write().unwrap_or_else(PoisonError::into_inner);
        if fallen.insert(revoked.name.clone(), Fall::Itself) != Some(Fall::Itself) {
            tracing::error!(
                authority = revoked.name,
                "revoked: it issues nothing, and a responder answers nothing"
            );
            // What a responder signed ahead goes with it.
            self.presigned.demand_pass();
        }
        for name in below {
            if !fallen.contains_key(name) {
                fallen.insert(name.to_owned(), Fall::Above);
                tracing::error!(authority = name, "a CA above it was revoked: it issues nothing");
            }
        }
    }
}

/// The serial number of an authority's certificate.
fn serial_of(authority: &LoadedAuthority) -> Result<SerialNumber, CaError> {
    let parsed = ca_pki::certificate::parse(&authority.certificate)?;
    Ok(SerialNumber::from_magnitude(parsed.tbs_certificate().serial_number().as_bytes())?)
}
