//! Bytes that are hashed or signed do not depend on the map that `serde_json` is built with.
//!
//! Cedar turns on `serde_json/preserve_order` for whatever is built beside it. A [`serde_json::Value`] has members in one order with
//! it and in another without. So each product file that has to do with such values stands here, with what becomes of them. Where
//! text of a value is hashed, signed or compared, it is a `trust_store::sorted_json::SortedJson`, which the trail of the authority,
//! the transcript of a ceremony, statements and webhooks take and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{metadata, rust_sources, text};

/// What becomes of the values of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The body of a request or an answer, or what a program prints: read by its names, bytes said by nobody.
    Answer,
    /// A list without objects: it has its order by itself.
    List,
    /// Taken apart by names, or handed on as it came.
    Read,
    /// Written as `SortedJson`.
    Sorted,
}

use Fate::{Answer, List, Read, Sorted};

/// Files of `mentatctl/src` that only make what `--json` prints.
const PRINTED: &[&str] = &[
    "admission.rs",
    "attach.rs",
    "audit_capabilities/report.rs",
    "audit.rs",
    "demo.rs",
    "endorse.rs",
    "executor.rs",
    "executor/anchors.rs",
    "executor/audit.rs",
    "executor/deploy.rs",
    "executor/hold.rs",
    "executor/receipt.rs",
    "executor/service.rs",
    "lint.rs",
    "log/fsck.rs",
    "log/monitor.rs",
    "log/proof.rs",
    "log/submit.rs",
    "man.rs",
    "new.rs",
    "oci.rs",
    "oci/pull.rs",
    "output.rs",
    "pki.rs",
    "pki/descent.rs",
    "pki/enrol.rs",
    "pki/identity_token.rs",
    "pki/incident.rs",
    "pki/list.rs",
    "pki/policy.rs",
    "pki/renew.rs",
    "pki/requests.rs",
    "pki/revoke_many.rs",
    "publish.rs",
    "run.rs",
    "sign/module.rs",
    "stack/rotation.rs",
    "stack/run.rs",
    "tls.rs",
    "trust.rs",
    "trust/distribution.rs",
    "trust/evidence.rs",
    "trust/lint.rs",
    "trust/update.rs",
    "verify.rs",
];

const KNOWN: &[(&str, Fate)] = &[
    ("ca-service/src/approval.rs", Read),
    ("ca-service/src/ceremony.rs", Sorted),
    ("ca-service/src/ceremony/founding.rs", Sorted),
    ("ca-service/src/ceremony/further.rs", Sorted),
    // Fields of two plans are compared one by one; the approver's summary is printed.
    ("ca-service/src/ceremony/step.rs", Read),
    ("ca-service/src/ceremony/succession.rs", Sorted),
    ("ca-service/src/ceremony_command.rs", Answer),
    ("ca-service/src/check/authorisation.rs", Read),
    ("ca-service/src/check/queue.rs", Read),
    ("ca-service/src/check/trail.rs", Read),
    ("ca-service/src/enrolment.rs", Sorted),
    ("ca-service/src/expiry.rs", Sorted),
    ("ca-service/src/fulcio.rs", List),
    ("ca-service/src/issuance.rs", Sorted),
    ("ca-service/src/main.rs", Answer),
    ("ca-service/src/mass_revocation.rs", Sorted),
    ("ca-service/src/oidc.rs", Sorted),
    ("ca-service/src/oidc/demands.rs", Read),
    ("ca-service/src/oidc/explanation.rs", Read),
    ("ca-service/src/own_renewal.rs", Sorted),
    ("ca-service/src/queue.rs", Sorted),
    ("ca-service/src/queue/granted.rs", Sorted),
    ("ca-service/src/queue/lineage.rs", Read),
    ("ca-service/src/queue/notice.rs", Sorted),
    ("ca-service/src/queue/proof.rs", Read),
    ("ca-service/src/renewal.rs", Sorted),
    ("ca-service/src/revocation.rs", Sorted),
    ("ca-service/src/service_record.rs", Sorted),
    ("ca-service/src/statement.rs", Sorted),
    ("ca-service/src/storage/audit.rs", Sorted),
    ("ca-service/src/storage/authorities.rs", Sorted),
    ("ca-service/src/storage/backup.rs", Sorted),
    ("ca-service/src/storage/crls.rs", Sorted),
    ("ca-service/src/storage/issuance.rs", Sorted),
    ("ca-service/src/storage/problem_reports.rs", Sorted),
    ("ca-service/src/storage/queue/sql.rs", Sorted),
    ("ca-service/src/storage/queue/sql/steps.rs", Sorted),
    ("ca-service/src/storage/revocations.rs", Sorted),
    ("ca-service/src/storage/service.rs", Sorted),
    ("ca-service/src/storage/tokens.rs", Sorted),
    ("ca-service/src/token_refusal.rs", Sorted),
    ("ca-service/src/transcript.rs", Sorted),
    // Envelopes: what is signed in them is their payload.
    ("ca-service/src/transparency.rs", Answer),
    ("executor/api/src/client.rs", Answer),
    ("executor/src/api/http.rs", Answer),
    ("executor/src/receipts/anchor.rs", Sorted),
    ("hsm/src/aws_kms/fake.rs", Answer),
    ("mentatctl/src/demo/act.rs", Read),
    ("mentatctl/src/demo/path.rs", Read),
    ("mentatctl/src/log/alert.rs", Answer),
    ("mentatctl/src/pki/by_digest.rs", Read),
    ("mentatctl/src/pki/problem.rs", Answer),
    ("mentatctl/src/sign.rs", Answer),
    ("mentatctl/src/sign/evidence.rs", Read),
    ("mentatctl/src/sign/keyless.rs", Answer),
    // A bundle as it was made: what is signed in it is its payload.
    ("mentatctl/src/sign/pending.rs", Read),
    ("mentatctl/src/sign_bundle.rs", Answer),
    ("mentatctl/src/stack/child.rs", Read),
    ("mentatctl/src/stack/create.rs", Read),
    ("mentatctl/src/stack/issuer.rs", Sorted),
    ("mentatctl/src/stack/issuer/grant.rs", Answer),
    ("mentatctl/src/stack/listener.rs", Answer),
    ("mentatctl/src/verify_bundle.rs", Answer),
    ("service/src/problem.rs", Answer),
    ("service/src/ready.rs", Answer),
    ("transparency-log/client/src/issuance.rs", Answer),
    ("transparency-log/client/src/proof.rs", Read),
    ("transparency-log/client/src/submit.rs", Answer),
    ("transparency-log/src/api/batch.rs", Answer),
    ("transparency-log/src/api/issuance.rs", Answer),
    ("transparency-log/src/api/reads.rs", Answer),
    ("transparency-log/src/init.rs", Answer),
    ("transparency-log/src/lookup/search.rs", Answer),
    ("transparency-log/src/repair.rs", Answer),
    ("transparency-log/src/witness/http.rs", Answer),
    // What is signed is the canonical form of `sigstore-tuf`, which sorts.
    ("trust-store/files/src/tuf/metadata.rs", Sorted),
    ("trust-store/files/src/tuf/publisher.rs", Sorted),
    ("trust-store/src/conformance/bundle.rs", Answer),
    ("trust-store/src/conformance/mod.rs", Answer),
    ("trust-store/src/sorted_json.rs", Sorted),
];

/// Whether the product part of a source names a value, a map, or what makes one.
fn has_values(text: &str) -> bool {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let name = |name: &str| {
        matches!(name, "Value" | "Map" | "Number" | "json" | "to_value" | "from_value" | "value")
    };
    let first_word =
        |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().is_some_and(name);
    product.split("serde_json::").skip(1).any(|rest| match rest.strip_prefix('{') {
        Some(list) => {
            list.split('}').next().unwrap_or_default().split(',').any(|item| first_word(item.trim()))
        }
        None => first_word(rest) || rest.starts_with('*'),
    })
}

fn is_product(path: &Path) -> bool {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    !path.iter().any(|part| matches!(part.to_str(), Some("tests" | "benches" | "examples" | "fuzz" | "sdk")))
        && file != "tests.rs"
        && !file.ends_with("_tests.rs")
}

#[test]
fn every_file_with_json_values_says_what_becomes_of_them() {
    let mut known: BTreeMap<String, Fate> =
        KNOWN.iter().map(|(path, fate)| ((*path).to_owned(), *fate)).collect();
    known.extend(PRINTED.iter().map(|file| (format!("mentatctl/src/{file}"), Answer)));
    let mut unlisted = Vec::new();
    for path in rust_sources().into_iter().filter(|path| is_product(path)) {
        let source = text(&path);
        let listed = known.remove(&*path.to_string_lossy());
        match (has_values(&source), listed) {
            (true, None) => unlisted.push(path),
            (false, Some(_)) => panic!("{} has no JSON values any more: strike it off", path.display()),
            (true, Some(Sorted)) if path != Path::new("trust-store/src/sorted_json.rs") => {
                let dense: String = source.split_whitespace().collect();
                let unsorted =
                    ["}).to_string()", "detail.to_string()", "message.to_string()", "statement.to_string()"];
                let written = unsorted.into_iter().find(|unsorted| dense.contains(unsorted));
                assert_eq!(written, None, "{}: write it as SortedJson", path.display());
            }
            _ => {}
        }
    }
    assert!(
        unlisted.is_empty(),
        "these use serde_json's values: decide whether anything hashes, signs or compares their bytes, then list them:\n{unlisted:?}"
    );
    assert!(known.is_empty(), "gone: {known:?}");
}

/// Frozen bytes mean something in a build in which the map does not sort by itself. A crate that is built alone has the other one.
#[test]
fn the_suites_of_the_workspace_run_with_maps_that_do_not_sort() {
    let resolve = metadata().resolve.as_ref().expect("a resolved graph");
    let of = |node: &&cargo_metadata::Node| metadata()[&node.id].name.as_str() == "serde_json";
    let node = resolve.nodes.iter().find(of).expect("serde_json");
    assert!(node.features.iter().any(|feature| feature.as_str() == "preserve_order"), "{:?}", node.features);
}

#[test]
fn the_search_finds_each_way_to_name_a_value() {
    for found in [
        "let v: serde_json::Value = x;",
        "use serde_json::{Error, json};",
        "use serde_json::Map;",
        "use serde_json::*;",
        "serde_json::to_value(x)",
    ] {
        assert!(has_values(found), "{found}");
    }
    for other in [
        "serde_json::to_vec(&typed)",
        "serde_json::Error",
        "x\n#[cfg(test)]\nmod tests {\n use serde_json::json;",
    ] {
        assert!(!has_values(other), "{other}");
    }
}
