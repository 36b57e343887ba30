#![no_main]

#[path = "../properties/trust_store.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    properties::pipeline(data);
});
