//! What is asked of the store about many certificates.

use ca_pki::{SerialNumber, UnixTime};

use super::State;

/// Most certificates that come of one by renewal.
pub const MAX_RENEWALS: u32 = 16;

/// Which rows to list; all given conditions hold.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Exactly this identity's text.
    pub identity: Option<String>,
    /// Exactly this key.
    pub spki_sha256: Option<[u8; 32]>,
    /// Asked for by exactly this requester, without a one-time token, and not given up.
    pub requester: Option<String>,
    /// Exactly this id of the requester's own.
    pub request_id: Option<String>,
    /// Exactly this state.
    pub state: Option<State>,
    /// Recorded then or later.
    pub created_from: Option<UnixTime>,
    /// Recorded before then.
    pub created_before: Option<UnixTime>,
    /// Rows below this number.
    pub below: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// How much a search reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// What it answers, and no more: one index leads to it, in its order.
    Narrow,
    /// That, and a look into each run of rows: it grows with the database. Anybody may ask so.
    Segments,
    /// Perhaps everything.
    Wide,
}

impl Search {
    /// How much it reads.
    pub(super) fn reading(&self) -> Reading {
        let filters = self.state.is_some() || self.created_from.is_some() || self.created_before.is_some();
        if filters {
            Reading::Wide
        } else if self.identity.is_some() || self.spki_sha256.is_some() {
            Reading::Segments
        } else if self.requester.is_some() {
            Reading::Narrow
        } else {
            Reading::Wide
        }
    }
}

/// Which subscribers' certificates a revocation of many touches: all given conditions hold, and it carries an identity (the CA's
/// own do not). The state does not count: what a selection up to a row matches is fixed, whatever is in flight meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Exactly this identity's text.
    pub identity: Option<String>,
    /// Exactly this key.
    pub spki_sha256: Option<[u8; 32]>,
    /// Exactly this issuing authority.
    pub issuer: Option<String>,
    /// Exactly this profile.
    pub profile: Option<String>,
    /// Recorded then or later.
    pub created_from: Option<UnixTime>,
    /// Recorded before then.
    pub created_before: Option<UnixTime>,
    /// Rows up to this number; none for all.
    pub through: Option<i64>,
    /// Beside them those above it, whenever they were issued, that came of requests for people's approval with numbers up to this. They
    /// are carried out, and not counted.
    pub requests_through: Option<i64>,
}

/// What a selection looks at.
pub(super) struct Particulars<'a> {
    pub(super) row: i64,
    pub(super) identity: Option<&'a str>,
    pub(super) spki_sha256: &'a [u8; 32],
    pub(super) issuer: &'a str,
    pub(super) profile: &'a str,
    pub(super) created_at: UnixTime,
}

impl Selection {
    /// Whether it counts a certificate. What is carried out with it because it came of requests is not counted.
    pub(super) fn selects(&self, one: &Particulars<'_>) -> bool {
        one.identity.is_some_and(|identity| self.identity.as_deref().is_none_or(|wanted| wanted == identity))
            && self.spki_sha256.is_none_or(|key| key == *one.spki_sha256)
            && self.issuer.as_deref().is_none_or(|issuer| issuer == one.issuer)
            && self.profile.as_deref().is_none_or(|profile| profile == one.profile)
            && self.created_from.is_none_or(|from| from <= one.created_at)
            && self.created_before.is_none_or(|before| one.created_at < before)
            && self.through.is_none_or(|through| one.row <= through)
    }
}

/// One certificate of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Number of its row.
    pub row: i64,
    /// Its serial number.
    pub serial: SerialNumber,
    /// First second of its validity.
    pub not_before: UnixTime,
    /// Last second of its validity.
    pub not_after: UnixTime,
    /// SHA-256 of its key.
    pub spki_sha256: [u8; 32],
}

/// How much a selection touches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SelectedCount {
    /// Certificates, those that are not signed yet or never were among them.
    pub matching: u64,
    /// Those among them that are revoked.
    pub revoked: u64,
    /// The highest row number; 0 when there is none.
    pub newest: i64,
}

/// A place in the order of ends: the end of a validity, and the row among those with the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryMark {
    /// Last second of validity.
    pub not_after: UnixTime,
    /// Number of the row.
    pub row: i64,
}

/// Certificates whose ends come after a place and up to a time.
#[derive(Debug, Clone, Copy)]
pub struct Expiring {
    /// The place before the first.
    pub after: ExpiryMark,
    /// The latest end.
    pub through: UnixTime,
    /// At most so many.
    pub limit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_with_the_database_is_told_from_what_one_index_leads_to() {
        let key = || Search { spki_sha256: Some([1; 32]), ..Search::default() };
        let identity = Search { identity: Some("dev@example.org".to_owned()), ..Search::default() };
        let requester = || Search { requester: Some("certificate:01".to_owned()), ..Search::default() };
        assert_eq!(requester().reading(), Reading::Narrow);
        assert_eq!(Search { request_id: Some("a".to_owned()), ..requester() }.reading(), Reading::Narrow);
        for through_segments in [
            key(),
            identity,
            Search { below: Some(7), ..key() },
            Search { spki_sha256: Some([1; 32]), ..requester() },
        ] {
            assert_eq!(through_segments.reading(), Reading::Segments, "{through_segments:?}");
        }
        for wide in [
            Search::default(),
            Search { created_before: Some(UnixTime(1)), ..Search::default() },
            Search { created_before: Some(UnixTime(1)), ..key() },
            Search { state: Some(State::Revoked), ..key() },
            Search { request_id: Some("a".to_owned()), ..Search::default() },
        ] {
            assert_eq!(wide.reading(), Reading::Wide, "{wide:?}");
        }
    }
}
