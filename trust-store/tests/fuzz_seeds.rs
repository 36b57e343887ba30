//! Replays the seeds of the fuzz targets: what must hold for any bytes holds for these, and seeds whose name begins with
//! `good` are accepted, those with `bad` refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;
use crate::forge;

use std::fs;
use std::path::Path;

use fixture::SIGNED_AT;
use fixture::scenario::{MANIFEST, Scenario};
use trust_store::attestation::AttestationBlock;
use trust_store::bundle::Content;
use trust_store::json;
use trust_store::rekor::HashedRekord;
use trust_store::signing_config::SigningConfig;

use crate::properties;
use crate::replay;

use replay::{Seeds, turned_replaced_and_grown};

fn seeds() -> Seeds<'static> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
    Seeds { fuzz, targets: properties::TARGETS }
}

#[test]
fn seeds_are_accepted_or_refused_as_they_say() {
    if std::env::var_os("MENTAT_WRITE").is_some() {
        write_the_seeds();
    }
    seeds().are_as_they_say();
}

#[test]
fn cut_and_altered_seeds_never_panic() {
    seeds().cut_and_altered_never_panic(properties::decode, 150, |bytes, at| {
        turned_replaced_and_grown(bytes, at, 0xff)
    });
}

#[test]
fn every_target_is_declared() {
    seeds().every_target_is_declared("trust_store_");
}

/// Makes the seeds again, with new keys, if the environment variable `MENTAT_WRITE` is set. What is checked in was made by it
/// once; others are found by fuzzing and added.
fn write_the_seeds() {
    let scenario = Scenario::valid();
    let bundle = scenario.bundle.to_json().unwrap();
    let Content::Dsse(envelope) = &scenario.bundle.content else { panic!("an envelope") };
    let entry = &scenario.bundle.log_entries[0];
    let record = HashedRekord::from_canonical_body(&entry.canonicalized_body).unwrap();
    let block = |sidecar| {
        AttestationBlock::new(&scenario.bundle, sidecar, &scenario.chain, scenario.staples.clone()).unwrap()
    };
    let crl = scenario.world.intermediate.crl(SIGNED_AT, &[&scenario.signer.certificate]);
    let ca = forge::Ca::root("root");
    let answers = [forge::good(), forge::revoked(forge::NOW)]
        .map(|status| forge::single(&ca.sha1_id(&[1]), &status, Some(forge::NOW.plus(forge::DAY)), &[]));
    let ocsp = forge::ocsp("root", &ca.key, &answers, &[], &[&ca.certificate]);
    let line = r#"{"id":1,"kind":"inclusion","leaf_index":0,"tree_size":1,"leaf_hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","root":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","proof":[]}"#;
    let policy = r#"{"version":1,"identities":[{"subject":"*@example.com","issuer":"any-of-the-authority","level":"signed"}],"logs":{"threshold":1,"witnesses":"not-required"},"revocation":{"mode":"require","timestamp_authorities":"like-the-signer"}}"#;
    let text = |text: &str| text.as_bytes().to_vec();
    let all: Vec<(&str, &str, Vec<u8>)> = vec![
        ("trust_store_bundle", "v03", bundle),
        ("trust_store_capability", "env", text("env:A")),
        ("trust_store_capability", "path", text("filesystem:read:/data")),
        ("trust_store_certificate", "leaf", scenario.signer.certificate.der().to_vec()),
        ("trust_store_certificate", "root", scenario.world.root.certificate.der().to_vec()),
        ("trust_store_conformance", "merkle", text(line)),
        ("trust_store_crl", "one", crl),
        ("trust_store_dsse", "envelope", json::write("envelope", envelope).unwrap()),
        ("trust_store_dsse", "statement", envelope.payload.clone()),
        ("trust_store_evidence", "crls", scenario.evidence.to_json().unwrap()),
        ("trust_store_manifest", "canonical", text(MANIFEST)),
        ("trust_store_name", "two", text("CN=a b,O=M\\,L")),
        ("trust_store_ocsp", "two", ocsp),
        ("trust_store_pem", "root", scenario.world.root.certificate.to_pem().into_bytes()),
        ("trust_store_policy", "some", text(policy)),
        ("trust_store_rekor", "body", entry.canonicalized_body.clone()),
        ("trust_store_rekor", "entry", entry.to_json().unwrap()),
        ("trust_store_rekor", "request", record.request().unwrap()),
        ("trust_store_sct", "leaf", scenario.signer.certificate.der().to_vec()),
        ("trust_store_sidecar", "inline", json::write("block", &block(None)).unwrap()),
        ("trust_store_sidecar", "file", json::write("block", &block(Some("a.sigstore.json"))).unwrap()),
        ("trust_store_signing_config", "empty", SigningConfig::new().to_json().unwrap()),
        ("trust_store_trusted_root", "one", scenario.root.to_json().unwrap()),
        ("trust_store_tsp", "response", scenario.bundle.timestamps[0].clone()),
    ];
    for (target, name, bytes) in all {
        let folder = seeds().folder(target);
        fs::create_dir_all(&folder).unwrap();
        let property = properties::TARGETS.iter().find(|(known, _)| *known == target).unwrap().1;
        let cut = bytes[..bytes.len() - bytes.len().div_ceil(4)].to_vec();
        for (name, bytes) in [(format!("good-{name}"), &bytes), (format!("bad-{name}-cut"), &cut)] {
            // Some are as good without their end.
            if property(bytes) != name.starts_with("good") {
                continue;
            }
            let is_text = std::str::from_utf8(bytes).is_ok();
            let written =
                if is_text { bytes.clone() } else { format!("hex {}\n", hex::encode(bytes)).into_bytes() };
            fs::write(folder.join(name), written).unwrap();
        }
    }
}
