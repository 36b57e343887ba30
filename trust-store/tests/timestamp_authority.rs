//! Whether a timestamp authority was revoked, and what that means for its tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use fixture::authority::Ca;
use fixture::scenario::Scenario;
use fixture::timestamp::TimestampAuthority;
use fixture::{NOW, SIGNED_AT};
use rcgen::RevocationReason;
use trust_store::ReasonCode;
use trust_store::crl::Crl;
use trust_store::evidence::Evidence;
use trust_store::policy::{AuthorityStatus, FreshnessPolicy, RevocationMode};
use trust_store::trusted_root::CertificateChain;

fn code(scenario: &Scenario) -> Option<ReasonCode> {
    scenario.verify().err().map(|denial| denial.code)
}

/// As [`Scenario::valid`], with a timestamp authority below a root of its own.
fn stamped_elsewhere() -> (Scenario, Ca, TimestampAuthority) {
    let mut scenario = Scenario::valid();
    let time_root = Ca::root("MentatLab Time Root CA");
    let authority = TimestampAuthority::new(&time_root);
    let chain =
        [&authority.certificate, &time_root.certificate].map(|certificate| certificate.der().to_vec());
    scenario.root.timestamp_authorities[0].cert_chain = CertificateChain::new(chain);
    let signature = scenario.bundle.signature().unwrap().to_vec();
    scenario.bundle.timestamps = vec![authority.stamp(&signature, SIGNED_AT)];
    (scenario, time_root, authority)
}

#[test]
fn a_revoked_timestamp_authority_denies_and_a_retired_one_only_later_tokens() {
    for (reason, revoked_at, expected) in [
        (RevocationReason::KeyCompromise, SIGNED_AT + 60, Some(ReasonCode::Revoked)),
        (RevocationReason::Unspecified, SIGNED_AT + 60, Some(ReasonCode::Revoked)),
        (RevocationReason::Superseded, SIGNED_AT + 60, None),
        (RevocationReason::CessationOfOperation, SIGNED_AT + 60, None),
        (RevocationReason::Superseded, SIGNED_AT, Some(ReasonCode::Revoked)),
    ] {
        let (mut scenario, time_root, authority) = stamped_elsewhere();
        scenario.evidence.add_crl(&time_root.crl_for(revoked_at, &[&authority.certificate], reason)).unwrap();
        assert_eq!(code(&scenario), expected, "{reason:?} at {revoked_at}");
        scenario.policy.revocation.mode = RevocationMode::DangerSkip;
        assert_eq!(code(&scenario), None);
    }
}

#[test]
fn no_list_of_a_retirement_hides_that_the_key_was_found_compromised() {
    let retired_at = SIGNED_AT + 60;
    for compromised_at in [retired_at, retired_at + 60, SIGNED_AT - 3 * 86_400] {
        for order in [["retired", "compromised"], ["compromised", "retired"], ["retired", "retired"]] {
            for prepared in [false, true] {
                let (mut scenario, time_root, authority) = stamped_elsewhere();
                for which in order {
                    let (at, reason) = match which {
                        "retired" => (retired_at, RevocationReason::Superseded),
                        _ => (compromised_at, RevocationReason::KeyCompromise),
                    };
                    let list = time_root.crl_for(at, &[&authority.certificate], reason);
                    scenario.evidence.add_crl(&list).unwrap();
                }
                if prepared {
                    let verifier = scenario.verifier().unwrap();
                    verifier.prepare(&mut scenario.evidence);
                }
                let expected = order.contains(&"compromised").then_some(ReasonCode::Revoked);
                assert_eq!(code(&scenario), expected, "{order:?}, compromised at {compromised_at}");
            }
        }
    }
}

/// Of the lists that are not current one says that the certificate was on hold, an older one than that of the compromise.
#[test]
fn no_list_of_a_hold_hides_that_the_key_was_found_compromised() {
    const DAY: i64 = 86_400;
    for (old, expected) in [
        (&["held"][..], None),
        (&["compromised"], Some(ReasonCode::Revoked)),
        (&["held", "compromised"], Some(ReasonCode::Revoked)),
        (&["compromised", "held"], Some(ReasonCode::Revoked)),
    ] {
        for prepared in [false, true] {
            let (mut scenario, time_root, authority) = stamped_elsewhere();
            let named = [&authority.certificate];
            let current = time_root.crl_for(SIGNED_AT + 60, &named, RevocationReason::Superseded);
            scenario.evidence.add_crl(&current).unwrap();
            for which in old {
                let list = match *which {
                    "held" => {
                        time_root.crl_for(SIGNED_AT - 4 * DAY, &named, RevocationReason::CertificateHold)
                    }
                    _ => time_root.crl_for(SIGNED_AT - 3 * DAY, &named, RevocationReason::KeyCompromise),
                };
                scenario.evidence.add_crl(&list).unwrap();
            }
            if prepared {
                let verifier = scenario.verifier().unwrap();
                verifier.prepare(&mut scenario.evidence);
            }
            assert_eq!(code(&scenario), expected, "{old:?}, prepared: {prepared}");
        }
    }
}

#[test]
fn the_status_of_a_timestamp_authority_must_be_shown_where_the_policy_demands_it() {
    let (mut scenario, time_root, _) = stamped_elsewhere();
    assert_eq!(code(&scenario), None, "the default demands no evidence");
    scenario.policy.revocation.timestamp_authorities = AuthorityStatus::LikeTheSigner;
    assert_eq!(code(&scenario), Some(ReasonCode::RevocationUnknown));
    let without = scenario.evidence.clone();
    scenario.evidence.add_crl(&time_root.crl(NOW - 3 * 86_400, &[])).unwrap();
    assert_eq!(code(&scenario), Some(ReasonCode::RevocationStale));
    scenario.evidence = without;
    scenario.evidence.add_crl(&time_root.crl(SIGNED_AT, &[])).unwrap();
    assert_eq!(code(&scenario), None);
    scenario.policy.revocation.mode = RevocationMode::DangerIfPresent;
    scenario.evidence = Evidence::none();
    assert_eq!(code(&scenario), None);
}

/// Whoever writes the attestation brings its staples along: however many of them do not verify, they keep nothing from being
/// seen, or everything is denied.
#[test]
fn junk_never_hides_a_revocation() {
    for count in [0, 1, 20, 40, 60, 80, 84, 90, 100, 120] {
        let (mut scenario, time_root, authority) = stamped_elsewhere();
        let genuine = time_root.crl(SIGNED_AT, &[&authority.certificate]);
        for number in 0..count {
            let mut junk = time_root.crl(SIGNED_AT + number, &[]);
            *junk.last_mut().unwrap() ^= 1;
            scenario.evidence.add_crl(&junk).unwrap();
        }
        let without = code(&scenario);
        assert!(matches!(without, None | Some(ReasonCode::BudgetExceeded)), "{count}: {without:?}");
        scenario.evidence.add_crl(&genuine).unwrap();
        let denied = code(&scenario);
        assert!(
            matches!(denied, Some(ReasonCode::Revoked | ReasonCode::BudgetExceeded)),
            "{count}: {denied:?}"
        );
    }
}

/// Lists in the name of the signer's authority that nobody signed: no evidence that may still arrive makes them fewer, and they
/// take nothing from the list about the timestamp authority that was verified on load.
#[test]
fn junk_about_the_signer_is_too_much_and_hides_no_revoked_timestamp_authority() {
    for (count, length, expected) in [
        (0, 1, None),
        (20, 1, None),
        (110, 1, Some(ReasonCode::BudgetExceeded)),
        (300, 1, Some(ReasonCode::BudgetExceeded)),
        (20, 40_000, Some(ReasonCode::BudgetExceeded)),
    ] {
        let (mut scenario, time_root, authority) = stamped_elsewhere();
        let mut junk = scenario.world.intermediate.long_crl(SIGNED_AT, length);
        *junk.last_mut().unwrap() ^= 1;
        let junk = Crl::from_der(&junk).unwrap();
        scenario.evidence.revocation_mut().crls.extend((0..count).map(|_| junk.clone()));
        assert_eq!(code(&scenario), expected, "{count} of {length}");
        scenario.policy.freshness = FreshnessPolicy::WithinSeconds(1);
        let stale = expected.or(Some(ReasonCode::CheckpointStale));
        assert_eq!(code(&scenario), stale, "{count} of {length}");
        scenario.evidence.add_crl(&time_root.crl(SIGNED_AT, &[&authority.certificate])).unwrap();
        let verifier = scenario.verifier().unwrap();
        verifier.prepare(&mut scenario.evidence);
        let denied = scenario.verify_with(&verifier).err().map(|denial| denial.code);
        assert_eq!(denied, Some(ReasonCode::Revoked), "{count} of {length}");
    }
}
