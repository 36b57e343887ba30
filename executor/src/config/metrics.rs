//! `[metrics]`: what a scrape tells beside counts.

use serde::Deserialize;
use service::StartRefusal;

use crate::metrics::{MetricsSettings, RESERVED_ORGS};

/// Most organisations that are labels: each is a series for each result, with fifteen buckets.
const MAX_ORGS: usize = 64;

/// Longest name of one, bytes.
const MAX_ORG: usize = 64;

/// `[metrics]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Organisations of signers' certificates that are labels; each other one is `other`.
    pub signer_orgs: Vec<String>,
    /// Whether each running instance has a series of its own.
    pub instances: bool,
}

impl MetricsSection {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first name that cannot be a label of its own, and too many of them.
    pub fn validate(self) -> Result<MetricsSettings, StartRefusal> {
        if self.signer_orgs.len() > MAX_ORGS {
            let what = format!("metrics.signer_orgs names {} organisations", self.signer_orgs.len());
            return Err(StartRefusal::new(what, format!("name at most {MAX_ORGS}")));
        }
        for org in &self.signer_orgs {
            let is_text = (1..=MAX_ORG).contains(&org.len()) && !org.chars().any(char::is_control);
            if !is_text || RESERVED_ORGS.contains(&org.as_str()) {
                let what = format!("metrics.signer_orgs: {org:?} is no label");
                let remedy = format!("write 1 to {MAX_ORG} printable bytes, and none of {RESERVED_ORGS:?}");
                return Err(StartRefusal::new(what, remedy));
            }
        }
        Ok(MetricsSettings { signer_orgs: self.signer_orgs, instances: self.instances })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<MetricsSettings, String> {
        let section: MetricsSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.validate().map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn names_are_bounded_and_none_is_mistaken_for_another() {
        assert_eq!(read(""), Ok(MetricsSettings::default()));
        let told = read("signer_orgs = ['MentatLab']\ninstances = true").unwrap();
        assert_eq!((told.signer_orgs, told.instances), (vec!["MentatLab".to_owned()], true));
        let many = format!("signer_orgs = {:?}", vec!["a"; MAX_ORGS + 1]);
        for (text, part) in [
            ("signer_orgs = ['other']", "no label"),
            ("signer_orgs = ['unverified']", "no label"),
            ("signer_orgs = ['']", "no label"),
            ("signer_orgs = [\"a\\nb\"]", "no label"),
            (many.as_str(), "at most 64"),
            ("organisations = []", "unknown field"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
