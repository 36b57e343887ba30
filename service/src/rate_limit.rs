//! Token buckets per client.
//!
//! The table is bounded: when it is full, buckets that have filled up again (clients that were quiet) make room, and if
//! there are none, newcomers share one bucket. An attacker with many addresses can therefore slow newcomers down, but
//! cannot make the table grow.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::peer::Peer;

const SHARDS: usize = 16;
/// Clients remembered per shard; 16 x 4096 buckets are about 4 MiB.
const SHARD_CAPACITY: usize = 4096;

/// How many requests a client may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests in `seconds`.
    count: NonZeroU32,
    seconds: NonZeroU32,
    burst: NonZeroU32,
}

const HOUR: NonZeroU32 = NonZeroU32::MIN.saturating_add(3_599);

impl Rate {
    /// `per_second` in the long run, `burst` at once after a pause.
    #[must_use]
    pub const fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { count: per_second, seconds: NonZeroU32::MIN, burst }
    }

    /// `per_hour` in the long run, `burst` at once after a pause.
    #[must_use]
    pub const fn per_hour(per_hour: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { count: per_hour, seconds: HOUR, burst }
    }
}

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// An address; of IPv6 the /64, which is what one customer has.
    Address(IpAddr),
    /// The subject of a verified client certificate.
    Certificate(Box<str>),
    /// Anything a server counts by: an account, a token's id.
    Named(Box<str>),
}

impl ClientKey {
    /// The key of a peer: its certificate if it has one, else its address.
    #[must_use]
    pub fn of(peer: &Peer) -> Self {
        match peer.certificate() {
            Some(certificate) => Self::Certificate(certificate.subject().into()),
            None => Self::of_address(peer.address()),
        }
    }

    /// The key of an address.
    #[must_use]
    pub fn of_address(address: SocketAddr) -> Self {
        Self::Address(network(address.ip()))
    }
}

/// What counts as one client: an address, of IPv6 its /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens, in billionths.
    nanotokens: u64,
    updated: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<ClientKey, Bucket>,
    /// When quiet clients were last forgotten; at most once a second, or a full table would be searched every time.
    swept: Option<Duration>,
}

/// The request was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Whole seconds after which one token is there again; at least 1.
    pub retry_after_seconds: u32,
}

/// Token buckets of one rate. The caller passes the time, so one limiter serves tests and servers.
#[derive(Debug)]
pub struct RateLimiter {
    rate: Rate,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    overflow: Mutex<Bucket>,
}

impl RateLimiter {
    /// A limiter with every bucket full.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let full = Bucket { nanotokens: full_bucket(rate), updated: Duration::ZERO };
        Self {
            rate,
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            overflow: Mutex::new(full),
        }
    }

    /// Takes one token of `client` at `now`, a monotonic time.
    ///
    /// # Errors
    /// [`Exceeded`] with the time to wait when none is left.
    pub fn take(&self, client: ClientKey, now: Duration) -> Result<(), Exceeded> {
        let index = usize::try_from(self.hasher.hash_one(&client) % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(index) else { return Ok(()) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = shard.buckets.get_mut(&client) {
            return self.take_from(bucket, now);
        }
        let long_ago = |swept: Duration| now.saturating_sub(swept) >= Duration::from_secs(1);
        if shard.buckets.len() >= SHARD_CAPACITY && shard.swept.is_none_or(long_ago) {
            shard.swept = Some(now);
            shard.buckets.retain(|_, bucket| self.refilled(bucket, now) < full_bucket(self.rate));
        }
        if shard.buckets.len() >= SHARD_CAPACITY {
            drop(shard);
            return self.take_from(&mut self.overflow.lock().unwrap_or_else(PoisonError::into_inner), now);
        }
        let mut bucket = Bucket { nanotokens: full_bucket(self.rate), updated: now };
        let outcome = self.take_from(&mut bucket, now);
        shard.buckets.insert(client, bucket);
        outcome
    }

    /// Gives a token of `client` back that was taken for nothing. One of the bucket that newcomers share stays taken.
    pub fn give_back(&self, client: &ClientKey, now: Duration) {
        let index = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(index) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = shard.buckets.get_mut(client) {
            bucket.nanotokens = self.refilled(bucket, now).saturating_add(TOKEN).min(full_bucket(self.rate));
            bucket.updated = now.max(bucket.updated);
        }
    }

    fn refilled(&self, bucket: &Bucket, now: Duration) -> u64 {
        let elapsed = u64::try_from(now.saturating_sub(bucket.updated).as_nanos()).unwrap_or(u64::MAX);
        let gained =
            elapsed.saturating_mul(u64::from(self.rate.count.get())) / u64::from(self.rate.seconds.get());
        bucket.nanotokens.saturating_add(gained).min(full_bucket(self.rate))
    }

    fn take_from(&self, bucket: &mut Bucket, now: Duration) -> Result<(), Exceeded> {
        let tokens = self.refilled(bucket, now);
        if let Some(left) = tokens.checked_sub(TOKEN) {
            bucket.updated = now.max(bucket.updated);
            bucket.nanotokens = left;
            return Ok(());
        }
        // The bucket stays as it is: what fills up slowly would be rounded away with every refusal.
        let missing = TOKEN.saturating_sub(tokens).saturating_mul(u64::from(self.rate.seconds.get()));
        let seconds = missing.div_ceil(u64::from(self.rate.count.get())).div_ceil(TOKEN);
        Err(Exceeded { retry_after_seconds: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) })
    }
}

const TOKEN: u64 = 1_000_000_000;

const fn full_bucket(rate: Rate) -> u64 {
    rate.burst.get() as u64 * TOKEN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(Rate::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap()))
    }

    fn client(number: u32) -> ClientKey {
        ClientKey::Address(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_client_gets_its_burst_and_then_its_rate() {
        let limiter = limiter(2, 3);
        let at = |millis| Duration::from_secs(1000) + Duration::from_millis(millis);
        for _ in 0..3 {
            assert_eq!(limiter.take(client(1), at(0)), Ok(()));
        }
        assert_eq!(limiter.take(client(1), at(0)), Err(Exceeded { retry_after_seconds: 1 }));
        assert_eq!(limiter.take(client(2), at(0)), Ok(()));
        assert_eq!(limiter.take(client(1), at(500)), Ok(()));
        assert!(limiter.take(client(1), at(500)).is_err());
    }

    #[test]
    fn a_rate_by_the_hour_fills_up_also_under_refusals() {
        let number = |value| NonZeroU32::new(value).unwrap();
        let limiter = RateLimiter::new(Rate::per_hour(number(7), number(1)));
        let (begin, wait) = (Duration::from_secs(10), Duration::from_secs(515));
        assert_eq!(limiter.take(client(1), begin), Ok(()));
        assert_eq!(limiter.take(client(1), begin), Err(Exceeded { retry_after_seconds: 515 }));
        // Each of these is shorter than the time in which a billionth of a token comes.
        for nanos in 0..100_000 {
            assert!(limiter.take(client(1), begin + Duration::from_nanos(nanos * 100)).is_err());
        }
        assert_eq!(
            limiter.take(client(1), begin + wait - Duration::from_secs(5)),
            Err(Exceeded { retry_after_seconds: 5 })
        );
        assert_eq!(limiter.take(client(1), begin + wait), Ok(()));
        // A long pause is no more than the burst.
        let later = begin + Duration::from_secs(40_000_000);
        assert_eq!(limiter.take(client(1), later), Ok(()));
        assert!(limiter.take(client(1), later).is_err());
    }

    #[test]
    fn what_was_taken_for_nothing_is_given_back_and_no_more() {
        let limiter = limiter(1, 2);
        let now = Duration::from_secs(5);
        for _ in 0..2 {
            assert_eq!(limiter.take(client(1), now), Ok(()));
        }
        limiter.give_back(&client(1), now);
        assert_eq!(limiter.take(client(1), now), Ok(()));
        assert!(limiter.take(client(1), now).is_err());
        for _ in 0..5 {
            limiter.give_back(&client(1), now);
            limiter.give_back(&client(2), now);
        }
        for number in [1, 2] {
            let left = (0..5).filter(|_| limiter.take(client(number), now).is_ok()).count();
            assert_eq!(left, 2, "no more than the burst");
        }
    }

    #[test]
    fn a_full_table_shares_one_bucket_and_makes_room_for_the_active() {
        let limiter = limiter(1, 1);
        let now = Duration::from_secs(10);
        let population = u32::try_from(SHARDS * SHARD_CAPACITY * 2).unwrap();
        let admitted = (0..population).filter(|n| limiter.take(client(*n), now).is_ok()).count();
        assert!(admitted <= SHARDS * SHARD_CAPACITY + 1, "{admitted}");
        let remembered: usize = limiter.shards.iter().map(|s| s.lock().unwrap().buckets.len()).sum();
        assert!(remembered <= SHARDS * SHARD_CAPACITY);
        assert_eq!(limiter.take(client(population + 1), now + Duration::from_secs(5)), Ok(()));
    }

    #[test]
    fn an_ipv6_customer_is_one_client() {
        let key = |text: &str| ClientKey::of_address(text.parse().unwrap());
        assert_eq!(key("[2001:db8::1]:1"), key("[2001:db8::ffff]:2"));
        assert_ne!(key("[2001:db8::1]:1"), key("[2001:db8:0:1::1]:1"));
        assert_eq!(key("[::ffff:192.0.2.1]:1"), key("192.0.2.1:9"));
    }
}
