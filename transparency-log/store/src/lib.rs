//! Storage of a transparency log: the entry file, the head, the sequencer.
//!
//! In scope: durable appends in the order of writes of `docs/architecture.md`, publication of signed checkpoints, reads
//! of tiles and entries, refusal to start on rollback and damage. Out of scope: HTTP, who may write, what entries mean.
//!
//! | State | File | Trusted? |
//! |---|---|---|
//! | head: size and root of what is committed | `head/head`, and a second copy elsewhere | yes; changed by compare-and-swap only |
//! | entries | `entries/*.entries` | verified against the head at start, by checksum when read |
//! | signed note | `checkpoint` | compared with the head at start |
//! | cosigned note | `cosigned` | compared with the entries and the policy before it is shown again |
//! | full tiles, positions of records | `tiles/` | derived; authenticated when read |
//! | deduplication keys | `dedup/*.run` | derived; a hit re-reads the entry |
//!
//! Three threads serve a log: the sequencer (the only writer of entries and head), the publisher (signs committed heads
//! only), and the follower (derived files and self-check).
#![forbid(unsafe_code)]

mod certificate;
mod check;
mod checkpoint_keys;
mod clock;
mod cosigning;
mod dedup;
mod dedup_run;
mod disk;
mod edge;
mod entry;
mod entry_file;
mod error;
mod follower;
mod head_file;
mod kind;
mod log;
mod note_file;
mod options;
mod publication;
mod publisher;
mod queue;
mod record;
mod recovery;
mod repair;
mod scan;
mod sequencer;
mod shared;
mod tile_store;

pub use certificate::{CertificateEntry, CertificateRecord, extensions};
pub use check::{CheckReport, Held, check_and_hold, check_log};
pub use checkpoint_keys::{CheckpointKeys, default_origin};
pub use clock::{Clock, SystemClock};
pub use cosigning::Witnessing;
pub use disk::{Access, Disk, DiskFile, OsDisk};
pub use entry::{Ack, Entry, Novelty, Receipt};
pub use entry_file::EntryFileSizes;
pub use error::{Error, Refusal, Result};
pub use head_file::{Head, HeadFile};
pub use kind::{Deduplication, EntryKey, LogKind};
pub use log::{Log, LogParts};
pub use note_file::MAX_NOTE;
pub use options::{LogOptions, Writing};
pub use publication::Publication;
pub use publisher::{CheckpointSigner, Cosigner, Publishing};
pub use queue::{Batching, WriterId};
pub use record::MAX_ENTRY;
pub use repair::{Repair, RepairReport, plan_repair};
pub use shared::MetricsSnapshot;
