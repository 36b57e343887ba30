//! What a module needs in place of the standard library: memory that grows and is never given back, because an instance
//! serves one call, and a panic that becomes a log line.
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe to write; this one hands out ranges that never overlap"
)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;

use crate::context::Level;
use crate::host;

const PAGE: usize = 64 << 10;

/// Hands out memory upwards from the end of the module's own.
struct Bump {
    next: Cell<usize>,
    end: Cell<usize>,
}

// SAFETY: a module of this target has one thread.
unsafe impl Sync for Bump {}

#[global_allocator]
static ALLOCATOR: Bump = Bump { next: Cell::new(0), end: Cell::new(0) };

// SAFETY: every range starts where the last one ended, is aligned as asked, and lies in memory that `memory_grow` gave to
// this allocator alone; the numbers cannot wrap because they are checked.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let aligned = self.next.get().checked_next_multiple_of(layout.align());
        let Some((start, end)) = aligned.and_then(|start| Some((start, start.checked_add(layout.size())?)))
        else {
            return core::ptr::null_mut();
        };
        if start != 0 && end <= self.end.get() {
            self.next.set(end);
            return start as *mut u8;
        }
        let pages = layout.size().saturating_add(layout.align()).div_ceil(PAGE);
        let grown = core::arch::wasm32::memory_grow(0, pages);
        if grown == usize::MAX {
            return core::ptr::null_mut();
        }
        let fresh = grown * PAGE;
        // What is left of the old range goes on where the new one follows it.
        let from = if fresh == self.end.get() && start != 0 {
            start
        } else {
            fresh.next_multiple_of(layout.align())
        };
        self.end.set(fresh + pages * PAGE);
        self.next.set(from + layout.size());
        from as *mut u8
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // Where, not why: formatting the message would be most of a small module.
    match info.location() {
        Some(location) => host::log(Level::Error, location.file()),
        None => host::log(Level::Error, "panic"),
    }
    core::arch::wasm32::unreachable()
}
