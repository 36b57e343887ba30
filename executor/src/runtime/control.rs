//! Live instances and how they are stopped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use executor_engine::ModuleDigest;
use parking_lot::Mutex;

/// Why the host killed an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KillCause {
    /// An operator stopped it.
    Operator = 1,
    /// Something that vouched for it was revoked, or the evidence says so now.
    Revoked = 2,
    /// The executor is shutting down.
    Shutdown = 3,
    /// The caller went away.
    CallerGone = 4,
}

impl KillCause {
    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "stopped",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
            Self::CallerGone => "caller_gone",
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Operator, Self::Revoked, Self::Shutdown, Self::CallerGone]
            .into_iter()
            .find(|cause| *cause as u8 == code)
    }
}

/// The name of one instance: a counter of this process behind a random start, unique in its audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i-{:016x}", self.0)
    }
}

impl InstanceId {
    /// Whether the call is one of the sixteenth that is measured more closely.
    pub(crate) fn is_sampled(self) -> bool {
        self.0.is_multiple_of(16)
    }

    /// Reads the text form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("i-").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(Self).filter(|id| id.to_string() == text)
    }
}

/// The name of one admission: a counter of this process. The same module may be admitted under several manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdmissionId(u64);

impl AdmissionId {
    /// A name that no other admission of this process has.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whose module an instance runs: shared by all instances of one admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The admission.
    pub admission: AdmissionId,
    /// Agent id of the signed manifest.
    pub agent: String,
    /// Digest of the module.
    pub digest: ModuleDigest,
    /// Verified signer name.
    pub signer: String,
}

/// Ends one call from outside, also before it began. Clones mean the same call.
#[derive(Debug, Clone, Default)]
pub struct Cancel(pub(crate) Arc<KillFlag>);

impl Cancel {
    /// Ends the call within two ticks.
    pub fn raise(&self, cause: KillCause) {
        self.0.raise(cause);
    }
}

/// The flag that the guest's next tick and each of its host calls read.
#[derive(Debug, Default)]
pub(crate) struct KillFlag(AtomicU8);

impl KillFlag {
    pub(crate) fn raise(&self, cause: KillCause) {
        // The first cause stays: a shutdown after a revocation must not hide it.
        let _ = self.0.compare_exchange(0, cause as u8, Ordering::Release, Ordering::Relaxed);
    }

    pub(crate) fn raised(&self) -> Option<KillCause> {
        KillCause::from_code(self.0.load(Ordering::Acquire))
    }
}

/// One running instance, as listed.
#[derive(Debug, Clone)]
pub struct LiveInstance {
    /// Its name.
    pub id: InstanceId,
    /// Whose it is.
    pub owner: Arc<Owner>,
}

/// Which instances to stop: those that match every field given.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// One admission.
    pub admission: Option<AdmissionId>,
    /// Agent id.
    pub agent: Option<String>,
    /// Module digest.
    pub digest: Option<ModuleDigest>,
    /// Verified signer name.
    pub signer: Option<String>,
}

impl Selector {
    /// Whether the selector names anything; one that does not would match everything and is refused by callers.
    pub fn is_empty(&self) -> bool {
        self.admission.is_none() && self.agent.is_none() && self.digest.is_none() && self.signer.is_none()
    }

    /// Everything that runs by one admission.
    pub fn admission(admission: AdmissionId) -> Self {
        Self { admission: Some(admission), ..Self::default() }
    }

    fn matches(&self, owner: &Owner) -> bool {
        self.admission.is_none_or(|admission| admission == owner.admission)
            && self.agent.as_ref().is_none_or(|agent| *agent == owner.agent)
            && self.digest.is_none_or(|digest| digest == owner.digest)
            && self.signer.as_ref().is_none_or(|signer| *signer == owner.signer)
    }
}

/// Every instance that runs in this process, and every call that waits for its instance: a stop reaches both.
///
/// Split over several locks: instances begin and end some hundred thousand times a second, and a stop may take
/// its time to look through all of them. Within one, a freed place is taken again: no hashing, no allocation.
#[derive(Debug)]
pub struct LiveInstances {
    next: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
}

const SHARDS: usize = 16;

#[derive(Debug, Default)]
struct Shard {
    places: Vec<Place>,
    free: Vec<usize>,
}

/// Room for one instance. The flag of the last one serves again, unless somebody still holds it.
#[derive(Debug)]
struct Place {
    live: Option<Entry>,
    flag: Arc<KillFlag>,
}

impl Shard {
    fn live(&self) -> impl Iterator<Item = (&Entry, &KillFlag)> {
        self.places.iter().filter_map(|place| Some((place.live.as_ref()?, &*place.flag)))
    }

    /// Takes a place, with this flag or one that nobody knows.
    fn put(&mut self, entry: Entry, flag: Option<Arc<KillFlag>>) -> (usize, Arc<KillFlag>) {
        match self.free.pop().and_then(|number| Some((number, self.places.get_mut(number)?))) {
            Some((number, place)) => {
                place.live = Some(entry);
                match (flag, Arc::get_mut(&mut place.flag)) {
                    (Some(flag), _) => place.flag = flag,
                    (None, Some(known_to_nobody)) => *known_to_nobody = KillFlag::default(),
                    (None, None) => place.flag = Arc::default(),
                }
                (number, Arc::clone(&place.flag))
            }
            None => {
                let flag = flag.unwrap_or_default();
                self.places.push(Place { live: Some(entry), flag: Arc::clone(&flag) });
                (self.places.len() - 1, flag)
            }
        }
    }

    fn take(&mut self, place: usize) -> Option<Entry> {
        let entry = self.places.get_mut(place)?.live.take();
        if entry.is_some() {
            self.free.push(place);
        }
        entry
    }
}

#[derive(Debug)]
struct Entry {
    id: InstanceId,
    owner: Arc<Owner>,
}

/// A call in the list of what can be stopped.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: InstanceId,
    pub(crate) flag: Arc<KillFlag>,
    pub(crate) listed: Listed,
}

impl Registration {
    /// Ends this call.
    pub(crate) fn cancel(&self) -> Cancel {
        Cancel(Arc::clone(&self.flag))
    }
}

/// Keeps a call in the list until it is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    list: Arc<LiveInstances>,
    place: usize,
    id: InstanceId,
}

impl LiveInstances {
    pub(crate) fn new(start: u64) -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(start), shards: std::array::from_fn(|_| Mutex::default()) })
    }

    fn shard(&self, id: InstanceId) -> &Mutex<Shard> {
        let [first, ..] = &self.shards;
        self.shards.get(usize::try_from(id.0).unwrap_or_default() % SHARDS).unwrap_or(first)
    }

    /// Lists a call, which can be ended by `cancel` as well if there is one.
    pub(crate) fn register(self: &Arc<Self>, owner: &Arc<Owner>, cancel: Option<&Cancel>) -> Registration {
        let id = InstanceId(self.next.fetch_add(1, Ordering::Relaxed));
        let entry = Entry { id, owner: Arc::clone(owner) };
        let flag = cancel.map(|cancel| Arc::clone(&cancel.0));
        let (place, flag) = self.shard(id).lock().put(entry, flag);
        Registration { id, flag, listed: Listed { list: Arc::clone(self), place, id } }
    }

    /// Raises the kill flag of every instance that matches; returns how many.
    pub fn stop(&self, selector: &Selector, cause: KillCause) -> u64 {
        let mut stopped = 0;
        for shard in &self.shards {
            for (entry, flag) in shard.lock().live() {
                if selector.matches(&entry.owner) {
                    flag.raise(cause);
                    stopped += 1;
                }
            }
        }
        stopped
    }

    /// The instances running now.
    pub fn list(&self) -> Vec<LiveInstance> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            all.extend(
                shard.live().map(|(entry, _)| LiveInstance { id: entry.id, owner: Arc::clone(&entry.owner) }),
            );
        }
        all
    }

    /// Whether anything runs by this admission.
    pub(crate) fn has(&self, admission: AdmissionId) -> bool {
        self.shards
            .iter()
            .any(|shard| shard.lock().live().any(|(entry, _)| entry.owner.admission == admission))
    }

    /// How many run now.
    pub fn count(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.lock();
                shard.places.len() - shard.free.len()
            })
            .sum()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let entry = self.list.shard(self.id).lock().take(self.place);
        // Its last references are dropped outside the lock.
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(agent: &str, signer: &str) -> Arc<Owner> {
        Arc::new(Owner {
            admission: AdmissionId::next(),
            agent: agent.into(),
            digest: ModuleDigest::of(agent.as_bytes()),
            signer: signer.into(),
        })
    }

    #[test]
    fn a_stop_reaches_exactly_what_it_names() {
        let live = LiveInstances::new(7);
        let first = live.register(&owner("a", "x@example.org"), None);
        let second = live.register(&owner("b", "x@example.org"), None);
        let third = live.register(&owner("b", "y@example.org"), None);
        let selector =
            Selector { agent: Some("b".into()), signer: Some("x@example.org".into()), ..Selector::default() };
        assert_eq!(live.stop(&selector, KillCause::Revoked), 1);
        assert_eq!(first.flag.raised(), None);
        assert_eq!(second.flag.raised(), Some(KillCause::Revoked));
        assert_eq!(third.flag.raised(), None);
        assert_eq!(live.count(), 3);
        let owner = owner("b", "y@example.org");
        let fourth = live.register(&owner, None);
        assert_eq!(live.stop(&Selector::admission(owner.admission), KillCause::Operator), 1);
        assert_eq!(third.flag.raised(), None, "another admission of the same agent");
        assert_eq!(fourth.flag.raised(), Some(KillCause::Operator));
        assert!(live.has(owner.admission));
        drop((first, second, third, fourth));
        assert!(!live.has(owner.admission));
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn freed_places_are_taken_again_and_nobody_is_mistaken() {
        let live = LiveInstances::new(0);
        let owner = owner("a", "x@example.org");
        for _ in 0..1000 {
            let many: Vec<_> = (0..3 * SHARDS).map(|_| live.register(&owner, None)).collect();
            let names: std::collections::HashSet<_> = live.list().iter().map(|one| one.id).collect();
            assert!(many.iter().all(|one| names.contains(&one.id)) && names.len() == many.len());
        }
        assert_eq!(live.count(), 0);
        assert!(
            live.shards.iter().all(|shard| shard.lock().places.len() == 3),
            "as many as ever lived at once"
        );
    }

    #[test]
    fn a_flag_serves_again_only_when_nobody_can_raise_it_any_more() {
        let live = LiveInstances::new(0);
        let owner = owner("a", "x@example.org");
        let next = |live: &Arc<LiveInstances>| {
            // The same shard comes again after all the others.
            (1..SHARDS).for_each(|_| drop(live.register(&owner, None)));
            live.register(&owner, None)
        };
        let first = live.register(&owner, None);
        let (late, address) = (first.cancel(), Arc::as_ptr(&first.flag));
        late.raise(KillCause::Operator);
        drop(first);
        let second = next(&live);
        late.raise(KillCause::Operator);
        assert_eq!((second.flag.raised(), Arc::as_ptr(&second.flag) == address), (None, false));
        let address = Arc::as_ptr(&second.flag);
        live.stop(&Selector::admission(owner.admission), KillCause::Revoked);
        drop(second);
        let third = next(&live);
        assert_eq!((third.flag.raised(), Arc::as_ptr(&third.flag) == address), (None, true));
        // One that the caller brought is his.
        let cancel = Cancel::default();
        drop(third);
        (1..SHARDS).for_each(|_| drop(live.register(&owner, None)));
        let fourth = live.register(&owner, Some(&cancel));
        cancel.raise(KillCause::CallerGone);
        assert_eq!(fourth.flag.raised(), Some(KillCause::CallerGone));
        drop(fourth);
        assert_eq!(next(&live).flag.raised(), None);
    }

    #[test]
    fn the_first_cause_stays() {
        let flag = KillFlag::default();
        flag.raise(KillCause::Revoked);
        flag.raise(KillCause::Shutdown);
        assert_eq!(flag.raised(), Some(KillCause::Revoked));
    }
}
