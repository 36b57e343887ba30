//! Tiles: the path grammar, what exists at a size, and reading a tree from tiles nobody trusts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use tlog::tile::{parse_tile, perfect_root, tiles_added};
use tlog::tile_reader::NodeCollector;
use tlog::{
    AuthenticatedTiles, BundleId, ConsistencyProof, Error, InclusionProof, MAX_SIZE, MemoryTree, NodeId,
    TileId, TilePath, TilePlan, TileReader, leaf_hash,
};

fn tree(size: u64) -> MemoryTree {
    let mut tree = MemoryTree::new();
    tree.extend((0..size).map(|index| leaf_hash(&index.to_be_bytes())));
    tree
}

fn tile_bytes(tree: &MemoryTree, id: TileId) -> Vec<u8> {
    (0..u64::from(id.width()))
        .flat_map(|item| {
            let node = NodeId { level: id.level() * 8, index: id.index() * 256 + item };
            tree.node(node).unwrap().0
        })
        .collect()
}

/// Serves tiles from memory, optionally one of them with a flipped bit, and remembers what it was told to keep.
struct Source<'a> {
    tree: &'a MemoryTree,
    damage: Option<(TileId, usize)>,
    saved: RefCell<BTreeMap<TileId, Vec<u8>>>,
}

impl<'a> Source<'a> {
    fn new(tree: &'a MemoryTree) -> Self {
        Self { tree, damage: None, saved: RefCell::default() }
    }
}

impl TileReader for Source<'_> {
    type Error = Error;

    fn read(&self, tiles: &[TileId]) -> Result<Vec<Vec<u8>>, Error> {
        Ok(tiles
            .iter()
            .map(|id| {
                let mut bytes = tile_bytes(self.tree, *id);
                if let Some((damaged, at)) = self.damage
                    && damaged == *id
                {
                    bytes[at] ^= 1;
                }
                bytes
            })
            .collect())
    }

    fn save(&self, tiles: &[TileId], data: &[Vec<u8>]) {
        self.saved.borrow_mut().extend(tiles.iter().copied().zip(data.iter().cloned()));
    }
}

#[test]
fn paths_of_the_specification() {
    for (path, id) in [
        ("tile/0/x001/x234/067", TilePath::Hashes(TileId::new(0, 1_234_067, 256).unwrap())),
        ("tile/0/005", TilePath::Hashes(TileId::new(0, 5, 256).unwrap())),
        ("tile/0/273.p/112", TilePath::Hashes(TileId::new(0, 273, 112).unwrap())),
        ("tile/63/000.p/1", TilePath::Hashes(TileId::new(63, 0, 1).unwrap())),
        ("tile/entries/x001/000", TilePath::Entries(BundleId::new(1000, 256).unwrap())),
        ("tile/data/000.p/255", TilePath::Data(BundleId::new(0, 255).unwrap())),
        (
            "tile/1/x009/x223/x372/x036/x854/x775/807",
            TilePath::Hashes(TileId::new(1, MAX_SIZE, 256).unwrap()),
        ),
    ] {
        assert_eq!(TilePath::parse(path), Ok(id), "{path}");
        assert_eq!(id.to_string(), path);
    }
}

#[test]
fn paths_outside_the_grammar_are_refused() {
    for path in [
        "",
        "/",
        "tile",
        "tile/",
        "/tile/0/000",
        "tile/0",
        "tile/0/",
        "tile//000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x1/002",
        "tile/0/X001/002",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/1.p/1",
        "tile/0/000/",
        "tile/0/../0",
        "tile/0/0 0",
        "tile/0/000\0",
        "tile/0/000\n",
        "tile/entries/x001",
        "tile/Entries/000",
        "tile/data/..",
        "tile/0/٠٠٠",
        "tile/0/x001/x002.p/3/004",
        "tile/1/x009/x223/x372/x036/x854/x775/808",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(TilePath::parse(path).is_err(), "{path:?}");
    }
    assert_eq!(TilePath::parse(&"tile/0/".repeat(20)).unwrap_err().code(), "too_large");
}

#[test]
fn widths_of_the_specification() {
    let width = |level, index, size| TileId::in_tree(level, index, size).map(|id| id.width());
    assert_eq!(width(0, 272, 70_000), Some(256));
    assert_eq!(width(0, 273, 70_000), Some(112));
    assert_eq!(width(0, 274, 70_000), None);
    assert_eq!(width(1, 0, 70_000), Some(256));
    assert_eq!(width(1, 1, 70_000), Some(17));
    assert_eq!(width(2, 0, 70_000), Some(1));
    assert_eq!(width(3, 0, 70_000), None);
    assert_eq!((width(0, 0, 256), width(0, 1, 256), width(1, 0, 256)), (Some(256), None, Some(1)));
    assert_eq!(TileId::new(0, 0, 0), None);
    assert_eq!(TileId::new(0, 0, 257), None);
    assert_eq!(TileId::new(64, 0, 1), None);
    assert_eq!(BundleId::in_tree(0, 0), None);
}

#[test]
fn tiles_added_are_exactly_those_that_changed() {
    for (old, new) in [(0, 1), (0, 256), (255, 257), (256, 256), (100, 70_000), (65_535, 65_537), (5, 5)] {
        let mut expected = Vec::new();
        for level in 0..8u8 {
            let mut index = 0;
            while let Some(tile) = TileId::in_tree(level, index, new) {
                if TileId::in_tree(level, index, old) != Some(tile) {
                    expected.push(tile);
                }
                index += 1;
            }
        }
        assert_eq!(tiles_added(old, new), expected, "{old} to {new}");
    }
}

#[test]
fn full_tile_root_is_the_node_above() {
    let tree = tree(512);
    let id = TileId::new(0, 1, 256).unwrap();
    let items = parse_tile(id, &tile_bytes(&tree, id)).unwrap();
    assert_eq!(perfect_root(&items), tree.node(NodeId { level: 8, index: 1 }));
    assert_eq!(perfect_root(&items[..3]), None);
    assert_eq!(parse_tile(id, &[0; 8191]).unwrap_err(), Error::TileMismatch { path: "tile/0/001".into() });
}

#[test]
fn proofs_from_tiles_are_those_from_memory() {
    let tree = tree(70_000);
    for size in [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000] {
        let head = tree.head_at(size).unwrap();
        let source = Source::new(&tree);
        let tiles = AuthenticatedTiles::new(head, &source);
        for index in [0, 1, size / 3, size / 2, size.saturating_sub(257), size - 1] {
            let index = index.min(size - 1);
            let proof = InclusionProof::build(index, size, &tiles).unwrap();
            assert_eq!(proof, InclusionProof::build(index, size, &tree).unwrap());
            let _ = proof.verify(&tree.leaf(index).unwrap(), &head).unwrap();
            let proof = ConsistencyProof::build(index + 1, size, &tiles).unwrap();
            assert_eq!(proof.verify(&tree.head_at(index + 1).unwrap(), &head), Ok(()));
        }
        for (id, bytes) in source.saved.borrow().iter() {
            assert_eq!(TileId::in_tree(id.level(), id.index(), size), Some(*id), "only tiles of this size");
            assert_eq!(bytes, &tile_bytes(&tree, *id));
        }
    }
}

#[test]
fn any_damaged_tile_is_refused_and_nothing_is_kept() {
    let tree = tree(70_000);
    let head = tree.head();
    let nodes = [NodeId::leaf(3), NodeId { level: 5, index: 2000 }, NodeId::leaf(69_999)];
    let plan = TilePlan::new(head.size, &nodes).unwrap();
    for damaged in plan.tiles() {
        for at in [0, damaged.byte_len() / 2, damaged.byte_len() - 1] {
            let source = Source { damage: Some((*damaged, at)), ..Source::new(&tree) };
            let refused = AuthenticatedTiles::new(head, &source).fetch(&plan).unwrap_err();
            if damaged.is_full() {
                // The damage is found in the tile itself or, one level up, in the item that vouches for another.
                assert_eq!(refused.code(), "tile_mismatch", "{damaged}");
            } else {
                assert_eq!(refused, Error::RootMismatch { head }, "{damaged}");
            }
            assert!(source.saved.borrow().is_empty());
        }
    }
}

#[test]
fn a_plan_needs_every_tile_at_its_exact_width() {
    let tree = tree(1000);
    let head = tree.head();
    let plan = TilePlan::new(1000, &[NodeId::leaf(0)]).unwrap();
    let data: Vec<Vec<u8>> = plan.tiles().iter().map(|id| tile_bytes(&tree, *id)).collect();
    assert!(plan.verify(&head, &data).is_ok());
    let code = |data: &[Vec<u8>]| plan.verify(&head, data).unwrap_err().code();
    assert_eq!(code(&data[1..]), "tile_mismatch");
    for place in 0..data.len() {
        let mut longer = data.clone();
        longer[place].extend_from_slice(&[0; 32]);
        assert_eq!(code(&longer), "tile_mismatch");
        let mut shorter = data.clone();
        shorter[place].pop();
        assert_eq!(code(&shorter), "tile_mismatch");
    }
    let other = tree.head_at(999).unwrap();
    assert_eq!(plan.verify(&other, &data).unwrap_err(), Error::RootMismatch { head: other });
    let missing = Error::NodeMissing { level: 0, index: 1000 };
    assert_eq!(TilePlan::new(1000, &[NodeId::leaf(1000)]).unwrap_err(), missing);
    let missing = Error::NodeMissing { level: 3, index: 125 };
    assert_eq!(TilePlan::new(1000, &[NodeId { level: 3, index: 125 }]).unwrap_err(), missing);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn paths_print_what_they_parse(level in 0u8..64, index in 0..=MAX_SIZE, width in 1u16..=256) {
        let tile = TilePath::Hashes(TileId::new(level, index, width).unwrap());
        prop_assert_eq!(TilePath::parse(&tile.to_string()), Ok(tile));
        let bundle = TilePath::Entries(BundleId::new(index, width).unwrap());
        prop_assert_eq!(TilePath::parse(&bundle.to_string()), Ok(bundle));
    }

    #[test]
    fn accepted_paths_are_canonical(path in "tile/(data|entries|[0-9]{1,2})(/x?[0-9]{2,4}){1,4}(\\.p/[0-9]{1,3})?") {
        if let Ok(parsed) = TilePath::parse(&path) {
            prop_assert_eq!(parsed.to_string(), path);
        }
    }

    #[test]
    fn planned_nodes_suffice_for_any_proof(size in 1u64..3000, pick in any::<prop::sample::Index>()) {
        let tree = tree(size);
        let index = pick.index(size as usize) as u64;
        let collector = NodeCollector::default();
        let _ = InclusionProof::build(index, size, &collector).unwrap();
        let plan = TilePlan::new(size, &collector.into_nodes()).unwrap();
        let data: Vec<Vec<u8>> = plan.tiles().iter().map(|id| tile_bytes(&tree, *id)).collect();
        let tiles = plan.verify(&tree.head(), &data).unwrap();
        let proof = InclusionProof::build(index, size, &tiles).unwrap();
        prop_assert!(proof.verify(&tree.leaf(index).unwrap(), &tree.head()).is_ok());
    }

    #[test]
    fn plans_for_huge_trees_are_small(size in 1..=MAX_SIZE, pick in any::<u64>()) {
        let plan = TilePlan::new(size, &[NodeId::leaf(pick % size)]).unwrap();
        prop_assert!(plan.tiles().len() <= 16);
        for tile in plan.tiles() {
            prop_assert_eq!(TileId::in_tree(tile.level(), tile.index(), size), Some(*tile));
        }
    }
}
