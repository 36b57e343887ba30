use super::*;

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec()).unwrap()
}

#[test]
fn every_key_type_round_trips_in_clear_and_encrypted() {
    for algorithm in KeyAlgorithm::ALL {
        let key = DeveloperKey::generate(algorithm).unwrap();
        let clear = DeveloperKey::from_pem(&key.to_pem(), None).unwrap();
        assert_eq!(clear.public_key(), key.public_key());
        let pem = key.to_encrypted_pem(&passphrase("correct horse"), KdfProfile::DangerForTests).unwrap();
        assert!(pem.starts_with("-----BEGIN MENTAT ENCRYPTED KEY-----\n"));
        let decrypted = DeveloperKey::from_pem(&pem, Some(&passphrase("correct horse"))).unwrap();
        assert_eq!(decrypted.public_key(), key.public_key());
        let intent = SigningIntent::fresh(Purpose::Statement).unwrap();
        let signature = decrypted.sign_message(b"statement", &intent).unwrap();
        let signature_algorithm = algorithm.default_signature();
        let verified =
            key.public_key().verify(signature_algorithm, Input::Message(b"statement"), signature.as_bytes());
        assert_eq!(verified, Ok(()));
    }
}

#[test]
fn a_developer_key_signs_no_certificates() {
    let key = DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap();
    for purpose in Purpose::ALL {
        let outcome = key.sign_message(b"x", &SigningIntent::fresh(purpose).unwrap());
        assert_eq!(outcome.is_ok(), PURPOSES.contains(purpose), "{purpose}");
    }
}

#[test]
fn wrong_and_missing_passphrases_and_foreign_formats_are_told_apart() {
    let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = key.to_encrypted_pem(&passphrase("correct horse"), KdfProfile::DangerForTests).unwrap();
    let code = |pem: &str, p: Option<&Passphrase>| DeveloperKey::from_pem(pem, p).unwrap_err();
    assert_eq!(code(&pem, Some(&passphrase("wrong horse"))).code(), "auth_failed");
    assert!(code(&pem, None).to_string().contains("a passphrase is needed"));
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    assert!(code(sec1, None).to_string().contains("openssl pkcs8"));
    let public = key.public_key().to_pem();
    assert!(code(&public, None).to_string().contains("not a private key"));
}

#[test]
fn text_that_is_not_one_block_is_refused() {
    let pem = DeveloperKey::generate(KeyAlgorithm::Ed25519).unwrap().to_pem().to_string();
    for bad in [
        String::new(),
        "-----BEGIN PRIVATE KEY-----".to_owned(),
        pem.replace("END PRIVATE", "END PUBLIC"),
        format!("{pem}{pem}"),
        format!("note\n{pem}"),
        pem.replace('M', "*"),
        "x".repeat(MAX_PEM_LEN + 1),
    ] {
        assert_eq!(DeveloperKey::from_pem(&bad, None).unwrap_err().code(), "invalid");
    }
}

#[test]
fn forged_parameters_do_not_reach_the_derivation() {
    let mut der = vec![0; 200];
    der[3] = 1;
    der[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    let pem = pem_encode(ENCRYPTED, &der);
    let error = DeveloperKey::from_pem(&pem, Some(&passphrase("correct horse"))).unwrap_err();
    assert!(error.to_string().contains("out of bounds"));
}

#[test]
fn short_rsa_keys_are_refused_with_the_reason() {
    let pkcs8 = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    let der: Pkcs8V1Der<'_> = pkcs8.as_der().unwrap();
    let error = DeveloperKey::from_pkcs8(der.as_ref()).unwrap_err();
    assert_eq!(error.code(), "unsupported");
    assert!(error.to_string().contains("at least 3072 bits"), "{error}");
}

#[test]
fn pem_lines_are_64_characters_and_a_full_last_line_is_not_doubled() {
    for length in [0, 1, 47, 48, 49, 96] {
        let pem = pem_encode("X", &vec![7; length]);
        assert!(pem.lines().all(|line| line.len() <= 64 && !line.is_empty()), "{pem}");
        let (label, der) = pem_decode(&pem).unwrap();
        assert_eq!((label, der.len()), ("X", length));
    }
}
