//! Live instances: where they are listed, and how a stop finds them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::control::{AdmissionId, Cancel, InstanceId, KillCause, LiveInstance, Owner, Selector};
use super::limits::CallLimits;
use super::places::{NAMES, Places, name, number_of_this_thread};
use super::rates::Ticks;
use crate::admission::GrantSet;

/// Every instance that runs in this process, and every call that waits for its instance: a stop reaches both.
#[derive(Debug)]
pub struct LiveInstances {
    names: Arc<AtomicU64>,
    ticks: Ticks,
    admissions: Mutex<Vec<Weak<Calls>>>,
}

/// The calls of one admission, with what they share.
///
/// Instances begin and end some hundred thousand times a second, and a stop may take its time to look through all of them. A call
/// keeps this list alive and nothing else, because each further shared reference is counted up and down for each call.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) owner: Arc<Owner>,
    pub(crate) grants: Arc<GrantSet>,
    pub(crate) limits: CallLimits,
    /// The engine's.
    pub(crate) ticks: Ticks,
    names: Arc<AtomicU64>,
    places: [Places; SHARDS as usize],
    /// Calls that somebody else's [`Cancel`] ends as well, such as the steps of a pipeline; a stop of one raises it.
    shared: Mutex<Vec<Shared>>,
}

const SHARDS: u32 = 8;

/// A call in the list of what can be stopped, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: InstanceId,
    pub(crate) calls: Arc<Calls>,
    seat: Seat,
}

/// A call among those that somebody else's [`Cancel`] ends as well.
#[derive(Debug)]
struct Shared {
    id: InstanceId,
    cancel: Cancel,
    /// Bytes of memory and scratch files that its guest has. Its own to write: a guest that grows waits for nobody who looks through
    /// the list.
    memory: Arc<AtomicU64>,
}

/// What lives, and what it has.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) id: InstanceId,
    pub(crate) owner: Arc<Owner>,
    /// Bytes of memory and scratch files.
    pub(crate) memory: u64,
}

/// Where a call is listed.
#[derive(Debug)]
enum Seat {
    /// In a place of its own.
    Place(Seated),
    /// Among those that somebody else's [`Cancel`] ends as well.
    Shared(Box<SharedSeat>),
}

/// What a call has of its entry there.
#[derive(Debug)]
struct SharedSeat {
    cancel: Cancel,
    memory: Arc<AtomicU64>,
}

/// One of the places of an admission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seated {
    shard: u32,
    number: u32,
}

impl Registration {
    /// Ends this call, and no other that it does not share the end with.
    pub(crate) fn cancel(&self) -> Cancel {
        match &self.seat {
            Seat::Place(seated) => Cancel::listed(Arc::clone(&self.calls), *seated, self.id),
            Seat::Shared(seat) => seat.cancel.clone(),
        }
    }

    /// Takes note of how much memory its guest has now.
    pub(crate) fn holds(&self, bytes: usize) {
        match &self.seat {
            Seat::Place(seated) => {
                if let Some(places) = self.calls.places_of(*seated) {
                    places.holds(seated.number, bytes);
                }
            }
            Seat::Shared(seat) => seat.memory.store(bytes as u64, Ordering::Relaxed),
        }
    }

    /// Why it was ended, if it was.
    pub(crate) fn raised(&self) -> Option<KillCause> {
        match &self.seat {
            Seat::Place(seated) => self.calls.raised(*seated, self.id),
            Seat::Shared(seat) => seat.cancel.raised(),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        match &self.seat {
            Seat::Place(seated) => {
                if let Some(places) = self.calls.places_of(*seated) {
                    places.leave(seated.number);
                }
            }
            Seat::Shared(_) => self.calls.shared.lock().retain(|call| call.id != self.id),
        }
    }
}

impl Calls {
    /// Lists a call, which can be ended by `cancel` as well if there is one, and whose stop raises that.
    pub(crate) fn register(self: &Arc<Self>, cancel: Option<&Cancel>) -> Registration {
        let calls = Arc::clone(self);
        if cancel.is_none() {
            let seated = Seated { shard: number_of_this_thread(SHARDS), number: 0 };
            if let Some((number, id)) = self.places_of(seated).and_then(|places| places.take(&self.names)) {
                return Registration { id, calls, seat: Seat::Place(Seated { number, ..seated }) };
            }
        }
        let (cancel, memory) = (cancel.cloned().unwrap_or_default(), Arc::default());
        let id = name(&self.names);
        self.shared.lock().push(Shared { id, cancel: cancel.clone(), memory: Arc::clone(&memory) });
        Registration { id, calls, seat: Seat::Shared(Box::new(SharedSeat { cancel, memory })) }
    }

    fn places_of(&self, seated: Seated) -> Option<&Places> {
        self.places.get(seated.shard as usize)
    }

    /// Ends the call of this name, if it is still there.
    pub(super) fn raise(&self, seated: Seated, id: InstanceId, cause: KillCause) {
        if let Some(places) = self.places_of(seated) {
            places.raise(seated.number, id, cause);
        }
    }

    /// Why the call of this name was ended, if it is still there and was.
    pub(super) fn raised(&self, seated: Seated, id: InstanceId) -> Option<KillCause> {
        self.places_of(seated)?.raised(seated.number, id)
    }

    fn stop(&self, cause: KillCause) -> u64 {
        let mut stopped = 0;
        for call in self.shared.lock().iter() {
            stopped += u64::from(call.cancel.raised().is_none());
            call.cancel.raise(cause);
        }
        stopped + self.places.iter().map(|places| places.stop(cause)).sum::<u64>()
    }

    fn live(&self) -> Vec<InstanceId> {
        let mut live: Vec<_> = self.shared.lock().iter().map(|call| call.id).collect();
        live.extend(self.places.iter().flat_map(Places::live));
        live
    }

    fn held(&self) -> Vec<(InstanceId, u64)> {
        let of = |call: &Shared| (call.id, call.memory.load(Ordering::Relaxed));
        let mut held: Vec<_> = self.shared.lock().iter().map(of).collect();
        held.extend(self.places.iter().flat_map(Places::held));
        held
    }

    fn count(&self) -> usize {
        self.shared.lock().len() + self.places.iter().map(|places| places.live().count()).sum::<usize>()
    }
}

impl LiveInstances {
    pub(crate) fn new(start: u64, ticks: Ticks) -> Self {
        // Names are given out in whole multiples.
        let names = Arc::new(AtomicU64::new(start & !(NAMES - 1)));
        Self { names, ticks, admissions: Mutex::default() }
    }

    /// The list of a new admission's calls.
    pub(crate) fn admission(
        &self,
        owner: Arc<Owner>,
        grants: Arc<GrantSet>,
        limits: CallLimits,
    ) -> Arc<Calls> {
        let (names, ticks) = (Arc::clone(&self.names), self.ticks.clone());
        let places = std::array::from_fn(|_| Places::default());
        let calls = Arc::new(Calls { owner, grants, limits, ticks, names, places, shared: Mutex::default() });
        let mut admissions = self.admissions.lock();
        admissions.retain(|known| known.strong_count() > 0);
        admissions.push(Arc::downgrade(&calls));
        calls
    }

    /// Those that somebody can call, or that are being called.
    fn admissions(&self) -> Vec<Arc<Calls>> {
        self.admissions.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Raises the kill flag of every instance that matches; returns how many had none raised before, so that whoever looks again
    /// counts and records nothing twice.
    pub fn stop(&self, selector: &Selector, cause: KillCause) -> u64 {
        let matching = |calls: &Arc<Calls>| selector.matches(&calls.owner);
        self.admissions().iter().filter(|calls| matching(calls)).map(|calls| calls.stop(cause)).sum()
    }

    /// The instances running now.
    pub fn list(&self) -> Vec<LiveInstance> {
        let mut all = Vec::new();
        for calls in self.admissions() {
            let owner = || Arc::clone(&calls.owner);
            all.extend(calls.live().into_iter().map(|id| LiveInstance { id, owner: owner() }));
        }
        all
    }

    /// The same with the memory that each has. A guest in a worker process has its memory there.
    pub(crate) fn held(&self) -> Vec<Held> {
        let mut all = Vec::new();
        for calls in self.admissions() {
            let held = |(id, memory)| Held { id, owner: Arc::clone(&calls.owner), memory };
            all.extend(calls.held().into_iter().map(held));
        }
        all
    }

    /// Whether anything runs by this admission.
    pub(crate) fn has(&self, admission: AdmissionId) -> bool {
        self.count_of(admission) > 0
    }

    /// How many run by this admission.
    pub(crate) fn count_of(&self, admission: AdmissionId) -> usize {
        let of = |calls: &Arc<Calls>| calls.owner.admission == admission;
        self.admissions().into_iter().filter(of).map(|calls| calls.count()).sum()
    }

    /// How many run now.
    pub fn count(&self) -> usize {
        self.admissions().iter().map(|calls| calls.count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use executor_engine::ModuleDigest;

    use super::*;

    fn admit(live: &LiveInstances, agent: &str, signer: &str) -> Arc<Calls> {
        let owner = Arc::new(Owner {
            admission: AdmissionId::next(),
            agent: agent.into(),
            digest: ModuleDigest::of(agent.as_bytes()),
            signer: signer.into(),
        });
        live.admission(owner, Arc::default(), CallLimits::default())
    }

    #[test]
    fn a_stop_reaches_exactly_what_it_names() {
        let live = LiveInstances::new(7, Ticks::default());
        let first = admit(&live, "a", "x@example.org").register(None);
        let second = admit(&live, "b", "x@example.org").register(None);
        let third = admit(&live, "b", "y@example.org").register(None);
        let selector =
            Selector { agent: Some("b".into()), signer: Some("x@example.org".into()), ..Selector::default() };
        assert_eq!(live.stop(&selector, KillCause::Revoked), 1);
        assert_eq!(live.stop(&selector, KillCause::Operator), 0, "it was told already");
        assert_eq!(first.raised(), None);
        assert_eq!(second.raised(), Some(KillCause::Revoked));
        assert_eq!(third.raised(), None);
        assert_eq!(live.count(), 3, "a call keeps its list, whoever else let go of it");
        let calls = admit(&live, "b", "y@example.org");
        let fourth = calls.register(None);
        let admission = calls.owner.admission;
        assert_eq!(live.stop(&Selector::admission(admission), KillCause::Operator), 1);
        assert_eq!(third.raised(), None, "another admission of the same agent");
        assert_eq!(fourth.raised(), Some(KillCause::Operator));
        assert!(live.has(admission));
        drop((first, second, third, fourth));
        assert!(!live.has(admission));
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn freed_places_are_taken_again_and_nobody_is_mistaken() {
        let live = LiveInstances::new(u64::MAX - 100, Ticks::default());
        let calls = admit(&live, "a", "x@example.org");
        let mut ever = HashSet::new();
        for _ in 0..1000 {
            let many: Vec<_> = (0..48).map(|_| calls.register(None)).collect();
            let names: HashSet<_> = live.list().iter().map(|one| one.id).collect();
            assert!(many.iter().all(|one| names.contains(&one.id)) && names.len() == many.len());
            assert!(many.iter().all(|one| ever.insert(one.id)), "a name serves once");
        }
        assert_eq!(live.count(), 0);
        let places = calls.places.iter().map(Places::count).max();
        assert_eq!(places, Some(64), "as many as ever lived at once, up to the next power of two");
    }

    #[test]
    fn threads_give_calls_different_names_and_any_thread_may_end_them() {
        let live = LiveInstances::new(0, Ticks::default());
        let calls = admit(&live, "a", "x@example.org");
        let threads: Vec<_> = (0..2 * SHARDS)
            .map(|_| {
                let calls = Arc::clone(&calls);
                std::thread::spawn(move || (0..100).map(|_| calls.register(None)).collect::<Vec<_>>())
            })
            .collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().map(|one| one.id).collect::<HashSet<_>>().len(), 200 * SHARDS as usize);
        assert_eq!(live.stop(&Selector::default(), KillCause::Shutdown), 200 * u64::from(SHARDS));
        drop(all);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn a_list_that_nobody_can_call_any_more_is_forgotten() {
        let live = LiveInstances::new(0, Ticks::default());
        let running = admit(&live, "a", "x@example.org").register(None);
        drop(admit(&live, "b", "x@example.org"));
        let kept = admit(&live, "c", "x@example.org");
        assert_eq!(live.admissions.lock().len(), 2);
        drop(running);
        drop(admit(&live, "d", "x@example.org"));
        assert_eq!(live.admissions().len(), 1);
        assert_eq!(live.admissions()[0].owner, kept.owner);
    }

    #[test]
    fn a_call_is_ended_by_its_own_cancel_and_by_nobody_who_comes_late() {
        let live = LiveInstances::new(0, Ticks::default());
        let calls = admit(&live, "a", "x@example.org");
        let first = calls.register(None);
        let late = first.cancel();
        late.raise(KillCause::Operator);
        assert_eq!((first.raised(), late.raised()), (Some(KillCause::Operator), Some(KillCause::Operator)));
        drop(first);
        let second = calls.register(None);
        late.raise(KillCause::Operator);
        assert_eq!((second.raised(), late.raised()), (None, None));
        live.stop(&Selector::admission(calls.owner.admission), KillCause::Revoked);
        assert_eq!(second.raised(), Some(KillCause::Revoked));
        drop(second);
        assert_eq!(calls.register(None).raised(), None);
    }

    #[test]
    fn what_guests_have_is_told_while_they_live() {
        let live = LiveInstances::new(0, Ticks::default());
        let calls = admit(&live, "a", "x@example.org");
        let (own, shared) = (calls.register(None), calls.register(Some(&Cancel::default())));
        let told = || live.held().iter().map(|held| (held.id, held.memory)).collect::<HashSet<_>>();
        assert_eq!(told(), HashSet::from([(own.id, 0), (shared.id, 0)]));
        own.holds(1 << 16);
        own.holds(3 << 16);
        shared.holds(5 << 16);
        assert_eq!(told(), HashSet::from([(own.id, 3 << 16), (shared.id, 5 << 16)]));
        drop((own, shared));
        assert_eq!(told(), HashSet::new());
        // Whoever takes the place next has nothing yet.
        let next = calls.register(None);
        assert_eq!(told(), HashSet::from([(next.id, 0)]));
    }

    #[test]
    fn a_guest_that_grows_waits_for_nobody_who_looks_through_the_list() {
        let live = LiveInstances::new(0, Ticks::default());
        let calls = admit(&live, "a", "x@example.org");
        let shared = calls.register(Some(&Cancel::default()));
        let (done, told) = std::sync::mpsc::channel();
        let looks = calls.shared.lock();
        std::thread::spawn(move || {
            shared.holds(7 << 16);
            let _ = done.send(shared);
        });
        let shared = told.recv_timeout(std::time::Duration::from_secs(30)).expect("it waits for the list");
        drop(looks);
        let held = live.held();
        assert_eq!((held[0].id, held[0].memory, held.len()), (shared.id, 7 << 16, 1));
    }

    #[test]
    fn who_shares_an_end_shares_every_stop() {
        let live = LiveInstances::new(0, Ticks::default());
        let (calls, others) = (admit(&live, "a", "x@example.org"), admit(&live, "b", "x@example.org"));
        let cancel = Cancel::default();
        let (first, second) = (calls.register(Some(&cancel)), others.register(Some(&cancel)));
        assert_eq!((live.count(), live.list().len()), (2, 2));
        for stopped in [1, 0] {
            assert_eq!(live.stop(&Selector::admission(others.owner.admission), KillCause::Revoked), stopped);
        }
        for raised in [cancel.raised(), first.raised(), second.raised(), first.cancel().raised()] {
            assert_eq!(raised, Some(KillCause::Revoked));
        }
        drop((first, second));
        assert_eq!(live.count(), 0);
        // A pipeline, and its step: either way.
        let whole = calls.register(None);
        let step = others.register(Some(&whole.cancel()));
        live.stop(&Selector::admission(others.owner.admission), KillCause::Operator);
        assert_eq!((whole.raised(), step.raised()), (Some(KillCause::Operator), Some(KillCause::Operator)));
        drop((whole, step));
        let whole = calls.register(None);
        let step = others.register(Some(&whole.cancel()));
        whole.cancel().raise(KillCause::CallerGone);
        assert_eq!(step.raised(), Some(KillCause::CallerGone));
    }
}
