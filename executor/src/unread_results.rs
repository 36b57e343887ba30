//! Results of calls whose streams are read, from the end of their guests until their readers have come so far.
//!
//! A reader who takes nothing leaves the events before the result where they are, and the place of the call is free by then:
//! nothing else would bound what calls that ended leave behind. Where they take too much, others of them make room for the
//! newest. That they ran stays known of those calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::admission::Denied;
use crate::executor::{Executed, instance_of, not_kept, size_of_result};
use crate::runtime::InstanceId;

/// Bytes of all of them. Those of one caller have at most half of it, or are one result.
const ROOM: usize = 256 << 20;

/// All of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct UnreadResults {
    room: usize,
    waiting: Arc<Mutex<Waiting>>,
}

impl Default for UnreadResults {
    fn default() -> Self {
        Self { room: ROOM, waiting: Arc::default() }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    /// Number of the next one.
    next: u64,
    owners: HashMap<Arc<str>, Owned>,
}

/// Those of one caller.
#[derive(Debug, Default)]
struct Owned {
    bytes: usize,
    /// By their numbers, the oldest first.
    results: BTreeMap<u64, Kept>,
}

#[derive(Debug)]
struct Kept {
    bytes: usize,
    result: Result<Executed, Denied>,
}

/// A result that waits for its reader. Dropped, it is kept no longer.
#[derive(Debug)]
pub(crate) struct Unread {
    results: UnreadResults,
    owner: Arc<str>,
    number: u64,
    /// What ran, if something did.
    instance: Option<InstanceId>,
    succeeded: bool,
}

impl Waiting {
    fn remove(&mut self, owner: &str, number: u64) -> Option<Kept> {
        let owned = self.owners.get_mut(owner)?;
        let kept = owned.results.remove(&number)?;
        owned.bytes = owned.bytes.saturating_sub(kept.bytes);
        if owned.results.is_empty() {
            self.owners.remove(owner);
        }
        Some(kept)
    }

    /// Which one gives way to the newest, if one must: of its own caller where those take more than half of the room, else of
    /// whoever has most. The oldest one: the reader of the newest has had no time to take it.
    fn gives_way(&self, room: usize, owner: &Arc<str>, newest: u64) -> Option<(Arc<str>, u64)> {
        let oldest = |owned: &Owned| owned.results.keys().copied().find(|number| *number != newest);
        if let Some(own) = self.owners.get(owner)
            && own.bytes > room / 2
            && let Some(number) = oldest(own)
        {
            return Some((Arc::clone(owner), number));
        }
        let all = self.owners.values().map(|owned| owned.bytes).fold(0, usize::saturating_add);
        if all <= room {
            return None;
        }
        let others =
            self.owners.iter().filter_map(|(owner, owned)| Some((owner, owned.bytes, oldest(owned)?)));
        let most = others.max_by_key(|(_, bytes, _)| *bytes);
        most.map(|(owner, _, number)| (Arc::clone(owner), number))
    }
}

impl UnreadResults {
    /// Keeps a result for its reader, and tells how many others had to make room.
    pub(crate) fn keep(&self, owner: Arc<str>, result: Result<Executed, Denied>) -> (Unread, u64) {
        let (bytes, instance, succeeded) = (size_of_result(&result), instance_of(&result), result.is_ok());
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        let own = waiting.owners.entry(Arc::clone(&owner)).or_default();
        own.bytes = own.bytes.saturating_add(bytes);
        own.results.insert(number, Kept { bytes, result });
        let mut gone = Vec::new();
        while let Some((other, oldest)) = waiting.gives_way(self.room, &owner, number) {
            gone.extend(waiting.remove(&other, oldest));
        }
        // What goes may be long: nobody waits for it.
        drop(waiting);
        let unread = Unread { results: self.clone(), owner, number, instance, succeeded };
        (unread, gone.len() as u64)
    }

    /// What they take.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting.lock().owners.values().map(|owned| owned.bytes).sum()
    }
}

impl Unread {
    /// The instance of a call that has a result.
    pub(crate) fn succeeded(&self) -> Option<InstanceId> {
        self.instance.filter(|_| self.succeeded)
    }

    /// The result, or that it had to make room.
    pub(crate) fn take(self) -> Result<Executed, Denied> {
        let kept = self.results.waiting.lock().remove(&self.owner, self.number);
        kept.map_or_else(|| Err(not_kept(self.instance)), |kept| kept.result)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let kept = self.results.waiting.lock().remove(&self.owner, self.number);
        drop(kept);
    }
}

#[cfg(test)]
mod tests {
    use executor_engine::ModuleDigest;

    use super::*;
    use crate::runtime::{Outcome, Usage};

    fn instance() -> InstanceId {
        InstanceId::parse("i-0123456789abcdef").unwrap()
    }

    fn done(bytes: usize) -> Result<Executed, Denied> {
        let outcome = Outcome {
            instance: instance(),
            output: vec![7; bytes],
            exit_code: 0,
            usage: Usage::default(),
            log: Vec::new(),
            metrics: Vec::new(),
        };
        Ok(Executed { digest: ModuleDigest::of(b""), outcome, repeated: false, receipt: None })
    }

    /// Bytes of an output that was taken, or why there is none.
    fn take(unread: Unread) -> Result<usize, &'static str> {
        unread.take().map(|done| done.outcome.output.len()).map_err(|denied| {
            assert_eq!(
                denied.message,
                "this call ran, and its result is kept no longer; it is not made again"
            );
            assert_eq!(denied.said.unwrap().instance, instance(), "by it, the receipt is found");
            denied.code
        })
    }

    #[test]
    fn results_that_nobody_takes_are_bounded_and_the_oldest_of_whoever_has_most_give_way() {
        let results = UnreadResults { room: 100, ..UnreadResults::default() };
        let keep = |who: &str, bytes| results.keep(who.into(), done(bytes));
        let ((first, a), (second, b), (other, c)) = (keep("a", 30), keep("a", 20), keep("b", 45));
        assert_eq!((a + b + c, results.bytes()), (0, 95));
        // Half of the room is one caller's.
        let (third, gone) = keep("a", 10);
        assert_eq!((gone, results.bytes()), (1, 75));
        assert_eq!((first.succeeded(), take(first)), (Some(instance()), Err("answer_not_kept")));
        let (fourth, gone) = keep("c", 40);
        assert_eq!((gone, results.bytes()), (1, 70));
        assert_eq!(take(other), Err("answer_not_kept"));
        // Too much for all of them: who reads it gets it all the same.
        let (large, gone) = keep("d", 150);
        assert_eq!((gone, results.bytes()), (3, 150));
        assert_eq!(take(large), Ok(150));
        for smaller in [second, third, fourth] {
            assert_eq!(take(smaller), Err("answer_not_kept"));
        }
        assert!(results.waiting.lock().owners.is_empty());
    }

    #[test]
    fn a_result_is_kept_until_it_is_taken_or_its_reader_goes() {
        let results = UnreadResults::default();
        let (taken, _) = results.keep("a".into(), done(30));
        let (left, _) = results.keep("a".into(), done(20));
        let (failed, _) = results.keep("a".into(), Err(Denied::new("trap", "it trapped")));
        assert_eq!(failed.succeeded(), None);
        assert_eq!(failed.take().unwrap_err().code, "trap");
        assert_eq!((take(taken), results.bytes()), (Ok(30), 20));
        drop(left);
        assert!(results.waiting.lock().owners.is_empty());
    }
}
