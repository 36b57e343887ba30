//! What a plan fixes and what makes it void. Ceremonies themselves are held in `tests/ceremony.rs`.

use std::path::Path;

use super::description::{Description, Make, StepDescription};
use super::*;
use crate::config::Config;

const CONFIG: &str = include_str!("../../../docs/operations/ca-service.toml");
const NOW: UnixTime = UnixTime(1_800_000_000);

fn settings(from: &str, to: &str) -> Settings {
    assert!(CONFIG.contains(from), "{from}");
    Config::parse(&CONFIG.replacen(from, to, 1)).unwrap().validate().unwrap()
}

fn plan(settings: &Settings) -> Plan {
    Plan::prepare(settings, &Description::of_hierarchy(settings), &[], NOW).unwrap()
}

#[test]
fn a_plan_says_everything_and_is_read_only_as_it_was_written() {
    let settings = settings("x", "x");
    let plan = plan(&settings);
    assert!(plan.founds() && plan.uses_the_root());
    let made: Vec<Make> = plan.steps.iter().map(|step| step.make).collect();
    assert_eq!(made.len(), 7);
    for step in &plan.steps {
        let certificate = !matches!(step.make, Make::StatementKey | Make::RevocationLists);
        assert_eq!(step.template_sha256.is_some(), certificate, "{:?}", step.make);
        assert_eq!(step.serial.is_some(), certificate);
    }
    let bytes = plan.to_bytes().unwrap();
    assert_eq!(Plan::parse(&bytes).unwrap(), plan);
    plan.check_current(&settings, &[], NOW).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for (rewritten, reason) in [
        (text.trim_end().to_owned(), "rewritten"),
        (text.replacen("\n  ", "\n", 1), "rewritten"),
        (text.replacen(plan::FORMAT, "mentat ceremony plan 1", 1), "format"),
        (text.replacen("\"steps\"", "\"step\"", 1), "parse"),
    ] {
        let refused = Plan::parse(rewritten.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains(reason), "{reason}: {refused}");
    }
}

#[test]
fn nothing_but_keys_may_differ_when_it_is_held() {
    let before = settings("x", "x");
    let plan = plan(&before);
    for (from, to) in [
        ("status_url = \"http://status.example.org\"", "status_url = \"http://other.example.org\""),
        ("policies = [\"1.3.6.1.4.1.32473.1.1\"]", "policies = [\"1.3.6.1.4.1.32473.1.9\"]"),
        ("policy = \"1.3.6.1.4.1.32473.1.2\"", "policy = \"1.3.6.1.4.1.32473.1.8\""),
    ] {
        let refused = plan.check_current(&settings(from, to), &[], NOW).unwrap_err();
        assert!(matches!(refused, PlanRefusal::Changed(_)), "{to}: {refused}");
    }
    // An altered plan is another plan: the certificate no longer has the approved bytes.
    for alter in [
        |plan: &mut Plan| plan.steps[1].days = Some(1),
        |plan: &mut Plan| plan.steps[1].serial = plan.steps[2].serial.clone(),
        |plan: &mut Plan| plan.steps[0].key = Some("ecdsa-p256".to_owned()),
        |plan: &mut Plan| plan.not_before += 1,
    ] {
        let mut altered = plan.clone();
        alter(&mut altered);
        let refused = altered.check_current(&before, &[], UnixTime(NOW.0 + 1)).unwrap_err();
        assert!(matches!(refused, PlanRefusal::Changed(_)), "{refused}");
    }
    for at in [NOW.0 - 1, NOW.0 + plan::PATIENCE] {
        let refused = plan.check_current(&before, &[], UnixTime(at)).unwrap_err();
        assert!(matches!(refused, PlanRefusal::Expired { .. }), "{refused}");
    }
    let other = StoredAuthority {
        name: "root".into(),
        role: "root".into(),
        certificate: None,
        issuer: None,
        key_uri: "soft:object=root".into(),
        shards: 0,
    };
    let refused = plan.check_current(&before, &[other], NOW).unwrap_err();
    assert!(matches!(refused, PlanRefusal::Changed(_)), "{refused}");
}

#[test]
fn descriptions_that_cannot_be_meant_are_refused_with_the_step() {
    let settings = settings("x", "x");
    let whole = Description::of_hierarchy(&settings);
    let refusal = |change: &dyn Fn(&mut Description)| {
        let mut description = whole.clone();
        change(&mut description);
        Plan::prepare(&settings, &description, &[], NOW).unwrap_err().to_string()
    };
    assert!(refusal(&|it| it.steps.swap(0, 1)).contains("step 1: its issuer is not there yet"));
    assert!(refusal(&|it| it.steps.push(it.steps[0].clone())).contains("made twice"));
    assert!(refusal(&|it| drop(it.steps.remove(5))).contains("there is no statement"));
    assert!(refusal(&|it| it.steps.clear()).contains("1 to 64 steps"));
    assert!(refusal(&|it| it.steps[0].key = Some("rsa-2048".into())).contains("4096"));
    assert!(refusal(&|it| it.steps[0].key = None).contains("needs the field key"));
    assert!(refusal(&|it| it.steps[5].days = Some(3)).contains("has no field days"));
    assert!(refusal(&|it| it.steps[3].days = Some(4000)).contains("step 4"));
    let parsed = Description::parse("name = \"x\"\n[[steps]]\nmake = \"root\"\nunknown = 1\n");
    assert!(parsed.unwrap_err().to_string().contains("unknown"));
}

/// A self-signed root; its key is made anew each time.
fn root(folder: &Path, file: &str, common_name: &str) -> PathBuf {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CountryName, "DE");
    parameters.distinguished_name.push(DnType::OrganizationName, "Partner");
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2036, 1, 1);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let path = folder.join(file);
    std::fs::write(&path, parameters.self_signed(&key).unwrap().pem()).unwrap();
    path
}

/// A founding ceremony that lets another root in.
fn plan_with(settings: &Settings, other: &Path) -> Plan {
    let mut description = Description::of_hierarchy(settings);
    description.steps.push(StepDescription {
        make: Make::CrossCertificate,
        subject: None,
        key: None,
        days: Some(300),
        name: Some("partner".to_owned()),
        certificate: Some(other.to_owned()),
    });
    Plan::prepare(settings, &description, &[], NOW).unwrap()
}

/// As whoever holds the ceremony judges a plan that somebody else wrote.
fn judged(settings: &Settings, plan: &Plan) -> Result<(), PlanRefusal> {
    Plan::parse(&plan.to_bytes().unwrap())?.check_current(settings, &[], UnixTime(NOW.0 + 1))
}

/// Every place of a JSON value that holds no further values.
fn leaves(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found));
        }
        serde_json::Value::Array(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(index, value)| leaves(value, &format!("{at}/{index}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

#[test]
fn no_field_of_a_plan_can_be_altered_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings("x", "x");
    let plan = plan_with(&settings, &root(folder.path(), "partner.pem", "Partner Root"));
    judged(&settings, &plan).unwrap();
    let whole = serde_json::to_value(&plan).unwrap();
    let mut places = Vec::new();
    leaves(&whole, "", &mut places);
    assert!(places.len() > 100, "{}", places.len());
    for place in places {
        // What the ceremony and a file are called is free.
        if place == "/name" || place == "/steps/7/name" {
            continue;
        }
        let alternatives = match whole.pointer(&place).unwrap() {
            serde_json::Value::String(text) => {
                // One character, so that hexadecimal stays so, and one more.
                let first = if text.starts_with('0') { "1" } else { "0" };
                vec![
                    format!("{first}{}", text.get(1..).unwrap_or_default()).into(),
                    format!("{text}0").into(),
                    text.to_uppercase().into(),
                ]
            }
            serde_json::Value::Number(number) => vec![(number.as_i64().unwrap() - 1).into(), 0.into()],
            _ => vec!["00".into(), 1.into()],
        };
        for other in alternatives.into_iter().chain([serde_json::Value::Null]) {
            if *whole.pointer(&place).unwrap() == other {
                continue;
            }
            let mut altered = whole.clone();
            *altered.pointer_mut(&place).unwrap() = other.clone();
            // What is no plan at all is refused as well.
            if let Ok(altered) = serde_json::from_value::<Plan>(altered) {
                assert!(judged(&settings, &altered).is_err(), "{place} := {other}");
            }
        }
    }
}

#[test]
fn approvers_are_shown_the_key_that_is_certified_and_no_other_can_stand_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings("x", "x");
    let theirs = plan_with(&settings, &root(folder.path(), "theirs.pem", "Partner Root"));
    // The thief's root has the partner's name.
    let mut forged = plan_with(&settings, &root(folder.path(), "forged.pem", "Partner Root"));
    let shown = |plan: &Plan| plan.steps[7].summary();
    assert_eq!(shown(&theirs)["subject"], shown(&forged)["subject"]);
    for field in ["certificate_sha256", "spki_sha256", "key_identifier"] {
        assert!(shown(&theirs)[field].is_string());
        assert_ne!(shown(&theirs)[field], shown(&forged)[field], "{field}");
    }
    // What is shown is what is signed: the partner's fields do not go with the thief's key.
    forged.steps[7].certificate.clone_from(&theirs.steps[7].certificate);
    let refused = judged(&settings, &forged).unwrap_err().to_string();
    assert!(refused.contains("step 8") && refused.contains("key_identifier"), "{refused}");
    forged.steps[7].key_identifier.clone_from(&theirs.steps[7].key_identifier);
    forged.steps[7].spki.clone_from(&theirs.steps[7].spki);
    let refused = judged(&settings, &forged).unwrap_err();
    assert!(matches!(refused, PlanRefusal::Changed(_)), "{refused}");
    // Nor does a certificate that its key did not sign.
    let mut unproven = theirs.clone();
    let mut der = hex::decode(theirs.steps[7].certificate.as_deref().unwrap()).unwrap();
    *der.last_mut().unwrap() ^= 1;
    unproven.steps[7].certificate = Some(hex::encode(der));
    let refused = judged(&settings, &unproven).unwrap_err().to_string();
    assert!(refused.contains("not signed by its own key"), "{refused}");
}

#[test]
fn nobody_gives_himself_more_than_a_week() {
    let settings = settings("x", "x");
    let mut later = plan(&settings);
    later.hold_before = i64::MAX;
    let refused = judged(&settings, &later).unwrap_err().to_string();
    assert!(refused.contains("within a week"), "{refused}");
    // Nor by a date of the future, before which nothing is held.
    let mut later = plan(&settings);
    later.not_before += 365 * 86_400;
    later.hold_before += 365 * 86_400;
    assert!(matches!(judged(&settings, &later).unwrap_err(), PlanRefusal::Expired { .. }));
}
