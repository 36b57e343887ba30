//! Admission: the only door.
//!
//! ```text
//! bytes ─read─▶ Submission ─decide─▶ AdmissionVerdict::Admit(AdmittedModule) ─▶ code ─▶ instances
//!                                   └─▶ AdmissionVerdict::Deny(Denied)
//! ```
//!
//! [`Admission::decide`] hands the submission to `trust_store::Verifier`, whose fourteen steps need no network, and
//! intersects what the signed manifest asks for with what policy grants and this executor can provide. Only that
//! function makes an [`AdmittedModule`], and nothing else is compiled, loaded or run.

mod admitted;
mod content;
mod denied;
mod grants;
mod rollout;
mod rules;
mod signer_key;
mod succession;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use executor_engine::{ModuleDigest, Profile};
use trust_store::attestation::{Attestation, BundleSource};
use trust_store::capability::Capability;
use trust_store::capability_rules::Permitted;
use trust_store::error::Error;
use trust_store::evidence::Evidence;
use trust_store::identity::Identity;
use trust_store::manifest::{ENGINE, Manifest, Metering, Runtime};
use trust_store::policy::TrustLevel;
use trust_store::tier::beyond_ceiling;
use trust_store::verifier::{ArtifactDigest, VerifiedArtifact, Verifier};
use trust_store::{Denial, UnixTime};

pub use content::Content;
pub use denied::Denied;
pub(crate) use grants::Lookup;
#[cfg(feature = "scratch-files")]
pub(crate) use grants::SCRATCH;
pub use grants::{GrantSet, GrantSources, Refused};
pub use rollout::RuntimeRollout;
pub(crate) use rollout::is_named;
pub use rules::{NoRuleEngine, Rules};
pub(crate) use signer_key::SignerKey;
pub(crate) use succession::{Publisher, may_follow};
pub use trust_store::tier::Isolation;

use crate::containers::{ContainerBackend, NoEngine};
use crate::extensions::Tenant;
use crate::runtime::{AdmissionId, CallLimits, Lowered, Owner};

/// Largest manifest text, bytes.
pub(crate) const MAX_MANIFEST_TEXT: usize = 32 << 20;

/// What a judgement says at a time, in this crate's own tests.
#[cfg(test)]
pub(crate) type Ruling = Box<dyn Fn(UnixTime) -> Result<(), Denied> + Send + Sync>;

/// Uploaded bytes, read and not yet judged.
#[derive(Debug, Clone)]
pub struct Submission {
    digest: ModuleDigest,
    content: Content,
    module: Bytes,
    attestation: Arc<Attestation>,
}

/// The answer of the door.
#[must_use]
#[derive(Debug)]
pub enum AdmissionVerdict {
    /// It may run, with these grants and limits.
    Admit(Box<AdmittedModule>),
    /// It may not.
    Deny(Denied),
}

/// A module that passed every check. Only [`Admission::decide`] makes one.
#[derive(Debug, Clone)]
pub struct AdmittedModule {
    digest: ModuleDigest,
    content: Content,
    module: Bytes,
    owner: Arc<Owner>,
    grants: Arc<GrantSet>,
    limits: CallLimits,
    facts: Arc<Facts>,
    level: TrustLevel,
    signer: SignerKey,
    policy: [u8; 32],
}

/// What was verified about a module, for answers and audit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Version of the signed manifest.
    pub version: String,
    /// Issuer that vouched for the signer's name; empty if the certificate does not say.
    pub issuer: String,
    /// Trust level reached.
    pub trust_level: &'static str,
    /// Index of the entry in the log.
    pub log_index: Option<u64>,
    /// Which rules of the policy permit which request, where it has rules.
    pub permitted: Vec<Permitted>,
}

/// The door: verifier, policy and what this executor can provide.
pub struct Admission {
    verifier: Verifier,
    rules: ArcSwap<Rules>,
    sources: GrantSources,
    limits: CallLimits,
    profile: Profile,
    rollout: RuntimeRollout,
    containers: Arc<dyn ContainerBackend>,
    /// Why modules of signers that are not trusted do not run here, if they do not.
    no_workers: Option<String>,
    /// What the next judgements say, of uploads and of admitted modules, in this crate's own tests.
    #[cfg(test)]
    pub(crate) ruling: parking_lot::Mutex<Option<Ruling>>,
}

impl Submission {
    /// Step 1 on everything that came with an upload: sizes, kinds, shapes.
    ///
    /// # Errors
    ///
    /// `too_large`, `malformed`, `unsupported`, `engine_not_supported`, or `native_code_refused` for machine code;
    /// `digest_mismatch` for an image that the manifest does not name.
    pub fn read(manifest: &str, attestation: Option<&str>, module: Bytes) -> Result<Self, Denied> {
        use executor_engine::limits::MAX_MODULE_BYTES;
        if module.len() > MAX_MODULE_BYTES {
            return Err(Denied::in_step(
                1,
                "too_large",
                format!("a module has at most {MAX_MODULE_BYTES} bytes"),
            ));
        }
        if manifest.len() > MAX_MANIFEST_TEXT {
            let text = format!("a manifest with its attestation has at most {MAX_MANIFEST_TEXT} bytes");
            return Err(Denied::in_step(1, "too_large", text));
        }
        let (document, block) =
            trust_store_files::manifest_file::parse(manifest.as_bytes()).map_err(unreadable)?;
        let content = Content::read(&document, &module)?;
        let Some(block) = block else {
            let text = "the manifest has no attestation block; sign it with `mentatctl sign`";
            return Err(Denied::in_step(1, "malformed", text));
        };
        let bundle = match (block.bundle().map_err(Denial::from)?, attestation) {
            (BundleSource::Inline(bundle), None) => bundle,
            (BundleSource::Sidecar(_), Some(sidecar)) => sidecar.as_bytes().to_vec(),
            (BundleSource::Inline(_), Some(_)) => {
                let text = "the manifest carries its bundle and another one came beside it; send one of them";
                return Err(Denied::in_step(1, "malformed", text));
            }
            (BundleSource::Sidecar(name), None) => {
                let text =
                    format!("the manifest names the bundle file {name}; send its content as `attestation`");
                return Err(Denied::in_step(1, "malformed", text));
            }
        };
        let attestation = Attestation::for_manifest(document, &block, &bundle)?;
        Ok(Self { digest: ModuleDigest::of(&module), content, module, attestation: Arc::new(attestation) })
    }

    /// SHA-256 of the module's bytes as they came.
    pub fn digest(&self) -> ModuleDigest {
        self.digest
    }

    /// What it is made of, read and not verified.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Agent id of the manifest, read and not verified.
    pub fn agent(&self) -> &str {
        self.attestation.manifest().map_or("", |manifest| manifest.id().as_str())
    }

    /// Who its certificate says signed it, read and not verified; `None` if it says nothing that could be accepted.
    pub(crate) fn publisher(&self) -> Option<Publisher> {
        let identity = Identity::of_certificate(self.attestation.certificate()?).ok()?;
        Some(Publisher::new(identity.subject(), identity.issuer().unwrap_or_default()))
    }

    /// The attestation, read and not verified.
    pub fn attestation(&self) -> &Arc<Attestation> {
        &self.attestation
    }
}

impl Admission {
    /// A door with these rules. Nothing weaker exists here: no argument of [`Self::decide`] lowers them.
    pub fn new(
        verifier: Verifier,
        rules: Rules,
        sources: GrantSources,
        limits: CallLimits,
        profile: Profile,
    ) -> Self {
        Self {
            verifier,
            rules: ArcSwap::from_pointee(rules),
            sources,
            limits,
            profile,
            rollout: RuntimeRollout::default(),
            containers: Arc::new(NoEngine),
            no_workers: Some("this executor has no worker processes".into()),
            #[cfg(test)]
            ruling: parking_lot::Mutex::default(),
        }
    }

    /// Ceilings of every call.
    pub(crate) fn limits(&self) -> &CallLimits {
        &self.limits
    }

    /// Runs only these agents as WebAssembly.
    #[must_use]
    pub fn with_rollout(self, rollout: RuntimeRollout) -> Self {
        Self { rollout, ..self }
    }

    /// Lets this engine run containers.
    #[must_use]
    pub fn with_containers(self, containers: Arc<dyn ContainerBackend>) -> Self {
        Self { containers, ..self }
    }

    /// What runs containers.
    pub(crate) fn containers(&self) -> &Arc<dyn ContainerBackend> {
        &self.containers
    }

    /// Admits modules of signers that are not trusted, unless something is missing.
    #[must_use]
    pub fn with_workers(self, missing: Option<&str>) -> Self {
        Self { no_workers: missing.map(str::to_owned), ..self }
    }

    /// SHA-256 of the policy in force.
    pub fn policy_digest(&self) -> [u8; 32] {
        self.rules.load().digest()
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Puts other rules into force: every decision that begins from here on is by them.
    pub(crate) fn replace(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// The last release of an agent was unloaded.
    pub(crate) fn forget(&self, agent: &str) {
        self.sources.extensions.forget(agent);
    }

    /// Judges a submission by the evidence at hand. Pure computation, about a millisecond.
    pub fn decide(&self, submission: &Submission, evidence: &Evidence, now: UnixTime) -> AdmissionVerdict {
        match self.judge(submission, evidence, now) {
            Ok(admitted) => AdmissionVerdict::Admit(Box::new(admitted)),
            Err(denied) => AdmissionVerdict::Deny(denied),
        }
    }

    /// Judges again what was admitted before: the same verification on the same attestation, by newer evidence or by
    /// other rules. What reaches less than the
    /// `level` it was admitted at has to be loaded again: what it has, and where it runs, is decided there.
    pub(crate) fn recheck(
        &self,
        rules: &Rules,
        digest: ModuleDigest,
        attestation: &Attestation,
        level: TrustLevel,
        evidence: &Evidence,
        now: UnixTime,
    ) -> Result<(), Denied> {
        #[cfg(test)]
        if let Some(ruling) = self.ruling.lock().as_ref() {
            return ruling(now);
        }
        let artifact = ArtifactDigest::sha256(digest.0);
        let verified = self.verifier.verify(attestation, artifact, rules.policy(), evidence, now)?;
        let reached = verified.trust_level();
        if reached < level {
            let text =
                format!("it was loaded at the level `{level}` and reaches `{reached}` now; load it again");
            return Err(Denied::in_step(13, "trust_level", text));
        }
        Ok(())
    }

    fn judge(
        &self,
        submission: &Submission,
        evidence: &Evidence,
        now: UnixTime,
    ) -> Result<AdmittedModule, Denied> {
        #[cfg(test)]
        if let Some(ruling) = self.ruling.lock().as_ref() {
            return ruling(now).map(|()| submission.admitted_for_test());
        }
        let artifact = ArtifactDigest::sha256(submission.digest.0);
        let rules = self.rules.load();
        let verified =
            self.verifier.verify(&submission.attestation, artifact, rules.policy(), evidence, now)?;
        let Some(manifest) = verified.manifest() else {
            return Err(Denied::in_step(2, "manifest_mismatch", "an agent runs with a signed manifest only"));
        };
        let level = verified.trust_level();
        self.tier_runs(level)?;
        self.runtime_fits(manifest)?;
        submission.content.speaks(manifest.wasm().wasi)?;
        let own_env: Vec<(String, String)> = manifest
            .wasm()
            .env
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.clone()))
            .collect();
        let requested = verified.requested_capabilities().to_vec();
        let own =
            |name: &str| !self.sources.env.contains_key(name) && own_env.iter().any(|(own, _)| own == name);
        for request in &requested {
            if let Some(why) = beyond_ceiling(level, request, own, |path| self.sources.is_scratch(path)) {
                let refused = Refused { capability: request.clone(), why, code: "capability_denied" };
                return Err(Denied::in_step(14, refused.code, refused.to_string()));
            }
        }
        let limits = self.limits.lowered(limits_of(manifest, &requested));
        memory_suffices(manifest, &limits)?;
        let grants = self
            .sources
            .grant(rules.granted(), requested, &own_env)
            .map_err(|refused| Denied::in_step(14, refused.code, refused.to_string()))?
            .of_tenant(Tenant {
                agent: manifest.id().as_str().to_owned(),
                signer: verified.identity().subject().to_owned(),
                issuer: verified.issuer().unwrap_or_default().to_owned(),
            });
        Ok(AdmittedModule {
            digest: submission.digest,
            content: submission.content.clone(),
            module: submission.module.clone(),
            owner: Arc::new(Owner {
                admission: AdmissionId::next(),
                agent: manifest.id().as_str().to_owned(),
                digest: submission.digest,
                signer: verified.identity().subject().to_owned(),
            }),
            facts: Arc::new(Facts::of(&verified, manifest)),
            level,
            signer: SignerKey::of(&verified),
            grants: Arc::new(grants),
            limits,
            policy: rules.digest(),
        })
    }

    /// What would have to run where this host cannot confine it does not run.
    fn tier_runs(&self, level: TrustLevel) -> Result<(), Denied> {
        match (Isolation::of(level), &self.no_workers) {
            (Isolation::WorkerOfSigner, Some(why)) => {
                let text =
                    format!("modules of the level `{level}` run in worker processes, and none run here");
                Err(Denied::in_step(13, "tier_unavailable", text).for_operator(why.clone()))
            }
            (Isolation::WorkerOfSigner, None) | (Isolation::SharedProcess, _) => Ok(()),
        }
    }

    fn runtime_fits(&self, manifest: &Manifest) -> Result<(), Denied> {
        match manifest.runtime() {
            Runtime::Wasm if !self.rollout.includes(manifest.id().as_str()) => {
                let text =
                    "the rollout keeps this agent in a container; no container engine is configured here";
                return Err(Denied::new("container_engine_unavailable", text));
            }
            Runtime::Pipeline | Runtime::Wasm => {}
            container @ (Runtime::Java(_) | Runtime::Node(_) | Runtime::Python(_)) => {
                self.containers.available(container)?;
            }
        }
        match (manifest.wasm().metering, self.profile) {
            (Metering::Epoch, _) | (Metering::Deterministic, Profile::Deterministic) => Ok(()),
            (Metering::Deterministic, Profile::Standard | Profile::Large) => {
                let text =
                    "the manifest demands deterministic metering, and this executor runs another profile";
                Err(Denied::new("profile_unavailable", text))
            }
        }
    }
}

impl Facts {
    fn of(verified: &VerifiedArtifact, manifest: &Manifest) -> Self {
        Self {
            version: manifest.version().as_str().to_owned(),
            issuer: verified.issuer().unwrap_or_default().to_owned(),
            trust_level: verified.trust_level().as_str(),
            log_index: verified.log_index(),
            permitted: verified.permitted_by_rules().to_vec(),
        }
    }
}

/// A manifest that cannot be read. That an engine is not offered is a reason of its own, for whoever chose it knows it.
fn unreadable(error: Error) -> Denied {
    match &error {
        Error::Unsupported { what: ENGINE, .. } => {
            Denied::in_step(1, "engine_not_supported", error.to_string())
        }
        _ => Denial::from(error).into(),
    }
}

/// Whether a guest may have the memory that its manifest demands for the start, whoever lowered the limit.
fn memory_suffices(manifest: &Manifest, limits: &CallLimits) -> Result<(), Denied> {
    let Some(initial) = manifest.wasm().memory.initial_mb else { return Ok(()) };
    if mib(initial) <= limits.memory {
        return Ok(());
    }
    let text = format!(
        "the manifest demands {initial} MiB of memory at the start, and a call may use {} MiB here",
        limits.memory >> 20
    );
    Err(Denied::new("memory_limit", text))
}

fn mib(mb: u32) -> usize {
    usize::try_from(u64::from(mb) << 20).unwrap_or(usize::MAX)
}

/// What the signed manifest lowers.
fn limits_of(manifest: &Manifest, requested: &[Capability]) -> Lowered {
    let mut lowered = Lowered { memory: manifest.wasm().memory.maximum_mb.map(mib), ..Lowered::default() };
    for capability in requested {
        if let Capability::Compute(asked) = capability {
            let memory = asked.memory_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            lowered.memory = smaller(lowered.memory, memory);
            lowered.cpu = smaller(lowered.cpu, asked.cpu_ms.map(Duration::from_millis));
            lowered.wall = smaller(lowered.wall, asked.wall_ms.map(Duration::from_millis));
        }
    }
    lowered
}

fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_a_manifest_demands_and_nobody_gives_is_a_refusal() {
        let text =
            r#"{"id":"a","module":"m","runtime":"wasm","version":"1.0.0","wasm":{"memory":{"initial":16}}}"#;
        let manifest = Manifest::from_json(text.as_bytes()).unwrap();
        let of = |mib: usize| CallLimits { memory: mib << 20, ..CallLimits::default() };
        assert_eq!(memory_suffices(&manifest, &of(16)), Ok(()));
        let refused = memory_suffices(&manifest, &of(15)).unwrap_err();
        assert_eq!((refused.step, refused.code), (0, "memory_limit"));
        let silent = Manifest::from_json(text.replace(r#""initial":16"#, "").as_bytes()).unwrap();
        assert_eq!(memory_suffices(&silent, &of(1)), Ok(()));
    }
}
