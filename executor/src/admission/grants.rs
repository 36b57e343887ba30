//! What a guest may do: its manifest's requests, cut down to what policy grants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use trust_store::capability::{Capability, FileAccess, GuestPath};
use wasmtime_wasi::FsPerms;

use crate::abi::ErrorCode;
use crate::egress::{Connections, Egress, Outlet, is_bare};
use crate::extensions::{Extensions, Tenant, has_interface};
use crate::features::Feature;
use crate::media::MediaStore;

/// The guest's path to scratch files of its own, unless the operator maps a directory there.
pub(crate) const SCRATCH: &str = "/tmp";

/// The grants of one admitted module: immutable, shared by all its instances.
#[derive(Debug, Default)]
pub struct GrantSet {
    requested: Vec<Capability>,
    granted: Vec<Capability>,
    env: BTreeMap<String, String>,
    media: Option<Arc<MediaStore>>,
    network: Option<Outlet>,
    directories: Vec<Directory>,
    extensions: Extensions,
    tenant: Option<Tenant>,
    /// What a call may do with scratch files of its own, if it has any.
    scratch: Option<FileAccess>,
}

/// A directory of the host that a guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) guest: GuestPath,
    pub(crate) host: PathBuf,
    pub(crate) access: FileAccess,
}

impl Directory {
    pub(crate) fn perms(&self) -> FsPerms {
        match self.access {
            FileAccess::Read => FsPerms::ReadOnly,
            FileAccess::Write => FsPerms::ReadWrite,
        }
    }
}

/// What is known about a capability that a running guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It may have it.
    Granted,
    /// Its manifest asks for it, policy does not grant it.
    NotGranted,
    /// Its manifest does not ask for it.
    NotInManifest,
}

/// A request that is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the capability {capability} is not granted: {why}")]
pub struct Refused {
    /// What was asked for.
    pub capability: Capability,
    /// Why not.
    pub why: &'static str,
    /// The stable reason code.
    pub code: &'static str,
}

/// Where granted things come from. Built from the operator's configuration.
#[derive(Debug, Default)]
pub struct GrantSources {
    /// Values of environment variables, by name.
    pub env: BTreeMap<String, String>,
    /// The media store behind `extension:media`.
    pub media: Option<Arc<MediaStore>>,
    /// The way out to other hosts, if there is one.
    pub network: Option<Arc<Egress>>,
    /// Directories of the host, by the path that guests see. Only the operator chooses them.
    pub files: BTreeMap<GuestPath, PathBuf>,
    /// What the operator registered beside all that.
    pub extensions: Extensions,
    /// Whether calls can have scratch files.
    pub scratch: bool,
}

impl GrantSources {
    /// Intersects a manifest's requests with what policy grants to every admitted module.
    ///
    /// # Errors
    ///
    /// The first request that policy does not cover or that this executor cannot provide. A module that was signed for more than it may have here is
    /// refused as a whole, so that it never runs with less than its author expected.
    pub(crate) fn grant(
        &self,
        policy: &[Capability],
        requested: Vec<Capability>,
        own_env: &[(String, String)],
    ) -> Result<GrantSet, Refused> {
        for request in &requested {
            if !covers(policy, request) {
                let (why, code) = ("policy does not grant it", "capability_denied");
                return Err(Refused { capability: request.clone(), why, code });
            }
            if let Some(why) = self.left_out(request) {
                return Err(Refused { capability: request.clone(), why, code: "feature_not_built" });
            }
            if let Some(why) = self.lacks(request, own_env) {
                let code = match request {
                    // Policy grants it: it is this executor that was started without it.
                    Capability::Extension { .. } => "extension_unavailable",
                    _ => "capability_denied",
                };
                return Err(Refused { capability: request.clone(), why, code });
            }
        }
        // The operator's value wins over the one the signed manifest carries.
        let mut env: BTreeMap<String, String> = own_env.iter().cloned().collect();
        env.extend(self.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        env.retain(|name, _| {
            requested
                .iter()
                .any(|request| matches!(request, Capability::Env(asked) if asked.as_str() == name))
        });
        let media = self.media.clone().filter(|_| {
            requested
                .iter()
                .any(|request| matches!(request, Capability::Extension { name, .. } if name == "media"))
        });
        let network = self
            .network
            .as_ref()
            .filter(|_| requested.iter().any(|request| matches!(request, Capability::Network { .. })))
            .map(Outlet::new);
        let directories = self.directories(&requested);
        let scratch = scratch_among(&requested)
            .filter(|_| directories.iter().all(|mapped| mapped.guest.as_str() != SCRATCH));
        let extensions = self.extensions.only(|known| {
            requested
                .iter()
                .any(|request| matches!(request, Capability::Extension { name, .. } if name == known))
        });
        Ok(GrantSet {
            granted: requested.clone(),
            requested,
            env,
            media,
            network,
            directories,
            scratch,
            extensions,
            tenant: None,
        })
    }

    /// Whether a path is that of scratch files here.
    pub(super) fn is_scratch(&self, path: &GuestPath) -> bool {
        self.scratch && path.as_str() == SCRATCH && !self.files.contains_key(path)
    }

    /// Why no executor that was built like this one can provide it.
    fn left_out(&self, request: &Capability) -> Option<&'static str> {
        match request {
            Capability::Filesystem { path, .. }
                if self.is_scratch(path) && !Feature::ScratchFiles.is_built() =>
            {
                Some("this executor was built without the feature `scratch-files`")
            }
            Capability::Network { .. } if is_bare(request) && !Feature::Sockets.is_built() => {
                Some("this executor was built without the feature `sockets`")
            }
            _ => None,
        }
    }

    /// Why this executor cannot provide what policy would grant.
    fn lacks(&self, request: &Capability, own_env: &[(String, String)]) -> Option<&'static str> {
        match request {
            Capability::Compute(_) => None,
            Capability::Env(name) => {
                let known = self.env.contains_key(name.as_str())
                    || own_env.iter().any(|(own, _)| own == name.as_str());
                (!known).then_some("the operator has given it no value")
            }
            // An argument would narrow the grant, and neither extension knows one: the whole would be given instead.
            Capability::Extension { name, argument: Some(_) } if has_interface(name) => {
                Some("this executor's extension takes no argument")
            }
            Capability::Extension { name, .. } if name == "media" => {
                self.media.is_none().then_some("no media store is configured")
            }
            Capability::Extension { name, .. } if name == "stream" => None,
            Capability::Extension { name, argument } => self.extensions.lacks(name, argument.as_deref()),
            Capability::Filesystem { path, .. } if self.is_scratch(path) => None,
            // Exactly the mapped path: a path below it could have become a link that leads elsewhere.
            Capability::Filesystem { path, .. } => {
                (!self.files.contains_key(path)).then_some("the operator maps no directory to this path")
            }
            Capability::Network { protocol, host, port } => match &self.network {
                None => Some("this executor offers guests no network"),
                Some(egress) => egress.lacks(*protocol, host, *port),
            },
        }
    }

    /// One directory for each path; writing includes reading.
    fn directories(&self, requested: &[Capability]) -> Vec<Directory> {
        let mut directories: BTreeMap<&GuestPath, FileAccess> = BTreeMap::new();
        for request in requested {
            if let Capability::Filesystem { access, path } = request {
                let known = directories.entry(path).or_insert(*access);
                *known = (*known).max(*access);
            }
        }
        let map = |(path, access): (&GuestPath, FileAccess)| {
            let host = self.files.get(path)?.clone();
            Some(Directory { guest: path.clone(), host, access })
        };
        directories.into_iter().filter_map(map).collect()
    }
}

/// What is asked of scratch files, where no directory is mapped to their path; writing includes reading.
fn scratch_among(requested: &[Capability]) -> Option<FileAccess> {
    let access = |request: &Capability| match request {
        Capability::Filesystem { access, path } if path.as_str() == SCRATCH => Some(*access),
        _ => None,
    };
    requested.iter().filter_map(access).max()
}

fn covers(policy: &[Capability], request: &Capability) -> bool {
    match request {
        // A compute request is a limit the guest accepts; it is applied as the smaller of all limits.
        Capability::Compute(_) => true,
        other => other.is_covered_by(policy),
    }
}

impl GrantSet {
    /// What a worker knows of a module's grants: which interfaces it may import, and whether it has scratch files. No other
    /// directory is ever granted there. Values and decisions are the executor's.
    pub(crate) fn of_worker(granted: Vec<Capability>) -> Self {
        let scratch = scratch_among(&granted);
        Self { requested: granted.clone(), granted, scratch, ..Self::default() }
    }

    /// The same, for an agent and who published it: without one, extensions do nothing.
    pub(crate) fn of_tenant(self, tenant: Tenant) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// What the manifest asks for.
    pub fn requested(&self) -> &[Capability] {
        &self.requested
    }

    /// What was granted.
    pub fn granted(&self) -> &[Capability] {
        &self.granted
    }

    /// Whether anything granted is used through a handle.
    pub(crate) fn has_handles(&self) -> bool {
        self.granted.iter().any(|capability| {
            !matches!(capability, Capability::Compute(_))
                && !matches!(capability, Capability::Extension { name, .. } if has_interface(name))
        })
    }

    /// Whether the extension `name` was granted.
    pub(crate) fn extension(&self, name: &str) -> bool {
        self.granted
            .iter()
            .any(|granted| matches!(granted, Capability::Extension { name: n, .. } if n == name))
    }

    pub(crate) fn lookup(&self, capability: &Capability) -> Lookup {
        if !capability.is_covered_by(&self.requested) {
            return Lookup::NotInManifest;
        }
        if capability.is_covered_by(&self.granted) { Lookup::Granted } else { Lookup::NotGranted }
    }

    /// Granted variables with their values.
    pub(crate) fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Granted directories.
    pub(crate) fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// What a call may do with scratch files of its own.
    pub(crate) fn scratch(&self) -> Option<FileAccess> {
        self.scratch
    }

    pub(crate) fn network(&self) -> Option<Outlet> {
        self.network.clone()
    }

    /// Granted extensions that are used by handle.
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Whose grants these are.
    pub(crate) fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Whether bare connections were granted.
    pub(crate) fn may_connect(&self) -> bool {
        self.network.is_some() && self.granted.iter().any(is_bare)
    }

    /// The bare connections of one call, if any is granted.
    pub(crate) fn connections(&self) -> Option<Arc<Connections>> {
        self.network.as_ref()?.connections(&self.granted)
    }

    pub(crate) fn media(&self) -> Result<&MediaStore, ErrorCode> {
        self.media.as_deref().ok_or(ErrorCode::PolicyDenied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "media")]
    use crate::media::MediaLimits;

    fn capabilities(texts: &[&str]) -> Vec<Capability> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let sources = GrantSources::default();
        for text in ["env:HOME", "filesystem:read:/tmp", "network:https:example.com", "extension:media"] {
            let refused = sources.grant(&[], capabilities(&[text]), &[]).unwrap_err();
            assert_eq!(
                (refused.capability.to_string().as_str(), refused.why, refused.code),
                (text, "policy does not grant it", "capability_denied")
            );
        }
        assert!(sources.grant(&[], capabilities(&["compute:cpu_ms=5"]), &[]).is_ok());
    }

    #[test]
    fn what_policy_grants_and_nobody_provides_is_refused() {
        for text in [
            "env:HOME",
            "filesystem:read:/tmp",
            "network:https:example.com",
            "extension:media",
            "extension:x",
        ] {
            let asked = capabilities(&[text]);
            let refused = GrantSources::default().grant(&asked, asked.clone(), &[]).unwrap_err();
            assert_ne!(refused.why, "policy does not grant it", "{text}");
            let unavailable = text.starts_with("extension:");
            assert_eq!(refused.code == "extension_unavailable", unavailable, "{text}: {}", refused.code);
        }
    }

    #[test]
    fn what_a_build_left_out_is_refused_by_name() {
        let sources = GrantSources { scratch: true, ..GrantSources::default() };
        for (text, feature) in [
            ("filesystem:write:/tmp", Feature::ScratchFiles),
            ("network:tcp:db.example.com:5432", Feature::Sockets),
        ] {
            let asked = capabilities(&[text]);
            let refused = sources.grant(&asked, asked.clone(), &[]).err();
            let left_out = refused.filter(|refused| refused.code == "feature_not_built");
            assert_eq!(left_out.is_some(), !feature.is_built(), "{text}");
            let names = |refused: Refused| refused.why.ends_with(&format!("`{}`", feature.name()));
            assert!(left_out.is_none_or(names), "{text}");
        }
    }

    #[test]
    #[cfg(feature = "scratch-files")]
    fn scratch_is_one_path_and_what_the_operator_maps_there_comes_first() {
        let sources = GrantSources { scratch: true, ..GrantSources::default() };
        let of = |sources: &GrantSources, texts: &[&str]| {
            let asked = capabilities(texts);
            sources
                .grant(&asked, asked.clone(), &[])
                .map(|grants| (grants.scratch(), grants.directories().len()))
        };
        let (read, write) = ("filesystem:read:/tmp", "filesystem:write:/tmp");
        assert_eq!(of(&sources, &["env:A"]).ok(), None);
        assert_eq!(of(&sources, &[]).unwrap(), (None, 0));
        assert_eq!(of(&sources, &[read]).unwrap(), (Some(FileAccess::Read), 0));
        assert_eq!(of(&sources, &[write, read]).unwrap(), (Some(FileAccess::Write), 0));
        for elsewhere in ["filesystem:write:/tmp/a", "filesystem:write:/tmpx", "filesystem:read:/"] {
            assert_eq!(
                of(&sources, &[elsewhere]).unwrap_err().why,
                "the operator maps no directory to this path",
                "{elsewhere}"
            );
        }
        // Policy decides as for any other path.
        let refused = sources.grant(&capabilities(&[read]), capabilities(&[write]), &[]).unwrap_err();
        assert_eq!(refused.why, "policy does not grant it");
        let files = [(GuestPath::new("/tmp").unwrap(), PathBuf::from("/srv/shared"))].into();
        let mapped = GrantSources { files, scratch: true, ..GrantSources::default() };
        assert_eq!(of(&mapped, &[write]).unwrap(), (None, 1));
        assert!(!mapped.is_scratch(&GuestPath::new("/tmp").unwrap()));
    }

    #[cfg(feature = "media")]
    #[test]
    fn a_grant_that_an_argument_narrows_is_not_given_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let media = MediaStore::open(dir.path().join("media"), MediaLimits::default()).unwrap();
        let sources = GrantSources { media: Some(Arc::new(media)), ..GrantSources::default() };
        for text in ["extension:media:avatars", "extension:stream:one"] {
            let asked = capabilities(&[text]);
            let refused = sources.grant(&asked, asked.clone(), &[]).unwrap_err();
            assert_eq!(refused.why, "this executor's extension takes no argument", "{text}");
        }
    }

    #[test]
    fn one_request_too_many_refuses_all() {
        let (granted, asked) = (capabilities(&["env:A"]), capabilities(&["env:A", "env:B"]));
        assert!(GrantSources::default().grant(&granted, asked, &[]).is_err());
    }

    #[test]
    fn a_guest_gets_only_values_it_asked_for() {
        let sources = GrantSources {
            env: [("A", "operator"), ("B", "secret")].map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            ..GrantSources::default()
        };
        let granted = capabilities(&["env:A", "env:B"]);
        let own = [("A".into(), "manifest".into())];
        let grants = sources.grant(&granted, capabilities(&["env:A"]), &own).unwrap();
        assert_eq!(grants.env().get("A").map(String::as_str), Some("operator"));
        assert_eq!(grants.env().get("B"), None);
        assert_eq!(grants.lookup(&"env:B".parse().unwrap()), Lookup::NotInManifest);
    }
}
