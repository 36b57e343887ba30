//! Components over the world `mentat:agent` (`executor/wit`).
//!
//! The same rules as for core modules, with types instead of pointers: an interface that was not granted is not
//! linked, every transfer has a limit, and a handle that dies with its instance stands for each granted thing.

mod bindings;
#[cfg(feature = "media")]
#[cfg(test)]
mod cases_tests;
mod coarse;
mod determined;
#[cfg(test)]
mod determined_tests;
#[cfg_attr(not(feature = "http-handler"), path = "http/absent.rs")]
mod http;
mod interfaces;
mod lifecycle;
mod linker;
#[cfg(test)]
mod preview1_tests;
#[cfg(test)]
mod revoked_tests;
#[cfg_attr(not(feature = "scratch-files"), path = "scratch/absent.rs")]
mod scratch;
#[cfg_attr(not(feature = "sockets"), path = "sockets/absent.rs")]
mod sockets;
mod standard_output;
mod wasi;
#[cfg(test)]
mod wasi_tests;

pub(crate) use bindings::AgentPre;
#[cfg(test)]
pub(crate) use determined_tests::tells;
#[cfg(feature = "http-handler")]
pub(crate) use http::Http;
pub(crate) use linker::ComponentLinkers;
#[cfg(all(test, feature = "scratch-files"))]
pub(crate) use scratch::tests as scratch_tests;
pub(crate) use wasi::Wasi;
#[cfg(test)]
pub(crate) use wasi_tests::one_line;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};
use wasmtime::{Engine, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandIndices;

use self::lifecycle::Lifecycle;
use crate::abi::Interfaces;
use crate::abi::census::Group;
use crate::abi::sinks::Level;
use crate::admission::GrantSet;
use crate::features::Feature;
use crate::runtime::{GuestState, PrepareError};

/// Most handles of one component instance.
const MAX_HANDLES: usize = 2_000;

/// A component that is ready to be instantiated.
pub(crate) struct AgentComponent {
    pre: InstancePre<GuestState>,
    entry: Entry,
}

/// What is called.
enum Entry {
    /// `process` of the world `mentat:agent`; nothing that is imported waits.
    Agent(AgentPre<GuestState>),
    /// The same in a component that imports WASI, whose host calls may wait, or that has a lifecycle.
    AgentOnWasi(ComponentExportIndex, Option<Lifecycle>),
    /// A WASI command: input and output of the call are its standard streams.
    Command(CommandIndices),
    /// An HTTP handler: input and output of the call are a request and its answer.
    Http(http::Handler),
}

/// Where a call failed.
pub(crate) enum Failed {
    /// Not by anything of the guest: what it was granted could not be opened.
    Host(wasmtime::Error),
    /// Its instance could not be made.
    Instantiate(wasmtime::Error),
    /// While it ran.
    Run(wasmtime::Error),
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
        let ty = component.component_type();
        let answers_http = ty.exports(engine).any(|(name, _)| of_http(name, "incoming-handler"));
        if answers_http && !Feature::HttpHandler.is_built() {
            return Err(PrepareError::FeatureNotBuilt { feature: Feature::HttpHandler.name() });
        }
        let (mut imports_wasi, mut imports_sockets) = (answers_http, false);
        for (name, item) in ty.imports(engine) {
            let on_sockets = sockets::is_linked(name) && grants.may_connect();
            let on_wasi = wasi::is_linked(name) || on_sockets || answers_http && of_http(name, "types");
            let allowed = on_wasi || group_of(name).is_some_and(|group| granted.allows(group));
            if !allowed || !matches!(item.ty, ComponentItem::ComponentInstance(_)) {
                return Err(PrepareError::ImportNotGranted { name: name.to_owned() });
            }
            imports_wasi |= on_wasi;
            imports_sockets |= on_sockets;
        }
        let pre = if imports_sockets {
            linkers.instantiate_pre_with_sockets(granted, component)
        } else {
            linkers.instantiate_pre(granted, imports_wasi, component)
        };
        let pre = pre.map_err(|error| {
            // Names are known and granted by now; what is left is another type than the world's.
            PrepareError::AbiSignatureMismatch { name: "mentat:agent".into(), hint: format!("{error:#}") }
        })?;
        let entry = match AgentPre::new(pre.clone()) {
            Ok(agent) => match (Lifecycle::of(component)?, component.get_export_index(None, "process")) {
                (None, _) if !imports_wasi => Entry::Agent(agent),
                (lifecycle, Some(process)) => Entry::AgentOnWasi(process, lifecycle),
                (_, None) => return Err(no_entry()),
            },
            Err(_) => match CommandIndices::new(&pre) {
                Ok(command) => Entry::Command(command),
                Err(_) => Entry::Http(http::Handler::of(&pre).ok_or_else(no_entry)?),
            },
        };
        Ok(Self { pre, entry })
    }

    /// The component itself.
    pub(crate) fn component(&self) -> &Component {
        self.pre.component()
    }

    /// Makes an instance, and nothing more.
    pub(crate) fn instantiate(&self, store: &mut Store<GuestState>) -> Result<(), Failed> {
        bound(store);
        match &self.entry {
            Entry::Agent(agent) => agent.instantiate(&mut *store).map(drop).map_err(Failed::Instantiate),
            Entry::AgentOnWasi(..) | Entry::Command(_) | Entry::Http(_) => {
                wasi::prepare(store.data_mut(), self.stdout_is()).map_err(Failed::Host)?;
                let (kill, deadline) = wasi::watch(store);
                let made = async { self.pre.instantiate_async(store).await.map_err(Failed::Instantiate) };
                wasi::run(kill, deadline, made).map(drop)
            }
        }
    }

    /// Runs a fresh instance to its end: its exit code.
    pub(crate) fn run(&self, store: &mut Store<GuestState>) -> Result<i32, Failed> {
        bound(store);
        let Entry::Agent(agent) = &self.entry else { return self.run_on_wasi(store) };
        let agent = agent.instantiate(&mut *store).map_err(Failed::Instantiate)?;
        store.data_mut().instantiated();
        let answer = agent.call_process(&mut *store).map_err(Failed::Run)?;
        Ok(exit_code(store.data_mut(), answer))
    }

    fn run_on_wasi(&self, store: &mut Store<GuestState>) -> Result<i32, Failed> {
        let stdout_is = self.stdout_is();
        wasi::prepare(store.data_mut(), stdout_is).map_err(Failed::Host)?;
        let (kill, deadline) = wasi::watch(store);
        let ended = wasi::run(kill, deadline, self.serve(store));
        // However it ended: what a guest wrote before it was ended says why.
        wasi::collect(store.data_mut(), stdout_is);
        Ok(match ended? {
            Ended::Agent(answer) => exit_code(store.data_mut(), answer),
            Ended::Command(code) => code,
        })
    }

    fn stdout_is(&self) -> wasi::StdoutIs {
        match &self.entry {
            Entry::Command(_) => wasi::StdoutIs::Output,
            Entry::Agent(_) | Entry::AgentOnWasi(..) | Entry::Http(_) => wasi::StdoutIs::Log,
        }
    }

    /// Makes an instance and calls it; may wait in host calls.
    async fn serve(&self, store: &mut Store<GuestState>) -> Result<Ended, Failed> {
        if let Entry::Http(handler) = &self.entry {
            // In a place of its own, as below: what few guests have would make the future of all of them large.
            return Box::pin(handler.serve(&self.pre, store)).await.map(Ended::Command);
        }
        let instance = self.pre.instantiate_async(&mut *store).await.map_err(Failed::Instantiate)?;
        store.data_mut().instantiated();
        match &self.entry {
            Entry::Agent(_) | Entry::Http(_) => {
                Err(Failed::Run(wasmtime::Error::msg("what is served elsewhere")))
            }
            Entry::AgentOnWasi(process, lifecycle) => {
                if let Some(lifecycle) = lifecycle
                    && let Err(text) = Box::pin(lifecycle.init(store, &instance)).await?
                {
                    return Ok(Ended::Agent(Err(text)));
                }
                let process = instance
                    .get_typed_func::<(), (Result<(), String>,)>(&mut *store, process)
                    .map_err(Failed::Run)?;
                let (answer,) = process.call_async(&mut *store, ()).await.map_err(Failed::Run)?;
                if let Some(lifecycle) = lifecycle {
                    Box::pin(lifecycle.shutdown(store, &instance)).await?;
                }
                Ok(Ended::Agent(answer))
            }
            Entry::Command(command) => {
                let command = command.load(&mut *store, &instance).map_err(Failed::Run)?;
                match command.wasi_cli_run().call_run(&mut *store).await {
                    Ok(Ok(())) => Ok(Ended::Command(0)),
                    Ok(Err(())) => Ok(Ended::Command(1)),
                    Err(error) => match error.downcast_ref::<I32Exit>() {
                        Some(exit) => Ok(Ended::Command(exit.0)),
                        None => Err(Failed::Run(error)),
                    },
                }
            }
        }
    }
}

/// What a guest that ended by itself answered.
enum Ended {
    Agent(Result<(), String>),
    Command(i32),
}

/// What the component model itself could use without end.
fn bound(store: &mut Store<GuestState>) {
    store.set_max_component_handles(MAX_HANDLES);
    let fuel = store.data().limits().hostcall_bytes;
    store.set_hostcall_fuel(fuel);
}

/// What a component must export.
pub(crate) const ENTRY: &str =
    "process: func() -> result<_, string>, wasi:cli/run, or wasi:http/incoming-handler";

/// Whether a name is that of an interface of `wasi:http`, in any version 0.2.
fn of_http(name: &str, interface: &str) -> bool {
    let rest = name.strip_prefix("wasi:http/").and_then(|rest| rest.strip_prefix(interface));
    rest.and_then(|rest| rest.strip_prefix("@0.2."))
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

fn no_entry() -> PrepareError {
    PrepareError::ExportMissing { name: ENTRY }
}

/// The text of a guest's error goes to the log; the number is what callers compare.
fn exit_code(state: &mut GuestState, answer: Result<(), String>) -> i32 {
    match answer {
        Ok(()) => 0,
        Err(text) => {
            state.log(Some(Level::Error), Ok(&text));
            1
        }
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
