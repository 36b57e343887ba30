//! A CA whose issuing key is in a token: SoftHSM 2, run by `make interop-pkcs11`, which says so when it is missing.

#![cfg(feature = "pkcs11")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;
#[path = "../../tests/src/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ca_api::{RevocationReason, Revoke};
use fixture::{Site, check_ca, enrol_request, key, settings};

const PIN: &str = "a pin of the test";

fn module() -> PathBuf {
    let known = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    let named = std::env::var_os("SOFTHSM2_MODULE").map(PathBuf::from);
    named
        .into_iter()
        .chain(known.map(PathBuf::from))
        .find(|path| path.exists())
        .expect("SoftHSM 2 is missing: apt install softhsm2, or name its library in SOFTHSM2_MODULE")
}

/// Makes a token in the folder that SOFTHSM2_CONF of this process names; returns the token's own folder.
fn token(configuration: &Path, label: &str) -> PathBuf {
    let text = std::fs::read_to_string(configuration).unwrap();
    let folder = text.lines().find_map(|line| line.strip_prefix("directories.tokendir = ")).unwrap();
    let tokens = || std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let before: Vec<PathBuf> = tokens().collect();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label, "--so-pin", "so pin of the test", "--pin", PIN])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    tokens().find(|path| !before.contains(path)).unwrap()
}

/// Configuration lines that put the issuing key and the responder's key into the token.
fn places(folder: &Path) -> String {
    let pin = folder.join("pin");
    std::fs::write(&pin, PIN).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&pin, mode).unwrap();
    let (module, pin) = (module().display().to_string(), pin.display().to_string());
    let uri = |object: &str| {
        format!("pkcs11:token=mentat-ca;object={object}?module-path={module}&pin-source=file:{pin}")
    };
    format!(
        "\n[keys.uris]\ncode-signing = \"{}\"\nocsp-responder = \"{}\"\n",
        uri("issuing-2026"),
        uri("responder")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_with_its_issuing_key_in_a_token_outlives_the_token_going_away() {
    let Some(configuration) = std::env::var_os("SOFTHSM2_CONF").map(PathBuf::from) else {
        skip::skipped("SOFTHSM2_CONF is not set; `make interop-pkcs11` sets it");
        return;
    };
    let home = token(&configuration, "mentat-ca");
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), &places(folder.path()), "");
    let site = Site::with_settings(folder, settings).await;

    // The ceremony made the key there, and says so.
    let lines = ca_service::transcript::verify(&site.outcome.transcript).unwrap();
    let places: Vec<(&str, &str)> = lines
        .iter()
        .filter(|line| line.event == "key.generated")
        .map(|line| (line.detail["name"].as_str().unwrap(), line.detail["place"].as_str().unwrap()))
        .collect();
    assert_eq!(places.iter().filter(|(_, place)| *place == "soft").count(), 4, "{places:?}");
    for name in ["code-signing", "ocsp-responder"] {
        assert!(places.contains(&(name, "pkcs11")), "{places:?}");
        assert!(!site.settings.keystore.join(format!("{name}.key")).exists());
    }
    let stored = site.store().await.authorities().await.unwrap();
    let uri = stored.iter().find(|one| one.name == "code-signing").unwrap().key_uri.clone();
    assert!(uri.contains("id=") && uri.contains("spki-sha256=") && !uri.contains(PIN), "{uri}");

    // A restart opens it by that reference; certificates, lists and status answers are signed with it.
    let server = site.serve().await;
    let first = server.token("dev@example.com").await;
    let issued = server.client().enrol(&enrol_request(&first.token, &key(), None)).await.unwrap();
    let superseded = Revoke { reason: RevocationReason::Superseded, compromised_at: None };
    server.admin().revoke(&issued.serial, &superseded).await.unwrap();
    check_ca(&server.authority).await;

    // The token is pulled out: refused as a passing failure, and nothing is used up.
    let second = server.token("dev2@example.com").await;
    let asked = enrol_request(&second.token, &key(), Some("while-away"));
    let away = home.ancestors().nth(2).unwrap().join("pulled-out");
    std::fs::rename(&home, &away).unwrap();
    let refused = server.client().enrol(&asked).await.unwrap_err();
    assert_eq!(refused.code(), Some("signing_unavailable"), "{refused}");

    // It comes back, and the same call of the same process succeeds.
    std::fs::rename(&away, &home).unwrap();
    let mut outcome = server.client().enrol(&asked).await;
    for _ in 0..100 {
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        outcome = server.client().enrol(&asked).await;
    }
    let after = outcome.unwrap();
    assert_ne!(after.serial, issued.serial);
    server.finish().await;
}
