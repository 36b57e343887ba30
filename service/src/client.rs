//! Requests that a server makes itself: whom it believes over TLS, and which certificate it shows.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url, redirect};
use zeroize::Zeroizing;

use crate::exit::StartRefusal;
use crate::{secret, tls};

/// TLS of requests to another server, validated: a certificate is never without its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    section: String,
    authorities: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// The files of a configuration section: `tls_ca_file` with the authorities of the other server's certificate
    /// (absent: those of the system), `tls_cert_file` with the certificate to show and `tls_key_file` with its key.
    ///
    /// # Errors
    /// [`StartRefusal`] when one of certificate and key is given without the other.
    pub fn new(
        section: &str,
        authorities: Option<PathBuf>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Self, StartRefusal> {
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(StartRefusal::new(
                    format!("{section}: tls_cert_file and tls_key_file belong together"),
                    "name the client certificate and its key, or neither",
                ));
            }
        };
        Ok(Self { section: section.to_owned(), authorities, identity })
    }

    /// Every file it reads.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.authorities.iter().chain(identity).map(PathBuf::as_path)
    }

    /// The key of the client certificate.
    pub fn key_file(&self) -> Option<&Path> {
        self.identity.as_ref().map(|(_, key)| key.as_path())
    }

    /// Makes sure that requests to `url` do not travel in the clear: plain HTTP stays on this machine, and is never meant
    /// where a client certificate is to be shown. Not for what is signed and published by `http`, as revocation lists are.
    ///
    /// # Errors
    /// [`StartRefusal`] naming `field`.
    pub fn allow(&self, field: &str, url: &str) -> Result<(), StartRefusal> {
        let unusable = || {
            StartRefusal::new(
                format!("{field} is no http or https URL"),
                "write https://HOST:PORT, or http://127.0.0.1:PORT on one machine",
            )
        };
        let url = Url::parse(url).map_err(|error| unusable().because(error))?;
        let Some(host) = url.host_str() else { return Err(unusable()) };
        let on_this_machine = host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|address| address.to_canonical().is_loopback());
        match url.scheme() {
            "https" => Ok(()),
            "http" if !on_this_machine => Err(StartRefusal::new(
                format!("{field} would speak plain HTTP to {host}, which is another machine"),
                "write https://",
            )),
            "http" if self.identity.is_some() => Err(StartRefusal::new(
                format!(
                    "{field} would speak plain HTTP, and the certificate of {}.tls_cert_file would be shown to nobody",
                    self.section
                ),
                "write https://, or remove tls_cert_file and tls_key_file",
            )),
            "http" => Ok(()),
            _ => Err(unusable()),
        }
    }

    /// A client of which one request takes at most `timeout`. It follows no redirects (an address that was allowed must
    /// not lead to one that was not) and no proxies of the environment.
    ///
    /// # Errors
    /// [`StartRefusal`] naming the section and the file that cannot be used.
    pub fn client(&self, timeout: Duration) -> Result<Client, StartRefusal> {
        self.finish(self.with_system(SystemAuthorities::Read)?, timeout)
    }

    /// As [`Self::client`], for requests to this URL only. Whoever is spoken to without TLS shows no certificate, so the
    /// system's authorities are not read, which takes longer than everything else about a client.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn client_for(&self, url: &str, timeout: Duration) -> Result<Client, StartRefusal> {
        let plain = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let system = if plain { SystemAuthorities::Unread } else { SystemAuthorities::Read };
        self.finish(self.with_system(system)?, timeout)
    }

    /// A client to be finished by the caller, for one that needs more than a timeout. It follows no redirects and no
    /// proxies of the environment.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn builder(&self) -> Result<ClientBuilder, StartRefusal> {
        self.with_system(SystemAuthorities::Read)
    }

    fn finish(&self, builder: ClientBuilder, timeout: Duration) -> Result<Client, StartRefusal> {
        // Whether key and certificate belong together shows only here.
        builder.timeout(timeout).build().map_err(|error| {
            let section = &self.section;
            let files: Vec<_> = self.files().map(|file| file.display().to_string()).collect();
            StartRefusal::new(
                format!("{section}: no HTTP client can be made with {}", files.join(", ")),
                "check that the certificate and the key belong together",
            )
            .because(error)
        })
    }

    fn with_system(&self, system: SystemAuthorities) -> Result<ClientBuilder, StartRefusal> {
        let section = &self.section;
        let named = |refusal: StartRefusal| refusal.within(section);
        let mut builder = Client::builder().redirect(redirect::Policy::none()).no_proxy();
        if let Some(path) = &self.authorities {
            let authorities = tls::certificates(path).map_err(named)?;
            let authorities = authorities.iter().map(|der| Certificate::from_der(der));
            let unusable = |error| {
                StartRefusal::new(
                    format!("{section}: {} cannot be used", path.display()),
                    "give a PEM file with the authorities' certificates",
                )
                .because(error)
            };
            let authorities = authorities.collect::<Result<Vec<_>, reqwest::Error>>().map_err(unusable)?;
            builder = builder.tls_certs_only(authorities);
        } else if system == SystemAuthorities::Unread {
            builder = builder.tls_certs_only([]);
        }
        if let Some((certificate, key)) = &self.identity {
            builder = builder.identity(identity(certificate, key).map_err(named)?);
        }
        Ok(builder)
    }
}

/// Whether the system's authorities are read where no others are named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SystemAuthorities {
    Read,
    Unread,
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, StartRefusal> {
    // Both are looked at by themselves first, so that a refusal names the right file.
    let _ = tls::certificates(certificate)?;
    let _ = tls::private_key(key)?;
    let unusable = || {
        StartRefusal::new(
            format!("{} and {} cannot be used", certificate.display(), key.display()),
            "give PEM files: a certificate, then its intermediates; an unencrypted private key",
        )
    };
    let chain = std::fs::read(certificate).map_err(|error| unusable().because(error))?;
    let key = secret::read(key, tls::MAX_PEM_LEN)?;
    let mut pem = Zeroizing::new(Vec::with_capacity(key.len() + 1 + chain.len()));
    pem.extend_from_slice(&key);
    pem.push(b'\n');
    pem.extend_from_slice(&chain);
    Identity::from_pem(&pem).map_err(|error| unusable().because(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn refusal(tls: &ClientTls) -> String {
        tls.client(Duration::from_secs(1)).unwrap_err().to_string()
    }

    #[test]
    fn certificate_and_key_belong_together() {
        let path = || Some(PathBuf::from("x"));
        for (certificate, key) in [(path(), None), (None, path())] {
            let refusal = ClientTls::new("event_log", None, certificate, key).unwrap_err().to_string();
            assert!(refusal.starts_with("event_log: tls_cert_file and tls_key_file"), "{refusal}");
        }
        assert!(
            ClientTls::new("event_log", None, None, None).unwrap().client(Duration::from_secs(1)).is_ok()
        );
    }

    #[tokio::test]
    async fn a_client_is_made_for_either_kind_of_url_and_sends() {
        let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let authority = directory.path().join("ca.crt");
        std::fs::write(&authority, pair.cert.pem()).unwrap();
        let none = ClientTls::new("event_log", None, None, None).unwrap();
        let named = ClientTls::new("event_log", Some(authority), None, None).unwrap();
        for (tls, url) in
            [(&none, "HTTP://127.0.0.1:1"), (&none, "https://127.0.0.1:1"), (&named, "http://127.0.0.1:1")]
        {
            let client = tls.client_for(url, Duration::from_secs(1)).unwrap();
            // Nobody listens there; that the request is sent at all is what counts.
            assert!(client.get(url).send().await.unwrap_err().is_connect(), "{url}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine_and_shows_no_certificate() {
        let path = || Some(PathBuf::from("x"));
        let anonymous = ClientTls::new("issuance_log", path(), None, None).unwrap();
        let certified = ClientTls::new("issuance_log", None, path(), path()).unwrap();
        for (url, without, with) in [
            ("https://log.example.org:8445/issuance", None, None),
            ("https://127.0.0.1", None, None),
            ("http://127.0.0.1:8081/issuance", None, Some("shown to nobody")),
            ("http://127.9.9.9", None, Some("shown to nobody")),
            ("http://[::1]:80", None, Some("shown to nobody")),
            ("http://[::ffff:127.0.0.1]", None, Some("shown to nobody")),
            ("http://localhost:1/x", None, Some("shown to nobody")),
            ("http://10.1.2.3/issuance", Some("plain HTTP to 10.1.2.3"), Some("plain HTTP to 10.1.2.3")),
            ("HTTP://log.example.org", Some("another machine"), Some("another machine")),
            ("http://localhost.example.org", Some("another machine"), Some("another machine")),
            ("http://127.0.0.1.example.org", Some("another machine"), Some("another machine")),
            ("http://127.0.0.1@10.0.0.1/", Some("plain HTTP to 10.0.0.1"), Some("plain HTTP to 10.0.0.1")),
            ("http://[2001:db8::1]/", Some("another machine"), Some("another machine")),
            ("ftp://127.0.0.1", Some("no http or https URL"), Some("no http or https URL")),
            ("log.example.org", Some("no http or https URL"), Some("no http or https URL")),
            ("", Some("no http or https URL"), Some("no http or https URL")),
        ] {
            for (tls, expected) in [(&anonymous, without), (&certified, with)] {
                let told = tls.allow("issuance_log.url", url).err().map(|refusal| refusal.to_string());
                match (expected, told) {
                    (None, None) => {}
                    (Some(expected), Some(told)) => {
                        assert!(
                            told.starts_with("issuance_log.url ") && told.contains(expected),
                            "{url}: {told}"
                        );
                    }
                    (expected, told) => panic!("{url}: {told:?} instead of {expected:?}"),
                }
            }
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_section() {
        let directory = tempfile::tempdir().unwrap();
        let pair = |name: &str| {
            let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            let (certificate, key) =
                (directory.path().join(format!("{name}.crt")), directory.path().join(format!("{name}.key")));
            std::fs::write(&certificate, pair.cert.pem()).unwrap();
            secret::write_new(&key, pair.signing_key.serialize_pem().as_bytes()).unwrap();
            (certificate, key)
        };
        let ((one, one_key), (two, two_key)) = (pair("one"), pair("two"));
        let tls = |ca: &Path, certificate: &Path, key: &Path| {
            let owned = |path: &Path| Some(path.to_path_buf());
            ClientTls::new("issuance_log", owned(ca), owned(certificate), owned(key)).unwrap()
        };
        let good = tls(&two, &one, &one_key);
        assert!(good.client(Duration::from_secs(1)).is_ok());
        assert_eq!(good.files().count(), 3);
        let crossed = refusal(&tls(&two, &one, &two_key));
        assert!(crossed.contains("issuance_log: no HTTP client") && crossed.contains("one.crt"), "{crossed}");
        let no_authority = refusal(&tls(&one_key, &one, &one_key));
        assert!(no_authority.starts_with("issuance_log: ") && no_authority.contains("no certificate"));
        std::fs::set_permissions(&one_key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = refusal(&tls(&two, &one, &one_key));
        assert!(open.starts_with("issuance_log: ") && open.contains("chmod 600"), "{open}");
    }
}
