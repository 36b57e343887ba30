//! Issuing: rate, latency, CPU, bytes; empty and with many certificates stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hsm::developer::DeveloperKey;
use hsm::{KeyAlgorithm, Purpose, SigningIntent};
use rcgen::{CertificateParams, KeyPair};

use crate::figures::{Figures, median};
use crate::load::{Seen, Use, closed_loop, post};
use crate::rows;
use crate::stack::Stack;

pub(crate) const CONNECTIONS: usize = 64;
pub(crate) const RUNS: usize = 3;

/// What one thread does with nothing but the key: signatures a second, and signatures verified before release.
pub(crate) fn bare_signatures() -> (f64, f64) {
    let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).unwrap().signer();
    let message = vec![7; 900];
    let run = |work: &dyn Fn()| {
        let (began, mut count) = (Instant::now(), 0_u32);
        while began.elapsed() < Duration::from_millis(300) {
            work();
            count += 1;
        }
        f64::from(count) / began.elapsed().as_secs_f64()
    };
    let rate = |work: &dyn Fn()| median((0..RUNS).map(|_| run(work)).collect());
    let bare =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING)
            .unwrap();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let signed = rate(&|| {
        bare.sign(&random, &message).unwrap();
    });
    let verified = rate(&|| {
        key.sign_message(&message, &SigningIntent::fresh(Purpose::Statement).unwrap()).unwrap();
    });
    (signed, verified)
}

/// Prepared requests: a token of their own and a key of their own each.
pub(crate) async fn requests(stack: &Stack, profile: &str, count: usize) -> Arc<Vec<Vec<u8>>> {
    let tokens = rows::tokens(&stack.database(), profile, count);
    let prepared = tokens
        .iter()
        .map(|token| {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
            let body = serde_json::json!({ "token": token, "csr": csr, "request_id": token[20..52] });
            post("/api/v1/certificates", "application/json", "", body.to_string().as_bytes())
        })
        .collect();
    Arc::new(prepared)
}

/// One run; returns what was seen and the CPU of both servers for one certificate, in milliseconds.
pub(crate) async fn issue(
    stack: &Stack,
    profile: &str,
    connections: usize,
    lasting: Duration,
) -> (Seen, f64) {
    // Room for a rate that nobody expects.
    let most = if connections == 1 { 1_200 } else { 6_000 };
    let count = most * usize::try_from(lasting.as_secs()).unwrap() * 3 / 2;
    let prepared = requests(stack, profile, count).await;
    let mut before = Duration::ZERO;
    let seen = closed_loop(&stack.address(), connections, lasting, 201, prepared, Use::Once, || {
        before = stack.cpu();
    })
    .await;
    let cpu = (stack.cpu() - before).as_secs_f64() * 1000.0 / seen.answers as f64;
    (seen, cpu)
}

async fn issue_runs(
    stack: &Stack,
    profile: &str,
    connections: usize,
    lasting: Duration,
    mut each: impl FnMut(&Seen, f64) -> f64,
) -> Vec<f64> {
    let mut values = Vec::new();
    for _ in 0..RUNS {
        let (seen, cpu) = issue(stack, profile, connections, lasting).await;
        values.push(each(&seen, cpu));
    }
    values
}

pub(crate) async fn measure(figures: &mut Figures, lasting: Duration) {
    let mut stack = Stack::new("ecdsa-p256");
    let starts = (0..5).map(|_| stack.start_ca().start_ms).collect();
    figures.set("start_ms", median(starts));
    tokio::time::sleep(Duration::from_millis(500)).await;
    figures.set("idle_mib", crate::machine::resident_mib(stack.ca.as_ref().unwrap().id()));

    let (mut cpu, mut p99) = (Vec::new(), Vec::new());
    let rate = issue_runs(&stack, "plain", CONNECTIONS, lasting, |seen, each| {
        cpu.push(each);
        p99.push(seen.percentile_ms(99));
        seen.per_s()
    })
    .await;
    figures.set("issued_per_s", median(rate));
    figures.set("cpu_ms_per_certificate", median(cpu));
    figures.set("issue_p99_ms_at_64", median(p99));

    let before = rows::sizes(&stack.database());
    let (mut cpu, mut p99) = (Vec::new(), Vec::new());
    let rate = issue_runs(&stack, "developer", CONNECTIONS, lasting, |seen, each| {
        cpu.push(each);
        p99.push(seen.percentile_ms(99));
        seen.per_s()
    })
    .await;
    figures.set("issued_sct_per_s", median(rate));
    figures.set("cpu_ms_per_certificate_sct", median(cpu));
    figures.set("issue_sct_p99_ms_at_64", median(p99));
    figures.set("db_bytes_per_certificate", rows::bytes_per_certificate(before, &stack.database()));

    let alone = issue_runs(&stack, "plain", 1, lasting, |seen, _| seen.percentile_ms(50)).await;
    figures.set("issue_p50_ms_at_1", median(alone));
    let alone = issue_runs(&stack, "developer", 1, lasting, |seen, _| seen.percentile_ms(50)).await;
    figures.set("issue_sct_p50_ms_at_1", median(alone));
    figures.set("lint_us", lint_us(&stack).await);

    let mut stack = Stack::new("ecdsa-p384");
    stack.start_ca();
    let rate = issue_runs(&stack, "plain", CONNECTIONS, lasting, |seen, _| seen.per_s()).await;
    figures.set("issued_p384_per_s", median(rate));
}

/// Linting one issued certificate with every rule, in microseconds.
async fn lint_us(stack: &Stack) -> f64 {
    let settings = ca_service::Config::read(&stack.config()).unwrap().validate().unwrap();
    let authority =
        ca_service::serve::open(settings, Arc::new(service::SystemClock)).await.expect("the CA opens");
    let search = ca_service::storage::Search { limit: 1, ..Default::default() };
    let record = authority.store().search(search).await.unwrap().remove(0);
    let certificate = authority.assembled(&record).unwrap();
    let (_, issuer) = authority.issuer("code-signing").unwrap();
    let rules =
        ca_pki::lint::CertificateRules { kind: ca_pki::profile::Kind::Internal, issuer: Some(issuer) };
    let times = (0..5)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..2_000 {
                ca_pki::lint::certificate(&certificate, &rules).into_result().unwrap();
            }
            began.elapsed().as_secs_f64() * 1e6 / 2_000.0
        })
        .collect();
    median(times)
}
