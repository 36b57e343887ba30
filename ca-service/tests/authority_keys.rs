//! A start with another key than the one that a certificate of the authority is for: refused with the reason, and nothing is served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::fixture;

use ca_service::storage::StoredAuthority;
use fixture::program::{config, run, said};
use fixture::{Site, check_ca, execute};
use hsm::{KeyAlgorithm, KeyProvider as _, KeySpec, KeyUri, Purpose};

/// What a start says that is refused: one line, and none on standard output, where it would say its address.
fn refusal(site: &Site) -> String {
    let output = run(&config(site), &["serve", "--exit-with-stdin"]);
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let said = said(&output);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("do not fit together")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("restore database and keystore of one backup"), "{said}");
    lines[0].to_owned()
}

async fn stored(site: &Site, name: &str) -> StoredAuthority {
    let authorities = site.store().await.authorities().await.unwrap();
    authorities.into_iter().find(|authority| authority.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_another_key_than_the_certificates_is_refused_and_names_whose() {
    let site = Site::new().await;
    for (name, purposes) in [
        ("code-signing", &[Purpose::Certificate, Purpose::Crl][..]),
        ("ocsp-responder", &[Purpose::Ocsp][..]),
        ("timestamp-authority", &[Purpose::Timestamp][..]),
    ] {
        let right = KeyUri::parse(&stored(&site, name).await.key_uri).unwrap();
        let label = right.path_attribute("object").unwrap();
        let file = site.settings.keystore.join(format!("{label}.key"));
        let kept = file.with_extension("kept");
        std::fs::rename(&file, &kept).unwrap();

        // No key of its name.
        let missing = refusal(&site);
        assert!(
            missing.contains(&format!("the key of {name}: ")) && missing.contains("not found"),
            "{missing}"
        );

        // Another one of its name, where the record has the right one's digest.
        let purposes: hsm::PurposeSet = purposes.iter().copied().collect();
        let spec = KeySpec::new(label, KeyAlgorithm::EcdsaP256, purposes).unwrap();
        let made = site.keys().generate(&spec).unwrap();
        let other = KeyUri::soft(&spec.label).pinned_to(made.public_key().spki_sha256());
        let replaced = refusal(&site);
        for part in [
            format!("the key of {name}: "),
            "not the pinned one".to_owned(),
            made.public_key().spki_sha256_hex(),
        ] {
            assert!(replaced.contains(&part), "{part}: {replaced}");
        }

        // And where the record has that of the other one: the certificate says whose it is.
        let recorded = |uri: &KeyUri| {
            execute(&site.settings, &format!("UPDATE authority SET key_uri = '{uri}' WHERE name = '{name}'"));
        };
        recorded(&other);
        let repointed = refusal(&site);
        let expected = format!("the key of {name}: it is not the one that its certificate is for");
        assert!(repointed.contains(&expected), "{repointed}");

        recorded(&right);
        std::fs::rename(&kept, &file).unwrap();
    }
    check_ca(&*site.open().await).await;
}
