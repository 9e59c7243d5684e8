//! A machine over rows in memory, that can start anew in every way there is.

use nautilus_machine::{
    Applied, CheckpointError, CheckpointReader, Command, DigestKey, Entry, Event, HistoryScan,
    KeyRange, LogPosition, Machine, MemoryRows, Place, Proposal, RangeRequest, RangeResponse,
    Revision, RowBatch, UnixMillis, read_version,
};

pub(crate) fn digest_key() -> DigestKey {
    DigestKey::new(&[9; 32])
}

/// A machine over rows in memory.
pub(crate) struct Replica {
    pub(crate) machine: Machine,
    pub(crate) rows: MemoryRows,
    batch: RowBatch,
    next: u64,
    /// The pieces of the last checkpoint of the index.
    checkpoint: Vec<Vec<u8>>,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            machine: Machine::new(digest_key()),
            rows: MemoryRows::default(),
            batch: RowBatch::default(),
            next: 0,
            checkpoint: Vec::new(),
        }
    }

    /// Applies into the open batch.
    pub(crate) fn stage(&mut self, time: u64, command: Command) -> Applied {
        let position = LogPosition {
            term: 1,
            index: self.next,
        };
        self.next += 1;
        let entry = Entry {
            time: UnixMillis(time),
            proposal: Proposal::new(command),
        };
        self.machine
            .apply(position, &entry, &self.rows, &mut self.batch)
            .unwrap()
    }

    pub(crate) fn write(&mut self) {
        self.machine.write_counters(&mut self.batch).unwrap();
        self.rows.write(std::mem::take(&mut self.batch));
    }

    pub(crate) fn apply(&mut self, time: u64, command: Command) -> Applied {
        let applied = self.stage(time, command);
        self.write();
        applied
    }

    /// Starts anew from all rows.
    pub(crate) fn restart(&mut self) {
        let digest = self.machine.digest();
        self.machine = Machine::restore(digest_key(), &self.rows).unwrap();
        assert_eq!(
            self.machine.digest(),
            digest,
            "what is restored is what ran"
        );
    }

    pub(crate) fn take_checkpoint(&mut self) {
        self.checkpoint = self.machine.index_checkpoint().unwrap().pieces().collect();
    }

    /// Starts anew from the last checkpoint and the rows after it; whether it was of use.
    pub(crate) fn restart_from_checkpoint(&mut self) -> bool {
        let mut reader = CheckpointReader::default();
        for piece in &self.checkpoint {
            reader.piece(piece).unwrap();
        }
        match reader.finish(digest_key(), &self.rows) {
            Ok(machine) => {
                assert_eq!(machine.digest(), self.machine.digest());
                self.machine = machine;
                true
            }
            Err(CheckpointError::Unusable(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The events of an entry, each with the version before it.
    pub(crate) fn events(&self, applied: &Applied) -> Vec<Event> {
        assert_eq!(applied.events.len(), applied.previous.len());
        let with_previous = |(event, previous): (&Event, &Option<Place>)| {
            assert!(event.prev.is_none(), "it is read by whoever wants it");
            let read = |place| read_version(&self.rows, &event.kv.key, place).unwrap();
            Event {
                prev: previous.map(|place| read(place).unwrap()),
                ..event.clone()
            }
        };
        let all = applied.events.iter().zip(&applied.previous);
        all.map(with_previous).collect()
    }

    pub(crate) fn hash(&self, revision: Option<Revision>) -> nautilus_machine::KvHash {
        let mut scan = self.machine.hash_scan(revision).unwrap();
        while !scan.step(&self.rows, 3).unwrap() {}
        scan.finish()
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> RangeResponse {
        self.machine
            .locate(request)
            .unwrap()
            .read(&self.rows)
            .unwrap()
    }

    pub(crate) fn history(&self, from: Revision) -> Vec<Event> {
        let mut events = Vec::new();
        let mut from = from;
        let everything = KeyRange::prefix("k");
        while from <= self.machine.revision() {
            let current = self.machine.revision();
            let mut scan = HistoryScan::collect(&self.rows, &everything, from, current, 3).unwrap();
            scan.link(&self.machine).unwrap();
            let part = scan.finish(&self.rows).unwrap();
            assert!(part.through >= from, "every call moves on");
            from = part.through + 1;
            events.extend(part.events);
        }
        events
    }
}
