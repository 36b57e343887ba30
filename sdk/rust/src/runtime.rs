//! What a module needs in place of the standard library: memory that grows and is never given back, because an instance
//! serves one call, and a panic that becomes a log line.
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe to write; this one hands out ranges that never overlap"
)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;

use crate::bump::{PAGE, Range};
use crate::context::Level;
use crate::host;

/// Hands out memory upwards from the end of the module's own.
struct Bump(Cell<Range>);

// SAFETY: a module of this target has one thread.
unsafe impl Sync for Bump {}

#[global_allocator]
static ALLOCATOR: Bump = Bump(Cell::new(Range::EMPTY));

// SAFETY: `Range` hands out every byte at most once, aligned as asked, and only of memory that `memory_grow` gave to this
// allocator alone; its numbers are checked, up to the last byte of the largest memory there is.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (Ok(size), Ok(align)) = (u32::try_from(layout.size()), u32::try_from(layout.align())) else {
            return core::ptr::null_mut();
        };
        let mut range = self.0.get();
        let mut place = range.take(size, align);
        if place.is_none() {
            let pages = size.saturating_add(align).div_ceil(PAGE);
            let grown = core::arch::wasm32::memory_grow(0, pages as usize);
            if grown == usize::MAX {
                return core::ptr::null_mut();
            }
            range.grow(grown as u32, pages);
            place = range.take(size, align);
        }
        self.0.set(range);
        place.map_or(core::ptr::null_mut(), |at| at as usize as *mut u8)
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
