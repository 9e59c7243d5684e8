//! Writing an etcd snapshot, for `etcdutl snapshot restore`.
//!
//! etcd keeps versions in the order of revisions, archives keep them in the order of
//! keys: rows go through a file beside the target, of which memory knows the places.
//! Both files hold plaintext.
//!
//! Invariant: the target has its name only when it is whole.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use nautilus_machine::{KeyValue, LeaseId, Revision};
use prost::Message as _;

use super::bolt::BoltWriter;
use super::{
    FINISHED_COMPACT, KEY_BUCKET, KeyValueMessage, LEASE_BUCKET, LeaseMessage, META_BUCKET,
    SCHEDULED_COMPACT, revision_key,
};
use crate::error::BackupError;
use crate::record::Record;

/// The buckets that etcd looks for and that have nothing of the key space.
const OTHER_BUCKETS: [&[u8]; 7] = [
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"members",
    b"members_removed",
];
const READ_BYTES: usize = 1 << 20;

/// An etcd snapshot in the making.
pub struct EtcdExport {
    path: PathBuf,
    rows: BufWriter<File>,
    rows_path: PathBuf,
    rows_bytes: u64,
    places: Vec<(Revision, u64, u32)>,
    leases: Vec<(LeaseId, u64)>,
}

impl EtcdExport {
    /// Begins a snapshot that is to be `path`.
    pub fn begin(path: &Path) -> Result<Self, BackupError> {
        let rows_path = beside(path, ".rows");
        let rows = create(&rows_path)?;
        Ok(Self {
            path: path.to_owned(),
            rows: BufWriter::new(rows),
            rows_path,
            rows_bytes: 0,
            places: Vec::new(),
            leases: Vec::new(),
        })
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) -> Result<(), BackupError> {
        match record {
            Record::Lease(lease) => self.leases.push((lease.id, lease.ttl_ms)),
            Record::Key(kv) => {
                let row = message(kv).encode_to_vec();
                let written = self.rows.write_all(&row);
                written.map_err(BackupError::io("write the rows"))?;
                let bytes = u32::try_from(row.len());
                let bytes = bytes.map_err(|_| BackupError::Content("a value too large".into()))?;
                self.places.push((kv.mod_revision, self.rows_bytes, bytes));
                self.rows_bytes += row.len() as u64;
            }
        }
        Ok(())
    }

    /// Writes the snapshot of a key space that stands at `revision`; gives its length.
    pub fn finish(mut self, revision: Revision) -> Result<u64, BackupError> {
        let flushed = self.rows.flush();
        flushed.map_err(BackupError::io("write the rows"))?;
        self.places.sort_unstable();
        self.leases.sort_unstable();
        let partial = beside(&self.path, ".part");
        let written = self.write(&partial, revision);
        // Plaintext that nobody needs any more.
        let _ = std::fs::remove_file(&self.rows_path);
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        let length = written?;
        let renamed = std::fs::rename(&partial, &self.path);
        renamed.map_err(BackupError::io("name the snapshot"))?;
        Ok(length)
    }

    fn write(&self, partial: &Path, revision: Revision) -> Result<u64, BackupError> {
        let io = BackupError::io;
        let mut file = create(partial)?;
        // Room for the first pages, written last.
        let moved = file.seek(SeekFrom::Start(3 * 4_096));
        moved.map_err(io("write the snapshot"))?;
        let mut writer = BoltWriter::begin(BufWriter::with_capacity(READ_BYTES, file));
        let mut places = self.places.iter();
        let (mut last, mut sub) = (0, 0);
        writer.bucket(KEY_BUCKET, &mut || {
            let Some(&(main, at, bytes)) = places.next() else {
                return Ok(None);
            };
            sub = if main == last { sub + 1 } else { 0 };
            last = main;
            let mut row = vec![0; bytes as usize];
            let read = self.rows.get_ref().read_exact_at(&mut row, at);
            read.map_err(BackupError::io("read the rows"))?;
            Ok(Some((revision_key(main, sub).to_vec(), row)))
        })?;
        let mut leases = self.leases.iter();
        writer.bucket(LEASE_BUCKET, &mut || {
            Ok(leases.next().map(|(id, ttl_ms)| {
                let message = LeaseMessage {
                    id: id.0,
                    ttl_seconds: i64::try_from(ttl_ms.div_ceil(1000)).unwrap_or(i64::MAX),
                };
                (id.0.to_be_bytes().to_vec(), message.encode_to_vec())
            }))
        })?;
        let compacted = revision_key(revision, 0).to_vec();
        let meta = [
            (b"consistent_index".to_vec(), 1u64.to_be_bytes().to_vec()),
            (FINISHED_COMPACT.to_vec(), compacted.clone()),
            (SCHEDULED_COMPACT.to_vec(), compacted),
            (b"term".to_vec(), 1u64.to_be_bytes().to_vec()),
        ];
        let mut meta = meta.into_iter();
        writer.bucket(META_BUCKET, &mut || Ok(meta.next()))?;
        for name in OTHER_BUCKETS {
            writer.bucket(name, &mut || Ok(None))?;
        }
        let (sink, first) = writer.finish()?;
        let file = sink
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error);
        let file = file.map_err(io("write the snapshot"))?;
        let written = file.write_all_at(&first, 0);
        written.map_err(io("write the snapshot"))?;
        append_hash(file)
    }
}

fn append_hash(mut file: File) -> Result<u64, BackupError> {
    let io = BackupError::io;
    file.rewind().map_err(io("read the snapshot"))?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; READ_BYTES];
    let mut length = 0;
    loop {
        let read = file.read(&mut buffer).map_err(io("read the snapshot"))?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
        length += read as u64;
    }
    let hash = context.finish();
    let written = file.write_all(hash.as_ref()).and_then(|()| file.sync_all());
    written.map_err(io("write the snapshot"))?;
    Ok(length + hash.as_ref().len() as u64)
}

fn message(kv: &KeyValue) -> KeyValueMessage {
    // Revisions and versions never come near the sign.
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    KeyValueMessage {
        key: kv.key.clone(),
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        value: kv.value.clone(),
        lease: kv.lease.map_or(0, |lease| lease.0),
    }
}

fn create(path: &Path) -> Result<File, BackupError> {
    let created = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path);
    created.map_err(BackupError::io("create the snapshot"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
