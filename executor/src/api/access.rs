//! Who may do what.
//!
//! | role | without `[admin]`, which loopback only may be | with `[admin]` |
//! |---|---|---|
//! | read: status, what is loaded, runs or is deployed, receipts | everybody | everybody who reaches the listener |
//! | execute, explain | everybody | administrators and holders of an accepted client certificate |
//! | load, unload, stop, hold, deploy, refresh, drain, try a policy | everybody | administrators |
//!
//! With `[admin]` a loopback address gives no right: behind a proxy or a sidecar of this machine, every caller has one.
//!
//! "Everybody on loopback" means the programs of this machine, not the web pages that its browsers show: what a page
//! of another origin sends is refused, and so is what comes under a name that somebody else's DNS leads here.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use service::admin::{AdminAuth, AdminConfig};
use service::{Peer, Problem, StartRefusal};

/// Decides by headers and connection.
#[derive(Debug, Clone)]
pub struct Access {
    admin: Option<AdminAuth>,
    loopback: bool,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whatever changes what runs here.
    Administer,
    /// Execute, and the verdict on what is sent along.
    Execute,
}

impl Access {
    /// `loopback` says whether only this machine reaches the listener; the configuration refuses a reachable one
    /// without administrators.
    ///
    /// # Errors
    ///
    /// When the token file cannot be used.
    pub fn new(config: &AdminConfig, loopback: bool) -> Result<Self, StartRefusal> {
        let admin = if *config == AdminConfig::default() { None } else { Some(AdminAuth::new(config)?) };
        Ok(Self { admin, loopback })
    }

    /// Lets a caller through.
    ///
    /// # Errors
    ///
    /// A 401 problem.
    pub fn check(&self, role: Role, headers: &HeaderMap, peer: &Peer) -> Result<(), Problem> {
        let Some(admin) = &self.admin else { return Ok(()) };
        if role == Role::Execute && peer.certificate().is_some() {
            return Ok(());
        }
        admin.authenticate(headers, peer).map(drop)
    }

    /// Refuses what a web page in a browser of this machine can cause. `authority` is the host that the request
    /// names; a browser always names one.
    ///
    /// # Errors
    ///
    /// A 421, 403 or 415 problem.
    pub fn not_from_a_page(
        &self,
        method: &Method,
        authority: Option<&Authority>,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        if self.loopback && authority.is_some_and(|authority| !is_this_machine(authority.host())) {
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host_not_local")
                .with_detail("this listener answers to loopback addresses and localhost only"));
        }
        for origin in headers.get_all(http::header::ORIGIN) {
            let host = origin.to_str().ok().and_then(|text| text.parse::<http::Uri>().ok());
            let own =
                host.as_ref().and_then(http::Uri::authority).is_some_and(|origin| Some(origin) == authority);
            if !own {
                return Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin")
                    .with_detail("a page of another origin asks for this"));
            }
        }
        let json = |value: &http::HeaderValue| {
            let kind = value.to_str().ok().and_then(|text| text.split(';').next());
            kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        };
        if method == Method::POST && !headers.get(http::header::CONTENT_TYPE).is_some_and(json) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
                .with_detail("send the header `content-type: application/json`"));
        }
        Ok(())
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(authority: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let access = Access::new(&AdminConfig::default(), true).unwrap();
        let mut map = HeaderMap::new();
        map.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json; charset=utf-8"),
        );
        for (name, value) in headers {
            map.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let authority: Authority = authority.parse().unwrap();
        let refused = access.not_from_a_page(&Method::POST, Some(&authority), &map).err()?;
        Some(refused.status().as_u16())
    }

    #[test]
    fn pages_of_other_origins_and_rebound_names_are_refused() {
        for host in ["127.0.0.1:8446", "127.0.0.4:1", "[::1]:8446", "localhost:8446", "LOCALHOST"] {
            assert_eq!(refusal(host, &[]), None, "{host}");
            assert_eq!(
                refusal(host, &[("origin", &format!("http://{host}"))]),
                None,
                "the page served from here"
            );
        }
        for host in
            ["evil.example:8446", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0"]
        {
            assert_eq!(refusal(host, &[]), Some(421), "{host}");
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "garbage here"] {
            assert_eq!(refusal("127.0.0.1:8446", &[("origin", origin)]), Some(403), "{origin}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            assert_eq!(refusal("127.0.0.1:8446", &[("content-type", kind)]), Some(415), "{kind}");
        }
    }
}
