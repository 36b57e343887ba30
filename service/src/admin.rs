//! Who may administer a server: the bearer of a token, or the holder of a listed client certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use warp::Filter;
use zeroize::Zeroizing;

use crate::exit::StartRefusal;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::secret;

/// Shortest token, in bytes: 128 bits in hex.
const MIN_TOKEN_LEN: usize = 32;
const MAX_TOKEN_LEN: usize = 512;

/// The `[admin]` section. Nobody is an administrator when it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// File with the bearer token, readable by its owner only.
    #[serde(alias = "admin_token_file", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Subjects of client certificates (`CN=operator,O=Example`), compared whole.
    #[serde(alias = "admin_subjects", skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
}

impl AdminConfig {
    /// Makes relative paths start at `base`, the folder of the configuration file.
    pub fn resolve_paths(&mut self, base: &Path) {
        if let Some(file) = &mut self.token_file {
            *file = base.join(&*file);
        }
    }
}

/// Who an administrator was recognised as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminIdentity {
    /// By client certificate.
    Certificate {
        /// Its subject.
        subject: String,
    },
    /// By the token.
    Token,
}

impl AdminIdentity {
    /// The name audit records carry: `token`, or the certificate's subject.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Certificate { subject } => subject,
            Self::Token => "token",
        }
    }
}

struct Inner {
    token: Option<Zeroizing<Vec<u8>>>,
    subjects: Vec<String>,
}

/// Recognises administrators. Cheap to clone.
#[derive(Clone)]
pub struct AdminAuth(Arc<Inner>);

impl AdminAuth {
    /// Loads what the section names.
    ///
    /// # Errors
    /// [`StartRefusal`] when the token file cannot be read, is open to others, or holds fewer than 32 bytes.
    pub fn new(config: &AdminConfig) -> Result<Self, StartRefusal> {
        let token = config.token_file.as_deref().map(read_token).transpose()?;
        Ok(Self(Arc::new(Inner { token, subjects: config.subjects.clone() })))
    }

    /// Who sends a request, by its certificate or its `Authorization` header; nothing for everybody else.
    #[must_use]
    pub fn recognise(&self, headers: &HeaderMap, peer: &Peer) -> Option<AdminIdentity> {
        if let Some(certificate) = peer.certificate()
            && self.0.subjects.iter().any(|subject| subject == certificate.subject())
        {
            return Some(AdminIdentity::Certificate { subject: certificate.subject().to_owned() });
        }
        let presented = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let presented = presented.and_then(|value| value.strip_prefix(b"Bearer "));
        match (&self.0.token, presented) {
            // Constant time in the content; the length of the token is no secret.
            (Some(token), Some(presented)) if bool::from(token.as_slice().ct_eq(presented)) => {
                Some(AdminIdentity::Token)
            }
            _ => None,
        }
    }

    /// The same, with a refusal for everybody else.
    ///
    /// # Errors
    /// A 401 [`Problem`] that does not say which part was wrong.
    pub fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<AdminIdentity, Problem> {
        self.recognise(headers, peer).ok_or_else(|| {
            Problem::unauthorized("an administrator's token or client certificate is needed")
                .with_internal(format!("administrator not recognised, peer {}", peer.address()))
        })
    }

    /// Lets only administrators through and says who it was.
    pub fn filter(
        &self,
    ) -> impl Filter<Extract = (AdminIdentity,), Error = warp::Rejection> + Clone + Send + Sync + 'static
    {
        let auth = self.clone();
        warp::header::headers_cloned().and(crate::peer::peer()).and_then(
            move |headers: HeaderMap, peer: Peer| {
                let identity = auth.authenticate(&headers, &peer).map_err(warp::Rejection::from);
                std::future::ready(identity)
            },
        )
    }
}

impl std::fmt::Debug for AdminAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.0.token.as_ref().map(|_| "(redacted)");
        f.debug_struct("AdminAuth").field("token", &token).field("subjects", &self.0.subjects).finish()
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<Vec<u8>>, StartRefusal> {
    let token = secret::read_line(path, MAX_TOKEN_LEN)?;
    let usable = token.len() >= MIN_TOKEN_LEN && token.iter().all(u8::is_ascii_graphic);
    if usable {
        Ok(token)
    } else {
        Err(StartRefusal::new(
            format!("{} holds no usable token", path.display()),
            "write at least 32 random printable characters into it, for example: openssl rand -hex 32",
        ))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::peer::ListenerKind;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn peer() -> Peer {
        Peer::new(([127, 0, 0, 1], 1).into(), ListenerKind::Primary, None)
    }

    fn with_token(token: &str) -> Result<AdminAuth, StartRefusal> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        secret::write_new(&path, token.as_bytes()).unwrap();
        AdminAuth::new(&AdminConfig { token_file: Some(path), subjects: Vec::new() })
    }

    fn bearing(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_the_exact_token_is_accepted() {
        let auth = with_token(&format!("{TOKEN}\n")).unwrap();
        let right = bearing("Bearer 0123456789abcdef0123456789abcdef");
        assert_eq!(auth.authenticate(&right, &peer()).unwrap(), AdminIdentity::Token);
        for wrong in [
            "Bearer 0123456789abcdef0123456789abcdeF",
            "Bearer ",
            "Bearer 0123456789abcdef0123456789abcdef0",
            "Basic 0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(auth.authenticate(&bearing(wrong), &peer()).unwrap_err().status(), 401, "{wrong}");
        }
        assert!(auth.authenticate(&HeaderMap::new(), &peer()).is_err());
        assert!(!format!("{auth:?}").contains(TOKEN));
    }

    #[test]
    fn without_configuration_nobody_is_an_administrator() {
        let auth = AdminAuth::new(&AdminConfig::default()).unwrap();
        assert!(auth.authenticate(&bearing("Bearer "), &peer()).is_err());
    }

    #[test]
    fn short_tokens_are_refused_at_start() {
        assert!(with_token("short").unwrap_err().to_string().contains("32 random"));
    }
}
