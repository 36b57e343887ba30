//! What this executor was built with.
//!
//! Admitting modules and running them is always there. The rest are cargo features, so that whoever does not use them does not
//! carry them; what a build leaves out it refuses by name, and never passes over.

use std::sync::LazyLock;

use service::StartRefusal;

use crate::admission::Denied;

/// A part that a build may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Rules over capabilities in Cedar.
    Cedar,
    /// Releases that take over from each other.
    Deployments,
    /// Components that answer HTTP requests.
    HttpHandler,
    /// Media objects, in files of this machine.
    Media,
    /// Media objects in an S3 bucket.
    MediaS3,
    /// Releases composed of others.
    Pipelines,
    /// Scratch files of a call, in memory.
    ScratchFiles,
    /// Bare connections of components.
    Sockets,
    /// Traces of calls.
    Telemetry,
}

impl Feature {
    /// All of them, by name.
    pub const ALL: [Self; 9] = [
        Self::Cedar,
        Self::Deployments,
        Self::HttpHandler,
        Self::Media,
        Self::MediaS3,
        Self::Pipelines,
        Self::ScratchFiles,
        Self::Sockets,
        Self::Telemetry,
    ];

    /// Its name in `cargo build --features`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cedar => "cedar",
            Self::Deployments => "deployments",
            Self::HttpHandler => "http-handler",
            Self::Media => "media",
            Self::MediaS3 => "media-s3",
            Self::Pipelines => "pipelines",
            Self::ScratchFiles => "scratch-files",
            Self::Sockets => "sockets",
            Self::Telemetry => "telemetry",
        }
    }

    /// Whether this executor has it.
    pub const fn is_built(self) -> bool {
        match self {
            Self::Cedar => cfg!(feature = "cedar"),
            Self::Deployments => cfg!(feature = "deployments"),
            Self::HttpHandler => cfg!(feature = "http-handler"),
            Self::Media => cfg!(feature = "media"),
            Self::MediaS3 => cfg!(feature = "media-s3"),
            Self::Pipelines => cfg!(feature = "pipelines"),
            Self::ScratchFiles => cfg!(feature = "scratch-files"),
            Self::Sockets => cfg!(feature = "sockets"),
            Self::Telemetry => cfg!(feature = "telemetry"),
        }
    }

    /// What a caller is told who asks for it where it was left out.
    pub(crate) fn denied(self) -> Denied {
        let text = format!("this executor was built without the feature `{}`", self.name());
        Denied::new("feature_not_built", text)
    }

    /// Refuses a configuration or a state, `what`, that needs it where it was left out. `otherwise` is what else can be done.
    ///
    /// # Errors
    ///
    /// When this executor was built without it.
    pub(crate) fn required(self, what: &str, otherwise: &str) -> Result<(), StartRefusal> {
        if self.is_built() {
            return Ok(());
        }
        let name = self.name();
        Err(StartRefusal::new(
            format!("{what}, and this executor was built without the feature `{name}`"),
            format!("build it with `--features {name}`, or {otherwise}"),
        ))
    }
}

/// The names of what this executor has beside admitting and running.
pub fn built() -> impl Iterator<Item = &'static str> {
    Feature::ALL.into_iter().filter(|feature| feature.is_built()).map(Feature::name)
}

/// Release and features, for `--version`.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let features: Vec<&str> = built().collect();
        let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
        format!("{} (features: {features})", env!("CARGO_PKG_VERSION"))
    });
    &VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_what_was_built_and_refusals_what_was_not() {
        let named = version().split_once("(features: ").unwrap().1.trim_end_matches(')');
        for feature in Feature::ALL {
            assert_eq!(named.split(", ").any(|name| name == feature.name()), feature.is_built(), "{named}");
            match feature.required("it is wanted", "want it not") {
                Ok(()) => assert!(feature.is_built(), "{feature:?}"),
                Err(refusal) => {
                    let text = refusal.to_string();
                    assert!(
                        !feature.is_built() && text.contains(&format!("feature `{}`", feature.name())),
                        "{text}"
                    );
                }
            }
        }
        assert_eq!(named == "none", built().count() == 0);
    }

    #[cfg(feature = "full")]
    #[test]
    fn a_full_build_leaves_nothing_out() {
        assert!(Feature::ALL.into_iter().all(Feature::is_built));
    }
}
