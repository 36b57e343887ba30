#![no_main]

#[path = "../properties/ca_pki.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    properties::key_set(data);
});
