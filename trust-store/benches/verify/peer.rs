//! The time that `sigstore-verify` takes for the same bundle, measured by a program of `tests/oracles` (a workspace of its
//! own): it gets the very files that the figures here are about, and repeats reading and verifying them in its own process.
//!
//! It verifies the signature, the certificate's chain and embedded timestamp, the timestamp token, the log entry with its
//! inclusion proof and the log's line of the checkpoint. It looks at neither revocation nor witnesses nor freshness.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::hierarchy::Hierarchy;

pub(crate) fn sigstore_verify_p50_ms(hierarchy: &Hierarchy) -> Result<f64, String> {
    let program = program().ok_or("oracle-sigstore-verify is not built; `make oracles` builds it")?;
    let folder = target().join("bench/sigstore-verify");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let signed = &hierarchy.by_known[0];
    for (name, bytes) in [
        ("trusted_root.json", hierarchy.root_json()),
        ("bundle.json", &signed.bundle),
        ("artifact", &signed.module),
    ] {
        std::fs::write(folder.join(name), bytes).map_err(|error| error.to_string())?;
    }
    let output =
        Command::new(program).arg("time").arg(&folder).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!(
            "it does not verify the bundle: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    text.trim().parse().map_err(|_| format!("it printed {text:?}"))
}

fn target() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or(default, PathBuf::from)
}

fn program() -> Option<PathBuf> {
    let path = target().join("release/oracle-sigstore-verify");
    path.is_file().then_some(path)
}
