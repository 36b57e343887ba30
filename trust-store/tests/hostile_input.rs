//! Input that is made to cost ends within the fixed budget. The time it takes is measured by the bench `verify`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::hostile;

use trust_store::budget::Budget;

#[test]
fn every_attack_ends_with_its_reason_inside_the_budget() {
    let whole = Budget::default();
    for attack in hostile::all() {
        let ended = (attack.judge)();
        assert_eq!(ended.code, Some(attack.code), "{}", attack.name);
        let (checks, steps) = ended.spent;
        assert!(checks <= whole.signature_checks && steps <= whole.steps, "{}", attack.name);
    }
}

#[test]
fn the_same_attack_costs_the_same_every_time() {
    for attack in hostile::all() {
        assert_eq!((attack.judge)().spent, (attack.judge)().spent, "{}", attack.name);
    }
}
