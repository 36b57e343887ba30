//! A CA whose issuing key is in a TPM of software: swtpm, run by `make interop-tpm`, which says so when it is missing.

#![cfg(feature = "tpm")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;
#[path = "../../tests/src/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ca_api::{RevocationReason, Revoke};
use fixture::{Site, check_ca, enrol_request, key, secret_file, settings};

const PIN: &str = "a pin of the test";

/// A TPM with its state in a folder. It ends with the test.
struct Chip {
    folder: PathBuf,
    process: Child,
}

impl Chip {
    async fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", folder.display())])
            .args(["--server", &format!("type=unixio,path={}/socket,disconnect", folder.display())])
            .args(["--flags", "not-need-init,startup-clear"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..1200 {
            if std::os::unix::net::UnixStream::connect(folder.join("socket")).is_ok() {
                return Self { folder: folder.to_owned(), process };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("swtpm does not answer");
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let _ = std::fs::remove_file(self.folder.join("socket"));
    }
}

/// Configuration lines that put the issuing key and the responder's key into the TPM.
fn places(folder: &Path) -> String {
    secret_file(&folder.join("pin"), PIN);
    let folder = folder.display();
    let uri = |object: &str| {
        format!(
            "tpm2:object={object}?tcti=swtpm:path={folder}/tpm/socket&folder={folder}/tpm-keys&pin-source=file:{folder}/pin"
        )
    };
    format!(
        "\n[keys.uris]\ncode-signing = \"{}\"\nocsp-responder = \"{}\"\n",
        uri("issuing-2026"),
        uri("responder")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_with_its_issuing_key_in_a_tpm_outlives_a_reset_of_it() {
    if Command::new("swtpm").arg("--version").output().is_err() {
        skip::skipped("swtpm is not installed (Debian: apt-get install swtpm)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("tpm");
    let chip = Chip::start(&home).await;
    let settings = settings(folder.path(), &places(folder.path()), "");
    let site = Site::with_settings(folder, settings).await;
    let stored = site.store().await.authorities().await.unwrap();
    for name in ["code-signing", "ocsp-responder"] {
        let uri = &stored.iter().find(|one| one.name == name).unwrap().key_uri;
        assert!(uri.starts_with("tpm2:") && uri.contains("spki-sha256=") && !uri.contains(PIN), "{uri}");
        assert!(!site.settings.keystore.join(format!("{name}.key")).exists());
    }

    let server = site.serve().await;
    let first = server.token("dev@example.com").await;
    let issued = server.client().enrol(&enrol_request(&first.token, &key(), None)).await.unwrap();
    let superseded = Revoke { reason: RevocationReason::Superseded, compromised_at: None };
    server.admin().revoke(&issued.serial, &superseded).await.unwrap();
    check_ca(&server.authority).await;

    // The TPM goes away: refused as a passing failure, and nothing is used up.
    let second = server.token("dev2@example.com").await;
    let asked = enrol_request(&second.token, &key(), Some("while-away"));
    drop(chip);
    let refused = server.client().enrol(&asked).await.unwrap_err();
    assert_eq!(refused.code(), Some("signing_unavailable"), "{refused}");

    // It comes back, with nothing loaded, and the same call of the same process succeeds.
    let _chip = Chip::start(&home).await;
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
