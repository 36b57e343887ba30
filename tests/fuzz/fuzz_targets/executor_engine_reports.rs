#![no_main]

#[path = "../properties/executor_engine.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    properties::reports(data);
});
