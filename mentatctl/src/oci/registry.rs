//! A repository of a registry over HTTP (OCI distribution specification 1.1, with the tag fallback for registries that do not
//! know referrers).
//!
//! Nothing a registry says is believed: bytes are compared with the digest that was asked for, sizes are bounded before they are
//! read. Credentials go to the registry and to the token service that it names, over TLS or on this machine, and nowhere else:
//! storage that it redirects to sees none.

use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::layout::{Descriptor, Document, IMAGE, INDEX, Index, MAX_DOCUMENT};
use super::reference::{Digest, Reference, is_this_machine};
use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};

/// How long a blob may take: 64 MiB at 1 Mbit/s.
const TRANSFER: Duration = Duration::from_secs(600);
/// Most redirections of one read.
const MAX_REDIRECTS: usize = 4;
/// Most referrers of one image that are looked at.
const MAX_REFERRERS: usize = 256;
/// How often a list of referrers is written again when somebody else wrote it at the same time.
const ATTEMPTS: usize = 5;
/// Largest answer of a token service, bytes.
const MAX_TOKEN: usize = 1 << 20;

/// What is wanted of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A repository.
pub struct Registry {
    http: Client,
    base: Url,
    repository: String,
    access: Access,
    credentials: Option<Credentials>,
    authorization: Option<HeaderValue>,
}

impl Registry {
    /// The repository of a reference.
    ///
    /// # Errors
    /// Exit code 2 when credentials cannot be read.
    pub fn new(http: Client, reference: &Reference, access: Access) -> Outcome<Self> {
        let base = reference.base().ok_or_else(|| Failure::usage(format!("`{reference}` has no host")))?;
        Ok(Self {
            http,
            base,
            repository: reference.repository.clone(),
            access,
            credentials: Credentials::find(&reference.registry)?,
            authorization: None,
        })
    }

    /// A manifest by tag or digest; `None` where there is none.
    ///
    /// # Errors
    /// Exit code 69 when the registry cannot be reached, 1 when it refuses or its answer is too large.
    pub async fn manifest(&mut self, name: &str) -> Outcome<Option<Vec<u8>>> {
        let url = self.url(&format!("manifests/{name}"))?;
        let accept = HeaderValue::from_static(
            "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json",
        );
        let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
        let response = self.send(Method::GET, url, headers, None).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(read(response, MAX_DOCUMENT).await?)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(response).await),
        }
    }

    /// The bytes that a descriptor points at: exactly those.
    ///
    /// # Errors
    /// Exit code 1 when it is larger than `limit`, absent, or other bytes; 69 when the registry cannot be reached.
    pub async fn blob(&mut self, descriptor: &Descriptor, limit: u64) -> Outcome<Vec<u8>> {
        let size = usize::try_from(descriptor.size).ok().filter(|size| *size as u64 <= limit);
        let size = size.ok_or_else(|| {
            Failure::failed(format!("{} is larger than {limit} bytes", descriptor.digest)).code("too_large")
        })?;
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let response = self.send(Method::GET, url, HeaderMap::new(), None).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(response).await);
        }
        let bytes = read(response, size).await?;
        if bytes.len() != size || Digest::of(&bytes) != descriptor.digest {
            return Err(Failure::failed(format!(
                "the registry answers {} with other bytes",
                descriptor.digest
            ))
            .code("digest_mismatch")
            .hint("do not use this registry until its operator has explained it"));
        }
        Ok(bytes)
    }

    /// Stores a manifest and what it points at; under its digest, and under a tag where one is given.
    ///
    /// # Errors
    /// As [`Registry::manifest`].
    pub async fn push(&mut self, document: &Document) -> Outcome<()> {
        for bytes in &document.blobs {
            self.push_blob(bytes).await?;
        }
        self.put_manifest(&document.descriptor.digest.to_string(), IMAGE, &document.bytes).await.map(drop)
    }

    /// Lets a tag name a manifest.
    ///
    /// # Errors
    /// As [`Registry::manifest`].
    pub async fn tag(&mut self, tag: &str, document: &Document) -> Outcome<()> {
        self.put_manifest(tag, IMAGE, &document.bytes).await.map(drop)
    }

    /// Stores a manifest with a subject, so that it is found by the subject's digest.
    ///
    /// # Errors
    /// As [`Registry::manifest`].
    pub async fn attach(&mut self, subject: Digest, document: &Document) -> Outcome<()> {
        for bytes in &document.blobs {
            self.push_blob(bytes).await?;
        }
        let name = document.descriptor.digest.to_string();
        if self.put_manifest(&name, IMAGE, &document.bytes).await? == Referrers::Known {
            return Ok(());
        }
        // There is no compare and swap: who writes at the same time is noticed by reading again.
        for _ in 0..ATTEMPTS {
            let mut listed = self.fallback(subject).await?;
            if listed.iter().any(|known| known.digest == document.descriptor.digest) {
                return Ok(());
            }
            listed.push(document.descriptor.clone());
            let index = serde_json::to_vec(&Index::of(listed)).or_fail(Exit::Failure, "writing a list")?;
            self.put_manifest(&fallback_tag(subject), INDEX, &index).await?;
        }
        let listed = self.fallback(subject).await?;
        if listed.iter().any(|known| known.digest == document.descriptor.digest) {
            return Ok(());
        }
        Err(Failure::new(Exit::Unavailable, "others keep writing the image's list of referrers")
            .hint("publish again when they are done"))
    }

    /// The referrers of a manifest that are of a type. Anybody who may write there may attach some.
    ///
    /// # Errors
    /// As [`Registry::manifest`].
    pub async fn referrers(&mut self, subject: Digest, artifact_type: &str) -> Outcome<Vec<Descriptor>> {
        let url = self.url(&format!("referrers/{subject}"))?;
        let response = self.send(Method::GET, url, HeaderMap::new(), None).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let known = response.status() == StatusCode::OK && kind.is_some_and(|kind| kind.starts_with(INDEX));
        let listed = if known {
            parse_index(&read(response, MAX_DOCUMENT).await?)?
        } else if response.status().is_server_error() {
            return Err(refused(response).await);
        } else {
            self.fallback(subject).await?
        };
        Ok(listed.into_iter().filter(|d| d.artifact_type.as_deref() == Some(artifact_type)).collect())
    }

    async fn fallback(&mut self, subject: Digest) -> Outcome<Vec<Descriptor>> {
        match self.manifest(&fallback_tag(subject)).await? {
            Some(bytes) => parse_index(&bytes),
            None => Ok(Vec::new()),
        }
    }

    async fn push_blob(&mut self, bytes: &[u8]) -> Outcome<()> {
        let digest = Digest::of(bytes).to_string();
        let there = self.url(&format!("blobs/{digest}"))?;
        if self.send(Method::HEAD, there, HeaderMap::new(), None).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let start = self.url("blobs/uploads/")?;
        let response = self.send(Method::POST, start.clone(), HeaderMap::new(), Some(&[])).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(refused(response).await);
        }
        let mut target = location(&start, &response)?;
        target.query_pairs_mut().append_pair("digest", &digest);
        let octets = HeaderValue::from_static("application/octet-stream");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, octets)]);
        let response = self.send(Method::PUT, target, headers, Some(bytes)).await?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(refused(response).await),
        }
    }

    async fn put_manifest(
        &mut self,
        name: &str,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Outcome<Referrers> {
        let url = self.url(&format!("manifests/{name}"))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        let response = self.send(Method::PUT, url, headers, Some(bytes)).await?;
        if response.status() != StatusCode::CREATED {
            return Err(refused(response).await);
        }
        Ok(if response.headers().contains_key("oci-subject") { Referrers::Known } else { Referrers::Unknown })
    }

    fn url(&self, path: &str) -> Outcome<Url> {
        self.base.join(&format!("v2/{}/{path}", self.repository)).or_fail(Exit::Usage, "the repository")
    }

    /// Sends a request; logs in when the registry asks for it, and follows where a read is redirected.
    async fn send(
        &mut self,
        method: Method,
        mut url: Url,
        headers: HeaderMap,
        body: Option<&[u8]>,
    ) -> Outcome<Response> {
        let mut redirects = 0;
        let mut logins = 0;
        loop {
            let own = url.origin() == self.base.origin();
            let mut request =
                self.http.request(method.clone(), url.clone()).headers(headers.clone()).timeout(TRANSFER);
            if let Some(body) = body {
                request = request.body(body.to_vec());
            }
            if let Some(authorization) = self.authorization.as_ref().filter(|_| own) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            let response = request.send().await.map_err(|error| unreachable(&url, &error))?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && own && logins == 0 {
                logins += 1;
                self.authorization = Some(self.log_in(&response).await?);
            } else if status.is_redirection() && body.is_none() && redirects < MAX_REDIRECTS {
                redirects += 1;
                url = location(&url, &response)?;
            } else {
                return Ok(response);
            }
        }
    }

    /// What a registry's challenge asks for.
    async fn log_in(&self, response: &Response) -> Outcome<HeaderValue> {
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = challenge.unwrap_or_default();
        let value = match challenge.split_once(' ').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest))
        {
            Some((scheme, rest)) if scheme == "bearer" => {
                Zeroizing::new(format!("Bearer {}", self.token(rest).await?.as_str()))
            }
            Some((scheme, _)) if scheme == "basic" => {
                let Some(known) = &self.credentials else { return Err(self.no_login()) };
                let pair = Zeroizing::new(format!("{}:{}", known.user, known.password.as_str()));
                Zeroizing::new(format!("Basic {}", trust_store::json::base64_encode(pair.as_bytes())))
            }
            _ => return Err(self.no_login()),
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| Failure::failed("the registry's token is not one that can be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// A token of the service that the challenge names.
    async fn token(&self, challenge: &str) -> Outcome<Zeroizing<String>> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(alias = "access_token")]
            token: String,
        }
        let realm = parameter(challenge, "realm").and_then(|realm| Url::parse(&realm).ok());
        let realm = realm.filter(|url| url.scheme() == "https" || is_this_machine(url));
        let mut url = realm.ok_or_else(|| {
            Failure::failed("the registry names no token service that speaks TLS")
                .hint("its operator sets the realm to an https address")
        })?;
        let actions = if self.access == Access::Push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", self.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = parameter(challenge, "service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let mut request = self.http.get(url.clone());
        if let Some(known) = &self.credentials {
            request = request.basic_auth(&known.user, Some(known.password.as_str()));
        }
        let response = request.send().await.map_err(|error| unreachable(&url, &error))?;
        if response.status() != StatusCode::OK {
            return Err(self.no_login());
        }
        let bytes = Zeroizing::new(read(response, MAX_TOKEN).await?);
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| Failure::failed("the registry's token service answers without a token"))?;
        Ok(Zeroizing::new(answer.token))
    }

    fn no_login(&self) -> Failure {
        let host = self.base.host_str().unwrap_or_default();
        let what = match self.credentials {
            Some(_) => format!("{host} does not let this user do that in {}", self.repository),
            None => format!("{host} asks for a login"),
        };
        Failure::failed(what).hint(
            "set MENTAT_REGISTRY_USER and MENTAT_REGISTRY_PASSWORD, or use `docker login` without a credential helper",
        )
    }
}

/// Whether a registry lists referrers itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Referrers {
    Known,
    Unknown,
}

/// The tag under which clients list referrers where the registry does not.
fn fallback_tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}

fn parse_index(bytes: &[u8]) -> Outcome<Vec<Descriptor>> {
    let index: Index =
        serde_json::from_slice(bytes).or_fail(Exit::Failure, "the registry's list of referrers")?;
    if index.manifests.len() > MAX_REFERRERS {
        return Err(Failure::failed(format!("the image has more than {MAX_REFERRERS} referrers"))
            .hint("remove those that are not needed from the registry"));
    }
    Ok(index.manifests)
}

/// Where an answer leads: TLS, or this machine.
fn location(from: &Url, response: &Response) -> Outcome<Url> {
    let value = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| from.join(value).ok())
        .filter(|url| url.scheme() == "https" || (is_this_machine(url) && is_this_machine(from)))
        .ok_or_else(|| Failure::failed("the registry leads to no address that speaks TLS"))
}

/// A quoted parameter of a challenge (RFC 9110 section 11.2).
fn parameter(challenge: &str, name: &str) -> Option<String> {
    challenge.split(',').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        key.trim().eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

async fn read(mut response: Response, limit: usize) -> Outcome<Vec<u8>> {
    let url = response.url().clone();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&url, &error))? {
        if bytes.len().saturating_add(chunk.len()) > limit {
            return Err(Failure::failed(format!("the answer of {url} is larger than {limit} bytes"))
                .code("too_large"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn unreachable(url: &Url, error: &reqwest::Error) -> Failure {
    let host = url.host_str().unwrap_or_default();
    Failure::new(Exit::Unavailable, format!("the registry at {host}: {}", chain(error)))
        .hint("is that its address? the same command may be repeated")
}

async fn refused(response: Response) -> Failure {
    let status = response.status();
    let what = format!("the registry answers {status} to {}", response.url().path());
    // Its own words, bounded.
    let words = read(response, 1 << 14).await.unwrap_or_default();
    let words: String = String::from_utf8_lossy(&words).chars().take(200).collect();
    let exit = if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Exit::Unavailable
    } else {
        Exit::Failure
    };
    let failure = Failure::new(exit, format!("{what}: {words}"));
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => failure.hint("check the login's rights"),
        StatusCode::NOT_FOUND => failure.hint("check the name of the repository"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_by_name() {
        let challenge = r#"realm="https://auth.example/token",service="r.example",scope="x""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(parameter(challenge, "Service").as_deref(), Some("r.example"));
        assert_eq!(parameter(challenge, "missing"), None);
    }

    #[test]
    fn lists_of_referrers_are_bounded() {
        let one = Descriptor::of(IMAGE, b"x");
        let list = |count| serde_json::to_vec(&Index::of(vec![one.clone(); count])).unwrap();
        assert_eq!(parse_index(&list(MAX_REFERRERS)).unwrap().len(), MAX_REFERRERS);
        assert!(parse_index(&list(MAX_REFERRERS + 1)).is_err());
    }
}
