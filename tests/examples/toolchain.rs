//! The toolchains of the guest languages: which are here, and what to install for those that are not (`make toolchains`).

use std::path::Path;
use std::process::Command;

use mentat_tests::skip::skipped;

/// What builds a guest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Toolchain {
    AssemblyScript,
    C,
    Go,
    JavaScript,
    Python,
    Rust,
    TinyGo,
}

impl Toolchain {
    /// Whether it is here. Where it is not, the skip of `what` is said with the packages that are missing.
    pub(crate) fn is_here(self, what: &str) -> bool {
        let (here, packages) = match self {
            Self::AssemblyScript => {
                (answers("asc", "--version") && answers("node", "--version"), "nodejs, npm, assemblyscript")
            }
            Self::C => {
                (answers("clang-22", "--version") && answers("wasm-ld-22", "--version"), "clang-22, lld-22")
            }
            Self::Go => (answers("go", "version"), "Go 1.24"),
            Self::JavaScript => (answers("componentize-js", "--version"), "nodejs, npm, componentize-js"),
            Self::Python => (answers("componentize-py", "--version"), "python3, componentize-py"),
            Self::Rust => (
                has_rust_target()
                    || Path::new("/usr/bin/wasm-ld-22").exists()
                        && Path::new("/usr/lib/rustlib/src/rust/library").exists(),
                "the rustup target wasm32-unknown-unknown, or rustc-web, cargo-web, rust-web-src, lld-22",
            ),
            Self::TinyGo => (answers("go", "version") && answers("tinygo", "version"), "tinygo"),
        };
        let here = here && answers("make", "--version");
        if !here {
            skipped(format_args!("{what}: not installed is {packages} (make toolchains)"));
        }
        here
    }
}

/// Whether a program is installed and runs.
fn answers(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|done| done.status.success())
}

fn has_rust_target() -> bool {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"])
        .output();
    asked.is_ok_and(|answer| {
        answer.status.success() && Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir()
    })
}

/// Runs `make` in a folder, without what cargo and an outer make leave in the environment.
#[track_caller]
pub(crate) fn make(folder: &Path, targets: &[&str]) {
    let mut command = Command::new("make");
    command.arg("--no-print-directory").arg("-C").arg(folder).args(targets);
    for name in [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(name);
    }
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        done.status.success(),
        "make {targets:?} in {}:\n{}{}",
        folder.display(),
        text(&done.stdout),
        text(&done.stderr)
    );
}
