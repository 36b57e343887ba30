//! A bounded memory of what was put in or asked for last.
//!
//! Two generations: what is new or asked for goes into the young one; when that is full it becomes the old one, and the old
//! one before it is forgotten. No order is kept entry by entry, and no thread or timer tidies up.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// At most `capacity` entries.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    of_generation: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { of_generation: (capacity / 2).max(1), generations: Mutex::new(generations) }
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        self.generations.lock().insert(key, value, self.of_generation);
    }

    /// The value, which counts as new again.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.generations.lock();
        if let Some(value) = generations.young.get(key) {
            return Some(value.clone());
        }
        let value = generations.old.remove(key)?;
        generations.insert(key.clone(), value.clone(), self.of_generation);
        Some(value)
    }

    pub(crate) fn remove(&self, key: &K) {
        let mut generations = self.generations.lock();
        generations.young.remove(key);
        generations.old.remove(key);
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V, of_generation: usize) {
        // An older value of the same key would outlive this one.
        self.old.remove(&key);
        self.young.insert(key, value);
        if self.young.len() >= of_generation {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_what_is_not_goes() {
        let recent = Recent::new(8);
        recent.insert(0, "kept");
        for key in 1..1000 {
            recent.insert(key, "passing");
            assert_eq!(recent.get(&0), Some("kept"), "{key}");
            let generations = recent.generations.lock();
            assert!(generations.young.len() + generations.old.len() <= 8, "{key}");
        }
        assert_eq!(recent.get(&900), None);
        assert_eq!(recent.get(&999), Some("passing"));
    }

    #[test]
    fn a_value_that_was_replaced_or_removed_does_not_return() {
        let recent = Recent::new(4);
        recent.insert("a", 1);
        recent.insert("b", 1);
        recent.insert("a", 2);
        recent.insert("c", 1);
        assert_eq!(recent.get(&"a"), Some(2));
        recent.remove(&"a");
        assert_eq!(recent.get(&"a"), None);
    }
}
