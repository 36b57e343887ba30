//! Bundles of other clients: message signatures, bare keys, Rekor v1 entries, and the conformance door.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::sync::Arc;

use fixture::authority::{Leaf, Spki as _, p256};
use fixture::cases::sha256;
use fixture::scenario::{EMAIL, MODULE, Scenario, World, rule};
use fixture::{NOW, SIGNED_AT};
use rcgen::{RevocationReason, SigningKey as _};
use trust_store::attestation::{Attestation, Staples};
use trust_store::bundle::{Bundle, BundleVersion, Content, KeyMaterial};
use trust_store::conformance::decide_bundle;
use trust_store::evidence::Evidence;
use trust_store::json::{self, Bytes, Value, base64_encode};
use trust_store::key_details::{HashAlgorithm, KeyDetails};
use trust_store::log_entry::TransparencyLogEntry;
use trust_store::policy::{
    EarlierSignatures, IssuerRule, RevocationPolicy, SigningTimePolicy, TrustLevel, TrustPolicy, TrustedKey,
};
use trust_store::provider::AwsLc;
use trust_store::rekor::{HashedRekord, VerifierKey};
use trust_store::rekor_v1;
use trust_store::statement::Statement;
use trust_store::trusted_root::{KeyId, LogInstance, LogKey, TrustedRoot};
use trust_store::validity::Validity;
use trust_store::{ArtifactDigest, Denial, ReasonCode, UnixTime, VerifiedArtifact, Verifier};

/// A message signature over the module, stamped and logged.
fn message(world: &mut World, signer: &Leaf) -> Bundle {
    let signature = signer.key.sign(MODULE).unwrap();
    let certificate = signer.certificate.der().to_vec();
    let key = VerifierKey::Certificate(certificate.clone());
    let record =
        HashedRekord::new(sha256(MODULE).to_vec(), signature.clone(), key, KeyDetails::EcdsaP256Sha256)
            .unwrap();
    let mut bundle = Bundle::for_message(certificate, sha256(MODULE), signature.clone());
    bundle.timestamps.push(world.tsa.stamp(&signature, SIGNED_AT));
    bundle.log_entries.push(world.log.append(record.canonical_body().unwrap(), SIGNED_AT + 1));
    bundle
}

fn stock_policy() -> TrustPolicy {
    let identities = vec![rule(EMAIL, TrustLevel::Verified)];
    TrustPolicy { identities, ..TrustPolicy::danger_stock_client() }
}

fn verify(root: &TrustedRoot, bundle: &Bundle, policy: &TrustPolicy) -> Result<VerifiedArtifact, Denial> {
    let bundle = Bundle::parse(&bundle.to_json()?)?;
    let digest = ArtifactDigest::of(MODULE);
    let verifier = Verifier::new(Arc::new(AwsLc), root)?;
    verifier.verify(&Attestation::for_bundle(bundle)?, digest, policy, &Evidence::none(), UnixTime(NOW))
}

fn code(result: Result<VerifiedArtifact, Denial>) -> Option<ReasonCode> {
    result.err().map(|denial| denial.code)
}

#[test]
fn a_message_signature_is_verified_over_the_digest() {
    let mut world = World::new();
    let signer = world.leaf(EMAIL);
    let bundle = message(&mut world, &signer);
    let root = world.trusted_root();
    let verified = verify(&root, &bundle, &stock_policy()).unwrap();
    assert_eq!(verified.identity().subject(), EMAIL);
    assert!(verified.statement().is_none() && verified.manifest().is_none());
    let mut other = bundle.clone();
    let Content::Message { digest, .. } = &mut other.content else { unreachable!() };
    *digest = Some((HashAlgorithm::Sha256, vec![0; 32]));
    assert_eq!(code(verify(&root, &other, &stock_policy())), Some(ReasonCode::DigestMismatch));
    let Content::Message { digest, signature: altered } = &mut other.content else { unreachable!() };
    *digest = None;
    *altered = signer.key.sign(b"other").unwrap();
    assert_eq!(code(verify(&root, &other, &stock_policy())), Some(ReasonCode::SignatureInvalid));
    // The product's own policy demands a release.
    assert_eq!(code(verify(&root, &bundle, &TrustPolicy::default())), Some(ReasonCode::Malformed));
}

#[test]
fn a_bare_key_is_accepted_only_if_the_policy_names_it() {
    let mut world = World::new();
    let key = p256();
    let spki = key.subject_public_key_info_der();
    let signature = key.sign(MODULE).unwrap();
    let record = HashedRekord::new(
        sha256(MODULE).to_vec(),
        signature.clone(),
        VerifierKey::PublicKey(spki.clone()),
        KeyDetails::EcdsaP256Sha256,
    )
    .unwrap();
    let bundle = Bundle {
        version: BundleVersion::V0_3,
        key: KeyMaterial::PublicKey { hint: "release".into() },
        log_entries: vec![world.log.append(record.canonical_body().unwrap(), SIGNED_AT + 1)],
        timestamps: vec![world.tsa.stamp(&signature, SIGNED_AT)],
        content: Content::Message { digest: None, signature },
    };
    let root = world.trusted_root();
    assert_eq!(code(verify(&root, &bundle, &stock_policy())), Some(ReasonCode::IdentityDenied));
    let trusted = |name: &str, spki: Vec<u8>| TrustPolicy {
        keys: vec![TrustedKey {
            name: name.into(),
            spki,
            details: KeyDetails::EcdsaP256Sha256,
            level: TrustLevel::Verified,
        }],
        ..TrustPolicy::danger_stock_client()
    };
    for name in ["release", "other name"] {
        let verified = verify(&root, &bundle, &trusted(name, spki.clone())).unwrap();
        assert_eq!((verified.identity().subject(), verified.chain().len()), (name, 0));
    }
    let stranger = p256().subject_public_key_info_der();
    assert_eq!(
        code(verify(&root, &bundle, &trusted("release", stranger))),
        Some(ReasonCode::SignatureInvalid)
    );
}

/// A Rekor v1 entry of a message signature, with a signed entry timestamp and nothing else.
fn rekor_v1_bundle(world: &mut World, signer: &Leaf, root: &mut TrustedRoot) -> Bundle {
    let log = p256();
    let spki = log.subject_public_key_info_der();
    let log_id = HashAlgorithm::Sha256.digest(&spki);
    root.tlogs.push(LogInstance {
        base_url: "https://rekor.example".into(),
        hash_algorithm: HashAlgorithm::Sha256,
        public_key: LogKey {
            raw_bytes: Bytes(spki),
            key_details: KeyDetails::EcdsaP256Sha256,
            valid_for: Validity::since(UnixTime(SIGNED_AT - 1000)),
        },
        log_id: KeyId { key_id: Bytes(log_id.clone()) },
        checkpoint_key_id: None,
        operator: String::new(),
    });
    let mut bundle = message(world, signer);
    let body = format!(
        r#"{{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{{"data":{{"hash":{{"algorithm":"sha256","value":"{}"}}}},"signature":{{"content":"{}","publicKey":{{"content":"{}"}}}}}}}}"#,
        hex::encode(sha256(MODULE)),
        base64_encode(bundle.signature().unwrap()),
        base64_encode(signer.certificate.to_pem().as_bytes()),
    );
    let mut entry = TransparencyLogEntry {
        log_index: 42,
        log_id,
        kind: "hashedrekord".into(),
        version: "0.0.1".into(),
        integrated_time: SIGNED_AT + 1,
        inclusion_promise: None,
        inclusion_proof: None,
        canonicalized_body: body.into_bytes(),
    };
    entry.inclusion_promise = Some(log.sign(&rekor_v1::promise_message(&entry).unwrap()).unwrap());
    bundle.version = BundleVersion::V0_1;
    bundle.log_entries = vec![entry];
    bundle.timestamps.clear();
    bundle
}

#[test]
fn a_rekor_v1_entry_counts_with_its_signed_timestamp_only() {
    let mut world = World::new();
    let signer = world.leaf(EMAIL);
    let mut root = world.trusted_root();
    let bundle = rekor_v1_bundle(&mut world, &signer, &mut root);
    let verified = verify(&root, &bundle, &stock_policy()).unwrap();
    assert_eq!(verified.signing_time(), Some(UnixTime(SIGNED_AT + 1)));
    assert_eq!((verified.log_origin(), verified.log_index()), (Some("rekor.example"), Some(42)));

    let token_only = TrustPolicy { signing_time: SigningTimePolicy::TokenRequired, ..stock_policy() };
    assert_eq!(code(verify(&root, &bundle, &token_only)), Some(ReasonCode::TimestampMissing));

    // The log's signed time also shows on which side of a revocation the entry is.
    let since = |at: i64| {
        let list = world.intermediate.crl_for(at, &[&signer.certificate], RevocationReason::KeyCompromise);
        let crls = [world.root.crl(SIGNED_AT, &[]), list].map(Bytes).to_vec();
        let staples = Staples { crl: crls, ..Staples::default() };
        let attestation =
            Attestation::for_bundle(bundle.clone()).unwrap().with_material(Vec::new(), &staples);
        let revocation = RevocationPolicy {
            earlier_signatures: EarlierSignatures::AcceptProvenBefore,
            ..RevocationPolicy::default()
        };
        let policy = TrustPolicy { revocation, ..stock_policy() };
        let verifier = Verifier::new(Arc::new(AwsLc), &root).unwrap();
        let digest = ArtifactDigest::of(MODULE);
        code(verifier.verify(&attestation.unwrap(), digest, &policy, &Evidence::none(), UnixTime(NOW)))
    };
    assert_eq!([since(SIGNED_AT + 2), since(SIGNED_AT + 1)], [None, Some(ReasonCode::Revoked)]);

    let mut backdated = bundle.clone();
    backdated.log_entries[0].integrated_time -= 5;
    assert_eq!(code(verify(&root, &backdated, &stock_policy())), Some(ReasonCode::TimestampMissing));

    let mut newer = bundle.clone();
    newer.version = BundleVersion::V0_2;
    assert_eq!(code(verify(&root, &newer, &stock_policy())), Some(ReasonCode::InclusionMissing));

    let mut stamped = backdated.clone();
    stamped.timestamps = vec![world.tsa.stamp(bundle.signature().unwrap(), SIGNED_AT)];
    assert_eq!(code(verify(&root, &stamped, &stock_policy())), Some(ReasonCode::InclusionInvalid));

    let mut other = bundle.clone();
    let text = String::from_utf8(other.log_entries[0].canonicalized_body.clone()).unwrap();
    other.log_entries[0].canonicalized_body =
        text.replace(&hex::encode(sha256(MODULE)), &"0".repeat(64)).into_bytes();
    other.timestamps = stamped.timestamps.clone();
    assert_eq!(code(verify(&root, &other, &stock_policy())), Some(ReasonCode::EntryMismatch));
}

/// One line of the conformance door.
fn case(scenario: &Scenario, members: &str) -> String {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let root: Value = json::parse("x", &scenario.root.to_json().unwrap(), 1 << 20).unwrap();
    format!(
        r#"{{"id":7,"bundle":{},"trusted_root":{},"artifact_digest":"sha256:{}"{members}}}"#,
        text(scenario.bundle.to_json().unwrap()),
        text(json::write("x", &root).unwrap()),
        hex::encode(sha256(&scenario.module)),
    )
}

fn decide(line: &str) -> (String, Option<String>) {
    let answer: Value =
        json::parse("answer", decide_bundle(line, UnixTime(NOW), Arc::new(AwsLc)).as_bytes(), 9999).unwrap();
    assert!(!line.contains(r#""id":7"#) || answer.member("id") == Some(&Value::Integer(7)));
    let reason = answer.member("reason").and_then(Value::as_str).map(str::to_owned);
    (answer.member("decision").and_then(Value::as_str).unwrap().to_owned(), reason)
}

#[test]
fn the_conformance_door_decides_as_the_verifier_does() {
    let scenario = Scenario::valid();
    let identity = format!(r#","identity":"{EMAIL}","issuer":null,"key":null,"policy":null,"time":null"#);
    let admit = ("admit".to_owned(), None);
    let deny = |reason: &str| ("deny".to_owned(), Some(reason.to_owned()));
    assert_eq!(decide(&case(&scenario, &identity)), admit);
    let revocation = |mode: &str, crls: &[Vec<u8>]| {
        let crls: Vec<String> = crls.iter().map(|crl| format!("\"{}\"", base64_encode(crl))).collect();
        format!(r#"{identity},"revocation":{{"mode":"{mode}","crls":[{}],"ocsp":[]}}"#, crls.join(","))
    };
    let good = [&scenario.world.root, &scenario.world.intermediate].map(|ca| ca.crl(SIGNED_AT, &[]));
    let bad = [scenario.world.intermediate.crl(SIGNED_AT, &[&scenario.signer.certificate])];
    assert_eq!(decide(&case(&scenario, &revocation("require", &good))), admit);
    assert_eq!(decide(&case(&scenario, &revocation("require", &[]))), deny("revocation_unknown"));
    assert_eq!(decide(&case(&scenario, &revocation("if-present", &[]))), admit);
    assert_eq!(decide(&case(&scenario, &revocation("if-present", &bad))), deny("revoked"));
    assert_eq!(decide(&case(&scenario, &revocation("none", &bad))), admit);
    assert_eq!(decide(&case(&scenario, r#","identity":"x@example.com""#)), deny("identity_denied"));
    assert_eq!(decide(&case(&scenario, "")), deny("identity_denied"));
    let issuer = format!(r#","identity":"{EMAIL}","issuer":"https://id.example""#);
    assert_eq!(decide(&case(&scenario, &issuer)), deny("identity_denied"), "the certificate names no issuer");
    let policy = format!(r#"{identity},"policy":{{"version":1}}"#).replace(r#","policy":null"#, "");
    assert_eq!(decide(&case(&scenario, &policy)), deny("malformed"), "a release needs its manifest");
    let early = format!(r#"{identity},"time":"2026-05-31T00:00:00Z""#).replace(r#","time":null"#, "");
    assert_eq!(decide(&case(&scenario, &early)), deny("timestamp_invalid"));
    let twice = case(&scenario, &identity).replace(r#""mediaType""#, r#""mediaType":"x","mediaType""#);
    assert_eq!(decide(&twice), deny("malformed"));
    for line in ["", "nonsense", r#"{"id":7}"#, "[1]"] {
        assert_eq!(decide(line), deny("malformed"), "{line}");
    }
}

/// A suite that sends a policy for what has no member of its own, and the signer and the mode by the members.
#[test]
fn what_a_policy_does_not_say_the_case_says() {
    let scenario = Scenario::valid();
    let admit = ("admit".to_owned(), None);
    let deny = |reason: &str| ("deny".to_owned(), Some(reason.to_owned()));
    let policy = |more: &str| {
        format!(
            r#","policy":{{"version":1,"artifact":"any-signed-artifact","logs":{{"witnesses":"not-required"}},
            "freshness":"attested-checkpoint-suffices"{more}}}"#
        )
    };
    let silent = policy("");
    let endorsed = policy(
        r#","required_level":"community","endorsements":{"at-least":{"count":1,"endorsers":
        [{"subject":"**","issuer":"any-of-the-authority","level":"signed"}]}}"#,
    );
    let (nobody, no_keys) = (policy(r#","identities":[]"#), policy(r#","keys":[]"#));
    let aged = policy(r#","revocation":{"max_age_seconds":60}"#);
    let strict = policy(r#","revocation":{"mode":"require"}"#);
    let name = format!(r#","identity":"{EMAIL}""#);
    let mode = |mode: &str| format!(r#","revocation":{{"mode":"{mode}"}}"#);
    let (none, require) = (mode("none"), mode("require"));
    let issuer = r#","issuer":"**""#;
    for (members, expected) in [
        (vec![silent.as_str(), &name, &none], admit.clone()),
        (vec![&aged, &name, &none], admit.clone()),
        (vec![&silent, &name], deny("revocation_unknown")),
        (vec![&silent, &name, &require], deny("revocation_unknown")),
        (vec![&strict, &name, &none], deny("revocation_unknown")),
        (vec![&silent, r#","identity":"bob@example.com""#, &none], deny("identity_denied")),
        (vec![&silent, issuer, &none], deny("identity_denied")),
        (vec![&silent, &none], deny("identity_denied")),
        (vec![&nobody, &name, &none], deny("identity_denied")),
        (vec![&no_keys, &name, &none], deny("identity_denied")),
        (vec![&endorsed, &name, &none], deny("endorsement_missing")),
    ] {
        assert_eq!(decide(&case(&scenario, &members.concat())), expected, "{members:?}");
    }
}

/// Whatever a case says besides its policy is one more condition.
#[test]
fn no_member_of_a_case_loosens_what_another_demands() {
    let mut scenario = Scenario::valid();
    let admit = ("admit".to_owned(), None);
    let deny = |reason: &str| ("deny".to_owned(), Some(reason.to_owned()));
    let policy = |subject: &str, mode: &str| {
        format!(
            r#","policy":{{"version":1,"artifact":"any-signed-artifact","logs":{{"witnesses":"not-required"}},
            "freshness":"attested-checkpoint-suffices","revocation":{{"mode":"{mode}"}},
            "identities":[{{"subject":"{subject}","issuer":"any-of-the-authority","level":"verified"}}]}}"#
        )
    };
    let (ours, strict) = (policy(EMAIL, "danger-skip"), policy(EMAIL, "require"));
    let other = policy("bob@example.com", "danger-skip");
    let key = |spki: &[u8]| format!(r#","key":"{}""#, base64_encode(spki));
    let own_key = key(scenario.signer.certificate.spki_der());
    let strange_key = key(&p256().subject_public_key_info_der());
    let (name, bob) = (format!(r#","identity":"{EMAIL}""#), r#","identity":"bob@example.com""#);
    let issuer = r#","issuer":"https://id.example""#;
    let mode = |mode: &str| format!(r#","revocation":{{"mode":"{mode}"}}"#);
    let denied = || deny("identity_denied");
    for (members, expected) in [
        (vec![ours.as_str()], admit.clone()),
        (vec![&ours, &name], admit.clone()),
        (vec![&other, &name], denied()),
        (vec![&ours, bob], denied()),
        (vec![&ours, issuer], denied()),
        (vec![&ours, &own_key], admit.clone()),
        (vec![&ours, &strange_key], denied()),
        (vec![&other, &own_key], denied()),
        (vec![&name, &own_key], admit.clone()),
        (vec![&name, &strange_key], denied()),
        (vec![&own_key], denied()),
        (vec![issuer], denied()),
        (vec![r#","issuer":"**""#], denied()),
        (vec![&strict, &mode("none")], deny("revocation_unknown")),
        (vec![&strict, &mode("if-present")], deny("revocation_unknown")),
        (vec![&ours, &mode("require")], deny("revocation_unknown")),
        (vec![&ours, &mode("if-present")], admit.clone()),
        (vec![&ours, &mode("none")], admit.clone()),
    ] {
        assert_eq!(decide(&case(&scenario, &members.concat())), expected, "{members:?}");
    }
    // A signature by a bare key: it has no name to demand.
    let bare = p256();
    let statement = Statement::agent_release(&scenario.manifest, &sha256(MODULE));
    scenario.bundle = scenario.world.sign_with_key(&statement, &bare);
    let bare = key(&bare.subject_public_key_info_der());
    let keys = |spki: &str| {
        let key = format!(
            r#""keys":[{{"name":"k"{},"key_details":"PKIX_ECDSA_P256_SHA_256","level":"verified"}}],"#,
            spki.replace("key", "spki")
        );
        ours.replacen(r#""version":1,"#, &format!(r#""version":1,{key}"#), 1)
    };
    for (members, expected) in [
        (vec![bare.as_str()], admit.clone()),
        (vec![&strange_key], deny("signature_invalid")),
        (vec![&bare, &name], denied()),
        (vec![&ours, &bare], denied()),
        (vec![&keys(&bare)], admit.clone()),
        (vec![&keys(&bare), &bare], admit.clone()),
        (vec![&keys(&bare), &strange_key], denied()),
        (vec![&keys(&bare), &name], denied()),
    ] {
        assert_eq!(decide(&case(&scenario, &members.concat())), expected, "{members:?}");
    }
}

#[test]
fn an_issuer_rule_needs_the_extension_to_match() {
    let mut scenario = Scenario::valid();
    scenario.policy.identities[0].issuer =
        IssuerRule::Matching(trust_store::pattern::Pattern::new("**").unwrap());
    assert_eq!(
        code(scenario.verify()),
        Some(ReasonCode::IdentityDenied),
        "no issuer extension, nothing to match"
    );
}

#[test]
fn keys_of_logs_that_served_long_ago_do_not_spoil_a_trusted_root() {
    let mut world = World::new();
    let signer = world.leaf(EMAIL);
    let bundle = message(&mut world, &signer);
    let mut root = world.trusted_root();
    // An RSAPublicKey, which is no SubjectPublicKeyInfo, and names that nothing is verified by.
    for details in [KeyDetails::DeprecatedRsaPkcs1v5, KeyDetails::LmsSha256, KeyDetails::EcdsaP521Sha256] {
        let old = LogInstance {
            base_url: "https://old.example".into(),
            hash_algorithm: HashAlgorithm::Sha256,
            public_key: LogKey {
                raw_bytes: Bytes(vec![0x30, 0x06, 0x02, 0x01, 0x05, 0x02, 0x01, 0x03]),
                key_details: details,
                valid_for: Validity::since(UnixTime(0)),
            },
            log_id: KeyId { key_id: Bytes(vec![7; 32]) },
            checkpoint_key_id: None,
            operator: String::new(),
        };
        root.ctlogs.push(old.clone());
        root.tlogs.push(old);
    }
    let root = TrustedRoot::parse(&root.to_json().unwrap()).unwrap();
    drop(verify(&root, &bundle, &stock_policy()).unwrap());
}
