//! Work that may take its time: the copying of a whole state beside the writes that go on.
//!
//! Invariant: it takes what writes leave of processors and disk, and never has to wait for
//! ever: a busy thread beside it has ten times its share, not all.

use std::fs::File;
use std::io::{self, Write};

/// A thread's niceness, of 19: beside a busy thread it has a tenth of a processor, alone a whole one.
const NICENESS: i32 = 10;
/// Bytes written before the disk has to have them: so much stands before the log's next sync.
const SYNC_EVERY_BYTES: usize = 4 << 20;

/// Lets others go before the calling thread, for as long as it lives. Linux has a niceness
/// for each thread, and lets every one become nicer (sched(7)).
pub(crate) fn give_way() {
    // Where that is refused, the work is done all the same.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "a thread in the background keeps its priority");
    }
}

/// A file that reaches the disk while it is written.
pub(crate) struct Paced {
    file: File,
    unsynced_bytes: usize,
}

impl Paced {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            unsynced_bytes: 0,
        }
    }

    /// The file, all of it on the disk.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced_bytes += written;
        if self.unsynced_bytes >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_and_the_others_stay_as_they_are() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let background = std::thread::spawn(move || {
            give_way();
            own()
        });
        let niceness = (before + NICENESS).min(19);
        assert_eq!(background.join().unwrap(), niceness);
        assert_eq!(own(), before);
    }

    #[test]
    fn what_is_synced_between_is_the_same_file() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("file");
        let mut paced = Paced::new(File::create(&path).unwrap());
        let bytes: Vec<u8> = (0..SYNC_EVERY_BYTES + 5).map(|at| at as u8).collect();
        paced.write_all(&bytes).unwrap();
        assert_eq!(paced.unsynced_bytes, 0, "it was written in one piece");
        paced.write_all(b"end").unwrap();
        assert_eq!(paced.unsynced_bytes, 3);
        paced.sync_all().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [&bytes[..], b"end"].concat());
    }
}
