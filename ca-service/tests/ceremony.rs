//! Ceremonies: founding with a quorum, cross-certificates and lists afterwards, and everything that must stop one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ca_pki::UnixTime;
use ca_service::approval::{Intent, PAYLOAD_TYPE, Statement};
use ca_service::ceremony::description::Description;
use ca_service::ceremony::{self, Held};
use ca_service::config::Settings;
use ca_service::issuance::Issued;
use ca_service::storage::Search;
use ca_service::{CaError, CertificateAuthority, transcript};
use fixture::log::FakeLog;
use fixture::{Site, check_ca, enrol_request, key, settings, token_request};
use hsm::developer::DeveloperKey;
use hsm::software::{KdfProfile, KeystoreOptions};
use hsm::{IntentId, KeyAlgorithm, Purpose, Signer as _, SigningIntent};
use service::{StartRefusal, SystemClock};
use trust_store::dsse::Envelope;

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

struct Room {
    folder: tempfile::TempDir,
    keys: Vec<DeveloperKey>,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<DeveloperKey> =
            PEOPLE.iter().map(|_| DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap()).collect();
        for (name, key) in PEOPLE.iter().zip(&keys) {
            std::fs::write(folder.path().join(name), key.public_key().to_pem()).unwrap();
        }
        Self { folder, keys }
    }

    fn settings(&self) -> Settings {
        let people: String = PEOPLE
            .iter()
            .map(|name| {
                let file = self.folder.path().join(name);
                format!(
                    "[[approvals.approvers]]\nname = \"{name}\"\npublic_key_file = \"{}\"\n",
                    file.display()
                )
            })
            .collect();
        settings(self.folder.path(), &format!("\n[approvals]\nthreshold = 2\n{people}"), "")
    }

    fn approval(&self, who: usize, intent: &[u8]) -> Vec<u8> {
        let statement = Statement::of(Intent::Ceremony, intent, PEOPLE[who], 0);
        let (signed, payload) = statement.to_be_signed().unwrap();
        let why = SigningIntent::new(Purpose::Statement, IntentId::new(&[1; 16]).unwrap());
        let signature = self.keys[who].sign_message(&signed, &why).unwrap();
        serde_json::to_vec(&Envelope::new(PAYLOAD_TYPE, payload, signature.into_vec())).unwrap()
    }
}

async fn hold(settings: &Settings, plan: &[u8], approvals: &[Vec<u8>]) -> Result<Held, StartRefusal> {
    let keys = KeystoreOptions::default().with_kdf(KdfProfile::DangerForTests);
    ceremony::hold(settings, Arc::new(SystemClock), keys, plan, approvals).await
}

async fn prepare(settings: &Settings, description: &str) -> Vec<u8> {
    let description = Description::parse(description).unwrap();
    ceremony::prepare(settings, &description, &SystemClock).await.unwrap()
}

fn events(path: &Path) -> Vec<String> {
    transcript::verify(path).unwrap().into_iter().map(|line| line.event).collect()
}

/// Another organisation's root, in a file.
async fn other_root(folder: &Path) -> PathBuf {
    let home = tempfile::tempdir().unwrap();
    let mut settings = settings(home.path(), "", "");
    settings.config.hierarchy.root.common_name = Some("Another Root".to_owned());
    let site = Site::with_settings(home, settings).await;
    let path = folder.join("other-root.pem");
    std::fs::copy(&site.outcome.root, &path).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_with_approvers_is_founded_and_extended_only_by_its_quorum() {
    let room = Room::new();
    let settings = room.settings();
    let keys = KeystoreOptions::default().with_kdf(KdfProfile::DangerForTests);
    let refused = ceremony::run(&settings, Arc::new(SystemClock), keys).await.unwrap_err().to_string();
    assert!(refused.contains("ceremony prepare"), "{refused}");
    assert!(!settings.database.exists().await.unwrap());

    let founding = Description::of_hierarchy(&settings);
    let plan = ceremony::prepare(&settings, &founding, &SystemClock).await.unwrap();
    assert!(!settings.data_dir.exists(), "a dry run writes nothing");
    let (alice, bob) = (room.approval(0, &plan), room.approval(1, &plan));
    let other = ceremony::prepare(&settings, &founding, &SystemClock).await.unwrap();
    for (papers, code) in [
        (vec![], "quorum_missing"),
        (vec![alice.clone()], "quorum_missing"),
        (vec![alice.clone(), alice.clone()], "quorum_missing"),
        (vec![alice.clone(), room.approval(1, &other)], "approval_of_other_intent"),
    ] {
        let refused = hold(&settings, &plan, &papers).await.unwrap_err().to_string();
        assert!(refused.contains(code), "{code}: {refused}");
        assert!(!settings.data_dir.exists(), "nothing is begun without the quorum");
    }
    let held = hold(&settings, &plan, &[bob, alice]).await.unwrap();
    assert_eq!(held.approved_by, ["alice", "bob"]);
    let outcome = held.founded.unwrap();
    let lines = transcript::verify(&outcome.transcript).unwrap();
    assert_eq!(lines[0].event, "ceremony.begun");
    assert_eq!(lines[0].detail["plan_sha256"], held.plan_sha256.as_str());
    // The proofs are in the transcript: anybody can verify them again.
    let paper = serde_json::to_vec(&lines[1].detail["envelope"]).unwrap();
    let envelope = Envelope::parse(&paper).unwrap();
    let key = room.keys[0].public_key();
    key.verify(
        key.algorithm().default_signature(),
        hsm::Input::Message(&envelope.pae()),
        &envelope.signatures[0].sig,
    )
    .unwrap();
    assert_eq!(lines.last().unwrap().event, "ceremony.finished");

    // The next ceremony: another root is cross-certified, and every list is signed anew.
    other_root(room.folder.path()).await;
    let path = room.folder.path().join("extension.toml");
    let text = "name = \"accept the other root\"\n\
                [[steps]]\nmake = \"cross-certificate\"\nname = \"other\"\ncertificate = \"other-root.pem\"\ndays = 700\n\
                [[steps]]\nmake = \"revocation-lists\"\n";
    std::fs::write(&path, text).unwrap();
    let description = Description::read(&path).unwrap();
    let plan = ceremony::prepare(&settings, &description, &SystemClock).await.unwrap();
    let refused = hold(&settings, &plan, &[room.approval(2, &plan)]).await.unwrap_err().to_string();
    assert!(refused.contains("quorum_missing"), "{refused}");
    let papers = [room.approval(2, &plan), room.approval(1, &plan)];
    let held = hold(&settings, &plan, &papers).await.unwrap();
    assert!(held.founded.is_none() && held.lists > 2, "{held:?}");
    assert_eq!(
        events(&held.transcript),
        [
            "ceremony.begun",
            "approval.accepted",
            "approval.accepted",
            "certificate.issued",
            "crl.published",
            "ceremony.finished"
        ]
    );
    // Once is enough: the same plan with the same approvals is not held a second time.
    let again = hold(&settings, &plan, &papers).await.unwrap_err().to_string();
    assert!(again.contains("this ceremony was held"), "{again}");

    // The cross-certificate carries the other root's name and key, verifies, and is on record.
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let cross = fixture::der(&text(&held.cross_certificates[0]));
    let theirs = fixture::der(&text(&room.folder.path().join("other-root.pem")));
    let ours = fixture::der(&text(&outcome.root));
    let (cross, theirs) =
        (ca_pki::certificate::parse(&cross).unwrap(), ca_pki::certificate::parse(&theirs).unwrap());
    let ours = ca_pki::certificate::parse(&ours).unwrap();
    let (cross, theirs, ours) = (cross.tbs_certificate(), theirs.tbs_certificate(), ours.tbs_certificate());
    assert_eq!(cross.subject(), theirs.subject());
    assert_eq!(cross.subject_public_key_info(), theirs.subject_public_key_info());
    assert_eq!(cross.issuer(), ours.subject());

    let site = Site { folder: room.folder, settings, outcome, log: Arc::new(FakeLog::new()) };
    let authority = site.open().await;
    let recorded = authority.store().search(Search { limit: 100, ..Search::default() }).await.unwrap();
    assert!(recorded.iter().any(|one| one.profile == "cross-certificate" && one.issuer == "root"));
    // Nor does `renew` reach the root's key past the quorum.
    let refused = authority.renew("code-signing", &site.keyring()).await.unwrap_err().to_string();
    assert!(refused.contains("[approvals] names approvers"), "{refused}");
    check_ca(&authority).await;
}

async fn issued(authority: &Arc<CertificateAuthority>) -> Issued {
    let token = authority.create_token(&token_request("dev@example.com", "developer"), "test").await.unwrap();
    authority.enrol(&enrol_request(&token.token, &key(), None)).await.unwrap()
}

const SUCCESSION: &str = "name = \"new CAs\"\n\
    [[steps]]\nmake = \"code-signing-issuer\"\nsubject = { country = \"US\", organization = \"Example\", common_name = \"Signing CA II\" }\n\
    key = \"ecdsa-p384\"\ndays = 1000\n\
    [[steps]]\nmake = \"ocsp-responder\"\nsubject = { country = \"US\", organization = \"Example\", common_name = \"Responder II\" }\ndays = 300\n\
    [[steps]]\nmake = \"time-stamping-issuer\"\nsubject = { country = \"US\", organization = \"Example\", common_name = \"Stamping CA II\" }\n\
    key = \"ecdsa-p256\"\ndays = 1000\n\
    [[steps]]\nmake = \"timestamp-authority\"\nsubject = { country = \"US\", organization = \"Example\", common_name = \"TSA II\" }\ndays = 900\n\
    [[steps]]\nmake = \"revocation-lists\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn successors_are_made_by_the_quorum_where_there_is_one() {
    let room = Room::new();
    let settings = room.settings();
    let plan =
        ceremony::prepare(&settings, &Description::of_hierarchy(&settings), &SystemClock).await.unwrap();
    let held = hold(&settings, &plan, &[room.approval(0, &plan), room.approval(1, &plan)]).await.unwrap();
    assert!(held.authorities.is_empty());
    let (folder, log) = (tempfile::tempdir().unwrap(), Arc::new(FakeLog::new()));
    let site = Site { folder, settings: settings.clone(), outcome: held.founded.unwrap(), log };
    let authority = site.open().await;
    let old = issued(&authority).await;
    for name in ["root", "code-signing", "time-stamping"] {
        let refused = authority.renew(name, &site.keyring()).await.unwrap_err();
        assert!(matches!(refused, CaError::OutOfRange { field: "authority", .. }), "{refused}");
        assert!(refused.to_string().contains("ceremony"), "{refused}");
    }
    drop(authority);

    // A successor is no namesake, and has all that belongs to it.
    let mut namesake = Description::of_hierarchy(&settings);
    namesake.steps = vec![namesake.steps[1].clone(), namesake.steps[3].clone()];
    let refused = ceremony::prepare(&settings, &namesake, &SystemClock).await.unwrap_err().to_string();
    assert!(refused.contains("step 1: an authority of this name is there"), "{refused}");
    let mut alone = Description::parse(SUCCESSION).unwrap();
    alone.steps.truncate(1);
    let refused = ceremony::prepare(&settings, &alone, &SystemClock).await.unwrap_err().to_string();
    assert!(refused.contains("there is no ocsp-responder-2"), "{refused}");

    let plan = prepare(&settings, SUCCESSION).await;
    let (alice, carol) = (room.approval(0, &plan), room.approval(2, &plan));
    let refused = hold(&settings, &plan, std::slice::from_ref(&alice)).await.unwrap_err().to_string();
    assert!(refused.contains("quorum_missing"), "{refused}");
    assert!(!site.open().await.authorities().contains_key("code-signing-2"), "nothing without the quorum");
    // A plan whose step was given another place is no plan, whoever approved it.
    let moved = String::from_utf8(plan.clone()).unwrap().replace("\"code-signing-2\"", "\"code-signing-3\"");
    let papers = [room.approval(0, moved.as_bytes()), room.approval(2, moved.as_bytes())];
    let refused = hold(&settings, moved.as_bytes(), &papers).await.unwrap_err().to_string();
    assert!(refused.contains("not the one of its place"), "{refused}");

    let held = hold(&settings, &plan, &[alice, carol]).await.unwrap();
    let made = ["code-signing-2", "ocsp-responder-2", "time-stamping-2", "timestamp-authority"];
    assert_eq!(held.authorities, made);
    let told = events(&held.transcript);
    let count = |event: &str| told.iter().filter(|told| *told == event).count();
    assert_eq!((count("approval.accepted"), count("key.generated"), count("certificate.issued")), (2, 4, 4));
    assert_eq!(told[told.len() - 2..], ["crl.published", "ceremony.finished"]);

    let authority = site.open().await;
    let new = issued(&authority).await;
    assert_eq!(new.chain[0], authority.authorities()["code-signing-2"].certificate);
    assert_eq!(new.chain.last(), old.chain.last(), "the same root");
    assert_eq!(authority.responder_of("code-signing-2").unwrap().name, "ocsp-responder-2");
    let stamping = &authority.authorities()["timestamp-authority"].chain;
    assert_eq!(stamping[1], authority.authorities()["time-stamping-2"].certificate);
    let file = std::fs::read_to_string(&site.outcome.code_signing_chain).unwrap();
    let filed: Vec<_> = file.split_inclusive("-----END CERTIFICATE-----\n").map(fixture::der).collect();
    assert_eq!(filed, [new.chain[0].clone(), old.chain[0].clone(), old.chain[1].clone()]);
    let file = std::fs::read_to_string(&site.outcome.time_stamping_chain).unwrap();
    let filed: Vec<_> = file.split_inclusive("-----END CERTIFICATE-----\n").map(fixture::der).collect();
    assert_eq!(filed, *stamping);
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_of_an_authority_in_use_needs_approvers() {
    let site = Site::new().await;
    let plan = prepare(&site.settings, "name = \"lists\"\n[[steps]]\nmake = \"revocation-lists\"\n").await;
    let refused = hold(&site.settings, &plan, &[]).await.unwrap_err().to_string();
    assert!(refused.contains("quorum") && refused.contains("[approvals]"), "{refused}");
    let again = Description::of_hierarchy(&site.settings);
    let refused = ceremony::prepare(&site.settings, &again, &SystemClock).await.unwrap_err().to_string();
    assert!(refused.contains("the authority exists"), "{refused}");
    let authority = site.open().await;
    check_ca(&authority).await;
}

/// A root is replaced because there is doubt about it, or after it was revoked: then the one after it certifies.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_cross_certificates_are_of_the_newest_root() {
    let room = Room::new();
    let plain = settings(room.folder.path(), "", "");
    let site = Site::with_settings(tempfile::tempdir().unwrap(), plain).await;
    let authority = site.open().await;
    assert_eq!(authority.renew("root", &site.keyring()).await.unwrap().authority, "root-2");
    let old = ca_pki::certificate::parse(&authority.authorities()["root"].certificate).unwrap();
    let serial =
        ca_pki::SerialNumber::from_magnitude(old.tbs_certificate().serial_number().as_bytes()).unwrap();
    authority.revoke(&serial, ca_pki::crl::RevocationReason::CaCompromise, None, "test").await.unwrap();
    drop(authority);

    let settings = room.settings();
    let other = other_root(room.folder.path()).await;
    let text = format!(
        "name = \"x\"\n[[steps]]\nmake = \"cross-certificate\"\nname = \"other\"\ncertificate = \"{}\"\ndays = 700\n",
        other.display()
    );
    let plan = prepare(&settings, &text).await;
    let held = hold(&settings, &plan, &[room.approval(0, &plan), room.approval(1, &plan)]).await.unwrap();
    let lines = transcript::verify(&held.transcript).unwrap();
    let issued = lines.iter().find(|line| line.event == "certificate.issued").unwrap();
    assert_eq!(issued.detail["issuer"], "root-2");
    let cross = fixture::der(&std::fs::read_to_string(&held.cross_certificates[0]).unwrap());
    let cross = ca_pki::certificate::parse(&cross).unwrap();
    let authority = site.open().await;
    let newest = ca_pki::certificate::parse(&authority.authorities()["root-2"].certificate).unwrap();
    assert_eq!(cross.tbs_certificate().issuer(), newest.tbs_certificate().subject());
    authority.publish_due().await.unwrap();
    // Proves the signature, too.
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_root_that_signed_itself_is_cross_certified() {
    let site = Site::new().await;
    let other = Site::new().await;
    let folder = site.folder.path();
    let prepare = |file: PathBuf| {
        let text = format!(
            "name = \"x\"\n[[steps]]\nmake = \"cross-certificate\"\nname = \"other\"\ncertificate = \"{}\"\ndays = 9\n",
            file.display()
        );
        let (settings, description) = (site.settings.clone(), Description::parse(&text).unwrap());
        async move { ceremony::prepare(&settings, &description, &SystemClock).await }
    };
    let responder = prepare(other.outcome.ocsp_responder.clone()).await.unwrap_err().to_string();
    assert!(responder.contains("it is not a root"), "{responder}");
    // One octet of the signature altered: nobody has shown to have that key.
    let pem = std::fs::read_to_string(&other.outcome.root).unwrap();
    let mut der = fixture::der(&pem);
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = folder.join("forged.pem");
    std::fs::write(&forged, ca_pki::pem::encode("CERTIFICATE", &der).unwrap()).unwrap();
    let refused = prepare(forged).await.unwrap_err().to_string();
    assert!(refused.contains("not signed by its own key"), "{refused}");
    assert!(prepare(other.outcome.root.clone()).await.is_ok());
}

#[test]
fn a_plan_of_last_month_is_not_held() {
    let room = Room::new();
    let settings = room.settings();
    let founding = Description::of_hierarchy(&settings);
    let old = UnixTime(1_700_000_000);
    let plan = ceremony::plan::Plan::prepare(&settings, &founding, &[], old).unwrap().to_bytes().unwrap();
    let papers = [room.approval(0, &plan), room.approval(1, &plan)];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(hold(&settings, &plan, &papers)).unwrap_err().to_string();
    assert!(refused.contains("the plan is held between"), "{refused}");
}
