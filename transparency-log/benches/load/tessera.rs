//! The peer: Tessera's POSIX conformance server, as its own module installs it, under the same client.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tlog::VerifierKey;

const MODULE: &str = "github.com/transparency-dev/tessera/cmd/conformance/posix@v1.0.4";
/// The first test key of RFC 8032, section 7.1: what is only measured needs no secret.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// The server's binary: installed once into `folder` with Go, or what is missing.
pub(crate) fn binary(folder: &Path) -> Result<PathBuf, String> {
    let binary = folder.join("posix");
    if !binary.exists() {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let folder = folder.canonicalize().map_err(|error| error.to_string())?;
        let installed = Command::new("go").args(["install", MODULE]).env("GOBIN", folder).status();
        match installed {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("go install {MODULE}: {status}")),
            Err(error) => return Err(format!("Go is not installed ({error})")),
        }
    }
    Ok(binary)
}

/// A running peer with an empty log of its own.
pub(crate) struct Tessera {
    child: Child,
    pub(crate) address: String,
    _folder: tempfile::TempDir,
}

impl Tessera {
    pub(crate) fn start(binary: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free a moment ago; nobody else takes ports on a machine that measures.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let key = folder.path().join("key");
        std::fs::write(&key, signing_key("peer.example.test")).unwrap();
        let child = Command::new(binary)
            .arg(format!("--storage_dir={}", folder.path().join("log").display()))
            .arg(format!("--listen={address}"))
            .arg(format!("--private_key={}", key.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the peer does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address, _folder: folder }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Tessera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The key as a Go note signer reads it.
fn signing_key(name: &str) -> String {
    let public = hex::decode(PUBLIC).unwrap().try_into().unwrap();
    let verifier = VerifierKey::ed25519(name, &public).unwrap().to_string();
    let id = verifier.split('+').nth(1).unwrap();
    let seed = [vec![1], hex::decode(SEED).unwrap()].concat();
    format!("PRIVATE+KEY+{name}+{id}+{}", STANDARD.encode(seed))
}
