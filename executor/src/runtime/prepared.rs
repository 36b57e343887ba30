//! A module that is ready to be instantiated: loaded, its imports checked, its functions linked.

use std::sync::Arc;

use executor_engine::ModuleDigest;
use executor_engine::limits::WASM_PAGE;
use trust_store::pipeline::Pipeline;
use wasmtime::{ExternType, InstancePre, Module, ModuleExport};

use super::calls::Calls;
use super::control::Owner;
use super::engine::Runtime;
use super::limits::CallLimits;
use super::state::GuestState;
use crate::abi::census;
use crate::admission::{AdmittedModule, Content, GrantSet};
use crate::artifact::Loaded;
use crate::component::AgentComponent;
use crate::containers::{AdmittedImage, ContainerBackend, ContainerImage};
use crate::queue::Share;
use crate::worker::RemoteModule;

/// A loaded module with its grants. Cheap to share; holds no guest state.
pub struct Prepared {
    pub(crate) calls: Arc<Calls>,
    pub(crate) code: Code,
}

/// What there is to run.
pub(crate) enum Code {
    /// A component over the world `mentat:agent`.
    Component(AgentComponent),
    /// An image, for whoever runs containers: it has no instance here.
    Container(ContainerImage),
    /// A core module on the `mentat` ABI.
    Core(CoreModule),
    /// Other releases, one after the other: it has no instance of its own.
    Pipeline(Arc<Pipeline>),
    /// Either kind, in the worker of its signer.
    Worker(RemoteModule),
}

pub(crate) struct CoreModule {
    pub(crate) pre: InstancePre<GuestState>,
    pub(crate) process: ModuleExport,
    pub(crate) memory: ModuleExport,
    pub(crate) initialize: Option<ModuleExport>,
}

const PROCESS: &str = "process: func() -> i32";
const MEMORY: &str = "memory: memory";
const INITIALIZE: &str = "_initialize: func()";

/// Every export that a guest may be refused for.
pub(crate) const EXPORTS: [&str; 4] = [PROCESS, MEMORY, INITIALIZE, crate::component::ENTRY];

/// Why a loaded module cannot be run under its grants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// An import has the name of a host function and another type.
    #[error("{name} has an unexpected signature: {hint}")]
    AbiSignatureMismatch {
        /// `module.name` of the import.
        name: String,
        /// What is expected, and where the difference is known to come from.
        hint: String,
    },
    /// A required export is missing or of another type.
    #[error("the module does not export {name}")]
    ExportMissing {
        /// The export with its type.
        name: &'static str,
    },
    /// It is something that this build leaves out.
    #[error("this executor was built without the feature `{feature}`")]
    FeatureNotBuilt {
        /// The cargo feature.
        feature: &'static str,
    },
    /// An import belongs to an interface that was not granted, or to none.
    #[error("the import {name} was not granted")]
    ImportNotGranted {
        /// `module.name` of the import.
        name: String,
    },
    /// The worker of its signer could not take it.
    #[error("the worker process of its signer did not take the module")]
    Worker {
        /// The stable reason code.
        code: &'static str,
        /// For the operator.
        detail: String,
    },
    /// The module needs more than one pool slot holds.
    #[error("the module needs more than the pool allows: {detail}")]
    PoolLimit {
        /// What the engine said.
        detail: String,
    },
}

impl PrepareError {
    /// The stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AbiSignatureMismatch { .. } => "abi_signature_mismatch",
            Self::ExportMissing { .. } => "export_missing",
            Self::FeatureNotBuilt { .. } => "feature_not_built",
            Self::ImportNotGranted { .. } => "import_not_granted",
            Self::PoolLimit { .. } => "pool_limit",
            Self::Worker { code, .. } => code,
        }
    }
}

impl Prepared {
    /// Checks and links the loaded code of an admitted module. Nothing of the guest runs.
    pub(crate) fn new(
        runtime: &Runtime,
        loaded: &Loaded,
        admitted: &AdmittedModule,
    ) -> Result<Self, PrepareError> {
        let (owner, grants) = (Arc::clone(admitted.owner()), Arc::clone(admitted.grants()));
        if let Loaded::Sealed(code) = loaded {
            let (limits, code) = (*admitted.limits(), Arc::clone(code));
            let absent =
                |why: &str| PrepareError::Worker { code: "tier_unavailable", detail: why.to_owned() };
            let workers = runtime.workers().map_err(absent)?;
            let module = workers.prepare(admitted.signer_key(), code, &limits, &grants)?;
            let calls = runtime.live().admission(owner, grants, limits);
            return Ok(Self { calls, code: Code::Worker(module) });
        }
        Self::linked(runtime, loaded, owner, grants, *admitted.limits())
    }

    /// Checks and links loaded code for instances in this process.
    pub(crate) fn linked(
        runtime: &Runtime,
        loaded: &Loaded,
        owner: Arc<Owner>,
        grants: Arc<GrantSet>,
        limits: CallLimits,
    ) -> Result<Self, PrepareError> {
        match loaded {
            Loaded::Core(module) => Self::core(runtime, module, owner, grants, limits),
            Loaded::Component(component) => {
                let linkers = runtime.component_linkers();
                let component = AgentComponent::prepare(runtime.engine(), linkers, component, &grants)?;
                let calls = runtime.live().admission(owner, grants, limits);
                Ok(Self { calls, code: Code::Component(component) })
            }
            Loaded::Sealed(_) => Err(PrepareError::Worker {
                code: "internal",
                detail: "code of a worker is not mapped in this process".into(),
            }),
        }
    }

    /// Places for calls that it shares with others: those of its worker.
    pub(crate) fn share(&self) -> Arc<Share> {
        match &self.code {
            Code::Worker(module) => module.share(),
            Code::Component(_) | Code::Container(_) | Code::Core(_) | Code::Pipeline(_) => Arc::default(),
        }
    }

    /// What is admitted and has no code of this process.
    pub(crate) fn without_code(
        runtime: &Runtime,
        admitted: &AdmittedModule,
        containers: &Arc<dyn ContainerBackend>,
    ) -> Option<Self> {
        let code = match (admitted.content(), AdmittedImage::of(admitted)) {
            (Content::Pipeline(pipeline), _) => Code::Pipeline(Arc::clone(pipeline)),
            (_, Some(image)) => Code::Container(ContainerImage { image, backend: Arc::clone(containers) }),
            (_, None) => return None,
        };
        let (owner, grants) = (Arc::clone(admitted.owner()), Arc::clone(admitted.grants()));
        let calls = runtime.live().admission(owner, grants, *admitted.limits());
        Some(Self { calls, code })
    }

    fn core(
        runtime: &Runtime,
        module: &Module,
        owner: Arc<Owner>,
        grants: Arc<GrantSet>,
        limits: CallLimits,
    ) -> Result<Self, PrepareError> {
        let interfaces = census::check_imports(module, &grants)?;
        let process = export(module, "process", PROCESS, |ty| {
            ty.func().is_some_and(|func| {
                func.params().len() == 0
                    && func.results().len() == 1
                    && func.results().all(|result| result.is_i32())
            })
        })?;
        let memory = export(module, "memory", MEMORY, |ty| {
            ty.memory().is_some_and(|memory| !memory.is_shared() && !memory.is_64())
        })?;
        let initial = module.get_export("memory").and_then(|ty| ty.memory().map(|memory| memory.minimum()));
        if initial.is_some_and(|pages| pages.saturating_mul(WASM_PAGE as u64) > limits.memory as u64) {
            return Err(PrepareError::PoolLimit {
                detail: format!("it starts with more memory than its limit of {} bytes", limits.memory),
            });
        }
        let initialize = match module.get_export("_initialize") {
            None => None,
            Some(_) => Some(export(module, "_initialize", INITIALIZE, |ty| {
                ty.func().is_some_and(|func| func.params().len() == 0 && func.results().len() == 0)
            })?),
        };
        let pre = runtime
            .core_linkers()
            .instantiate_pre(interfaces, module)
            .map_err(|error| PrepareError::PoolLimit { detail: format!("{error:#}") })?;
        let calls = runtime.live().admission(owner, grants, limits);
        Ok(Self { calls, code: Code::Core(CoreModule { pre, process, memory, initialize }) })
    }

    /// Whose module it is.
    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.calls.owner
    }

    /// What policy granted it.
    pub(crate) fn grants(&self) -> &Arc<GrantSet> {
        &self.calls.grants
    }

    /// The pipeline, if it is one.
    pub(crate) fn pipeline(&self) -> Option<&Arc<Pipeline>> {
        match &self.code {
            Code::Pipeline(pipeline) => Some(pipeline),
            Code::Component(_) | Code::Container(_) | Code::Core(_) | Code::Worker(_) => None,
        }
    }

    /// Ceilings of every call.
    pub(crate) fn limits(&self) -> &CallLimits {
        &self.calls.limits
    }

    /// Digest of the module.
    pub fn digest(&self) -> ModuleDigest {
        self.calls.owner.digest
    }

    /// Agent id of the signed manifest.
    pub fn agent(&self) -> &str {
        &self.calls.owner.agent
    }
}

fn export(
    module: &Module,
    name: &str,
    described: &'static str,
    fits: impl FnOnce(&ExternType) -> bool,
) -> Result<ModuleExport, PrepareError> {
    module
        .get_export(name)
        .filter(fits)
        .and_then(|_| module.get_export_index(name))
        .ok_or(PrepareError::ExportMissing { name: described })
}
