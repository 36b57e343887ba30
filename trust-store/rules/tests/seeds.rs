//! Replays the seeds of the fuzz targets: what must hold for any bytes holds for these, and seeds whose name begins with
//! `good` are accepted, those with `bad` refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

#[path = "../../../tests/fuzz/properties/capability_rules.rs"]
mod properties;
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

use replay::{Seeds, turned_replaced_and_grown};

fn seeds() -> Seeds<'static> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz");
    Seeds { fuzz, targets: properties::TARGETS }
}

#[test]
fn seeds_are_accepted_or_refused_as_they_say() {
    seeds().are_as_they_say();
}

#[test]
fn cut_and_altered_seeds_never_panic() {
    seeds().cut_and_altered_never_panic(<[u8]>::to_vec, 60, |bytes, at| {
        turned_replaced_and_grown(bytes, at, b'\n')
    });
}

#[test]
fn every_target_is_declared() {
    seeds().every_target_is_declared("capability_rules");
}
