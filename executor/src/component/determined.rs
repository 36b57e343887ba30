//! Clocks and random numbers of WASI in the deterministic profile: those of the call and of no machine.
#![allow(unreachable_pub, reason = "traits of generated bindings are implemented for these types")]

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::wasi::MAX_RANDOM;
use crate::runtime::{BEGINNING, Determined, Draws, GuestState, Purpose, STEP, VirtualClock};

const NANOS: u64 = 1_000_000_000;

/// Links the interfaces whose answers follow from the call.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wall_clock::add_to_linker::<GuestState, Clocks>(linker, clock)?;
    monotonic_clock::add_to_linker::<GuestState, Clocks>(linker, clock)?;
    random::add_to_linker::<GuestState, Random>(linker, GuestState::determined)?;
    insecure::add_to_linker::<GuestState, Random>(linker, GuestState::determined)?;
    insecure_seed::add_to_linker::<GuestState, Random>(linker, GuestState::determined)
}

struct Clocks;

impl HasData for Clocks {
    type Data<'a> = Clock<'a>;
}

struct Random;

impl HasData for Random {
    type Data<'a> = &'a mut Determined;
}

/// The clock of a call, and where its timers are kept.
pub struct Clock<'a> {
    clock: VirtualClock,
    table: &'a mut ResourceTable,
}

fn clock(state: &mut GuestState) -> Clock<'_> {
    let clock = state.determined().clock.clone();
    Clock { clock, table: &mut state.extras().table }
}

impl Clock<'_> {
    fn timer(&mut self, at: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = self.table.push(Timer { clock: self.clock.clone(), at })?;
        subscribe(self.table, timer)
    }
}

impl wall_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let since = self.clock.look();
        let (seconds, nanos) = (BEGINNING.saturating_add(since / NANOS), since % NANOS);
        Ok(wall_clock::Datetime { seconds, nanoseconds: u32::try_from(nanos).unwrap_or_default() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: u32::try_from(STEP).unwrap_or_default() })
    }
}

impl monotonic_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.clock.look())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(STEP)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.timer(when)
    }

    fn subscribe_duration(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let at = self.clock.look().saturating_add(when);
        self.timer(at)
    }
}

/// Something to wait for: a moment of the call's clock.
struct Timer {
    clock: VirtualClock,
    at: u64,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        self.clock.reach(self.at).await;
    }
}

fn drawn(draws: &mut Draws, count: u64) -> wasmtime::Result<Vec<u8>> {
    match usize::try_from(count) {
        Ok(bytes) if count <= MAX_RANDOM => Ok(draws.bytes(bytes)),
        _ => Err(wasmtime::Error::msg(format!("{count} random bytes are more than {MAX_RANDOM}"))),
    }
}

impl random::Host for Determined {
    fn get_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        drawn(&mut self.random, count)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::from_le_bytes(self.random.array()))
    }
}

impl insecure::Host for Determined {
    fn get_insecure_random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        drawn(&mut self.insecure, count)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::from_le_bytes(self.insecure.array()))
    }
}

impl insecure_seed::Host for Determined {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let mut draws = Draws::new(self.seed, Purpose::InsecureSeed);
        Ok((u64::from_le_bytes(draws.array()), u64::from_le_bytes(draws.array())))
    }
}
