//! The description of the HTTP surface against the routes, the types, the codes, and what the running authority answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_service::api::openapi::DOCUMENT;
use ca_service::role::{Action, Role};
use fixture::approvers::Office;
use fixture::witness::Witness;
use fixture::{ADMIN, csr, key, schema};
use serde_json::{Value, json};

/// What every server answers, whatever it is for.
const OF_EVERY_SERVER: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// What is said of a path that there is not.
const NOTHING: &str = "nothing is served at this path";

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// `/crl/{issuer}.crl` → `/crl/{}`: what a router sees of it.
fn shape(path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.contains('{') { "{}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

/// Method and path of every operation that is described.
fn described(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

/// The part of a source file that is the product's.
fn source(path: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

/// Method and shape of every route in a source file: a path, and the method that is asked for after it.
fn routes(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for rest in text.split("warp::path").skip(1) {
        let post = rest.find("warp::post()").unwrap_or(usize::MAX);
        let get = rest.find("warp::get()").unwrap_or(usize::MAX);
        let method = if post < get { "POST" } else { "GET" };
        if let Some(segments) = rest.strip_prefix("!(") {
            assert!(post.min(get) < usize::MAX, "a route without a method: {rest}");
            let segments = segments.split(')').next().unwrap().split('/');
            let segments = segments.map(|one| match one.trim().strip_prefix('"') {
                Some(text) => text.trim_end_matches('"').to_owned(),
                None => "{}".to_owned(),
            });
            found.push((method.to_owned(), format!("/{}", segments.collect::<Vec<_>>().join("/"))));
        } else if let Some(prefix) = rest.strip_prefix("(\"") {
            // The rest of the path is looked at by its handler.
            let prefix = prefix.split('"').next().unwrap();
            found.push((method.to_owned(), format!("/{prefix}/{{}}")));
        }
    }
    found
}

#[test]
fn every_route_is_described_and_every_description_is_a_route() {
    let mut found = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".rs") {
            found.extend(routes(&source(&format!("src/api/{name}"))));
        }
    }
    // The page's own files, by the arms of its match.
    let page = source("src/api/page.rs");
    for line in page.lines().filter(|line| line.contains("include_str!")) {
        let path = line.trim().strip_prefix('"').unwrap().split('"').next().unwrap();
        found.insert(("GET".to_owned(), path.to_owned()));
    }
    found.extend(OF_EVERY_SERVER.map(|path| ("GET".to_owned(), path.to_owned())));
    let document = document();
    let said: BTreeSet<_> =
        described(&document).into_iter().map(|(method, path, _)| (method, shape(&path))).collect();
    let undescribed: Vec<_> = found.difference(&said).collect();
    let unserved: Vec<_> = said.difference(&found).collect();
    assert!(undescribed.is_empty() && unserved.is_empty(), "{undescribed:?} {unserved:?}");
    assert!(found.len() > 30, "{}", found.len());
}

/// The least role of what a route asks for.
fn demanded(rest: &str) -> Option<&'static str> {
    let action = rest.split("access.filter(Action::").nth(1)?.split(')').next().unwrap();
    let actions = [
        ("Administer", Action::Administer),
        ("CreateToken", Action::CreateToken),
        ("DecideRequests", Action::DecideRequests),
        ("PlanRevocations", Action::PlanRevocations),
        ("Read", Action::Read),
        ("ReportProblem", Action::ReportProblem),
    ];
    let (_, action) = actions.into_iter().find(|(name, _)| *name == action).unwrap();
    Some(match action.least_role() {
        Role::Administrator => "administrator",
        role => role.as_str(),
    })
}

#[test]
fn the_scopes_are_the_roles_that_the_routes_demand() {
    let mut demands = BTreeMap::new();
    for file in ["certificates", "overview", "policy", "problem_reports", "queue", "revocations", "tokens"] {
        for rest in source(&format!("src/api/{file}.rs")).split("warp::path").skip(1) {
            for route in routes(&format!("warp::path{rest}")) {
                demands.insert(route, demanded(rest));
            }
        }
    }
    let mut compared = 0;
    for (method, path, operation) in described(&document()) {
        let Some(role) = demands.get(&(method.clone(), shape(&path))) else { continue };
        let of_schemes = operation["security"].as_array().cloned().unwrap_or_default();
        let scopes: Vec<_> =
            of_schemes.iter().flat_map(|scheme| scheme.as_object().unwrap().values()).collect();
        match role {
            None => assert!(scopes.is_empty(), "{method} {path}"),
            Some(role) => {
                assert!(scopes.iter().all(|scope| **scope == json!([role])), "{method} {path}: {role}");
                assert_eq!(scopes.len(), 2, "{method} {path}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 16);
}

/// Texts in quotation marks that look like a code.
fn codes(text: &str) -> BTreeSet<String> {
    let quoted = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    let like = |text: &String| {
        !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_')
    };
    quoted.filter(like).collect()
}

#[test]
fn every_code_of_a_problem_is_listed() {
    let document = document();
    let listed = document["components"]["schemas"]["Problem"]["x-codes"].as_object().unwrap();
    let listed: BTreeSet<String> = listed.keys().cloned().collect();
    let mut used = BTreeSet::new();
    let refusals = [
        "src/queue/refusal",
        "src/approval",
        "src/oidc",
        "src/possession",
        "src/problem_report",
        "src/standing",
    ];
    for file in refusals.iter().chain(&["pki/src/error"]) {
        // The bodies of what gives a stable code.
        for body in source(&format!("{file}.rs")).split("fn code(").skip(1) {
            used.extend(codes(body.split("\n    }\n").next().unwrap()));
        }
    }
    used.extend(codes(&source("src/api/problem.rs")));
    let files = ["request", "roles", "timestamp", "status"].map(|name| format!("src/api/{name}.rs"));
    let shared =
        ["rejection", "dispatch", "holder", "problem"].map(|name| format!("../service/src/{name}.rs"));
    for file in files.iter().chain(&shared) {
        let text = source(file);
        for begins in ["Problem::", "Self::new("] {
            let made = text.split(begins).skip(1);
            used.extend(made.flat_map(|rest| codes(rest.split(')').next().unwrap())));
        }
    }
    let missing: Vec<_> = used.difference(&listed).collect();
    assert!(missing.is_empty(), "not listed: {missing:?}");
    let unused: Vec<_> = listed.difference(&used).collect();
    assert!(unused.is_empty(), "listed, and nowhere in the sources: {unused:?}");
}

#[test]
fn the_description_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in described(&document) {
        let name = format!("{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{name}: its id stands twice"
        );
        assert!(operation["responses"].get("default").is_some(), "{name}");
        let listeners = operation["x-listeners"].as_array().unwrap();
        assert!(listeners.contains(&json!("main")), "{name}");
        let said: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let used: BTreeSet<&str> =
            path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        assert_eq!(said, used, "{name}");
        for requirement in operation["security"].as_array().unwrap() {
            for scheme in requirement.as_object().unwrap().keys() {
                let schemes = &document["components"]["securitySchemes"];
                assert!(schemes.get(scheme).is_some(), "{name}: {scheme}");
            }
        }
    }
    // Every reference leads somewhere, and every schema is used.
    let mut used = BTreeSet::new();
    for piece in DOCUMENT.split("\"$ref\": \"#").skip(1) {
        let target = piece.split('"').next().unwrap();
        assert!(document.pointer(target).is_some(), "{target}");
        used.insert(target.rsplit('/').next().unwrap().to_owned());
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(name), "{name} is used nowhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_authority_answers_as_it_is_described() {
    let config = "[[oidc]]\nissuer = \"IDP\"\n[enrolment]\nprofile_approvals = { developer = 1 }\n";
    let office = Office::open(config).await;
    let server = office.site.serve().await;
    let witness = Witness { document: document(), server: &server, seen: Mutex::default() };
    let admin = Some(ADMIN);
    let certificates = "/api/v1/certificates";
    let key = key();

    // A certificate without approval, and what can be asked about it.
    let token = |profile: &str| json!({ "identity": { "email": "dev@example.com" }, "profile": profile, "ttl_seconds": 600 });
    let made = witness.at("POST", "/api/v1/tokens", admin, Some(token("unlogged"))).await;
    let enrol =
        |made: &Value, id: &str| json!({ "token": made["token"], "csr": csr(&key), "request_id": id });
    let issued = witness.at("POST", certificates, None, Some(enrol(&made, "a"))).await;
    let serial = issued["serial"].as_str().unwrap().to_owned();
    let at = |rest: &str| format!("{certificates}/{serial}{rest}");
    let listed = witness.ok("GET", certificates, "/api/v1/certificates?limit=2", admin, None).await;
    assert!(listed["next"].is_i64());
    let record = witness.ok("GET", "/api/v1/certificates/{serial}", &at(""), admin, None).await;
    let of_key = format!("{certificates}/by-key/{}", record["spki_sha256"].as_str().unwrap());
    witness.ok("GET", "/api/v1/certificates/by-key/{spki_sha256}", &of_key, None, None).await;
    let dated = "/api/v1/certificates/{serial}/status";
    for moment in [record["not_before"].as_i64().unwrap(), 0] {
        witness.ok("GET", dated, &at(&format!("/status?at={moment}")), admin, None).await;
    }

    // One that people approve, one that they deny.
    let (requests, by_id) = ("/api/v1/requests", "/api/v1/requests/{id}");
    let statement_of = |request: &Value| {
        let statement = request["statement"].as_str().unwrap();
        let said: Value = serde_json::from_str(statement).unwrap();
        let schema = &witness.document["components"]["schemas"]["RequestStatement"];
        assert_eq!(schema::faults(&witness.document, schema, &said), Vec::<String>::new());
        hex::encode(<sha2::Sha256 as sha2::Digest>::digest(statement))
    };
    for (decision, id) in [("approve", "b"), ("deny", "c")] {
        let maker = office.token("ivan@example.org", &["issuers"]);
        let made = witness.at("POST", "/api/v1/tokens", Some(&maker), Some(token("developer"))).await;
        let waits = witness.at("POST", certificates, None, Some(enrol(&made, id))).await;
        let path = format!("{requests}/{}", waits["id"].as_str().unwrap());
        let request = witness.ok("GET", by_id, &path, admin, None).await;
        let mut asked =
            json!({ "requests": [{ "id": waits["id"], "statement_sha256": statement_of(&request) }] });
        if decision == "deny" {
            asked["reason"] = json!("no");
        }
        witness.ok("GET", requests, "/api/v1/requests?limit=1", admin, None).await;
        witness.at("GET", "/api/v1/overview", admin, None).await;
        let by = office.token("alice@example.org", &["approvers"]);
        witness.at("POST", &format!("{requests}/{decision}"), Some(&by), Some(asked.clone())).await;
        let by = office.token("bob@example.org", &["approvers"]);
        let (status, _) = witness
            .call(
                "POST",
                &format!("{requests}/{decision}"),
                &format!("{requests}/{decision}"),
                Some(&by),
                Some(asked),
            )
            .await;
        assert_eq!(status, 409);
        witness.ok("GET", "/api/v1/requests/{id}/status", &format!("{path}/status"), None, None).await;
        let (status, _) =
            witness.call("POST", certificates, certificates, None, Some(enrol(&made, id))).await;
        assert_eq!(status, if decision == "deny" { 403 } else { 201 });
        witness.ok("GET", by_id, &path, admin, None).await;
    }

    // An identity token, and what clients of its interface read.
    let body = json!({ "certificateSigningRequest": STANDARD.encode(csr(&key)) });
    let identity = office.idp.token("dev@example.com");
    for token in [identity.as_str(), "no token"] {
        witness.at("POST", "/api/v1/policy/explain", admin, Some(json!({ "token": token }))).await;
    }
    witness.at("POST", "/api/v2/signingCert", Some(&identity), Some(body.clone())).await;
    let (status, _) =
        witness.call("POST", "/api/v2/signingCert", "/api/v2/signingCert", None, Some(body)).await;
    assert_eq!(status, 400);
    witness.at("GET", "/api/v2/trustBundle", None, None).await;
    witness.at("GET", "/api/v2/configuration", None, None).await;

    // A reported problem, and the decision that nothing is wrong.
    let reports = "/api/v1/problem-reports";
    let said = json!({ "serial": serial, "ground": "suspect-code", "detail": "somebody called" });
    let id = witness.at("POST", reports, admin, Some(said)).await["id"].clone();
    let (close, path) = (format!("{reports}/{{id}}/close"), format!("{reports}/{id}/close"));
    witness.ok("POST", &close, &path, admin, Some(json!({ "decision": "it was another's" }))).await;
    witness.ok("GET", reports, &format!("{reports}?open=false&after=0"), admin, None).await;

    // One's own certificates, by the key of one of them.
    let challenges = "/api/v1/renewals/challenges";
    witness.at("POST", challenges, None, Some(json!({ "serial": serial }))).await;
    for (path, body) in
        fixture::own_requests(&server.authority, &key, &serial, issued["certificate"].as_str().unwrap())
    {
        witness.at("POST", path, None, Some(body)).await;
    }

    // Revocation of one and of many.
    let revoke = json!({ "reason": "key-compromise", "compromised_at": record["not_before"] });
    witness.ok("POST", "/api/v1/certificates/{serial}/revoke", &at("/revoke"), admin, Some(revoke)).await;
    witness.ok("GET", "/api/v1/certificates/{serial}", &at(""), admin, None).await;
    witness.ok("GET", dated, &at(&format!("/status?at={}", record["not_before"])), admin, None).await;
    let plan = json!({ "selection": { "identity": "dev@example.com" }, "reason": "superseded" });
    let plan = witness.at("POST", "/api/v1/revocations/plan", admin, Some(plan)).await;
    let order = json!({ "order": plan["order"], "confirm": plan["matching"], "limit": 1 });
    witness.at("POST", "/api/v1/revocations", admin, Some(order)).await;
    witness.at("GET", "/api/v1/overview", admin, None).await;
    witness.at("GET", "/api/v1/authorities", None, None).await;
    witness.at("GET", "/healthz", None, None).await;

    // Refusals of every kind of status.
    let unknown = format!("{requests}/{}/status", "0".repeat(32));
    for (method, template, path, token, body, expected) in [
        ("GET", certificates, certificates, None, None, 401),
        ("GET", certificates, "/api/v1/certificates?limit=0", admin, None, 400),
        ("GET", certificates, "/api/v1/certificates?unknown=1", admin, None, 400),
        ("GET", "/api/v1/certificates/{serial}", "/api/v1/certificates/00", admin, None, 404),
        ("GET", "/api/v1/requests/{id}/status", unknown.as_str(), None, None, 404),
        ("POST", "/api/v1/codes", "/api/v1/codes", None, Some(json!({ "email": "a@example.com" })), 404),
        (
            "POST",
            "/api/v1/requests/approve",
            "/api/v1/requests/approve",
            admin,
            Some(json!({ "requests": [{ "id": "0".repeat(32), "statement_sha256": "0".repeat(64) }] })),
            403,
        ),
    ] {
        let (status, problem) = witness.call(method, template, path, token, body).await;
        assert_eq!(status, expected, "{path}: {problem}");
    }

    // Nothing that answers in JSON was left out; letters and renewals that wait have suites of their own.
    let seen = witness.seen.into_inner().unwrap();
    for (method, path, operation) in described(&witness.document) {
        let name = operation["operationId"].as_str().unwrap();
        for (status, response) in operation["responses"].as_object().unwrap() {
            let good =
                status.starts_with('2') && response["content"]["application/json"]["schema"].is_object();
            let known = (name.to_owned(), status.parse().unwrap_or(0));
            if good && !seen.contains(&known) {
                let exempt = [("renew", "202"), ("requestCode", "202"), ("signingCertificate", "202")];
                assert!(
                    exempt.contains(&(name, status)),
                    "{method} {path} was never seen to answer {status}"
                );
            }
        }
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_serves_the_paths_and_methods_that_are_described_and_no_others() {
    let office = Office::open("").await;
    let server = office.site.serve().await;
    let document = document();
    let operations = described(&document);
    let read_only = format!("http://{}", server.serving.running.read_only_addr().unwrap());
    let sample = |path: &str| {
        let filled = path.split('{').enumerate().map(|(index, part)| match part.split_once('}') {
            Some((_, rest)) if index > 0 => format!("00{rest}"),
            _ => part.to_owned(),
        });
        filled.collect::<String>()
    };
    let ask = async |base: &str, method: &str, path: &str| {
        let request = server.http.request(method.parse().unwrap(), format!("{base}{path}"));
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.text().await.unwrap())
    };
    for (method, path, operation) in &operations {
        let filled = sample(path);
        let listeners = operation["x-listeners"].as_array().unwrap();
        for (listener, base) in [("main", &server.base), ("read-only", &read_only)] {
            let (status, _, body) = ask(base, method, &filled).await;
            let served = status != 405 && !(status == 404 && body.contains(NOTHING));
            let listed = listeners.contains(&json!(listener));
            assert_eq!(served, listed, "{listener} {method} {filled}: {status} {body}");
        }
        for other in ["GET", "POST", "PUT", "DELETE"] {
            let taken = operations.iter().any(|(method, template, _)| {
                let fits = |template: &str| {
                    let (mut wanted, mut given) = (template.split('/'), filled.split('/'));
                    wanted.by_ref().zip(given.by_ref()).all(|(one, two)| one == two || one.contains('{'))
                        && template.split('/').count() == filled.split('/').count()
                };
                method == other && fits(template)
            });
            // A request may be as short as nothing, and is answered all the same.
            if !(taken || path == "/ocsp" && other == "GET") {
                let (status, headers, body) = ask(&server.base, other, &filled).await;
                assert_eq!(status, 405, "{other} {filled}: {body}");
                let allowed = headers["allow"].to_str().unwrap();
                assert!(allowed.split(", ").any(|name| name == method), "{filled}: {allowed}");
            }
        }
    }
    let (status, headers, body) = ask(&read_only, "GET", "/openapi.json").await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/json"));
    assert_eq!(body, DOCUMENT);
    server.finish().await;
}
