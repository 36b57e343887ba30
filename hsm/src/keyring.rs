//! Keys in several places behind one provider: the scheme of a reference says where its key lives.
//!
//! A keyring has a home (the software keystore), where keys are made when nothing else is said. Other places are connected at
//! their first use, once each, and stay connected: all keys of one token share its sessions and its way back after a failure.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::provider::{Capabilities, Health, KeyInfo, KeyProvider, KeySpec};
use crate::signer::Signer;
use crate::uri::{KeyUri, Scheme};

/// Attributes that name a place and the way to it. All others name a key in it.
const PLACE_ATTRIBUTES: &[&str] = &[
    "token",
    "manufacturer",
    "model",
    "serial",
    "slot-id",
    "module-path",
    "module-name",
    "pin-source",
    "tcti",
    "folder",
    "region",
    "endpoint",
];

/// Several places of keys. Listing, making and health are those of the home; [`Keyring::place`] leads to the others.
pub struct Keyring {
    home: Arc<dyn KeyProvider>,
    places: Mutex<Vec<(String, Arc<dyn KeyProvider>)>>,
    users: usize,
}

impl Keyring {
    /// A keyring whose home is `home`.
    #[must_use]
    pub fn new(home: impl KeyProvider + 'static) -> Self {
        Self { home: Arc::new(home), places: Mutex::default(), users: 1 }
    }

    /// The same for so many threads that sign at the same time: a token has a session for each of them, so that none waits for
    /// another.
    #[must_use]
    pub fn for_users(mut self, users: usize) -> Self {
        self.users = users;
        self
    }

    /// The place that a reference leads to, connected at the first call.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a scheme whose backend this program was built without, [`Error::Invalid`] when the reference
    /// does not say how to get there, and the backend's own failures.
    pub fn place(&self, uri: &KeyUri) -> Result<Arc<dyn KeyProvider>, Error> {
        if uri.scheme() == self.home.scheme() {
            return Ok(Arc::clone(&self.home));
        }
        let name = place_name(uri);
        // Held while connecting: two callers never log in to one token at a time.
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = places.iter().find(|(known, _)| *known == name) {
            return Ok(Arc::clone(place));
        }
        let place = connect_for(uri, self.users)?;
        places.push((name, Arc::clone(&place)));
        Ok(place)
    }
}

impl KeyProvider for Keyring {
    fn scheme(&self) -> Scheme {
        self.home.scheme()
    }

    fn capabilities(&self) -> Capabilities {
        self.home.capabilities()
    }

    fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Signer>, Error> {
        self.place(uri)?.open(uri)
    }

    fn generate(&self, spec: &KeySpec) -> Result<Arc<dyn Signer>, Error> {
        self.home.generate(spec)
    }

    fn list(&self) -> Result<Vec<KeyInfo>, Error> {
        self.home.list()
    }

    /// The worst of all places that were connected.
    fn health(&self) -> Health {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let all = places.iter().map(|(_, place)| place.health()).chain([self.home.health()]);
        all.max_by_key(|health| match health {
            Health::Usable => 0,
            Health::Probing { .. } => 1,
            Health::Unusable { .. } => 2,
        })
        .unwrap_or(Health::Usable)
    }
}

/// Whether this program has the backend of a scheme.
///
/// # Errors
/// [`Error::Unsupported`] naming the cargo feature to build with, where there is one.
pub fn built_with(scheme: Scheme) -> Result<(), Error> {
    let reason = match scheme {
        Scheme::Soft => return Ok(()),
        Scheme::Pkcs11 if cfg!(feature = "pkcs11") => return Ok(()),
        Scheme::Pkcs11 => "build the program with the cargo feature pkcs11",
        Scheme::AwsKms if cfg!(feature = "aws-kms") => return Ok(()),
        Scheme::AwsKms => "build the program with the cargo feature aws-kms",
        Scheme::Tpm2 if cfg!(feature = "tpm") => return Ok(()),
        Scheme::Tpm2 => "build the program with the cargo feature tpm",
        _ => "no backend of this program answers such references",
    };
    Err(Error::Unsupported { what: format!("a {scheme}: reference"), reason })
}

/// Connects to the place that a reference leads to. Whoever uses several keys of one place asks a [`Keyring`] instead, which keeps it.
///
/// # Errors
/// As [`Keyring::place`].
pub fn connect(uri: &KeyUri) -> Result<Arc<dyn KeyProvider>, Error> {
    connect_for(uri, 1)
}

#[cfg_attr(not(feature = "pkcs11"), allow(unused_variables, reason = "tokens alone have sessions"))]
fn connect_for(uri: &KeyUri, users: usize) -> Result<Arc<dyn KeyProvider>, Error> {
    built_with(uri.scheme())?;
    match uri.scheme() {
        #[cfg(feature = "aws-kms")]
        Scheme::AwsKms => {
            Ok(Arc::new(crate::aws_kms::Kms::open(crate::aws_kms::KmsOptions::from_uri(uri)?)?))
        }
        #[cfg(feature = "pkcs11")]
        Scheme::Pkcs11 => {
            let mut options = crate::pkcs11::TokenOptions::from_uri(uri)?;
            options.sessions = options.sessions.max(users);
            Ok(Arc::new(crate::pkcs11::Token::open(options)?))
        }
        #[cfg(feature = "tpm")]
        Scheme::Tpm2 => Ok(Arc::new(crate::tpm2::Tpm::open(crate::tpm2::TpmOptions::from_uri(uri)?)?)),
        scheme => Err(Error::Unsupported {
            what: format!("a {scheme}: reference"),
            reason: "this keyring has no such place",
        }),
    }
}

/// The part of a reference that names the place, with lengths, so that no value can look like another attribute.
fn place_name(uri: &KeyUri) -> String {
    let mut name = uri.scheme().as_str().to_owned();
    for attribute in PLACE_ATTRIBUTES {
        if let Some(value) = uri.path_attribute(attribute).or_else(|| uri.query_attribute(attribute)) {
            // Writing to a String cannot fail.
            let _ = write!(name, ";{attribute}:{}:{value}", value.len());
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::{KdfProfile, Keystore, KeystoreOptions};
    use crate::{KeyAlgorithm, KeyLabel, Passphrase, Purpose};

    fn keyring() -> (tempfile::TempDir, Keyring) {
        let folder = tempfile::tempdir().unwrap();
        let options = KeystoreOptions::default().with_kdf(KdfProfile::DangerForTests);
        let passphrase = Passphrase::new(b"a passphrase for tests".to_vec()).unwrap();
        let store = Keystore::create_with(&folder.path().join("keys"), &passphrase, options).unwrap();
        (folder, Keyring::new(store))
    }

    #[test]
    fn a_reference_leads_to_the_home_or_is_refused_with_the_missing_feature() {
        let (_folder, keyring) = keyring();
        let spec = KeySpec::new("issuing", KeyAlgorithm::EcdsaP256, [Purpose::Certificate]).unwrap();
        let made = keyring.generate(&spec).unwrap();
        let uri = keyring.reference(&KeyLabel::new("issuing").unwrap()).unwrap();
        assert_eq!(uri.spki_sha256(), Some(made.public_key().spki_sha256()));
        assert_eq!(keyring.open(&uri).unwrap().public_key(), made.public_key());
        assert_eq!(keyring.health(), Health::Usable);
        let missing = keyring.reference(&KeyLabel::new("nobody").unwrap());
        assert!(matches!(missing, Err(Error::NotFound { .. })));
        let elsewhere = KeyUri::parse("yubihsm:id=%01").unwrap();
        assert!(matches!(keyring.open(&elsewhere), Err(Error::Unsupported { .. })));
        if !cfg!(feature = "pkcs11") {
            let token = KeyUri::parse("pkcs11:token=t;object=k?module-path=/m&pin-source=env:P").unwrap();
            assert!(keyring.open(&token).unwrap_err().to_string().contains("cargo feature pkcs11"));
        }
    }

    #[test]
    fn places_differ_by_the_way_there_and_not_by_the_key() {
        let name = |text: &str| place_name(&KeyUri::parse(text).unwrap());
        let one = name("pkcs11:token=ca;object=a?module-path=/m&pin-source=env:P");
        assert_eq!(one, name("pkcs11:token=ca;id=%01?module-path=/m&pin-source=env:P"));
        assert_ne!(one, name("pkcs11:token=cb;object=a?module-path=/m&pin-source=env:P"));
        assert_ne!(one, name("pkcs11:token=ca;object=a?module-path=/n&pin-source=env:P"));
    }
}
