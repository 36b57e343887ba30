//! Evidence with exactly one thing wrong, for the demonstration's refusals.

use std::path::Path;

use hsm::developer::DeveloperKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use trust_store::Certificate;
use trust_store::attestation::{AttestationBlock, Staples};
use trust_store::bundle::Bundle;
use trust_store::statement::Statement;
use trust_store_files::ManifestFile;
use trust_store_files::manifest_file::NewBundle;

use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::Home;
use crate::net::{TlsFlags, block_on};
use crate::release::{Release, Use};
use crate::sign::{self, Services, Signer};

/// Takes the log entry out of a release's bundle.
///
/// # Errors
/// When the release cannot be read or written.
pub fn without_log_entry(folder: &Path) -> Outcome<()> {
    let mut file = ManifestFile::load(folder).or_fail(Exit::Failure, "reading the release")?;
    let attestation = file
        .read_attestation()
        .or_fail(Exit::Failure, "reading the attestation")?
        .ok_or_else(|| Failure::failed("the release is not signed"))?;
    let mut bundle = attestation.bundle().clone();
    bundle.log_entries.clear();
    let chain: Vec<Certificate> =
        attestation.certificate().into_iter().chain(attestation.issuers()).cloned().collect();
    store(&mut file, &bundle, &chain, attestation.staples().clone())
}

/// Signs a release again, with a certificate of an authority that nobody here trusts. Everything else is genuine: the
/// timestamp token is over the stranger's signature.
///
/// # Errors
/// When the release cannot be read or written, or the timestamp authority refuses.
pub fn sign_as_stranger(folder: &Path, stack: &Path) -> Outcome<()> {
    let release = Release::open(folder, Use::Verify)?;
    let genuine = release.attestation()?;
    let signer = stranger()?;
    let home = Home::load(Some(stack))?;
    let services =
        Services::new(TlsFlags::default().client(&home)?, &home.log_url(None)?, &home.tsa_url(None)?)?;
    let statement = Statement::agent_release(release.manifest(), &sign::sha256(&release.module()?));
    let payload = statement.to_payload().or_fail(Exit::Failure, "writing the statement")?;
    let mut bundle =
        Bundle::for_envelope(signer.certificate().der().to_vec(), sign::envelope(payload, &signer)?);
    let signature = bundle.signature().or_fail(Exit::Failure, "reading the signature")?.to_vec();
    bundle.timestamps.push(block_on(services.timestamp(&signature))?);
    bundle.log_entries.clone_from(&genuine.bundle().log_entries);
    let mut file = release.file;
    store(&mut file, &bundle, &signer.chain, genuine.staples().clone())
}

fn store(file: &mut ManifestFile, bundle: &Bundle, chain: &[Certificate], staples: Staples) -> Outcome<()> {
    let block =
        AttestationBlock::new(bundle, None, chain, staples).or_fail(Exit::Failure, "making the block")?;
    file.store_attestation(&block, NewBundle::Inline).or_fail(Exit::Failure, "writing the release")
}

/// A signer whose authority is its own.
fn stranger() -> Outcome<Signer> {
    let wrong = "making a stranger's certificate";
    let now = OffsetDateTime::from_unix_timestamp(clock::now().0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let named = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = now - Duration::hours(1);
        params.not_after = now + Duration::days(30);
        params.use_authority_key_identifier_extension = true;
        params
    };
    let root_key = KeyPair::generate().or_fail(Exit::Failure, wrong)?;
    let mut root = named("Stranger's Root CA");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root_certificate = root.self_signed(&root_key).or_fail(Exit::Failure, wrong)?;
    let issuer = Issuer::from_params(&root, &root_key);
    let mut leaf = named("stranger@example.com");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let address = "stranger@example.com".try_into().or_fail(Exit::Failure, wrong)?;
    leaf.subject_alt_names = vec![SanType::Rfc822Name(address)];
    let key = KeyPair::generate().or_fail(Exit::Failure, wrong)?;
    let certificate = leaf.signed_by(&key, &issuer).or_fail(Exit::Failure, wrong)?;
    let chain = [certificate.der(), root_certificate.der()]
        .into_iter()
        .map(|der| Certificate::from_der(der).or_fail(Exit::Failure, wrong))
        .collect::<Outcome<Vec<_>>>()?;
    let key = DeveloperKey::from_pkcs8(key.serialized_der()).or_fail(Exit::Failure, wrong)?;
    Signer::new(sign::key::shared(key), chain)
}
