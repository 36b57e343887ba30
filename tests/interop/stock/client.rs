//! The clients, each by its own command line or library.

mod go;
mod javascript;
mod library;
mod ours;
mod python;

use std::path::Path;
use std::process::Command;

use super::{Claim, Payload, Scene};

pub(super) use go::program;

/// A client that signs and verifies.
pub(crate) trait Client {
    fn name(&self) -> &'static str;
    /// Whether it signs with a stack of this kind at all.
    fn signs(&self, _scene: &Scene) -> bool {
        true
    }
    /// Whether it verifies such a payload at all.
    fn verifies(&self, _payload: Payload) -> bool {
        true
    }
    /// Pins the root of the stack's repository, where it does so by a command of its own.
    fn follow(&self, _scene: &Scene) -> Result<(), String> {
        Ok(())
    }
    /// Whether it is somebody else's.
    fn is_stock(&self) -> bool {
        true
    }
    /// Signs the scene's artifact, or the statement about it, and writes the bundle.
    fn sign(&self, scene: &Scene, payload: Payload, bundle: &Path) -> Result<(), String>;
    /// Signs the scene's statement octet for octet, where [`Client::sign`] makes one of its own.
    fn sign_as_given(&self, scene: &Scene, bundle: &Path) -> Result<(), String> {
        self.sign(scene, Payload::Statement, bundle)
    }
    /// Verifies a bundle for an artifact and an identity.
    fn verify(&self, scene: &Scene, claim: &Claim<'_>) -> Result<(), String>;
}

/// The clients that are there.
pub(crate) fn installed() -> Vec<Box<dyn Client>> {
    let mut clients: Vec<Box<dyn Client>> = vec![Box::new(ours::Ours)];
    if let Some(python) = crate::python::python(&["sigstore.models"], "sigstore") {
        clients.push(Box::new(python::Python(python)));
    }
    if let Some(modules) = javascript::JavaScript::found() {
        clients.push(Box::new(modules));
    }
    if let Some(modules) = javascript::Package::found() {
        clients.push(Box::new(modules));
    }
    if let Some(signing) = go::program("sigstore-go-signing")
        && let Some(verification) = go::program("sigstore-go-verification")
    {
        clients.push(Box::new(go::Go { signing, verification }));
    }
    if let Some(cosign) = go::program("cosign") {
        clients.push(Box::new(go::Cosign(cosign)));
    }
    if let Some(program) = library::Rust::found() {
        clients.push(Box::new(program));
    }
    if let Some(library) = library::Java::found() {
        clients.push(Box::new(library));
    }
    clients
}

/// Runs a command with its own folders below the scene's, and the stack's TLS authority where it is told one; its words on
/// failure.
pub(super) fn run(scene: &Scene, command: &mut Command) -> Result<(), String> {
    let home = scene.path("client-home");
    std::fs::create_dir_all(&home).unwrap();
    for name in ["HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
        command.env(name, &home);
    }
    // cosign empties its folder when it begins with a repository.
    command.env("TUF_ROOT", home.join("cosign"));
    if let Some(authority) = scene.tls_authority() {
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            command.env(name, &authority);
        }
    }
    let output = command.current_dir(scene.dir.path()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let from = said.char_indices().rev().nth(1500).map_or(0, |(at, _)| at);
    Err(said[from..].to_owned())
}
