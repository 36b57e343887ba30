//! Who we are to a registry: environment variables, else the file that `docker login` and its kin write.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;
use trust_store::json::base64_decode;
use zeroize::{Zeroize as _, Zeroizing};

use crate::exit::{Failure, Outcome};
use crate::home::read_secret;

/// Name of the user.
const USER: &str = "MENTAT_REGISTRY_USER";
/// Password or access token.
const PASSWORD: &str = "MENTAT_REGISTRY_PASSWORD";

/// A user with a password or an access token. Shown nowhere.
pub struct Credentials {
    /// The user.
    pub user: String,
    /// What proves it.
    pub password: Zeroizing<String>,
}

impl Credentials {
    /// Those for a registry, where there are any.
    ///
    /// # Errors
    /// Exit code 2 when only one of the variables is set, or the file cannot be used; never with a part of a secret.
    pub fn find(registry: &str) -> Outcome<Option<Self>> {
        match (std::env::var(USER), std::env::var(PASSWORD).map(Zeroizing::new)) {
            (Ok(user), Ok(password)) => return Ok(Some(Self { user, password })),
            (Err(_), Err(_)) => {}
            _ => {
                return Err(Failure::usage(format!("one of {USER} and {PASSWORD} is set, the other is not"))
                    .hint("set both, or neither to use what `docker login` stored"));
            }
        }
        let folder = std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
        let Some(path) = folder.map(|folder| folder.join("config.json")).filter(|path| path.is_file()) else {
            return Ok(None);
        };
        let text = read_secret(&path)?;
        // What serde says of a wrong file would quote it.
        let file: File = serde_json::from_str(&text).map_err(|_| {
            Failure::usage(format!("{} is not of the form of `docker login`", path.display()))
        })?;
        file.of(registry)
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    auth: String,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.auth.zeroize();
    }
}

impl File {
    fn of(&self, registry: &str) -> Outcome<Option<Credentials>> {
        let names = [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/")];
        let login = names.iter().find_map(|name| self.auths.get(name)).filter(|login| !login.auth.is_empty());
        let Some(login) = login else { return Ok(None) };
        let unreadable = || {
            Failure::usage(format!("the stored login of {registry} cannot be read"))
                .hint("log in again with `docker login`")
        };
        let bytes = Zeroizing::new(base64_decode("login", &login.auth).map_err(|_| unreadable())?);
        let text = std::str::from_utf8(&bytes).map_err(|_| unreadable())?;
        let (user, password) = text.split_once(':').ok_or_else(unreadable)?;
        Ok(Some(Credentials { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_of_this_registry_is_taken_and_no_other() {
        let file: File = serde_json::from_str(
            r#"{"auths":{"ghcr.io":{"auth":"bWU6czpjcmV0"},"https://r.example":{"auth":"YTpi"},"helper.example":{},
                "bad.example":{"auth":"?"}},"credsStore":"desktop"}"#,
        )
        .unwrap();
        let of = |name: &str| file.of(name).map(|found| found.map(|c| (c.user, c.password.to_string())));
        assert_eq!(of("ghcr.io").unwrap(), Some(("me".into(), "s:cret".into())));
        assert_eq!(of("r.example").unwrap(), Some(("a".into(), "b".into())));
        assert_eq!(of("helper.example").unwrap(), None);
        assert_eq!(of("other.example").unwrap(), None);
        assert!(!of("bad.example").unwrap_err().line().contains('?'));
    }
}
