//! A worker's keys, read together and written together: its row, its `Node`, its lease, the
//! row that bars a node whose stake is gone, and the row by which its token is found.
//!
//! Invariant: all are compared with what was read and written in one transaction, so
//! that a row and its objects never disagree and no concurrent writer is overwritten.

use std::time::Duration;

use aws_lc_rs::rand;
use bytes::Bytes;
use nautilus_machine::{
    Compare, KeyRange, KeyValue, Kv, Operation, Put, RangeError, RangeRequest, Revision, Txn,
};
use nautilus_machinery::resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lease_object;
use crate::lifecycle::Readiness;
use crate::machine::Machine;
use crate::node_object::{self, NodeFacts};
use crate::removal::{self, BARRED_PREFIX, Barred};
use crate::roster::millis;
use crate::row::{RowUnreadable, WorkerRow};
use crate::tier::StakeTier;
use crate::token::TokenHash;

/// Which worker a token was registered for last, by its hash.
const TOKENS_PREFIX: &str = "/nautilus/seal-tokens/";

/// A key as it stands in the store.
#[derive(Debug, Clone)]
struct Held<T> {
    key: String,
    /// 0: there is none.
    revision: Revision,
    value: Option<T>,
}

impl<T> Held<T> {
    fn read(
        kv: &dyn Kv,
        key: String,
        decode: impl FnOnce(&KeyValue) -> Result<T, StoreError>,
    ) -> Result<Self, StoreError> {
        let request = RangeRequest::newest(KeyRange::single(key.clone()));
        let found = kv.range(&request)?.kvs.into_iter().next();
        Ok(Self {
            key,
            revision: found.as_ref().map_or(0, |kv| kv.mod_revision),
            value: found.as_ref().map(decode).transpose()?,
        })
    }

    fn compare(&self) -> Compare {
        Compare::mod_revision(self.key.clone(), self.revision)
    }

    fn put(&self, value: impl Into<Bytes>) -> Operation {
        Operation::Put(Put::new(self.key.clone(), value.into()))
    }
}

/// A worker as it stands in the store.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    row: Held<WorkerRow>,
    node: Held<Value>,
    lease: Held<Value>,
    barred: Held<Barred>,
    /// Whom the row's token speaks for.
    token: Option<Held<String>>,
    /// The same of the token that it is registered with now.
    next_token: Option<Held<String>>,
}

/// A change of a worker.
pub(crate) struct Writing<'a> {
    /// The time.
    pub(crate) unix_ms: u64,
    /// How long a node drains.
    pub(crate) drain: Duration,
    /// What a registration says.
    pub(crate) told: Option<(StakeTier, &'a Machine)>,
}

/// Why a worker could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error(transparent)]
    Row(#[from] RowUnreadable),
    #[error("what stands under {key} can't be read: {reason}")]
    Unreadable { key: String, reason: String },
    #[error("the system gave no random bytes")]
    Random,
}

impl Stored {
    /// Reads the keys from this node's state.
    pub(crate) fn read(kv: &dyn Kv, node_id: &str) -> Result<Self, StoreError> {
        let name = node_object::node_name(node_id);
        let row = |kv: &KeyValue| Ok(WorkerRow::decode(kv)?);
        let row = Held::read(kv, WorkerRow::key(node_id), row)?;
        let token = row.value.as_ref().map(|row: &WorkerRow| &row.token_hash);
        Ok(Self {
            token: token
                .map(|token| Held::read(kv, token_key(token), text))
                .transpose()?,
            next_token: None,
            row,
            node: Held::read(kv, node_key(&name), json)?,
            lease: Held::read(kv, lease_key(&name), json)?,
            barred: Held::read(kv, format!("{BARRED_PREFIX}{name}"), json)?,
        })
    }

    /// The row, if there is one.
    pub(crate) fn row(&self) -> Option<&WorkerRow> {
        self.row.value.as_ref()
    }

    /// Whether there is a `Node`: it was made, and nobody deleted it.
    pub(crate) fn has_node(&self) -> bool {
        self.node.value.is_some()
    }

    /// Whether there is a `Node` of that name which is not this worker's: somebody else made it.
    pub(crate) fn has_node_of_another(&self, node_id: &str, owner: &str) -> bool {
        self.node.value.as_ref().is_some_and(|node| {
            let annotations = &node["metadata"]["annotations"];
            annotations[node_object::NODE_ID_ANNOTATION] != node_id
                || annotations[node_object::OWNER_ANNOTATION] != owner
        })
    }

    /// Reads whom the token speaks for that the worker is to be registered with: another node that
    /// stands and was registered with it, if there is one.
    pub(crate) fn take_token(
        &mut self,
        kv: &dyn Kv,
        node_id: &str,
        token: &TokenHash,
    ) -> Result<Option<String>, StoreError> {
        // In this order: what is registered between the two reads fails the comparison.
        self.next_token = Some(Held::read(kv, token_key(token), text)?);
        other_node_of_token(kv, token, node_id)
    }

    /// That the token speaks for whom it did when it was read.
    pub(crate) fn compare_token(&self) -> Option<Compare> {
        self.next_token.as_ref().map(Held::compare)
    }

    /// The transaction that makes the row `row` and the objects what the row says, if
    /// all still are as they were read.
    pub(crate) fn replace(
        mut self,
        row: &WorkerRow,
        writing: &Writing<'_>,
    ) -> Result<Txn, StoreError> {
        let now = rfc3339(writing.unix_ms);
        let before = self.barred.value.as_ref();
        let drain_ms = millis(writing.drain);
        let barred = removal::barred(row.stake, before, writing.unix_ms, drain_ms);
        let remove_from = barred.as_ref().map(|barred| rfc3339(barred.from_ms));
        let facts = NodeFacts {
            node_id: &row.node_id,
            node_name: &row.node_name,
            owner: &row.owner,
            readiness: Readiness::of(row.phase, row.stake),
            stake: row.stake,
            remove_from: remove_from.as_deref(),
            told: writing.told,
        };
        let mut then = vec![self.row.put(row.encode())];
        let changed = match &mut self.node.value {
            Some(node) => node_object::update(node, &facts, &now),
            none => {
                *none = Some(node_object::create(&facts, &new_uid()?, &now));
                true
            }
        };
        if let Some(node) = self.node.value.as_ref().filter(|_| changed) {
            then.push(self.node.put(node.to_string()));
        }
        then.extend(self.lease(&row.node_name, &now)?);
        if let Some(next) = &self.next_token {
            then.extend(self.forget_token(Some(row)));
            then.push(next.put(row.node_id.clone()));
        }
        if barred != self.barred.value {
            then.push(match &barred {
                Some(barred) => self
                    .barred
                    .put(serde_json::to_vec(barred).unwrap_or_default()),
                None => delete(self.barred.key.clone()),
            });
        }
        Ok(Txn {
            compare: vec![
                self.row.compare(),
                self.node.compare(),
                self.lease.compare(),
                self.barred.compare(),
            ],
            then,
            otherwise: Vec::new(),
        })
    }

    /// The transaction that removes everything of the worker, if all still is as it was read.
    pub(crate) fn remove(self) -> Txn {
        let mut then: Vec<Operation> = self.forget_token(None).into_iter().collect();
        let compare = vec![
            self.row.compare(),
            self.node.compare(),
            self.lease.compare(),
            self.barred.compare(),
        ];
        // A node that was barred stays so: its certificates outlive its row.
        let keys = [self.row.key, self.lease.key];
        then.extend(keys.into_iter().map(delete));
        Txn {
            compare,
            then,
            otherwise: Vec::new(),
        }
    }

    /// What frees the row's token, unless it stays or was registered for another worker since.
    fn forget_token(&self, next: Option<&WorkerRow>) -> Option<Operation> {
        let (row, token) = (self.row.value.as_ref()?, self.token.as_ref()?);
        let stays = next.is_some_and(|next| next.token_hash == row.token_hash);
        let is_its_own = token.value.as_ref() == Some(&row.node_id);
        (is_its_own && !stays).then(|| {
            Operation::Txn(Txn {
                compare: vec![token.compare()],
                then: vec![delete(token.key.clone())],
                otherwise: Vec::new(),
            })
        })
    }

    /// What makes or mends the lease of the node.
    fn lease(&mut self, name: &str, now: &str) -> Result<Option<Operation>, StoreError> {
        let node = self.node.value.as_ref();
        let node_uid = node.and_then(|node| node["metadata"]["uid"].as_str());
        let node_uid = node_uid.unwrap_or_default();
        let changed = match &mut self.lease.value {
            Some(lease) => lease_object::update(lease, name, node_uid),
            none => {
                *none = Some(lease_object::create(name, node_uid, &new_uid()?, now));
                true
            }
        };
        let lease = self.lease.value.as_ref().filter(|_| changed);
        Ok(lease.map(|lease| self.lease.put(lease.to_string())))
    }
}

/// Why the certificates of the node `name` don't count at this time; `None`: they do.
pub(crate) fn barred(kv: &dyn Kv, name: &str, unix_ms: u64) -> Result<Option<String>, StoreError> {
    let held: Held<Barred> = Held::read(kv, format!("{BARRED_PREFIX}{name}"), json)?;
    let barred = held.value.filter(|barred| barred.from_ms <= unix_ms);
    Ok(barred.map(|barred| barred.reason))
}

/// The worker that a token was registered for.
pub(crate) fn node_of_token(kv: &dyn Kv, token: &TokenHash) -> Result<Option<String>, StoreError> {
    Ok(Held::read(kv, token_key(token), text)?.value)
}

/// A node other than `node_id` that stands and was registered with the token last.
pub(crate) fn other_node_of_token(
    kv: &dyn Kv,
    token: &TokenHash,
    node_id: &str,
) -> Result<Option<String>, StoreError> {
    let other = node_of_token(kv, token)?.filter(|other| other != node_id);
    let Some(other) = other else { return Ok(None) };
    let stored = Stored::read(kv, &other)?;
    let row = stored.row().filter(|_| stored.has_node());
    let stands = row.is_some_and(|row| row.token_hash == *token);
    Ok(stands.then_some(other))
}

fn text(kv: &KeyValue) -> Result<String, StoreError> {
    Ok(String::from_utf8_lossy(&kv.value).into_owned())
}

/// The key of the row that says whom a token speaks for.
pub(crate) fn token_key(token: &TokenHash) -> String {
    format!("{TOKENS_PREFIX}{}", hex::encode(token.0))
}

/// Deletes a key.
pub(crate) fn delete(key: String) -> Operation {
    Operation::Delete {
        range: KeyRange::single(key),
        prev_kv: false,
    }
}

fn json<T: DeserializeOwned>(kv: &KeyValue) -> Result<T, StoreError> {
    serde_json::from_slice(&kv.value).map_err(|error| StoreError::Unreadable {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        reason: error.to_string(),
    })
}

/// The storage key of a `Node` object.
pub(crate) fn node_key(name: &str) -> String {
    object_key("", "nodes", None, name)
}

/// The storage key of the lease of a node.
fn lease_key(name: &str) -> String {
    let namespace = Some(lease_object::NAMESPACE);
    object_key("coordination.k8s.io", "leases", namespace, name)
}

/// The prefix of the leases of nodes.
pub(crate) fn leases_prefix() -> String {
    lease_key("")
}

fn object_key(group: &str, plural: &str, namespace: Option<&str>, name: &str) -> String {
    // The kinds are part of the table that is compiled in.
    let kind = resource::find(group, "v1", plural);
    kind.map_or_else(String::new, |kind| kind.key(namespace, name))
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// A random UUID (RFC 9562, version 4).
fn new_uid() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    Ok(parts.join("-"))
}
