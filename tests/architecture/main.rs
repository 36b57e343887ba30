//! What `docs/architecture.md` promises about the shape of the workspace, checked against `cargo metadata`, the
//! manifests and the source text. A change that breaks one of these is a change of the architecture: the document moves
//! first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: a failure must stop with the place it happened"
)]

mod attacks;
mod bans;
mod imports;
mod json_order;
mod licences;
mod manifests;
mod no_std;
mod pages;
mod sources;
mod suites;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The root of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

/// The resolved graph of the workspace with the features that are built, loaded once.
fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .other_options(vec![
                "--offline".to_owned(),
                "--locked".to_owned(),
                // Without it cargo lists what other platforms would add, which is neither built nor fetched here.
                "--filter-platform".to_owned(),
                host(),
            ])
            .exec()
            .expect(
                "cargo metadata --offline --locked: is Cargo.lock up to date and every dependency fetched?",
            )
    })
}

/// The platform this toolchain builds for.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("-vV").output().expect("rustc -vV");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().find_map(|l| l.strip_prefix("host: ")).expect("a host line").to_owned()
}

/// The crates of this workspace.
fn members() -> Vec<&'static Package> {
    metadata().workspace_packages()
}

/// Every Rust source file of the checkout (not of `target/`), relative to the root.
fn rust_sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, root: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("readable folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if path.is_dir() {
                if !matches!(&*name, "target" | "node_modules") && !name.starts_with('.') {
                    walk(&path, root, out);
                }
            } else if name.ends_with(".rs") {
                out.push(path.strip_prefix(root).expect("below the root").to_path_buf());
            }
        }
    }
    let mut out = Vec::new();
    walk(&root(), &root(), &mut out);
    out.sort();
    assert!(out.len() > 20, "the walk found only {} files: it looks in the wrong place", out.len());
    out
}

/// The text of one file below the root.
fn text(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
