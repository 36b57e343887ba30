//! Transparency-log maths and formats: RFC 6962 trees and the C2SP family of log specifications.
//!
//! Everything here is a pure function of its arguments: no sockets, files, clock or random numbers. The crate
//! is `no_std` with `alloc` and holds no signature algorithm: callers pass a [`SignatureVerifier`].
//!
//! One module per specification or noun of it:
//!
//! | module | in scope |
//! |---|---|
//! | [`hash`], [`node`], [`compact`] | SHA-256 tree hashing, perfect subtrees, the right edge of a growing tree |
//! | [`inclusion`], [`consistency`], [`subtree`] | proofs: exact length and index checks, building, verifying |
//! | [`tile`], [`tile_reader`], [`bundle`] | hash tiles and their path grammar, authenticated reading, entry bundles |
//! | [`note`], [`checkpoint`], [`cosignature`] | signed notes, log heads, what witnesses sign |
//! | [`witness`], [`proof_file`], [`policy`] | bodies of the witness protocol, `.tlog-proof` and policy files |
//! | [`static_ct`] | certificate logs: RFC 6962 leaves, SCTs, data tiles, tree head signatures |
//! | [`signature`] | the trait through which callers supply cryptography |
//!
//! Three types are easily confused: a [`struct@Hash`] is any 32 bytes of SHA-256, a [`LeafHash`] is the hash of an entry
//! and the only thing an inclusion proof starts from, a [`TreeHead`] is a size with its root and is as trustworthy
//! as the place it came from.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
pub mod checkpoint;
pub mod compact;
pub mod consistency;
pub mod cosignature;
mod decimal;
pub mod error;
pub mod hash;
pub mod inclusion;
pub mod node;
pub mod note;
mod path;
pub mod policy;
pub mod proof_file;
pub mod signature;
pub mod static_ct;
pub mod subtree;
pub mod tile;
pub mod tile_reader;
mod wire;
pub mod witness;

pub use bundle::EntryBundle;
pub use checkpoint::{Checkpoint, VerifiedCheckpoint};
pub use compact::CompactRange;
pub use consistency::ConsistencyProof;
pub use error::Error;
pub use hash::{EMPTY_ROOT, HASH_SIZE, Hash, LeafHash, MAX_SIZE, TreeHead, leaf_hash, node_hash};
pub use inclusion::{InclusionProof, VerifiedInclusion};
pub use node::{MemoryTree, NodeId, NodeReader};
pub use note::{KeyId, Note, NoteSignature, NoteSigner, VerifierKey};
pub use path::MAX_PROOF_HASHES;
pub use policy::Policy;
pub use proof_file::ProofFile;
pub use signature::{Algorithm, InvalidSignature, SignatureVerifier};
pub use subtree::{Subtree, SubtreeProof};
pub use tile::{BundleId, TileId, TilePath};
pub use tile_reader::{AuthenticatedTiles, TilePlan, TileReader, VerifiedTiles};
