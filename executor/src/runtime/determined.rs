//! What a guest of the deterministic profile gets in the place of clocks and random numbers.
//!
//! Both follow from the module and the input of the call alone (docs/adr/0050-deterministic-profile.md), so that the same input gives
//! the same output, byte by byte, on every machine and in every year. The clock begins at the same moment in every call. It moves
//! when it is looked at, and a guest that waits for a time finds that it has come.

use std::array;
use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use executor_engine::ModuleDigest;
use parking_lot::Mutex;

/// The moment in which every call begins, Unix seconds: 2025-01-01T00:00:00Z.
pub(crate) const BEGINNING: u64 = 1_735_689_600;

/// How far a look moves the clock, nanoseconds. It is also what the clock calls its resolution.
pub(crate) const STEP: u64 = 1_000;

/// What random numbers of one call follow from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// The seed of a call: whoever has its receipt can compute it, since module and input stand in it by their digests.
    pub fn of(module: ModuleDigest, input: &[u8]) -> Self {
        let input = sha256(&[input]);
        Self(sha256(&[b"mentat-deterministic-seed-v1\n", &module.0, &input]))
    }
}

/// The clock and the random numbers of one call.
#[derive(Debug)]
pub(crate) struct Determined {
    pub(crate) seed: Seed,
    pub(crate) clock: VirtualClock,
    /// For `wasi:random/random`.
    pub(crate) random: Draws,
    /// For `wasi:random/insecure`.
    pub(crate) insecure: Draws,
}

impl Determined {
    pub(crate) fn new(seed: Seed) -> Self {
        Self {
            seed,
            clock: VirtualClock::default(),
            random: Draws::new(seed, Purpose::Random),
            insecure: Draws::new(seed, Purpose::Insecure),
        }
    }
}

/// What is drawn for. Each purpose has numbers of its own, so that one more draw for one changes nothing of the others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// The first handle of a core module.
    Handles = 0,
    /// `wasi:random/random`.
    Random = 1,
    /// `wasi:random/insecure`.
    Insecure = 2,
    /// `wasi:random/insecure-seed`.
    InsecureSeed = 3,
}

/// Random bytes that follow from a seed: SHA-256 over seed, purpose and a counter.
#[derive(Debug)]
pub(crate) struct Draws {
    seed: Seed,
    purpose: Purpose,
    block: u64,
    left: array::IntoIter<u8, 32>,
}

impl Draws {
    pub(crate) fn new(seed: Seed, purpose: Purpose) -> Self {
        Self { seed, purpose, block: 0, left: Self::block(seed, purpose, 0).into_iter() }
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        array::from_fn(|_| self.byte())
    }

    /// The next bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        if let Some(byte) = self.left.next() {
            return byte;
        }
        self.block += 1;
        self.left = Self::block(self.seed, self.purpose, self.block).into_iter();
        self.left.next().unwrap_or_default()
    }

    fn block(seed: Seed, purpose: Purpose, number: u64) -> [u8; 32] {
        sha256(&[b"mentat-deterministic-draws-v1\n", &seed.0, &[purpose as u8], &number.to_le_bytes()])
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0u8; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// A clock that no time moves. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualClock(Arc<Mutex<Time>>);

#[derive(Debug, Default)]
struct Time {
    /// Nanoseconds since the call began.
    now: u64,
    /// Moments that are waited for, each with the name of whoever waits.
    awaited: BTreeSet<(u64, u64)>,
    names: u64,
}

impl VirtualClock {
    /// Looks at it: nanoseconds since the call began, one step later than before.
    pub(crate) fn look(&self) -> u64 {
        let mut time = self.0.lock();
        time.now = time.now.saturating_add(STEP);
        time.now
    }

    /// Comes when it is that late. Nothing else may happen while all wait, so the clock goes on to the first moment that is waited
    /// for, once everything that is waited for beside it was asked and had not come.
    pub(crate) async fn reach(&self, at: u64) {
        let waiting = Waiting::begin(self, at);
        while !waiting.is_over() {
            tokio::task::yield_now().await;
            waiting.go_on();
        }
    }
}

/// Somebody who waits, until it is dropped.
struct Waiting<'a> {
    clock: &'a VirtualClock,
    at: u64,
    name: u64,
}

impl<'a> Waiting<'a> {
    fn begin(clock: &'a VirtualClock, at: u64) -> Self {
        // Whoever asks again and again whether a time has come has looked at the clock each time.
        clock.look();
        let mut time = clock.0.lock();
        let name = time.names;
        time.names += 1;
        time.awaited.insert((at, name));
        Self { clock, at, name }
    }

    fn is_over(&self) -> bool {
        self.clock.0.lock().now >= self.at
    }

    fn go_on(&self) {
        let mut time = self.clock.0.lock();
        if time.awaited.first() == Some(&(self.at, self.name)) {
            time.now = time.now.max(self.at);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.clock.0.lock().awaited.remove(&(self.at, self.name));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_documents() {
        let seed = Seed::of(ModuleDigest::of(b"module"), b"input");
        // Computed by another program, from docs/adr/0050-deterministic-profile.md.
        assert_eq!(hex::encode(seed.0), SEED);
        assert_eq!(hex::encode(Draws::new(seed, Purpose::Random).bytes(40)), DRAWN);
        assert_ne!(Seed::of(ModuleDigest::of(b"module"), b"inpus"), seed);
        assert_ne!(Seed::of(ModuleDigest::of(b"modulf"), b"input"), seed);
    }

    const SEED: &str = "163fd91fac9d0a60af16c256733142613c3d3f5fb04c5b174432d25fa12422fc";
    const DRAWN: &str = "76bb601d1fa7c2a1adbb962e8b6a8397515835f1b2c57214682edad9f56f0ebbc746d769a506144f";

    #[test]
    fn each_purpose_has_numbers_of_its_own() {
        let of = |purpose| Draws::new(Seed::default(), purpose).array::<8>();
        let all = [Purpose::Handles, Purpose::Random, Purpose::Insecure, Purpose::InsecureSeed].map(of);
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        let (mut once, mut twice) =
            (Draws::new(Seed::default(), Purpose::Random), Draws::new(Seed::default(), Purpose::Random));
        assert_eq!(once.bytes(50), [twice.bytes(31), twice.bytes(19)].concat());
    }

    #[tokio::test]
    async fn the_first_of_those_who_wait_comes_first_and_the_clock_with_it() {
        let clock = VirtualClock::default();
        assert_eq!((clock.look(), clock.look()), (STEP, 2 * STEP));
        let mut late = pin!(clock.reach(5_000_000));
        let mut early = pin!(clock.reach(3_000_000));
        assert!(poll!(late.as_mut()).is_pending() && poll!(early.as_mut()).is_pending());
        assert!(poll!(late.as_mut()).is_pending(), "somebody waits for an earlier moment");
        assert!(poll!(early.as_mut()).is_ready());
        assert_eq!(clock.look(), 3_000_000 + STEP);
        late.await;
        assert_eq!(clock.look(), 5_000_000 + STEP);
        assert!(poll!(pin!(clock.reach(4_000_000))).is_ready(), "that was before");
    }

    #[tokio::test]
    async fn who_gives_up_holds_nobody_and_what_has_come_beside_is_no_reason_to_go_on() {
        let clock = VirtualClock::default();
        {
            let mut first = pin!(clock.reach(1_000_000));
            assert!(poll!(first.as_mut()).is_pending());
        }
        assert_eq!(clock.look(), 2 * STEP, "nobody waits any more");
        clock.reach(9_000_000).await;
        assert_eq!(clock.look(), 9_000_000 + STEP);
        clock.reach(u64::MAX).await;
        assert_eq!(clock.look(), u64::MAX);
    }
}
