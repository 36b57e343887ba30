//! The attestation of an artifact: one Sigstore bundle with what a bundle may not carry.
//!
//! In a manifest it is the `attestation` block, version 2:
//!
//! | key | value |
//! |---|---|
//! | `version` | `2`; version 1 (a bare signature) is refused with a hint |
//! | `bundle` | name of the bundle's file beside the manifest (it contains a dot), or the bundle in base64 |
//! | `certificate_chain` | PEM certificates, end-entity first; the first equals the bundle's |
//! | `revocation.ocsp`, `revocation.crl` | staples, base64 of DER |
//! | `further_bundles` | bundles in base64: provenance and endorsements of the same artifact |
//! | `signer.subject`, `signer.issuer`, `algorithm`, `timestamp`, `signature` | copies for readers: if present they must equal what the bundle says, and they are never trusted |
//!
//! An [`Attestation`] is self-contained: it verifies without a network.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, Content};
use crate::certificate::{Certificate, MAX_PEM_CHAIN};
use crate::crl::Crl;
use crate::error::Error;
use crate::identity;
use crate::json::{self, Bytes, Value};
use crate::manifest::Manifest;
use crate::ocsp::OcspResponse;
use crate::pem;
use crate::reason::Denial;
use crate::revocation::RevocationEvidence;
use crate::tsp::TimestampToken;

/// Largest block, in bytes of its JSON form: a bundle in base64 with its staples.
pub const MAX_BLOCK_BYTES: usize = 24 << 20;
/// Most certificates of `certificate_chain`.
pub const MAX_CHAIN: usize = 16;
/// Most staples of one kind.
pub const MAX_STAPLES: usize = 32;
/// Most further bundles.
pub const MAX_FURTHER_BUNDLES: usize = 32;
/// The version that is read and written.
pub const VERSION: i64 = 2;

/// The `attestation` block of a manifest, as it is written.
// Unknown keys are refused in `from_value`: serde cannot deny them beside a flattened member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationBlock {
    version: i64,
    /// File name or base64 of the bundle; see [`AttestationBlock::bundle`].
    bundle: String,
    /// PEM certificates, end-entity first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_chain: Vec<String>,
    /// Stapled revocation evidence.
    #[serde(default, skip_serializing_if = "Staples::is_empty")]
    pub revocation: Staples,
    /// Bundles with provenance or endorsements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_bundles: Vec<Bytes>,
    /// Copies for readers.
    #[serde(flatten)]
    pub derived: Derived,
}

/// Stapled revocation evidence, DER. Judged exactly like evidence that was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staples {
    /// OCSP responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ocsp: Vec<Bytes>,
    /// CRLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crl: Vec<Bytes>,
}

impl Staples {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ocsp.is_empty() && self.crl.is_empty()
    }
}

/// What the block repeats for readers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// Subject and issuer names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
    /// Name of the signer's key type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Time of the first timestamp token, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The signature, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// The signer's names, RFC 4514.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// Subject of the certificate.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
}

/// Where a block's bundle is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleSource {
    /// In the block: the bundle's JSON.
    Inline(Vec<u8>),
    /// In a file of this name beside the manifest.
    Sidecar(String),
}

impl AttestationBlock {
    /// A block for `bundle`, with the copies for readers filled in. `sidecar` names the file that will hold the
    /// bundle; without it the bundle stands in the block.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the bundle cannot be written, or a name is not that of a sidecar file.
    pub fn new(
        bundle: &Bundle,
        sidecar: Option<&str>,
        chain: &[Certificate],
        revocation: Staples,
    ) -> Result<Self, Error> {
        let bundle_text = match sidecar {
            Some(name) if is_sidecar_name(name) => name.to_owned(),
            Some(_) => {
                return Err(malformed(
                    "a bundle file stands beside the manifest and its name contains a dot",
                ));
            }
            None => json::base64_encode(&bundle.to_json()?),
        };
        Ok(Self {
            version: VERSION,
            bundle: bundle_text,
            certificate_chain: chain.iter().map(Certificate::to_pem).collect(),
            revocation,
            further_bundles: Vec::new(),
            derived: Derived::of(bundle, chain.first()),
        })
    }

    /// Types the block of a manifest document.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another version, with a hint for version 1; [`Error::Malformed`] for unknown keys;
    /// [`Error::TooLarge`] over the limits of this module.
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        match value.member("version") {
            Some(Value::Integer(VERSION)) => {}
            Some(Value::Integer(1)) => {
                let hint = "version 1 is a bare signature without log or time; re-sign with `mentatctl sign --upgrade`";
                return Err(Error::unsupported("attestation", hint));
            }
            Some(Value::Integer(other)) => {
                return Err(Error::unsupported(
                    "attestation",
                    format!("version {other}; this version reads {VERSION}"),
                ));
            }
            _ => return Err(malformed("the integer `version` is missing")),
        }
        let members = [
            "version",
            "bundle",
            "certificate_chain",
            "revocation",
            "further_bundles",
            "signer",
            "algorithm",
            "timestamp",
            "signature",
        ];
        if let Value::Object(found) = value
            && let Some(unknown) = found.keys().find(|key| !members.contains(&key.as_str()))
        {
            let shown: String = unknown.chars().take(64).flat_map(char::escape_default).collect();
            return Err(malformed(format!("unknown key `{shown}`")));
        }
        let bytes = json::write("attestation", value)?;
        let block: Self = json::parse("attestation", &bytes, MAX_BLOCK_BYTES)?;
        for (count, limit, what) in [
            (block.certificate_chain.len(), MAX_CHAIN, "attestation certificate chain"),
            (block.revocation.ocsp.len(), MAX_STAPLES, "list of OCSP staples"),
            (block.revocation.crl.len(), MAX_STAPLES, "list of CRL staples"),
            (block.further_bundles.len(), MAX_FURTHER_BUNDLES, "list of further bundles"),
        ] {
            if count > limit {
                return Err(Error::TooLarge { what, limit });
            }
        }
        Ok(block)
    }

    /// The block as a document value, to be written into a manifest.
    ///
    /// # Errors
    /// None in practice; see [`json::write`].
    pub fn to_value(&self) -> Result<Value, Error> {
        json::parse("attestation", &json::write("attestation", self)?, MAX_BLOCK_BYTES)
    }

    /// Where the bundle is. A text with a dot is a file name: base64 has none.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a file name with a path, or bad base64.
    pub fn bundle(&self) -> Result<BundleSource, Error> {
        if self.bundle.contains('.') {
            if !is_sidecar_name(&self.bundle) {
                return Err(malformed("the bundle's file stands beside the manifest: a name without path"));
            }
            return Ok(BundleSource::Sidecar(self.bundle.clone()));
        }
        Ok(BundleSource::Inline(json::base64_decode("attestation", &self.bundle)?))
    }
}

impl Derived {
    /// The copies that fit `bundle` and its signer.
    pub fn of(bundle: &Bundle, certificate: Option<&Certificate>) -> Self {
        let token = bundle.timestamps.first().and_then(|der| TimestampToken::from_response(der).ok());
        Self {
            signer: signer_of(certificate),
            algorithm: algorithm_of(certificate),
            timestamp: timestamp_of(token.as_ref()),
            signature: signature_of(bundle),
        }
    }
}

fn signer_of(certificate: Option<&Certificate>) -> Option<Signer> {
    certificate.map(|certificate| Signer {
        subject: identity::subject_text(certificate),
        issuer: identity::issuer_text(certificate),
    })
}

fn algorithm_of(certificate: Option<&Certificate>) -> Option<String> {
    certificate.map(|certificate| format!("{}", certificate.key_algorithm()))
}

fn timestamp_of(token: Option<&TimestampToken>) -> Option<String> {
    token.map(|token| token.time().to_rfc3339())
}

fn signature_of(bundle: &Bundle) -> Option<String> {
    bundle.signature().ok().map(json::base64_encode)
}

/// The timestamps of a bundle.
pub(crate) fn read_tokens(bundle: &Bundle) -> Vec<Result<TimestampToken, Denial>> {
    bundle.timestamps.iter().map(|der| TimestampToken::from_response(der)).collect()
}

/// Reads the first certificate of a PEM text; `known` is returned if the text holds it and nothing else.
fn read_certificate(text: &str, known: Option<&Certificate>) -> Result<Certificate, Denial> {
    let Some(known) = known else { return Certificate::from_pem(text) };
    match pem::decode(text, pem::CERTIFICATE, MAX_PEM_CHAIN)?.as_slice() {
        [only] if only == known.der() => Ok(known.clone()),
        _ => Certificate::from_pem(text),
    }
}

/// An attestation, read and ready to be verified.
#[derive(Clone, Debug)]
pub struct Attestation {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) bundle: Bundle,
    /// The timestamps of the bundle, read; one that cannot be read is a denial of step 4.
    pub(crate) tokens: Vec<Result<TimestampToken, Denial>>,
    pub(crate) further: Vec<Bundle>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) issuers: Vec<Certificate>,
    pub(crate) chain_agrees: bool,
    staples: Staples,
    pub(crate) stapled: RevocationEvidence,
    pub(crate) derived: Derived,
}

impl Attestation {
    /// The attestation of a manifest: its block, and the bytes of the bundle (inline, or read from the sidecar file).
    ///
    /// # Errors
    /// `too_large`, `malformed` or `unsupported` for a bundle or certificate that cannot be read.
    pub fn for_manifest(
        manifest: Manifest,
        block: &AttestationBlock,
        bundle_json: &[u8],
    ) -> Result<Self, Denial> {
        let mut attestation = Self::for_bundle(Bundle::parse(bundle_json)?)?;
        let mut chain = Vec::with_capacity(block.certificate_chain.len());
        for text in &block.certificate_chain {
            let known = attestation.certificate.as_ref().filter(|_| chain.is_empty());
            chain.push(read_certificate(text, known)?);
        }
        if let Some((first, issuers)) = chain.split_first() {
            attestation.chain_agrees = attestation.certificate.as_ref() == Some(first);
            attestation.issuers.extend_from_slice(issuers);
        }
        attestation.further =
            block.further_bundles.iter().map(|bytes| Bundle::parse(&bytes.0)).collect::<Result<_, _>>()?;
        attestation.derived = block.derived.clone();
        attestation.manifest = Some(manifest);
        attestation.with_material(Vec::new(), &block.revocation)
    }

    /// A bundle that stands alone: the signature of an artifact without manifest.
    ///
    /// # Errors
    /// `malformed` or `unsupported` for a certificate that cannot be read.
    pub fn for_bundle(bundle: Bundle) -> Result<Self, Denial> {
        let certificate = bundle.certificate().map(Certificate::from_der).transpose()?;
        let tokens = read_tokens(&bundle);
        let issuers =
            bundle.key.issuers().iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
        Ok(Self {
            manifest: None,
            bundle,
            tokens,
            further: Vec::new(),
            certificate,
            issuers,
            chain_agrees: true,
            staples: Staples::default(),
            stapled: RevocationEvidence::default(),
            derived: Derived::default(),
        })
    }

    /// Adds issuer certificates as candidates for the chain, and staples.
    ///
    /// # Errors
    /// Those of [`Crl::from_der`] and [`OcspResponse::from_der`].
    pub fn with_material(mut self, issuers: Vec<Certificate>, staples: &Staples) -> Result<Self, Denial> {
        for der in &staples.crl {
            self.stapled.crls.push(Crl::from_der(&der.0)?);
        }
        for der in &staples.ocsp {
            self.stapled.ocsp.push(OcspResponse::from_der(&der.0)?);
        }
        self.issuers.extend(issuers);
        self.staples.ocsp.extend_from_slice(&staples.ocsp);
        self.staples.crl.extend_from_slice(&staples.crl);
        Ok(self)
    }

    /// The name of a copy for readers that is present and differs from what the bundle says.
    pub(crate) fn false_copy(&self) -> Option<&'static str> {
        fn differs<T: PartialEq>(written: &Option<T>, actual: impl FnOnce() -> Option<T>) -> bool {
            written.is_some() && *written != actual()
        }
        let (copies, certificate) = (&self.derived, self.certificate.as_ref());
        let token = || self.tokens.first().and_then(|token| token.as_ref().ok());
        if differs(&copies.signer, || signer_of(certificate)) {
            Some("signer")
        } else if differs(&copies.algorithm, || algorithm_of(certificate)) {
            Some("algorithm")
        } else if differs(&copies.timestamp, || timestamp_of(token())) {
            Some("timestamp")
        } else if differs(&copies.signature, || signature_of(&self.bundle)) {
            Some("signature")
        } else {
            None
        }
    }

    /// The manifest, not verified yet.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The bundle, not verified yet.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Further bundles about the same artifact, not verified yet: endorsements, provenance.
    pub fn further(&self) -> &[Bundle] {
        &self.further
    }

    /// The bundle and every further one.
    pub fn bundles(&self) -> impl Iterator<Item = &Bundle> {
        core::iter::once(&self.bundle).chain(&self.further)
    }

    /// Every certificate that came along, not verified yet; unreadable ones of further bundles, which do not count, left out.
    pub fn certificates(&self) -> impl Iterator<Item = Certificate> {
        let further = self.further.iter().filter_map(Bundle::certificate).map(Certificate::from_der);
        self.certificate.iter().chain(&self.issuers).cloned().chain(further.filter_map(Result::ok))
    }

    /// Stapled revocation evidence, not verified yet.
    pub fn staples(&self) -> &Staples {
        &self.staples
    }

    /// The signer's certificate, not verified yet; `None` for a bundle with a bare key.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// Every issuer that came along, not verified yet.
    pub fn issuers(&self) -> &[Certificate] {
        &self.issuers
    }

    /// Payload type of the envelope, or `None` for a signature over bare bytes.
    pub fn payload_type(&self) -> Option<&str> {
        match &self.bundle.content {
            Content::Dsse(envelope) => Some(&envelope.payload_type),
            Content::Message { .. } => None,
        }
    }
}

fn is_sidecar_name(name: &str) -> bool {
    name.contains('.')
        && !name.starts_with('.')
        && name.len() <= 255
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | ':'))
}

fn malformed(detail: impl Into<String>) -> Error {
    Error::malformed("attestation", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsse::Envelope;

    fn bundle() -> Bundle {
        Bundle::for_envelope(b"cert".to_vec(), Envelope::new("t", b"p".to_vec(), b"sig".to_vec()))
    }

    #[test]
    fn block_is_read_back() {
        for sidecar in [None, Some("m.sigstore.json")] {
            let staples = Staples { ocsp: alloc::vec![Bytes(b"o".to_vec())], crl: Vec::new() };
            let block = AttestationBlock::new(&bundle(), sidecar, &[], staples).unwrap();
            assert_eq!(AttestationBlock::from_value(&block.to_value().unwrap()).unwrap(), block);
            assert_eq!(block.derived.signature.as_deref(), Some("c2ln"));
            match (sidecar, block.bundle().unwrap()) {
                (None, BundleSource::Inline(bytes)) => assert_eq!(Bundle::parse(&bytes).unwrap(), bundle()),
                (Some(name), BundleSource::Sidecar(file)) => assert_eq!(name, file),
                other => panic!("{other:?}"),
            }
        }
        assert!(AttestationBlock::new(&bundle(), Some("../m.json"), &[], Staples::default()).is_err());
    }

    #[test]
    fn version_one_is_refused_with_a_hint() {
        let value: Value = json::parse("x", br#"{"version":1,"signature":"c2ln"}"#, 99).unwrap();
        let Err(Error::Unsupported { detail, .. }) = AttestationBlock::from_value(&value) else { panic!() };
        assert!(detail.contains("mentatctl sign --upgrade"));
    }

    #[test]
    fn refuses_unknown_keys_and_paths() {
        for text in [
            r#"{"version":2,"bundle":"AAAA","extra":1}"#,
            r#"{"version":3,"bundle":"AAAA"}"#,
            r#"{"bundle":"AAAA"}"#,
            r#"{"version":2}"#,
            r#"{"version":2,"bundle":"AAAA","revocation":{"x":[]}}"#,
            r#"{"version":2,"bundle":"AAAA","signer":{"subject":"a"}}"#,
        ] {
            let value: Value = json::parse("x", text.as_bytes(), 999).unwrap();
            assert!(AttestationBlock::from_value(&value).is_err(), "{text}");
        }
        let value: Value = json::parse("x", br#"{"version":2,"bundle":"a/b.json"}"#, 99).unwrap();
        assert!(AttestationBlock::from_value(&value).unwrap().bundle().is_err());
    }

    #[test]
    fn copies_that_differ_are_named() {
        let key = crate::bundle::KeyMaterial::PublicKey { hint: String::new() };
        let mut attestation = Attestation::for_bundle(Bundle { key, ..bundle() }).unwrap();
        assert_eq!(attestation.false_copy(), None);
        attestation.derived = Derived::of(&attestation.bundle, None);
        assert_eq!(attestation.false_copy(), None, "true copies");
        attestation.derived.signature = Some("AAAA".into());
        assert_eq!(attestation.false_copy(), Some("signature"));
        attestation.derived.timestamp = Some("1970-01-01T00:00:00Z".into());
        assert_eq!(attestation.false_copy(), Some("timestamp"));
    }
}
