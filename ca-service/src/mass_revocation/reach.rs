//! What an order ends beside the certificates that it selects: what came of them by renewal, and, of a compromise, what else has their keys.

use std::collections::HashSet;

use ca_pki::UnixTime;
use ca_pki::crl::RevocationReason;

use super::MAX_PIECE;
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::revocation::ends_renewals;
use crate::storage::{Counted, Selected, Selection, is_compromise};
use crate::wire::stored_reason;

/// Keys of a selection whose other certificates are counted. Whoever selects more confirms so many as it is, and each key is looked for in
/// every segment of rows.
const MOST_KEYS: usize = 10_000;

/// How many certificates end beside the selected ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// They came of the selected ones, or of those with their keys, by renewal.
    pub(super) renewed: u64,
    /// They have a key of a selected one.
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
        let (mut all, mut after, mut keys) = (Reach::default(), 0, 0);
        if !ends_renewals(around.reason) {
            return Ok(all);
        }
        loop {
            let page = self.store.selected(around.selection.clone(), after, MAX_PIECE).await?;
            let Some(last) = page.last() else { return Ok(all) };
            let of_keys = if keys < MOST_KEYS { keys_of(&page) } else { Vec::new() };
            keys += of_keys.len();
            all = all.with(self.around(&page, of_keys, after, around).await?.all);
            after = last.row;
        }
    }

    /// The same for some certificates of the selection, which come after a row. A key is counted with the first of them that has it.
    pub(super) async fn reach_of(
        &self,
        page: &[Selected],
        after: i64,
        around: &Around,
    ) -> Result<Reached, CaError> {
        if !ends_renewals(around.reason) {
            return Ok(Reached::default());
        }
        self.around(page, keys_of(page), after, around).await
    }

    async fn around(
        &self,
        page: &[Selected],
        keys: Vec<[u8; 32]>,
        after: i64,
        around: &Around,
    ) -> Result<Reached, CaError> {
        let mut reached = Reached::default();
        let mut of: Vec<_> = page.iter().map(|one| one.serial.clone()).collect();
        if is_compromise(around.reason) && !keys.is_empty() {
            let others = self.store.others_of_keys(keys, around.selection.clone(), after).await?;
            reached.all.same_key = others.serials.len() as u64;
            reached.revoked.same_key = others.revoked;
            of.extend(others.serials);
        }
        let which = Counted { apart_from: Some(around.selection.clone()), since: around.since };
        let renewals = self.store.count_renewals(of, which).await?;
        reached.all.renewed = renewals.revoked.saturating_add(renewals.standing);
        reached.revoked.renewed = renewals.revoked;
        Ok(reached)
    }
}

/// The keys of some certificates, each once.
fn keys_of(page: &[Selected]) -> Vec<[u8; 32]> {
    let keys: HashSet<[u8; 32]> = page.iter().map(|one| one.spki_sha256).collect();
    keys.into_iter().collect()
}
