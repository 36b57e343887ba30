//! Writes certificates, CRLs and OCSP responses octet by octet, well formed or not, signed with real P-256 keys.
#![allow(dead_code, reason = "not every suite uses everything")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use const_oid::ObjectIdentifier;
use sha1::{Digest, Sha1};
use trust_store::{Certificate, UnixTime};

pub(crate) const DAY: i64 = 86_400;
/// The day everything happens.
pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);

pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let mut der = vec![tag];
    match length {
        0..=0x7f => der.push(u8::try_from(length).unwrap()),
        _ => {
            let octets: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
            der.push(0x80 | u8::try_from(octets.len()).unwrap());
            der.extend(octets);
        }
    }
    der.extend(content);
    der
}

pub(crate) fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    tlv(6, &[ObjectIdentifier::new_unwrap(text).as_bytes()])
}

pub(crate) fn name(cn: &str) -> Vec<u8> {
    if cn.is_empty() {
        return seq(&[]);
    }
    seq(&[&tlv(0x31, &[&seq(&[&oid("2.5.4.3"), &tlv(0x0c, &[cn.as_bytes()])])])])
}

pub(crate) fn time(at: UnixTime) -> Vec<u8> {
    let digits: String = at.to_rfc3339().chars().filter(char::is_ascii_digit).collect();
    tlv(0x18, &[digits.as_bytes(), b"Z"])
}

pub(crate) fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { tlv(1, &[&[0xff]]) } else { Vec::new() };
    seq(&[&oid(id), &flag, &tlv(4, &[value])])
}

pub(crate) fn basic_constraints(ca: bool, path_length: Option<u8>) -> Vec<u8> {
    let flag = if ca { tlv(1, &[&[0xff]]) } else { Vec::new() };
    let length = path_length.map(|n| tlv(2, &[&[n]])).unwrap_or_default();
    extension("2.5.29.19", true, &seq(&[&flag, &length]))
}

pub(crate) fn eku(purposes: &[&str]) -> Vec<u8> {
    let list: Vec<Vec<u8>> = purposes.iter().map(|purpose| oid(purpose)).collect();
    extension("2.5.29.37", false, &seq(&[&list.concat()]))
}

pub(crate) fn key_usage(bits: &[u8]) -> Vec<u8> {
    extension("2.5.29.15", true, &tlv(3, &[bits]))
}

pub(crate) fn san(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<Vec<u8>> = names.iter().map(|(tag, value)| tlv(*tag, &[value])).collect();
    extension("2.5.29.17", false, &seq(&[&list.concat()]))
}

/// A name constraints extension; each subtree is (tag, content).
pub(crate) fn name_constraints(permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) -> Vec<u8> {
    let list = |tag: u8, bases: &[(u8, &[u8])]| {
        let subtrees: Vec<Vec<u8>> = bases.iter().map(|(tag, base)| seq(&[&tlv(*tag, &[base])])).collect();
        if subtrees.is_empty() { Vec::new() } else { tlv(tag, &[&subtrees.concat()]) }
    };
    extension("2.5.29.30", true, &seq(&[&list(0xa0, permitted), &list(0xa1, excluded)]))
}

pub(crate) const KEY_CERT_AND_CRL_SIGN: &[u8] = &[1, 0x06];
pub(crate) const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
pub(crate) const OCSP_SIGNING: &str = "1.3.6.1.5.5.7.3.9";

pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub(crate) fn bits(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        let algorithm = seq(&[&oid("1.2.840.10045.2.1"), &oid("1.2.840.10045.3.1.7")]);
        seq(&[&algorithm, &tlv(3, &[&[0], self.bits()])])
    }

    pub(crate) fn sign(&self, tbs: &[u8]) -> Vec<u8> {
        let signature = self.0.sign(&SystemRandom::new(), tbs).unwrap();
        tlv(3, &[&[0], signature.as_ref()])
    }

    /// `SEQUENCE { tbs, ecdsa-with-SHA256, signature }`
    pub(crate) fn signed(&self, tbs: &[u8]) -> Vec<u8> {
        seq(&[tbs, &ecdsa_sha256(), &self.sign(tbs)])
    }
}

pub(crate) fn ecdsa_sha256() -> Vec<u8> {
    seq(&[&oid("1.2.840.10045.4.3.2")])
}

/// What a certificate says; the issuer signs it.
pub(crate) struct Body {
    pub(crate) serial: Vec<u8>,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Body {
    pub(crate) fn new(issuer: &str, subject: &str, extensions: Vec<Vec<u8>>) -> Self {
        Self {
            serial: vec![1],
            issuer: issuer.into(),
            subject: subject.into(),
            not_before: NOW.plus(-10 * DAY),
            not_after: NOW.plus(10 * DAY),
            extensions,
        }
    }

    pub(crate) fn der(&self, spki: &[u8], issuer_key: &Key) -> Vec<u8> {
        let extensions = if self.extensions.is_empty() {
            Vec::new()
        } else {
            tlv(0xa3, &[&seq(&[&self.extensions.concat()])])
        };
        let tbs = seq(&[
            &tlv(0xa0, &[&tlv(2, &[&[2]])]),
            &tlv(2, &[&self.serial]),
            &ecdsa_sha256(),
            &name(&self.issuer),
            &seq(&[&time(self.not_before), &time(self.not_after)]),
            &name(&self.subject),
            spki,
            &extensions,
        ]);
        issuer_key.signed(&tbs)
    }

    pub(crate) fn issue(&self, key: &Key, issuer_key: &Key) -> Certificate {
        Certificate::from_der(&self.der(&key.spki(), issuer_key)).expect("a well-formed certificate")
    }
}

/// A CA: name, key and certificate.
pub(crate) struct Ca {
    pub(crate) name: String,
    pub(crate) key: Key,
    pub(crate) certificate: Certificate,
}

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        let key = Key::new();
        let extensions = vec![basic_constraints(true, None), key_usage(KEY_CERT_AND_CRL_SIGN)];
        let certificate = Body::new(name, name, extensions).issue(&key, &key);
        Self { name: name.into(), key, certificate }
    }

    /// A CA below this one; `change` edits its certificate.
    pub(crate) fn subordinate(&self, name: &str, change: impl FnOnce(&mut Body)) -> Self {
        let key = Key::new();
        let certificate = self.cross_sign(name, &key, change);
        Self { name: name.into(), key, certificate }
    }

    pub(crate) fn cross_sign(&self, name: &str, key: &Key, change: impl FnOnce(&mut Body)) -> Certificate {
        let extensions = vec![basic_constraints(true, None), key_usage(KEY_CERT_AND_CRL_SIGN)];
        let mut body = Body::new(&self.name, name, extensions);
        change(&mut body);
        body.issue(key, &self.key)
    }

    /// An end-entity certificate for code signing; `change` edits it.
    pub(crate) fn leaf(&self, change: impl FnOnce(&mut Body)) -> Certificate {
        self.leaf_with(&Key::new(), change)
    }

    pub(crate) fn leaf_with(&self, key: &Key, change: impl FnOnce(&mut Body)) -> Certificate {
        let extensions = vec![key_usage(&[7, 0x80]), eku(&[CODE_SIGNING])];
        let mut body = Body::new(&self.name, "signer", extensions);
        change(&mut body);
        body.issue(key, &self.key)
    }

    /// A CRL valid from yesterday to tomorrow; each entry is (serial, entry extensions).
    pub(crate) fn crl(&self, entries: &[(&[u8], Vec<Vec<u8>>)], extensions: &[Vec<u8>]) -> Vec<u8> {
        self.crl_between(NOW.plus(-DAY), NOW.plus(DAY), entries, extensions)
    }

    pub(crate) fn crl_between(
        &self,
        this_update: UnixTime,
        next_update: UnixTime,
        entries: &[(&[u8], Vec<Vec<u8>>)],
        extensions: &[Vec<u8>],
    ) -> Vec<u8> {
        let entry = |(serial, extensions): &(&[u8], Vec<Vec<u8>>)| {
            let extensions = if extensions.is_empty() { Vec::new() } else { seq(&[&extensions.concat()]) };
            seq(&[&tlv(2, &[serial]), &time(NOW.plus(-2 * DAY)), &extensions])
        };
        let list: Vec<Vec<u8>> = entries.iter().map(entry).collect();
        let list = if list.is_empty() { Vec::new() } else { seq(&[&list.concat()]) };
        let extensions =
            if extensions.is_empty() { Vec::new() } else { tlv(0xa0, &[&seq(&[&extensions.concat()])]) };
        let tbs = seq(&[
            &tlv(2, &[&[1]]),
            &ecdsa_sha256(),
            &name(&self.name),
            &time(this_update),
            &time(next_update),
            &list,
            &extensions,
        ]);
        self.key.signed(&tbs)
    }

    /// A certificate id with SHA-1 or another hash given by its functions.
    pub(crate) fn certificate_id(
        &self,
        hash: &str,
        digest: impl Fn(&[u8]) -> Vec<u8>,
        serial: &[u8],
    ) -> Vec<u8> {
        seq(&[
            &seq(&[&oid(hash), &tlv(5, &[])]),
            &tlv(4, &[&digest(&name(&self.name))]),
            &tlv(4, &[&digest(self.key.bits())]),
            &tlv(2, &[serial]),
        ])
    }

    pub(crate) fn sha1_id(&self, serial: &[u8]) -> Vec<u8> {
        self.certificate_id("1.3.14.3.2.26", |data| Sha1::digest(data).to_vec(), serial)
    }
}

pub(crate) fn good() -> Vec<u8> {
    tlv(0x80, &[])
}

pub(crate) fn revoked(at: UnixTime) -> Vec<u8> {
    tlv(0xa1, &[&time(at), &tlv(0xa0, &[&tlv(0x0a, &[&[1]])])])
}

pub(crate) fn single(
    id: &[u8],
    status: &[u8],
    next_update: Option<UnixTime>,
    extensions: &[Vec<u8>],
) -> Vec<u8> {
    let next = next_update.map(|at| tlv(0xa0, &[&time(at)])).unwrap_or_default();
    let extensions =
        if extensions.is_empty() { Vec::new() } else { tlv(0xa1, &[&seq(&[&extensions.concat()])]) };
    seq(&[id, status, &time(NOW.plus(-DAY)), &next, &extensions])
}

/// An OCSP response by the responder with this name and key.
pub(crate) fn ocsp(
    responder: &str,
    key: &Key,
    singles: &[Vec<u8>],
    extensions: &[Vec<u8>],
    certificates: &[&Certificate],
) -> Vec<u8> {
    let extensions =
        if extensions.is_empty() { Vec::new() } else { tlv(0xa1, &[&seq(&[&extensions.concat()])]) };
    let data = seq(&[
        &tlv(0xa1, &[&name(responder)]),
        &time(NOW.plus(-DAY)),
        &seq(&[&singles.concat()]),
        &extensions,
    ]);
    let list: Vec<u8> = certificates.iter().flat_map(|certificate| certificate.der().to_vec()).collect();
    let list = if list.is_empty() { Vec::new() } else { tlv(0xa0, &[&seq(&[&list])]) };
    let basic = seq(&[&data, &ecdsa_sha256(), &key.sign(&data), &list]);
    let bytes = seq(&[&oid("1.3.6.1.5.5.7.48.1.1"), &tlv(4, &[&basic])]);
    seq(&[&tlv(0x0a, &[&[0]]), &tlv(0xa0, &[&bytes])])
}
