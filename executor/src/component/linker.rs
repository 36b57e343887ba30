//! One component linker for each set of granted interfaces.

use executor_engine::Profile;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::mentat::agent::{capability, io, log, media, metric, stream, types};
use super::{http, sockets, wasi};
use crate::abi::Interfaces;
use crate::abi::census::Group;
use crate::runtime::GuestState;

/// Every linker a component can be given, made once: one for each set, without and with WASI. Those with sockets are made for
/// the few components that have them.
pub(crate) struct ComponentLinkers(Vec<[Linker<GuestState>; 2]>, Profile);

impl ComponentLinkers {
    pub(crate) fn new(engine: &Engine, profile: Profile) -> wasmtime::Result<Self> {
        let pair = |set| {
            let mut with_wasi = linker(engine, set)?;
            wasi::link(&mut with_wasi, profile)?;
            http::link(&mut with_wasi)?;
            Ok([linker(engine, set)?, with_wasi])
        };
        Ok(Self(Interfaces::all().map(pair).collect::<wasmtime::Result<_>>()?, profile))
    }

    /// As [`Self::instantiate_pre`], for a component that was granted bare connections and imports sockets.
    pub(crate) fn instantiate_pre_with_sockets(
        &self,
        interfaces: Interfaces,
        component: &Component,
    ) -> wasmtime::Result<InstancePre<GuestState>> {
        let mut linker = linker(component.engine(), interfaces)?;
        wasi::link(&mut linker, self.1)?;
        http::link(&mut linker)?;
        sockets::link(&mut linker)?;
        linker.instantiate_pre(component)
    }

    pub(crate) fn instantiate_pre(
        &self,
        interfaces: Interfaces,
        with_wasi: bool,
        component: &Component,
    ) -> wasmtime::Result<InstancePre<GuestState>> {
        self.0
            .get(interfaces.index())
            .map(|[plain, wasi]| if with_wasi { wasi } else { plain })
            .ok_or_else(|| wasmtime::Error::msg("unknown set of interfaces"))?
            .instantiate_pre(component)
    }
}

fn linker(engine: &Engine, interfaces: Interfaces) -> wasmtime::Result<Linker<GuestState>> {
    type State = HasSelf<GuestState>;
    let mut linker = Linker::new(engine);
    types::add_to_linker::<_, State>(&mut linker, |state| state)?;
    io::add_to_linker::<_, State>(&mut linker, |state| state)?;
    log::add_to_linker::<_, State>(&mut linker, |state| state)?;
    metric::add_to_linker::<_, State>(&mut linker, |state| state)?;
    if interfaces.allows(Group::Capability) {
        capability::add_to_linker::<_, State>(&mut linker, |state| state)?;
    }
    if interfaces.allows(Group::Media) {
        media::add_to_linker::<_, State>(&mut linker, |state| state)?;
    }
    if interfaces.allows(Group::Stream) {
        stream::add_to_linker::<_, State>(&mut linker, |state| state)?;
    }
    Ok(linker)
}
