//! Places of live calls: taken, ended and left without a lock.
//!
//! A place is one word: the name of a call, whether it lives, and why it was ended, if it was. Taking and leaving a place and
//! raising a cause are each one exchange of that word. That is cheap, which counts some hundred thousand times a second, and it is
//! all that a stop relies on:
//!
//! - A cause is raised for a name. Whoever comes late finds another name in the place and changes nothing.
//! - A stop exchanges the word of every place, whether anybody lives there or not, and a call takes its place before it asks
//!   whether it may run. So of the two one sees the other: either the stop finds the call, or the call took its place from what
//!   the stop left there, and then sees the verdict that the stop was for.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::control::{InstanceId, KillCause};

/// How many names a place takes at once; they begin at a multiple of it.
pub(super) const NAMES: u64 = 64;

/// Bits of a name.
const NAME: u64 = (1 << 60) - 1;

const SHIFT: u32 = 4;
const LIVE: u64 = 0b1000;
const CAUSE: u64 = 0b0111;

/// Places that are always there; each further segment has as many as all before it.
const FIRST: usize = 16;

/// Half a million places: more calls than may run and wait.
const SEGMENTS: usize = 15;

/// Places that threads share, each of which keeps to those of one number as far as there are enough.
#[derive(Debug)]
pub(super) struct Places {
    first: [Place; FIRST],
    segments: [OnceLock<Box<[Place]>>; SEGMENTS],
    /// Held while a segment is added, and by a stop before it looks: what is added later is taken by who sees the stop.
    growing: Mutex<()>,
    /// Where to look first: the place that was left last, or the one after that which was taken last.
    first_look: AtomicU32,
}

/// One place.
#[derive(Debug)]
struct Place {
    word: AtomicU64,
    /// Bytes of memory that the guest of its call has. Only its call writes it, and whoever reads it beside the word may read that of
    /// the call before or after: it is for people.
    memory: AtomicU64,
}

impl Place {
    const fn unused() -> Self {
        Self { word: AtomicU64::new(UNUSED), memory: AtomicU64::new(0) }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            first: [const { Place::unused() }; FIRST],
            segments: [const { OnceLock::new() }; SEGMENTS],
            growing: Mutex::new(()),
            first_look: AtomicU32::new(0),
        }
    }
}

/// A place that no names are left over in.
const UNUSED: u64 = (NAMES - 1) << SHIFT;

/// One word, taken apart.
fn cause(word: u64) -> Option<KillCause> {
    KillCause::from_code((word & CAUSE) as u8)
}

const fn lives(word: u64) -> bool {
    word & LIVE != 0
}

const fn is_of(word: u64, id: InstanceId) -> bool {
    lives(word) && word >> SHIFT == id.0
}

/// The name after the last one in a place, which is the first of new ones when those it took are used up.
fn next_name(word: u64, names: &AtomicU64) -> u64 {
    let next = (word >> SHIFT).wrapping_add(1);
    if next.is_multiple_of(NAMES) { names.fetch_add(NAMES, Ordering::Relaxed) & NAME } else { next }
}

/// A name for a call that has no place. Of those that it takes it uses one, another one each time.
pub(super) fn name(names: &AtomicU64) -> InstanceId {
    let first = names.fetch_add(NAMES, Ordering::Relaxed) & NAME;
    InstanceId(first + first / NAMES % NAMES)
}

impl Places {
    /// Takes a place under a new name; nothing when there are no more.
    pub(super) fn take(&self, names: &AtomicU64) -> Option<(u32, InstanceId)> {
        let number = self.first_look.load(Ordering::Relaxed);
        let taken = match self.get(number).and_then(|place| try_take(place, names)) {
            Some(id) => Some((number, id)),
            None => self.look(names),
        };
        if let Some((number, _)) = taken {
            self.first_look.store(number.wrapping_add(1), Ordering::Relaxed);
        }
        taken
    }

    /// Leaves a place.
    pub(super) fn leave(&self, number: u32) {
        if let Some(Place { word: place, memory }) = self.place(number) {
            memory.store(0, Ordering::Relaxed);
            // An exchange, although nobody else changes it to this: a stop that came before is seen by who comes next.
            place.fetch_and(!(LIVE | CAUSE), Ordering::AcqRel);
            self.first_look.store(number, Ordering::Relaxed);
        }
    }

    /// Takes note of the memory that the guest of a place has.
    pub(super) fn holds(&self, number: u32, bytes: usize) {
        if let Some(place) = self.place(number) {
            place.memory.store(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Ends the call of this name, if it is still there. The first cause stays: a shutdown after a revocation must not hide it.
    pub(super) fn raise(&self, number: u32, id: InstanceId, cause: KillCause) {
        if let Some(place) = self.get(number) {
            // It fails where the call is over or has been ended before.
            let (ordinary, ended) = (id.0 << SHIFT | LIVE, id.0 << SHIFT | LIVE | cause as u64);
            let _ = place.compare_exchange(ordinary, ended, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Why the call of this name was ended, if it was.
    pub(super) fn raised(&self, number: u32, id: InstanceId) -> Option<KillCause> {
        let word = self.get(number)?.load(Ordering::Acquire);
        if is_of(word, id) { cause(word) } else { None }
    }

    /// Ends every call; how many of them nobody had ended before.
    pub(super) fn stop(&self, cause: KillCause) -> u64 {
        drop(self.growing.lock());
        let mut stopped = 0;
        for place in self.all() {
            let mut word = place.load(Ordering::Relaxed);
            loop {
                let ended = if lives(word) && word & CAUSE == 0 { word | cause as u64 } else { word };
                match place.compare_exchange_weak(word, ended, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(now) => word = now,
                }
            }
            stopped += u64::from(lives(word) && word & CAUSE == 0);
        }
        stopped
    }

    /// The names of those that live.
    pub(super) fn live(&self) -> impl Iterator<Item = InstanceId> {
        let words = self.all().map(|place| place.load(Ordering::Acquire));
        words.filter(|word| lives(*word)).map(|word| InstanceId(word >> SHIFT))
    }

    /// The same with the bytes of memory that their guests have.
    pub(super) fn held(&self) -> impl Iterator<Item = (InstanceId, u64)> {
        self.all_places().filter_map(|Place { word, memory }| {
            let word = word.load(Ordering::Acquire);
            lives(word).then(|| (InstanceId(word >> SHIFT), memory.load(Ordering::Relaxed)))
        })
    }

    /// How many places there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.all().count()
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.all_places().map(|place| &place.word)
    }

    fn all_places(&self) -> impl Iterator<Item = &Place> {
        let further = self.segments.iter().map_while(OnceLock::get).flat_map(|segment| segment.iter());
        self.first.iter().chain(further)
    }

    fn get(&self, number: u32) -> Option<&AtomicU64> {
        self.place(number).map(|place| &place.word)
    }

    fn place(&self, number: u32) -> Option<&Place> {
        let number = number as usize;
        if let Some(place) = self.first.get(number) {
            return Some(place);
        }
        let log = (number / FIRST).ilog2();
        self.segments.get(log as usize)?.get()?.get(number - (FIRST << log))
    }

    /// Any place that is free, or a new one.
    #[cold]
    fn look(&self, names: &AtomicU64) -> Option<(u32, InstanceId)> {
        let free = |(number, place)| Some((number, try_take(place, names)?));
        if let Some(taken) = (0..).zip(self.all()).find_map(free) {
            return Some(taken);
        }
        // As many again as there are, so that the time it takes to look is made up for.
        let growing = self.growing.lock();
        let have = self.segments.iter().map_while(OnceLock::get).count();
        let unused = std::iter::repeat_with(Place::unused);
        self.segments.get(have)?.get_or_init(|| unused.take(FIRST << have).collect());
        drop(growing);
        (0..).zip(self.all()).find_map(free)
    }
}

fn try_take(place: &AtomicU64, names: &AtomicU64) -> Option<InstanceId> {
    let mut word = place.load(Ordering::Relaxed);
    while !lives(word) {
        let name = next_name(word, names);
        match place.compare_exchange_weak(word, name << SHIFT | LIVE, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Some(InstanceId(name)),
            Err(now) => word = now,
        }
    }
    None
}

/// The number that a thread keeps to, of so many.
pub(super) fn number_of_this_thread(of: u32) -> u32 {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static NUMBER: Cell<Option<u32>> = const { Cell::new(None) };
    }
    NUMBER.with(|number| {
        let number = number.get().unwrap_or_else(|| {
            let next = THREADS.fetch_add(1, Ordering::Relaxed);
            number.set(Some(next));
            next
        });
        number % of
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn every_place_has_a_number_of_its_own() {
        let (places, names) = (Places::default(), AtomicU64::new(0));
        let taken: Vec<_> = (0..200).map(|_| places.take(&names).unwrap()).collect();
        assert_eq!(taken.iter().map(|(number, _)| *number).collect::<HashSet<_>>(), (0..200).collect());
        assert_eq!(taken.iter().map(|(_, id)| *id).collect::<HashSet<_>>().len(), 200);
        assert_eq!(places.count(), 256);
        for (number, id) in &taken {
            assert_eq!(places.get(*number).unwrap().load(Ordering::Relaxed), id.0 << SHIFT | LIVE);
        }
    }

    #[test]
    fn who_comes_late_ends_nobody_else() {
        let (places, names) = (Places::default(), AtomicU64::new(0));
        let (number, first) = places.take(&names).unwrap();
        places.raise(number, first, KillCause::Operator);
        places.raise(number, first, KillCause::Shutdown);
        assert_eq!(places.raised(number, first), Some(KillCause::Operator), "the first cause stays");
        places.leave(number);
        let (again, second) = places.take(&names).unwrap();
        assert_eq!((again, first == second), (number, false));
        places.raise(number, first, KillCause::Operator);
        assert_eq!((places.raised(number, first), places.raised(number, second)), (None, None));
    }

    #[test]
    fn half_a_million_live_and_no_more() {
        let (places, names) = (Places::default(), AtomicU64::new(NAME - NAMES + 1));
        // The places are taken by hand: looking for the free one each time would take as long as nobody has.
        while let Some((number, _)) = places.look(&names) {
            for place in places.all().skip(number as usize) {
                let _ = try_take(place, &names);
            }
        }
        assert_eq!(places.count(), FIRST << SEGMENTS);
        let live: HashSet<_> = places.live().collect();
        assert_eq!(live.len(), places.count(), "names stay apart where their numbers begin again");
        assert!(places.take(&names).is_none());
        assert_eq!(places.stop(KillCause::Shutdown), live.len() as u64);
    }

    /// A call takes its place and asks for the verdict, a stop changes the verdict and looks at the places: never do both miss.
    #[test]
    fn a_call_sees_the_stop_or_the_stop_sees_the_call() {
        for round in 0..2_000 {
            let (places, names, denied) = (Places::default(), AtomicU64::new(0), AtomicBool::new(false));
            if round % 2 == 0 {
                let (number, _) = places.take(&names).unwrap();
                places.leave(number);
            }
            let (stopped, (number, id, refused)) = std::thread::scope(|scope| {
                let stop = scope.spawn(|| {
                    denied.store(true, Ordering::Relaxed);
                    places.stop(KillCause::Revoked)
                });
                let (number, id) = places.take(&names).unwrap();
                let refused = denied.load(Ordering::Relaxed);
                (stop.join().unwrap(), (number, id, refused))
            });
            let ended = places.raised(number, id).is_some();
            assert_eq!(ended, stopped == 1, "round {round}");
            assert!(ended || refused, "round {round}: a call that was not stopped and sees no reason");
        }
    }
}
