//! A successor for the root: another key, another name (`root-2`), a certificate of its own. The CAs that are made from then on are
//! certified by it; those there are stay below the old one, and with them all that was signed.
//!
//! Relying parties know a root by its certificate alone: the new one signs nothing that they accept before they were given it.

use ca_pki::certificate::{Decided, build_root};
use ca_pki::lint::{self, CertificateRules};
use ca_pki::profile::Kind;
use hsm::Keyring;

use super::issuer::numbered;
use super::{Certified, NewKey, Renewed, Signed};
use crate::authority::{
    CertificateAuthority, LoadedAuthority, certificate_algorithm, names, role_name, status_urls,
};
use crate::error::CaError;
use crate::storage::{StoredAuthority, StoredCertificate};

impl CertificateAuthority {
    /// Whether a record is of a root that never became an authority, because its making was interrupted. It certified nothing, nobody
    /// was given it, and the root that came after it may have its name.
    pub(crate) fn is_unfounded_root(&self, record: &StoredCertificate) -> bool {
        let is_its = |root: &LoadedAuthority| root.public_key.spki_sha256() == record.spki_sha256;
        let is_a_roots = record.profile == Kind::Root.as_str()
            && record.identity.is_none()
            && names::split(&record.issuer).is_some_and(|(kind, _)| kind == names::ROOT);
        is_a_roots && !self.authorities().get(&record.issuer).is_some_and(is_its)
    }

    /// The root that certifies what is new.
    pub(crate) fn newest_root(&self) -> Result<&LoadedAuthority, CaError> {
        self.generations(names::ROOT).next().ok_or(CaError::Inconsistent("there is no root"))
    }

    /// Makes the next root. It certifies the CAs that are made after the next start.
    pub(super) async fn succeed_root(&self, keys: &Keyring) -> Result<Renewed, CaError> {
        if self.settings.config.approvals.is_some() {
            return Err(CaError::OutOfRange {
                field: "authority",
                reason: "has no successor here: [approvals] names approvers; a ceremony founds another authority, and cross-certifies its root",
            });
        }
        let now = self.clock.now()?;
        let newest = self.newest_root()?;
        let number = names::split(&newest.name).map_or(1, |(_, number)| number).saturating_add(1);
        let name = names::generation(names::ROOT, number);
        let subject = numbered(&self.settings.config.hierarchy.root, number)?;
        let algorithm = newest.signer.public_key().algorithm();
        let NewKey { signer, uri, public } = self.new_key(&name, Kind::Root, algorithm, keys)?;
        let profile = self.profile_of(Kind::Root)?;
        let serial = self.serial(now)?;
        let decided = Decided {
            serial: &serial,
            subject: &subject,
            identity: None,
            public_key: &public,
            not_before: now,
            identity_issuer: None,
            claims: &[],
        };
        let urls = status_urls(&self.settings.config.status_url, &name, newest.shards)?;
        let algorithm = certificate_algorithm(algorithm)?;
        let tbs = build_root(&profile, algorithm, &decided, &urls)?;
        lint::certificate(&tbs.unsigned(), &CertificateRules { kind: Kind::Root, issuer: None })
            .into_result()?;
        let not_after = now.plus(profile.lifetime() - 1);
        let shown = serial.to_string();
        // Its own issuer, as far as there is one before it has a certificate.
        let itself = LoadedAuthority {
            name: name.clone(),
            role: newest.role,
            certificate: Vec::new(),
            not_after: None,
            chain: Vec::new(),
            chain_pem: Vec::new(),
            issuer: None,
            public_key: public.clone(),
            algorithm,
            shards: newest.shards,
            signer,
        };
        let certified = Certified {
            issuer: &itself,
            profile: profile.name(),
            serial,
            public_key: &public,
            requester: "operator",
            not_before: now,
            not_after,
            at: now,
        };
        let Signed { intent, signature, certificate } = self.sign_infrastructure(certified, &tbs).await?;
        let stored = StoredAuthority {
            name: name.clone(),
            role: role_name(itself.role).to_owned(),
            certificate: Some(certificate.clone()),
            issuer: None,
            key_uri: uri.to_string(),
            shards: itself.shards,
        };
        // Its own row names it as its issuer: the two become known together, or neither.
        self.store.add_authority(stored, Some((intent, signature)), "operator", now).await?;
        let file = self.write_chain(&format!("{name}.pem"), std::iter::once(&certificate))?;
        let not_after = not_after.to_rfc3339();
        Ok(Renewed { authority: name, serial: Some(shown), not_after: Some(not_after), file })
    }
}
