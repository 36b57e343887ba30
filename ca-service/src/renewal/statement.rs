//! A successor for the key of statements. What the old one signed stays in the event log, and is believed: the file of the keys names
//! both, the newest first.

use hsm::{KeySpec, Keyring, Purpose};

use super::Renewed;
use crate::authority::{CertificateAuthority, LoadedAuthority, generate, names, random, role_name};
use crate::error::CaError;
use crate::storage::StoredAuthority;

impl CertificateAuthority {
    /// Makes the next key of statements. It signs them from the next start on.
    pub(super) async fn succeed_statement_key(&self, keys: &Keyring) -> Result<Renewed, CaError> {
        let now = self.clock.now()?;
        let newest = self.generations(names::STATEMENT).next();
        let newest = newest.ok_or(CaError::Inconsistent("there is no key for statements"))?;
        let number = names::split(&newest.name).map_or(1, |(_, number)| number).saturating_add(1);
        let name = names::generation(names::STATEMENT, number);
        // New each time: an attempt before may have left a key.
        let label = format!("{name}-{}", hex::encode(random::<8>()?));
        let algorithm = newest.signer.public_key().algorithm();
        let purposes: hsm::PurposeSet = [Purpose::Statement].into_iter().collect();
        let spec = KeySpec::new(&label, algorithm, purposes)?;
        let (_, uri) = generate(keys, self.settings.key_uris.get(names::STATEMENT), &spec)?;
        let stored = StoredAuthority {
            name: name.clone(),
            role: role_name(newest.role).to_owned(),
            certificate: None,
            issuer: None,
            key_uri: uri.to_string(),
            shards: 0,
        };
        self.store.add_authority(stored, None, "operator", now).await?;
        let successor = self.added(&name, keys).await?;
        let older = self.generations(names::STATEMENT);
        let all: Vec<&LoadedAuthority> = std::iter::once(&successor).chain(older).collect();
        let file = self.write_statement_keys(&all)?;
        Ok(Renewed { authority: name, serial: None, not_after: None, file })
    }
}
