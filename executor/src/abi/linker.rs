//! One linker for each set of granted interfaces.

use wasmtime::{Engine, InstancePre, Linker, Module};

use super::census::Group;
use super::functions;
use crate::admission::GrantSet;
use crate::features::Feature;
use crate::runtime::GuestState;

/// The interfaces beyond those every guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interfaces(u8);

impl Interfaces {
    const CAPABILITY: u8 = 1;
    const MEDIA: u8 = 2;
    const STREAM: u8 = 4;
    const SETS: u8 = 8;

    /// Every set there is.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::SETS).map(Self)
    }

    /// The set's place in [`Self::all`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn granted_by(grants: &GrantSet) -> Self {
        let mut set = 0;
        if grants.has_handles() {
            set |= Self::CAPABILITY;
        }
        if grants.extension("media") {
            set |= Self::MEDIA;
        }
        if grants.extension("stream") {
            set |= Self::STREAM;
        }
        Self(set)
    }

    pub(crate) fn allows(self, group: Group) -> bool {
        let bit = match group {
            Group::Always => return true,
            Group::Capability => Self::CAPABILITY,
            // Granted to nobody in a build that has no store: what nobody can call is not linked, and not in the program.
            Group::Media if !Feature::Media.is_built() => return false,
            Group::Media => Self::MEDIA,
            Group::Stream => Self::STREAM,
        };
        self.0 & bit != 0
    }
}

/// Every linker a core module can be given, made once: an interface that was not granted does not exist in it.
pub(crate) struct CoreLinkers(Vec<Linker<GuestState>>);

impl CoreLinkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        (0..Interfaces::SETS)
            .map(|set| Self::linker(engine, Interfaces(set)))
            .collect::<wasmtime::Result<_>>()
            .map(Self)
    }

    fn linker(engine: &Engine, interfaces: Interfaces) -> wasmtime::Result<Linker<GuestState>> {
        let mut linker = Linker::new(engine);
        functions::link_always(&mut linker)?;
        if interfaces.allows(Group::Capability) {
            functions::link_capability(&mut linker)?;
        }
        if interfaces.allows(Group::Media) {
            functions::link_media(&mut linker)?;
        }
        if interfaces.allows(Group::Stream) {
            functions::link_stream(&mut linker)?;
        }
        Ok(linker)
    }

    pub(crate) fn instantiate_pre(
        &self,
        interfaces: Interfaces,
        module: &Module,
    ) -> wasmtime::Result<InstancePre<GuestState>> {
        self.0
            .get(interfaces.index())
            .ok_or_else(|| wasmtime::Error::msg("unknown set of interfaces"))?
            .instantiate_pre(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::MODULE;
    use crate::abi::census::{FUNCTIONS, value};

    #[test]
    fn each_linker_holds_exactly_what_its_set_allows() {
        let mut config = executor_engine::engine_config(executor_engine::Profile::Standard);
        config.allocation_strategy(executor_engine::pool::PoolLimits::small().strategy());
        let engine = Engine::new(&config).unwrap();
        let linkers = CoreLinkers::new(&engine).unwrap();
        for set in 0..Interfaces::SETS {
            let state = crate::testing::guest_state();
            let mut store = wasmtime::Store::new(&engine, state);
            let mut linked = 0;
            for function in FUNCTIONS {
                let found = linkers.0[usize::from(set)].get(&mut store, MODULE, function.name).ok();
                assert_eq!(
                    found.is_some(),
                    Interfaces(set).allows(function.group),
                    "{set} {}",
                    function.name
                );
                if let Some(found) = found {
                    linked += 1;
                    let ty = found.into_func().unwrap().ty(&store);
                    assert!(ty.params().map(|ty| value(&ty).unwrap()).eq(function.params.iter().copied()));
                    assert!(ty.results().map(|ty| value(&ty).unwrap()).eq(function.results.iter().copied()));
                }
            }
            assert_eq!(
                linkers.0[usize::from(set)].iter(&mut store).count(),
                linked,
                "nothing beyond the table"
            );
        }
    }
}
