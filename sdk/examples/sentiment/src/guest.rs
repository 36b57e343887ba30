//! The guest's side of the `mentat` interface: the only unsafe lines.

use core::cell::UnsafeCell;

use crate::analysis::{MAX_INPUT, SLOTS, Slot, analyse};

#[link(wasm_import_module = "mentat")]
unsafe extern "C" {
    fn input_len() -> i64;
    fn read_input(ptr: *mut u8, cap: usize, offset: usize) -> i32;
    fn write_output(ptr: *const u8, len: usize) -> i32;
    fn log(level: i32, ptr: *const u8, len: usize);
    fn record_metric(name: *const u8, name_len: usize, value: f64) -> i32;
}

struct Memory {
    input: [u8; MAX_INPUT],
    table: [Slot; SLOTS],
}

struct Cell(UnsafeCell<Memory>);

// SAFETY: a guest has one thread, and `process` is called once in the life of an instance.
unsafe impl Sync for Cell {}

static MEMORY: Cell = Cell(UnsafeCell::new(Memory { input: [0; MAX_INPUT], table: [Slot::FREE; SLOTS] }));

/// Version of the interface this module was built against.
#[unsafe(no_mangle)]
pub static mentat_abi: i32 = 1;

/// 0 done; 1 the input is larger than 1 MiB; 2 the host refused the input; 3 the host refused the output.
#[unsafe(no_mangle)]
pub extern "C" fn process() -> i32 {
    // SAFETY: the only reference there ever is, see `Cell`.
    let memory = unsafe { &mut *MEMORY.0.get() };
    // SAFETY: no memory is passed.
    let Ok(len) = usize::try_from(unsafe { input_len() }) else { return 2 };
    let Some(input) = memory.input.get_mut(..len) else {
        let text = "input is larger than 1 MiB";
        // SAFETY: pointer and length are those of a string.
        unsafe { log(0, text.as_ptr(), text.len()) };
        return 1;
    };
    let mut read = 0;
    while let Some(rest) = input.get_mut(read..).filter(|rest| !rest.is_empty()) {
        // SAFETY: pointer and length are those of a slice the host may fill.
        let got = unsafe { read_input(rest.as_mut_ptr(), rest.len(), read) };
        match usize::try_from(got) {
            Ok(got) if got > 0 => read += got,
            _ => return 2,
        }
    }
    let answer = analyse(input, &mut memory.table);
    let (name, text) = ("words", answer.as_bytes());
    // SAFETY: pointers and lengths are those of a string and a slice.
    unsafe {
        record_metric(name.as_ptr(), name.len(), f64::from(answer.words));
        if write_output(text.as_ptr(), text.len()) < 0 { 3 } else { 0 }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
