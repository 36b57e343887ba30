//! Live instances: where they are listed, and how a stop finds them.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::control::{AdmissionId, Cancel, InstanceId, KillCause, KillFlag, LiveInstance, Owner, Selector};
use super::limits::CallLimits;
use crate::admission::GrantSet;

/// Every instance that runs in this process, and every call that waits for its instance: a stop reaches both.
#[derive(Debug)]
pub struct LiveInstances {
    next: Arc<AtomicU64>,
    admissions: Mutex<Vec<Weak<Calls>>>,
}

/// The calls of one admission, with what they share.
///
/// Split over several locks: instances begin and end some hundred thousand times a second, and a stop may take
/// its time to look through all of them. Within one, a freed place is taken again: no hashing, no allocation. A call
/// keeps this list alive and nothing else, because each further shared reference is counted up and down for each call.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) owner: Arc<Owner>,
    pub(crate) grants: Arc<GrantSet>,
    pub(crate) limits: CallLimits,
    next: Arc<AtomicU64>,
    shards: [Mutex<Shard>; SHARDS],
}

const SHARDS: usize = 8;

/// How many names a shard takes at once.
const NAMES: u64 = 64;

#[derive(Debug, Default)]
struct Shard {
    places: Vec<Place>,
    free: Vec<usize>,
    live: usize,
    /// Names taken, and how many of them are left.
    name: u64,
    names: u64,
}

/// Room for one instance. The flag of the last one serves again, unless somebody still holds it.
#[derive(Debug)]
struct Place {
    live: Option<InstanceId>,
    flag: Arc<KillFlag>,
}

impl Shard {
    fn live(&self) -> impl Iterator<Item = (InstanceId, &KillFlag)> {
        self.places.iter().filter_map(|place| Some((place.live?, &*place.flag)))
    }

    fn name(&mut self, next: &AtomicU64) -> InstanceId {
        if self.names == 0 {
            self.name = next.fetch_add(NAMES, Ordering::Relaxed);
            self.names = NAMES;
        }
        let name = InstanceId(self.name);
        self.name = self.name.wrapping_add(1);
        self.names -= 1;
        name
    }

    /// Takes a place, with this flag or one that nobody knows.
    fn put(&mut self, id: InstanceId, flag: Option<Arc<KillFlag>>) -> (usize, Arc<KillFlag>) {
        self.live += 1;
        match self.free.pop().and_then(|number| Some((number, self.places.get_mut(number)?))) {
            Some((number, place)) => {
                place.live = Some(id);
                match (flag, Arc::get_mut(&mut place.flag)) {
                    (Some(flag), _) => place.flag = flag,
                    (None, Some(known_to_nobody)) => *known_to_nobody = KillFlag::default(),
                    (None, None) => place.flag = Arc::default(),
                }
                (number, Arc::clone(&place.flag))
            }
            None => {
                let flag = flag.unwrap_or_default();
                self.places.push(Place { live: Some(id), flag: Arc::clone(&flag) });
                (self.places.len() - 1, flag)
            }
        }
    }

    fn take(&mut self, number: usize) {
        let Some(place) = self.places.get_mut(number) else { return };
        if place.live.take().is_some() {
            self.live -= 1;
            self.free.push(number);
        }
    }
}

/// A call in the list of what can be stopped, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: InstanceId,
    pub(crate) flag: Arc<KillFlag>,
    pub(crate) calls: Arc<Calls>,
    shard: usize,
    place: usize,
}

impl Registration {
    /// Ends this call.
    pub(crate) fn cancel(&self) -> Cancel {
        Cancel(Arc::clone(&self.flag))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(shard) = self.calls.shards.get(self.shard) {
            shard.lock().take(self.place);
        }
    }
}

impl Calls {
    /// Lists a call, which can be ended by `cancel` as well if there is one.
    pub(crate) fn register(self: &Arc<Self>, cancel: Option<&Cancel>) -> Registration {
        let flag = cancel.map(|cancel| Arc::clone(&cancel.0));
        let number = shard_of_this_thread();
        let [first, ..] = &self.shards;
        let mut shard = self.shards.get(number).unwrap_or(first).lock();
        let id = shard.name(&self.next);
        let (place, flag) = shard.put(id, flag);
        drop(shard);
        Registration { id, flag, calls: Arc::clone(self), shard: number, place }
    }

    fn stop(&self, cause: KillCause) -> u64 {
        let mut stopped = 0;
        for shard in &self.shards {
            for (_, flag) in shard.lock().live() {
                flag.raise(cause);
                stopped += 1;
            }
        }
        stopped
    }

    fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().live).sum()
    }
}

/// Threads keep to a shard of their own as far as there are enough.
fn shard_of_this_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SHARD.with(|shard| {
        shard.get().unwrap_or_else(|| {
            let number = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
            shard.set(Some(number));
            number
        })
    })
}

impl LiveInstances {
    pub(crate) fn new(start: u64) -> Self {
        Self { next: Arc::new(AtomicU64::new(start)), admissions: Mutex::default() }
    }

    /// The list of a new admission's calls.
    pub(crate) fn admission(
        &self,
        owner: Arc<Owner>,
        grants: Arc<GrantSet>,
        limits: CallLimits,
    ) -> Arc<Calls> {
        let (next, shards) = (Arc::clone(&self.next), std::array::from_fn(|_| Mutex::default()));
        let calls = Arc::new(Calls { owner, grants, limits, next, shards });
        let mut admissions = self.admissions.lock();
        admissions.retain(|known| known.strong_count() > 0);
        admissions.push(Arc::downgrade(&calls));
        calls
    }

    /// Those that somebody can call, or that are being called.
    fn admissions(&self) -> Vec<Arc<Calls>> {
        self.admissions.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Raises the kill flag of every instance that matches; returns how many.
    pub fn stop(&self, selector: &Selector, cause: KillCause) -> u64 {
        let matching = |calls: &Arc<Calls>| selector.matches(&calls.owner);
        self.admissions().iter().filter(|calls| matching(calls)).map(|calls| calls.stop(cause)).sum()
    }

    /// The instances running now.
    pub fn list(&self) -> Vec<LiveInstance> {
        let mut all = Vec::new();
        for calls in self.admissions() {
            for shard in &calls.shards {
                let owner = || Arc::clone(&calls.owner);
                all.extend(shard.lock().live().map(|(id, _)| LiveInstance { id, owner: owner() }));
            }
        }
        all
    }

    /// Whether anything runs by this admission.
    pub(crate) fn has(&self, admission: AdmissionId) -> bool {
        self.admissions().iter().any(|calls| calls.owner.admission == admission && calls.count() > 0)
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
        let live = LiveInstances::new(7);
        let first = admit(&live, "a", "x@example.org").register(None);
        let second = admit(&live, "b", "x@example.org").register(None);
        let third = admit(&live, "b", "y@example.org").register(None);
        let selector =
            Selector { agent: Some("b".into()), signer: Some("x@example.org".into()), ..Selector::default() };
        assert_eq!(live.stop(&selector, KillCause::Revoked), 1);
        assert_eq!(first.flag.raised(), None);
        assert_eq!(second.flag.raised(), Some(KillCause::Revoked));
        assert_eq!(third.flag.raised(), None);
        assert_eq!(live.count(), 3, "a call keeps its list, whoever else let go of it");
        let calls = admit(&live, "b", "y@example.org");
        let fourth = calls.register(None);
        let admission = calls.owner.admission;
        assert_eq!(live.stop(&Selector::admission(admission), KillCause::Operator), 1);
        assert_eq!(third.flag.raised(), None, "another admission of the same agent");
        assert_eq!(fourth.flag.raised(), Some(KillCause::Operator));
        assert!(live.has(admission));
        drop((first, second, third, fourth));
        assert!(!live.has(admission));
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn freed_places_are_taken_again_and_nobody_is_mistaken() {
        let live = LiveInstances::new(u64::MAX - 100);
        let calls = admit(&live, "a", "x@example.org");
        let mut ever = HashSet::new();
        for _ in 0..1000 {
            let many: Vec<_> = (0..48).map(|_| calls.register(None)).collect();
            let names: HashSet<_> = live.list().iter().map(|one| one.id).collect();
            assert!(many.iter().all(|one| names.contains(&one.id)) && names.len() == many.len());
            assert!(many.iter().all(|one| ever.insert(one.id)), "a name serves once");
        }
        assert_eq!(live.count(), 0);
        let places: usize = calls.shards.iter().map(|shard| shard.lock().places.len()).sum();
        assert_eq!(places, 48, "as many as ever lived at once");
    }

    #[test]
    fn threads_give_calls_different_names_and_any_thread_may_end_them() {
        let live = LiveInstances::new(0);
        let calls = admit(&live, "a", "x@example.org");
        let threads: Vec<_> = (0..2 * SHARDS)
            .map(|_| {
                let calls = Arc::clone(&calls);
                std::thread::spawn(move || (0..100).map(|_| calls.register(None)).collect::<Vec<_>>())
            })
            .collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().map(|one| one.id).collect::<HashSet<_>>().len(), 200 * SHARDS);
        assert_eq!(live.stop(&Selector::default(), KillCause::Shutdown), 200 * SHARDS as u64);
        drop(all);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn a_list_that_nobody_can_call_any_more_is_forgotten() {
        let live = LiveInstances::new(0);
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
    fn a_flag_serves_again_only_when_nobody_can_raise_it_any_more() {
        let live = LiveInstances::new(0);
        let calls = admit(&live, "a", "x@example.org");
        let first = calls.register(None);
        let (late, address) = (first.cancel(), Arc::as_ptr(&first.flag));
        late.raise(KillCause::Operator);
        drop(first);
        let second = calls.register(None);
        late.raise(KillCause::Operator);
        assert_eq!((second.flag.raised(), Arc::as_ptr(&second.flag) == address), (None, false));
        let address = Arc::as_ptr(&second.flag);
        live.stop(&Selector::admission(calls.owner.admission), KillCause::Revoked);
        drop(second);
        let third = calls.register(None);
        assert_eq!((third.flag.raised(), Arc::as_ptr(&third.flag) == address), (None, true));
        // One that the caller brought is his.
        let cancel = Cancel::default();
        drop(third);
        let fourth = calls.register(Some(&cancel));
        cancel.raise(KillCause::CallerGone);
        assert_eq!(fourth.flag.raised(), Some(KillCause::CallerGone));
        drop(fourth);
        assert_eq!(calls.register(None).flag.raised(), None);
    }
}
