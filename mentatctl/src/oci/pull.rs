//! `pull`: a release from a registry, verified before it is put where anybody finds it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use trust_store::bundle::{MAX_BUNDLE_BYTES, MEDIA_TYPE as BUNDLE};
use trust_store_files::manifest_file::{MAX_MANIFEST_FILE_BYTES, MAX_MODULE_BYTES};

use super::layout::{
    Descriptor, EMPTY, IMAGE, Image, MANIFEST, MANIFEST_DIGEST, PIPELINE, WASM, WASM_CONFIG,
};
use super::only_layer;
use super::reference::{Digest, Reference, Version};
use super::registry::{Access, Registry};
use crate::exit::{Exit, Failure, OrFail as _, Outcome, file_failure};
use crate::home::{Home, Secrecy, folder_of, write_file};
use crate::net::block_on;
use crate::output::{Output, Tone, shown};
use crate::publish::Draft;
use crate::release::{MANIFEST_FILE, Release, Use};
use crate::verify::{self, VerifyFlags};

/// Most attached manifests that are tried: whoever may write to the repository may attach some.
const MAX_CANDIDATES: usize = 16;

/// `pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:HEX
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Folder to be made for the release [default: the agent's id, here]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    verify: VerifyFlags,
}

/// What was fetched of a release, before it is verified.
struct Fetched {
    module: Vec<u8>,
    module_name: String,
    manifest_digest: Option<String>,
    candidates: Vec<Candidate>,
}

/// A manifest that somebody attached to the image.
struct Candidate {
    manifest: Vec<u8>,
    sidecar: Option<Vec<u8>>,
}

/// Runs `pull`.
///
/// # Errors
/// Exit code 3 with the reason code when the release is denied, 1 when it is not of the layout or the folder is taken, 69 when
/// the registry cannot be reached.
pub fn run(pull: &Pull, home: &Home, out: &Output) -> Outcome {
    let reference = Reference::parse(&pull.reference)?;
    let name = match &reference.version {
        Version::Tag(tag) => tag.clone(),
        Version::Digest(digest) => digest.to_string(),
        Version::Unnamed => {
            return Err(Failure::usage(format!("`{reference}` says neither tag nor digest"))
                .hint("add :TAG, or @sha256:HEX to get exactly what was reviewed"));
        }
    };
    let mut registry = Registry::new(pull.verify.client(home)?, &reference, Access::Pull)?;
    let spinner = out.spinner(format!("pulling {reference}"));
    let (digest, fetched) = block_on(async {
        let bytes = registry
            .manifest(&name)
            .await?
            .ok_or_else(|| Failure::failed(format!("{reference} does not exist")).hint("check its name"))?;
        let digest = Digest::of(&bytes);
        if let Version::Digest(asked) = reference.version
            && asked != digest
        {
            return Err(Failure::failed(format!("the registry answers {asked} with other bytes"))
                .code("digest_mismatch")
                .hint("do not use this registry until its operator has explained it"));
        }
        Ok((digest, fetch(&mut registry, &bytes, digest).await?))
    })?;
    drop(spinner);
    let beside = pull.output.as_deref().map_or(Path::new("."), folder_of);
    let (draft, release, verdict) = accepted(&fetched, beside, pull, home)?;
    let folder = pull.output.clone().unwrap_or_else(|| PathBuf::from(release.manifest().id().as_str()));
    if folder.exists() {
        return Err(Failure::failed(format!("{} exists already", folder.display()))
            .hint("give another folder with --output, or remove this one"));
    }
    std::fs::rename(draft.path(), &folder)
        .map_err(|error| file_failure(Exit::Failure, folder.display(), &error))?;
    std::fs::File::open(folder_of(&folder))
        .and_then(|parent| parent.sync_all())
        .or_fail(Exit::Failure, folder.display())?;
    let (id, version) = (release.manifest().id(), release.manifest().version());
    out.line(format!(
        "{} {id} {version} signed by {} into {}",
        out.paint(Tone::Good, "pulled"),
        verdict.signer,
        folder.display()
    ));
    out.value(|| {
        json!({ "ok": true, "folder": shown(&folder), "digest": digest.to_string(), "agent": id.as_str(),
        "version": version.as_str(), "signer": verdict.signer, "trust_level": verdict.level })
    });
    Ok(Exit::Ok)
}

async fn fetch(registry: &mut Registry, bytes: &[u8], digest: Digest) -> Outcome<Fetched> {
    let image = parse(bytes)?;
    let layer = match image.config.media_type.as_str() {
        WASM_CONFIG => only_layer(&image.layers, WASM),
        EMPTY => only_layer(&image.layers, PIPELINE),
        _ => None,
    };
    let layer = layer.ok_or_else(|| {
        Failure::failed(format!(
            "{digest} is neither a WebAssembly artifact (one layer {WASM}, configuration {WASM_CONFIG}) nor a pipeline"
        ))
        .code("unsupported")
        .hint("pull what `mentatctl publish` stored")
    })?;
    let mut candidates = Vec::new();
    // What was attached last is looked at first: who signs anew does it for a reason.
    for descriptor in registry.referrers(digest, MANIFEST).await?.iter().rev().take(MAX_CANDIDATES) {
        let Some(candidate) = candidate(registry, descriptor, digest).await? else { continue };
        candidates.push(candidate);
    }
    if candidates.is_empty() {
        return Err(Failure::new(
            Exit::Denied,
            format!("nothing that is attached to {digest} says who signed it"),
        )
        .code("inclusion_missing")
        .hint("whoever published it publishes again with `mentatctl publish --to oci://…`"));
    }
    Ok(Fetched {
        module: registry.blob(layer, MAX_MODULE_BYTES).await?,
        module_name: layer.title().unwrap_or_default().to_owned(),
        manifest_digest: image.annotations.get(MANIFEST_DIGEST).cloned(),
        candidates,
    })
}

/// A referrer that is about this image and has our layout; anybody may attach others.
async fn candidate(
    registry: &mut Registry,
    descriptor: &Descriptor,
    subject: Digest,
) -> Outcome<Option<Candidate>> {
    if descriptor.media_type != IMAGE {
        return Ok(None);
    }
    let Some(bytes) = registry.manifest(&descriptor.digest.to_string()).await? else { return Ok(None) };
    if Digest::of(&bytes) != descriptor.digest {
        return Ok(None);
    }
    let Ok(image) = parse(&bytes) else { return Ok(None) };
    if image.subject.as_ref().map(|named| named.digest) != Some(subject) {
        return Ok(None);
    }
    let (manifest, sidecar) = match image.layers.as_slice() {
        [manifest] if manifest.media_type == MANIFEST => (manifest, None),
        [manifest, bundle] if manifest.media_type == MANIFEST && bundle.media_type == BUNDLE => {
            (manifest, Some(bundle))
        }
        _ => return Ok(None),
    };
    let sidecar = match sidecar {
        Some(bundle) => Some(registry.blob(bundle, MAX_BUNDLE_BYTES as u64).await?),
        None => None,
    };
    let manifest = registry.blob(manifest, MAX_MANIFEST_FILE_BYTES as u64).await?;
    Ok(Some(Candidate { manifest, sidecar }))
}

/// The first candidate that the verifier admits, as a release in a folder that nobody knows yet.
fn accepted(
    fetched: &Fetched,
    beside: &Path,
    pull: &Pull,
    home: &Home,
) -> Outcome<(Draft, Release, verify::Verdict)> {
    let mut first = None;
    for candidate in &fetched.candidates {
        match admit(fetched, candidate, beside, pull, home) {
            Ok(admitted) => return Ok(admitted),
            Err(failure) => {
                first.get_or_insert(failure);
            }
        }
    }
    Err(first.unwrap_or_else(|| Failure::failed("nothing is attached to the image")))
}

fn admit(
    fetched: &Fetched,
    candidate: &Candidate,
    beside: &Path,
    pull: &Pull,
    home: &Home,
) -> Outcome<(Draft, Release, verify::Verdict)> {
    let draft = Draft::below(beside)?;
    write_file(&draft.path().join(MANIFEST_FILE), &candidate.manifest, Secrecy::Public)?;
    let release = Release::open(draft.path(), Use::Verify)?;
    let own = Digest::of(release.manifest().canonical_json()).to_string();
    if fetched.manifest_digest.as_ref().is_some_and(|named| *named != own) {
        return Err(Failure::new(Exit::Denied, "the attached manifest is not the one that the image names")
            .code("manifest_mismatch")
            .hint("docs/operations/denials.md says what to do about each code"));
    }
    let name = release.module_name()?;
    if !fetched.module_name.is_empty() && fetched.module_name != name {
        return Err(Failure::new(
            Exit::Denied,
            format!("the manifest's module is {name}, the image holds {}", fetched.module_name),
        )
        .code("manifest_mismatch")
        .hint("docs/operations/denials.md says what to do about each code"));
    }
    write_file(&draft.path().join(&name), &fetched.module, Secrecy::Public)?;
    if let (Some(named), Some(bytes)) = (expected_sidecar(&release)?, &candidate.sidecar) {
        write_file(&draft.path().join(named), bytes, Secrecy::Public)?;
    }
    let verdict = verify::verify_release(&release, &fetched.module, &pull.verify, home)?;
    Ok((draft, release, verdict))
}

/// The name of the bundle's file that the manifest itself gives: what the registry calls it does not matter.
fn expected_sidecar(release: &Release) -> Outcome<Option<String>> {
    use trust_store::attestation::BundleSource;
    let Some(block) = release.file.block() else { return Ok(None) };
    match block.bundle().or_fail(Exit::Denied, release.path().display())? {
        BundleSource::Inline(_) => Ok(None),
        BundleSource::Sidecar(name) => Ok(Some(name)),
    }
}

fn parse(bytes: &[u8]) -> Outcome<Image> {
    serde_json::from_slice(bytes).or_fail(Exit::Failure, "the registry's image manifest")
}
