//! The example agent as a release in a folder of its own.

use std::path::{Path, PathBuf};

use crate::stack::Stack;

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

/// Writes the sentiment analyser below `parent`, with a change of its manifest, and returns its folder.
///
/// # Panics
///
/// When the folder cannot be written.
pub fn sentiment(parent: &Path, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let example = root().join("sdk/examples/sentiment");
    let folder = parent.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::copy(example.join("sentiment.wat"), folder.join("sentiment.wat")).expect("the module's text");
    let manifest = std::fs::read_to_string(example.join("manifest.yaml")).expect("the manifest");
    std::fs::write(folder.join("manifest.yaml"), change(manifest)).expect("writing the manifest");
    folder
}

/// Writes an agent from module text below `parent` and returns its folder.
///
/// # Panics
///
/// When the folder cannot be written.
pub fn from_text(parent: &Path, id: &str, module: &str) -> PathBuf {
    let folder = parent.join(id);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("module.wat"), module).expect("the module's text");
    let manifest = format!("id: {id}\nversion: 1.0.0\nruntime: wasm\nmodule: module.wasm\n");
    std::fs::write(folder.join("manifest.yaml"), manifest).expect("writing the manifest");
    folder
}

/// A one-time token for an address.
///
/// # Panics
///
/// When the authority refuses.
pub fn token(stack: &Stack, address: &str) -> String {
    let made = stack.ctl(&["--json", "pki", "token", "create", "--email", address]).success().json();
    made["token"].as_str().expect("a token").to_owned()
}

/// Gets a certificate for an address: `home/NAME.crt` and `home/NAME.key`.
///
/// # Panics
///
/// When the authority refuses.
pub fn enrol(stack: &Stack, address: &str, name: &str) -> (String, String) {
    let token = token(stack, address);
    let path = |extension: &str| stack.home().join(format!("{name}.{extension}")).display().to_string();
    let (cert, key) = (path("crt"), path("key"));
    stack
        .ctl_with_input(
            &["pki", "request-cert", "--email", address, "--output", &cert, "--key", &key],
            token.as_bytes(),
        )
        .success();
    (cert, key)
}

/// A signed release of the example agent; the certificate is that of `dev@example.com`.
///
/// # Panics
///
/// When a step fails.
pub fn signed(stack: &Stack, parent: &Path, name: &str) -> PathBuf {
    if !stack.home().join("signing.crt").exists() {
        enrol(stack, "dev@example.com", "signing");
    }
    let folder = sentiment(parent, name, |manifest| manifest);
    stack.ctl(&["sign", folder.to_str().expect("a readable path")]).success();
    folder
}
