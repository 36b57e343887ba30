//! Certificate ids: whom a request is about, by hashes of its issuer.

use alloc::vec::Vec;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::key::SubjectPublicKey;
use crate::name::DistinguishedName;
use crate::serial::SerialNumber;
use crate::{encoding, oid};

/// Hash of a certificate id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertIdHash {
    /// For old clients.
    Sha1,
    /// Recommended by RFC 9919.
    Sha256,
}

impl CertIdHash {
    /// How its parameters are written here: RFC 9919 §3.1.1 has NULL for SHA-1, RFC 5754 has none for SHA-256.
    pub(super) fn form(self) -> IdForm {
        match self {
            Self::Sha1 => IdForm::Null,
            Self::Sha256 => IdForm::Absent,
        }
    }
}

/// How the parameters of the hash are written in a certificate id. Clients write either of two, for either hash. All else of an id that is read
/// can be written in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdForm {
    /// NULL.
    Null,
    /// Left out.
    Absent,
    /// Something that means nothing, of which there is no end.
    Other,
}

impl IdForm {
    /// The form of the octets that follow the hash's object identifier.
    pub(super) fn of(parameters: &[u8]) -> Self {
        match parameters {
            [] => Self::Absent,
            [5, 0] => Self::Null,
            _ => Self::Other,
        }
    }
}

/// Which certificate is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertId {
    /// Hash of the two values below.
    pub hash: CertIdHash,
    /// Hash of the issuer's DER name.
    pub issuer_name_hash: Vec<u8>,
    /// Hash of the issuer's public key bits.
    pub issuer_key_hash: Vec<u8>,
    /// The certificate's serial number.
    pub serial: SerialNumber,
}

impl CertId {
    /// The id of a certificate of an issuer.
    #[must_use]
    pub fn new(
        hash: CertIdHash,
        issuer: &DistinguishedName,
        key: &SubjectPublicKey,
        serial: SerialNumber,
    ) -> Self {
        let digest = |bytes: &[u8]| match hash {
            CertIdHash::Sha1 => Sha1::digest(bytes).to_vec(),
            CertIdHash::Sha256 => Sha256::digest(bytes).to_vec(),
        };
        Self { hash, issuer_name_hash: digest(issuer.as_der()), issuer_key_hash: digest(key.bits()), serial }
    }

    /// True when the id names this issuer.
    #[must_use]
    pub fn names_issuer(&self, issuer: &DistinguishedName, key: &SubjectPublicKey) -> bool {
        Self::new(self.hash, issuer, key, self.serial.clone()) == *self
    }

    /// True when both ids name an issuer by the same hash, and the same one.
    #[must_use]
    pub fn has_issuer_of(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.issuer_name_hash == other.issuer_name_hash
            && self.issuer_key_hash == other.issuer_key_hash
    }

    /// The id in the form of its hash ([`CertIdHash::form`]).
    pub(super) fn to_der(&self) -> Vec<u8> {
        let algorithm = match self.hash {
            CertIdHash::Sha1 => encoding::oid(&oid::SHA1),
            CertIdHash::Sha256 => encoding::oid(&oid::SHA256),
        };
        let parameters: &[u8] = match self.hash.form() {
            IdForm::Null => &[5, 0],
            IdForm::Absent | IdForm::Other => &[],
        };
        let algorithm = encoding::tlv(encoding::SEQUENCE, &[&algorithm, parameters]);
        encoding::tlv(
            encoding::SEQUENCE,
            &[
                &algorithm,
                &encoding::tlv(encoding::OCTET_STRING, &[&self.issuer_name_hash]),
                &encoding::tlv(encoding::OCTET_STRING, &[&self.issuer_key_hash]),
                &self.serial.to_der(),
            ],
        )
    }
}
