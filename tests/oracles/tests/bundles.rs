//! Bundles against `sigstore-verify`: everything that a verification can fail by, asked under the demands of a stock client,
//! since the peer looks at neither revocation nor witnesses nor freshness nor policy.

#[allow(dead_code)]
#[path = "../../../trust-store/tests/fixture/mod.rs"]
mod fixture;

use fixture::cases;
use fixture::scenario::{Scenario, rule};
use mentat_oracles::exceptions::{Verdicts, settle};
use mentat_oracles::sigstore::Peer;
use trust_store::evidence::Evidence;
use trust_store::policy::{TrustLevel, TrustPolicy};

/// Ours, with what a stock client demands and any identity accepted.
fn ours(mut scenario: Scenario) -> Result<(), String> {
    scenario.policy = TrustPolicy {
        identities: vec![rule("**", TrustLevel::Signed)],
        ..TrustPolicy::danger_stock_client()
    };
    scenario.with_manifest = false;
    scenario.evidence = Evidence::none();
    scenario.verify().map(drop).map_err(|denial| denial.to_string())
}

fn theirs(scenario: &Scenario) -> Result<(), String> {
    let root = scenario.root.to_json().map_err(|error| error.to_string())?;
    let bundle = scenario.bundle.to_json().map_err(|error| error.to_string())?;
    Peer::new(&root)?.verify(&bundle, &scenario.module)
}

#[test]
fn every_case_gets_the_same_verdict() {
    let valid = Scenario::valid();
    let mut all = vec![Verdicts { case: "valid".into(), theirs: theirs(&valid), ours: ours(valid) }];
    for case in cases::all() {
        let scenario = (case.build)();
        let theirs = theirs(&scenario);
        all.push(Verdicts { case: case.name.into(), theirs, ours: ours(scenario) });
    }
    settle("sigstore-verify", &all);
}
