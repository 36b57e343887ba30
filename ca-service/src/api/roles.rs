//! Recognises who asks: by a token of the configuration, a client certificate, or an identity token of a configured issuer.
//! What they may then is decided by [`crate::role`].

use std::sync::Arc;

use ca_pki::oid::ObjectIdentifier;
use der::{Tag, Tagged as _};
use http::{HeaderMap, StatusCode};
use service::admin::{AdminAuth, AdminIdentity};
use service::peer::{self, ClientCertificate, Peer};
use service::{Problem, StartRefusal};
use trust_store::certificate::Certificate;
use trust_store::general_name::GeneralName;
use warp::Filter;

use crate::CertificateAuthority;
use crate::oidc::claims::EmailProof;
use crate::queue::person::{Operator, Person};
use crate::role::{Action, Role, RoleHolder};

/// Somebody who was recognised, in a role that reaches.
#[derive(Debug, Clone)]
pub struct Caller {
    role: Role,
    name: String,
    /// By everything that the connection and the token show; none for the bearer of a shared token, who is nobody in particular, and for
    /// whoever cannot be told apart from others.
    person: Option<Person>,
}

impl Caller {
    /// The name that audit records carry, such as `issuer:CN=ci,O=Example`.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("{}:{}", self.role.as_str(), self.name)
    }

    /// The same as somebody whose decisions count by person.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator { actor: self.actor(), person: self.person.clone() }
    }
}

/// Attributes of a subject that many people share: surnames, countries, places, organisations, their parts and numbers, titles, given
/// names and what belongs to them, and domains.
const SHARED: [ObjectIdentifier; 16] = [
    ObjectIdentifier::new_unwrap("2.5.4.4"),
    ObjectIdentifier::new_unwrap("2.5.4.6"),
    ObjectIdentifier::new_unwrap("2.5.4.7"),
    ObjectIdentifier::new_unwrap("2.5.4.8"),
    ObjectIdentifier::new_unwrap("2.5.4.9"),
    ObjectIdentifier::new_unwrap("2.5.4.10"),
    ObjectIdentifier::new_unwrap("2.5.4.11"),
    ObjectIdentifier::new_unwrap("2.5.4.12"),
    ObjectIdentifier::new_unwrap("2.5.4.15"),
    ObjectIdentifier::new_unwrap("2.5.4.17"),
    ObjectIdentifier::new_unwrap("2.5.4.42"),
    ObjectIdentifier::new_unwrap("2.5.4.43"),
    ObjectIdentifier::new_unwrap("2.5.4.44"),
    ObjectIdentifier::new_unwrap("2.5.4.46"),
    ObjectIdentifier::new_unwrap("2.5.4.97"),
    ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25"),
];

/// emailAddress of PKCS #9, 1.2.840.113549.1.9.1.
const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

/// Whether a web page had a browser send a request: it shows its client certificate to whatever page sends it here, and says so by this
/// header with every request that is more than a look.
pub(super) fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::ORIGIN)
}

/// The refusal of what a web page asks for with a certificate that is not its own.
pub(super) fn browser_refused() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "browser_refused")
        .with_detail("what changes something is not taken from a web page")
}

/// What a client certificate names its holder by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    /// What it calls an e-mail address.
    addresses: Vec<String>,
    /// The subject, every value of that which is theirs, and the alternative names.
    others: Vec<String>,
}

/// What the client certificate of a connection names whoever asks over it, for what people must approve. None when it cannot be read.
pub(super) fn connected_as(peer: Option<&Peer>) -> Option<Vec<String>> {
    let Some(certificate) = peer.and_then(Peer::certificate) else { return Some(Vec::new()) };
    let Names { mut addresses, others } = names(certificate)?;
    addresses.extend(others);
    Some(addresses)
}

/// The names of a client certificate. `None` when any of them cannot be read: whoever it names must not pass for somebody else.
fn names(certificate: &ClientCertificate) -> Option<Names> {
    let mut found = Names { addresses: Vec::new(), others: vec![certificate.subject().to_owned()] };
    let parsed = ca_pki::certificate::parse(certificate.der()).ok()?;
    for attribute in parsed.tbs_certificate().subject().iter() {
        let value = text(attribute.value.tag(), attribute.value.value())?;
        if attribute.oid == EMAIL_ADDRESS {
            found.addresses.push(value.to_owned());
        } else if !SHARED.contains(&attribute.oid) || value.contains('@') {
            // What looks like an address is somebody's wherever it stands.
            found.others.push(value.to_owned());
        }
    }
    for name in Certificate::from_der(certificate.der()).ok()?.subject_alternative_names() {
        match name {
            GeneralName::Email(text) => found.addresses.push(text.to_owned()),
            GeneralName::Uri(text) | GeneralName::Dns(text) => found.others.push(text.to_owned()),
            GeneralName::Other { kind, value } => found.others.push(other_name(kind, value)),
            GeneralName::Ip(_) => {}
            _ => return None,
        }
    }
    Some(found)
}

/// The text of a value that is one in UTF-8.
fn text(tag: Tag, octets: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(octets).ok()?;
    match tag {
        Tag::Utf8String => Some(text),
        Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString
        | Tag::TeletexString => Some(text).filter(|text| text.is_ascii()),
        _ => None,
    }
}

/// A name of another kind: the text of a UserPrincipalName, and whatever else by its octets.
fn other_name(kind: &[u8], value: &[u8]) -> String {
    /// 1.3.6.1.4.1.311.20.2.3
    const USER_PRINCIPAL_NAME: [u8; 10] = [0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x14, 2, 3];
    let principal = <der::asn1::Utf8StringRef<'_> as der::Decode<'_>>::from_der(value);
    match principal {
        Ok(name) if kind == USER_PRINCIPAL_NAME => name.as_str().to_owned(),
        _ => format!("{}:{}", hex::encode(kind), hex::encode(value)),
    }
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
        // Our page only looks.
        if action != Action::Read && is_of_a_page(headers) {
            return Err(browser_refused());
        }
        let (mut recognised, mut stranger) = (None, None);
        for (role, auth) in &self.roles {
            match auth.authenticate(headers, peer) {
                Ok(identity) if role.may(action) => {
                    let name = identity.name().to_owned();
                    let person = match (&identity, peer.certificate()) {
                        (AdminIdentity::Certificate { .. }, Some(certificate)) => names(certificate)
                            .and_then(|Names { addresses, others }| {
                                Person::known_by(name.clone(), addresses, others)
                            }),
                        _ => None,
                    };
                    let caller = Caller { role: *role, name, person };
                    self.authority.note_role(&caller.actor()).await;
                    return Ok(caller);
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
            let caller = Caller { role: holder.role, person: bearing(&holder, peer), name: holder.name };
            self.authority.note_role(&caller.actor()).await;
            return Ok(caller);
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

/// Who bears an identity token: by what it says, and by the client certificate of the connection.
fn bearing(holder: &RoleHolder, peer: &Peer) -> Option<Person> {
    let Names { mut addresses, others } = match peer.certificate() {
        Some(certificate) => names(certificate)?,
        None => Names::default(),
    };
    let (verified, claimed) = match holder.email.clone() {
        Some((address, EmailProof::Verified)) => (Some(address), None),
        Some((address, EmailProof::Claimed)) => (None, Some(address)),
        None => (None, None),
    };
    addresses.extend(verified);
    let person = Person::known_by(holder.name.clone(), addresses, others)?;
    Some(person.claiming(claimed))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

#[cfg(test)]
mod tests {
    use rcgen::string::BmpString;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};
    use service::peer::ListenerKind;

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::new(certificate.der().clone()).unwrap()
    }

    fn holder(email: Option<(&str, EmailProof)>) -> RoleHolder {
        let email = email.map(|(address, proof)| (address.to_owned(), proof));
        RoleHolder { role: Role::Approver, name: "oidc:https://id.example.org#1".to_owned(), email }
    }

    fn peer_with(certificate: Option<ClientCertificate>) -> Peer {
        Peer::new(([127, 0, 0, 1], 1).into(), ListenerKind::Primary, certificate)
    }

    #[test]
    fn a_client_certificate_names_its_holder_by_subject_and_addresses() {
        let certificate = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "dev+x@example.com, or so");
            params.subject_alt_names = vec![
                SanType::Rfc822Name("dev@example.com".try_into().unwrap()),
                SanType::OtherName((
                    vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
                    rcgen::OtherNameValue::Utf8String("dev@corp.example".to_owned()),
                )),
            ];
        });
        let subject = certificate.subject().to_owned();
        let found = names(&certificate).unwrap();
        // Whoever is of the same organisation is not the same person; and what a directory calls somebody is no address.
        assert_eq!(found.addresses, ["dev@example.com"]);
        assert_eq!(found.others, [&subject, "dev+x@example.com, or so", "dev@corp.example"]);
    }

    #[test]
    fn what_cannot_be_read_names_nobody_and_nobody_passes_for_somebody_else() {
        let address = |params: &mut CertificateParams| {
            params.subject_alt_names = vec![SanType::Rfc822Name("dev@example.com".try_into().unwrap())];
        };
        let unreadable = certificate(|params| {
            let name = DnValue::BmpString(BmpString::try_from("dev").unwrap());
            params.distinguished_name.push(DnType::CommonName, name);
            address(params);
        });
        assert_eq!(names(&unreadable), None);
        let verified = holder(Some(("a@example.org", EmailProof::Verified)));
        assert_eq!(bearing(&verified, &peer_with(Some(unreadable))), None);
        // Nor does a token without a verified address.
        for email in [None, Some(("a@example.org", EmailProof::Claimed))] {
            assert_eq!(bearing(&holder(email), &peer_with(None)), None);
        }
    }

    #[test]
    fn the_certificate_of_the_connection_counts_beside_the_identity_token() {
        let certificate = certificate(|params| params.distinguished_name.push(DnType::CommonName, "carol"));
        let subject = certificate.subject().to_owned();
        let verified = holder(Some(("a@example.org", EmailProof::Verified)));
        let person = bearing(&verified, &peer_with(Some(certificate))).unwrap();
        assert_eq!(person.name(), "oidc:https://id.example.org#1");
        for name in [subject.as_str(), "carol", "a@example.org", "oidc:https://id.example.org#1"] {
            assert!(person.is(name), "{name}: {person:?}");
        }
        let claimed = holder(Some(("a@example.org", EmailProof::Claimed)));
        let by_certificate = certificate_of("carol@example.org");
        let person = bearing(&claimed, &peer_with(Some(by_certificate))).unwrap();
        assert!(person.is("a@example.org") && person.is("carol@example.org"));
    }

    fn certificate_of(address: &str) -> ClientCertificate {
        let address = address.try_into().unwrap();
        certificate(|params| params.subject_alt_names = vec![SanType::Rfc822Name(address)])
    }
}
