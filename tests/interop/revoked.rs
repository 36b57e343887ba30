//! A good and a revoked certificate of one authority, with what their status is published in.

use std::path::Path;
use std::time::Duration;

use mentat_tests::agent::enrol;
use mentat_tests::stack::Stack;

use crate::run;

/// One certificate, in files.
pub(crate) struct Subject {
    pub(crate) leaf: String,
    /// The list of its shard, DER and PEM.
    pub(crate) crl: String,
    pub(crate) crl_pem: String,
}

/// What programs judge.
pub(crate) struct Pair {
    pub(crate) good: Subject,
    pub(crate) revoked: Subject,
    pub(crate) issuer: String,
    pub(crate) root: String,
    /// The root's list, DER.
    pub(crate) root_crl: String,
    pub(crate) ocsp: String,
}

impl Pair {
    /// Enrols twice, revokes one, and waits until its list says so.
    pub(crate) async fn of(stack: &Stack, dir: &Path) -> Self {
        let file = |name: &str| dir.join(name).display().to_string();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let issuer = file("issuer.pem");
        let mut subjects = Vec::new();
        for name in ["good", "revoked"] {
            let (cert, _) = enrol(stack, &format!("{name}@example.com"), name);
            let text = std::fs::read_to_string(&cert).unwrap();
            let end = "-----END CERTIFICATE-----\n";
            let (leaf, rest) = text.split_at(text.find(end).unwrap() + end.len());
            let path = file(&format!("{name}.leaf.pem"));
            std::fs::write(&path, leaf).unwrap();
            std::fs::write(&issuer, rest).unwrap();
            subjects.push((cert, path));
        }
        stack.ctl(&["pki", "revoke", "--cert", &subjects[1].0, "--reason", "superseded"]).success();
        let revoked = subject(&client, &subjects[1].1, &file("revoked.crl"), "Serial Number").await;
        let good = subject(&client, &subjects[0].1, &file("good.crl"), "Issuer").await;
        let root_crl = file("root.crl");
        fetch(&client, &distribution_point(&issuer), &root_crl).await;
        let (_, ocsp) = run("openssl", &["x509", "-in", &good.leaf, "-noout", "-ocsp_uri"]);
        let root = stack.dir().join("ca-service/chains/root.pem").display().to_string();
        Self { good, revoked, issuer, root, root_crl, ocsp: ocsp.trim().to_owned() }
    }

    /// Revokes the issuer, and waits until the root's list says so.
    pub(crate) async fn revoke_issuer(&self, stack: &Stack) {
        stack.ctl(&["pki", "revoke", "--cert", &self.issuer, "--reason", "ca-compromise"]).success();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        subject(&client, &self.issuer, &self.root_crl, "CA Compromise").await;
    }
}

/// Fetches a certificate's list until its text has these words: lists follow within the publish interval.
async fn subject(client: &reqwest::Client, leaf: &str, crl: &str, words: &str) -> Subject {
    let url = distribution_point(leaf);
    let pem = format!("{crl}.pem");
    for _ in 0..100 {
        fetch(client, &url, crl).await;
        let (ok, text) = run("openssl", &["crl", "-inform", "DER", "-in", crl, "-noout", "-text"]);
        assert!(ok, "{text}");
        if text.contains(words) {
            let (ok, said) = run("openssl", &["crl", "-inform", "DER", "-in", crl, "-out", &pem]);
            assert!(ok, "{said}");
            return Subject { leaf: leaf.to_owned(), crl: crl.to_owned(), crl_pem: pem };
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{url} never said {words}");
}

async fn fetch(client: &reqwest::Client, url: &str, path: &str) {
    let der = client.get(url).send().await.unwrap().bytes().await.unwrap();
    std::fs::write(path, der).unwrap();
}

fn distribution_point(certificate: &str) -> String {
    let (_, said) = run("openssl", &["x509", "-in", certificate, "-noout", "-ext", "crlDistributionPoints"]);
    let url = said.split("URI:").nth(1).unwrap_or_else(|| panic!("no distribution point: {said}"));
    url.split_whitespace().next().unwrap().to_owned()
}
