//! The trust files of a stack: written at the first start, and again at every start after which an authority or log is new.
//!
//! What was listed before stays listed: bundles of then are verified by it. The repository gets whatever is new.

use ca_api::client::CaClient;
use tlog_client::LogSet;
use trust_store::signing_config::ClientTrustConfig;
use trust_store::trusted_root::TrustedRoot;
use trust_store_files::tuf::{SIGNING_CONFIG, TRUSTED_ROOT};

use super::layout::Layout;
use super::ports::Ports;
use super::repository;
use super::stack_client;
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Secrecy, read_file, write_file};
use crate::net::block_on;
use crate::output::Output;
use crate::pki::ca_failure;
use crate::{log, trust};

/// A trusted root and what follows from it, as bytes of files.
pub struct TrustFiles {
    root: Vec<u8>,
    signing: Vec<u8>,
    both: Vec<u8>,
}

impl TrustFiles {
    /// The files of a root.
    ///
    /// # Errors
    /// When the root names no log.
    pub fn of(ports: &Ports, root: &TrustedRoot) -> Outcome<Self> {
        let issuers: Vec<String> = ports.oidc.map(|port| ports.url(port)).into_iter().collect();
        let (ca, log) = (ports.url(ports.ca), ports.url(ports.log));
        let signing = trust::signing_config(&ca, &log, &issuers, root)?;
        let both = ClientTrustConfig::new(root.clone(), signing.clone());
        Ok(Self {
            root: root.to_json().or_fail(Exit::Failure, "writing the trusted root")?,
            signing: signing.to_json().or_fail(Exit::Failure, "writing the signing configuration")?,
            both: both.to_json().or_fail(Exit::Failure, "writing the client trust configuration")?,
        })
    }

    /// Writes them. The root is last: while it lacks what the servers say, the next start begins anew.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, layout: &Layout) -> Outcome<()> {
        let file = |name: &str, bytes: &[u8]| write_file(&layout.trust(name), bytes, Secrecy::Public);
        file("signing_config.json", &self.signing)?;
        file("client_trust_config.json", &self.both)?;
        file("trusted_root.json", &self.root)
    }

    /// What the repository hands out.
    pub fn targets(&self) -> [(&'static str, &[u8]); 2] {
        [(TRUSTED_ROOT, self.root.as_slice()), (SIGNING_CONFIG, self.signing.as_slice())]
    }
}

/// Asks authority and log who they are now, and adds what is new to the trust files and the repository.
///
/// # Errors
/// When a server does not answer, or a file or key cannot be used.
pub fn follow(layout: &Layout, ports: &Ports, out: &Output) -> Outcome<()> {
    let http = stack_client(layout)?;
    let (authorities, logs) = block_on(async {
        let ca = CaClient::new(http.clone(), &ports.url(ports.ca));
        let authorities = ca.authorities().await.map_err(ca_failure)?;
        let logs = LogSet::fetch(http, &ports.url(ports.log)).await;
        Ok((authorities, logs.map_err(log::log_failure)?))
    })?;
    let path = layout.trust("trusted_root.json");
    let mut root = TrustedRoot::parse(&read_file(&path)?).or_fail(Exit::Refused, path.display())?;
    let added = trust::add_instances(&mut root, trust::trusted_root(&trust::chains(&authorities)?, &logs)?);
    if added.is_empty() {
        return Ok(());
    }
    let files = TrustFiles::of(ports, &root)?;
    // The repository first: it is what others follow, and an interruption after it is repeated whole.
    repository::publish(layout, &files)?;
    files.write(layout)?;
    for name in &added {
        out.line(format!("new in the trusted root: {name}"));
    }
    Ok(())
}
