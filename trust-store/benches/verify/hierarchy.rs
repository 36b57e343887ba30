//! The default hierarchy with everything that a verification needs, and attestations made with it.

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, KeyIdMethod,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use trust_store::ArtifactDigest;
use trust_store::attestation::{Attestation, AttestationBlock, Staples};
use trust_store::evidence::Evidence;
use trust_store::manifest::Manifest;
use trust_store::policy::TrustPolicy;
use trust_store::statement::Statement;
use trust_store::trusted_root::TrustedRoot;

use crate::fixture::SIGNED_AT;
use crate::fixture::authority::{Ca, Embedded, Leaf, at, leaf};
use crate::fixture::scenario::{EMAIL, MANIFEST, Scenario, World, manifest};

const SHARD: &str = "http://status.mentat.internal/crl/0f1e2d3c4b5a6978/17.crl";
const DAY: i64 = 86_400;

/// An attestation as it arrives: the manifest, its block and the bundle's bytes.
pub(crate) struct Signed {
    pub(crate) module: Vec<u8>,
    pub(crate) bundle: Vec<u8>,
    manifest: Manifest,
    block: AttestationBlock,
}

impl Signed {
    pub(crate) fn digest(&self) -> ArtifactDigest {
        ArtifactDigest::of(&self.module)
    }

    /// Reads the bundle and every certificate.
    pub(crate) fn read(&self) -> Attestation {
        Attestation::for_manifest(self.manifest.clone(), &self.block, &self.bundle).unwrap()
    }
}

pub(crate) struct Hierarchy {
    pub(crate) root: TrustedRoot,
    root_json: Vec<u8>,
    crls: [Vec<u8>; 2],
    scenario: Scenario,
    /// Artifacts of one signer.
    pub(crate) by_known: Vec<Signed>,
    /// Artifacts of one signer each.
    pub(crate) by_others: Vec<Signed>,
}

impl Hierarchy {
    pub(crate) fn new() -> Self {
        let mut world = World::new();
        for n in 0_u32..(1 << 16) {
            world.log.tree.push(tlog::leaf_hash(&n.to_be_bytes()));
        }
        let known = signer(&world);
        let others: Vec<Leaf> = (0..32).map(|_| signer(&world)).collect();
        let by_known = (0..17).map(|n| signed(&mut world, &known, n)).collect();
        let by_others = others.iter().zip(100..).map(|(leaf, n)| signed(&mut world, leaf, n)).collect();
        let crls = [world.root.crl(SIGNED_AT, &[]), shard(&world.intermediate)];
        let root = world.trusted_root();
        let root_json = root.to_json().unwrap();
        let scenario = Scenario::signed_by(world, known);
        Self { root, root_json, crls, scenario, by_known, by_others }
    }

    pub(crate) fn read_root(&self) -> TrustedRoot {
        TrustedRoot::parse(&self.root_json).unwrap()
    }

    pub(crate) fn root_json(&self) -> &[u8] {
        &self.root_json
    }

    /// Reads the revocation lists of both authorities.
    pub(crate) fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::none();
        self.crls.iter().for_each(|crl| evidence.add_crl(crl).unwrap());
        evidence
    }

    /// The policy of the scenario: release, identity, timestamp, certificate timestamp, both witnesses, freshness,
    /// revocation of the whole chain. The log's second key (ML-DSA) counts only if asked for.
    pub(crate) fn policy(&self, with_ml_dsa: bool) -> TrustPolicy {
        let mut policy = self.scenario.policy.clone();
        if !with_ml_dsa {
            policy.log_keys.clear();
        }
        policy
    }
}

fn signer(world: &World) -> Leaf {
    leaf(&world.intermediate, &world.certificate_log, EMAIL, Embedded::Timestamp, |params| {
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![SHARD.into()] }];
    })
}

fn signed(world: &mut World, signer: &Leaf, number: u8) -> Signed {
    let module = [b"\0asm\x01\0\0\0", &[number][..]].concat();
    let manifest = manifest(&MANIFEST.replace("1.0.0", &format!("1.0.{number}")));
    let digest = ArtifactDigest::of(&module);
    let bundle = world.sign_statement(&Statement::agent_release(&manifest, digest.as_bytes()), signer);
    let chain = [signer.certificate.clone(), world.intermediate.certificate.clone()];
    let block =
        AttestationBlock::new(&bundle, Some("agent.sigstore.json"), &chain, Staples::default()).unwrap();
    Signed { module, bundle: bundle.to_json().unwrap(), manifest, block }
}

/// One shard of the intermediate's list, with 100 entries.
fn shard(issuer: &Ca) -> Vec<u8> {
    let revoked = |n: u8| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[[0x22; 15].as_slice(), &[n]].concat()),
        revocation_time: at(SIGNED_AT - DAY),
        reason_code: Some(RevocationReason::Superseded),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: at(SIGNED_AT),
        next_update: at(SIGNED_AT + DAY),
        crl_number: SerialNumber::from(7),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![SHARD.into()] },
            scope: None,
        }),
        revoked_certs: (0..100).map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer.issuer()).unwrap().der().to_vec()
}
