//! What a face sees of the chain: the truth, or what its fault makes of it.

use std::sync::Arc;

use sui_sdk_types::{
    Address, Digest, Object, ObjectIn, Owner, ValidatorAggregatedSignature, ValidatorCommittee,
};

use crate::faults::{Answer, Lies, Link};
use crate::layout;
use crate::ledger::{Checkpoint, Executed, Ledger, Live};
use crate::value::{MoveStruct, MoveValue, named_digest};

/// What a liar says a stake is, in MIST.
const RICH: u64 = 1_000_000_000_000_000;
/// What a liar says a token's end is, in Unix milliseconds (the year 2100).
const LATE_MS: u64 = 4_102_444_800_000;
/// How a stake that a liar made up is known again.
const FORGED_STAKE: [u8; 4] = *b"fake";

/// Where an event is; in the chain's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub checkpoint: u64,
    pub transaction: u64,
    pub event: u64,
}

/// In which direction events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// The chain as one face tells it.
pub(crate) struct View<'a> {
    objects: &'a Ledger,
    effects: &'a Ledger,
    contents: &'a Ledger,
    summaries: &'a Ledger,
    signatures: &'a Ledger,
    /// The last checkpoint that it has heard of.
    height: u64,
    lies: Option<&'a Lies>,
}

impl<'a> View<'a> {
    pub(crate) fn new(truth: &'a Ledger, fork: &'a Ledger, answer: &'a Answer) -> Self {
        let until = match answer {
            Answer::Forked(link) => Some(*link),
            _ => None,
        };
        let from = |link: Link| match until {
            Some(last) if link <= last => fork,
            _ => truth,
        };
        let signatures = from(Link::Everything);
        let latest = signatures.latest().summary.sequence_number;
        Self {
            objects: from(Link::Objects),
            effects: from(Link::Effects),
            contents: from(Link::Contents),
            summaries: from(Link::Summaries),
            signatures,
            height: match answer {
                Answer::Lagging(behind) => latest.saturating_sub(*behind),
                _ => latest,
            },
            lies: match answer {
                Answer::Wrong(lies) => Some(lies),
                _ => None,
            },
        }
    }

    /// The number of the last checkpoint.
    pub(crate) fn height(&self) -> u64 {
        self.height
    }

    /// The first checkpoint's digest.
    pub(crate) fn chain_id(&self) -> Digest {
        let first = self.signatures.checkpoint(0);
        first.unwrap_or(self.signatures.latest()).digest
    }

    /// The object as of the last checkpoint.
    pub(crate) fn object(&self, id: Address) -> Option<Live> {
        let state = self.state(id);
        let live = state.and_then(|(_, live)| live);
        match self.lies {
            Some(lies) => self.lie(id, live, lies),
            None => live.cloned(),
        }
    }

    /// The object at that version.
    pub(crate) fn object_at(&self, id: Address, version: u64) -> Option<Live> {
        let mut states = self.objects.states(id).iter();
        let state = states.find(|it| it.version == version && it.checkpoint <= self.height)?;
        let live = state.live.as_ref();
        match self.lies {
            Some(lies) => self.lie(id, live, lies),
            None => live.cloned(),
        }
    }

    /// The version at which the object was deleted, if it was.
    pub(crate) fn deleted(&self, id: Address) -> Option<u64> {
        let (version, live) = self.state(id)?;
        live.is_none().then_some(version)
    }

    /// The dynamic fields of `parent`, in the order of their ids.
    pub(crate) fn children(&self, parent: Address) -> impl Iterator<Item = Address> {
        let ids = self.objects.children(parent);
        ids.filter(|id| self.state(*id).is_some())
    }

    /// The objects of `owner`, in the order of their ids.
    pub(crate) fn owned(&self, owner: Address) -> impl Iterator<Item = Address> {
        let owner = Owner::Address(owner);
        self.objects.ids().filter(move |id| {
            let live = self.state(*id).and_then(|(_, live)| live);
            live.is_some_and(|live| *live.object.owner() == owner)
        })
    }

    pub(crate) fn transaction(&self, digest: &Digest) -> Option<&'a Arc<Executed>> {
        let executed = self.effects.transaction(digest)?;
        (executed.checkpoint <= self.height).then_some(executed)
    }

    /// The events after (in that order) a place: their transactions, and where in them they are.
    pub(crate) fn events(
        &self,
        order: Order,
        after: Option<Place>,
    ) -> Box<dyn Iterator<Item = (&'a Executed, usize)> + '_> {
        let checkpoint = after.map(|after| after.checkpoint);
        let ascending = move |it: &(&Executed, usize)| after.is_none_or(|after| place(it) > after);
        let descending = move |it: &(&Executed, usize)| after.is_none_or(|after| place(it) < after);
        match order {
            Order::Ascending => {
                let numbers = checkpoint.unwrap_or(0)..=self.height;
                let events = numbers.flat_map(|number| self.events_of(number));
                Box::new(events.filter(ascending))
            }
            Order::Descending => {
                let numbers = 0..=checkpoint.unwrap_or(self.height).min(self.height);
                let events = numbers
                    .rev()
                    .flat_map(|number| self.events_of(number).into_iter().rev());
                Box::new(events.filter(descending))
            }
        }
    }

    fn events_of(&self, checkpoint: u64) -> Vec<(&'a Executed, usize)> {
        let sealed = self.contents.checkpoint(checkpoint);
        let digests = sealed.map_or(&[][..], |it| it.transactions.as_slice());
        let executed = digests.iter().filter_map(|digest| self.transaction(digest));
        executed
            .flat_map(|it| (0..it.events.len()).map(move |event| (it.as_ref(), event)))
            .collect()
    }

    pub(crate) fn checkpoint(&self, sequence_number: u64) -> Option<&'a Arc<Checkpoint>> {
        if sequence_number > self.height {
            return None;
        }
        self.summaries.checkpoint(sequence_number)
    }

    pub(crate) fn checkpoint_by_digest(&self, digest: &Digest) -> Option<&'a Arc<Checkpoint>> {
        let checkpoint = self.summaries.checkpoint_by_digest(digest)?;
        (checkpoint.summary.sequence_number <= self.height).then_some(checkpoint)
    }

    /// The checkpoint whose contents it tells of under that number.
    pub(crate) fn contents_at(&self, sequence_number: u64) -> Option<&'a Arc<Checkpoint>> {
        self.contents.checkpoint(sequence_number)
    }

    pub(crate) fn signature(
        &self,
        checkpoint: &Checkpoint,
    ) -> Option<ValidatorAggregatedSignature> {
        let number = checkpoint.summary.sequence_number;
        let signed = self.signatures.checkpoint(number)?;
        self.signatures.signature(signed)
    }

    pub(crate) fn committee(&self, epoch: u64) -> Option<&'a ValidatorCommittee> {
        self.signatures.committee(epoch)
    }

    /// The first and, once it has ended, the last checkpoint of an epoch.
    pub(crate) fn epoch_bounds(&self, epoch: u64) -> Option<(u64, Option<u64>)> {
        let numbers = 0..=self.height;
        let mut checkpoints = numbers.filter_map(|number| self.checkpoint(number));
        let first = checkpoints.find(|it| it.summary.epoch == epoch)?;
        let start = first.summary.sequence_number;
        let mut later = (start..=self.height).filter_map(|number| self.checkpoint(number));
        let last = later.find(|it| it.summary.end_of_epoch_data.is_some());
        Some((start, last.map(|it| it.summary.sequence_number)))
    }

    /// When a checkpoint was made, in Unix milliseconds.
    pub(crate) fn timestamp_ms(&self, checkpoint: u64) -> u64 {
        let checkpoint = self.summaries.checkpoint(checkpoint);
        checkpoint.map_or(0, |it| it.summary.timestamp_ms)
    }

    /// Version, and the object unless it is deleted, as of the last checkpoint.
    fn state(&self, id: Address) -> Option<(u64, Option<&'a Live>)> {
        let states = self.objects.states(id).iter().rev();
        let mut known = states.filter(|state| state.checkpoint <= self.height);
        let state = known.next()?;
        Some((state.version, state.live.as_ref()))
    }

    /// What a liar says of an object, genuine in form.
    fn lie(&self, id: Address, live: Option<&Live>, lies: &Lies) -> Option<Live> {
        let (record, owner, version, transaction) = match live {
            Some(live) => (
                embellished(live.record.clone()),
                *live.object.owner(),
                live.object.version(),
                live.object.previous_transaction(),
            ),
            None => {
                let (record, owner) = forged(id, lies)?;
                let transactions = &self.effects.latest().transactions;
                (record, owner, 1, *transactions.first()?)
            }
        };
        let data = record.object_data(version).ok()?;
        let object = Object::new(data, owner, transaction, 0);
        Some(Live { object, record })
    }
}

fn place((executed, event): &(&Executed, usize)) -> Place {
    Place {
        checkpoint: executed.checkpoint,
        transaction: executed.place,
        event: *event as u64,
    }
}

/// The same, as good as can be.
fn embellished(mut record: MoveStruct) -> MoveStruct {
    record.set("status", MoveValue::String("active".to_owned()));
    record.set("stake_amount", MoveValue::U64(RICH));
    record.set("expires_at", MoveValue::U64(LATE_MS));
    if let Some(MoveValue::Struct(value)) = record.get("value").cloned() {
        record.set("value", MoveValue::Struct(embellished(value)));
    }
    record
}

/// Something that does not exist.
fn forged(id: Address, lies: &Lies) -> Option<(MoveStruct, Owner)> {
    let mut workers = lies.workers.iter();
    if let Some(worker) = workers.find(|it| layout::worker_field(&it.node_id) == id) {
        let owner = Owner::Object(layout::workers_table());
        let entry =
            layout::worker_entry(&worker.node_id, worker.owner, RICH, &worker.seal_token, 0);
        return Some((entry, owner));
    }
    let owner = lies.token_owner.unwrap_or_else(layout::admin);
    let record = if id.as_bytes().starts_with(&FORGED_STAKE) {
        layout::stake_struct(id, owner, RICH, "active")
    } else {
        let mut stake = named_digest(&format!("forged stake of {id}")).into_inner();
        stake[..FORGED_STAKE.len()].copy_from_slice(&FORGED_STAKE);
        layout::token_struct(id, owner, Address::new(stake), LATE_MS)
    };
    Some((record, Owner::Address(owner)))
}

/// The version of an object before a transaction, if it was there.
pub(crate) fn input_version(before: &ObjectIn) -> Option<u64> {
    match before {
        ObjectIn::Exist { version, .. } => Some(*version),
        _ => None,
    }
}
