use super::*;

const ENTRIES: u64 = 400;

/// Terms of an entry: one of its own, and one that it shares with a tenth of the others.
fn terms_of(index: u64) -> Vec<Term> {
    vec![
        (TermKind::Digest, Hash::digest(&index.to_be_bytes()).0.to_vec()),
        (TermKind::Identity, format!("number-{}@example.test", index % 10).into_bytes()),
    ]
}

async fn filled(path: &Path) -> TermSum {
    let file = IndexFile::open(path, Opening::Serve).await.unwrap();
    let mut sum = TermSum::default();
    for from in [0, 150] {
        let to = if from == 0 { 150 } else { ENTRIES };
        let tree = TreeHead { size: to, root: Hash([7; 32]) };
        sum = file
            .insert((from..to).map(|index| (index, terms_of(index))).collect(), sum, Some(&tree))
            .await
            .unwrap();
    }
    file.close().await;
    sum
}

/// Whether every search of an entry's own term finds it, and of a shared one all that share it.
async fn complete(file: &IndexFile) -> bool {
    for index in 0..ENTRIES {
        let own = &terms_of(index)[0];
        if file.candidates(own.0, &own.1, 0, 1000).await.ok() != Some(vec![index]) {
            return false;
        }
    }
    for shared in 0..10 {
        let (kind, key) = &terms_of(shared)[1];
        let all: Vec<u64> = (shared..ENTRIES).step_by(10).collect();
        if file.candidates(*kind, key, 0, 1000).await.ok() != Some(all) {
            return false;
        }
    }
    true
}

async fn verified(file: &IndexFile) -> Result<(), IndexError> {
    let covered = file.covered().await?.ok_or_else(|| IndexError::Damaged("empty".to_owned()))?;
    let sum = covered.terms.ok_or_else(|| IndexError::Damaged("no sum".to_owned()))?;
    Verification::new(covered.size, sum).finish(file).await
}

#[tokio::test]
async fn an_index_with_one_flipped_bit_is_found_damaged_or_answers_completely() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lookup.sqlite");
    let sum = filled(&path).await;
    let file = IndexFile::open(&path, Opening::Serve).await.unwrap();
    assert_eq!(file.covered().await.unwrap().unwrap().terms, Some(sum));
    verified(&file).await.unwrap();
    assert!(complete(&file).await);
    file.close().await;

    let good = std::fs::read(&path).unwrap();
    let (mut damaged, mut unopened) = (0, 0);
    for at in (0..good.len()).step_by(199) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        match IndexFile::open(&path, Opening::Serve).await {
            Err(_) => unopened += 1,
            Ok(file) => {
                let found = verified(&file).await;
                assert!(found.is_err() || complete(&file).await, "a flipped bit at byte {at} hides an entry");
                damaged += u32::from(found.is_err());
                file.close().await;
            }
        }
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    }
    assert!(damaged > 40, "{damaged} found, {unopened} not opened: the flips did not reach the rows");
}

#[tokio::test]
async fn a_reading_beside_additions_counts_what_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lookup.sqlite");
    let sum = filled(&path).await;
    let file = IndexFile::open(&path, Opening::Serve).await.unwrap();
    let mut check = Verification::new(ENTRIES, sum);
    assert!(!check.step(&file, 100).await.unwrap());
    let tree = TreeHead { size: ENTRIES + 5, root: Hash([8; 32]) };
    let more = (ENTRIES..ENTRIES + 5).map(|index| (index, terms_of(index))).collect();
    let more = file.insert(more, sum, Some(&tree)).await.unwrap();
    assert_ne!(more, sum);
    check.finish(&file).await.unwrap();
    // What an entry says twice is one term.
    let twice = (ENTRIES + 5, [terms_of(3), terms_of(3)].concat());
    let tree = TreeHead { size: ENTRIES + 6, root: Hash([9; 32]) };
    let whole = file.insert(vec![twice], more, Some(&tree)).await.unwrap();
    Verification::new(ENTRIES + 6, whole).finish(&file).await.unwrap();
    // A missing row, one too many, and one for another are seen.
    for damage in [
        "DELETE FROM term WHERE entry = 7 AND kind = 1",
        "INSERT INTO term VALUES (1, x'00', 7)",
        "UPDATE term SET entry = 8 WHERE entry = 7 AND kind = 2",
    ] {
        let mut transaction = file.pool().begin().await.unwrap();
        sqlx::raw_sql(damage).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        let error = verified(&file).await.unwrap_err();
        assert!(matches!(error, IndexError::Damaged(_)), "{damage}: {error}");
        file.start_over().await.unwrap();
        assert_eq!(file.covered().await.unwrap(), None);
        let sum = file.insert(vec![(7, terms_of(7))], TermSum::default(), None).await.unwrap();
        let tree = TreeHead { size: 8, root: Hash([9; 32]) };
        file.insert(Vec::new(), sum, Some(&tree)).await.unwrap();
        verified(&file).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_from_before_the_sum_is_read_and_says_that_it_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lookup.sqlite");
    let pool = connect(&path, Opening::New).await.unwrap();
    let old = "DROP TABLE covered;
        CREATE TABLE covered (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL);
        INSERT INTO covered VALUES (1, 5, x'0102');";
    sqlx::raw_sql(old).execute(&pool).await.unwrap();
    pool.close().await;
    let expected = Some(Covered { size: 5, root: vec![1, 2], terms: None });
    for opening in [Opening::Read, Opening::Serve, Opening::Serve] {
        let file = IndexFile::open(&path, opening).await.unwrap();
        assert_eq!(file.covered().await.unwrap(), expected, "{opening:?}");
        file.close().await;
    }
}

/// What a connection read before must not be what the check reads again.
#[tokio::test]
async fn a_bit_that_flips_after_a_reading_is_found_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lookup.sqlite");
    let sum = filled(&path).await;
    let file = IndexFile::open(&path, Opening::Serve).await.unwrap();
    Verification::new(ENTRIES, sum).finish(&file).await.unwrap();
    // What is still in the write-ahead log would be read there.
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&file.pool()).await.unwrap();
    let good = std::fs::read(&path).unwrap();
    let key = &terms_of(123)[0].1;
    let mut bad = good.clone();
    // Copies of it in the free space of a page are nobody's.
    for at in 0..good.len() - key.len() {
        if good[at..].starts_with(key) {
            bad[at] ^= 1;
        }
    }
    assert_ne!(bad, good);
    std::fs::write(&path, &bad).unwrap();
    let error = Verification::new(ENTRIES, sum).finish(&file).await.unwrap_err();
    assert!(matches!(error, IndexError::Damaged(_)), "{error}");
}

#[tokio::test]
async fn the_sum_of_another_version_is_no_sum() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lookup.sqlite");
    let sum = filled(&path).await;
    let file = IndexFile::open(&path, Opening::Serve).await.unwrap();
    let stored: Vec<u8> =
        sqlx::query("SELECT terms FROM covered").fetch_one(&file.pool()).await.unwrap().get(0);
    assert_eq!(
        (stored.len(), &stored[..4]),
        (20, &[0, 0, 0, 1][..]),
        "a new version of the terms has a new number"
    );
    assert_eq!(TermSum::from_bytes(&stored), Some(sum));
    for other in [&stored[4..], &[], &[&[0, 0, 0, 2], &stored[4..]].concat(), &stored[..19]] {
        assert_eq!(TermSum::from_bytes(other), None, "{other:?}");
    }
}
