use super::*;

const SECRET: &str = "correct horse battery staple";
const NOW: UnixTime = UnixTime(1_800_000_000);

fn issuer() -> Issuer {
    Issuer::new("http://127.0.0.1:9", Issuer::make_key().unwrap(), SECRET).unwrap()
}

fn request(method: Method, path: &str, form: &str) -> Request {
    Request {
        method,
        path: path.to_owned(),
        query: Fields::default(),
        form: Fields::parse(form.as_bytes()),
        authorization: None,
    }
}

fn post(issuer: &Issuer, path: &str, form: &str, now: UnixTime) -> (u16, Value) {
    let answer = issuer.answer(&request(Method::POST, path, form), now).unwrap();
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

/// The claims of a token, after its signature was verified with the published key.
fn claims(issuer: &Issuer, answer: &Value) -> Value {
    let token = answer["id_token"].as_str().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let signer = issuer.key.signer();
    let input = Input::Message(signed.as_bytes());
    signer.public_key().verify(SignatureAlgorithm::RsaPkcs1Sha256, input, &signature).unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let part =
        |text: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap() };
    assert_eq!(
        part(header),
        json!({ "alg": "RS256", "kid": issuer.key_set["keys"][0]["kid"], "typ": "JWT" })
    );
    part(payload)
}

#[test]
fn a_program_that_knows_the_secret_gets_a_token_for_any_address() {
    let issuer = issuer();
    let form = "grant_type=client_credentials&client_id=dev%40example.org&client_secret=correct+horse+battery+staple";
    let (status, answer) = post(&issuer, "/token", form, NOW);
    assert_eq!(status, 200, "{answer}");
    let said = claims(&issuer, &answer);
    assert_eq!((&said["aud"], &said["email"]), (&json!("sigstore"), &json!("dev@example.org")));
    assert_eq!((&said["email_verified"], &said["exp"]), (&json!(true), &json!(NOW.0 + 600)));
    let (_, answer) = post(&issuer, "/token", &format!("{form}&audience=mentat-developer"), NOW);
    assert_eq!(claims(&issuer, &answer)["aud"], "mentat-developer");
    let (_, answer) = post(&issuer, "/token", &format!("{form}&audience=mentat-developer+sigstore"), NOW);
    assert_eq!(claims(&issuer, &answer)["aud"], json!(["mentat-developer", "sigstore"]));
    let mut by_header = request(Method::POST, "/token", "grant_type=client_credentials");
    by_header.authorization =
        Some(format!("Basic {}", STANDARD.encode("dev%40example.org:correct+horse+battery+staple")));
    assert_eq!(issuer.answer(&by_header, NOW).unwrap().status, 200);
    for (form, error) in [
        (form.replace("staple", "stable"), "invalid_client"),
        (form.replace("&client_secret=correct+horse+battery+staple", ""), "invalid_client"),
        (format!("{form}&client_secret=guess"), "invalid_client"),
        (form.replace("dev%40example.org", "root"), "invalid_request"),
        (form.replace("client_credentials", "password"), "unsupported_grant_type"),
    ] {
        assert_eq!(post(&issuer, "/token", &form, NOW).1["error"], error, "{form}");
    }
    assert_eq!(issuer.answer(&request(Method::GET, "/token", form), NOW), None);
}

#[test]
fn a_device_waits_for_somebody_who_knows_the_secret() {
    let issuer = issuer();
    let (_, started) = post(&issuer, "/device/code", "client_id=sigstore&scope=openid", NOW);
    let text = |name: &str| started[name].as_str().unwrap().to_owned();
    let poll =
        format!("grant_type={}&client_id=sigstore&device_code={}", grant::DEVICE_CODE, text("device_code"));
    assert_eq!(post(&issuer, "/token", &poll, NOW).1["error"], "authorization_pending");
    let approve = |code: &str, secret: &str| {
        post(&issuer, "/device", &format!("user_code={code}&email=dev%40example.org&secret={secret}"), NOW).0
    };
    assert_eq!(approve(&text("user_code"), "guess"), 403);
    assert_eq!(approve("AAAA-AAAA", "correct+horse+battery+staple"), 400);
    assert_eq!(post(&issuer, "/token", &poll, NOW).1["error"], "authorization_pending");
    assert_eq!(approve(&text("user_code").to_lowercase(), "correct+horse+battery+staple"), 200);
    let another = poll.replace("client_id=sigstore", "client_id=other");
    assert_eq!(post(&issuer, "/token", &another, NOW).1["error"], "invalid_grant");
    let (_, answer) = post(&issuer, "/token", &poll, NOW);
    assert_eq!(claims(&issuer, &answer)["email"], "dev@example.org");
    assert_eq!(post(&issuer, "/token", &poll, NOW).1["error"], "invalid_grant", "a code is good once");
    let (_, late) = post(&issuer, "/device/code", "client_id=sigstore", NOW);
    let poll =
        format!("grant_type={}&device_code={}", grant::DEVICE_CODE, late["device_code"].as_str().unwrap());
    assert_eq!(post(&issuer, "/token", &poll, UnixTime(NOW.0 + 600)).1["error"], "expired_token");
    for _ in 0..63 {
        assert_eq!(post(&issuer, "/device/code", "client_id=sigstore", NOW).0, 200);
    }
    assert_eq!(post(&issuer, "/device/code", "client_id=sigstore", NOW).0, 503, "bounded");
}

#[test]
fn a_browser_brings_a_code_back_to_the_client_that_waits() {
    let issuer = issuer();
    let verifier = "a".repeat(43);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let form = format!(
        "client_id=sigstore&redirect_uri=http%3A%2F%2Flocalhost%3A4%2Fback&response_type=code&state=s+1&nonce=n&\
         code_challenge={challenge}&code_challenge_method=S256&email=dev%40example.org&secret=correct+horse+battery+staple"
    );
    let sign_in = |form: &str| issuer.answer(&request(Method::POST, "/auth", form), NOW).unwrap();
    let code_of = |answer: &Answer| {
        let location = url::Url::parse(answer.location.as_deref().unwrap()).unwrap();
        assert!(location.as_str().starts_with("http://localhost:4/back?code="), "{location}");
        assert!(location.as_str().ends_with("&state=s+1"), "{location}");
        location.query_pairs().next().unwrap().1.into_owned()
    };
    let redeem = |code: &str, verifier: &str| {
        let form = format!(
            "grant_type=authorization_code&code={code}&client_id=sigstore&code_verifier={verifier}&\
             redirect_uri=http%3A%2F%2Flocalhost%3A4%2Fback"
        );
        post(&issuer, "/token", &form, NOW).1
    };
    let code = code_of(&sign_in(&form));
    let said = claims(&issuer, &redeem(&code, &verifier));
    assert_eq!((&said["nonce"], &said["sub"]), (&json!("n"), &json!("dev@example.org")));
    assert_eq!(redeem(&code, &verifier)["error"], "invalid_grant");
    let code = code_of(&sign_in(&form));
    assert_eq!(redeem(&code, "guess")["error"], "invalid_grant");
    assert_eq!(redeem(&code, &verifier)["error"], "invalid_grant", "a wrong attempt ends it");
    for (from, to, status) in [
        ("localhost%3A4", "example.org", 400),
        ("http%3A", "https%3A", 400),
        ("response_type=code", "response_type=token", 400),
        ("method=S256", "method=plain", 400),
        ("staple", "stable", 403),
        ("dev%40example.org", "%3Cscript%3E", 403),
    ] {
        let answer = sign_in(&form.replace(from, to));
        assert_eq!((answer.status.as_u16(), answer.location), (status, None), "{to}");
        assert!(!String::from_utf8(answer.body).unwrap().contains("<script>"));
    }
}

#[test]
fn pages_escape_what_they_are_given_and_say_what_they_are() {
    let issuer = issuer();
    let mut asked = request(Method::GET, "/device", "");
    asked.query = Fields::parse(b"user_code=%22%3E%3Cscript%3E");
    let page = String::from_utf8(issuer.answer(&asked, NOW).unwrap().body).unwrap();
    assert!(page.contains("&quot;&gt;&lt;script&gt;") && !page.contains("<script>"), "{page}");
    assert!(page.contains("Development issuer"));
    let discovery = issuer.discovery();
    assert_eq!(discovery["issuer"], "http://127.0.0.1:9");
    assert!(discovery["development_issuer"].is_string());
}
