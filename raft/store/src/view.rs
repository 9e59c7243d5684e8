//! A consistent view of the store, to be written to a snapshot file.
//!
//! Taking a view is cheap and is done between two applies; writing it blocks for as
//! long as the state is large, and belongs in a blocking thread.
//!
//! Invariant: the file holds exactly the state of the moment the view was taken, and
//! none of the shell's notes but the header given here.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use nautilus_machine::{Digest, LogPosition, MACHINE_ROW, Revision, RowError, Rows, Space};

use crate::background::Paced;
use crate::engine::EngineView;
use crate::error::StoreError;
use crate::files;
use crate::keys::Keyring;
use crate::snapshot::{SNAPSHOT_HEADER_BYTES_MAX, SnapshotInfo, SnapshotWriter};

/// The state at one moment.
pub struct View {
    pub(crate) rows: EngineView,
    pub(crate) keyring: Keyring,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) revision: Revision,
    pub(crate) digest: Digest,
}

impl View {
    /// The last entry in it.
    pub fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    /// Its revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Writes a snapshot file, durably. What was at `path` is lost; a file left by a
    /// failure is not whole and is refused when read.
    pub fn write_to(self, path: &Path, header: Bytes) -> Result<SnapshotInfo, StoreError> {
        let file = File::create(path).map_err(StoreError::io("create", path))?;
        let (file, info) = self.write_named(Paced::new(file), header, path)?;
        file.sync_all()
            .and_then(|()| files::sync_parent(path))
            .map_err(StoreError::io("sync", path))?;
        Ok(info)
    }

    /// Writes a snapshot to any sink.
    pub fn write<W: Write + Send + 'static>(
        self,
        sink: W,
        header: Bytes,
    ) -> Result<SnapshotInfo, StoreError> {
        self.write_named(sink, header, Path::new("the snapshot's stream"))
            .map(|(_, info)| info)
    }

    fn write_named<W: Write + Send + 'static>(
        self,
        sink: W,
        header: Bytes,
        path: &Path,
    ) -> Result<(W, SnapshotInfo), StoreError> {
        if header.len() > SNAPSHOT_HEADER_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "snapshot header",
                size_bytes: header.len(),
                limit_bytes: SNAPSHOT_HEADER_BYTES_MAX,
            });
        }
        let Self {
            rows,
            keyring,
            revision,
            digest,
            ..
        } = self;
        let path = path.to_owned();
        let written = rows.read(move |rows| {
            let writer = SnapshotWriter::begin(sink, &keyring, &header);
            let mut writer = writer.map_err(StoreError::io("write", &path))?;
            copy_rows(rows, &mut writer, &path)?;
            writer.finish().map_err(StoreError::io("write", &path))
        })?;
        let (sink, rows, size_bytes) = written?;
        Ok((
            sink,
            SnapshotInfo {
                size_bytes,
                rows,
                revision,
                digest,
            },
        ))
    }
}

fn copy_rows<W: Write + Send + 'static>(
    rows: &dyn Rows,
    writer: &mut SnapshotWriter<W>,
    path: &Path,
) -> Result<(), StoreError> {
    let mut failure = None;
    for space in [Space::Revision, Space::Lease, Space::Ledger] {
        rows.scan(
            space,
            &[],
            None,
            &mut |key, value| match writer.row(space, key, &value) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            },
        )?;
    }
    if let Some(error) = failure {
        return Err(StoreError::io("write", path)(error));
    }
    let counters = rows
        .get(Space::Meta, MACHINE_ROW)?
        .ok_or_else(|| RowError {
            space: Space::Meta,
            key: "machine".to_owned(),
            reason: "the machine's own row is missing".to_owned(),
        })?;
    writer
        .row(Space::Meta, MACHINE_ROW, &counters)
        .map_err(StoreError::io("write", path))
}
