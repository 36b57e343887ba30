//! Certificate revocation lists.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use parking_lot::Mutex;
use trust_store::attestation::Attestation;
use trust_store::crl::Crl;
use trust_store::evidence::Evidence;
use trust_store::extension::DistributionPointName;
use trust_store::general_name::GeneralName;
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

/// Lists by their URL.
pub(super) struct Crls {
    http: reqwest::Client,
    bases: Vec<String>,
    lists: Mutex<BTreeMap<String, List>>,
    imported: Mutex<Vec<Crl>>,
}

#[derive(Default)]
struct List {
    crl: Option<Crl>,
    fetched_at: Option<i64>,
    problem: String,
}

impl Crls {
    pub(super) fn new(http: reqwest::Client, config: &EvidenceConfig) -> Self {
        let lists = config.crl_urls.iter().map(|url| (url.clone(), List::default())).collect();
        Self {
            http,
            bases: config.status_bases.clone(),
            lists: Mutex::new(lists),
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

    /// Fetches lists that the attestation's certificates name and that are not followed yet.
    pub(super) async fn want(&self, attestation: &Attestation) -> bool {
        let mut wanted: Vec<String> = Vec::new();
        for certificate in attestation.certificate().into_iter().chain(attestation.issuers()) {
            for url in distribution_urls(certificate) {
                let allowed = self.bases.iter().any(|base| begins_with(&url, base));
                if allowed && !wanted.contains(&url) && wanted.len() < MAX_PER_UPLOAD {
                    wanted.push(url);
                }
            }
        }
        {
            let mut lists = self.lists.lock();
            wanted.retain(|url| lists.get(url).is_none_or(|list| list.crl.is_none()));
            for url in &wanted {
                if lists.len() < MAX_LISTS {
                    lists.entry(url.clone()).or_default();
                }
            }
        }
        join_all(wanted.iter().map(|url| self.fetch(url))).await;
        !wanted.is_empty()
    }

    pub(super) fn import(&self, evidence: &Evidence) {
        let mut imported = self.imported.lock();
        imported.extend(evidence.revocation().crls.iter().take(MAX_IMPORTED).cloned());
        let excess = imported.len().saturating_sub(MAX_IMPORTED);
        imported.drain(..excess);
    }

    pub(super) fn collect(&self, evidence: &mut Evidence, sources: &mut Vec<Source>) {
        let lists = self.lists.lock();
        for (url, list) in lists.iter() {
            evidence.revocation_mut().crls.extend(list.crl.clone());
            sources.push(Source {
                kind: "crl",
                url: url.clone(),
                problem: list.problem.clone(),
                fetched_at: list.fetched_at,
            });
        }
        evidence.revocation_mut().crls.extend(self.imported.lock().iter().cloned());
    }

    async fn fetch(&self, url: &str) {
        let outcome = self.download(url).await;
        let mut lists = self.lists.lock();
        let Some(list) = lists.get_mut(url) else { return };
        match outcome {
            Ok(crl) => {
                list.fetched_at = Some(clock::unix_seconds());
                list.problem.clear();
                // A server that went back to an older list (a stale mirror) does not undo what is known.
                if list.crl.as_ref().is_none_or(|known| known.this_update() <= crl.this_update()) {
                    list.crl = Some(crl);
                }
            }
            Err(problem) => {
                tracing::warn!(url, problem, "a revocation list could not be fetched");
                list.problem = problem;
            }
        }
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
        let crl = Crl::from_der(&body).map_err(|denial| denial.to_string())?;
        if !crl.is_current(UnixTime(clock::unix_seconds())) {
            tracing::warn!(url, "the revocation list served is not current");
        }
        Ok(crl)
    }
}

/// The innermost cause: "connection refused" says more than "error sending request".
fn cause(error: &dyn std::error::Error) -> String {
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

/// Whether `url` lies below `base`, compared so that `http://ca.example` does not admit `http://ca.example.evil`.
fn begins_with(url: &str, base: &str) -> bool {
    let base = base.trim_end_matches('/');
    url.strip_prefix(base)
        .is_some_and(|rest| rest.starts_with('/') && !rest.contains("..") && !rest.contains('@'))
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
