use trust_store::bundle::Bundle;
use trust_store::dsse::Envelope;

use super::*;

/// An attestation with a certificate of its own, of this serial number.
fn attestation(serial: &[u8]) -> Attestation {
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(serial));
    params.distinguished_name.push(rcgen::DnType::CommonName, "An Authority");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let envelope = Envelope::new("test", b"{}".to_vec(), b"none".to_vec());
    Attestation::for_bundle(Bundle::for_envelope(certificate.der().to_vec(), envelope)).unwrap()
}

fn release(attestation: &Attestation, log_index: Option<u64>) -> Release<'_> {
    let digest = ModuleDigest::of(b"module");
    Release { agent: "shop.cart", digest, signer: "dev@example.com", log_index, attestation }
}

fn request(releases: Releases, calls: Calls) -> HoldRequest {
    HoldRequest { releases, calls, drain_seconds: None, reason: String::new(), dry_run: false }
}

fn order(releases: Releases) -> Result<Order, Denied> {
    Order::read(&request(releases, Calls::Stop), 1000)
}

#[test]
fn an_order_means_what_fits_every_name_in_it() {
    let (own, other) = (attestation(&[1, 0x23]), attestation(&[1, 0x24]));
    let certificate = fingerprint(&own).unwrap().to_string();
    let issuer = issuer_text(own.certificate().unwrap());
    let means =
        |releases: Releases, attestation, index| order(releases).unwrap().means(&release(attestation, index));
    let by_certificate = || Releases { certificate: Some(certificate.clone()), ..Releases::default() };
    assert!(means(by_certificate(), &own, None));
    assert!(!means(by_certificate(), &other, None));
    let upper = Releases { certificate: Some(certificate.to_uppercase()), ..Releases::default() };
    assert!(means(upper, &own, None));
    for (serial, expected) in [("0123", true), ("123", true), ("00:01:23", true), ("0124", false)] {
        let (serial, issuer) = (Some(serial.to_owned()), Some(issuer.clone()));
        assert_eq!(means(Releases { serial, issuer, ..Releases::default() }, &own, None), expected);
    }
    let elsewhere = Some("CN=Another Authority".to_owned());
    let releases = Releases { serial: Some("0123".into()), issuer: elsewhere, ..Releases::default() };
    assert!(!means(releases, &own, None));
    for (index, at, since) in
        [(Some(4), false, false), (Some(5), true, true), (Some(6), false, true), (None, false, true)]
    {
        assert_eq!(
            means(Releases { log_index: Some(5), ..Releases::default() }, &own, index),
            at,
            "{index:?}"
        );
        assert_eq!(
            means(Releases { from_log_index: Some(5), ..Releases::default() }, &own, index),
            since,
            "{index:?}"
        );
    }
    // Each name narrows the others.
    let agent = Releases { agent: Some("shop.other".into()), ..by_certificate() };
    assert!(!means(agent, &own, None));
    let signer = Releases { signer: Some("dev@example.com".into()), ..by_certificate() };
    assert!(means(signer, &own, None));
}

#[test]
fn an_order_that_names_nothing_or_cannot_be_meant_is_refused() {
    let text = |text: &str| Some(text.to_owned());
    for releases in [
        Releases::default(),
        Releases { serial: text("01"), ..Releases::default() },
        Releases { issuer: text("CN=x"), ..Releases::default() },
        Releases { serial: text("xyz"), issuer: text("CN=x"), ..Releases::default() },
        Releases { serial: text("00"), issuer: text("CN=x"), ..Releases::default() },
        Releases { serial: text(&"1".repeat(200)), issuer: text("CN=x"), ..Releases::default() },
        Releases { certificate: text("12"), ..Releases::default() },
        Releases { digest: text(""), ..Releases::default() },
        Releases { agent: text(""), ..Releases::default() },
        Releases { signer: text("a\nb"), ..Releases::default() },
    ] {
        assert_eq!(order(releases.clone()).unwrap_err().code, "invalid_argument", "{releases:?}");
    }
    let named = || Releases { agent: text("a"), ..Releases::default() };
    for (calls, seconds, accepted) in [
        (Calls::Drain, None, true),
        (Calls::Drain, Some(3600), true),
        (Calls::Drain, Some(0), false),
        (Calls::Drain, Some(3601), false),
        (Calls::Stop, Some(1), false),
    ] {
        let request = HoldRequest { drain_seconds: seconds, ..request(named(), calls) };
        assert_eq!(Order::read(&request, 0).is_ok(), accepted, "{calls:?} {seconds:?}");
    }
    let long = HoldRequest { reason: "x".repeat(513), ..request(named(), Calls::Stop) };
    assert_eq!(Order::read(&long, 0).unwrap_err().code, "invalid_argument");
}

#[tokio::test]
async fn orders_are_there_after_a_start_and_the_strictest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Holds::open(Arc::new(StateFolder::new(folder.path())));
    let evidence = attestation(&[7]);
    let release = release(&evidence, Some(9));
    let by_agent = Releases { agent: Some("shop.cart".into()), ..Releases::default() };
    let by_index = Releases { from_log_index: Some(9), ..Releases::default() };
    let holds = open().unwrap();
    assert_eq!(holds.on(&release), None);
    holds.add(Order::read(&request(by_agent.clone(), Calls::Drain), 5).unwrap()).await.unwrap();
    assert_eq!(holds.on(&release), Some(Withdrawal::Drain(Duration::from_secs(30))));
    holds.add(Order::read(&request(by_index, Calls::Stop), 6).unwrap()).await.unwrap();
    assert_eq!(holds.on(&release), Some(Withdrawal::Stop));
    drop(holds);

    let holds = open().unwrap();
    assert_eq!(holds.on(&release), Some(Withdrawal::Stop));
    let ids: Vec<String> = holds.all().iter().map(|order| order.hold().id.clone()).collect();
    assert_eq!(ids.len(), 2);
    // The same order again is the same order.
    holds.add(Order::read(&request(by_agent, Calls::Drain), 7).unwrap()).await.unwrap();
    assert_eq!(holds.all().len(), 2);
    assert_eq!(holds.remove("none").await.unwrap_err().code, "hold_unknown");
    for id in &ids {
        holds.remove(id).await.unwrap();
    }
    assert_eq!(holds.on(&release), None);
    assert!(open().unwrap().all().is_empty());

    std::fs::write(folder.path().join("holds.json"), "{}").unwrap();
    assert!(open().is_err(), "what cannot be read is not guessed");
}

#[tokio::test]
async fn an_order_that_cannot_be_kept_is_in_force_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let holds = Holds::open(Arc::new(StateFolder::new(folder.path()))).unwrap();
    // A folder stands where the file belongs.
    std::fs::create_dir_all(folder.path().join("holds.json/in-the-way")).unwrap();
    let evidence = attestation(&[7]);
    let named = Releases { agent: Some("shop.cart".into()), ..Releases::default() };
    let order = Order::read(&request(named, Calls::Stop), 5).unwrap();
    let id = order.hold().id.clone();
    assert_eq!(holds.add(order).await.unwrap_err().code, "state_unavailable");
    assert_eq!(holds.on(&release(&evidence, None)), Some(Withdrawal::Stop));
    // And it cannot be taken back as if it had been kept.
    assert_eq!(holds.remove(&id).await.unwrap_err().code, "state_unavailable");
    assert_eq!(holds.on(&release(&evidence, None)), Some(Withdrawal::Stop));
}
