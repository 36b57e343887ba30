//! Where a developer's key is: a file, an environment variable, or a token or key service that is named by a reference.

use std::path::Path;
use std::sync::Arc;

use hsm::developer::DeveloperKey;
use hsm::{KeyAlgorithm, KeyLabel, KeySpec, KeyUri, Passphrase, Purpose, Scheme, Signer};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::Home;
use crate::pki;

/// Where PEM text, or a key, comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A file; for a key also a reference in its place.
    File(&'a Path),
    /// An environment variable, as CI systems hand out secrets.
    Variable(&'a str),
}

/// The reference that stands in the place of a file's name: `pkcs11:…`, `awskms:…`.
///
/// # Errors
/// Exit code 2 when it begins like one and is none, or this program has no backend for it.
pub fn reference(path: &Path) -> Outcome<Option<KeyUri>> {
    let Some(text) = path.to_str() else { return Ok(None) };
    let schemes = [Scheme::Pkcs11, Scheme::AwsKms];
    if !schemes
        .iter()
        .any(|scheme| text.strip_prefix(scheme.as_str()).is_some_and(|rest| rest.starts_with(':')))
    {
        return Ok(None);
    }
    let uri = KeyUri::parse(text).or_fail(Exit::Usage, "the reference of the key")?;
    hsm::keyring::built_with(uri.scheme()).or_fail(Exit::Usage, "the key")?;
    Ok(Some(uri))
}

/// Reads or opens a key; by default that of the home folder.
///
/// # Errors
/// Exit code 2 when it cannot be used.
pub fn read(
    key: Option<Source<'_>>,
    passphrase_file: Option<&Path>,
    home: &Home,
) -> Outcome<Arc<dyn Signer>> {
    let passphrase = passphrase_file.map(pki::passphrase_from).transpose()?;
    match key {
        Some(Source::Variable(name)) => DeveloperKey::from_pem(&variable(name)?, passphrase.as_ref())
            .or_fail(Exit::Usage, name)
            .map_err(pki::key_advice)
            .map(shared),
        Some(Source::File(path)) => open(path, passphrase.as_ref()),
        None => {
            let path = home.signing_key();
            let made = path.exists();
            pki::read_key(&path, passphrase.as_ref()).map(shared).map_err(|failure| match made {
                true => failure,
                false => failure.hint("make one with: mentatctl pki request-cert --email ADDRESS"),
            })
        }
    }
}

/// Opens the key that a file holds, or that a reference in its place leads to.
///
/// # Errors
/// Exit code 2 when it cannot be used.
pub fn open(path: &Path, passphrase: Option<&Passphrase>) -> Outcome<Arc<dyn Signer>> {
    match reference(path)? {
        None => pki::read_key(path, passphrase).map(shared),
        Some(uri) => {
            let key = hsm::keyring::connect(&uri).and_then(|place| place.open(&uri));
            key.or_fail(Exit::Usage, "the key")
        }
    }
}

/// Opens the key that a reference leads to, or makes it there.
///
/// # Errors
/// Exit code 2 when the place cannot be used, or has no such key type.
pub fn open_or_make(uri: &KeyUri, algorithm: KeyAlgorithm) -> Outcome<Arc<dyn Signer>> {
    let place = hsm::keyring::connect(uri).or_fail(Exit::Usage, "the place of the key")?;
    match place.open(uri) {
        Err(hsm::Error::NotFound { .. }) => {}
        opened => return opened.or_fail(Exit::Usage, "the key"),
    }
    let label = uri.path_attribute("object").ok_or_else(|| {
        Failure::usage("the reference does not say what the key is called").hint("add object=NAME to it")
    })?;
    let label = KeyLabel::new(label).or_fail(Exit::Usage, "the key's name")?;
    let spec = KeySpec::new(label.as_str(), algorithm, [Purpose::Request, Purpose::Statement]);
    place.generate(&spec.or_fail(Exit::Usage, "the key")?).or_fail(Exit::Usage, "making the key")
}

/// A key in this process, as those elsewhere are held.
pub fn shared(key: DeveloperKey) -> Arc<dyn Signer> {
    Arc::new(key)
}

/// The text of an environment variable.
///
/// # Errors
/// Exit code 2 when it is not set.
pub fn variable(name: &str) -> Outcome<Zeroizing<String>> {
    std::env::var(name).map(Zeroizing::new).map_err(|_| {
        Failure::usage(format!("the environment variable {name} is not set, or is not text"))
            .hint("put the PEM text into it, or name a file instead")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn a_file_is_no_reference_and_a_reference_without_its_backend_is_refused() {
        for file in ["signing.key", "/etc/pkcs11", "./pkcs11:token=a", "C:key", "pkcs11"] {
            assert!(reference(Path::new(file)).unwrap().is_none(), "{file}");
        }
        let given = "pkcs11:token=ca;object=dev?module-path=/usr/lib/softhsm/libsofthsm2.so";
        match (reference(Path::new(given)), cfg!(feature = "pkcs11")) {
            (Ok(Some(uri)), true) => assert_eq!(uri.path_attribute("object"), Some("dev")),
            (Err(failure), false) => {
                assert_eq!(failure.exit, Exit::Usage);
                assert!(failure.line().contains("cargo feature pkcs11"), "{}", failure.line());
            }
            (other, built) => panic!("{other:?} {built}"),
        }
    }
}
