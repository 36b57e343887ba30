//! A successor for a CA that issues: another key, another name (`code-signing-2`), another certificate by the root.
//!
//! The old one stays. It issues nothing from then on, and goes on publishing its revocation lists and answering for what it
//! issued, so that nothing signed before becomes less good. A successor issues once everything that belongs to it is there.

use ca_pki::profile::Kind;
use ca_pki::{DistinguishedName, NameFields};
use hsm::{KeyAlgorithm, KeyUri, Keyring};

use super::Renewed;
use crate::authority::{CertificateAuthority, LoadedAuthority, load, names, role_name};
use crate::error::CaError;
use crate::storage::StoredAuthority;

impl CertificateAuthority {
    /// Makes the next CA of a kind, and who belongs to it: an OCSP responder of its own, or a new certificate of the time-stamp
    /// authority.
    pub(super) async fn succeed(&self, kind: &'static str, keys: &Keyring) -> Result<Renewed, CaError> {
        if self.settings.config.approvals.is_some() {
            return Err(CaError::OutOfRange {
                field: "authority",
                reason: "is succeeded by a ceremony here: [approvals] names approvers, and the root's key is not used without them",
            });
        }
        let now = self.clock.now()?;
        let root = self.newest_root()?;
        self.may_issue(&root.name, now)?;
        let newest = self.generations(kind).next();
        let newest = newest.ok_or(CaError::Inconsistent("there is no such CA to succeed"))?;
        let number = names::split(&newest.name).map_or(1, |(_, number)| number).saturating_add(1);
        let name = names::generation(kind, number);
        let hierarchy = &self.settings.config.hierarchy;
        let (certificate_kind, fields) = match kind {
            names::CODE_SIGNING => (Kind::CodeSigningIssuer, &hierarchy.code_signing),
            _ => (Kind::TimeStampingIssuer, &hierarchy.time_stamping),
        };
        let subject = numbered(fields, number)?;
        let algorithm = newest.signer.public_key().algorithm();
        let made = self.make(&name, certificate_kind, root, &subject, algorithm, keys, now).await?;
        let stored = StoredAuthority {
            name: name.clone(),
            role: role_name(newest.role).to_owned(),
            certificate: Some(made.certificate.clone()),
            issuer: Some(root.name.clone()),
            key_uri: made.uri.to_string(),
            shards: newest.shards,
        };
        self.store.add_authority(stored, None, "operator", now).await?;
        let successor = self.added(&name, keys).await?;
        let file = if kind == names::CODE_SIGNING {
            self.appoint_responder(&successor, number, keys).await?;
            // Every CA whose certificates may still be good, for whoever judges by this file: one that was revoked is none.
            let others = self.generations(kind).filter(|authority| !self.has_fallen(&authority.name));
            let all: Vec<&LoadedAuthority> = std::iter::once(&successor).chain(others).collect();
            self.write_signing_chain(&all)?
        } else {
            self.replace(names::TIMESTAMP_AUTHORITY, Kind::TimestampAuthority, &successor, keys).await?.file
        };
        Ok(made.renewed(&name, file))
    }

    /// An authority that may have been added to the store after this one was opened.
    pub(crate) async fn added(&self, name: &str, keys: &Keyring) -> Result<LoadedAuthority, CaError> {
        let stored = self.store.authorities().await?;
        let mut loaded = load(&stored, &self.settings.config.status_url, |record| {
            hsm::KeyProvider::open(keys, &KeyUri::parse(&record.key_uri)?)
        })?;
        loaded.remove(name).ok_or(CaError::Inconsistent("an authority that was added is not there"))
    }

    /// The responder of a new CA. Its record is the last: with it, the CA begins to issue.
    async fn appoint_responder(
        &self,
        issuer: &LoadedAuthority,
        number: u32,
        keys: &Keyring,
    ) -> Result<(), CaError> {
        let now = self.clock.now()?;
        let name = names::generation(names::OCSP_RESPONDER, number);
        let subject = numbered(&self.settings.config.hierarchy.ocsp_responder, number)?;
        let algorithm = KeyAlgorithm::EcdsaP256;
        let made = self.make(&name, Kind::OcspResponder, issuer, &subject, algorithm, keys, now).await?;
        let role = self.authority(names::OCSP_RESPONDER)?.role;
        let stored = StoredAuthority {
            name: name.clone(),
            role: role_name(role).to_owned(),
            certificate: Some(made.certificate.clone()),
            issuer: Some(issuer.name.clone()),
            key_uri: made.uri.to_string(),
            shards: 0,
        };
        self.store.add_authority(stored, None, "operator", now).await?;
        self.write_chain(&format!("{name}.pem"), std::iter::once(&made.certificate)).map(drop)
    }
}

/// A subject that no earlier authority has: names stand for keys, in revocation lists among others.
pub(super) fn numbered(fields: &NameFields, number: u32) -> Result<DistinguishedName, CaError> {
    let mut fields = fields.clone();
    fields.common_name =
        Some(format!("{} {number}", fields.common_name.unwrap_or_default()).trim().to_owned());
    Ok(DistinguishedName::from_fields(&fields)?)
}
