//! Bytes that peers make a server hold: of answers that they have not taken yet, of request bodies that are not answered.
//!
//! Each connection has a little for itself ([`FREE`]). What goes beyond it is borrowed from a [`Budget`] of all connections,
//! of which one peer gets a part. A spent budget does not turn newcomers away as long as somebody holds more than is fair:
//!
//! - who is slow: at the rate of the last seconds, what the connection holds would take longer than [`SLOW`] to go, or to come;
//!   what is whole, and waits for the server, is nobody's slowness;
//! - whose peer holds more than the newcomer's peer would.
//!
//! Of these the slowest connections give way: they are closed. So neither many addresses that read at a snail's pace nor
//! one that takes whatever it gets keep others from their answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use crate::clock::monotonic;

/// Bytes that each connection may hold without asking what the others do: as much as its buffers.
pub(crate) const FREE: u64 = 64 * 1024;
/// What the buffers of the system and of the connection take of an answer at once: not yet a sign that somebody reads.
const BUFFERED: u64 = 256 * 1024;
/// Milliseconds in which what a connection holds must be expected to go. 16 MiB, a whole bundle of the largest entries, need
/// half a mebibyte a second; 512 KiB need 16 KiB a second, as without any shortage.
const SLOW: u64 = 32_000;
/// Milliseconds of the past that a rate is made of, at most; less than half of it counts for what was before.
const RECENT: u64 = 16_000;
/// Milliseconds for which a search that found too little is not repeated by who asks for as much.
const AGAIN: u64 = 50;

/// The bytes that all connections of a server may hold beyond what each has for itself.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    per_peer: u64,
    held: AtomicU64,
    /// Bytes of connections that were told to give way and are not gone yet: those of a moment. What is really held stays
    /// below the limit, a quarter of it, and what one peer may hold, together.
    leaving: AtomicU64,
    listed: Mutex<Listed>,
}

/// The accounts that ever borrowed.
#[derive(Debug, Default)]
struct Listed {
    accounts: Vec<Weak<Account>>,
    /// When a search found too little, and what the peer that it was for would have held.
    failed: Option<(u64, u64)>,
}

impl Budget {
    pub(crate) fn new(limit: u64, per_peer: u64) -> Self {
        let (held, leaving) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { limit, per_peer, held, leaving, listed: Mutex::default() }
    }

    fn listed(&self) -> std::sync::MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

/// What one peer holds, over all its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) answers: Arc<AtomicU64>,
    pub(crate) bodies: Arc<AtomicU64>,
    /// Of answers that there is no room for yet.
    pub(crate) waiting: Arc<AtomicU64>,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Anybody: held to both bounds.
    Anonymous,
    /// Showed a client certificate: held to a peer's bound only and never closed for others, so that strangers do not keep
    /// another server of the deployment from its answers.
    Certified,
}

/// Where bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loan {
    /// Nowhere.
    Nothing,
    /// With their connection.
    Free,
    /// With their connection, its peer and the server.
    Budget,
}

/// What one connection holds.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    peer: Arc<AtomicU64>,
    standing: Standing,
    /// All of it.
    held: AtomicU64,
    /// What of it counts against the budget.
    borrowed: AtomicU64,
    /// What of that waits for the server and not for the peer: bodies that are whole.
    settled: AtomicU64,
    /// Since when, without a break, it has borrowed, in milliseconds, and the borrowed bytes that moved since. Of what is
    /// long ago only the rate is kept.
    since: AtomicU64,
    moved: AtomicU64,
    listed: AtomicBool,
    /// It was told to give way, with so many bytes.
    closing: AtomicBool,
    left_with: AtomicU64,
    /// Tells the connection.
    notice: Arc<Notify>,
}

impl Account {
    /// `notice` is for who closes the connection.
    pub(crate) fn new(
        budget: &Arc<Budget>,
        peer: &Arc<AtomicU64>,
        standing: Standing,
        notice: &Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::clone(budget),
            peer: Arc::clone(peer),
            standing,
            held: AtomicU64::new(0),
            borrowed: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            since: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            listed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            left_with: AtomicU64::new(0),
            notice: Arc::clone(notice),
        })
    }

    /// Counts bytes; `None`: there is no room for them.
    pub(crate) fn lend(self: &Arc<Self>, bytes: u64) -> Option<Loan> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed);
        if held.saturating_add(bytes) <= FREE {
            return Some(Loan::Free);
        }
        if self.borrow(bytes) {
            return Some(Loan::Budget);
        }
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        None
    }

    pub(crate) fn give_back(&self, loan: Loan, bytes: u64) {
        if loan != Loan::Nothing {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        if loan == Loan::Budget {
            self.repay(bytes);
        }
    }

    /// Borrowed bytes went, or came.
    pub(crate) fn moved(&self, bytes: u64) {
        self.moved_at(bytes, now());
    }

    fn moved_at(&self, bytes: u64, now: u64) {
        let moved = self.moved.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let since = self.since.load(Ordering::Relaxed);
        let age = now.saturating_sub(since);
        // Who was fast long ago must not rank as fast for long.
        let (half, relaxed) = (RECENT / 2, Ordering::Relaxed);
        if age >= RECENT && self.since.compare_exchange(since, now - half, relaxed, relaxed).is_ok() {
            let kept = u128::from(moved) * u128::from(half) / u128::from(age);
            let less = moved.saturating_sub(u64::try_from(kept).unwrap_or(moved));
            // Never below zero: another stream may have begun to count anew.
            let _ = self.moved.fetch_update(relaxed, relaxed, |now| Some(now.saturating_sub(less)));
        }
    }

    /// Borrowed bytes wait for the server from now on: their peer did its part.
    pub(crate) fn settle(&self, bytes: u64) {
        self.settled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes [`Self::settle`] back, before the bytes are given back.
    pub(crate) fn unsettle(&self, bytes: u64) {
        self.settled.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether bytes would stay within the share of its peer. What they would be refused for need not be made.
    pub(crate) fn has_share(&self, bytes: u64) -> bool {
        self.held.load(Ordering::Relaxed).saturating_add(bytes) <= FREE
            || fits(self.peer.load(Ordering::Relaxed), bytes, self.budget.per_peer)
    }

    fn borrow(self: &Arc<Self>, bytes: u64) -> bool {
        if self.closing.load(Ordering::Relaxed) {
            return false;
        }
        let taken = self.take(bytes) || (self.has_share(bytes) && self.displace(bytes) && self.take(bytes));
        if taken && self.borrowed.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.since.store(now(), Ordering::Relaxed);
            self.moved.store(0, Ordering::Relaxed);
        }
        if taken && !self.listed.swap(true, Ordering::Relaxed) {
            let accounts = &mut self.budget.listed().accounts;
            if accounts.len() == accounts.capacity() {
                accounts.retain(|account| account.strong_count() > 0);
            }
            accounts.push(Arc::downgrade(self));
        }
        taken
    }

    fn take(&self, bytes: u64) -> bool {
        let of_peer = self.peer.fetch_add(bytes, Ordering::Relaxed);
        let of_all = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        let taken = fits(of_peer, bytes, self.budget.per_peer)
            && (self.standing == Standing::Certified || fits(of_all, bytes, self.budget.limit));
        if !taken {
            self.return_to_budget(bytes);
        }
        taken
    }

    /// What was counted when the connection was told to give way is not counted any more.
    fn repay(&self, bytes: u64) {
        let less = |borrowed: u64| Some(borrowed.saturating_sub(bytes));
        let borrowed = self.borrowed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.return_to_budget(borrowed.unwrap_or_default().min(bytes));
    }

    fn return_to_budget(&self, bytes: u64) {
        self.peer.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Closes connections until `bytes` more fit into the budget; none, when that would not be enough.
    fn displace(&self, bytes: u64) -> bool {
        let budget = &self.budget;
        let (now, weight) = (now(), self.peer.load(Ordering::Relaxed).saturating_add(bytes));
        if budget.leaving.load(Ordering::Relaxed) > budget.limit / 4 {
            return false;
        }
        let mut listed = budget.listed();
        if listed.failed.is_some_and(|(at, least)| now.saturating_sub(at) < AGAIN && weight >= least) {
            return false;
        }
        let wanted = budget.held.load(Ordering::Relaxed).saturating_add(bytes).saturating_sub(budget.limit);
        let accounts = listed.accounts.iter().filter_map(Weak::upgrade);
        let mut unfair: Vec<_> = accounts
            .filter(|account| account.standing == Standing::Anonymous && !std::ptr::eq(&**account, self))
            .map(|account| (account.lasts(now), account.borrowed.load(Ordering::Relaxed), account))
            .filter(|(lasts, _, account)| *lasts >= SLOW || account.peer.load(Ordering::Relaxed) > weight)
            .filter(|(_, borrowed, _)| *borrowed > 0)
            .collect();
        let to_be_had = unfair.iter().fold(0_u64, |sum, (_, borrowed, _)| sum.saturating_add(*borrowed));
        if to_be_had < wanted {
            listed.failed = Some((now, weight));
            return false;
        }
        unfair.sort_unstable_by_key(|(lasts, _, _)| std::cmp::Reverse(*lasts));
        let mut freed = 0_u64;
        for (_, _, account) in unfair {
            if freed >= wanted {
                break;
            }
            freed = freed.saturating_add(account.give_way());
        }
        true
    }

    /// Milliseconds until what it holds will have gone, at the rate so far. What waits for the server says nothing of the peer.
    pub(crate) fn lasts(&self, now: u64) -> u64 {
        let settled = self.settled.load(Ordering::Relaxed);
        let held = self.borrowed.load(Ordering::Relaxed).saturating_sub(settled);
        let age = now.saturating_sub(self.since.load(Ordering::Relaxed));
        held.saturating_mul(age) / self.moved.load(Ordering::Relaxed).saturating_add(BUFFERED)
    }

    /// The connection is to be closed; what it borrowed is for others from now on.
    fn give_way(&self) -> u64 {
        self.closing.store(true, Ordering::Relaxed);
        let bytes = self.borrowed.swap(0, Ordering::Relaxed);
        self.return_to_budget(bytes);
        self.left_with.fetch_add(bytes, Ordering::Relaxed);
        self.budget.leaving.fetch_add(bytes, Ordering::Relaxed);
        self.notice.notify_one();
        bytes
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.leaving.fetch_sub(self.left_with.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What is alone always fits, however much it is: it could never be had otherwise.
const fn fits(held: u64, bytes: u64, limit: u64) -> bool {
    held == 0 || held.saturating_add(bytes) <= limit
}

/// Milliseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn budget() -> Arc<Budget> {
        Arc::new(Budget::new(10 * MIB, 4 * MIB))
    }

    fn account(budget: &Arc<Budget>, peer: &Arc<AtomicU64>, standing: Standing) -> Arc<Account> {
        Account::new(budget, peer, standing, &Arc::default())
    }

    /// As if it had borrowed so long ago.
    fn aged(account: &Arc<Account>, millis: u64, moved: u64) {
        account.since.store(now().saturating_sub(millis), Ordering::Relaxed);
        account.moved.store(moved, Ordering::Relaxed);
    }

    /// The clock begins with its first use, and tests look back.
    async fn let_the_clock_run() {
        monotonic();
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }

    #[test]
    fn a_peer_has_its_share_over_all_its_connections_and_all_peers_theirs() {
        let budget = budget();
        let peers: [Arc<AtomicU64>; 4] = Default::default();
        let anonymous = |peer: usize| account(&budget, &peers[peer], Standing::Anonymous);
        let (one, again) = (anonymous(0), anonymous(0));
        assert_eq!(one.lend(3 * MIB), Some(Loan::Budget));
        assert!(!again.has_share(2 * MIB) && again.has_share(MIB));
        assert_eq!(again.lend(2 * MIB), None, "more than its share");
        assert_eq!(again.lend(MIB), Some(Loan::Budget));
        assert_eq!(again.lend(1), None);
        let (two, three) = (anonymous(1), anonymous(2));
        assert_eq!(two.lend(4 * MIB), Some(Loan::Budget));
        assert_eq!(three.lend(4 * MIB), None, "more than all may have, and nobody has more");
        assert_eq!(three.lend(FREE), Some(Loan::Free), "a little is every connection's own");
        // Another server of the deployment is not kept from its answers by that.
        let certified = account(&budget, &peers[3], Standing::Certified);
        assert_eq!(certified.lend(3 * MIB), Some(Loan::Budget));
        assert_eq!(certified.lend(2 * MIB), None);
        certified.give_back(Loan::Budget, 3 * MIB);
        one.give_back(Loan::Budget, 3 * MIB);
        three.give_back(Loan::Free, FREE);
        assert_eq!(three.lend(4 * MIB), Some(Loan::Budget));
        for (account, bytes) in [(&again, MIB), (&two, 4 * MIB), (&three, 4 * MIB)] {
            account.give_back(Loan::Budget, bytes);
        }
        assert_eq!(budget.held(), 0);
        assert!(peers.iter().all(|peer| peer.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn what_is_above_every_bound_can_be_had_alone() {
        let (budget, peer) = (budget(), Arc::default());
        let account = account(&budget, &peer, Standing::Anonymous);
        assert_eq!(account.lend(100 * MIB), Some(Loan::Budget));
        assert_eq!(account.lend(1), None);
        account.give_back(Loan::Budget, 100 * MIB);
        assert_eq!(account.lend(1), Some(Loan::Free));
    }

    /// Who holds more than the newcomer would gives way, the slowest first, and what it holds until it is gone is bounded.
    #[tokio::test]
    async fn the_slowest_of_those_who_hold_more_gives_way() {
        let_the_clock_run().await;
        let budget = budget();
        let peers: [Arc<AtomicU64>; 5] = Default::default();
        let holders: Vec<_> =
            (0..3).map(|peer| account(&budget, &peers[peer], Standing::Anonymous)).collect();
        for (holder, bytes) in holders.iter().zip([4 * MIB, 4 * MIB, 2 * MIB]) {
            assert_eq!(holder.lend(bytes), Some(Loan::Budget));
        }
        let newcomer = account(&budget, &peers[3], Standing::Anonymous);
        aged(&holders[0], 10, 100 * MIB);
        aged(&holders[1], 10, 0);
        assert_eq!(newcomer.lend(2 * MIB), Some(Loan::Budget));
        holders[1].notice.notified().await;
        assert!(!holders[0].closing.load(Ordering::Relaxed), "the faster one was closed");
        assert_eq!(budget.held(), 8 * MIB);
        assert_eq!(holders[1].lend(FREE), None, "it is being closed");
        // As long as it is not gone, it is not all given to others again.
        let other = account(&budget, &peers[4], Standing::Anonymous);
        assert_eq!(other.lend(2 * MIB), Some(Loan::Budget), "there is room");
        assert_eq!(other.lend(FREE), None, "much is leaving");
        holders[1].give_back(Loan::Budget, 4 * MIB);
        assert_eq!((budget.held(), peers[1].load(Ordering::Relaxed)), (10 * MIB, 0));
        drop(holders);
        assert_eq!(budget.leaving.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_is_slow_gives_way_to_anybody_and_who_is_not_to_nobody_that_holds_as_much() {
        let_the_clock_run().await;
        let budget = Arc::new(Budget::new(1 << 50, 1 << 49));
        let peers: [Arc<AtomicU64>; 3] = Default::default();
        let holders = [0, 1].map(|peer| account(&budget, &peers[peer], Standing::Anonymous));
        for holder in &holders {
            assert_eq!(holder.lend(1 << 49), Some(Loan::Budget));
        }
        let newcomer = account(&budget, &peers[2], Standing::Anonymous);
        aged(&holders[0], 50, 1 << 50);
        aged(&holders[1], 50, 1 << 50);
        assert_eq!(newcomer.lend(1 << 49), None);
        // Nothing of it went for 50 ms.
        aged(&holders[1], 50, 0);
        tokio::time::sleep(std::time::Duration::from_millis(AGAIN)).await;
        assert_eq!(newcomer.lend(1 << 49), Some(Loan::Budget));
        assert!(holders[1].closing.load(Ordering::Relaxed) && !holders[0].closing.load(Ordering::Relaxed));
    }

    #[test]
    fn who_was_fast_long_ago_is_slow_when_it_trickles() {
        let (budget, peer) = (Arc::new(Budget::new(1 << 40, 1 << 40)), Arc::default());
        let account = account(&budget, &peer, Standing::Anonymous);
        account.lend(16 * MIB).unwrap();
        let began = now();
        account.moved_at(1024 * MIB, began + 1000);
        assert!(account.lasts(began + 1000) < 100);
        // 16 KiB a second from then on.
        let mut slow_after = None;
        for second in 2..=600 {
            account.moved_at(16 * 1024, began + second * 1000);
            if slow_after.is_none() && account.lasts(began + second * 1000) >= SLOW {
                slow_after = Some(second);
            }
        }
        assert!(slow_after.is_some_and(|second| (32..120).contains(&second)), "{slow_after:?}");
        // A steady half mebibyte a second stays fast enough.
        for second in 601..=900 {
            account.moved_at(512 * 1024, began + second * 1000);
            assert!(second < 640 || account.lasts(began + second * 1000) < SLOW, "{second}");
        }
    }
}
