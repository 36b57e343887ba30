//! Secrets that lie where policies are read from.
//!
//! The sandbox lets this process read the whole folder of a policy, since a file that is replaced is another file. What else lies
//! there is readable by a guest that breaks out.

use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::start::folder_of;

/// A secret of the configuration and the folder that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed {
    /// The file.
    pub(crate) secret: PathBuf,
    /// The folder of a policy.
    pub(crate) folder: PathBuf,
}

/// The secrets that the configuration names and that lie in a folder of a policy, or below it.
pub(crate) fn secrets_beside_policies(settings: &Settings) -> Vec<Exposed> {
    let next = settings.next_policy.as_ref().map(|next| folder_of(&next.file));
    let folders: Vec<PathBuf> = std::iter::once(folder_of(&settings.policy)).chain(next).collect();
    let mut secrets: Vec<&Path> = Vec::new();
    secrets.extend(settings.server.tls.iter().map(|tls| tls.key_file.as_path()));
    secrets.extend(settings.admin.token_file.as_deref());
    secrets.extend(settings.callers.iter().filter_map(|caller| caller.who.token_file.as_deref()));
    secrets.extend(settings.evidence_tls.key_file());
    secrets.extend(settings.network.iter().filter_map(|network| network.tls.key_file()));
    secrets.extend(settings.media_bucket.iter().map(|bucket| bucket.credentials_file.as_path()));
    secrets.extend(settings.anchor.iter().map(|(key, _)| key.as_path()));
    secrets.extend(settings.env.values().map(PathBuf::as_path));
    secrets.push(&settings.state);
    let mut exposed = Vec::new();
    for secret in secrets {
        let place = resolved(secret);
        if let Some(folder) = folders.iter().find(|folder| place.starts_with(resolved(folder))) {
            exposed.push(Exposed { secret: secret.to_owned(), folder: folder.clone() });
        }
    }
    exposed
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BucketStyle, ExecutorConfig, S3Settings};

    #[test]
    fn a_policy_among_secrets_is_noticed_and_one_in_a_folder_of_its_own_is_not() {
        let exposed = |policy: &str| {
            let text = format!(
                "state_dir = '/var/lib/executor'\ntrusted_root = 'trusted_root.json'\npolicy = '{policy}'\n\
                 compiler = 'c'\n[admin]\ntoken_file = 'admin.token'\n[[callers]]\nname = 'c'\nrole = 'read'\ntoken_file = 'read.token'\n[evidence]\nevents = 'https://log.example/event'\ntls_cert_file = 'tls/e.crt'\n\
                 tls_key_file = 'tls/e.key'\n[receipts]\nanchor_key_file = 'anchor.pem'\n[grants.env]\nTOKEN = 'env/token'\n"
            );
            let config: ExecutorConfig = toml::from_str(&text).unwrap();
            let mut settings = config.validate(Path::new("/etc/executor")).unwrap();
            // Its files would have to be there.
            settings.server.tls = Some(service::config::TlsConfig {
                certificate_file: "/etc/executor/tls/s.crt".into(),
                key_file: "/etc/executor/tls/s.key".into(),
                client_ca_file: None,
                client_certificates: service::config::ClientCertificates::default(),
            });
            settings.media_bucket = Some(S3Settings {
                url: "https://s3.example".into(),
                region: "r".into(),
                bucket: "b".into(),
                prefix: String::new(),
                style: BucketStyle::Path,
                credentials_file: "/etc/executor/s3/credentials".into(),
                timeout: std::time::Duration::from_secs(1),
                tls: service::ClientTls::new("media.s3", None, None, None).unwrap(),
            });
            let found = secrets_beside_policies(&settings);
            found.into_iter().map(|one| one.secret.display().to_string()).collect::<Vec<_>>()
        };
        let secret = |name: &str| format!("/etc/executor/{name}");
        let all = [
            "tls/s.key",
            "admin.token",
            "read.token",
            "tls/e.key",
            "s3/credentials",
            "anchor.pem",
            "env/token",
        ]
        .map(secret);
        assert_eq!(exposed("policy.yaml"), all);
        assert_eq!(exposed("policy/policy.yaml"), [""; 0]);
        assert_eq!(exposed("tls/policy.yaml"), ["tls/s.key", "tls/e.key"].map(secret));
        assert_eq!(exposed("/var/lib/executor/policy.yaml"), ["/var/lib/executor"]);
    }
}
