//! What must hold for any bytes whatsoever given to the parsers of `tlog`: they do not panic, and what they accept they
//! print back unchanged. Fuzz targets run these with bytes from libFuzzer, a test of `tlog` with the seeds.
//!
//! Each function says whether the bytes were accepted. Seeds of binary formats are kept as text: `hex ` and digits, white
//! space between them as one likes.
#![allow(dead_code, reason = "every fuzz target uses one function")]

use tlog::bundle::append_entry;
use tlog::cosignature::TimestampedSignature;
use tlog::note::parse_signature_lines;
use tlog::static_ct::{
    DataTileRecord, DigitallySigned, Extensions, SignedCertificateTimestamp, TimestampedEntry,
    TreeHeadSignature, encode_sct_list, parse_data_tile, parse_sct_list,
};
use tlog::witness::{AddCheckpointRequest, SignSubtreeRequest, parse_size_body, size_body};
use tlog::{
    BundleId, Checkpoint, ConsistencyProof, EntryBundle, Hash, InclusionProof, LeafHash, NodeId, Note,
    Policy, ProofFile, Subtree, SubtreeProof, TileId, TilePath, TilePlan, TreeHead, VerifierKey,
};

/// What a target runs; says whether the bytes were accepted.
pub(crate) type Property = fn(&[u8]) -> bool;

/// The name and function of every target.
pub(crate) const TARGETS: &[(&str, Property)] = &[
    ("tlog_checkpoint", checkpoint),
    ("tlog_cosignature", cosignature),
    ("tlog_data_tile", data_tile),
    ("tlog_entry_bundle", entry_bundle),
    ("tlog_note", note),
    ("tlog_policy", policy),
    ("tlog_proof", proof),
    ("tlog_proof_file", proof_file),
    ("tlog_sct", sct),
    ("tlog_tile_path", tile_path),
    ("tlog_tiles", tiles),
    ("tlog_verifier_key", verifier_key),
    ("tlog_witness", witness),
];

/// The bytes of a seed: hexadecimal after `hex `, else the data itself.
pub(crate) fn decode(data: &[u8]) -> Vec<u8> {
    let Some(text) = data.strip_prefix(b"hex ") else { return data.to_vec() };
    let digits: Vec<u8> =
        text.iter().filter_map(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

pub(crate) fn checkpoint(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(checkpoint) = Checkpoint::parse(text) else { return false };
    assert_eq!(checkpoint.to_string(), text);
    true
}

pub(crate) fn cosignature(data: &[u8]) -> bool {
    let data = &decode(data);
    let mut accepted = false;
    if let Ok(body) = TimestampedSignature::parse(data) {
        assert_eq!(body.to_bytes(), *data);
        accepted = true;
    }
    if let Ok(body) = TreeHeadSignature::parse(data) {
        assert_eq!(body.to_bytes().as_ref(), Ok(data));
        accepted = true;
    }
    accepted
}

pub(crate) fn data_tile(data: &[u8]) -> bool {
    let data = &decode(data);
    let mut accepted = false;
    for width in 1..=3 {
        let Some(id) = BundleId::new(0, width) else { continue };
        if let Ok(records) = parse_data_tile(id, data) {
            let mut printed = Vec::new();
            for record in &records {
                record.write(&mut printed).expect("a parsed record can be written");
                let leaf = record.entry.merkle_tree_leaf().expect("a parsed entry has a leaf");
                assert_eq!(TimestampedEntry::parse_merkle_tree_leaf(&leaf).as_ref(), Ok(&record.entry));
            }
            assert_eq!(printed, *data);
            accepted = true;
        }
    }
    if let Ok(record) = DataTileRecord::parse(data) {
        assert_eq!(record.to_bytes().as_ref(), Ok(data));
    }
    if let Ok(entry) = TimestampedEntry::parse_merkle_tree_leaf(data) {
        assert_eq!(entry.merkle_tree_leaf().as_ref(), Ok(data));
        accepted = true;
    }
    accepted
}

pub(crate) fn entry_bundle(data: &[u8]) -> bool {
    let data = &decode(data);
    let mut accepted = false;
    for width in [1, 2, 3, 255, 256] {
        let Some(id) = BundleId::new(7, width) else { continue };
        if let Ok(bundle) = EntryBundle::parse(id, data) {
            let mut printed = Vec::new();
            bundle
                .entries()
                .iter()
                .for_each(|entry| append_entry(&mut printed, entry).expect("a short entry"));
            assert_eq!(printed, *data);
            let leaves: Vec<Hash> = bundle.leaf_hashes().map(|leaf| leaf.hash()).collect();
            assert_eq!(bundle.verify(&leaves), Ok(()));
            accepted = true;
        }
    }
    accepted
}

pub(crate) fn note(data: &[u8]) -> bool {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(lines) = parse_signature_lines(text)
    {
        assert_eq!(lines.iter().map(ToString::to_string).collect::<String>(), text);
    }
    let Ok(note) = Note::parse(data) else { return false };
    assert_eq!(note.to_bytes(), data);
    assert_eq!(Note::new(note.text()).map(|note| note.text().len()), Ok(note.text().len()));
    true
}

pub(crate) fn policy(data: &[u8]) -> bool {
    let Ok(policy) = Policy::parse(data) else { return false };
    assert!(policy.evaluate(|_| true), "all witnesses together are a quorum");
    assert_eq!(policy.evaluate(|_| false), policy.is_witnessless());
    true
}

/// Numbers and hashes of a proof, in this order: index or start, end or old size, size, then the hashes.
pub(crate) fn proof(data: &[u8]) -> bool {
    let data = &decode(data);
    let (numbers, rest) = data.as_chunks::<8>();
    let [first, second, size, ..] = numbers else { return false };
    let [first, second, size] = [first, second, size].map(|bytes| u64::from_be_bytes(*bytes));
    let hashes = numbers.get(3..).unwrap_or_default().as_flattened();
    let path: Vec<Hash> = hashes.as_chunks::<32>().0.iter().copied().map(Hash).collect();
    let root = path.last().copied().unwrap_or(Hash::digest(rest));
    let head = TreeHead { size, root };
    let old = TreeHead { size: second, root };
    let mut accepted = false;
    let proof = InclusionProof { leaf_index: first, path: path.clone() };
    accepted |= proof.verify(&LeafHash::from_stored(root), &head).is_ok();
    accepted |= ConsistencyProof { path: path.clone() }.verify(&old, &head).is_ok();
    if let Ok(subtree) = Subtree::new(first, second) {
        accepted |= SubtreeProof { path }.verify(subtree, &root, &head).is_ok();
    }
    if let Ok(cover) = Subtree::covering(first, second) {
        assert!(cover.len() <= 2 && cover.iter().all(|part| Subtree::new(part.start(), part.end()).is_ok()));
    }
    accepted
}

pub(crate) fn proof_file(data: &[u8]) -> bool {
    let Ok(file) = ProofFile::parse(data) else { return false };
    assert_eq!(file.to_string().as_bytes(), data);
    true
}

pub(crate) fn sct(data: &[u8]) -> bool {
    let data = &decode(data);
    let mut accepted = false;
    if let Ok(sct) = SignedCertificateTimestamp::parse(data) {
        assert_eq!(sct.to_bytes().as_ref(), Ok(data));
        accepted = true;
    }
    if let Ok(scts) = parse_sct_list(data)
        && !scts.is_empty()
    {
        // SCTs of unknown versions are skipped, so only what was read is compared.
        let printed = encode_sct_list(&scts).expect("a parsed list can be written");
        assert_eq!(parse_sct_list(&printed), Ok(scts));
        accepted = true;
    }
    if let Ok(extensions) = Extensions::parse(data) {
        assert_eq!(extensions.as_bytes(), data);
    }
    if let Ok(signed) = DigitallySigned::parse(data) {
        assert_eq!(signed.to_bytes().as_ref(), Ok(data));
    }
    accepted
}

pub(crate) fn tile_path(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(path) = TilePath::parse(text) else { return false };
    assert_eq!(path.to_string(), text);
    true
}

/// A size and a leaf, then the bytes of the planned tiles one after the other. Random tiles must never verify.
pub(crate) fn tiles(data: &[u8]) -> bool {
    let data = &decode(data);
    let Some((size, rest)) = data.split_first_chunk::<8>() else { return false };
    let Some((index, mut rest)) = rest.split_first_chunk::<8>() else { return false };
    let (size, index) = (u64::from_be_bytes(*size), u64::from_be_bytes(*index));
    let Ok(plan) = TilePlan::new(size, &[NodeId::leaf(index)]) else { return false };
    assert!(plan.tiles().len() <= 64);
    let mut content = Vec::new();
    for tile in plan.tiles() {
        assert_eq!(TileId::in_tree(tile.level(), tile.index(), size), Some(*tile));
        let (bytes, tail) = rest.split_at_checked(tile.byte_len()).unwrap_or((rest, &[]));
        content.push(bytes.to_vec());
        rest = tail;
    }
    let head = TreeHead { size, root: Hash::digest(data) };
    assert!(plan.verify(&head, &content).is_err());
    true
}

pub(crate) fn verifier_key(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(key) = VerifierKey::parse(text) else { return false };
    assert_eq!(key.to_string(), text);
    true
}

pub(crate) fn witness(data: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(request) = AddCheckpointRequest::parse(data) {
        assert_eq!(request.to_bytes(), data);
        let _ = request.evaluate(&TreeHead::EMPTY);
        accepted = true;
    }
    if let Ok(request) = SignSubtreeRequest::parse(data) {
        assert_eq!(request.to_bytes(), data);
        accepted = true;
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(size) = parse_size_body(text)
    {
        assert_eq!(size_body(size), text);
        accepted = true;
    }
    accepted
}
