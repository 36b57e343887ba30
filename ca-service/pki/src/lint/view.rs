//! A certificate taken apart for the rules: every extension once, decoded where a rule needs its content.

use alloc::vec::Vec;

use der::{Decode, Encode};
use spki::ObjectIdentifier;
use x509_cert::Certificate;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use crate::oid;
use crate::time::{UnixTime, unix_time};

pub(super) struct View<'a> {
    pub(super) certificate: &'a Certificate,
    pub(super) extensions: &'a [Extension],
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    pub(super) subject_der: Vec<u8>,
    pub(super) issuer_der: Vec<u8>,
    pub(super) spki_der: Vec<u8>,
}

impl<'a> View<'a> {
    pub(super) fn new(certificate: &'a Certificate) -> Self {
        let tbs = certificate.tbs_certificate();
        Self {
            certificate,
            extensions: tbs.extensions().map(Vec::as_slice).unwrap_or_default(),
            not_before: unix_time(tbs.validity().not_before),
            not_after: unix_time(tbs.validity().not_after),
            subject_der: tbs.subject().to_der().unwrap_or_default(),
            issuer_der: tbs.issuer().to_der().unwrap_or_default(),
            spki_der: tbs.subject_public_key_info().to_der().unwrap_or_default(),
        }
    }

    pub(super) fn self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    pub(super) fn extension(&self, wanted: ObjectIdentifier) -> Option<&'a Extension> {
        self.extensions.iter().find(|extension| extension.extn_id == wanted)
    }

    pub(super) fn decoded<T: Decode<'a>>(&self, wanted: ObjectIdentifier) -> Option<T> {
        T::from_der(self.extension(wanted)?.extn_value.as_bytes()).ok()
    }

    pub(super) fn key_usage(&self) -> Option<KeyUsage> {
        self.decoded(oid::KEY_USAGE)
    }

    pub(super) fn purposes(&self) -> Vec<ObjectIdentifier> {
        self.decoded::<ExtendedKeyUsage>(oid::EXTENDED_KEY_USAGE).map(|usage| usage.0).unwrap_or_default()
    }

    pub(super) fn basic_constraints(&self) -> Option<BasicConstraints> {
        self.decoded(oid::BASIC_CONSTRAINTS)
    }
}
