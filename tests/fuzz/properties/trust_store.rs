//! What must hold for any bytes whatsoever given to the parsers of `trust-store`: they do not panic, what they accept they
//! write back with the same meaning, and everything that can be asked of an accepted structure can be asked of this one.
//!
//! Each function says whether the bytes were accepted. Seeds of binary formats are kept as text: `hex ` and digits, white
//! space between them as one likes.
#![allow(dead_code, reason = "every fuzz target uses one function")]

use trust_store::attestation::{Attestation, AttestationBlock, BundleSource};
use trust_store::bundle::{Bundle, parse_lines};
use trust_store::capability::Capability;
use trust_store::certificate::Certificate;
use trust_store::conformance;
use trust_store::crl::Crl;
use trust_store::dsse::Envelope;
use trust_store::evidence::Evidence;
use trust_store::identity::{self, Identity};
use trust_store::jcs;
use trust_store::json::{self, Value};
use trust_store::log_entry::TransparencyLogEntry;
use trust_store::manifest::Manifest;
use trust_store::name::CanonicalName;
use trust_store::name_text;
use trust_store::ocsp::OcspResponse;
use trust_store::pattern::Pattern;
use trust_store::pipeline::{self, Pipeline};
use trust_store::policy_document::PolicyDocument;
use trust_store::rekor::HashedRekord;
use trust_store::rekor_v1::{self, SignedObject};
use trust_store::sct;
use trust_store::signature::{Algorithm, InvalidSignature, SignatureVerifier};
use trust_store::signing_config::{ClientTrustConfig, SigningConfig};
use trust_store::statement::Statement;
use trust_store::trust_material::TrustMaterial;
use trust_store::trusted_root::TrustedRoot;
use trust_store::tsp::TimestampToken;
use trust_store::x690::{Reader, tag};
use trust_store::{ArtifactDigest, UnixTime};

/// What a target runs; says whether the bytes were accepted.
pub(crate) type Property = fn(&[u8]) -> bool;

/// The name and function of every target.
pub(crate) const TARGETS: &[(&str, Property)] = &[
    ("trust_store_bundle", bundle),
    ("trust_store_capability", capability),
    ("trust_store_certificate", certificate),
    ("trust_store_conformance", conformance_line),
    ("trust_store_crl", crl),
    ("trust_store_dsse", dsse),
    ("trust_store_evidence", evidence),
    ("trust_store_manifest", manifest),
    ("trust_store_name", name),
    ("trust_store_ocsp", ocsp),
    ("trust_store_pem", pem),
    ("trust_store_pipeline", pipeline),
    ("trust_store_policy", policy),
    ("trust_store_rekor", rekor),
    ("trust_store_sct", sct_list),
    ("trust_store_sidecar", sidecar),
    ("trust_store_signing_config", signing_config),
    ("trust_store_trusted_root", trusted_root),
    ("trust_store_tsp", tsp),
];

/// The bytes of a seed: hexadecimal after `hex `, else the data itself.
pub(crate) fn decode(data: &[u8]) -> Vec<u8> {
    let Some(text) = data.strip_prefix(b"hex ") else { return data.to_vec() };
    let digits: Vec<u8> =
        text.iter().filter_map(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Lets every signature pass, so that whatever follows a verified one is reached as well.
struct Anything;

impl SignatureVerifier for Anything {
    fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }
    fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }
}

pub(crate) fn certificate(data: &[u8]) -> bool {
    let data = &decode(data);
    let Ok(certificate) = Certificate::from_der(data) else { return false };
    assert_eq!(certificate.der(), data);
    assert_eq!(Certificate::from_pem(&certificate.to_pem()).as_ref(), Ok(&certificate));
    assert!(certificate.is_self_issued() == (certificate.subject_name() == certificate.issuer_name()));
    for extension in certificate.extensions() {
        assert!(extension.value(data).len() <= data.len());
    }
    let names = certificate.subject_alternative_names().count();
    assert!(certificate.emails().count() + certificate.uris().count() <= names);
    certificate.certificate_policies().map(|policies| policies.iter().count());
    certificate.policy_mappings().map(|mappings| mappings.iter().count());
    certificate.name_constraints().map(|list| list.permitted().count() + list.excluded().count());
    certificate.crl_distribution_points().map(|points| points.iter().count());
    certificate.freshest_crl().map(|points| points.iter().count());
    certificate.authority_information_access().map(|list| list.iter().count());
    certificate.extended_key_usage().map(|usage| usage.iter().count());
    let _ = (certificate.authority_key_identifier(), certificate.subject_key_identifier());
    let _ = (Identity::of_certificate(&certificate), sct::embedded(&certificate));
    let _ = (identity::subject_text(&certificate), identity::issuer_text(&certificate));
    let _ = trust_store::path::build_path(
        &certificate,
        std::slice::from_ref(&certificate),
        std::slice::from_ref(&certificate),
        certificate.not_before(),
        &trust_store::path::PathPolicy::default(),
        &Anything,
    );
    true
}

pub(crate) fn crl(data: &[u8]) -> bool {
    let data = &decode(data);
    let Ok(crl) = Crl::from_der(data) else { return false };
    assert_eq!(crl.der(), data);
    assert_eq!(crl.entries().count(), crl.len());
    let serials: Vec<Vec<u8>> = crl.entries().map(|(serial, _)| serial.to_vec()).collect();
    if crl.indirection() == trust_store::crl::Indirection::Direct && crl.unusable().is_none() {
        for serial in serials.iter().take(64) {
            assert!(crl.entry(serial, crl.issuer_name()).is_some(), "an entry that is there is found");
        }
    }
    let _ = (crl.distribution_point_name(), crl.freshest_crl(), crl.authority_key_identifier());
    true
}

pub(crate) fn ocsp(data: &[u8]) -> bool {
    let data = &decode(data);
    let Ok(response) = OcspResponse::from_der(data) else { return false };
    assert_eq!(response.der(), data);
    for certificate in response.certificates() {
        let _ = response.responses_for(certificate, certificate).count();
        let _ = response.find_responder(certificate, response.produced_at(), &Anything);
    }
    let _ = (response.nonce(), response.unusable());
    true
}

pub(crate) fn tsp(data: &[u8]) -> bool {
    let data = &decode(data);
    let token = match (TimestampToken::from_response(data), TimestampToken::from_token(data)) {
        (Ok(token), _) | (_, Ok(token)) => token,
        _ => return false,
    };
    assert_eq!(TimestampToken::from_token(token.der()).map(|again| again.time()), Ok(token.time()));
    for certificate in token.certificates() {
        let _ = (token.names_signer(certificate), token.verify(b"message", certificate, &Anything));
    }
    let _ = (token.imprint(), token.serial(), token.nonce());
    true
}

pub(crate) fn name(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(der) = name_text::parse(text) else { return false };
    // A value in hexadecimal may be of any string type; its text is read as another type and the same name.
    let canonical = |der: &[u8]| {
        let name = Reader::only(der, tag::SEQUENCE).expect("what was parsed is a sequence");
        CanonicalName::from_element(name)
    };
    let Ok(name) = canonical(&der) else { return false };
    let printed = name_text::format_name(&der);
    let again = name_text::parse(&printed).unwrap_or_else(|denial| panic!("{printed}: {denial}"));
    assert_eq!(canonical(&again), Ok(name), "{printed}");
    true
}

pub(crate) fn pem(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(blocks) = trust_store::pem::decode(text, trust_store::pem::CERTIFICATE, 8) else { return false };
    for block in &blocks {
        let written = trust_store::pem::encode(block, trust_store::pem::CERTIFICATE);
        let again = trust_store::pem::decode(&written, trust_store::pem::CERTIFICATE, 1);
        assert_eq!(again.as_deref(), Ok(std::slice::from_ref(block)));
    }
    !blocks.is_empty()
}

pub(crate) fn sct_list(data: &[u8]) -> bool {
    // The seeds are certificates: the list itself is also a target of `tlog`.
    let data = &decode(data);
    let Ok(certificate) = Certificate::from_der(data) else { return false };
    let _ = sct::tbs_without(&certificate, &trust_store::oid::SCT_LIST);
    match sct::embedded(&certificate) {
        Ok(list) => {
            for timestamp in &list {
                let _ = timestamp.time();
                let _ = timestamp.verify(&certificate, &certificate, certificate.public_key(), &Anything);
            }
            !list.is_empty()
        }
        Err(_) => false,
    }
}

pub(crate) fn bundle(data: &[u8]) -> bool {
    let _ = parse_lines(data);
    let Ok(bundle) = Bundle::parse(data) else { return false };
    let written = bundle.to_json().expect("a bundle that was read can be written");
    assert_eq!(Bundle::parse(&written).as_ref(), Ok(&bundle));
    if let Ok(attestation) = Attestation::for_bundle(bundle) {
        let _ = (attestation.payload_type(), attestation.certificate());
    }
    true
}

pub(crate) fn dsse(data: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(envelope) = Envelope::parse(data) {
        assert!(envelope.pae().ends_with(&envelope.payload));
        let _ = (envelope.single_signature(), Statement::parse(&envelope.payload));
        accepted = true;
    }
    if let Ok(statement) = Statement::parse(data) {
        let _ = statement.names_artifact(&[0; 32]);
        if let Ok(payload) = statement.to_payload() {
            assert_eq!(Statement::parse(&payload).as_ref(), Ok(&statement));
        }
        accepted = true;
    }
    accepted
}

pub(crate) fn rekor(data: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(entry) = HashedRekord::from_canonical_body(data) {
        assert_eq!(entry.canonical_body().as_deref(), Ok(data));
        accepted = true;
    }
    if let Ok(entry) = HashedRekord::from_request(data) {
        let request = entry.request().expect("a request that was read can be written");
        assert_eq!(HashedRekord::from_request(&request).as_ref(), Ok(&entry));
        if let Ok(body) = entry.canonical_body() {
            assert_eq!(HashedRekord::from_canonical_body(&body).as_ref(), Ok(&entry));
        }
        accepted = true;
    }
    if let Ok(entry) = TransparencyLogEntry::parse(data) {
        let written = entry.to_json().expect("an entry that was read can be written");
        assert_eq!(TransparencyLogEntry::parse(&written).as_ref(), Ok(&entry));
        let _ = (SignedObject::from_entry(&entry), rekor_v1::promise_message(&entry));
        accepted = true;
    }
    accepted
}

pub(crate) fn trusted_root(data: &[u8]) -> bool {
    let Ok(root) = TrustedRoot::parse(data) else { return false };
    let written = root.to_json().expect("a root that was read can be written");
    assert_eq!(TrustedRoot::parse(&written).as_ref(), Ok(&root));
    if let Ok(material) = TrustMaterial::new(&root) {
        let _ = (material.log_origins().count(), material.checkpoint_keys().count());
    }
    true
}

pub(crate) fn signing_config(data: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(config) = SigningConfig::parse(data) {
        let written = config.to_json().expect("a configuration that was read can be written");
        assert_eq!(SigningConfig::parse(&written).as_ref(), Ok(&config));
        accepted = true;
    }
    if let Ok(config) = ClientTrustConfig::parse(data) {
        let written = config.to_json().expect("a configuration that was read can be written");
        assert_eq!(ClientTrustConfig::parse(&written).as_ref(), Ok(&config));
        accepted = true;
    }
    accepted
}

pub(crate) fn manifest(data: &[u8]) -> bool {
    if let Ok(value) = json::parse::<Value>("manifest", data, 1 << 20) {
        if let Ok(canonical) = jcs::canonicalize(&value) {
            let again: Value = json::parse("manifest", &canonical, 2 << 20).expect("canonical JSON is JSON");
            assert_eq!(jcs::canonicalize(&again).as_ref(), Ok(&canonical), "canonical is a fixed point");
        }
        let _ = Manifest::from_document(value);
    }
    let Ok(manifest) = Manifest::from_json(data) else { return false };
    assert_eq!(manifest.canonical_json(), data);
    for capability in manifest.requested_capabilities() {
        assert!(capability.covers(&capability), "{capability}");
    }
    let statement = Statement::agent_release(&manifest, ArtifactDigest::of(b"").as_bytes());
    assert!(statement.releases(&manifest, ArtifactDigest::of(b"").as_bytes()));
    true
}

pub(crate) fn pipeline(data: &[u8]) -> bool {
    if let Ok(value) = json::parse::<Value>("pipeline", data, pipeline::MAX_PIPELINE_BYTES)
        && let Ok(typed) = Pipeline::from_value(&value)
        && let Ok(written) = typed.to_json()
    {
        assert_eq!(Pipeline::from_json(&written).as_ref(), Ok(&typed), "what is written is canonical");
    }
    let Ok(typed) = Pipeline::from_json(data) else { return false };
    assert_eq!(typed.to_json().as_deref(), Ok(data));
    let steps = typed.steps();
    assert!((1..=pipeline::MAX_STEPS).contains(&steps.len()));
    for (index, step) in steps.iter().enumerate() {
        assert!(step.after().iter().all(|before| *before < index), "a cycle");
        assert_eq!(typed.last_use(index).is_none(), index + 1 == steps.len(), "one step is the last");
        assert!((1..=4).contains(&step.repetition().attempts()));
    }
    true
}

pub(crate) fn capability(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    if let Ok(pattern) = Pattern::new(text) {
        assert!(!pattern.is_exact() || pattern.matches(text));
    }
    let Ok(capability) = text.parse::<Capability>() else { return false };
    let printed = capability.to_string();
    assert_eq!(printed.parse::<Capability>().as_ref(), Ok(&capability), "{printed}");
    assert!(capability.covers(&capability), "{printed} covers itself");
    true
}

pub(crate) fn policy(data: &[u8]) -> bool {
    let Ok(document) = PolicyDocument::parse(data) else { return false };
    document.validate().is_ok()
}

pub(crate) fn evidence(data: &[u8]) -> bool {
    let Ok(evidence) = Evidence::parse(data) else { return false };
    let written = evidence.to_json().expect("evidence that was read can be written");
    let again = Evidence::parse(&written).expect("what was written is read");
    assert_eq!((again.logs(), again.remembered()), (evidence.logs(), evidence.remembered()));
    assert_eq!(again.revocation().crls, evidence.revocation().crls);
    true
}

/// The attestation block of a manifest with the bundle in it or beside it.
pub(crate) fn sidecar(data: &[u8]) -> bool {
    let Ok(value) = json::parse::<Value>("block", data, 1 << 20) else { return false };
    let Ok(block) = AttestationBlock::from_value(&value) else { return false };
    let written = block.to_value().expect("a block that was read can be written");
    assert_eq!(AttestationBlock::from_value(&written).as_ref(), Ok(&block));
    match block.bundle() {
        Ok(BundleSource::Inline(bundle)) => Bundle::parse(&bundle).is_ok(),
        Ok(BundleSource::Sidecar(name)) => {
            assert!(
                !name.contains(['/', '\\']) && !name.starts_with('.'),
                "{name:?} stays beside the manifest"
            );
            true
        }
        Err(_) => false,
    }
}

/// A line of the conformance door always gets one line that is JSON and bears its id.
pub(crate) fn conformance_line(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let doors: [conformance::Decide; 5] = [
        conformance::decide_path,
        conformance::decide_crl,
        conformance::decide_ocsp,
        conformance::decide_signature,
        conformance::decide_merkle,
    ];
    let mut accepted = false;
    for door in doors {
        let answer = door(text, &Anything);
        assert!(!answer.contains('\n'));
        let answer: Value = json::parse("answer", answer.as_bytes(), 128 << 20).expect("an answer is JSON");
        let decision = answer.member("decision").and_then(Value::as_str).expect("an answer decides");
        accepted |= matches!(decision, "accept" | "good" | "valid");
    }
    let crypto = std::sync::Arc::new(Anything);
    let answer = conformance::decide_bundle(text, UnixTime(1_800_000_000), crypto);
    assert!(!answer.contains('\n'));
    accepted
}
