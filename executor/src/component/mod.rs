//! Components over the world `mentat:agent` (`executor/wit`).
//!
//! The same rules as for core modules, with types instead of pointers: an interface that was not granted is not
//! linked, every transfer has a limit, and a handle that dies with its instance stands for each granted thing.

mod bindings;
mod interfaces;
mod linker;

pub(crate) use bindings::AgentPre;
pub(crate) use linker::ComponentLinkers;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};
use wasmtime::{Engine, Store};

use crate::abi::Interfaces;
use crate::abi::census::Group;
use crate::admission::GrantSet;
use crate::runtime::{GuestState, PrepareError};

/// Most handles of one component instance.
const MAX_HANDLES: usize = 2_000;

/// A component that is ready to be instantiated.
pub(crate) struct AgentComponent {
    pre: AgentPre<GuestState>,
}

impl AgentComponent {
    /// Checks the imports against the grants and links them. Nothing of the guest runs.
    pub(crate) fn prepare(
        engine: &Engine,
        linkers: &ComponentLinkers,
        component: &Component,
        grants: &GrantSet,
    ) -> Result<Self, PrepareError> {
        let granted = Interfaces::granted_by(grants);
        for (name, item) in component.component_type().imports(engine) {
            let allowed = group_of(name).is_some_and(|group| granted.allows(group));
            if !allowed || !matches!(item.ty, ComponentItem::ComponentInstance(_)) {
                return Err(PrepareError::ImportNotGranted { name: name.to_owned() });
            }
        }
        let pre: InstancePre<GuestState> = linkers.instantiate_pre(granted, component).map_err(|error| {
            // Names are known and granted by now; what is left is another type than the world's.
            PrepareError::AbiSignatureMismatch { name: "mentat:agent".into(), hint: format!("{error:#}") }
        })?;
        let pre = AgentPre::new(pre)
            .map_err(|_| PrepareError::ExportMissing { name: "process: func() -> result<_, string>" })?;
        Ok(Self { pre })
    }

    /// The component itself.
    pub(crate) fn component(&self) -> &Component {
        self.pre.instance_pre().component()
    }

    /// Instantiates the component.
    pub(crate) fn instantiate(&self, store: &mut Store<GuestState>) -> wasmtime::Result<bindings::Agent> {
        store.set_max_component_handles(MAX_HANDLES);
        let fuel = store.data().limits.hostcall_bytes;
        store.set_hostcall_fuel(fuel);
        self.pre.instantiate(store)
    }
}

/// The group of a host interface, or `None` for one that this executor does not have.
fn group_of(name: &str) -> Option<Group> {
    match name.strip_prefix("mentat:agent/")?.strip_suffix("@1.0.0")? {
        "types" | "io" | "log" | "metric" => Some(Group::Always),
        "capability" => Some(Group::Capability),
        "media" => Some(Group::Media),
        "stream" => Some(Group::Stream),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
