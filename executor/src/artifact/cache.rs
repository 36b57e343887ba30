//! The authenticated cache of machine code.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use executor_engine::artifact::{MAX_HEAD, RecordHead, TAG_SIZE};
use executor_engine::job::ModuleKind;
use executor_engine::limits::MAX_ARTIFACT_BYTES;
use executor_engine::{ModuleDigest, Profile, WASMTIME_VERSION, engine_config, host_features};
use wasmtime::Engine;

use super::Loaded;
use super::flights::Flights;
use super::key::{self, KeyError};
use super::refusals::Refusals;
use super::worker::{Artifact, Worker, WorkerError};
use crate::admission::{AdmittedModule, Content, Isolation};
use crate::artifact_map::{SealError, Sealed};
use crate::clock;

/// Machine code on disk, believed only with this node's tag.
pub struct ArtifactCache {
    directory: PathBuf,
    key: hmac::Key,
    cpu: String,
    worker: Worker,
    max_bytes: u64,
    flights: Flights,
    refused: Refusals,
}

/// What the cache did for one load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEvent {
    /// The record on disk was genuine.
    Hit,
    /// There was none; the module was compiled.
    Compiled,
    /// There was one that is not believed; it was removed and the module was compiled.
    Replaced {
        /// Why the record was not believed.
        why: String,
    },
}

/// Why code could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The engine refused code that the worker made; the two binaries differ.
    #[error(
        "the engine refused freshly compiled code (are executor and executor-compiler of one build?): {detail}"
    )]
    Engine {
        /// What the engine said.
        detail: String,
    },
    /// The host could not store or map code.
    #[error("machine code cannot be stored or mapped")]
    Host(#[source] std::io::Error),
    /// What was admitted is no WebAssembly, so that there is nothing to compile.
    #[error("a {kind} has no machine code")]
    NoModule {
        /// What it is.
        kind: &'static str,
    },
    /// The module needs more of something than one slot of this executor's pool has.
    #[error("the module needs more than one slot of the pool holds")]
    Pool {
        /// What the engine said.
        detail: String,
    },
    /// Compiling failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl LoadError {
    /// The stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Engine { .. } => "engine_mismatch",
            Self::Host(_) | Self::NoModule { .. } => "internal",
            Self::Pool { .. } => "pool_limit",
            Self::Worker(error) => error.code(),
        }
    }
}

/// A module with what is called and a memory. Without a function there would be no code to map.
const SMALLEST_AGENT: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x05\x01\x60\0\x01\x7f\
    \x03\x02\x01\0\
    \x05\x03\x01\0\x01\
    \x07\x14\x02\x06memory\x02\0\x07process\0\0\
    \x0a\x06\x01\x04\0\x41\0\x0b";

impl ArtifactCache {
    /// Opens the cache below `state`: records in `state/artifacts`, the key beside the folder, not in it.
    pub fn open(state: &Path, worker: Worker, max_bytes: u64) -> Result<Self, KeyError> {
        let directory = state.join("artifacts");
        std::fs::create_dir_all(&directory)
            .map_err(|source| KeyError::File { path: directory.clone(), source })?;
        Ok(Self {
            directory,
            key: key::open_or_create(&state.join("artifacts.key"))?,
            cpu: host_features(),
            worker,
            max_bytes,
            flights: Flights::default(),
            refused: Refusals::default(),
        })
    }

    /// Loads the code of an admitted module, compiling it if need be.
    pub(crate) async fn load(
        &self,
        engine: &Engine,
        profile: Profile,
        admitted: &AdmittedModule,
    ) -> Result<(Loaded, CacheEvent), LoadError> {
        let &Content::Module(kind) = admitted.content() else {
            return Err(LoadError::NoModule { kind: admitted.content().as_str() });
        };
        let digest = admitted.digest();
        let flight = self.flights.join(digest);
        let _turn = flight.turn().await;
        let place = Place { engine, profile, isolation: admitted.isolation() };
        self.load_alone(&place, kind, admitted).await
    }

    async fn load_alone(
        &self,
        place: &Place<'_>,
        kind: ModuleKind,
        admitted: &AdmittedModule,
    ) -> Result<(Loaded, CacheEvent), LoadError> {
        let (profile, digest) = (place.profile, admitted.digest());
        let path = self.path(digest, profile);
        let event = match self.open_record(&path, digest, kind, profile) {
            Ok(None) => CacheEvent::Compiled,
            Ok(Some(sealed)) => match place.put(sealed, kind) {
                Ok(loaded) => {
                    touch(&path);
                    return Ok((loaded, CacheEvent::Hit));
                }
                Err(error) => CacheEvent::Replaced { why: format!("{error:#}") },
            },
            Err(why) => CacheEvent::Replaced { why },
        };
        if matches!(event, CacheEvent::Replaced { .. }) {
            // Whatever it was, it is not loaded; a copy for the curious would be one more thing to misuse.
            let _ = std::fs::remove_file(&path);
        }
        if let Some(known) = self.refused.of(digest, clock::monotonic()) {
            return Err(known.into());
        }
        let artifact = self
            .worker
            .compile(Some(admitted.signer_key()), profile, kind, digest, admitted.module())
            .await
            .inspect_err(|error| self.refused.remember(digest, error, clock::monotonic()))?;
        let (loaded, head, tag) = self.seal_and_map(&artifact, digest, kind, place)?;
        self.publish(&path, &[&head, &artifact.code, &tag]).map_err(LoadError::Host)?;
        self.evict();
        Ok((loaded, event))
    }

    /// Tries the whole way once, on the smallest agent and the smallest component there are: worker, tag, sealed file, mapping.
    /// Nothing is kept; the agent's code is handed out, for whoever is to map it elsewhere.
    ///
    /// # Errors
    ///
    /// What would have failed at the first load: no worker, a worker of another build, a sandbox that leaks or that
    /// forbids too much.
    pub(crate) async fn self_test(
        &self,
        engine: &Engine,
        profile: Profile,
    ) -> Result<Arc<Sealed>, LoadError> {
        self.worker.self_test().await?;
        let place = |isolation| Place { engine, profile, isolation };
        let try_whole = async |kind, module: &[u8]| {
            let digest = ModuleDigest::of(module);
            let artifact = self.worker.compile(None, profile, kind, digest, module).await?;
            self.seal_and_map(&artifact, digest, kind, &place(Isolation::SharedProcess))?;
            Ok::<_, LoadError>((artifact, digest))
        };
        try_whole(ModuleKind::Component, b"\0asm\x0d\0\x01\0").await?;
        let (artifact, digest) = try_whole(ModuleKind::Core, SMALLEST_AGENT).await?;
        let elsewhere = place(Isolation::WorkerOfSigner);
        match self.seal_and_map(&artifact, digest, ModuleKind::Core, &elsewhere)?.0 {
            Loaded::Sealed(sealed) => Ok(sealed),
            Loaded::Component(_) | Loaded::Core(_) => {
                Err(LoadError::Engine { detail: "code for a worker was mapped here".into() })
            }
        }
    }

    /// Forgets the code of a module, for example because it was revoked.
    pub fn purge(&self, digest: ModuleDigest) {
        for profile in Profile::ALL {
            let _ = std::fs::remove_file(self.path(digest, profile));
        }
        self.refused.forget(digest);
    }

    /// Whether a module was refused for what it is, so that it will not be compiled again.
    pub fn remembers_refusal(&self, digest: ModuleDigest) -> bool {
        self.refused.of(digest, clock::monotonic()).is_some()
    }

    fn seal_and_map(
        &self,
        artifact: &Artifact,
        digest: ModuleDigest,
        kind: ModuleKind,
        place: &Place<'_>,
    ) -> Result<(Loaded, Vec<u8>, [u8; TAG_SIZE]), LoadError> {
        let (head, tag) = self.authenticate(artifact, digest, kind, place.profile);
        let (mut code, length) = (artifact.code.as_slice(), artifact.code.len() as u64);
        let sealed = Sealed::authenticate(&head, &mut code, length, &tag, &self.key)
            .map_err(|error| LoadError::Host(std::io::Error::other(error)))?;
        let loaded = place.put(sealed, kind).map_err(|error| {
            let detail = format!("{error:#}");
            let again = Sealed::authenticate(&head, &mut artifact.code.as_slice(), length, &tag, &self.key);
            if again.is_ok_and(|sealed| place.fits_without_pool(sealed, kind)) {
                LoadError::Pool { detail }
            } else {
                LoadError::Engine { detail }
            }
        })?;
        Ok((loaded, head, tag))
    }

    fn path(&self, digest: ModuleDigest, profile: Profile) -> PathBuf {
        self.directory.join(format!("{digest}.{}", profile.id()))
    }

    fn authenticate(
        &self,
        artifact: &Artifact,
        digest: ModuleDigest,
        kind: ModuleKind,
        profile: Profile,
    ) -> (Vec<u8>, [u8; TAG_SIZE]) {
        let head = RecordHead {
            kind,
            digest,
            profile: profile.id().as_str().into(),
            wasmtime: WASMTIME_VERSION.into(),
            target: artifact.target.clone(),
            cpu: self.cpu.clone(),
            compatibility: artifact.compatibility,
            length: artifact.code.len() as u64,
        }
        .encode();
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&head);
        context.update(&artifact.code);
        let mut tag = [0u8; TAG_SIZE];
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        (head, tag)
    }

    /// `Ok(None)` when there is no record; `Err` says why one is not believed.
    fn open_record(
        &self,
        path: &Path,
        digest: ModuleDigest,
        kind: ModuleKind,
        profile: Profile,
    ) -> Result<Option<Sealed>, String> {
        let mut file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size > (MAX_ARTIFACT_BYTES + MAX_HEAD + TAG_SIZE) as u64 {
            return Err("the record is too large".into());
        }
        let mut start = Vec::with_capacity(MAX_HEAD);
        (&mut file).take(MAX_HEAD as u64).read_to_end(&mut start).map_err(|error| error.to_string())?;
        let (head, head_length) = RecordHead::decode(&start).map_err(|error| error.to_string())?;
        if size != head_length as u64 + head.length + TAG_SIZE as u64 {
            return Err("the record is truncated or has trailing bytes".into());
        }
        let (head_bytes, body_start) = start.split_at_checked(head_length).ok_or("the head is incomplete")?;
        let mut tag = [0u8; TAG_SIZE];
        {
            use std::os::unix::fs::FileExt as _;
            file.read_exact_at(&mut tag, size - TAG_SIZE as u64).map_err(|error| error.to_string())?;
        }
        let mut artifact = body_start.chain(&mut file).take(head.length);
        let sealed = Sealed::authenticate(head_bytes, &mut artifact, head.length, &tag, &self.key)
            .map_err(|error: SealError| error.to_string())?;
        // Genuine, but is it the one that was asked for? A copied file has a valid tag and another digest.
        head.expect(digest, kind, profile.id(), WASMTIME_VERSION, &self.cpu)
            .map_err(|error| error.to_string())?;
        Ok(Some(sealed))
    }

    fn publish(&self, path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
        let temporary = path.with_extension("new");
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
    }

    /// Removes the records that were used longest ago until the folder fits its limit.
    fn evict(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        let mut records: Vec<(std::time::SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let meta = entry.metadata().ok()?;
                Some((meta.modified().ok()?, meta.len(), entry.path()))
            })
            .collect();
        let mut total: u64 = records.iter().map(|(_, size, _)| size).sum();
        records.sort();
        for (_, size, path) in records {
            if total <= self.max_bytes {
                return;
            }
            if std::fs::remove_file(&path).is_ok() {
                total = total.saturating_sub(size);
            }
        }
    }
}

/// Makes a record the one that was used last. Times of access say nothing: most file systems keep them once a day or not at all. A
/// record whose time cannot be set makes room earlier than it should, and is compiled again.
fn touch(path: &Path) {
    let now = std::time::UNIX_EPOCH + Duration::from_nanos(clock::unix_nanos());
    let _ = std::fs::File::open(path).and_then(|record| record.set_modified(now));
}

/// Where code goes.
struct Place<'a> {
    engine: &'a Engine,
    profile: Profile,
    isolation: Isolation,
}

impl Place<'_> {
    fn put(&self, sealed: Sealed, kind: ModuleKind) -> wasmtime::Result<Loaded> {
        match (self.isolation, kind, sealed.holds_component()?) {
            (Isolation::WorkerOfSigner, ..) => Ok(Loaded::Sealed(Arc::new(sealed))),
            // A module over WASI preview 1 was adapted by the worker.
            (_, ModuleKind::Component, _) | (_, ModuleKind::Core, true) => {
                sealed.component(self.engine).map(Loaded::Component)
            }
            (_, ModuleKind::Core, false) => sealed.core(self.engine).map(Loaded::Core),
        }
    }

    /// Whether an engine that has no pool takes what this one refused: the code is of this build, and larger than a slot. The
    /// engine says so in its text alone.
    fn fits_without_pool(&self, sealed: Sealed, kind: ModuleKind) -> bool {
        let Ok(engine) = Engine::new(&engine_config(self.profile)) else { return false };
        Place { engine: &engine, ..*self }.put(sealed, kind).is_ok()
    }
}
