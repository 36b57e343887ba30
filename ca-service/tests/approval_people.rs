//! Whose approval counts: nobody in particular, the requester and the voucher in another form, and one person twice never do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::client::CaClient;
use ca_api::{DenyRequests, QueueQuery, RequestState};
use ca_service::queue::person::{Operator, Person};
use ca_service::storage::queue::QueueState;
use fixture::approvers::{Office, approval, awaits, refused};
use fixture::deciders::{approve, approver, ask, person, queue, refusal};
use fixture::{Server, Site, check_ca, csr, enrol_request, key, token_request};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use service::config::{ClientCertificates, TlsConfig};

const DEV: &str = "dev@example.com";
const ONE: &str = "[enrolment]\ntoken_approvals = 1\n";
const TWO: &str = "[enrolment]\ntoken_approvals = 2\n";
const BY_CERTIFICATE: &str = "[roles.approver]\nsubjects = [\"CN=alice\", \"CN=bob\"]\n";

/// Who approves with an identity token that says this.
fn with_token(office: &Office, server: &Server, sub: &str, email: Option<Value>) -> CaClient {
    let mut claims = office.idp.claims("unused@example.org");
    let members = claims.as_object_mut().unwrap();
    members.insert("aud".to_owned(), json!("ca-roles"));
    members.insert("groups".to_owned(), json!(["approvers"]));
    members.insert("sub".to_owned(), json!(sub));
    match email {
        None => drop(members.remove("email")),
        Some(email) => members.extend(email.as_object().unwrap().clone()),
    }
    server.client().with_admin_token(&office.idp.sign(&claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_in_particular_made_is_worth_nothing_where_people_must_approve() {
    let office = Office::open(ONE).await;
    let server = office.site.serve().await;
    // The bearer of the shared token could be the approver.
    let made = server.admin().create_token(&token_request(DEV, "developer")).await;
    assert_eq!(refused(made), (403, "voucher_unnamed".to_owned()));
    server.finish().await;

    // Nor is one that was made before anybody had to approve: by a shared token, or by nobody knows whom.
    let mut site = office.site;
    site.settings.config.enrolment.token_approvals = 0;
    let authority = site.open().await;
    let mut made = Vec::new();
    for id in ["a", "b"] {
        let token = authority.create_token(&token_request(DEV, "developer"), "admin:token").await.unwrap();
        made.push(enrol_request(&token.token, &key(), Some(id)));
    }
    drop(authority);
    fixture::execute(
        &site.settings,
        "UPDATE token SET created_by = NULL WHERE hash = (SELECT hash FROM token ORDER BY hash DESC LIMIT 1)",
    );
    site.settings.config.enrolment.token_approvals = 1;
    let authority = site.open().await;
    for asked in &made {
        assert_eq!(refusal(authority.enrol(asked).await), "voucher_unnamed");
    }
    assert!(queue(&authority, QueueState::Waiting).await.is_empty());
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_vouched_is_no_second_person_by_whatever_way_they_come() {
    let site = Site::with(&format!("{ONE}{BY_CERTIFICATE}")).await;
    let authority = site.open().await;
    // Made by ivan's client certificate; he comes back with an identity token, which has his address and nothing else in common.
    let asked = ask(&authority, DEV, "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    let name = "oidc:https://id.example.org#7".to_owned();
    let again = Person::known_by(name, ["Ivan@Example.org".to_owned()], []);
    let again = Operator { actor: "approver:oidc:https://id.example.org#7".to_owned(), person: again };
    assert_eq!(refusal(approve(&authority, &again).await), "approver_is_requester");
    assert_eq!(refusal(approve(&authority, &person("approver", "ivan")).await), "approver_is_requester");
    let nobody = Operator::from("approver:CN=x");
    assert_eq!(refusal(approve(&authority, &nobody).await), "approver_unnamed");
    approve(&authority, &approver("alice")).await.unwrap();
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requester_is_known_by_their_address_where_each_audience_has_another_subject() {
    let office = Office::open("[[oidc]]\nissuer = \"IDP\"\napprovals = 1\n").await;
    let server = office.site.serve().await;
    let mut claims = office.idp.claims("alice@example.org");
    claims["sub"] = json!("pairwise-for-certificates");
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });
    let url = format!("{}/api/v2/signingCert", server.base);
    let asked = server.http.post(url).bearer_auth(office.idp.sign(&claims)).json(&body);
    assert_eq!(asked.send().await.unwrap().status(), 202);
    let request = office.only(&server).await;
    for (email, expected) in [
        (Some(json!({ "email": "alice@example.org", "email_verified": true })), "approver_is_requester"),
        // Left out, or not known to be theirs: whoever that is may be the requester.
        (None, "approver_unnamed"),
        (Some(json!({ "email": "else@example.org", "email_verified": false })), "approver_unnamed"),
    ] {
        let client = with_token(&office, &server, "pairwise-for-roles", email);
        let outcome = client.approve_requests(&approval(&request)).await;
        assert_eq!(refused(outcome), (403, expected.to_owned()));
    }
    office.approve(&server, "bob").await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_counts_once_under_any_number_of_names() {
    let office = Office::open(TWO).await;
    let server = office.site.serve().await;
    let asked = enrol_request(&office.invite(&server, DEV).await, &key(), Some("r1"));
    awaits(server.client().enrol(&asked).await);
    let request = office.only(&server).await;
    let address = || Some(json!({ "email": "alice@example.org" }));
    with_token(&office, &server, "one", address()).approve_requests(&approval(&request)).await.unwrap();
    let again = with_token(&office, &server, "two", address()).approve_requests(&approval(&request)).await;
    assert_eq!(refused(again), (403, "approver_repeated".to_owned()));
    // In a batch, too, nothing of which is decided then.
    let certificate = approver("alice");
    let outcome = server.authority.approve_requests(&approval(&request), &certificate).await;
    assert_eq!(refusal(outcome), "approver_repeated");
    assert_eq!(awaits(server.client().enrol(&asked).await).approvals_given, 1);
    let status = office.approve(&server, "bob").await.unwrap();
    assert_eq!((status.state, status.approvals_given), (RequestState::Approved, 2));
    server.client().enrol(&asked).await.unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_an_issuer_lets_in_keeps_nobody_else_out() {
    let limits = format!("{ONE}most_waiting = 2\n[[oidc]]\nissuer = \"IDP\"\napprovals = 1\n");
    let office = Office::open(&limits).await;
    let server = office.site.serve().await;
    let url = format!("{}/api/v2/signingCert", server.base);
    for (email, expected) in [("a@example.org", 202), ("b@example.org", 429)] {
        let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });
        let asked = server.http.post(&url).bearer_auth(office.idp.token(email)).json(&body);
        assert_eq!(asked.send().await.unwrap().status(), expected, "{email}");
    }
    let asked = enrol_request(&office.invite(&server, DEV).await, &key(), Some("r1"));
    awaits(server.client().enrol(&asked).await);
    server.finish().await;
}

/// Asks for a certificate with an identity token that says this; status, and the message of a refusal.
async fn come(office: &Office, server: &Server, claims: &[(&str, Value)]) -> (u16, String) {
    let mut said = office.idp.claims("unused@example.org");
    let members = said.as_object_mut().unwrap();
    members.remove("email");
    members.extend(claims.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key())) });
    let asked = server.http.post(format!("{}/api/v2/signingCert", server.base));
    let answer = asked.bearer_auth(office.idp.sign(&said)).json(&body).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["message"].as_str().unwrap_or_default().to_owned())
}

/// Whoever asks without an address, and approves under the subject of another audience, would be nobody that could be compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_requester_who_could_be_the_approver_is_refused() {
    let section = "[[oidc]]\nissuer = \"IDP\"\nidentity = \"uri\"\nsubject_prefix = \"https://p.example.org/\"\napprovals = 1\n";
    let office = Office::open(section).await;
    let server = office.site.serve().await;
    let sub = ("sub", json!("https://p.example.org/pairwise-1"));
    for claims in [
        vec![sub.clone()],
        vec![sub.clone(), ("email", json!("alice@example.org")), ("email_verified", json!(false))],
        vec![sub.clone(), ("email", json!("alice")), ("email_verified", json!(true))],
    ] {
        let (status, message) = come(&office, &server, &claims).await;
        assert!(status == 403 && message.contains("verified e-mail address"), "{status} {message}");
    }
    assert!(queue(&server.authority, QueueState::Waiting).await.is_empty());
    let (status, message) =
        come(&office, &server, &[sub.clone(), ("email", json!("alice@example.org"))]).await;
    assert_eq!(status, 202, "{message}");
    assert_eq!(refused(office.approve(&server, "alice").await), (403, "approver_is_requester".to_owned()));
    office.approve(&server, "bob").await.unwrap();
    // No name of somebody is so long, and none goes over two lines.
    for email in [format!("{}@example.org", "a".repeat(250)), "a\nb@example.org".to_owned()] {
        let (status, message) = come(&office, &server, &[sub.clone(), ("email", json!(email))]).await;
        assert!(
            status == 400 && message.contains("too long or holds control characters"),
            "{status} {message}"
        );
    }
    server.finish().await;

    // Where all tokens are of programs there is nobody to be compared.
    let office = Office::open(&section.replace("approvals", "workload = true\napprovals")).await;
    let server = office.site.serve().await;
    assert_eq!(come(&office, &server, &[sub]).await.0, 202);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_starts_a_job_does_not_approve_what_it_asks_for() {
    let section = "[[oidc]]\nissuer = \"IDP\"\nidentity = \"gitlab-pipeline\"\nserver_url = \"https://git.example.org\"\n\
                   workload = true\napprovals = 1\n";
    let office = Office::open(section).await;
    let server = office.site.serve().await;
    let job = [
        ("sub", json!("project_path:g/p:ref_type:branch:ref:main")),
        ("ci_config_ref_uri", json!("git.example.org/g/p//.gitlab-ci.yml@refs/heads/main")),
        ("project_path", json!("g/p")),
        ("job_id", json!("7")),
        ("user_email", json!("Alice@example.org")),
        ("user_login", json!("alice")),
    ];
    let (status, message) = come(&office, &server, &job).await;
    assert_eq!(status, 202, "{message}");
    let request = queue(&server.authority, QueueState::Waiting).await.pop().unwrap();
    assert_eq!(request.content.requester_names, ["Alice@example.org", "alice"]);
    assert_eq!(refused(office.approve(&server, "alice").await), (403, "approver_is_requester".to_owned()));
    office.approve(&server, "bob").await.unwrap();
    server.finish().await;

    let folder = tempfile::tempdir().unwrap();
    let people = section.replace("workload = true\n", "").replace("IDP", "https://id.example.org");
    let text = fixture::settings_text(folder.path(), &format!("{people}{BY_CERTIFICATE}"), "");
    let refused = ca_service::Config::parse(&text).unwrap().validate().unwrap_err().to_string();
    assert!(
        refused.contains("jobs have no e-mail address") && refused.contains("workload = true"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_requesters_connection_counts_as_well() {
    let site = Site::with(&format!("{ONE}{BY_CERTIFICATE}")).await;
    let authority = site.open().await;
    let asked = ask(&authority, DEV, "r1").await;
    // A certificate that cannot be read could be anybody's.
    assert_eq!(refusal(authority.enrol_over(&asked, None).await), "requester_unnamed");
    let connection = Some(vec!["ALICE@example.org".to_owned(), "CN=somebody".to_owned()]);
    assert_eq!(refusal(authority.enrol_over(&asked, connection).await), "awaits_approval");
    assert_eq!(refusal(approve(&authority, &approver("alice")).await), "approver_is_requester");
    approve(&authority, &approver("bob")).await.unwrap();
    authority.enrol(&asked).await.unwrap();
    check_ca(&authority).await;
}

/// Who showed no certificate when they asked may show it when they come for what they approved themselves.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_fetches_a_certificate_has_not_approved_it() {
    let site = Site::with(&format!("{ONE}{BY_CERTIFICATE}")).await;
    let authority = site.open().await;
    let asked = ask(&authority, DEV, "r1").await;
    assert_eq!(refusal(authority.enrol(&asked).await), "awaits_approval");
    approve(&authority, &approver("alice")).await.unwrap();
    let alice = Some(vec!["CN=somebody".to_owned(), "ALICE@example.org".to_owned()]);
    assert_eq!(refusal(authority.enrol_over(&asked, alice).await), "approver_is_requester");
    assert_eq!(refusal(authority.enrol_over(&asked, None).await), "requester_unnamed");
    let carol = Some(vec!["carol@example.org".to_owned()]);
    authority.enrol_over(&asked, carol).await.unwrap();
    check_ca(&authority).await;
}

/// Somebody's certificate for connections, with its key, PEM.
fn certified(issuer: &CertifiedIssuer<'_, KeyPair>, name: &str, alternative: &[SanType]) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = alternative.to_vec();
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_known_by_the_certificates_of_their_connections() {
    let subjects = "[roles.approver]\nsubjects = [\"CN=alice\", \"CN=bob\", \"CN=carol@corp.example\"]\n\
                    [roles.issuer]\nsubjects = [\"CN=ivan\"]\n";
    let mut site = Site::with(&format!("{ONE}{subjects}")).await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "connections");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = |name: &str| site.folder.path().join(name);
    let (certificate, private) = certified(&issuer, "ca", &[SanType::IpAddress([127, 0, 0, 1].into())]);
    fixture::secret_file(&file("tls.key"), &private);
    std::fs::write(file("tls.crt"), certificate).unwrap();
    std::fs::write(file("clients.crt"), issuer.pem()).unwrap();
    site.settings.config.server.tls = Some(TlsConfig {
        certificate_file: file("tls.crt"),
        key_file: file("tls.key"),
        client_ca_file: Some(file("clients.crt")),
        client_certificates: ClientCertificates::Required,
    });
    let server = site.serve().await;
    let base = server.base.replace("http://", "https://");
    let who = |name: &str, alternative: &[SanType]| {
        let (certificate, private) = certified(&issuer, name, alternative);
        let identity = reqwest::Identity::from_pem(format!("{certificate}{private}").as_bytes()).unwrap();
        let anchor = reqwest::Certificate::from_pem(issuer.pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([anchor]).identity(identity);
        CaClient::new(http.build().unwrap(), &base)
    };
    let address = |text: &str| [SanType::Rfc822Name(text.try_into().unwrap())];
    let [alice, bob, ivan] =
        ["alice", "bob", "ivan"].map(|name| who(name, &address(&format!("{name}@example.org"))));
    // What looks like an address is one of a directory, and says nothing about another way in.
    let principal = SanType::OtherName((
        vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
        rcgen::OtherNameValue::Utf8String("carol@corp.example".to_owned()),
    ));
    let carol = who("carol@corp.example", &[principal]);

    let token = ivan.create_token(&token_request(DEV, "developer")).await.unwrap().token;
    let own = key();
    let first = enrol_request(&token, &own, Some("r1"));
    awaits(alice.enrol(&first).await);
    let request = bob.queue(&QueueQuery::default()).await.unwrap().requests.remove(0);
    assert_eq!(refused(ivan.approve_requests(&approval(&request)).await).1, "role_insufficient");
    assert_eq!(refused(alice.approve_requests(&approval(&request)).await).1, "approver_is_requester");
    assert_eq!(refused(carol.approve_requests(&approval(&request)).await).1, "approver_unnamed");
    bob.approve_requests(&approval(&request)).await.unwrap();
    let issued = alice.enrol(&first).await.unwrap();
    let trail = server.authority.store().audit_records(0, 1_000).await.unwrap();
    let approved: Vec<_> = trail.iter().filter(|record| record.event == "request.approved").collect();
    assert_eq!(approved.iter().map(|record| record.actor.as_str()).collect::<Vec<_>>(), ["approver:CN=bob"]);

    // Nor are they somebody else where a certificate's key asks for the next one: over their own connection, or, who asked for the
    // first, over another.
    let asking = |id: &str| {
        let own = (&own, issued.serial.as_str(), issued.certificate.as_str());
        fixture::renewal(&server.authority, own, &key(), id)
    };
    let waiting = async || bob.queue(&QueueQuery::default()).await.unwrap().requests.remove(0);
    for (asker, other) in [(&bob, &alice), (&ivan, &alice)] {
        let renewal = asking(if std::ptr::eq(asker, &bob) { "by-bob" } else { "by-ivan" });
        awaits(asker.renew(&renewal).await);
        let request = waiting().await;
        assert_eq!(refused(other.approve_requests(&approval(&request)).await).1, "approver_is_requester");
        if std::ptr::eq(asker, &bob) {
            assert_eq!(refused(bob.approve_requests(&approval(&request)).await).1, "approver_is_requester");
            let requests = vec![fixture::approvers::shown(&request)];
            bob.deny_requests(&DenyRequests { requests, reason: "a test".to_owned() }).await.unwrap();
            continue;
        }
        bob.approve_requests(&approval(&request)).await.unwrap();
        assert_eq!(refused(bob.renew(&renewal).await).1, "approver_is_requester", "who approved fetches it");
        alice.renew(&renewal).await.unwrap();
    }
    server.finish().await;
}
