//! Who may do what.
//!
//! | role | without `[admin]`, which loopback only may be | with `[admin]` | with `[[callers]]` besides |
//! |---|---|---|---|
//! | read: status, what is loaded, runs or is deployed, verdicts, receipts | everybody | administrators and holders of an accepted client certificate | administrators and callers |
//! | execute | everybody | the same | administrators and callers of the role `execute`, for the agents that are named |
//! | load, unload, deploy, promote, roll back | everybody | administrators | administrators and callers of the role `deploy`, for the agents that are named |
//! | stop, hold, resume | everybody | administrators | administrators and callers of the role `stop` |
//! | refresh, drain, try a policy | everybody | administrators | administrators |
//!
//! Health, and the page's files, which say nothing of what they show, are everybody's. A caller for whom agents are named
//! reads what is about them, and not the receipt log as a whole.
//!
//! With `[admin]` a loopback address gives no right: behind a proxy or a sidecar of this machine, every caller has one.
//!
//! "Everybody on loopback" means the programs of this machine, not the web pages that its browsers show: what a page
//! of another origin sends is refused, and so is what comes under a name that somebody else's DNS leads here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderMap, Method};
use service::admin::{AdminAuth, AdminConfig, AdminIdentity};
use service::{Peer, StartRefusal};

use crate::admission::Denied;
use crate::callers::Caller;
use crate::config::{CallerRole, CallerSettings};

/// Decides by headers and connection.
#[derive(Debug, Clone)]
pub struct Access {
    administrators: Option<Arc<Administrators>>,
    callers: Arc<[Known]>,
    loopback: bool,
}

/// Who is let in to do everything.
#[derive(Debug)]
struct Administrators {
    auth: AdminAuth,
    /// Whom each of them is as a caller, made once: by the name of what recognised it.
    callers: HashMap<String, Caller>,
}

/// A caller that is named in the configuration.
#[derive(Debug)]
struct Known {
    auth: AdminAuth,
    role: CallerRole,
    caller: Caller,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whatever changes the executor itself.
    Administer,
    /// Load releases, unload them, and say which one serves.
    Deploy,
    /// Execute.
    Execute,
    /// Look, and get the verdict on what is sent along.
    Read,
    /// End calls, and let releases run no more until that is taken back.
    Stop,
}

impl Access {
    /// `loopback` says whether only this machine reaches the listener; the configuration refuses a reachable one
    /// without administrators, and callers without them.
    ///
    /// # Errors
    ///
    /// When a token file cannot be used.
    pub fn new(
        admin: &AdminConfig,
        callers: &[CallerSettings],
        loopback: bool,
    ) -> Result<Self, StartRefusal> {
        let administrators =
            if *admin == AdminConfig::default() { None } else { Some(Arc::new(Administrators::new(admin)?)) };
        let known = |named: &CallerSettings| {
            let caller = Caller::new(format!("caller:{}", named.name));
            let caller = match &named.agents {
                Some(agents) => caller.limited_to(agents.clone()),
                None => caller,
            };
            Ok(Known { auth: AdminAuth::new(&named.who)?, role: named.role, caller })
        };
        let callers = callers.iter().map(known).collect::<Result<Arc<[_]>, StartRefusal>>()?;
        Ok(Self { administrators, callers, loopback })
    }

    /// Lets a caller through, and says who it is.
    ///
    /// # Errors
    ///
    /// `unauthorized` for somebody who is not known, `role_not_allowed` for somebody who is.
    pub fn check(&self, role: Role, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Denied> {
        let Some(administrators) = &self.administrators else { return Ok(Caller::default()) };
        if let Some(identity) = administrators.auth.recognise(headers, peer) {
            return Ok(administrators.caller(&identity));
        }
        let named = self.callers.iter().find(|known| known.auth.recognise(headers, peer).is_some());
        let (caller, held) = match (named, peer.certificate()) {
            (Some(known), _) => (known.caller.clone(), known.role),
            // Where nobody is named, an accepted certificate is enough to call.
            (None, Some(certificate)) if self.callers.is_empty() => {
                (Caller::new(format!("certificate:{}", certificate.subject())), CallerRole::Execute)
            }
            _ => {
                let text = "a token or client certificate of somebody who may do this is needed";
                return Err(Denied::new("unauthorized", text)
                    .for_operator(format!("caller not recognised, peer {}", peer.address())));
            }
        };
        let includes = match role {
            Role::Administer => false,
            Role::Deploy => held == CallerRole::Deploy,
            Role::Execute => held == CallerRole::Execute,
            Role::Read => true,
            Role::Stop => held == CallerRole::Stop,
        };
        if includes {
            return Ok(caller);
        }
        let text = "this caller's role does not include this";
        Err(Denied::new("role_not_allowed", text).for_operator(format!("{}: {role:?}", caller.name())))
    }

    /// Refuses what a web page in a browser of this machine can cause. `authority` is the host that the request
    /// names; a browser always names one.
    ///
    /// # Errors
    ///
    /// `host_not_local`, `foreign_origin` or `unsupported_media_type`.
    pub fn not_from_a_page(
        &self,
        method: &Method,
        authority: Option<&Authority>,
        headers: &HeaderMap,
    ) -> Result<(), Denied> {
        if self.loopback && authority.is_some_and(|authority| !is_this_machine(authority.host())) {
            let text = "this listener answers to loopback addresses and localhost only";
            return Err(Denied::new("host_not_local", text));
        }
        for origin in headers.get_all(http::header::ORIGIN) {
            let host = origin.to_str().ok().and_then(|text| text.parse::<http::Uri>().ok());
            let own =
                host.as_ref().and_then(http::Uri::authority).is_some_and(|origin| Some(origin) == authority);
            if !own {
                return Err(foreign_origin());
            }
        }
        let json = |value: &http::HeaderValue| {
            let kind = value.to_str().ok().and_then(|text| text.split(';').next());
            kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        };
        if method == Method::POST && !headers.get(http::header::CONTENT_TYPE).is_some_and(json) {
            let text = "send the header `content-type: application/json`";
            return Err(Denied::new("unsupported_media_type", text));
        }
        Ok(())
    }
}

impl Administrators {
    fn new(admin: &AdminConfig) -> Result<Self, StartRefusal> {
        let subjects =
            admin.subjects.iter().map(|subject| AdminIdentity::Certificate { subject: subject.clone() });
        let identities = subjects.chain([AdminIdentity::Token]);
        let callers = identities.map(|identity| (identity.name().to_owned(), administrator(&identity)));
        Ok(Self { auth: AdminAuth::new(admin)?, callers: callers.collect() })
    }

    fn caller(&self, identity: &AdminIdentity) -> Caller {
        let known = self.callers.get(identity.name()).cloned();
        known.unwrap_or_else(|| administrator(identity))
    }
}

fn administrator(identity: &AdminIdentity) -> Caller {
    Caller::new(format!("administrator:{}", identity.name()))
}

/// A web page asks.
pub(super) fn foreign_origin() -> Denied {
    Denied::new("foreign_origin", "a page of another origin asks for this")
}

fn is_this_machine(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(authority: &str, headers: &[(&str, &str)]) -> Option<&'static str> {
        let access = Access::new(&AdminConfig::default(), &[], true).unwrap();
        let mut map = HeaderMap::new();
        map.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json; charset=utf-8"),
        );
        for (name, value) in headers {
            map.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let authority: Authority = authority.parse().unwrap();
        access.not_from_a_page(&Method::POST, Some(&authority), &map).err().map(|denied| denied.code)
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
            assert_eq!(refusal(host, &[]), Some("host_not_local"), "{host}");
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "garbage here"] {
            let refused = refusal("127.0.0.1:8446", &[("origin", origin)]);
            assert_eq!(refused, Some("foreign_origin"), "{origin}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
            let refused = refusal("127.0.0.1:8446", &[("content-type", kind)]);
            assert_eq!(refused, Some("unsupported_media_type"), "{kind}");
        }
    }

    /// A peer, with a certificate for this common name.
    fn peer(name: Option<&str>) -> Peer {
        let certificate = name.map(|name| {
            let mut parameters = rcgen::CertificateParams::default();
            parameters.distinguished_name = rcgen::DistinguishedName::new();
            parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            service::peer::ClientCertificate::new(certificate.der().clone()).unwrap()
        });
        Peer::new(([10, 0, 0, 1], 1).into(), service::peer::ListenerKind::Primary, certificate)
    }

    fn named(name: &str, role: CallerRole, agents: Option<&str>) -> CallerSettings {
        let who = AdminConfig { subjects: vec![format!("CN={name}")], ..AdminConfig::default() };
        CallerSettings { name: name.into(), role, who, agents: agents.map(|agents| vec![agents.to_owned()]) }
    }

    #[test]
    fn a_certificate_gives_the_role_that_its_subject_has_and_none_that_nobody_named() {
        let admin = AdminConfig { subjects: vec!["CN=root".into()], ..AdminConfig::default() };
        let alone = Access::new(&admin, &[], false).unwrap();
        let callers = [
            named("billing", CallerRole::Execute, Some("billing.*")),
            named("eve", CallerRole::Read, None),
            named("pipeline", CallerRole::Deploy, None),
            named("guard", CallerRole::Stop, None),
        ];
        let listed = Access::new(&admin, &callers, false).unwrap();
        let (unknown, not_allowed) = (Err("unauthorized"), Err("role_not_allowed"));
        let reads_and = |own: Role| {
            [Role::Read, Role::Execute, Role::Deploy, Role::Stop, Role::Administer]
                .map(|role| if role == Role::Read || role == own { Ok(()) } else { not_allowed })
        };
        for (access, who, roles) in [
            (&alone, Some("root"), [Ok(()); 5]),
            (&alone, Some("stranger"), reads_and(Role::Execute)),
            (&alone, None, [unknown; 5]),
            (&listed, Some("root"), [Ok(()); 5]),
            (&listed, Some("billing"), reads_and(Role::Execute)),
            (&listed, Some("eve"), reads_and(Role::Read)),
            (&listed, Some("pipeline"), reads_and(Role::Deploy)),
            (&listed, Some("guard"), reads_and(Role::Stop)),
            (&listed, Some("stranger"), [unknown; 5]),
            (&listed, None, [unknown; 5]),
        ] {
            let peer = peer(who);
            let got = [Role::Read, Role::Execute, Role::Deploy, Role::Stop, Role::Administer].map(|role| {
                access.check(role, &HeaderMap::new(), &peer).map(drop).map_err(|denied| denied.code)
            });
            assert_eq!(got, roles, "{who:?}");
        }
        // As whom it is known, whatever recognised it, is the same each time, and nothing that is made for a request.
        let root = || listed.check(Role::Administer, &HeaderMap::new(), &peer(Some("root"))).unwrap();
        assert_eq!(&**root().name(), "administrator:CN=root");
        assert!(Arc::ptr_eq(root().name(), root().name()));
        let billing = listed.check(Role::Execute, &HeaderMap::new(), &peer(Some("billing"))).unwrap();
        assert!(billing.may_call("billing.invoice") && !billing.may_call("mail.send"));
        // Two who hold certificates are two, for whatever is kept for one of them.
        let of = |name| alone.check(Role::Execute, &HeaderMap::new(), &peer(Some(name))).unwrap();
        assert_ne!(of("a"), of("b"));
    }
}
