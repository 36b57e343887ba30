//! Reading the file, and its sections by their digests: what the audit trail says of a configuration that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use service::StartRefusal;
use sha2::{Digest as _, Sha256};

use super::Config;

/// Largest configuration file in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// The section whose URL may have a password in it: a digest of that would tell who tries words.
const DATABASE: &str = "database";
/// The section that has one of its own for each profile.
const PROFILES: &str = "profiles";

/// The SHA-256 of what each section says, in hexadecimal. Comments, spaces and the order of keys do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sections(BTreeMap<String, String>);

impl Sections {
    fn of(file: &toml::Table) -> Self {
        let mut sections = Self::default();
        for (name, value) in file {
            match value {
                _ if name == DATABASE => {}
                toml::Value::Table(profiles) if name == PROFILES => {
                    for (profile, value) in profiles {
                        sections.set(&format!("{PROFILES}.{profile}"), &value.to_string());
                    }
                }
                value => sections.set(name, &value.to_string()),
            }
        }
        sections
    }

    pub(super) fn set_database(&mut self, shown: &str) {
        self.set(DATABASE, shown);
    }

    fn set(&mut self, name: &str, text: &str) {
        self.0.insert(name.to_owned(), hex::encode(Sha256::digest(text)));
    }

    /// One digest of all of them.
    #[must_use]
    pub fn digest(&self) -> String {
        let lines: String = self.0.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
        hex::encode(Sha256::digest(lines))
    }

    /// Names of the sections that say something else, or are in one of the two only.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be read or does not parse.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let shown = path.display();
        let unreadable = |error: std::io::Error| {
            StartRefusal::new(format!("{shown} cannot be read"), "correct the path after --config")
                .because(error)
        };
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
            return Err(StartRefusal::new(
                format!("{shown} is larger than {MAX_FILE} bytes"),
                "this is not the file that was meant",
            ));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut config = Self::parse(&text).map_err(|refusal| {
            StartRefusal::new(format!("{shown}: {}", refusal.what()), refusal.remedy().to_owned())
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.data_dir = folder.join(&config.data_dir);
        config.server.resolve_paths(folder);
        config.admin.resolve_paths(folder);
        config.roles.issuer.resolve_paths(folder);
        config.roles.approver.resolve_paths(folder);
        config.roles.auditor.resolve_paths(folder);
        Ok(config)
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`StartRefusal`] when it does not parse.
    pub fn parse(text: &str) -> Result<Self, StartRefusal> {
        let refuse = |error: toml::de::Error| {
            let line = error.to_string().lines().collect::<Vec<_>>().join(" ");
            StartRefusal::new(
                format!("the configuration does not parse: {line}"),
                "compare it with the example file",
            )
        };
        let mut config: Self = toml::from_str(text).map_err(refuse)?;
        config.sections = Sections::of(&toml::from_str(text).map_err(refuse)?);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(text: &str) -> Sections {
        Sections::of(&toml::from_str(text).unwrap())
    }

    #[test]
    fn what_is_said_counts_and_not_how_it_is_written() {
        let one = sections("a = 1 # one\n[b]\nx = 1\ny = 2\n[profiles.p]\nz = 3\n");
        assert_eq!(one, sections("a=1\n[profiles.p]\nz=3\n[b]\ny=2\nx=1\n"));
        let other = sections("a = 1\n[b]\nx = 2\ny = 2\n[profiles.q]\nz = 3\n");
        assert_eq!(other.differences(&one), ["b", "profiles.p", "profiles.q"]);
        assert_ne!(other.digest(), one.digest());
        assert_eq!(one.differences(&one.clone()), [""; 0]);
    }

    #[test]
    fn a_password_in_the_url_of_a_database_is_in_no_digest() {
        assert_eq!(
            sections("[database]\nurl = 'postgres://u:one@h/d'"),
            sections("[database]\nurl = 'postgres://u:two@h/d'")
        );
    }
}
