//! Revocations that an event log announces: what counts, what it says, and what changes nothing.

use trust_store::announcement::{Announcement, Announcements, MAX_ANNOUNCEMENTS, REVOCATION_TYPE};
use trust_store::budget::Budget;
use trust_store::certificate::Certificate;
use trust_store::crl::RevocationReason;
use trust_store::dsse::{self, Envelope, IN_TOTO_PAYLOAD_TYPE};
use trust_store::event::{EventRule, EventRules};
use trust_store::json::Bytes;
use trust_store::path::{PathPolicy, build_path};
use trust_store::provider::AwsLc;
use trust_store::revocation::{
    AuthorityStatus, EarlierSignatures, RevocationEvidence, RevocationPolicy, RevocationStatus,
};
use trust_store::signature::{Algorithm, InvalidSignature, SignatureVerifier};
use trust_store::{ReasonCode, UnixTime};

use super::{SERIAL, check, crls, leaf, status, strict};
use crate::forge::{Ca, DAY, Key, NOW};

/// A CA and the key of its statements.
struct Announcer {
    ca: Ca,
    key: Key,
}

impl Announcer {
    fn new(name: &str) -> Self {
        Self { ca: Ca::root(name), key: Key::new() }
    }

    /// Believed for certificates of its own only.
    fn rule(&self, kind: &str) -> EventRule {
        EventRule {
            predicate_type: kind.into(),
            issuer: Some(self.ca.name.clone()),
            issuer_name: Some(Bytes(self.ca.certificate.subject_der().to_vec())),
            issuer_key: Some(Bytes(self.ca.certificate.key_digest().to_vec())),
            keys: vec![Bytes(self.key.spki())],
        }
    }

    fn signed(&self, statement: &str) -> Envelope {
        let message = dsse::pae(IN_TOTO_PAYLOAD_TYPE, statement.as_bytes());
        // Without the header of the bit string.
        let signature = self.key.sign(&message)[3..].to_vec();
        Envelope::new(IN_TOTO_PAYLOAD_TYPE, statement.as_bytes().to_vec(), signature)
    }
}

/// What a statement says.
struct Said<'a> {
    kind: &'a str,
    digest: [u8; 32],
    serial: &'a str,
    reason: u8,
    at: i64,
    recorded: i64,
}

impl<'a> Said<'a> {
    fn of(certificate: &Certificate) -> Self {
        let digest = certificate.fingerprint();
        Self { kind: REVOCATION_TYPE, digest, serial: "42", reason: 1, at: NOW.0 - 60, recorded: NOW.0 - 60 }
    }

    fn by(&self, issuer: &str) -> String {
        let Self { kind, digest, serial, reason, at, recorded } = self;
        let digest = hex::encode(digest);
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"{issuer}/{serial}","digest":{{"sha256":"{digest}"}}}}],"predicateType":"{kind}","predicate":{{"issuer":"{issuer}","serial":"{serial}","reason":{reason},"revokedAt":{at},"recordedAt":{recorded}}}}}"#
        )
    }
}

fn announcement(rules: &EventRules, envelope: &Envelope) -> Option<Announcement> {
    Announcement::of(&rules.verify(envelope, &AwsLc).ok()?)
}

fn evidence(ca: &Ca, announced: impl IntoIterator<Item = Announcement>) -> RevocationEvidence {
    let announced = Announcements::default().with(announced);
    // A list of before the revocation, which says "good".
    RevocationEvidence { announced, ..crls(&[ca.crl(&[], &[])]) }
}

#[test]
fn what_the_ca_announced_denies_although_its_list_says_good() {
    let own = Announcer::new("ca");
    let leaf = leaf(&own.ca);
    let rules = EventRules::new(vec![own.rule(REVOCATION_TYPE)]).unwrap();
    let announced = announcement(&rules, &own.signed(&Said::of(&leaf).by("ca"))).unwrap();
    let evidence = evidence(&own.ca, [announced]);
    let at = NOW.plus(-60);
    let expected = RevocationStatus::Revoked { at, reason: RevocationReason::KeyCompromise };
    assert_eq!(status(&evidence, &leaf, &own.ca), expected);

    let anchors = std::slice::from_ref(&own.ca.certificate);
    let chain = build_path(&leaf, &[], anchors, NOW, &PathPolicy::default(), &AwsLc).unwrap();
    let denied = |policy: &RevocationPolicy, now: UnixTime, proven_at| {
        let mut check = check(&evidence, policy, now);
        check.proven_at = proven_at;
        // As much as one list costs.
        let mut list = Budget { signature_checks: 1, ..Budget::default() };
        let chain = check.check_chain(&chain, &mut list).map(drop);
        let mut list = Budget { signature_checks: 1, ..Budget::default() };
        let authority = check.check_timestamp_authority(
            &build_path(&leaf, &[], anchors, NOW, &PathPolicy::default(), &AwsLc).unwrap(),
            NOW.plus(-DAY),
            &mut list,
        );
        (chain.err().map(|denial| denial.code), authority.err().map(|denial| denial.code))
    };
    let revoked = Some(ReasonCode::Revoked);
    assert_eq!(denied(&strict(), NOW, None), (revoked, revoked), "a compromise spoils every token");
    let lenient = RevocationPolicy { earlier_signatures: EarlierSignatures::AcceptProvenBefore, ..strict() };
    assert_eq!(denied(&lenient, NOW, Some(at)).0, revoked);
    assert_eq!(denied(&lenient, NOW, Some(at.plus(-1))).0, None, "as with a list");
    // Its time has not come by this clock.
    assert_eq!(denied(&strict(), at.plus(-1), None), (None, None));
}

#[test]
fn an_announcement_that_is_forgiven_takes_the_place_of_no_evidence() {
    let own = Announcer::new("ca");
    let leaf = leaf(&own.ca);
    let rules = EventRules::new(vec![own.rule(REVOCATION_TYPE)]).unwrap();
    let anchors = std::slice::from_ref(&own.ca.certificate);
    let chain = build_path(&leaf, &[], anchors, NOW, &PathPolicy::default(), &AwsLc).unwrap();
    let lenient = RevocationPolicy {
        earlier_signatures: EarlierSignatures::AcceptProvenBefore,
        timestamp_authorities: AuthorityStatus::LikeTheSigner,
        ..strict()
    };
    // In order, an hour after the signature and the token.
    let said = Said { reason: 4, ..Said::of(&leaf) };
    let announced = announcement(&rules, &own.signed(&said.by("ca"))).unwrap();
    let before = NOW.plus(-3600);
    let expected = ReasonCode::RevocationUnknown;
    for announced in [None, Some(announced)] {
        let announced = Announcements::default().with(announced);
        let evidence = RevocationEvidence { announced, ..RevocationEvidence::default() };
        let mut check = check(&evidence, &lenient, NOW);
        check.proven_at = Some(before);
        let signer = check.check_chain(&chain, &mut Budget::default()).map(drop).unwrap_err();
        let authority = check.check_timestamp_authority(&chain, before, &mut Budget::default()).unwrap_err();
        assert_eq!((signer.code, authority.code), (expected, expected));
    }
}

#[test]
fn what_nobody_who_may_said_of_this_certificate_changes_nothing() {
    // Authorities that were set up alike have one name.
    let (own, other, twin) = (Announcer::new("ca"), Announcer::new("other"), Announcer::new("ca"));
    assert_eq!(own.ca.certificate.subject_der(), twin.ca.certificate.subject_der());
    let (leaf, sibling) = (leaf(&own.ca), own.ca.leaf(|body| body.serial = vec![0x43]));
    let mut rules = vec![own.rule(REVOCATION_TYPE), own.rule("another type"), other.rule(REVOCATION_TYPE)];
    rules.push(twin.rule(REVOCATION_TYPE));
    let rules = EventRules::new(rules).unwrap();
    let good = |what: &str, announced: Option<Announcement>| {
        let status = status(&evidence(&own.ca, announced), &leaf, &own.ca);
        assert!(matches!(status, RevocationStatus::Good { .. }), "{what}: {status:?}");
    };
    let refused =
        |what: &str, envelope: &Envelope| assert_eq!(announcement(&rules, envelope), None, "{what}");
    let said = || Said::of(&leaf);

    refused("another key", &other.signed(&said().by("ca")));
    let mut altered = own.signed(&Said::of(&sibling).by("ca"));
    altered.payload = said().by("ca").into_bytes();
    refused("a signature of another statement", &altered);
    refused("another type", &own.signed(&Said { kind: "another type", ..said() }.by("ca")));
    for reason in [6, 7, 8, 200] {
        refused("no final reason", &own.signed(&Said { reason, ..said() }.by("ca")));
    }
    let whole = said().by("ca");
    for (part, instead) in [
        ("\"reason\":1", "\"reason\":\"1\""),
        ("revokedAt", "x"),
        ("recordedAt", "x"),
        ("\"serial\":\"42\"", "\"serial\":66"),
        ("\"sha256\":\"", "\"sha256\":\"00"),
        ("\"sha256\"", "\"sha512\""),
        ("}}],", "}},{\"digest\":{\"sha256\":\"00\"}}],"),
    ] {
        refused(instead, &own.signed(&whole.replacen(part, instead, 1)));
    }

    // Well said, of something else or at another time.
    let said_by = |announcer: &Announcer, said: Said<'_>| {
        announcement(&rules, &announcer.signed(&said.by(&announcer.ca.name))).unwrap()
    };
    good("another CA", Some(said_by(&other, said())));
    good("another CA of the same name", Some(said_by(&twin, said())));
    good("another serial number", Some(said_by(&own, Said { serial: "43", ..said() })));
    good("an unknown certificate", Some(said_by(&own, Said { digest: [7; 32], ..said() })));
    good("the next certificate", Some(said_by(&own, Said { serial: "43", ..Said::of(&sibling) })));
    good("dated in the future", Some(said_by(&own, Said { at: NOW.0 + 1, ..said() })));
    good("recorded in the future", Some(said_by(&own, Said { recorded: NOW.0 + 1, ..said() })));
    good("nothing", None);

    // And none of it hides what is true.
    let lies = [
        said_by(&other, said()),
        said_by(&twin, said()),
        said_by(&own, Said { serial: "43", ..said() }),
        said_by(&own, Said { serial: "00042", ..said() }),
    ];
    let all = evidence(&own.ca, lies);
    let expected = RevocationStatus::Revoked { at: NOW.plus(-60), reason: RevocationReason::KeyCompromise };
    assert_eq!(status(&all, &leaf, &own.ca), expected);
}

#[test]
fn said_again_it_is_the_same_and_a_correction_only_makes_it_stricter() {
    let own = Announcer::new("ca");
    let leaf = leaf(&own.ca);
    let rules = EventRules::new(vec![own.rule(REVOCATION_TYPE)]).unwrap();
    let said = |reason, at| {
        let said = Said { reason, at: NOW.0 + at, ..Said::of(&leaf) };
        announcement(&rules, &own.signed(&said.by("ca"))).unwrap()
    };
    let once = Announcements::default().with([said(4, -60)]);
    assert_eq!(once.with([said(4, -60)]), once);
    // Kept and read back it is the same, in one form.
    let kept = serde_json::to_string(&once).unwrap();
    let base64 = |bytes: &[u8]| serde_json::to_string(&Bytes(bytes.to_vec())).unwrap();
    let (name, key) = (base64(own.ca.certificate.subject_der()), base64(&own.ca.certificate.key_digest()));
    let issuer = format!(r#"{{"name":{name},"key":{key}}}"#);
    let expected = format!(
        r#"[{{"certificate":"{}","issuers":[{issuer}],"serial":"42","reason":4,"at":"{1}","recorded":"{1}"}}]"#,
        hex::encode(leaf.fingerprint()),
        NOW.0 - 60
    );
    assert_eq!(kept, expected);
    assert_eq!(serde_json::from_str::<Announcements>(&kept).unwrap(), once);
    for (part, instead) in [("\"reason\":4", "\"reason\":6"), ("certificate\":\"", "certificate\":\"0")] {
        assert!(serde_json::from_str::<Announcements>(&kept.replace(part, instead)).is_err(), "{instead}");
    }
    for order in [[said(4, -60), said(1, -50)], [said(1, -50), said(4, -60)]] {
        let announced = Announcements::default().with(order);
        let evidence = RevocationEvidence { announced, ..RevocationEvidence::default() };
        let expected =
            RevocationStatus::Revoked { at: NOW.plus(-60), reason: RevocationReason::KeyCompromise };
        assert_eq!(status(&evidence, &leaf, &own.ca), expected);
    }
}

/// Believes everything: thousands of signatures are not what is tested.
struct Everything;

impl SignatureVerifier for Everything {
    fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }

    fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }
}

#[test]
fn of_more_than_can_be_kept_the_latest_are() {
    let own = Announcer::new("ca");
    let leaf = leaf(&own.ca);
    let rules = EventRules::new(vec![own.rule(REVOCATION_TYPE)]).unwrap();
    let many = (0..MAX_ANNOUNCEMENTS as i64).map(|n| {
        let mut digest = [0xee; 32];
        digest[..8].copy_from_slice(&n.to_be_bytes());
        let text = Said { digest, recorded: n, ..Said::of(&leaf) }.by("ca");
        let envelope = Envelope::new(IN_TOTO_PAYLOAD_TYPE, text.into_bytes(), vec![0]);
        Announcement::of(&rules.verify(&envelope, &Everything).unwrap()).unwrap()
    });
    let newest = announcement(&rules, &own.signed(&Said::of(&leaf).by("ca"))).unwrap();
    let all = Announcements::default().with(many).with([newest.clone()]);
    assert_eq!(all.len(), MAX_ANNOUNCEMENTS);
    // What another authority writes, however late it dates it, pushes out nothing of this one, also where both have one name.
    let other = Announcer::new("ca");
    let rules = EventRules::new(vec![other.rule(REVOCATION_TYPE)]).unwrap();
    let flood = (0..2 * MAX_ANNOUNCEMENTS as i64).map(|n| {
        let mut digest = [0xdd; 32];
        digest[..8].copy_from_slice(&n.to_be_bytes());
        let text = Said { digest, recorded: NOW.0 + n, ..Said::of(&leaf) }.by("ca");
        let envelope = Envelope::new(IN_TOTO_PAYLOAD_TYPE, text.into_bytes(), vec![0]);
        Announcement::of(&rules.verify(&envelope, &Everything).unwrap()).unwrap()
    });
    let flooded = Announcements::default().with([newest]).with(flood);
    assert_eq!(flooded.len(), MAX_ANNOUNCEMENTS);
    let flooded = RevocationEvidence { announced: flooded, ..RevocationEvidence::default() };
    assert!(matches!(status(&flooded, &leaf, &own.ca), RevocationStatus::Revoked { .. }));
    let evidence = RevocationEvidence { announced: all, ..RevocationEvidence::default() };
    assert!(matches!(status(&evidence, &leaf, &own.ca), RevocationStatus::Revoked { .. }));
    assert_eq!(SERIAL, [0x42]);
}
