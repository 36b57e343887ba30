//! Mutation form: with one numbered step switched off, exactly that step's tests fail.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::reason::ReasonCode;

#[path = "../../tests/fixture/mod.rs"]
mod fixture;

use fixture::cases;
use fixture::scenario::Scenario;

/// What verifying each scenario gives with one step after the other switched off: the code of the denial, or nothing.
fn codes_without_each_step(scenario: &Scenario) -> Vec<Option<ReasonCode>> {
    let prepared = scenario.verifier().and_then(|verifier| Ok((verifier, scenario.attestation()?)));
    let steps = 1..=14;
    match prepared {
        Err(denial) => steps.map(|_| Some(denial.code)).collect(),
        Ok((verifier, attestation)) => steps
            .map(|step| {
                let mut verifier = verifier.clone();
                verifier.skipped_step = Some(step);
                scenario.verify_attestation(&verifier, &attestation).err().map(|denial| denial.code)
            })
            .collect(),
    }
}

#[test]
fn a_step_that_is_switched_off_is_missed_by_its_own_tests_and_by_no_others() {
    let mut wrong: Vec<String> = Vec::new();
    for case in cases::all() {
        for (step, code) in (1..=14).zip(codes_without_each_step(&(case.build)())) {
            let denied = code == Some(case.code);
            // The size of the input is bounded where it is read, which no step can be switched off for.
            let own = step == case.code.step() && case.code != ReasonCode::TooLarge;
            if denied == own {
                wrong.push(alloc::format!("{} ({}) with step {step} off: {code:?}", case.name, case.code));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_reason_code_has_a_case() {
    let tested: BTreeSet<ReasonCode> = cases::all().map(|case| case.code).collect();
    let missing: Vec<String> =
        ReasonCode::ALL.iter().filter(|code| !tested.contains(code)).map(ToString::to_string).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
