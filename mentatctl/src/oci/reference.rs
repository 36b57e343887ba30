//! Names of things in a registry (OCI distribution specification, "Pulling manifests"): `oci://HOST[:PORT]/REPOSITORY`, then
//! `:TAG`, `@sha256:HEX` or nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Outcome};
use crate::sign::sha256;

/// What every reference begins with on our command lines.
pub const SCHEME: &str = "oci://";

/// SHA-256 of something in a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }

    /// Hexadecimal digits, lower case.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix("sha256:")
            .filter(|digits| !digits.bytes().any(|byte| byte.is_ascii_uppercase()))
            .and_then(|digits| hex::decode(digits).ok()?.try_into().ok())
            .map(Self)
            .ok_or_else(|| "a digest is sha256: and 64 hexadecimal digits".to_owned())
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A repository of a registry, and what in it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    /// Path of the repository.
    pub repository: String,
    /// Tag, digest, or neither.
    pub version: Version,
}

/// What in a repository is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// Whatever the command chooses.
    Unnamed,
    /// A name that can be moved.
    Tag(String),
    /// Exactly these bytes.
    Digest(Digest),
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// Exit code 2 with the form that is expected.
    pub fn parse(text: &str) -> Outcome<Self> {
        Self::read(text).ok_or_else(|| {
            Failure::usage(format!("`{text}` names nothing in a registry"))
                .hint("write it as oci://HOST[:PORT]/REPOSITORY, then :TAG or @sha256:HEX")
        })
    }

    fn read(text: &str) -> Option<Self> {
        let (registry, rest) = text.strip_prefix(SCHEME)?.split_once('/')?;
        let (path, version) = match rest.split_once('@') {
            Some((path, digest)) => (path, Version::Digest(digest.parse().ok()?)),
            None => match rest.split_once(':') {
                Some((path, tag)) if is_tag(tag) => (path, Version::Tag(tag.to_owned())),
                Some(_) => return None,
                None => (rest, Version::Unnamed),
            },
        };
        let reference = Self { registry: registry.to_owned(), repository: path.to_owned(), version };
        let url = reference.base()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.path() == "/";
        let host = registry.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
        (plain && host && is_repository(path)).then_some(reference)
    }

    /// The registry's address: TLS, but for a registry on this machine.
    pub fn base(&self) -> Option<Url> {
        let url = Url::parse(&format!("https://{}/", self.registry)).ok()?;
        if is_this_machine(&url) { Url::parse(&format!("http://{}/", self.registry)).ok() } else { Some(url) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        match &self.version {
            Version::Unnamed => Ok(()),
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// The tag of a version: `+` is no character of a tag, and `_` none of a semantic version.
pub fn tag_of(version: &str) -> Option<String> {
    Some(version.replace('+', "_")).filter(|tag| is_tag(tag))
}

/// Whether an address is on this machine, where plain HTTP may carry what must stay whole.
pub fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_repository(text: &str) -> bool {
    let segment = |text: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(text.bytes().next())
            && edge(text.bytes().last())
            && text.bytes().all(|b| edge(Some(b)) || b"._-".contains(&b))
            && !text.contains("..")
    };
    text.len() <= 255 && text.split('/').all(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written_alike() {
        let digest = format!("@sha256:{}", "ab".repeat(32));
        for (text, base) in [
            ("oci://ghcr.io/acme/agent", "https://ghcr.io/"),
            ("oci://registry.example:5000/a/b-c_d.e:1.0.0-rc.1_b2", "https://registry.example:5000/"),
            ("oci://127.0.0.1:5000/agent:v1", "http://127.0.0.1:5000/"),
            (&format!("oci://localhost/agent{digest}"), "http://localhost/"),
            ("oci://[::1]:5000/agent", "http://[::1]:5000/"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.base().unwrap().as_str(), base);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "ghcr.io/acme/agent",
            "oci://ghcr.io",
            "oci://ghcr.io/",
            "oci://ghcr.io/Acme",
            "oci://ghcr.io/a//b",
            "oci://ghcr.io/../v2",
            "oci://ghcr.io/a..b",
            "oci://user:secret@ghcr.io/a",
            "oci://ghcr.io/a:",
            "oci://ghcr.io/a:b:c",
            "oci://ghcr.io/a:-x",
            "oci://ghcr.io/a@sha256:00",
            "oci://ghcr.io/a@sha512:00",
            "oci://ghcr.io?x/a",
            "oci://ghcr.io#x/a",
            &format!("oci://ghcr.io/{}", "a".repeat(256)),
            &format!("oci://ghcr.io/a@sha256:{}", "AB".repeat(32)),
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions_become_tags() {
        assert_eq!(tag_of("1.2.0-rc.1+b.2").as_deref(), Some("1.2.0-rc.1_b.2"));
        assert_eq!(tag_of(&"1".repeat(129)), None);
    }
}
