//! A key is in other hands: what is said of it, what it touched, the drill that changes nothing, the order, and the report.

use std::fs;

use mentat_tests::agent::{enrol, signed};
use mentat_tests::stack::Stack;
use serde_json::Value;

#[test]
fn an_incident_goes_from_what_a_key_touched_to_a_report_and_a_drill_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (leaked, _) = enrol(&stack, "dev@example.com", "signing");
    enrol(&stack, "other@example.com", "theirs");
    let release = signed(&stack, dir.path(), "agent");
    let release = release.to_str().unwrap();
    let on_record =
        |identity: &str| stack.ctl(&["--json", "pki", "list", "--identity", identity]).success().json();
    let since = on_record("dev@example.com")["not_before"].as_i64().unwrap();
    let [serial, other] = ["dev@example.com", "other@example.com"]
        .map(|identity| on_record(identity)["serial"].as_str().unwrap().to_owned());
    let of_another = what_is_said_is_seen(&stack, &serial, &other);
    stack.ctl(&["pki", "incident"]).refused(2, "whose key").one_clear_line();

    // The drill: what it touched, and what would be done. The order is for approvers.
    let (order, report) = (file("order.json"), file("report.json"));
    let drill = ["pki", "incident", "--cert", &leaked, "--write-order", &order];
    let said = stack.ctl(&drill).success().stdout;
    assert!(said.contains("dev@example.com") && said.contains("of the signing log: sha256:"), "{said}");
    assert!(said.contains("nothing was revoked; to go on, repeat with --confirm 1"), "{said}");
    assert!(!said.contains("other@example.com"), "{said}");
    let told = stack.ctl(&["--json", "pki", "incident", "--cert", &leaked]).success().json();
    assert_eq!((&told["matching"], &told["carried_out"]), (&1.into(), &Value::Null), "{told}");
    assert_eq!(told["certificates"].as_array().unwrap().len(), 1);
    assert_eq!(told["signed"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["signed"][0]["serial"], told["certificates"][0]["serial"]);
    assert!(fs::read_to_string(&order).unwrap().contains("key-compromise"));
    stack.ctl(&["verify", release]).success();
    assert_eq!(stack.ctl(&["--json", "pki", "list", "--revoked"]).success().stdout, "", "a drill");

    // In earnest: not another number than was shown.
    let wrong = ["pki", "incident", "--order", &order, "--confirm", "2"];
    stack.ctl(&wrong).refused(2, "1 certificates would be revoked").one_clear_line();
    // What goes wrong on the way is in the report, too.
    let mistaken = stack.ctl(&[&wrong[..], &["--report", &report]].concat());
    mistaken.refused(2, "1 certificates would be revoked");
    let written: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!((&written["ok"], &written["carried_out"]), (&false.into(), &Value::Null), "{written}");
    assert!(written["failed"]["what"].as_str().unwrap().contains("would be revoked"), "{written}");
    assert_eq!(written["certificates"].as_array().unwrap().len(), 1, "{written}");
    let earnest = ["--json", "pki", "incident", "--order", &order, "--confirm", "1", "--per-second", "10"];
    let told = stack.ctl(&[&earnest[..], &["--report", &report]].concat()).success().json();
    assert_eq!(told["carried_out"]["revoked"], 1, "{told}");
    let written: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(written, told);
    let certificate = &written["certificates"][0];
    assert_eq!(
        (&certificate["state"], &certificate["revocation"]["reason"]),
        (&"revoked".into(), &"key-compromise".into())
    );
    assert!(certificate["revocation"]["revoked_at"].as_i64().unwrap() >= since);
    assert_eq!(written["order"], fs::read_to_string(&order).unwrap().as_str());
    let listed = stack.ctl(&["--json", "pki", "list", "--revoked"]).success().stdout;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    // Repeated, it says the same; the key gets no certificate any more.
    let again = stack.ctl(&earnest).success().json();
    assert_eq!((&again["carried_out"]["revoked"], &again["carried_out"]["kept"]), (&1.into(), &0.into()));
    stack.ctl(&["pki", "renew", "--output", &leaked]).refused(1, "certificate_revoked").one_clear_line();
    what_is_said_is_decided(&stack, &serial, &of_another);
}

/// Of one certificate somebody says that its key is in other hands, and of another one something else: the number of that.
fn what_is_said_is_seen(stack: &Stack, serial: &str, other: &str) -> String {
    let report = ["--json", "pki", "problem", "report", "--serial"];
    let said = |of: &str, ground: &str, detail: &str| {
        let told = stack.ctl(&[&report[..], &[of, "--ground", ground, "--detail", detail]].concat());
        told.success().json()["report"].clone()
    };
    // As people write it.
    let pairs = serial.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
    let of_key = said(&pairs.collect::<Vec<_>>().join(":"), "key-compromise", "it lies in a public place");
    assert_eq!((&of_key["serial"], &of_key["state"]), (&serial.into(), &"open".into()), "{of_key}");
    let time = of_key["due_at"].as_i64().unwrap() - of_key["received_at"].as_i64().unwrap();
    assert_eq!(time, 86_400, "a day: {of_key}");
    let of_another = said(other, "other", "its name is like ours");
    let unknown = [&report[1..], &["00aa", "--ground", "other", "--detail", "?"]].concat();
    stack.ctl(&unknown).refused(1, "certificate_unknown");
    let listed = stack.ctl(&["pki", "problem", "list"]).success().stdout;
    for part in
        [serial, other, "to be decided until 20", "it lies in a public place, by ", "its name is like ours"]
    {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    of_another["id"].to_string()
}

/// The order decides what was said of the key, and somebody what was said of the other certificate.
fn what_is_said_is_decided(stack: &Stack, serial: &str, of_another: &str) {
    let close = ["pki", "problem", "close", of_another, "--decision", "the names differ enough"];
    let closed = stack.ctl(&[&["--json"][..], &close].concat()).success().json();
    let decided = (&closed["report"]["state"], &closed["report"]["decision"]);
    assert_eq!(decided, (&"stands".into(), &"the names differ enough".into()), "{closed}");
    stack.ctl(&close).refused(1, "report_closed").one_clear_line();
    assert_eq!(stack.ctl(&["pki", "problem", "list"]).success().stdout, "no reports\n");
    let all = stack.ctl(&["pki", "problem", "list", "--all"]).success().stdout;
    for part in ["  stands: the names differ enough", &format!("{serial}  revoked")] {
        assert!(all.contains(part), "{part}: {all}");
    }
}

#[test]
fn of_a_ca_an_incident_shows_what_descends_from_it_and_orders_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::up(&dir.path().join("stack"));
    let chains = stack.dir().join("ca-service/chains");
    let [ca, root] = ["code-signing.pem", "root.pem"].map(|name| chains.join(name).display().to_string());
    enrol(&stack, "dev@example.com", "signing");
    let (theirs, _) = enrol(&stack, "other@example.com", "theirs");
    stack.ctl(&["pki", "revoke", "--cert", &theirs, "--reason", "superseded"]).success();

    let incident = ["pki", "incident", "--cert", &ca];
    let said = stack.ctl(&incident).success().stdout;
    for part in [
        "code-signing is not revoked",
        "below it: ocsp-responder",
        "3 certificates descend from it: 2 standing, 1 revoked, 0 expired, 0 never signed",
        "dev@example.com",
        "other@example.com",
        &format!("mentatctl pki revoke --cert {ca} --reason ca-compromise"),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let json = |more: &[&str]| stack.ctl(&[&["--json"][..], more].concat()).success().json();
    let told = json(&incident);
    let counts =
        serde_json::json!({ "certificates": 3, "standing": 2, "revoked": 1, "expired": 0, "unsigned": 0 });
    assert_eq!(
        (&told["counts"], &told["below"]),
        (&counts, &serde_json::json!(["ocsp-responder"])),
        "{told}"
    );
    assert_eq!((&told["authority"], &told["revocation"]), (&"code-signing".into(), &Value::Null));
    let identities = |told: &Value| {
        let all = told["certificates"].as_array().unwrap().iter();
        all.map(|one| one["identity"]["email"].as_str().unwrap_or("its own").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(identities(&told), ["other@example.com", "dev@example.com", "its own"], "newest first");
    // A part of it, by what is recorded of each.
    let part = json(&[&incident[..], &["--profile", "developer", "--identity", "dev@example.com"]].concat());
    assert_eq!(
        (&part["counts"]["certificates"], identities(&part)),
        (&1.into(), vec!["dev@example.com".to_owned()])
    );
    let before = json(&[&incident[..], &["--issued-before", "2026-01-01T00:00:00Z"]].concat());
    assert_eq!(before["counts"]["certificates"], 0, "{before}");
    // From the root comes everything but itself.
    let of_root = json(&["pki", "incident", "--cert", &root]);
    let below = ["code-signing", "ocsp-responder", "time-stamping", "timestamp-authority"];
    assert_eq!(of_root["below"], serde_json::json!(below), "{of_root}");
    assert_eq!(of_root["counts"]["certificates"], 6, "{of_root}");
    assert!(of_root["certificates"].as_array().unwrap().iter().all(|one| one["serial"] != of_root["serial"]));

    // No verifier asks whether an anchor is revoked: nothing may say that this ends anything.
    let drill = ["pki", "incident", "--cert", &root];
    let said = stack.ctl(&drill).success().stdout;
    assert!(said.contains("verifiers trust a root until") && !said.contains("pki revoke"), "{said}");
    let refused = stack.ctl(&[&drill[..], &["--confirm", "6"]].concat()).refused(2, "not ordered");
    refused.one_clear_line();
    assert!(refused.stderr.contains("taken out of their trusted root"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("pki revoke"), "{}", refused.stderr);
    let ends = [&told["ends_with_revocation"], &of_root["ends_with_revocation"]];
    assert_eq!(ends, [&Value::Bool(true), &Value::Bool(false)]);

    let report = dir.path().join("report.json");
    let report = report.to_str().unwrap();
    for order in [&["--confirm", "2"][..], &["--write-order", report]] {
        let refused = stack.ctl(&[&incident[..], order].concat()).refused(2, "not ordered");
        refused.one_clear_line();
        assert!(refused.stderr.contains("pki revoke --cert"), "{}", refused.stderr);
    }
    assert!(!std::path::Path::new(report).exists());
    stack.ctl(&["pki", "revoke", "--cert", &ca, "--reason", "ca-compromise"]).success();
    let after = json(&[&incident[..], &["--report", report]].concat());
    assert_eq!(after["revocation"]["reason"], "ca-compromise", "{after}");
    assert_eq!(after["counts"], counts, "by themselves they stand as before");
    let written: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(written, after);
    let said = stack.ctl(&incident).success().stdout;
    assert!(said.contains("code-signing is revoked as of ") && !said.contains("pki revoke"), "{said}");

    // Of somebody else's CA nothing is known here.
    let other = tempfile::tempdir().unwrap();
    let foreign = rcgen_ca(other.path());
    stack
        .ctl(&["pki", "incident", "--cert", &foreign])
        .refused(2, "no CA of this authority")
        .one_clear_line();
}

/// A CA of nobody's, in a file.
fn rcgen_ca(dir: &std::path::Path) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let made = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let path = dir.join("foreign.pem");
    fs::write(&path, made.pem()).unwrap();
    path.display().to_string()
}
