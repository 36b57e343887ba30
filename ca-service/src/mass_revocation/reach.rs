//! What an order ends beside the certificates that it selects: what came of them by renewal, and, of a compromise, what else has their keys.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};

use super::MAX_PIECE;
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::revocation::ends_renewals;
use crate::storage::{Counted, Dependent, Selected, Selection, is_compromise};
use crate::wire::stored_reason;

/// Keys whose other certificates are counted. Whoever means more confirms so many as it is, and each key is looked for in every segment of
/// rows.
const MOST_KEYS: usize = 10_000;
/// Certificates beside a selection that are remembered while the others are counted. Of more of them one may be counted twice.
const MOST_REMEMBERED: usize = 200_000;

/// How many certificates end beside the selected ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// They came of the selected ones, or of others that end, by renewal.
    pub(super) renewed: u64,
    /// They have a key of a selected one, or of what came of those by renewal.
    pub(super) same_key: u64,
}

impl Reach {
    pub(super) fn all(self) -> u64 {
        self.renewed.saturating_add(self.same_key)
    }

    /// The larger of each.
    pub(super) fn most(self, other: Self) -> Self {
        Self { renewed: self.renewed.max(other.renewed), same_key: self.same_key.max(other.same_key) }
    }

    fn with(self, other: Self) -> Self {
        Self {
            renewed: self.renewed.saturating_add(other.renewed),
            same_key: self.same_key.saturating_add(other.same_key),
        }
    }
}

/// The same of a part of a selection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reached {
    /// Of both, those that are revoked.
    pub(super) revoked: Reach,
    /// All of them.
    all: Reach,
}

impl Reached {
    fn count(&mut self, one: &Dependent, field: fn(&mut Reach) -> &mut u64) {
        *field(&mut self.all) += 1;
        *field(&mut self.revoked) += u64::from(one.is_revoked);
    }
}

/// What was counted already.
#[derive(Debug, Default)]
struct Counting {
    keys: HashSet<[u8; 32]>,
    certificates: HashSet<SerialNumber>,
}

impl Counting {
    /// Those of some keys that were not looked for yet.
    fn new_keys(&mut self, keys: Vec<[u8; 32]>) -> Vec<[u8; 32]> {
        let mut new = Vec::new();
        for key in keys {
            if self.keys.len() < MOST_KEYS && self.keys.insert(key) {
                new.push(key);
            }
        }
        new
    }

    /// Whether it is the first time that a certificate is met.
    fn is_new(&mut self, one: &Dependent) -> bool {
        if self.certificates.contains(&one.serial) {
            return false;
        }
        if self.certificates.len() < MOST_REMEMBERED {
            self.certificates.insert(one.serial.clone());
        }
        true
    }
}

/// Orders whose pieces remember what earlier ones counted.
const MOST_UNDER_WAY: usize = 4;

/// What the pieces of orders that are being carried out counted, so that none of it is reported twice. A piece that is repeated, and the
/// first after a start, begin anew.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<VecDeque<Met>>);

#[derive(Debug)]
struct Met {
    /// SHA-256 of the order.
    order: [u8; 32],
    /// The row after which the next piece begins.
    through: i64,
    counting: Counting,
}

impl UnderWay {
    /// What was counted before the piece of an order that begins after a row.
    fn take(&self, order: &[u8; 32], after: i64) -> Counting {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().position(|met| met.order == *order).and_then(|place| all.remove(place));
        found.filter(|met| met.through == after).map(|met| met.counting).unwrap_or_default()
    }

    /// Remembers it for the piece that begins after another row.
    fn put(&self, order: [u8; 32], through: i64, counting: Counting) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|met| met.order != order);
        if all.len() >= MOST_UNDER_WAY {
            all.pop_front();
        }
        all.push_back(Met { order, through, counting });
    }
}

/// What is ordered, as far as it says what else ends.
pub(super) struct Around {
    selection: Selection,
    reason: RevocationReason,
    since: Option<UnixTime>,
}

impl Around {
    pub(super) fn of(
        selection: Selection,
        reason: ca_api::RevocationReason,
        compromised_at: Option<i64>,
    ) -> Self {
        let since =
            compromised_at.filter(|_| reason == ca_api::RevocationReason::KeyCompromise).map(UnixTime);
        Self { selection, reason: stored_reason(reason), since }
    }
}

impl CertificateAuthority {
    /// How many certificates end beside those of a selection.
    pub(super) async fn reach(&self, around: &Around) -> Result<Reach, CaError> {
        let (mut all, mut after, mut counting) = (Reach::default(), 0, Counting::default());
        if !ends_renewals(around.reason) {
            return Ok(all);
        }
        loop {
            let page = self.store.selected(around.selection.clone(), after, MAX_PIECE).await?;
            let Some(last) = page.last() else { return Ok(all) };
            all = all.with(self.around(&page, after, around, &mut counting).await?.all);
            after = last.row;
        }
    }

    /// The same for a piece of an order, the certificates of the selection that come after a row. What ends with several of them is counted
    /// with the first, of whatever piece.
    pub(super) async fn reach_of(
        &self,
        order: [u8; 32],
        page: &[Selected],
        after: i64,
        around: &Around,
    ) -> Result<Reached, CaError> {
        if !ends_renewals(around.reason) {
            return Ok(Reached::default());
        }
        let mut counting = self.counted_orders.under_way.take(&order, after);
        let reached = self.around(page, after, around, &mut counting).await?;
        if let Some(last) = page.last() {
            self.counted_orders.under_way.put(order, last.row, counting);
        }
        Ok(reached)
    }

    /// What has the keys of some certificates, what came of all of those by renewal, what has the keys of that, and so on: as it is carried
    /// out, each brings forth the other.
    async fn around(
        &self,
        page: &[Selected],
        after: i64,
        around: &Around,
        counting: &mut Counting,
    ) -> Result<Reached, CaError> {
        let (mut reached, of_keys) = (Reached::default(), is_compromise(around.reason));
        let mut of: Vec<_> = page.iter().map(|one| one.serial.clone()).collect();
        let mut keys: Vec<_> = page.iter().map(|one| one.spki_sha256).collect();
        loop {
            let new_keys = if of_keys { counting.new_keys(keys) } else { Vec::new() };
            if !new_keys.is_empty() {
                for one in self.store.others_of_keys(new_keys, around.selection.clone(), after).await? {
                    if counting.is_new(&one) {
                        reached.count(&one, |reach| &mut reach.same_key);
                        of.push(one.serial);
                    }
                }
            }
            if of.is_empty() {
                return Ok(reached);
            }
            let which = Counted { apart_from: Some(around.selection.clone()), since: around.since };
            keys = Vec::new();
            for one in self.store.renewals(std::mem::take(&mut of), which).await? {
                // Without their keys they are a tree: none is met twice.
                if !of_keys || counting.is_new(&one) {
                    reached.count(&one, |reach| &mut reach.renewed);
                    keys.push(one.spki_sha256);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_goes_on_with_what_the_one_before_it_counted_and_a_repeated_one_begins_anew() {
        let under_way = UnderWay::default();
        let counted = |order: u8, after: i64| under_way.take(&[order; 32], after).keys.len();
        let put = |order: u8, through: i64| {
            let counting = Counting { keys: HashSet::from([[order; 32]]), ..Counting::default() };
            under_way.put([order; 32], through, counting);
        };
        put(1, 10);
        assert_eq!((counted(1, 10), counted(1, 10)), (1, 0), "taken once");
        put(1, 10);
        assert_eq!((counted(1, 0), counted(2, 10)), (0, 0), "another piece, another order");
        for order in 0..=u8::try_from(MOST_UNDER_WAY).unwrap() {
            put(order, 10);
            put(order, 20);
        }
        assert_eq!((counted(0, 20), counted(1, 10), counted(2, 20)), (0, 0, 1), "the oldest is forgotten");
    }
}
