//! Recognises who asks: by a token of the configuration, a client certificate, or an identity token of a configured issuer.
//! What they may then is decided by [`crate::role`].

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use service::admin::{AdminAuth, AdminIdentity};
use service::peer::{self, Peer};
use service::{Problem, StartRefusal};
use trust_store::certificate::Certificate;
use trust_store::general_name::GeneralName;
use warp::Filter;

use crate::CertificateAuthority;
use crate::queue::decision::{Decider, Person};
use crate::role::{Action, Role};

/// Somebody who was recognised, in a role that reaches.
#[derive(Debug, Clone)]
pub struct Caller {
    role: Role,
    name: String,
    /// What certificates could name them by; none for the bearer of a shared token, who is nobody in particular.
    addresses: Option<Vec<String>>,
}

impl Caller {
    /// The name that audit records carry, such as `issuer:CN=ci,O=Example`.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("{}:{}", self.role.as_str(), self.name)
    }

    /// The same as somebody who decides about requests.
    #[must_use]
    pub fn decider(&self) -> Decider {
        let person = self.addresses.clone().map(|addresses| Person { name: self.name.clone(), addresses });
        Decider { actor: self.actor(), person }
    }
}

/// What a client certificate names its holder by: every value of its subject, and its own addresses.
fn addresses(peer: &Peer) -> Vec<String> {
    let Some(certificate) = peer.certificate() else { return Vec::new() };
    let mut found = Vec::new();
    if let Ok(parsed) = ca_pki::certificate::parse(certificate.der()) {
        let values = parsed.tbs_certificate().subject().iter().map(|attribute| attribute.value.value());
        found.extend(values.filter_map(|octets| std::str::from_utf8(octets).ok()).map(str::to_owned));
    }
    if let Ok(parsed) = Certificate::from_der(certificate.der()) {
        for name in parsed.subject_alternative_names() {
            if let GeneralName::Email(text) | GeneralName::Uri(text) = name {
                found.push(text.to_owned());
            }
        }
    }
    found
}

/// Recognises callers. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    /// From the highest role down.
    roles: [(Role, AdminAuth); 4],
    authority: Arc<CertificateAuthority>,
}

impl Access {
    /// Loads tokens and subjects.
    ///
    /// # Errors
    /// [`StartRefusal`] when a token file cannot be read, is open to others, or is too short.
    pub fn new(authority: &Arc<CertificateAuthority>) -> Result<Self, StartRefusal> {
        let config = &authority.settings().config;
        Ok(Self {
            roles: [
                (Role::Administrator, AdminAuth::new(&config.admin)?),
                (Role::Issuer, AdminAuth::new(&config.roles.issuer)?),
                (Role::Approver, AdminAuth::new(&config.roles.approver)?),
                (Role::Auditor, AdminAuth::new(&config.roles.auditor)?),
            ],
            authority: Arc::clone(authority),
        })
    }

    /// Recognises the sender of a request in a role that reaches.
    ///
    /// # Errors
    /// 401 for strangers, with the reason where they have an identity token; 403 for those whose roles do not reach.
    pub async fn authorise(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        action: Action,
    ) -> Result<Caller, Problem> {
        // A browser shows its client certificate to whatever page sends it here, and says so by this header with every request
        // that is more than a look. Our page only looks.
        if action != Action::Read && headers.contains_key(http::header::ORIGIN) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "browser_refused")
                .with_detail("what changes something is not taken from a web page"));
        }
        let (mut recognised, mut stranger) = (None, None);
        for (role, auth) in &self.roles {
            match auth.authenticate(headers, peer) {
                Ok(identity) if role.may(action) => {
                    let name = identity.name().to_owned();
                    let addresses = match &identity {
                        AdminIdentity::Certificate { .. } => Some(addresses(peer)),
                        AdminIdentity::Token => None,
                    };
                    return Ok(Caller { role: *role, name, addresses });
                }
                Ok(identity) => recognised = recognised.or(Some((*role, identity))),
                // The first one speaks: every one says the same.
                Err(problem) => stranger = stranger.or(Some(problem)),
            }
        }
        // A client certificate says who connects, whatever else they bear; its bearer may still have a token for this.
        if self.authority.issuers().give_roles()
            && let Some(token) = bearer(headers).filter(|token| token.split('.').count() == 3)
        {
            let holder = self.authority.role_holder(token, action).await?;
            let addresses = Some(holder.email.into_iter().collect());
            return Ok(Caller { role: holder.role, name: holder.name, addresses });
        }
        if let Some((role, identity)) = recognised {
            return Err(Problem::new(StatusCode::FORBIDDEN, "role_insufficient")
                .with_detail(format!("this needs the role {}", action.least_role().as_str()))
                .with_internal(format!("{}:{} asked", role.as_str(), identity.name())));
        }
        Err(stranger.unwrap_or_else(|| Problem::unauthorized("a token or client certificate is needed")))
    }

    /// Lets only those through who may, and says who it was.
    pub fn filter(
        &self,
        action: Action,
    ) -> impl Filter<Extract = (Caller,), Error = warp::Rejection> + Clone + Send + Sync + 'static + use<>
    {
        let access = self.clone();
        warp::header::headers_cloned().and(peer::peer()).and_then(move |headers: HeaderMap, peer: Peer| {
            let access = access.clone();
            async move { access.authorise(&headers, &peer, action).await.map_err(warp::Rejection::from) }
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use service::peer::{ClientCertificate, ListenerKind};

    use super::*;

    #[test]
    fn a_client_certificate_names_its_holder_by_subject_and_addresses() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "dev+x@example.com, or so");
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        let email = "dev@example.com".try_into().unwrap();
        params.subject_alt_names = vec![SanType::Rfc822Name(email)];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate = ClientCertificate::new(certificate.der().clone()).unwrap();
        let peer = Peer::new(([127, 0, 0, 1], 1).into(), ListenerKind::Primary, Some(certificate));
        let mut found = addresses(&peer);
        found.sort();
        assert_eq!(found, ["Example", "dev+x@example.com, or so", "dev@example.com"]);
        assert!(addresses(&Peer::new(([127, 0, 0, 1], 1).into(), ListenerKind::Primary, None)).is_empty());
    }
}
