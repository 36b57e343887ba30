//! `[grants.network]`: the way out for guests, validated.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use service::{ClientTls, StartRefusal};
use trust_store::capability::HostPattern;

use crate::egress::{AddressRules, EgressRules, Network};

/// `[grants.network]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSection {
    /// Whether there is a way out at all.
    pub mode: NetworkMode,
    /// Addresses and networks that guests may reach although they are not public.
    pub open_addresses: Vec<String>,
    /// Addresses and networks that guests may not reach in any case.
    pub deny_addresses: Vec<String>,
    /// Hosts and patterns that guests may not reach in any case.
    pub deny_hosts: Vec<String>,
    /// Hosts and patterns that may be spoken to without TLS where the grant says `http`.
    pub clear_text_hosts: Vec<String>,
    /// Further ports that guests may not reach.
    pub blocked_ports: Vec<u16>,
    /// PEM file with the authorities of the servers that guests speak to; absent: the system's.
    pub tls_ca_file: Option<PathBuf>,
}

/// `[grants.network] mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// None: every `network:` capability is refused.
    #[default]
    None,
    /// To hosts that a signed manifest asks for and the policy grants.
    Restricted,
}

/// The way out, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// What the operator says about destinations.
    pub rules: EgressRules,
    /// Whom to believe over TLS.
    pub tls: ClientTls,
}

impl NetworkSection {
    /// Checks every value. `base` is the folder that relative paths start from.
    ///
    /// # Errors
    ///
    /// The first value that cannot be used, and values that have no effect.
    pub fn validate(self, base: &Path) -> Result<Option<NetworkSettings>, StartRefusal> {
        let rules = EgressRules {
            addresses: AddressRules {
                open: networks("open_addresses", &self.open_addresses)?,
                deny: networks("deny_addresses", &self.deny_addresses)?,
            },
            deny_hosts: hosts("deny_hosts", &self.deny_hosts)?,
            clear_text: hosts("clear_text_hosts", &self.clear_text_hosts)?,
            blocked_ports: self.blocked_ports,
            own: Vec::new(),
        };
        let tls = ClientTls::new("grants.network", self.tls_ca_file.map(|file| base.join(file)), None, None)?;
        match self.mode {
            NetworkMode::Restricted => Ok(Some(NetworkSettings { rules, tls })),
            NetworkMode::None if rules == EgressRules::default() && tls.files().next().is_none() => Ok(None),
            NetworkMode::None => Err(StartRefusal::new(
                "grants.network has rules and no way out",
                "set `mode = \"restricted\"`, or remove the section",
            )),
        }
    }
}

fn networks(key: &str, texts: &[String]) -> Result<Vec<Network>, StartRefusal> {
    let read = |text: &String| {
        text.parse().map_err(|error| {
            let what = format!("grants.network.{key}: {text} is no network");
            StartRefusal::new(what, "write it like 10.1.0.0/16").because(error)
        })
    };
    texts.iter().map(read).collect()
}

fn hosts(key: &str, texts: &[String]) -> Result<Vec<HostPattern>, StartRefusal> {
    let read = |text: &String| {
        HostPattern::new(text).map_err(|error| {
            let what = format!("grants.network.{key}: {text} is no host");
            StartRefusal::new(what, "write it like api.example.com or *.example.com").because(error)
        })
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<NetworkSettings>, String> {
        let section: NetworkSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.validate(Path::new("/etc")).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn there_is_no_way_out_by_default() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("mode = 'none'"), Ok(None));
        let open = read("mode = 'restricted'\nopen_addresses = ['10.0.0.0/8']\ntls_ca_file = 'ca.pem'");
        let open = open.unwrap().unwrap();
        assert_eq!(open.rules.addresses.open.len(), 1);
        assert!(open.tls.files().eq([Path::new("/etc/ca.pem")]));
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        for (text, part) in [
            ("mode = 'full'", "unknown variant"),
            ("blocked_ports = [443]", "no way out"),
            ("tls_ca_file = 'ca.pem'", "no way out"),
            ("mode = 'restricted'\nopen_addresses = ['10.0.0.0/99']", "open_addresses"),
            ("mode = 'restricted'\ndeny_hosts = ['*']", "deny_hosts"),
            ("mode = 'restricted'\nclear_text_hosts = ['http://x']", "clear_text_hosts"),
            ("mode = 'restricted'\nallow = true", "unknown field"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
