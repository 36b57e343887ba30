//! Capabilities: what a manifest may ask for, in one total grammar with one canonical text.
//!
//! ```text
//! capability = "filesystem:" ("read" | "write") ":" abs-path
//!            | "network:" ("http" | "https" | "tcp") ":" host [":" port]
//!            | "env:" NAME
//!            | "compute:" key "=" value *("," key "=" value)   ; memory=64MiB, cpu_ms=1000, wall_ms=5000
//!            | "extension:" name [":" argument]
//! ```
//!
//! An unknown kind, mode, key or trailing text is an error, never ignored. [`Display`](fmt::Display) prints the
//! canonical text; parsing it again gives the same value. A capability is a *request*: the executor turns it into a
//! grant with [`Capability::covers`] and a policy.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

pub use self::compute::ComputeLimits;
pub use self::host::HostPattern;
pub use self::path::GuestPath;

mod compute;
mod host;
mod path;

/// Longest capability text that is read, in bytes.
pub const MAX_CAPABILITY_BYTES: usize = 1024;
/// Most capabilities that one manifest may request.
pub const MAX_CAPABILITIES: usize = 256;

/// One capability: requested by a manifest, or granted by a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Resource limits the guest asks for.
    Compute(ComputeLimits),
    /// An environment variable, by name; its value comes from the operator.
    Env(EnvName),
    /// A host plugin, by name, with an argument the plugin understands.
    Extension {
        /// Name of the plugin: lower-case letters, digits and hyphens.
        name: String,
        /// Visible ASCII; its meaning is the plugin's.
        argument: Option<String>,
    },
    /// Files below a guest path.
    Filesystem {
        /// Read, or read and write.
        access: FileAccess,
        /// The directory or file.
        path: GuestPath,
    },
    /// Connections to a host.
    Network {
        /// What is spoken.
        protocol: Protocol,
        /// A host name, an IPv4 address, or `*.` and at least two labels.
        host: HostPattern,
        /// The port; `None` is the protocol's default (443, and for `http` 80 where policy permits clear text).
        port: Option<u16>,
    },
}

/// What may be done with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileAccess {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP; over TLS unless operator policy permits clear text.
    Http,
    /// HTTP over TLS, without exception.
    Https,
    /// A bare TCP connection.
    Tcp,
}

/// The five kinds, as labels for metrics and policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "documented at Capability")]
pub enum CapabilityKind {
    Compute,
    Env,
    Extension,
    Filesystem,
    Network,
}

impl CapabilityKind {
    /// The word that starts the capability's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Env => "env",
            Self::Extension => "extension",
            Self::Filesystem => "filesystem",
            Self::Network => "network",
        }
    }
}

/// Name of an environment variable: `[A-Za-z_][A-Za-z0-9_]*`, at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvName(String);

impl EnvName {
    /// Takes a name.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything outside the grammar.
    pub fn new(name: &str) -> Result<Self, Error> {
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || name.len() > 128 || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(malformed(name, "an environment name is [A-Za-z_][A-Za-z0-9_]*"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Capability {
    /// Which of the five kinds this is.
    pub fn kind(&self) -> CapabilityKind {
        match self {
            Self::Compute(_) => CapabilityKind::Compute,
            Self::Env(_) => CapabilityKind::Env,
            Self::Extension { .. } => CapabilityKind::Extension,
            Self::Filesystem { .. } => CapabilityKind::Filesystem,
            Self::Network { .. } => CapabilityKind::Network,
        }
    }

    /// Whether everything `request` asks for is contained in this capability.
    ///
    /// Files: by path component (`/tmp` covers `/tmp/a`, not `/tmpx`), and write covers read. Network: `http` covers
    /// `https` to the same host, because `http` means TLS unless policy says otherwise; a pattern covers hosts and
    /// narrower patterns. Compute: every limit asked for is named here and not smaller. Extension: no argument here
    /// covers every argument.
    pub fn covers(&self, request: &Capability) -> bool {
        match (self, request) {
            (Self::Compute(granted), Self::Compute(asked)) => granted.covers(asked),
            (Self::Env(granted), Self::Env(asked)) => granted == asked,
            (
                Self::Extension { name, argument },
                Self::Extension { name: asked, argument: asked_argument },
            ) => name == asked && (argument.is_none() || argument == asked_argument),
            (Self::Filesystem { access, path }, Self::Filesystem { access: asked, path: asked_path }) => {
                access >= asked && path.contains(asked_path)
            }
            (
                Self::Network { protocol, host, port },
                Self::Network { protocol: asked, host: asked_host, port: asked_port },
            ) => {
                let protocol_covers =
                    protocol == asked || (*protocol == Protocol::Http && *asked == Protocol::Https);
                // Both sides without a port mean the protocol's default; `http` alone has two, and its default
                // contains the TLS port.
                let port_covers = port == asked_port
                    || (*protocol == Protocol::Http
                        && port.unwrap_or(443) == 443
                        && asked_port.unwrap_or(443) == 443
                        && (port.is_none() || *asked == Protocol::Https));
                protocol_covers && port_covers && host.contains(asked_host)
            }
            _ => false,
        }
    }

    /// Whether one of `granted` covers this capability.
    pub fn is_covered_by<'a>(&self, granted: impl IntoIterator<Item = &'a Capability>) -> bool {
        granted.into_iter().any(|capability| capability.covers(self))
    }
}

impl FromStr for Capability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_CAPABILITY_BYTES {
            return Err(Error::TooLarge { what: "capability", limit: MAX_CAPABILITY_BYTES });
        }
        let (kind, rest) = text.split_once(':').ok_or_else(|| malformed(text, "`kind:` is missing"))?;
        match kind {
            "compute" => Ok(Self::Compute(rest.parse()?)),
            "env" => Ok(Self::Env(EnvName::new(rest)?)),
            "extension" => parse_extension(text, rest),
            "filesystem" => {
                let (mode, path) =
                    rest.split_once(':').ok_or_else(|| malformed(text, "`mode:path` is missing"))?;
                let access = match mode {
                    "read" => FileAccess::Read,
                    "write" => FileAccess::Write,
                    _ => return Err(malformed(text, "the mode is `read` or `write`")),
                };
                Ok(Self::Filesystem { access, path: GuestPath::new(path)? })
            }
            "network" => parse_network(text, rest),
            _ => Err(malformed(
                text,
                "the kind is one of `compute`, `env`, `extension`, `filesystem` and `network`",
            )),
        }
    }
}

fn parse_extension(text: &str, rest: &str) -> Result<Capability, Error> {
    let (name, argument) = match rest.split_once(':') {
        Some((name, argument)) => (name, Some(argument)),
        None => (rest, None),
    };
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    if !starts || name.len() > 64 || !bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err(malformed(text, "an extension name is [a-z][a-z0-9-]*"));
    }
    if argument.is_some_and(|argument| argument.is_empty() || !argument.bytes().all(|b| b.is_ascii_graphic()))
    {
        return Err(malformed(text, "an extension argument is visible ASCII without spaces"));
    }
    Ok(Capability::Extension { name: name.to_owned(), argument: argument.map(ToOwned::to_owned) })
}

fn parse_network(text: &str, rest: &str) -> Result<Capability, Error> {
    let (mode, target) = rest.split_once(':').ok_or_else(|| malformed(text, "`protocol:host` is missing"))?;
    let protocol = match mode {
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        "tcp" => Protocol::Tcp,
        _ => return Err(malformed(text, "the protocol is `http`, `https` or `tcp`")),
    };
    let (host, port) = match target.split_once(':') {
        Some((host, digits)) => {
            let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
            let port = digits.parse::<u16>().ok().filter(|_| plain);
            (host, Some(port.ok_or_else(|| malformed(text, "a port is a decimal from 1 to 65535"))?))
        }
        None => (target, None),
    };
    // One text per meaning: the only default port of `https` and `tcp` is not written. `http:…:443` stays, because
    // `http` without a port may also mean 80.
    let port = port.filter(|port| *port != 443 || protocol == Protocol::Http);
    Ok(Capability::Network { protocol, host: HostPattern::new(host)?, port })
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind().as_str())?;
        match self {
            Self::Compute(limits) => limits.fmt(f),
            Self::Env(name) => f.write_str(name.as_str()),
            Self::Extension { name, argument: None } => f.write_str(name),
            Self::Extension { name, argument: Some(argument) } => write!(f, "{name}:{argument}"),
            Self::Filesystem { access, path } => {
                let mode = if *access == FileAccess::Read { "read" } else { "write" };
                write!(f, "{mode}:{path}")
            }
            Self::Network { protocol, host, port } => {
                let mode = match protocol {
                    Protocol::Http => "http",
                    Protocol::Https => "https",
                    Protocol::Tcp => "tcp",
                };
                write!(f, "{mode}:{host}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An error about `text`, quoted without control characters and cut to a length that fits a line.
fn malformed(text: &str, rule: &str) -> Error {
    let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
    Error::malformed("capability", format!("`{shown}`: {rule}"))
}

#[cfg(test)]
mod tests;
