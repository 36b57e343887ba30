//! Doors for the bench, past the queue, the audit record and the renewed verdict around a call. What they reach was
//! admitted all the same: there is no way from bytes to code here.

use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Store};

use crate::executor::Executor;
use crate::runtime::{Call, CallError, Code, GuestState, Prepared, Runtime};

/// An instance that ended its work and is kept.
pub struct DangerLive {
    _store: Store<GuestState>,
}

impl Executor {
    /// The prepared code of a loaded agent. `Runtime::call` with it is the function that a call through the executor
    /// ends in.
    pub fn danger_prepared(&self, name: &str) -> Option<Arc<Prepared>> {
        self.agent(name).map(|agent| Arc::clone(&agent.prepared))
    }

    /// The engine's owner.
    pub fn danger_runtime(&self) -> &Arc<Runtime> {
        self.runtime()
    }
}

impl Runtime {
    /// The engine, for comparisons with bare wasmtime under the same settings.
    pub fn danger_engine(&self) -> &Engine {
        self.engine()
    }

    /// Calls once and keeps the instance.
    ///
    /// # Errors
    ///
    /// As `Runtime::call`.
    pub fn danger_call_and_keep(&self, prepared: &Prepared, call: Call) -> Result<DangerLive, CallError> {
        let registration = self.register(prepared, call.cancel.as_ref());
        let mut store = self.store(call, registration, crate::clock::monotonic(), None)?;
        self.run(prepared, &mut store).map_err(|error| *error)?;
        Ok(DangerLive { _store: store })
    }
}

impl Prepared {
    /// The loaded core module, if it is one.
    pub fn danger_module(&self) -> Option<&Module> {
        match &self.code {
            Code::Core(core) => Some(core.pre.module()),
            _ => None,
        }
    }

    /// The loaded component, if it is one.
    pub fn danger_component(&self) -> Option<&Component> {
        match &self.code {
            Code::Component(component) => Some(component.component()),
            Code::Container(_) | Code::Core(_) | Code::Pipeline(_) | Code::Worker(_) => None,
        }
    }
}
