//! What rules cost: reading twenty of them, and judging one request by them. `cargo bench -p capability-rules`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench: it prints, and reads the clock"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use capability_rules::CedarRules;
use trust_store::capability::Capability;
use trust_store::capability_rules::{CapabilityRequest, RuleEngine as _};
use trust_store::policy::TrustLevel;

const ROUNDS: u32 = 2_000;

/// Most time for one request under twenty rules.
const JUDGED: Duration = Duration::from_micros(500);

fn twenty() -> String {
    let mut text = r#"
        permit (principal, action == Mentat::Action::"compute", resource);
        @id("no-odd-ports")
        forbid (principal, action == Mentat::Action::"network", resource) when { resource has port && resource.port != 443 };
    "#
    .to_owned();
    for team in 0..18 {
        text += &format!(
            r#"@id("team-{team}") permit (principal, action == Mentat::Action::"network", resource)
            when {{ principal.signer like "https://ci.example/team-{team}/*" && principal.level == "verified"
            && resource.protocol == "https" && resource.host like "*.team-{team}.example" && !resource.wildcard }};"#
        );
    }
    text
}

fn mean(rounds: u32, mut work: impl FnMut()) -> Duration {
    work();
    let start = Instant::now();
    for _ in 0..rounds {
        work();
    }
    start.elapsed() / rounds
}

fn main() {
    let text = twenty();
    let read = mean(100, || {
        black_box(CedarRules::read(black_box(&text)).unwrap());
    });
    let rules = CedarRules::read(&text).unwrap();
    let capability: Capability = "network:https:api.team-17.example".parse().unwrap();
    let request = CapabilityRequest {
        agent: "team.agent",
        version: "2.0.0",
        signer: "https://ci.example/team-17/release.yml@refs/tags/v2",
        issuer: Some("https://id.example"),
        level: TrustLevel::Verified,
        capability: &capability,
    };
    assert_eq!(rules.judge(&request).unwrap(), ["team-17"]);
    let judged = mean(ROUNDS, || {
        black_box(rules.judge(black_box(&request)).unwrap());
    });
    println!("20 rules: read in {read:?}, a request judged in {judged:?}");
    assert!(judged < JUDGED, "a request takes {judged:?}, and at most {JUDGED:?} are promised");
}
