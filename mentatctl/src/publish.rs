//! `publish`: a verified release, copied as it is into a folder that a file server or a deployment reads, or stored in an OCI
//! registry.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::exit::{Exit, Failure, OrFail as _, Outcome, file_failure};
use crate::home::{Home, Secrecy, make_folder, write_file};
use crate::oci::{self, Reference};
use crate::output::{Output, Tone, shown};
use crate::release::{MANIFEST_FILE, Release, Use};
use crate::verify::{self, VerifyFlags};

/// `publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// Folder with a signed manifest.yaml, or the manifest
    #[arg(value_name = "DIR|MANIFEST")]
    release: PathBuf,
    /// Folder of releases, where this one goes to TO/ID/VERSION, or oci://HOST/REPOSITORY, where the version is the tag unless
    /// one follows after a colon [default: ~/.mentat/releases]
    #[arg(long, value_name = "DIR|REFERENCE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    verify: VerifyFlags,
}

/// Runs `publish`. What does not verify is not published: the copy itself is verified, where nobody finds it yet, and then
/// put into its place in one step.
///
/// # Errors
/// Exit code 3 when the release is denied; 1 when another release of this version is there.
pub fn run(publish: &Publish, home: &Home, out: &Output) -> Outcome {
    let release = Release::open(&publish.release, Use::Verify)?;
    let module = release.module()?;
    // A wrong name is said before anything is done.
    let registry = match publish.to.as_ref().and_then(|to| to.to_str()) {
        Some(to) if to.starts_with(oci::SCHEME) => Some(Reference::parse(to)?),
        _ => None,
    };
    let verdict = verify::verify_release(&release, &module, &publish.verify, home)?;
    if let Some(to) = &registry {
        return oci::publish(&release, &module, to, publish.verify.client(home)?, &verdict.signer, out);
    }
    let mut files =
        vec![(release.module_name()?, module), (MANIFEST_FILE.to_owned(), release.text.clone().into_bytes())];
    if let Some((name, text)) = release.sidecar()? {
        files.push((name, text.into_bytes()));
    }
    let to = publish.to.clone().unwrap_or_else(|| home.dir().join("releases"));
    let versions = to.join(release.manifest().id().as_str());
    let folder = versions.join(release.manifest().version().as_str());
    if folder.exists() {
        complete(&folder, &files)?;
    } else {
        make_folder(&versions, Secrecy::Public)?;
        let draft = Draft::below(&versions)?;
        for (name, bytes) in &files {
            write_file(&draft.0.join(name), bytes, Secrecy::Public)?;
        }
        let copy = Release::open(&draft.0, Use::Verify)?;
        verify::verify_release(&copy, &copy.module()?, &publish.verify, home)
            .map_err(|failure| failure.hint("the release changed while it was published: try again"))?;
        match std::fs::rename(&draft.0, &folder) {
            Ok(()) => {}
            // Somebody else was faster.
            Err(_) if folder.exists() => complete(&folder, &files)?,
            Err(error) => return Err(file_failure(Exit::Failure, folder.display(), &error)),
        }
        std::fs::File::open(&versions)
            .and_then(|versions| versions.sync_all())
            .or_fail(Exit::Failure, versions.display())?;
    }
    out.line(format!("{} {}", out.paint(Tone::Good, "published"), folder.display()));
    out.value(|| {
        json!({ "ok": true, "folder": shown(&folder), "agent": release.manifest().id().as_str(),
        "version": release.manifest().version().as_str(), "signer": verdict.signer })
    });
    Ok(Exit::Ok)
}

/// A version that is there: it never changes its bytes. What is missing of it is added.
fn complete(folder: &Path, files: &[(String, Vec<u8>)]) -> Outcome<()> {
    let mut missing = Vec::new();
    for (name, bytes) in files {
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
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push((path, bytes)),
            Err(error) => return Err(file_failure(Exit::Failure, path.display(), &error)),
        }
    }
    for (path, bytes) in missing {
        write_file(&path, bytes, Secrecy::Public)?;
    }
    Ok(())
}

/// A folder that goes away with the value, unless it was renamed.
pub struct Draft(PathBuf);

impl Draft {
    /// A new folder, of a name that nobody can foresee.
    ///
    /// # Errors
    /// Exit code 1 when it cannot be made.
    pub fn below(parent: &Path) -> Outcome<Self> {
        let draft = Self(parent.join(format!(".{}.new", uuid::Uuid::new_v4().simple())));
        make_folder(&draft.0, Secrecy::Public)?;
        Ok(draft)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
