//! Releases in OCI registries: what `publish --to oci://…` stores and `pull` fetches. A registry is a shelf, not an authority:
//! what is stored was verified before, and what is fetched is verified before anybody finds it.

mod credentials;
mod layout;
mod pull;
mod reference;
mod registry;

pub use pull::{Pull, run as pull};
pub use reference::{Reference, SCHEME};

use reqwest::Client;
use serde_json::json;

use self::layout::{Descriptor, bundle_referrer, image, manifest_referrer};
use self::reference::{Digest, Version, tag_of};
use self::registry::{Access, Registry};
use crate::exit::{Exit, Failure, Outcome};
use crate::net::block_on;
use crate::output::{Output, Tone};
use crate::release::{MANIFEST_FILE, Release};

/// Stores a verified release under the tag of its version. The tag is set last: it never names a release whose evidence is
/// not there yet.
///
/// # Errors
/// Exit code 1 when the tag names another release already, or the registry refuses; 69 when it cannot be reached.
pub fn publish(
    release: &Release,
    module: &[u8],
    to: &Reference,
    http: Client,
    signer: &str,
    out: &Output,
) -> Outcome {
    let version = release.manifest().version().as_str();
    let tag = match &to.version {
        Version::Tag(tag) => tag.clone(),
        Version::Unnamed => tag_of(version)
            .ok_or_else(|| Failure::usage(format!("`{version}` is too long for a tag")).hint("name one"))?,
        Version::Digest(_) => {
            return Err(Failure::usage("a digest cannot be published, it follows from what is published")
                .hint("give a tag, or none"));
        }
    };
    let image = image(release.manifest(), &release.module_name()?, module)?;
    let subject = &image.descriptor;
    let sidecar = release.sidecar()?;
    let sidecar = sidecar.as_ref().map(|(name, text)| (name.as_str(), text.as_bytes()));
    let attestation = release.attestation()?;
    let evidence = [
        bundle_referrer(subject, attestation.bundle())?,
        manifest_referrer(subject, (MANIFEST_FILE, release.text.as_bytes()), sidecar)?,
    ];
    let mut registry = Registry::new(http, to, Access::Push)?;
    let spinner = out.spinner(format!("publishing {}", release.manifest().id()));
    block_on(async {
        if let Some(there) = registry.manifest(&tag).await?
            && Digest::of(&there) != subject.digest
        {
            return Err(Failure::failed(format!(
                "{}/{}:{tag} is published already, with other content",
                to.registry, to.repository
            ))
            .hint("raise the version in the manifest, sign again, publish that"));
        }
        registry.push(&image).await?;
        for document in &evidence {
            registry.attach(subject.digest, document).await?;
        }
        registry.tag(&tag, &image).await
    })?;
    drop(spinner);
    let published = Reference { version: Version::Digest(subject.digest), ..to.clone() };
    out.line(format!("{} {published}, tag {tag}", out.paint(Tone::Good, "published")));
    out.value(|| json!({ "ok": true, "reference": published.to_string(), "tag": tag, "digest": subject.digest.to_string(),
        "referrers": evidence.iter().map(|document| document.descriptor.digest.to_string()).collect::<Vec<_>>(),
        "agent": release.manifest().id().as_str(), "version": version, "signer": signer }));
    Ok(Exit::Ok)
}

/// The only layer of an image, if it is of this type.
fn only_layer<'a>(layers: &'a [Descriptor], media_type: &str) -> Option<&'a Descriptor> {
    match layers {
        [only] if only.media_type == media_type => Some(only),
        _ => None,
    }
}
