//! What a plan fixes and what makes it void. Ceremonies themselves are held in `tests/ceremony.rs`.

use super::description::{Description, Make};
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
        (text.replacen(plan::FORMAT, "mentat ceremony plan 2", 1), "format"),
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
