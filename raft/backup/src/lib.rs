//! Backups of the key space: sealed archives, and what goes into and comes out of them.
//!
//! An [archive](ArchiveWriter) holds the key space at one revision: every living key
//! with its revisions, version and lease, and the leases. It is sealed inside a member
//! to the quorum or to operators' public keys, and signed by the quorum, so that
//! whoever carries it can neither read nor forge it, and can check that it is whole.
//!
//! Knows no consensus and no disk layout: it reads through [`nautilus_machine::Kv`],
//! and writes to whatever it is given.
//!
//! Invariants
//! - The quorum's own identity ([`is_identity`]) is never in an archive and never
//!   taken from one.
//! - Nothing of an archive is used before it authenticated.

mod destination;
mod error;
mod etcd;
mod face;
mod frames;
mod header;
mod identity;
mod keys;
mod load;
mod maintenance;
mod reader;
mod record;
mod schedule;
mod source;
mod stream;
mod writer;

pub use destination::{Destination, S3Credentials, S3Settings, Stored, archive_name};
pub use error::BackupError;
pub use etcd::{EtcdExport, EtcdSnapshot, Integrity};
pub use face::{
    REVISION_HEADER, SIGNER_HEADER, SNAPSHOT_PATH, STREAMS_MAX, SnapshotRequest, backup_router,
};
pub use header::{ARCHIVE_FORMAT, Header, SealedTo};
pub use identity::{IDENTITY_ROWS, is_identity};
pub use keys::{Identity, Opener, QuorumKey, Recipient, SignerKey, Signing};
pub use load::{Loaded, load};
pub use maintenance::ArchiveMaintenance;
pub use reader::{Archive, Records, Verified};
pub use record::{ContentHash, Lease, Record, Summary};
pub use schedule::{Kept, Plan, run_schedule};
pub use source::{Cut, LeaseTable, lease_table, write_archive};
pub use stream::{ArchiveStream, Audience, QuorumKeySource, Source};
pub use writer::{ArchiveInfo, ArchiveWriter, Seal};
