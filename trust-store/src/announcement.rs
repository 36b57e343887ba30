//! Revocations that a CA announced in an event log, for readers that do not wait for its next list.
//!
//! An announcement only denies: it never says that a certificate is good, which lists and answers show as before. So
//! whoever announces falsely stops what he could have revoked as well, and gains nothing.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::certificate::Certificate;
use crate::crl::RevocationReason;
use crate::event::VerifiedEvent;
use crate::json::{Bytes, Value};
use crate::time::UnixTime;

/// `predicateType` of a revocation.
pub const REVOCATION_TYPE: &str = "https://mentat.internal/revocation/v1";
/// Most announcements that are kept; those recorded longest ago make place, since lists have them by then.
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
    /// DER of the only issuer that the key speaks for.
    issuer: Option<Bytes>,
    /// Hexadecimal, without zeros in front.
    serial: String,
}

/// Announcements by the certificate that each names. Copying counts references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        if matches!(reason, RevocationReason::CertificateHold | RevocationReason::RemoveFromCrl) {
            return None;
        }
        let about = Named {
            certificate,
            issuer: event.issuer_name().map(|name| Bytes(name.to_vec())),
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
            let mut ages: Vec<_> = all.values().map(|one| (one.recorded, one.about.clone())).collect();
            ages.sort_unstable();
            for (_, about) in ages.iter().take(surplus) {
                all.remove(about);
            }
        }
        Self(Arc::new(all))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The revocation of this certificate, if one is announced that is dated no later than `latest`.
    pub(crate) fn of(
        &self,
        certificate: &Certificate,
        latest: UnixTime,
    ) -> Option<(UnixTime, RevocationReason)> {
        if self.0.is_empty() {
            return None;
        }
        let fingerprint = certificate.fingerprint();
        let first = Named { certificate: fingerprint, issuer: None, serial: String::new() };
        let about = self.0.range(first..).take_while(|(named, _)| named.certificate == fingerprint);
        let mut counts = about
            .filter(|(named, one)| named.means(certificate) && one.at <= latest && one.recorded <= latest)
            .map(|(_, one)| one.clone());
        let first = counts.next()?;
        let all = counts.fold(first, |all, one| one.and(&all));
        Some((all.at, all.reason))
    }
}

impl Named {
    /// Whether all of it fits a certificate that has the digest.
    fn means(&self, certificate: &Certificate) -> bool {
        significant(&hex::encode(certificate.serial())) == self.serial
            && self.issuer.as_ref().is_none_or(|name| name.0 == certificate.issuer_der())
    }
}

/// A number in hexadecimal without the zeros in front.
fn significant(serial: &str) -> &str {
    serial.trim_start_matches('0')
}
