//! Where the parts of a stack lie below its folder.

use std::path::{Path, PathBuf};

use super::file::STACK_FILE;
use super::ports::Ports;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::read_text;

/// The paths below one stack's folder.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`, an absolute path.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `stack.json`; written last, so its presence says that the stack is complete.
    pub fn stack_file(&self) -> PathBuf {
        self.root.join(STACK_FILE)
    }

    /// Present while the first start is under way.
    pub fn unfinished_marker(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    /// Locked while the stack runs.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Ports, fixed at the first start.
    pub fn ports_file(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    /// Data of one server.
    pub fn data(&self, server: &str) -> PathBuf {
        self.root.join(server)
    }

    /// Configuration of one server.
    pub fn config(&self, server: &str) -> PathBuf {
        self.root.join("config").join(format!("{server}.toml"))
    }

    /// Passphrase of one server's keystore.
    pub fn passphrase(&self, server: &str) -> PathBuf {
        self.root.join("secrets").join(format!("{server}.passphrase"))
    }

    /// The key of the executor's statements about its receipts.
    pub fn anchor_key(&self) -> PathBuf {
        self.root.join("secrets").join("executor-anchor.pem")
    }

    /// Bearer token of the administrator.
    pub fn admin_token(&self) -> PathBuf {
        self.root.join("secrets").join("admin.token")
    }

    /// What the development issuer asks for before it vouches for anybody.
    pub fn oidc_secret(&self) -> PathBuf {
        self.root.join("secrets").join("oidc.secret")
    }

    /// A file that relying parties read.
    pub fn trust(&self, name: &str) -> PathBuf {
        self.root.join("trust").join(name)
    }

    /// Folder of the private TLS authority, in stacks that speak TLS.
    pub fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// Its certificate: what clients are given to trust.
    pub fn tls_authority(&self) -> PathBuf {
        self.tls().join("ca.crt")
    }

    /// What a server writes to standard error.
    pub fn log_file(&self, server: &str) -> PathBuf {
        self.root.join("output").join(format!("{server}.log"))
    }

    /// The ports that were fixed.
    ///
    /// # Errors
    /// Exit code 78 when the file is damaged.
    pub fn ports(&self) -> Outcome<Ports> {
        let path = self.ports_file();
        let text = read_text(&path).map_err(|failure| Failure { exit: Exit::Refused, ..failure })?;
        serde_json::from_str(&text).or_fail(Exit::Refused, path.display())
    }

    /// Refuses when something that the first start made is gone. What the servers keep they check themselves.
    ///
    /// # Errors
    /// Exit code 78 naming the file.
    pub fn check(&self) -> Outcome<()> {
        let needed = ["transparency-log", "ca-service", "executor"]
            .iter()
            .map(|server| self.config(server))
            .chain(["transparency-log", "ca-service"].iter().map(|server| self.passphrase(server)))
            .chain(["trusted_root.json", "policy.yaml"].iter().map(|name| self.trust(name)))
            .chain([self.admin_token(), self.ports_file()]);
        for path in needed {
            if !path.is_file() {
                return Err(Failure::refused(format!("the stack is damaged: {} is missing", path.display()))
                    .hint("restore it from a backup; keys cannot be made again"));
            }
        }
        Ok(())
    }
}
