//! Key objects of a token: finding, reading and making them.

use std::num::NonZeroU32;

use cryptoki::error::Error as Failure;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode as _, Encode as _};

use crate::algorithm::KeyAlgorithm;
use crate::intent::PurposeSet;
use crate::provider::KeySpec;
use crate::public_key::PublicKey;

/// CKA_APPLICATION of the data objects that say what keys are for.
const APPLICATION: &[u8] = b"mentat key policy 1";
/// Longest policy that is read.
const MAX_POLICY: usize = 1024;

const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A key of ours in the token.
pub(super) struct Stored {
    pub(super) label: String,
    pub(super) id: Vec<u8>,
    pub(super) public_key: PublicKey,
    pub(super) purposes: PurposeSet,
    pub(super) max_per_second: Option<NonZeroU32>,
}

/// Finds keys by id, label, or both. Keys without a policy are not ours and are passed over.
pub(super) fn find(
    session: &Session,
    id: Option<&[u8]>,
    label: Option<&str>,
) -> Result<Vec<Stored>, Failure> {
    let mut template = vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        // Who may open the token without its PIN could make a public one.
        Attribute::Private(true),
        Attribute::Application(APPLICATION.to_vec()),
    ];
    if let Some(label) = label {
        template.push(Attribute::Label(label.as_bytes().to_vec()));
    }
    let mut found = Vec::new();
    for policy in session.find_objects(&template)? {
        let Some(policy) = read_policy(session, policy)? else { continue };
        if id.is_some_and(|wanted| wanted != policy.id) {
            continue;
        }
        if let Some(public_key) = read_public_key(session, &policy.id)? {
            found.push(Stored {
                label: policy.label,
                id: policy.id,
                public_key,
                purposes: policy.purposes,
                max_per_second: policy.max_per_second,
            });
        }
    }
    Ok(found)
}

/// The private half of a key.
pub(super) fn private(session: &Session, id: &[u8]) -> Result<Option<ObjectHandle>, Failure> {
    let template =
        [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true), Attribute::Id(id.to_vec())];
    let found = session.find_objects(&template)?;
    Ok(match found.as_slice() {
        [only] => Some(*only),
        _ => None,
    })
}

struct Policy {
    label: String,
    id: Vec<u8>,
    purposes: PurposeSet,
    max_per_second: Option<NonZeroU32>,
}

impl Policy {
    fn to_text(&self) -> String {
        let names: Vec<&str> = self.purposes.iter().map(crate::Purpose::as_str).collect();
        let limit = self.max_per_second.map_or(0, NonZeroU32::get);
        format!(
            "id={}\npurposes={}\nmax-per-second={limit}\n",
            crate::public_key::hex(&self.id),
            names.join(",")
        )
    }

    fn parse(label: String, text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix('=');
        let id = unhex(value("id")?)?;
        let purposes =
            value("purposes")?.split(',').map(|name| name.parse().ok()).collect::<Option<PurposeSet>>()?;
        let max_per_second = NonZeroU32::new(value("max-per-second")?.parse().ok()?);
        Some(Self { label, id, purposes, max_per_second })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    if !digits.remainder().is_empty() {
        return None;
    }
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn read_policy(session: &Session, object: ObjectHandle) -> Result<Option<Policy>, Failure> {
    let (mut label, mut text) = (None, None);
    for attribute in session.get_attributes(object, &[AttributeType::Label, AttributeType::Value])? {
        match attribute {
            Attribute::Label(bytes) => label = String::from_utf8(bytes).ok(),
            Attribute::Value(bytes) if bytes.len() <= MAX_POLICY => text = String::from_utf8(bytes).ok(),
            _ => {}
        }
    }
    Ok(label.zip(text).and_then(|(label, text)| Policy::parse(label, &text)))
}

fn read_public_key(session: &Session, id: &[u8]) -> Result<Option<PublicKey>, Failure> {
    let template =
        [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Token(true), Attribute::Id(id.to_vec())];
    let [object] = session.find_objects(&template)?[..] else { return Ok(None) };
    let mut kind = None;
    for attribute in session.get_attributes(object, &[AttributeType::KeyType])? {
        if let Attribute::KeyType(found) = attribute {
            kind = Some(found);
        }
    }
    let wanted = match kind {
        Some(KeyType::EC) => [AttributeType::EcParams, AttributeType::EcPoint],
        Some(KeyType::RSA) => [AttributeType::Modulus, AttributeType::PublicExponent],
        _ => return Ok(None),
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for attribute in session.get_attributes(object, &wanted)? {
        match attribute {
            Attribute::EcParams(bytes) | Attribute::Modulus(bytes) => first = bytes,
            Attribute::EcPoint(bytes) | Attribute::PublicExponent(bytes) => second = bytes,
            _ => {}
        }
    }
    let spki = match kind {
        Some(KeyType::EC) => ec_spki(&first, &second),
        _ => crate::asn1::rsa_spki(&first, &second),
    };
    Ok(spki.and_then(|spki| PublicKey::from_spki_der(&spki).ok()))
}

/// SubjectPublicKeyInfo of a point. Tokens give it bare, or in a DER OCTET STRING as the standard says.
fn ec_spki(parameters: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    let point = match <&OctetStringRef>::from_der(point) {
        Ok(wrapped) => wrapped.as_bytes(),
        Err(_) => point,
    };
    let parameters = AnyRef::from_der(parameters).ok()?;
    crate::asn1::ec_spki(parameters, point)
}

/// Makes a key pair that never leaves the token, and its policy.
pub(super) fn generate(session: &Session, spec: &KeySpec) -> Result<Stored, Failure> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| Failure::InvalidValue)?;
    let label = spec.label.as_str().as_bytes().to_vec();
    let shared = [Attribute::Token(true), Attribute::Id(id.to_vec()), Attribute::Label(label.clone())];
    let curve = |oid: ObjectIdentifier| oid.to_der().map_err(|_| Failure::InvalidValue);
    let rsa =
        |bits: u64| vec![Attribute::ModulusBits(Ulong::from(bits)), Attribute::PublicExponent(vec![1, 0, 1])];
    let (mechanism, kind) = match spec.algorithm {
        KeyAlgorithm::EcdsaP256 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(curve(P256)?)]),
        KeyAlgorithm::EcdsaP384 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(curve(P384)?)]),
        KeyAlgorithm::Rsa3072 => (Mechanism::RsaPkcsKeyPairGen, rsa(3072)),
        KeyAlgorithm::Rsa4096 => (Mechanism::RsaPkcsKeyPairGen, rsa(4096)),
        KeyAlgorithm::Ed25519 | KeyAlgorithm::MlDsa44 => return Err(Failure::NotSupported),
    };
    let public: Vec<Attribute> = shared
        .iter()
        .cloned()
        .chain([Attribute::Verify(true), Attribute::Private(false)])
        .chain(kind)
        .collect();
    let private: Vec<Attribute> = shared
        .into_iter()
        .chain([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ])
        .collect();
    let (public_object, private_object) = session.generate_key_pair(&mechanism, &public, &private)?;
    let policy = Policy {
        label: spec.label.to_string(),
        id: id.to_vec(),
        purposes: spec.purposes,
        max_per_second: spec.max_per_second,
    };
    let stored = session
        .create_object(&[
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Modifiable(false),
            Attribute::Application(APPLICATION.to_vec()),
            Attribute::Label(label),
            Attribute::Value(policy.to_text().into_bytes()),
        ])
        .and_then(|_| read_public_key(session, &id)?.ok_or(Failure::InvalidValue));
    match stored {
        Ok(public_key) => Ok(Stored {
            label: policy.label,
            id: policy.id,
            public_key,
            purposes: policy.purposes,
            max_per_second: policy.max_per_second,
        }),
        Err(failure) => {
            // Without its policy the key would be of no use to anybody.
            let _ = session.destroy_object(private_object);
            let _ = session.destroy_object(public_object);
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Purpose;

    #[test]
    fn the_policy_is_read_as_it_was_written_and_nothing_else() {
        let policy = Policy {
            label: "root".into(),
            id: vec![1, 0xab],
            purposes: PurposeSet::from([Purpose::Certificate, Purpose::Crl]),
            max_per_second: NonZeroU32::new(7),
        };
        let text = policy.to_text();
        assert_eq!(text, "id=01ab\npurposes=certificate,crl\nmax-per-second=7\n");
        let read = Policy::parse("root".into(), &text).unwrap();
        assert_eq!(
            (read.id, read.purposes, read.max_per_second),
            (policy.id, policy.purposes, policy.max_per_second)
        );
        for wrong in
            ["", "id=0\npurposes=crl\nmax-per-second=0\n", "id=00\npurposes=everything\nmax-per-second=0\n"]
        {
            assert!(Policy::parse("root".into(), wrong).is_none(), "{wrong}");
        }
    }
}
