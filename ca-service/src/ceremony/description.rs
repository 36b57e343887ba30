//! The file that describes a ceremony (TOML), as people write and read it. `docs/operations/ceremony.md` shows one.

use std::path::{Path, PathBuf};

use ca_pki::NameFields;
use serde::{Deserialize, Serialize};
use service::StartRefusal;

use crate::authority::names;
use crate::config::Settings;

/// Largest description that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Most steps of one ceremony.
pub const MAX_STEPS: usize = 64;

/// A ceremony as it is written. Unknown fields are errors.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What the transcript calls it.
    pub name: String,
    /// What is done, in this order.
    pub steps: Vec<StepDescription>,
}

/// What a step makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Make {
    /// The trust anchor: key and self-signed certificate.
    Root,
    /// The CA for code signing: key and certificate by the root. On an authority in use, the next one.
    CodeSigningIssuer,
    /// The CA for time stamps: key and certificate by the root. On an authority in use, the next one.
    TimeStampingIssuer,
    /// The OCSP responder: key and certificate by the newest CA for code signing.
    OcspResponder,
    /// The time-stamp authority: key and certificate by the newest CA for time stamps.
    TimestampAuthority,
    /// The key of statements about revocations.
    StatementKey,
    /// A certificate by the root for another root's key and name, so that relying parties of one accept the other.
    CrossCertificate,
    /// Revocation lists of every issuer, signed anew.
    RevocationLists,
}

impl Make {
    /// Name of the authority that it makes at the founding, of its kind later on; none for the last two.
    #[must_use]
    pub fn authority(self) -> Option<&'static str> {
        match self {
            Self::Root => Some(names::ROOT),
            Self::CodeSigningIssuer => Some(names::CODE_SIGNING),
            Self::TimeStampingIssuer => Some(names::TIME_STAMPING),
            Self::OcspResponder => Some(names::OCSP_RESPONDER),
            Self::TimestampAuthority => Some(names::TIMESTAMP_AUTHORITY),
            Self::StatementKey => Some(names::STATEMENT),
            Self::CrossCertificate | Self::RevocationLists => None,
        }
    }

    /// Name of the authority that signs at the founding, of its kind later on; none for what signs itself or is no
    /// certificate.
    #[must_use]
    pub fn issuer(self) -> Option<&'static str> {
        match self {
            Self::CodeSigningIssuer | Self::TimeStampingIssuer | Self::CrossCertificate => Some(names::ROOT),
            Self::OcspResponder => Some(names::CODE_SIGNING),
            Self::TimestampAuthority => Some(names::TIME_STAMPING),
            Self::Root | Self::StatementKey | Self::RevocationLists => None,
        }
    }

    /// Whether the root's key is used: then a quorum must have approved.
    #[must_use]
    pub fn uses_the_root(self) -> bool {
        matches!(self, Self::Root | Self::RevocationLists) || self.issuer() == Some(names::ROOT)
    }
}

/// One step as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDescription {
    /// What it makes.
    pub make: Make,
    /// Subject of the certificate.
    #[serde(default)]
    pub subject: Option<NameFields>,
    /// Type of the key: `ecdsa-p384` and so on. Responder, time-stamp authority and statement key are P-256.
    #[serde(default)]
    pub key: Option<String>,
    /// Validity in days.
    #[serde(default)]
    pub days: Option<u32>,
    /// For a cross-certificate: what its file is called.
    #[serde(default)]
    pub name: Option<String>,
    /// For a cross-certificate: PEM file of the other root's self-signed certificate, relative to the description.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
}

impl Description {
    /// Reads a file; paths in it become relative to its folder.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be read or does not parse.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let shown = path.display();
        let unreadable = |error: std::io::Error| {
            StartRefusal::new(format!("{shown} cannot be read"), "correct the path after --description")
                .because(error)
        };
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
            return Err(StartRefusal::new(
                format!("{shown} is larger than {MAX_FILE} bytes"),
                "this is not the file that was meant",
            ));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut description = Self::parse(&text)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for step in &mut description.steps {
            step.certificate = step.certificate.take().map(|file| folder.join(file));
        }
        Ok(description)
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`StartRefusal`] when it does not parse.
    pub fn parse(text: &str) -> Result<Self, StartRefusal> {
        toml::from_str(text).map_err(|error| {
            let line = error.to_string().lines().collect::<Vec<_>>().join(" ");
            StartRefusal::new(
                format!("the description of the ceremony does not parse: {line}"),
                "compare it with the example in docs/operations/ceremony.md",
            )
        })
    }

    /// The founding ceremony that the `[hierarchy]` section describes: what `init` holds.
    #[must_use]
    pub fn of_hierarchy(settings: &Settings) -> Self {
        let hierarchy = &settings.config.hierarchy;
        let step = |make, subject: Option<&NameFields>, key: Option<&str>, days| StepDescription {
            make,
            subject: subject.cloned(),
            key: key.map(str::to_owned),
            days,
            name: None,
            certificate: None,
        };
        let (root, issuer) = (Some(hierarchy.root_key.as_str()), Some(hierarchy.issuer_key.as_str()));
        let issuing = Some(hierarchy.issuer_days);
        Self {
            name: "the authority's first ceremony".to_owned(),
            steps: vec![
                step(Make::Root, Some(&hierarchy.root), root, Some(hierarchy.root_days)),
                step(Make::CodeSigningIssuer, Some(&hierarchy.code_signing), issuer, issuing),
                step(Make::TimeStampingIssuer, Some(&hierarchy.time_stamping), issuer, issuing),
                step(
                    Make::OcspResponder,
                    Some(&hierarchy.ocsp_responder),
                    None,
                    Some(hierarchy.ocsp_responder_days),
                ),
                step(
                    Make::TimestampAuthority,
                    Some(&hierarchy.timestamp_authority),
                    None,
                    Some(hierarchy.timestamp_authority_days),
                ),
                step(Make::StatementKey, None, None, None),
                step(Make::RevocationLists, None, None, None),
            ],
        }
    }
}
