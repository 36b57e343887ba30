//! A set of rows: sparse, so that neither ten million rows nor a number that somebody made up costs much memory.

use std::collections::HashMap;

/// Rows that share an element of the map.
const PAGE_BITS: u32 = 12;

/// Numbers of rows.
#[derive(Debug, Default)]
pub(super) struct Rows(HashMap<i64, [u64; 64]>);

impl Rows {
    pub(super) fn insert(&mut self, row: i64) {
        let (page, word, bit) = place(row);
        if let Some(word) = self.0.entry(page).or_insert([0; 64]).get_mut(word) {
            *word |= bit;
        }
    }

    pub(super) fn contains(&self, row: i64) -> bool {
        let (page, word, bit) = place(row);
        self.0.get(&page).and_then(|page| page.get(word)).is_some_and(|word| word & bit != 0)
    }
}

fn place(row: i64) -> (i64, usize, u64) {
    let within = (row & ((1 << PAGE_BITS) - 1)) as u64;
    (row >> PAGE_BITS, (within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_put_in_and_nothing_else() {
        let mut rows = Rows::default();
        let some = [0, 1, 63, 64, 4095, 4096, 10_000_000, i64::MAX, -1];
        for row in some {
            assert!(!rows.contains(row));
            rows.insert(row);
        }
        for row in some {
            assert!(rows.contains(row), "{row}");
        }
        for row in [2, 62, 65, 4094, 4097, i64::MAX - 1, -2] {
            assert!(!rows.contains(row), "{row}");
        }
    }
}
