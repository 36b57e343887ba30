//! The bundle cases of Sigstore's conformance suite, from a checkout of it: `MENTAT_SIGSTORE_CONFORMANCE=DIR`. The suite is in no package
//! registry, so it is not fetched; the same protocol is tested without it in `journeys/bundle.rs`, and bundles of real services
//! in `tests/oracles`.
//!
//! A folder below `test/assets/bundle-verify` is a case: `bundle.sigstore.json` and, where they differ from the suite's own,
//! `trusted_root.json`, `key.pub`, `identity`, `issuer` and `artifact`. A name that ends in `_fail` must be refused. Cases without a
//! trusted root of their own are of the public instance: `MENTAT_SIGSTORE_ROOT=FILE` names its root.

use std::fs;
use std::path::{Path, PathBuf};

use mentat_tests::command::mentatctl;
use mentat_tests::skip::skipped;

/// Who signed the suite's own bundles.
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

#[test]
fn every_case_of_the_conformance_suite_is_decided_as_it_says() {
    let Some(suite) = std::env::var_os("MENTAT_SIGSTORE_CONFORMANCE").map(PathBuf::from) else {
        skipped(
            "Sigstore's conformance suite is not here (git clone https://github.com/sigstore/sigstore-conformance; \
             MENTAT_SIGSTORE_CONFORMANCE=DIR MENTAT_SIGSTORE_ROOT=FILE)",
        );
        return;
    };
    let public_root = std::env::var_os("MENTAT_SIGSTORE_ROOT").map(PathBuf::from);
    let cases = suite.join("test/assets/bundle-verify");
    let mut folders: Vec<PathBuf> = fs::read_dir(&cases)
        .unwrap_or_else(|error| panic!("{}: {error}", cases.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("bundle.sigstore.json").is_file())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{} holds no case", cases.display());
    let home = tempfile::tempdir().unwrap();
    let (mut decided, mut wrong) = (0, Vec::new());
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let own = |file: &str| Some(folder.join(file)).filter(|path| path.is_file());
        let Some(root) = own("trusted_root.json").or_else(|| public_root.clone()) else {
            skipped(format_args!(
                "{name} is of the public instance, whose root is not given (MENTAT_SIGSTORE_ROOT)"
            ));
            continue;
        };
        let text = |file: &str, default: &str| {
            own(file).map_or(default.to_owned(), |path| fs::read_to_string(path).unwrap().trim().to_owned())
        };
        let (identity, issuer) = (text("identity", IDENTITY), text("issuer", ISSUER));
        let artifact = own("artifact").unwrap_or_else(|| cases.join("a.txt"));
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let mut args = vec![
            "verify-bundle".to_owned(),
            "--bundle".to_owned(),
            path(&folder.join("bundle.sigstore.json")),
        ];
        match own("key.pub") {
            Some(key) => args.extend(["--key".to_owned(), path(&key)]),
            None => args.extend([
                "--certificate-identity".to_owned(),
                identity,
                "--certificate-oidc-issuer".to_owned(),
                issuer,
            ]),
        }
        args.extend(["--trusted-root".to_owned(), path(&root), path(&artifact)]);
        let done = mentatctl(home.path(), &args);
        decided += 1;
        if (done.code == 0) == name.ends_with("_fail") {
            wrong.push(format!("{name}: exit code {}: {}", done.code, done.stderr.trim()));
        }
    }
    assert!(wrong.is_empty(), "{} of {decided} cases:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("{decided} of {} cases of the conformance suite decided as it says", folders.len());
}
