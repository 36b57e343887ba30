//! Certificate revocation lists.
//!
//! Lists travel over plain http, so whatever stands on the way can answer with anything. A list counts once an
//! authority of the trusted root signed it, and it replaces only the older list of the same scope: neither a forged
//! list nor an authentic one of another shard makes a known revocation forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use trust_store::attestation::Attestation;
use trust_store::crl::Crl;
use trust_store::evidence::Evidence;
use trust_store::extension::DistributionPointName;
use trust_store::general_name::GeneralName;
use trust_store::provider::AwsLc;
use trust_store::verifier::Verifier;
use trust_store::{Certificate, UnixTime};

use super::{EvidenceConfig, Source};
use crate::clock;

/// Largest list that is read, bytes (16 MiB: about 400,000 entries).
const MAX_CRL_BYTES: usize = 16 << 20;

/// Most lists followed at once; further ones named by certificates are not fetched.
const MAX_LISTS: usize = 4096;

/// Largest number of imported lists.
const MAX_IMPORTED: usize = 1024;

/// Most lists one upload may add.
const MAX_PER_UPLOAD: usize = 16;

static CRYPTO: AwsLc = AwsLc;

/// How far ahead of this machine's clock the issuer's may be, seconds.
const MAX_SKEW: i64 = 300;

/// Authentic lists by what they are about, and the places they come from.
pub(super) struct Crls {
    verifier: Verifier,
    http: reqwest::Client,
    bases: Vec<String>,
    configured: BTreeSet<String>,
    lists: Mutex<BTreeMap<String, List>>,
    newest: Mutex<BTreeMap<Scope, Crl>>,
    imported: Mutex<Vec<Crl>>,
}

/// A place from which a list is fetched.
#[derive(Default)]
struct List {
    /// What the last authentic list from here was about.
    scope: Option<Scope>,
    fetched_at: Option<i64>,
    problem: String,
}

/// What a list is about. Only a list of the same scope can say that another one is out of date.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    issuer: Vec<u8>,
    /// Key identifier: an authority of the same name may have had several keys.
    key: Option<Vec<u8>>,
    distribution_point: Option<Vec<u8>>,
    kind: ListKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ListKind {
    Complete,
    Delta,
}

impl Scope {
    fn of(crl: &Crl) -> Self {
        let key = crl.authority_key_identifier().and_then(|authority| authority.key_identifier);
        Self {
            issuer: crl.issuer_der().to_vec(),
            key: key.map(<[u8]>::to_vec),
            distribution_point: crl.distribution_point_der().map(<[u8]>::to_vec),
            kind: if crl.base_number().is_some() { ListKind::Delta } else { ListKind::Complete },
        }
    }
}

impl Crls {
    pub(super) fn new(verifier: Verifier, http: reqwest::Client, config: &EvidenceConfig) -> Self {
        let lists = config.crl_urls.iter().map(|url| (url.clone(), List::default())).collect();
        Self {
            verifier,
            http,
            bases: config.status_bases.clone(),
            configured: config.crl_urls.iter().cloned().collect(),
            lists: Mutex::new(lists),
            newest: Mutex::default(),
            imported: Mutex::default(),
        }
    }

    pub(super) async fn refresh(&self) {
        let urls: Vec<String> = self.lists.lock().keys().cloned().collect();
        // Bounded: the servers asked are the operator's own, and a burst of thousands would be rude to them too.
        for group in urls.chunks(16) {
            join_all(group.iter().map(|url| self.fetch(url))).await;
        }
    }

    /// Lists that the attestation's certificates name, at allowed addresses.
    fn named(&self, attestation: &Attestation) -> BTreeSet<String> {
        let admitted = |url: &String| self.bases.iter().any(|base| begins_with(url, base));
        let certificates = attestation.certificates();
        let uploaded = certificates.flat_map(|certificate| distribution_urls(&certificate));
        let uploaded = uploaded.filter(admitted).take(MAX_PER_UPLOAD);
        // A timestamp authority may be revoked as well; its certificates are those of the trusted root.
        let trusted = self.verifier.material().timestamp_certificates();
        uploaded.chain(trusted.flat_map(distribution_urls).filter(admitted)).collect()
    }

    /// Keeps to what is configured, what these attestations name and what ever gave an authentic list: places that
    /// only refused uploads named are forgotten.
    pub(super) fn follow(&self, attestations: &[Arc<Attestation>]) {
        let named: BTreeSet<String> =
            attestations.iter().flat_map(|attestation| self.named(attestation)).take(MAX_LISTS).collect();
        let mut lists = self.lists.lock();
        lists
            .retain(|url, list| list.scope.is_some() || self.configured.contains(url) || named.contains(url));
        for url in named {
            if lists.len() < MAX_LISTS {
                lists.entry(url).or_default();
            }
        }
    }

    /// Fetches lists that the attestation's certificates name and that are not followed yet.
    pub(super) async fn want(&self, attestation: &Attestation) -> bool {
        let mut wanted = self.named(attestation);
        {
            let mut lists = self.lists.lock();
            wanted.retain(|url| lists.get(url).is_none_or(|list| list.fetched_at.is_none()));
            for url in &wanted {
                if lists.len() < MAX_LISTS {
                    lists.entry(url.clone()).or_default();
                }
            }
        }
        join_all(wanted.iter().map(|url| self.fetch(url))).await;
        !wanted.is_empty()
    }

    /// Takes the lists of a carried file in place of those of the file before. A list that an authority signed is kept
    /// like a fetched one, so that no older list of its scope undoes it; the others are for the verifier to judge.
    pub(super) fn import(&self, evidence: &Evidence) {
        let now = clock::unix_seconds();
        let strange = evidence.revocation().crls.iter().filter(|crl| self.accept(crl, now).is_err());
        let strange: Vec<Crl> = strange.take(MAX_IMPORTED).cloned().collect();
        *self.imported.lock() = strange;
    }

    pub(super) fn collect(&self, evidence: &mut Evidence, sources: &mut Vec<Source>) {
        let lists = self.lists.lock();
        for (url, list) in lists.iter() {
            sources.push(Source {
                kind: "crl",
                url: url.clone(),
                problem: list.problem.clone(),
                fetched_at: list.fetched_at,
            });
        }
        evidence.revocation_mut().crls.extend(self.newest.lock().values().cloned());
        evidence.revocation_mut().crls.extend(self.imported.lock().iter().cloned());
    }

    async fn fetch(&self, url: &str) {
        let now = clock::unix_seconds();
        let outcome = self.download(url).await.and_then(|crl| self.accept(&crl, now));
        let mut lists = self.lists.lock();
        let Some(list) = lists.get_mut(url) else { return };
        match outcome {
            Ok(scope) => {
                // The list was worth keeping, but whatever came from here before is not being renewed.
                let strange = list.scope.as_ref().is_some_and(|known| *known != scope);
                list.problem = if strange {
                    "the list is about something else than before".into()
                } else {
                    String::new()
                };
                list.scope = Some(scope);
                list.fetched_at = Some(now);
            }
            Err(problem) => {
                tracing::warn!(url, problem, "a revocation list could not be fetched");
                list.problem = problem;
            }
        }
    }

    /// Keeps a list that an authority signed, unless a newer one of its scope is known.
    fn accept(&self, crl: &Crl, now: i64) -> Result<Scope, String> {
        let Some(authentic) = self.verifier.material().authenticate_crl(crl, &CRYPTO) else {
            return Err("no authority of the trusted root signed the list".into());
        };
        if authentic.this_update().0 > now.saturating_add(MAX_SKEW) {
            return Err("the list was issued in the future".into());
        }
        if !authentic.is_current(UnixTime(now)) {
            tracing::warn!(
                this_update = authentic.this_update().0,
                "the revocation list served is not current"
            );
        }
        let scope = Scope::of(&authentic);
        let age = |crl: &Crl| (crl.this_update(), crl.number().cloned());
        let mut newest = self.newest.lock();
        // A server that went back to an older list (a stale mirror) does not undo what is known.
        if newest.get(&scope).is_none_or(|known| age(known) <= age(&authentic)) {
            newest.insert(scope.clone(), authentic);
        }
        Ok(scope)
    }

    async fn download(&self, url: &str) -> Result<Crl, String> {
        let mut response = self.http.get(url).send().await.map_err(|error| cause(&error))?;
        if !response.status().is_success() {
            return Err(format!("HTTP status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
            if body.len() + chunk.len() > MAX_CRL_BYTES {
                return Err(format!("larger than {MAX_CRL_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Crl::from_der(&body).map_err(|denial| denial.to_string())
    }
}

/// The innermost cause: "connection refused" says more than "error sending request".
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Where a certificate says that lists about it are.
pub(crate) fn distribution_urls(certificate: &Certificate) -> Vec<String> {
    let Some(points) = certificate.crl_distribution_points() else { return Vec::new() };
    let mut urls = Vec::new();
    for point in points.iter() {
        if let Some(DistributionPointName::Full(names)) = point.name {
            urls.extend(names.iter().filter_map(|name| match name {
                GeneralName::Uri(uri) if uri.len() <= 2048 => Some(uri.to_owned()),
                _ => None,
            }));
        }
    }
    urls
}

/// Whether `url` lies below `base`, compared as the client will ask for it: parsed, with `..` and its escaped forms
/// resolved. So `http://ca.example` does not admit `http://ca.example.evil`, and no path leads out of the base.
pub(super) fn begins_with(url: &str, base: &str) -> bool {
    let (Ok(url), Ok(base)) = (reqwest::Url::parse(url), reqwest::Url::parse(base)) else { return false };
    let below = url.path().strip_prefix(base.path().trim_end_matches('/'));
    // One list has one address: a query would give it any number of them.
    url.scheme() == base.scheme()
        && url.host() == base.host()
        && url.port_or_known_default() == base.port_or_known_default()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && below.is_some_and(|rest| rest.starts_with('/'))
        // Some servers resolve escaped separators after all.
        && !url.path().contains("%2f")
        && !url.path().contains("%2F")
        && !url.path().contains("%5c")
        && !url.path().contains("%5C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_cannot_choose_another_host() {
        let base = "http://ca.example:8080/crl";
        assert!(begins_with("http://ca.example:8080/crl/issuing/3.crl", base));
        for url in [
            "http://ca.example:8080/crl",
            "http://ca.example:8080/crlx/3.crl",
            "http://ca.example:8080/crl/../admin",
            "http://ca.example:8080/crl/%2e%2e/admin",
            "http://ca.example:8080/crl/.%2E/admin",
            "http://ca.example:8080/crl/..%2fadmin",
            "http://ca.example:8080/crl/3.crl?again=1",
            "http://ca.example:80801/crl/3.crl",
            "http://169.254.169.254/latest",
            "https://ca.example:8080/crl/3.crl",
        ] {
            assert!(!begins_with(url, base), "{url}");
        }
        assert!(!begins_with("http://ca.example@evil.example/x", "http://ca.example"));
        assert!(!begins_with("http://ca.example.evil/x", "http://ca.example"));
    }
}
