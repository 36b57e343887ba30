//! `publish`: a verified release, copied as it is into a folder that a file server or a deployment reads.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Home, Secrecy, make_folder, write_file};
use crate::output::{Output, Tone};
use crate::release::{MANIFEST_FILE, Release, Use};
use crate::verify::{self, VerifyFlags};

/// `publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// Folder with a signed manifest.yaml, or the manifest
    #[arg(value_name = "DIR|MANIFEST")]
    release: PathBuf,
    /// Folder of releases; this one goes to TO/ID/VERSION
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    verify: VerifyFlags,
}

/// Runs `publish`. What does not verify is not published.
///
/// # Errors
/// Exit code 3 when the release is denied; 1 when another release of this version is there.
pub fn run(publish: &Publish, home: &Home, out: &Output) -> Outcome {
    let release = Release::open(&publish.release, Use::Verify)?;
    let module = release.module()?;
    let verdict = verify::verify_release(&release, &module, &publish.verify, home)?;
    let folder =
        publish.to.join(release.manifest().id().as_str()).join(release.manifest().version().as_str());
    let mut files = vec![
        (PathBuf::from(release.module_name()?), module),
        (PathBuf::from(MANIFEST_FILE), release.text.clone().into_bytes()),
    ];
    if let Some((name, bytes)) = release.sidecar()? {
        files.insert(1, (PathBuf::from(name), bytes.into_bytes()));
    }
    // A version never changes its bytes.
    for (name, bytes) in &files {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(there) if there == *bytes => {}
            Ok(_) => {
                return Err(Failure::failed(format!(
                    "{} is published already, with other content",
                    folder.display()
                ))
                .hint("raise the version in the manifest, sign again, publish that"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).or_fail(Exit::Failure, path.display()),
        }
    }
    make_folder(&folder, Secrecy::Public)?;
    // The manifest goes last: whoever finds it finds everything it names.
    for (name, bytes) in &files {
        write_file(&folder.join(name), bytes, Secrecy::Public)?;
    }
    out.line(format!("{} {}", out.paint(Tone::Good, "published"), folder.display()));
    out.value(&json!({ "ok": true, "folder": folder, "agent": release.manifest().id().as_str(),
        "version": release.manifest().version().as_str(), "signer": verdict.signer }));
    Ok(Exit::Ok)
}
