//! Validation and translation of one module.

use std::hash::{Hash as _, Hasher};

use executor_engine::job::{JobHeader, ModuleKind, RefusalCode};
use executor_engine::{ModuleDigest, Profile, engine_config, limits};
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, Module, OptLevel, Strategy};

use crate::adapt::to_component;

/// The architecture this worker makes code for: its own (the operating system is Linux).
pub(crate) const TARGET: &str = std::env::consts::ARCH;

/// One engine for each profile, made before the sandbox closes.
pub(crate) struct Compilers {
    engines: Vec<(Profile, Engine)>,
}

/// A finished translation.
pub(crate) struct Compiled {
    pub(crate) artifact: Vec<u8>,
    pub(crate) compatibility: [u8; 32],
}

/// A module that is not translated.
pub(crate) struct Refusal {
    pub(crate) code: RefusalCode,
    pub(crate) detail: String,
}

impl Compilers {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut engines = Vec::new();
        for profile in Profile::ALL {
            let mut config = engine_config(profile);
            config
                .strategy(Strategy::Cranelift)
                .cranelift_opt_level(OptLevel::Speed)
                // The same input gives the same bits on every machine, for a few percent of float-heavy code.
                .cranelift_nan_canonicalization(true);
            let engine = Engine::new(&config).map_err(|e| anyhow::anyhow!("engine settings: {e:#}"))?;
            engines.push((profile, engine));
        }
        Ok(Self { engines })
    }

    pub(crate) fn compile(&self, header: &JobHeader, module: &[u8]) -> Result<Compiled, Refusal> {
        let refuse = |code, detail: String| Err(Refusal { code, detail });
        // Order matters: size, then identity, then kind, and only then a parser.
        if module.len() > limits::MAX_MODULE_BYTES {
            return refuse(RefusalCode::InvalidModule, "module is larger than 64 MiB".into());
        }
        if ModuleDigest::of(module) != header.digest {
            return refuse(RefusalCode::DigestMismatch, "bytes are not those of the job".into());
        }
        if module.starts_with(b"\x7fELF") || Engine::detect_precompiled(module).is_some() {
            return refuse(
                RefusalCode::NativeCodeRefused,
                "machine code is made here and nowhere else".into(),
            );
        }
        if ModuleKind::of(module) != Some(header.kind) {
            return refuse(RefusalCode::InvalidModule, "not a WebAssembly binary of the stated kind".into());
        }
        let Some((_, engine)) = self.engines.iter().find(|(profile, _)| *profile == header.profile) else {
            return refuse(RefusalCode::Internal, "unknown profile".into());
        };
        let outcome = match header.kind {
            ModuleKind::Component => engine.precompile_component(module),
            // Nothing but the validator looks at what it has not accepted.
            ModuleKind::Core => match Module::validate(engine, module).map(|()| to_component(module)) {
                Err(error) => Err(error),
                Ok(Ok(None)) => engine.precompile_module(module),
                Ok(Ok(Some(component))) => engine.precompile_component(&component),
                Ok(Err(error)) => {
                    let detail = format!("the module cannot be made a component: {error:#}");
                    return refuse(RefusalCode::InvalidModule, detail);
                }
            },
        };
        match outcome {
            Ok(artifact) if artifact.len() > limits::MAX_ARTIFACT_BYTES => {
                refuse(RefusalCode::InvalidModule, "the compiled module is larger than 256 MiB".into())
            }
            Ok(artifact) => Ok(Compiled { artifact, compatibility: compatibility(engine) }),
            // The text names section and offset; it is made from the module and travels to operators only.
            Err(error) => refuse(RefusalCode::InvalidModule, format!("{error:#}")),
        }
    }
}

/// SHA-256 over the values that wasmtime feeds to a hasher to describe compatible compilers.
fn compatibility(engine: &Engine) -> [u8; 32] {
    struct Sink(Sha256);
    impl Hasher for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0 // never asked for: the whole digest is taken below
        }
    }
    let mut sink = Sink(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sink);
    sink.0.finalize().into()
}
