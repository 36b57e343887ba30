//! The arithmetic of the allocator: a range of addresses that is handed out from its start on.

/// Bytes of a page of memory.
pub(crate) const PAGE: u32 = 64 << 10;

/// Addresses that are free: from `next` up to `end`, which is not one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    next: u32,
    end: u32,
}

impl Range {
    /// No addresses.
    pub(crate) const EMPTY: Self = Self { next: 0, end: 0 };

    /// Takes addresses off the start, if there are so many: the first of them.
    pub(crate) fn take(&mut self, size: u32, align: u32) -> Option<u32> {
        let start = self.next.checked_next_multiple_of(align)?;
        let end = start.checked_add(size)?;
        // 0 is the null pointer; memory that was grown is never there.
        if start == 0 || end > self.end {
            return None;
        }
        self.next = end;
        Some(start)
    }

    /// Takes in pages that were added to the memory. What is left goes on where they follow it, else it is given up.
    pub(crate) fn grow(&mut self, page: u32, pages: u32) {
        let fresh = page.saturating_mul(PAGE);
        if fresh != self.end || self.next == 0 {
            self.next = fresh;
        }
        // The end of a memory of 4 GiB has no number of 32 bits: its last byte is left alone.
        self.end = fresh.saturating_add(pages.saturating_mul(PAGE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_handed_out_once_and_aligned() {
        let mut range = Range::EMPTY;
        assert_eq!(range.take(1, 1), None);
        range.grow(2, 1);
        assert_eq!(range.take(3, 1), Some(2 * PAGE));
        assert_eq!(range.take(8, 8), Some(2 * PAGE + 8));
        assert_eq!(range.take(PAGE, 1), None);
        range.grow(3, 1);
        assert_eq!(range.take(PAGE, 1), Some(2 * PAGE + 16), "the rest of the first page goes on");
        range.grow(9, 1);
        assert_eq!(range.take(PAGE, 16), Some(9 * PAGE), "somebody else has what lies between");
    }

    #[test]
    fn the_last_pages_of_the_largest_memory_do_not_wrap() {
        let mut range = Range::EMPTY;
        range.grow(65_535, 1);
        assert_eq!(range, Range { next: 65_535 * PAGE, end: u32::MAX });
        assert_eq!(range.take(PAGE, 1), None);
        assert_eq!(range.take(PAGE - 1, 1), Some(65_535 * PAGE));
        assert_eq!(range.take(0, 2), None);
        assert_eq!(range.take(1, 1), None);
        assert_eq!(range.take(u32::MAX, 1), None);
    }
}
