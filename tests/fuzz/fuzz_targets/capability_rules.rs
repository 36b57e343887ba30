#![no_main]

#[path = "../properties/capability_rules.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    properties::rules(data);
});
