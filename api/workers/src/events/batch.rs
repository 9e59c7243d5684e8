//! Events on their way into one transaction: the rows they touch, read once, changed in
//! memory in the events' order, and written back together with the ledger.
//!
//! Invariants
//! - Every row that is written is compared with what was read.
//! - A row that can't be read costs its own event, not the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use nautilus_machine::{
    Compare, KeyRange, KeyValue, Kv, Operation, Put, RangeError, RangeRequest, Revision, Txn,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::effects::Effect;
use super::ledger::{LEDGER_KEY, Ledger};
use super::limits::{REQUESTS_LIMIT, REQUESTS_PER_REQUESTER};
use super::nodes::ChainNode;
use super::outcome;
use super::requests::RequestRow;
use crate::chain::ChainEvent;
use crate::lifecycle::Stake;
use crate::rows_store::{StoreError, Stored, Writing};
use crate::verdicts::Eviction;
use crate::wire::Malformed;

/// A row as it was read, and as it is to be.
pub(crate) struct Row<T> {
    /// 0: there is none.
    pub(crate) revision: Revision,
    before: Option<T>,
    pub(crate) value: Option<T>,
}

impl<T: DeserializeOwned + Clone> Row<T> {
    /// Reads a row of this node's state.
    pub(crate) fn read(kv: &dyn Kv, key: &str) -> Result<Self, StoreError> {
        let request = RangeRequest::newest(KeyRange::single(key.to_owned()));
        let found = kv.range(&request)?.kvs.into_iter().next();
        let value: Option<T> = found.as_ref().map(decode).transpose()?;
        Ok(Self {
            revision: found.as_ref().map_or(0, |kv| kv.mod_revision),
            before: value.clone(),
            value,
        })
    }
}

impl<T: PartialEq + Serialize> Row<T> {
    /// Writes it back where it has changed.
    fn write(&self, txn: &mut Txn, key: String) {
        if let Some(value) = &self.value
            && self.value != self.before
        {
            put(txn, key, self.revision, value);
        }
    }
}

/// Reads a row's JSON.
pub(crate) fn decode<T: DeserializeOwned>(kv: &KeyValue) -> Result<T, StoreError> {
    serde_json::from_slice(&kv.value).map_err(|error| {
        StoreError::Row(crate::row::RowUnreadable {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            reason: error.to_string(),
        })
    })
}

/// A row's JSON. Strings, numbers and enums: nothing that JSON can refuse.
pub(crate) fn encode(row: &impl Serialize) -> Bytes {
    serde_json::to_vec(row).map(Bytes::from).unwrap_or_default()
}

/// Events being applied.
pub(crate) struct Batch<'a> {
    kv: &'a dyn Kv,
    ledger_revision: Revision,
    ledger: Ledger,
    nodes: BTreeMap<String, Row<ChainNode>>,
    requests: BTreeMap<String, Row<RequestRow>>,
    kept_requests: u64,
    /// The same by requester, of those that ask for more.
    kept_of: BTreeMap<String, u64>,
    evictions: BTreeMap<String, Eviction>,
}

impl<'a> Batch<'a> {
    /// Begins with the ledger as it will be, read at that revision.
    pub(crate) fn new(
        kv: &'a dyn Kv,
        ledger: Ledger,
        ledger_revision: Revision,
    ) -> Result<Self, RangeError> {
        let count = RangeRequest {
            count_only: true,
            ..RangeRequest::newest(RequestRow::all())
        };
        Ok(Self {
            kept_requests: kv.range(&count)?.count,
            kv,
            ledger_revision,
            ledger,
            nodes: BTreeMap::new(),
            requests: BTreeMap::new(),
            kept_of: BTreeMap::new(),
            evictions: BTreeMap::new(),
        })
    }

    /// Takes an event whose turn has come; what came of it, in a word for metrics.
    pub(crate) fn take(&mut self, event: &ChainEvent) -> Result<&'static str, RangeError> {
        let took = match Effect::of(event) {
            Ok(Some(effect)) => self.effect(event, &effect),
            Ok(None) => Ok(outcome::IGNORED),
            Err(malformed) => Err(Unfit::Malformed(malformed)),
        };
        match took {
            Ok(outcome) => Ok(outcome),
            Err(Unfit::Malformed(malformed)) => {
                tracing::warn!(id = ?event.id, event = event.name, %malformed, "an event of the chain is passed over");
                Ok(outcome::MALFORMED)
            }
            Err(Unfit::Store(StoreError::Range(error))) => Err(error),
            Err(Unfit::Store(error)) => {
                tracing::error!(id = ?event.id, event = event.name, %error, "an event of the chain is passed over");
                Ok(outcome::FAILED)
            }
        }
    }

    /// Lets a node lose its stake ahead of the event's turn; false when that has no place.
    pub(crate) fn lose_ahead(
        &mut self,
        event: &ChainEvent,
        node_id: &str,
        stake: Stake,
    ) -> Result<bool, StoreError> {
        let Some(checkpoint) = event.checkpoint else {
            return Ok(false);
        };
        let lost = self.node(node_id)?.lose_ahead(&event.id, checkpoint, stake);
        if lost {
            self.evictions.insert(node_id.to_owned(), why(stake));
        }
        Ok(lost)
    }

    fn effect(&mut self, event: &ChainEvent, effect: &Effect) -> Result<&'static str, Unfit> {
        match effect {
            Effect::Registered { node_id, .. }
            | Effect::StatusChanged { node_id, .. }
            | Effect::Deposited { node_id, .. }
            | Effect::JoinTokenSet { node_id, .. } => {
                let node = self.node(node_id)?;
                node.take(event, effect)?;
                let why = why(node.stake());
                self.evictions.insert(node_id.clone(), why);
            }
            Effect::Scheduled(call) => {
                let sequence = self.ledger.requests;
                if self.request(&call.request_id)?.is_some() {
                    return Ok(outcome::REPEATED_ID);
                }
                let kept_of = self.kept_of(&call.requester)?;
                if self.kept_requests >= REQUESTS_LIMIT || kept_of >= REQUESTS_PER_REQUESTER {
                    tracing::warn!(
                        request_id = call.request_id,
                        requester = call.requester,
                        kept = self.kept_requests,
                        kept_of,
                        "an API request of the chain is refused: too many are kept"
                    );
                    return Ok(outcome::FULL);
                }
                self.kept_of.insert(call.requester.clone(), kept_of + 1);
                let row = RequestRow::scheduled(
                    (**call).clone(),
                    event.id.clone(),
                    event.timestamp_ms,
                    sequence,
                );
                *self.request(&call.request_id)? = Some(row);
                self.kept_requests += 1;
                self.ledger.requests += 1;
            }
            Effect::Reported { request_id, report } => match self.request(request_id)? {
                Some(row) => row.reported = Some(report.clone()),
                None => return Ok(outcome::NO_REQUEST),
            },
            Effect::Assigned {
                request_id,
                assignment,
            } => match self.request(request_id)? {
                Some(row) => row.assigned = Some(assignment.clone()),
                None => return Ok(outcome::NO_REQUEST),
            },
        }
        Ok(outcome::APPLIED)
    }

    /// The verdicts that are to be taken back, by node.
    pub(crate) fn evictions(&self) -> &BTreeMap<String, Eviction> {
        &self.evictions
    }

    /// The transaction that makes all of it so, if everything is as it was read.
    pub(crate) fn into_txn(self, writing: &Writing<'_>) -> Result<Txn, StoreError> {
        let mut txn = Txn::default();
        put(
            &mut txn,
            LEDGER_KEY.to_owned(),
            self.ledger_revision,
            &self.ledger,
        );
        for (node_id, row) in &self.nodes {
            own(&mut txn, row);
            worker(self.kv, &mut txn, row, writing)?;
            row.write(&mut txn, ChainNode::key(node_id));
        }
        for (request_id, row) in &self.requests {
            row.write(&mut txn, RequestRow::key(request_id));
            mark(&mut txn, row);
        }
        Ok(txn)
    }

    fn node(&mut self, node_id: &str) -> Result<&mut ChainNode, StoreError> {
        let row = entry(&mut self.nodes, node_id, self.kv, ChainNode::key)?;
        Ok(row.value.get_or_insert_with(|| ChainNode::new(node_id)))
    }

    /// How many requests are kept of one requester.
    fn kept_of(&self, requester: &str) -> Result<u64, StoreError> {
        if let Some(kept) = self.kept_of.get(requester) {
            return Ok(*kept);
        }
        let count = RangeRequest {
            count_only: true,
            ..RangeRequest::newest(KeyRange::prefix(RequestRow::asked_by(requester)))
        };
        Ok(self.kv.range(&count)?.count)
    }

    fn request(&mut self, request_id: &str) -> Result<&mut Option<RequestRow>, StoreError> {
        let row = entry(&mut self.requests, request_id, self.kv, RequestRow::key)?;
        Ok(&mut row.value)
    }
}

/// Why the verdicts about a node end whose stake is that from now on.
fn why(stake: Stake) -> Eviction {
    match stake {
        Stake::Active => Eviction::Stale,
        Stake::Slashed => Eviction::Slashed,
        Stake::Withdrawn | Stake::Expired => Eviction::Withdrawn,
    }
}

/// Why an event has no effect.
enum Unfit {
    Malformed(Malformed),
    Store(StoreError),
}

impl From<Malformed> for Unfit {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn put(txn: &mut Txn, key: String, revision: Revision, row: &impl Serialize) {
    txn.compare
        .push(Compare::mod_revision(key.clone(), revision));
    txn.then.push(Operation::Put(Put::new(key, encode(row))));
}

/// The row of that id, read where it was not yet.
fn entry<'a, T: DeserializeOwned + Clone>(
    rows: &'a mut BTreeMap<String, Row<T>>,
    id: &str,
    kv: &dyn Kv,
    key: fn(&str) -> String,
) -> Result<&'a mut Row<T>, StoreError> {
    Ok(match rows.entry(id.to_owned()) {
        Entry::Occupied(row) => row.into_mut(),
        Entry::Vacant(place) => place.insert(Row::read(kv, &key(id))?),
    })
}

/// The row that says whose the node is; the one of an owner before goes.
fn own(txn: &mut Txn, row: &Row<ChainNode>) {
    let owner = |node: &Option<ChainNode>| node.as_ref().and_then(|node| node.owner.clone());
    let (before, now) = (owner(&row.before), owner(&row.value));
    let Some(node) = row.value.as_ref().filter(|_| before != now) else {
        return;
    };
    let key = |owner: &str| format!("{}{}", ChainNode::owned_by(owner), node.node_id);
    if let Some(before) = before {
        txn.then.push(Operation::Delete {
            range: KeyRange::single(key(&before)),
            prev_kv: false,
        });
    }
    if let Some(now) = now {
        let mark = Put::new(key(&now), Bytes::from_static(b"{}"));
        txn.then.push(Operation::Put(mark));
    }
}

/// Counts a request that is new to its requester.
fn mark(txn: &mut Txn, row: &Row<RequestRow>) {
    if let (None, Some(request)) = (&row.before, &row.value) {
        let marks = RequestRow::asked_by(&request.call.requester);
        let key = format!("{marks}{}", request.call.request_id);
        let mark = Put::new(key, Bytes::from_static(b"{}"));
        txn.then.push(Operation::Put(mark));
    }
}

/// What the registered worker's own row and `Node` say of the stake.
fn worker(
    kv: &dyn Kv,
    txn: &mut Txn,
    row: &Row<ChainNode>,
    writing: &Writing<'_>,
) -> Result<(), StoreError> {
    let Some(node) = row.value.as_ref().filter(|_| row.value != row.before) else {
        return Ok(());
    };
    let stored = match Stored::read(kv, &node.node_id) {
        Ok(stored) => stored,
        Err(error @ StoreError::Range(_)) => return Err(error),
        Err(error) => {
            // One unreadable row must not stop the chain.
            tracing::error!(%error, node_id = node.node_id, "a worker does not hear of its stake");
            return Ok(());
        }
    };
    let Some(old) = stored.row() else {
        return Ok(());
    };
    let mut worker = old.clone();
    // What the events never told of, the worker's judge knows better.
    let before = row.before.as_ref().map_or(Stake::Active, ChainNode::stake);
    if node.stake() != before {
        worker.stake = node.stake();
    }
    if node.is_registered() {
        worker.stake_amount = node.stake_amount;
    }
    if worker != *old {
        let change = stored.replace(&worker, writing)?;
        txn.compare.extend(change.compare);
        txn.then.extend(change.then);
    }
    Ok(())
}
