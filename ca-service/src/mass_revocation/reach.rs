//! What an order ends beside the certificates that it selects: what came of them by renewal, and, of a compromise, what else has their keys.

use std::collections::HashSet;

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
}

/// The same, and how much of it is done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reached {
    /// Of both, those that are revoked.
    pub(super) revoked: Reach,
    /// All of them.
    pub(super) all: Reach,
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
    /// How many certificates end beside those of a selection, each counted once.
    pub(super) async fn reach(&self, around: &Around) -> Result<Reached, CaError> {
        let (mut reached, mut after, mut counting) = (Reached::default(), 0, Counting::default());
        if !ends_renewals(around.reason) {
            return Ok(reached);
        }
        loop {
            let page = self.store.selected(around.selection.clone(), after, MAX_PIECE).await?;
            let Some(last) = page.last() else { return Ok(reached) };
            self.around(&page, after, around, &mut counting, &mut reached).await?;
            after = last.row;
        }
    }

    /// What has the keys of some certificates, what came of all of those by renewal, what has the keys of that, and so on: as it is carried
    /// out, each brings forth the other.
    async fn around(
        &self,
        page: &[Selected],
        after: i64,
        around: &Around,
        counting: &mut Counting,
        reached: &mut Reached,
    ) -> Result<(), CaError> {
        let of_keys = is_compromise(around.reason);
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
                return Ok(());
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
