//! Responders that forge, replay, go back and fall silent.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose};
use trust_store::evidence::Evidence;

use super::*;
use crate::evidence::responders::{Fingerprint, Learnt, Question, Responders};
use crate::evidence::{Asked, Due, OcspMode};

const HOUR: i64 = 3600;

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    match length {
        0..0x80 => der.push(length as u8),
        0x80..0x100 => der.extend([0x81, length as u8]),
        _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    der.extend(parts.concat());
    der
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, parts)
}

fn time(at: i64) -> Vec<u8> {
    let text: String = UnixTime(at).to_rfc3339().chars().filter(|c| !"-:T".contains(*c)).collect();
    element(0x18, &[text.as_bytes()])
}

/// What is said of a certificate.
#[derive(Clone, Copy)]
enum Said {
    Good,
    OnHold,
    Revoked,
    Unknown,
}

impl Ca {
    /// A certificate that names these responders.
    fn leaf(&self, serial: u64, responders: &[&str]) -> Certificate {
        const OCSP: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        let access: Vec<Vec<u8>> =
            responders.iter().map(|url| sequence(&[&OCSP, &element(0x86, &[url.as_bytes()])])).collect();
        let content = sequence(&[&access.concat()]);
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der()).unwrap()
    }

    /// Somebody who may answer for it, and whose own status must be known.
    fn delegate(&self, name: &str) -> (KeyPair, Certificate) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (key, Certificate::from_der(certificate.der()).unwrap())
    }

    /// An answer about it, `age` seconds old and good for an hour.
    fn answer(&self, about: &Certificate, said: Said, age: i64) -> Vec<u8> {
        self.answer_by(None, about, said, age)
    }

    fn answer_by(
        &self,
        delegate: Option<&(KeyPair, Certificate)>,
        about: &Certificate,
        said: Said,
        age: i64,
    ) -> Vec<u8> {
        let (key, signer) = delegate.map_or((&self.key, &self.certificate), |(key, own)| (key, own));
        const HASH: [u8; 11] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
        const ECDSA_SHA256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        const BASIC: [u8; 11] = [0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
        let at = clock::unix_seconds() - age;
        let hash = |bytes: &[u8]| element(4, &[digest(&SHA256, bytes).as_ref()]);
        let id = sequence(&[
            &sequence(&[&HASH]),
            &hash(self.certificate.subject_der()),
            &hash(self.certificate.public_key()),
            &element(2, &[about.serial()]),
        ]);
        let because =
            |reason: u8| element(0xa1, &[&time(at), &element(0xa0, &[&element(0x0a, &[&[reason]])])]);
        let status = match said {
            Said::Good => element(0x80, &[]),
            Said::OnHold => because(6),
            Said::Revoked => because(1),
            Said::Unknown => element(0x82, &[]),
        };
        let single = sequence(&[&id, &status, &time(at), &element(0xa0, &[&time(at + HOUR)])]);
        let data = sequence(&[&element(0xa1, &[signer.subject_der()]), &time(at), &sequence(&[&single])]);
        let signature = element(3, &[&[0], &key.sign(&data).unwrap()]);
        let sent_along = delegate.map(|_| element(0xa0, &[&sequence(&[signer.der()])])).unwrap_or_default();
        let basic = sequence(&[&data, &sequence(&[&ECDSA_SHA256]), &signature, &sent_along]);
        let bytes = sequence(&[&BASIC, &element(4, &[&basic])]);
        sequence(&[&[0x0a, 1, 0], &element(0xa0, &[&bytes])])
    }
}

struct Asking {
    server: Server,
    ca: Ca,
    responders: Responders,
}

impl Asking {
    async fn start() -> Self {
        Self::of(|_| {}).await
    }

    async fn of(change: impl FnOnce(&mut EvidenceConfig)) -> Self {
        let (server, ca) = (Server::start().await, Ca::new());
        let mut config = EvidenceConfig {
            status_bases: vec![format!("{}/ocsp", server.url)],
            timeout: Duration::from_millis(200),
            ..EvidenceConfig::default()
        };
        change(&mut config);
        let http = reqwest::Client::builder().no_proxy().timeout(config.timeout).build().unwrap();
        let verifier = Verifier::new(Arc::new(AwsLc), &TrustedRoot::new()).unwrap();
        Self { server, ca, responders: Responders::new(verifier, http, &config) }
    }

    fn url(&self) -> String {
        format!("{}/ocsp", self.server.url)
    }

    fn question(&self, certificate: &Certificate) -> Vec<(Fingerprint, Question)> {
        let question = self.responders.question(certificate, &self.ca.certificate);
        question.map(|question| (certificate.fingerprint(), question)).into_iter().collect()
    }

    /// What the verifier is given, and what is wrong.
    fn collected(&self) -> (usize, String) {
        let (mut evidence, mut sources) = (Evidence::none(), Vec::new());
        self.responders.collect(&mut evidence, &mut sources);
        let problem = sources.first().map(|source: &super::super::Source| source.problem.clone());
        (evidence.revocation().answers.len(), problem.unwrap_or_default())
    }

    /// Rises when verdicts may change.
    fn generation(&self) -> Learnt {
        self.responders.collect(&mut Evidence::none(), &mut Vec::new())
    }

    async fn hear(&self, body: Vec<u8>) {
        self.server.serve("/ocsp", body);
        self.responders.refresh(Due::Everything).await;
    }

    fn says(&self, standing: &str) -> bool {
        let mut evidence = Evidence::none();
        self.responders.collect(&mut evidence, &mut Vec::new());
        let answers = &evidence.revocation().answers;
        answers
            .iter()
            .flat_map(|answer| answer.responses())
            .any(|single| format!("{:?}", single.status()).contains(standing))
    }
}

#[tokio::test]
async fn no_answer_but_a_newer_authentic_one_replaces_what_is_known_and_none_takes_a_revocation_back() {
    let asking = Asking::start().await;
    let url = asking.url();
    let leaf = asking.ca.leaf(7, &[&url]);
    let other = asking.ca.leaf(8, &[&url]);
    asking.responders.follow_these(asking.question(&leaf));
    asking.responders.refresh(Due::Everything).await;
    assert_eq!(asking.collected(), (0, "HTTP status 404".to_owned()));
    asking.server.serve("/ocsp", asking.ca.answer(&leaf, Said::Good, 600));
    asking.responders.refresh(Due::Everything).await;
    assert_eq!(asking.collected(), (1, String::new()));

    for (body, why) in [
        (Ca::new().answer(&leaf, Said::Revoked, 0), "nobody whom the issuer lets answer"),
        (asking.ca.answer(&other, Said::Revoked, 0), "about another certificate"),
        (asking.ca.answer(&leaf, Said::Unknown, 0), "does not know the certificate"),
        (asking.ca.answer(&leaf, Said::Revoked, -HOUR), "in the future"),
        (asking.ca.answer(&leaf, Said::Good, 2 * HOUR), "not current"),
        (asking.ca.answer(&leaf, Said::Good, 900), "contradicts a newer one"),
        (vec![0x30, 3, 0x0a, 1, 3], "TryLater"),
        (vec![0x30, 3, 0x0a, 1, 6], "does not speak for"),
        (b"<html>".to_vec(), "OCSP"),
        (vec![0x30; 40_000], "larger than"),
    ] {
        asking.server.serve("/ocsp", body);
        asking.responders.refresh(Due::Everything).await;
        let (answers, problem) = asking.collected();
        assert!(answers == 1 && asking.says("Good"), "forgotten by: {why}");
        assert!(problem.contains(why), "{why}: {problem}");
    }

    // A hold may end; a revocation does not, whatever is answered later.
    for (said, age, standing) in [
        (Said::OnHold, 500, "Revoked"),
        (Said::Good, 400, "Good"),
        (Said::Revoked, 300, "Revoked"),
        (Said::Good, 200, "Revoked"),
        (Said::OnHold, 100, "KeyCompromise"),
    ] {
        asking.server.serve("/ocsp", asking.ca.answer(&leaf, said, age));
        asking.responders.refresh(Due::Everything).await;
        assert!(asking.says(standing), "{standing} at {age}");
    }
    // Nor does it when the agent is gone; what is good is asked again when it comes back.
    asking.server.serve("/ocsp", asking.ca.answer(&other, Said::Good, 0));
    asking.responders.follow_these(asking.question(&other));
    asking.responders.refresh(Due::Everything).await;
    assert_eq!(asking.collected().0, 2);
    asking.responders.follow(&[]).await;
    assert!(asking.collected().0 == 1 && asking.says("KeyCompromise"));
}

#[tokio::test]
async fn an_upload_waits_for_no_responder_that_has_fallen_silent() {
    let asking = Asking::start().await;
    let url = asking.url();
    asking.server.set("/ocsp", Answer::Silence);
    let first = asking.ca.leaf(1, &[&url]);
    assert!(asking.responders.want_these(asking.question(&first)).await);
    let second = asking.ca.leaf(2, &[&url]);
    assert!(!asking.responders.want_these(asking.question(&second)).await, "it was waited for again");
    assert_eq!(asking.responders.asked(), Asked { certificates: 2, unanswered: 2 });
    assert_eq!(asking.collected(), (0, String::new()), "no agent is concerned");
    // The next round asks again, and what was learnt for an upload stays until the upload is long over.
    asking.server.serve("/ocsp", asking.ca.answer(&second, Said::Good, 0));
    asking.responders.refresh(Due::Everything).await;
    assert_eq!(asking.responders.asked(), Asked { certificates: 2, unanswered: 1 });
    asking.responders.follow(&[]).await;
    assert_eq!(asking.collected().0, 1);
}

#[tokio::test]
async fn an_upload_waits_for_no_responder_that_says_that_it_cannot() {
    let asking = Asking::start().await;
    let url = asking.url();
    let [first, second, third] = [1, 2, 3].map(|serial| asking.ca.leaf(serial, &[&url]));
    assert!(asking.responders.want_these(asking.question(&first)).await, "status 404");
    assert!(!asking.responders.want_these(asking.question(&second)).await, "it was asked again");
    // Once it answers a round it is asked for uploads as well.
    asking.hear(asking.ca.answer(&second, Said::Good, 0)).await;
    // What the round learnt is for this upload, too, before the round is over.
    assert!(asking.responders.want_these(asking.question(&second)).await);
    asking.generation();
    assert!(!asking.responders.want_these(asking.question(&second)).await, "there is nothing new");
    asking.server.serve("/ocsp", asking.ca.answer(&third, Said::Good, 0));
    assert!(asking.responders.want_these(asking.question(&third)).await);
    assert_eq!(asking.responders.asked(), Asked { certificates: 3, unanswered: 1 });
}

/// Nobody waits for a responder that is slow, least of all a guest that is to be stopped.
#[tokio::test]
async fn a_revocation_is_told_while_other_responders_keep_their_questions() {
    let slow = Server::start().await;
    slow.set("/ocsp", Answer::Silence);
    let asking = Asking::of(|config| {
        config.status_bases.push(format!("{}/ocsp", slow.url));
        config.timeout = Duration::from_secs(60);
    })
    .await;
    let gone = asking.ca.leaf(100, &[&asking.url()]);
    let silent = (0..50).map(|serial| asking.ca.leaf(serial, &[&format!("{}/ocsp", slow.url)]));
    let asked = silent.chain([gone.clone()]).flat_map(|leaf| asking.question(&leaf)).collect();
    asking.responders.follow_these(asked);
    asking.server.serve("/ocsp", asking.ca.answer(&gone, Said::Revoked, 0));
    let round = asking.responders.refresh(Due::Everything);
    tokio::pin!(round);
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::select! {
            () = &mut round => panic!("the silent one was waited for"),
            () = asking.responders.told() => {}
        }
    });
    told.await.unwrap();
    assert!(asking.says("KeyCompromise"));
}

/// The key of a delegate may have been stolen: that is what its own status is looked at for.
#[tokio::test]
async fn whose_own_status_is_open_takes_the_place_of_nobody_elses_answer() {
    let asking = Asking::start().await;
    let leaf = asking.ca.leaf(1, &[&asking.url()]);
    asking.responders.follow_these(asking.question(&leaf));
    let [stolen, new] = ["stolen", "new"].map(|name| asking.ca.delegate(name));
    asking.hear(asking.ca.answer_by(Some(&stolen), &leaf, Said::Revoked, 0)).await;
    assert_eq!(asking.collected(), (1, String::new()));
    asking.hear(asking.ca.answer_by(Some(&new), &leaf, Said::Good, 60)).await;
    assert!(asking.collected() == (2, String::new()) && asking.says("Good"), "the verifier reads both");
    asking.hear(asking.ca.answer(&leaf, Said::Revoked, 600)).await;
    assert_eq!(asking.collected().0, 3);
    for (answer, why) in [
        (asking.ca.answer_by(Some(&new), &leaf, Said::Revoked, 0), "the same delegate later"),
        (asking.ca.answer_by(Some(&stolen), &leaf, Said::Revoked, 0), "the same again"),
    ] {
        asking.hear(answer).await;
        assert_eq!(asking.collected().0, 3, "{why}");
    }
    // However many there are, the issuer's stays, and they do not pile up.
    for n in 0..5 {
        let another = asking.ca.delegate(&format!("delegate {n}"));
        asking.hear(asking.ca.answer_by(Some(&another), &leaf, Said::Good, 0)).await;
    }
    assert!(asking.collected().0 == 4 && asking.says("Revoked"));
}

#[tokio::test]
async fn a_later_date_alone_changes_no_verdict() {
    let asking = Asking::start().await;
    let leaf = asking.ca.leaf(1, &[&asking.url()]);
    asking.responders.follow_these(asking.question(&leaf));
    let mut generation = asking.generation();
    for (said, age, why) in [
        (Said::Good, 3000, "the first"),
        (Said::Good, 2900, "the one before ends soon"),
        (Said::Good, 1000, "the one before ends soon"),
        (Said::OnHold, 900, "it says something else"),
        (Said::Good, 800, "it says something else"),
    ] {
        asking.hear(asking.ca.answer(&leaf, said, age)).await;
        assert_ne!(std::mem::replace(&mut generation, asking.generation()), generation, "{why}");
    }
    asking.hear(asking.ca.answer(&leaf, Said::Good, 700)).await;
    assert_eq!((asking.generation(), asking.collected()), (generation, (1, String::new())));
}

/// Else whoever uploads has all agents judged again, each time.
#[tokio::test]
async fn everybody_is_judged_by_what_speaks_against_somebody_and_by_nothing_else() {
    let (server, ca, log) = (Server::start().await, Ca::new(), Log::new());
    let state = tempfile::tempdir().unwrap();
    let collector = collector(&server, &ca, &log, state.path());
    let url = format!("{}/ocsp", server.url);
    let mut before = collector.refresh_lists(&[]).await;
    for (serial, said, is_grave) in
        [(1, Said::Good, false), (2, Said::OnHold, true), (3, Said::Good, false), (4, Said::Revoked, true)]
    {
        let leaf = ca.leaf(serial, &[&url]);
        server.serve("/ocsp", ca.answer(&leaf, said, 0));
        let question = collector.responders.question(&leaf, &ca.certificate).unwrap();
        assert!(collector.responders.want_these(vec![(leaf.fingerprint(), question)]).await);
        let snapshot = collector.publish().await;
        assert_ne!(snapshot.epoch, before.epoch, "{serial} is evidence");
        assert_eq!(snapshot.concerns_everybody(&before), is_grave, "{serial}");
        before = snapshot;
    }
    server.serve("/1.crl", ca.crl("1", 600, &[SERIAL]));
    assert!(collector.refresh_lists(&[]).await.concerns_everybody(&before));
}

#[tokio::test]
async fn when_an_answer_ends_only_that_is_asked_again() {
    let asking = Asking::start().await;
    let url = asking.url();
    let [ends, stays] = [1, 2].map(|serial| asking.ca.leaf(serial, &[&url]));
    asking.responders.follow_these([asking.question(&ends), asking.question(&stays)].concat());
    asking.hear(asking.ca.answer(&ends, Said::Good, HOUR - 60)).await;
    asking.hear(asking.ca.answer(&stays, Said::Good, 0)).await;
    let of_both = asking.collected();
    assert!(of_both.0 == 2 && of_both.1.contains("another certificate"), "{of_both:?}");
    asking.server.set("/ocsp", Answer::Silence);
    asking.responders.refresh(Due::Ending).await;
    let (answers, problem) = asking.collected();
    assert!(answers == 2 && !problem.is_empty() && !problem.contains("of 2"), "{problem}");
}

#[tokio::test]
async fn only_addresses_of_the_operator_are_asked() {
    let asking = Asking::start().await;
    let url = asking.url();
    let asked = |asking: &Asking, responders: &[&str]| asking.question(&asking.ca.leaf(3, responders)).len();
    for elsewhere in [
        "http://169.254.169.254/ocsp".to_owned(),
        format!("{url}x"),
        format!("{url}/../admin"),
        format!("{url}?a=b"),
        url.replace("127.0.0.1", "127.0.0.1@evil.example"),
    ] {
        assert_eq!(asked(&asking, &[&elsewhere]), 0, "{elsewhere}");
        assert_eq!(asked(&asking, &[&elsewhere, &url]), 1, "the next one is not elsewhere");
    }
    assert_eq!(asked(&asking, &[&format!("{url}/2")]), 1);

    // The operator's own is asked about what names none, and need not know every issuer.
    let asking = Asking::of(|config| {
        config.ocsp_responder = Some(config.status_bases.remove(0));
    })
    .await;
    let leaf = asking.ca.leaf(4, &[]);
    asking.responders.follow_these(asking.question(&leaf));
    asking.server.serve("/ocsp", vec![0x30, 3, 0x0a, 1, 6]);
    asking.responders.refresh(Due::Everything).await;
    assert_eq!(asking.collected(), (0, String::new()));
    asking.server.serve("/ocsp", asking.ca.answer(&leaf, Said::Good, 0));
    asking.responders.refresh(Due::Everything).await;
    assert_eq!(asking.collected(), (1, String::new()));
    // Nobody signs that it does not any more: whoever is on the way may say so.
    asking.hear(vec![0x30, 3, 0x0a, 1, 6]).await;
    let (answers, problem) = asking.collected();
    assert!(answers == 1 && problem.contains("does not speak for"), "{problem}");
}

#[test]
fn a_dead_responder_of_one_agent_keeps_no_executor_from_being_ready() {
    let source = |kind, problem: &str, fetched_at| {
        let problem = problem.to_owned();
        super::super::Source { kind, problem, fetched_at, ..super::super::Source::default() }
    };
    let complete = |of: &[super::super::Source]| crate::evidence::are_complete(of);
    assert!(complete(&[source("crl", "", Some(1)), source("ocsp", "HTTP status 404", None)]));
    assert!(!complete(&[source("crl", "", Some(1)), source("ocsp", "", None)]), "it was not asked yet");
    assert!(!complete(&[source("crl", "HTTP status 404", Some(1)), source("ocsp", "", Some(1))]));
}

#[tokio::test]
async fn the_next_round_comes_with_the_interval_or_the_bell_or_before_an_answer_ends() {
    let asking = Asking::start().await;
    let url = asking.url();
    let (leaf, day) = (asking.ca.leaf(5, &[&url]), Duration::from_secs(86_400));
    asking.responders.ring();
    assert_eq!(asking.responders.due(day).await, Due::Everything);
    asking.server.serve("/ocsp", asking.ca.answer(&leaf, Said::Good, HOUR - 4));
    asking.responders.follow_these(asking.question(&leaf));
    asking.responders.refresh(Due::Everything).await;
    assert_eq!(asking.collected(), (1, String::new()));
    assert_eq!(asking.responders.due(day).await, Due::Ending);
    assert_eq!(asking.responders.due(Duration::from_millis(1)).await, Due::Everything);
    // The bell is not heard every second; it is not forgotten either.
    asking.responders.ring();
    let day = Duration::from_secs(86_400);
    asking.responders.follow(&[]).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), asking.responders.due(day)).await.is_err());
    assert!(asking.responders.has_been_rung());
}

#[tokio::test]
async fn an_operator_may_do_without() {
    let asking = Asking::of(|config| config.ocsp = OcspMode::Never).await;
    let attestation = crate::testing::attestation();
    let digest = executor_engine::ModuleDigest([0; 32]);
    assert!(!asking.responders.want(digest, &attestation).await);
    asking.responders.follow(&[(digest, attestation)]).await;
    assert_eq!(asking.responders.asked(), Asked::default());
}
