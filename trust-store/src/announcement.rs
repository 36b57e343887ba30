//! Revocations that a CA announced in an event log, for readers that do not wait for its next list.
//!
//! An announcement only denies: it never says that a certificate is good, which lists and answers show as before. So
//! whoever announces falsely stops what he could have revoked as well, and gains nothing.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::crl::RevocationReason;
use crate::error::Error;
use crate::event::{Concerned, VerifiedEvent};
use crate::json::{Int64, Value};
use crate::time::UnixTime;

/// `predicateType` of a revocation.
pub const REVOCATION_TYPE: &str = "https://mentat.internal/revocation/v1";
/// Most announcements that are kept. Beyond it those recorded longest ago make place, since lists have them by then, of whom more
/// are kept than is its share: what one authority writes pushes out nothing of another.
pub const MAX_ANNOUNCEMENTS: usize = 16_384;

/// Digits of the longest serial number (RFC 5280 section 4.1.2.2: 20 octets).
const MAX_SERIAL_DIGITS: usize = 40;

/// One revocation, as the CA's statement says it. Made of a verified event only; that the event stood in a log whose
/// checkpoint was verified is for whoever reads the log to see to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    about: Named,
    at: UnixTime,
    recorded: UnixTime,
    reason: RevocationReason,
}

/// What an announcement is about, in its own words and by whose right: what one key may say takes no other's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    /// SHA-256 of the certificate.
    certificate: [u8; 32],
    /// The only issuers that the key speaks for; none: any.
    issuers: Arc<[Concerned]>,
    /// Hexadecimal, without zeros in front.
    serial: String,
}

/// Announcements by the certificate that each names. Copying counts references.
///
/// What is serialised is for whoever made them, to be kept where nobody else writes: no signature goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Kept>", into = "Vec<Kept>")]
pub struct Announcements(Arc<BTreeMap<Named, Announcement>>);

impl Announcement {
    /// The revocation that an event announces. `None` for an event of another type, one that does not name one
    /// certificate with dates and a reason, and one that may be taken back: holds are for lists to say.
    pub fn of(event: &VerifiedEvent) -> Option<Self> {
        let statement = event.statement();
        let [subject] = &statement.subject[..] else { return None };
        if statement.predicate_type != REVOCATION_TYPE {
            return None;
        }
        let mut certificate = [0; 32];
        hex::decode_to_slice(subject.digest.get("sha256")?, &mut certificate).ok()?;
        let member = |key| statement.predicate.member(key);
        let number = |key| match member(key) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        };
        let reason = RevocationReason::from_code(u32::try_from(number("reason")?).ok()?)?;
        if !is_final(reason) {
            return None;
        }
        let about = Named {
            certificate,
            issuers: Arc::clone(event.issuers()),
            serial: Some(significant(member("serial")?.as_str()?))
                .filter(|serial| serial.len() <= MAX_SERIAL_DIGITS)?
                .to_ascii_lowercase(),
        };
        let [at, recorded] = [number("revokedAt")?, number("recordedAt")?].map(UnixTime);
        Some(Self { about, at, recorded, reason })
    }

    /// When the CA wrote it down, by its own clock.
    pub fn recorded(&self) -> UnixTime {
        self.recorded
    }

    /// Both said: the earlier date, and the reason that forgives less.
    fn and(self, other: &Self) -> Self {
        let (at, recorded) = (self.at.min(other.at), self.recorded.min(other.recorded));
        Self { at, recorded, reason: self.reason.or_graver(other.reason), ..self }
    }
}

impl Announcements {
    /// These and further ones.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = Announcement>) -> Self {
        let mut all = BTreeMap::clone(&self.0);
        for announcement in more {
            let announcement = match all.get(&announcement.about) {
                Some(known) => announcement.and(known),
                None => announcement,
            };
            all.insert(announcement.about.clone(), announcement);
        }
        if let Some(surplus) = all.len().checked_sub(MAX_ANNOUNCEMENTS).filter(|surplus| *surplus > 0) {
            for about in above_their_share(&all).into_iter().take(surplus) {
                all.remove(&about);
            }
        }
        Self(Arc::new(all))
    }

    /// Those recorded no later than `latest`, and the others.
    pub fn divided(&self, latest: UnixTime) -> (Vec<Announcement>, Self) {
        let (due, ahead): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .0
            .iter()
            .map(|(about, one)| (about.clone(), one.clone()))
            .partition(|(_, one)| one.recorded <= latest);
        (due.into_values().collect(), Self(Arc::new(ahead)))
    }

    /// When the first of them was recorded.
    pub fn earliest(&self) -> Option<UnixTime> {
        self.0.values().map(|one| one.recorded).min()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The revocation of this certificate of this issuer, if one is announced that is dated no later than `latest`.
    pub(crate) fn of(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        latest: UnixTime,
    ) -> Option<(UnixTime, RevocationReason)> {
        if self.0.is_empty() {
            return None;
        }
        let fingerprint = certificate.fingerprint();
        let first = Named { certificate: fingerprint, issuers: Arc::from([]), serial: String::new() };
        let about = self.0.range(first..).take_while(|(named, _)| named.certificate == fingerprint);
        let mut counts = about
            .filter(|(named, one)| {
                named.means(certificate, issuer) && one.at <= latest && one.recorded <= latest
            })
            .map(|(_, one)| one.clone());
        let first = counts.next()?;
        let all = counts.fold(first, |all, one| one.and(&all));
        Some((all.at, all.reason))
    }
}

impl Named {
    /// Whether all of it fits a certificate that has the digest.
    fn means(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        significant(&hex::encode(certificate.serial())) == self.serial
            && (self.issuers.is_empty() || self.issuers.iter().any(|one| one.is(issuer)))
    }
}

/// The serialised form of one announcement.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Hexadecimal.
    certificate: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    issuers: Vec<Concerned>,
    serial: String,
    reason: u32,
    at: Int64,
    recorded: Int64,
}

impl From<Announcements> for Vec<Kept> {
    fn from(announcements: Announcements) -> Self {
        let kept = |one: &Announcement| Kept {
            certificate: hex::encode(one.about.certificate),
            issuers: one.about.issuers.to_vec(),
            serial: one.about.serial.clone(),
            reason: one.reason.code().into(),
            at: Int64(one.at.0),
            recorded: Int64(one.recorded.0),
        };
        announcements.0.values().map(kept).collect()
    }
}

impl TryFrom<Vec<Kept>> for Announcements {
    type Error = Error;

    fn try_from(kept: Vec<Kept>) -> Result<Self, Error> {
        if kept.len() > MAX_ANNOUNCEMENTS {
            return Err(Error::TooLarge { what: "list of announcements", limit: MAX_ANNOUNCEMENTS });
        }
        let read = |one: Kept| {
            let mut certificate = [0; 32];
            hex::decode_to_slice(&one.certificate, &mut certificate).ok()?;
            let about = Named { certificate, issuers: one.issuers.into(), serial: one.serial };
            let reason = RevocationReason::from_code(one.reason).filter(|reason| is_final(*reason))?;
            Some(Announcement { about, at: UnixTime(one.at.0), recorded: UnixTime(one.recorded.0), reason })
        };
        let all: Option<Vec<Announcement>> = kept.into_iter().map(read).collect();
        let all = all.ok_or_else(|| Error::malformed("announcement", "it names no revocation"))?;
        Ok(Self::default().with(all))
    }
}

/// Whether it is never taken back.
fn is_final(reason: RevocationReason) -> bool {
    !matches!(reason, RevocationReason::CertificateHold | RevocationReason::RemoveFromCrl)
}

/// What may make place, recorded longest ago first: of every authority what is more than its part of the room.
fn above_their_share(all: &BTreeMap<Named, Announcement>) -> Vec<Named> {
    let mut of_each: BTreeMap<&Arc<[Concerned]>, Vec<(UnixTime, &Named)>> = BTreeMap::new();
    for one in all.values() {
        of_each.entry(&one.about.issuers).or_default().push((one.recorded, &one.about));
    }
    let share = MAX_ANNOUNCEMENTS / of_each.len().max(1);
    let mut above = Vec::new();
    for mut own in of_each.into_values() {
        own.sort_unstable();
        let surplus = own.len().saturating_sub(share);
        above.extend(own.into_iter().take(surplus));
    }
    above.sort_unstable();
    above.into_iter().map(|(_, about)| about.clone()).collect()
}

/// A number in hexadecimal without the zeros in front.
fn significant(serial: &str) -> &str {
    serial.trim_start_matches('0')
}
