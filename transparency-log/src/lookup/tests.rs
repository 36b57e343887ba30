use std::sync::atomic::Ordering;
use std::time::Duration;

use tlog::hash::{Hash, TreeHead};

use super::*;

/// An index of one entry, which has one term.
async fn of_one_entry(folder: &Path) -> Lookup {
    let lookup = Lookup::open(&folder.join("lookup.sqlite")).await.unwrap();
    let terms = vec![(0, vec![(TermKind::Digest, vec![1])])];
    let tree = TreeHead { size: 1, root: Hash([7; 32]) };
    lookup.file.insert(terms, TermSum::default(), Some(&tree)).await.unwrap();
    lookup.covered.store(1, Ordering::Release);
    lookup
}

/// Coverage is read, then the file is found damaged and replaced, then the new and empty one is searched.
#[tokio::test]
async fn a_search_of_a_new_file_claims_nothing_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let lookup = of_one_entry(folder.path()).await;
    assert_eq!(lookup.search(TermKind::Digest, &[1], 0).await.unwrap(), (vec![0], 1));
    let claim = lookup.claim();
    lookup.start_over().await.unwrap();
    // As if the follower had got as far again.
    lookup.covered.store(1, Ordering::Release);
    let found = lookup.file.candidates(TermKind::Digest, &[1], 0, PAGE).await.unwrap();
    assert_eq!((found, lookup.upheld(claim)), (Vec::new(), 0));
    assert_eq!(lookup.search(TermKind::Digest, &[1], 0).await.unwrap(), (Vec::new(), 1));
}

#[tokio::test]
async fn a_search_that_meets_the_closed_file_is_to_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let lookup = of_one_entry(folder.path()).await;
    lookup.file.close().await;
    let refused = lookup.search(TermKind::Digest, &[1], 0).await.unwrap_err();
    let response = refused.to_response();
    assert_eq!((response.status().as_u16(), refused.code()), (503, "not_indexed"));
    assert_eq!(response.headers()["retry-after"], "1");
}

/// The old file cannot be removed at first, as when its folder is on a disk in trouble.
#[tokio::test]
async fn an_index_that_cannot_be_made_anew_at_once_is_made_anew_later() {
    let folder = tempfile::tempdir().unwrap();
    let obstacle = folder.path().join("lookup.sqlite-journal");
    for error in [
        IndexError::Damaged("its rows are out of order".to_owned()),
        IndexError::Outdated("it has no sum of its terms".to_owned()),
    ] {
        let lookup = of_one_entry(folder.path()).await;
        std::fs::create_dir(&obstacle).unwrap();
        assert!(lookup.start_over().await.is_err());
        assert_eq!(lookup.covered(), 0);
        assert_eq!(lookup.search(TermKind::Digest, &[1], 0).await.unwrap_err().code(), "not_indexed");
        let remove = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::fs::remove_dir(&obstacle).unwrap();
        };
        let recovered = lookup.recover("signing", &error, Duration::from_millis(10));
        let both = async { tokio::join!(recovered, remove) };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("the index never recovers");
        assert_eq!(lookup.search(TermKind::Digest, &[1], 0).await.unwrap(), (Vec::new(), 0));
        assert_eq!(lookup.file.covered().await.unwrap(), None);
        lookup.file.close().await;
    }
}
