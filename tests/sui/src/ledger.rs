//! The chain in memory: objects with all their versions, transactions with effects and events,
//! checkpoints signed by the epoch's committee.
//!
//! Invariants
//! - Every digest is the genuine one of the BCS: object, transaction, effects, events, contents,
//!   summary. A light client finds nothing to object to.
//! - What a checkpoint does not name does not exist: it is sealed before anybody reads.
//! - The same operations at the same times make the same chain (on a network of the same name).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow};
use sui_sdk_types::{
    Address, ChangeEpoch, CheckpointContents, CheckpointSummary, CheckpointTransactionInfo, Digest,
    EndOfEpochData, EndOfEpochTransactionKind, Event, GasCostSummary, GasPayment, GenesisObject,
    GenesisTransaction, Object, ObjectData, ObjectIn, Owner, Transaction, TransactionEffects,
    TransactionExpiration, TransactionKind, ValidatorAggregatedSignature, ValidatorCommittee,
};

use crate::committee::Committee;
use crate::operation::{Operation, Receipt};
use crate::value::MoveStruct;
use crate::{contract, layout};

pub(crate) use crate::run::{Call, Run};

/// The only protocol version that the stand-in speaks of.
pub(crate) const PROTOCOL_VERSION: u64 = 130;
/// In MIST.
pub(crate) const GAS_PRICE: u64 = 1_000;

/// What distinguishes one chain from another that does the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// Its validators' keys follow from it.
    pub name: String,
    /// What a stored byte costs, in MIST; it is in every object.
    pub storage_price: u64,
    /// When it began, in Unix milliseconds.
    pub genesis_ms: u64,
}

/// An object at one version.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub object: Object,
    pub record: MoveStruct,
}

/// One state of an object; `live` is `None` from its deletion on.
pub(crate) struct State {
    pub checkpoint: u64,
    pub version: u64,
    pub live: Option<Live>,
}

/// How a transaction changed an object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub id: Address,
    pub record: MoveStruct,
    pub owner: Owner,
    pub before: ObjectIn,
    /// Digest of what is there now; `None`: deleted.
    pub digest: Option<Digest>,
    pub version: u64,
}

/// An executed transaction.
pub(crate) struct Executed {
    pub digest: Digest,
    pub transaction: Transaction,
    pub effects: TransactionEffects,
    pub gas: GasCostSummary,
    pub epoch: u64,
    pub dependencies: Vec<Digest>,
    pub events_digest: Option<Digest>,
    pub events: Vec<(Event, MoveStruct)>,
    pub changes: Vec<Change>,
    pub checkpoint: u64,
    pub place: u64,
}

/// A sealed checkpoint.
pub(crate) struct Checkpoint {
    pub summary: CheckpointSummary,
    pub digest: Digest,
    pub contents: CheckpointContents,
    pub transactions: Vec<Digest>,
    signature: OnceLock<Option<ValidatorAggregatedSignature>>,
}

/// The chain.
pub(crate) struct Ledger {
    network: Network,
    committees: Vec<Committee>,
    objects: BTreeMap<Address, Vec<State>>,
    children: BTreeMap<Address, BTreeSet<Address>>,
    transactions: BTreeMap<Digest, Arc<Executed>>,
    checkpoints: Vec<Arc<Checkpoint>>,
    /// Executed, in no checkpoint yet.
    open: Vec<Arc<Executed>>,
    rolling_gas: GasCostSummary,
    log: Vec<(u64, Vec<Operation>)>,
}

impl Ledger {
    /// A chain with the registry and nothing else.
    pub(crate) fn new(network: Network) -> Result<Self> {
        let genesis_ms = network.genesis_ms;
        let mut ledger = Self {
            committees: vec![Committee::new(&network.name, 0)?],
            network,
            objects: BTreeMap::new(),
            children: BTreeMap::new(),
            transactions: BTreeMap::new(),
            checkpoints: Vec::new(),
            open: Vec::new(),
            rolling_gas: GasCostSummary::default(),
            log: Vec::new(),
        };
        ledger.genesis()?;
        ledger.seal(genesis_ms, None);
        Ok(ledger)
    }

    /// The same operations once more, on another network.
    pub(crate) fn replay(&self, network: Network) -> Result<Self> {
        let mut ledger = Self::new(network)?;
        for (now_ms, operations) in &self.log {
            ledger.apply(operations, *now_ms)?;
        }
        Ok(ledger)
    }

    /// Executes the operations, all in one checkpoint, or none of them.
    pub(crate) fn apply(&mut self, operations: &[Operation], now_ms: u64) -> Result<Vec<Receipt>> {
        let now_ms = now_ms.max(self.latest().summary.timestamp_ms);
        let mut receipts = Vec::with_capacity(operations.len());
        for operation in operations {
            let done = match operation {
                Operation::EndEpoch => self.end_epoch(now_ms),
                other => contract::execute(self, other, now_ms),
            };
            match done {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => {
                    self.undo();
                    return Err(error);
                }
            }
        }
        let ends = operations.contains(&Operation::EndEpoch);
        let next = self.epoch() + 1;
        let data = if ends {
            self.committees
                .push(Committee::new(&self.network.name, next)?);
            self.committees.last().map(|committee| EndOfEpochData {
                next_epoch_committee: committee.public().members.clone(),
                next_epoch_protocol_version: PROTOCOL_VERSION,
                epoch_commitments: Vec::new(),
            })
        } else {
            None
        };
        self.seal(now_ms, data);
        self.log.push((now_ms, operations.to_vec()));
        Ok(receipts)
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// The epoch that the next checkpoint is in.
    pub(crate) fn epoch(&self) -> u64 {
        let Some(latest) = self.checkpoints.last() else {
            return 0;
        };
        let ended = u64::from(latest.summary.end_of_epoch_data.is_some());
        latest.summary.epoch + ended
    }

    /// The committee of an epoch that has begun.
    pub(crate) fn committee(&self, epoch: u64) -> Option<&ValidatorCommittee> {
        let committee = self.committees.get(usize::try_from(epoch).ok()?)?;
        Some(committee.public())
    }

    pub(crate) fn checkpoint(&self, sequence_number: u64) -> Option<&Arc<Checkpoint>> {
        self.checkpoints.get(usize::try_from(sequence_number).ok()?)
    }

    pub(crate) fn checkpoint_by_digest(&self, digest: &Digest) -> Option<&Arc<Checkpoint>> {
        self.checkpoints.iter().find(|it| it.digest == *digest)
    }

    /// The last sealed checkpoint; genesis is always there.
    pub(crate) fn latest(&self) -> &Arc<Checkpoint> {
        &self.checkpoints[self.checkpoints.len() - 1]
    }

    /// The quorum's signature of a checkpoint, made when it is first asked for.
    pub(crate) fn signature(
        &self,
        checkpoint: &Checkpoint,
    ) -> Option<ValidatorAggregatedSignature> {
        let sign = || {
            let epoch = usize::try_from(checkpoint.summary.epoch).ok()?;
            self.committees.get(epoch)?.sign(&checkpoint.summary).ok()
        };
        checkpoint.signature.get_or_init(sign).clone()
    }

    pub(crate) fn transaction(&self, digest: &Digest) -> Option<&Arc<Executed>> {
        self.transactions.get(digest)
    }

    /// All states of an object, oldest first.
    pub(crate) fn states(&self, id: Address) -> &[State] {
        self.objects.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The dynamic fields that `parent` ever had, in the order of their ids.
    pub(crate) fn children(&self, parent: Address) -> impl Iterator<Item = Address> {
        self.children.get(&parent).into_iter().flatten().copied()
    }

    /// Every object that ever was.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Address> {
        self.objects.keys().copied()
    }

    /// The object as it is now, with what is executed but not sealed.
    pub(crate) fn live(&self, id: Address) -> Option<&Live> {
        self.states(id).last()?.live.as_ref()
    }

    /// The first object whose content is such.
    pub(crate) fn live_where(&self, wanted: impl Fn(&MoveStruct) -> bool) -> Option<Address> {
        let mut live = self
            .objects
            .keys()
            .filter_map(|id| Some((*id, self.live(*id)?)));
        live.find(|(_, live)| wanted(&live.record))
            .map(|(id, _)| id)
    }

    /// A transaction that calls the package.
    pub(crate) fn run(&mut self, call: Call) -> Result<Run<'_>> {
        Run::new(self, call)
    }

    /// Transactions so far, those in no checkpoint included.
    pub(crate) fn transaction_count(&self) -> u64 {
        self.transactions.len() as u64
    }

    /// Where the next transaction will be.
    pub(crate) fn position(&self) -> (u64, u64) {
        (self.checkpoints.len() as u64, self.open.len() as u64)
    }

    /// Takes what a transaction did.
    pub(crate) fn commit(&mut self, executed: Executed, objects: Vec<(Address, Option<Live>)>) {
        let checkpoint = executed.checkpoint;
        for ((id, live), change) in objects.into_iter().zip(&executed.changes) {
            if let Owner::Object(parent) = change.owner {
                self.children.entry(parent).or_default().insert(id);
            }
            self.objects.entry(id).or_default().push(State {
                checkpoint,
                version: change.version,
                live,
            });
        }
        let executed = Arc::new(executed);
        self.transactions.insert(executed.digest, executed.clone());
        self.open.push(executed);
    }

    /// Forgets what is in no checkpoint.
    fn undo(&mut self) {
        let sealed = self.checkpoints.len() as u64;
        self.open.clear();
        self.transactions.retain(|_, it| it.checkpoint < sealed);
        for states in self.objects.values_mut() {
            states.retain(|state| state.checkpoint < sealed);
        }
        self.objects.retain(|_, states| !states.is_empty());
    }

    fn seal(&mut self, now_ms: u64, end_of_epoch_data: Option<EndOfEpochData>) {
        let open = std::mem::take(&mut self.open);
        let epoch = self.epoch();
        if self
            .checkpoints
            .last()
            .is_some_and(|it| it.summary.end_of_epoch_data.is_some())
        {
            self.rolling_gas = GasCostSummary::default();
        }
        for executed in &open {
            self.rolling_gas.computation_cost += executed.gas.computation_cost;
            self.rolling_gas.storage_cost += executed.gas.storage_cost;
            self.rolling_gas.storage_rebate += executed.gas.storage_rebate;
            self.rolling_gas.non_refundable_storage_fee += executed.gas.non_refundable_storage_fee;
        }
        let infos = open.iter().map(|executed| {
            CheckpointTransactionInfo::new(executed.digest, executed.effects.digest(), Vec::new())
        });
        let contents = CheckpointContents::new_v1(infos.collect());
        let before = self.checkpoints.last();
        let summary = CheckpointSummary {
            epoch,
            sequence_number: self.checkpoints.len() as u64,
            network_total_transactions: self.transactions.len() as u64,
            content_digest: contents.digest(),
            previous_digest: before.map(|it| it.digest),
            epoch_rolling_gas_cost_summary: self.rolling_gas.clone(),
            timestamp_ms: now_ms,
            checkpoint_commitments: Vec::new(),
            end_of_epoch_data,
            // Version 1, no rounds of randomness.
            version_specific_data: vec![0, 0],
        };
        self.checkpoints.push(Arc::new(Checkpoint {
            digest: summary.digest(),
            summary,
            contents,
            transactions: open.iter().map(|executed| executed.digest).collect(),
            signature: OnceLock::new(),
        }));
    }

    fn genesis(&mut self) -> Result<()> {
        let record = layout::genesis_registry();
        let owner = Owner::Shared(1);
        let data = record.object_data(1).context("the registry")?;
        let transaction = system_transaction(TransactionKind::Genesis(GenesisTransaction {
            objects: vec![GenesisObject::new(data, owner)],
        }));
        let mut run = Run::system(self, transaction);
        run.create(layout::registry_id(), owner, record);
        run.finish()?;
        Ok(())
    }

    fn end_epoch(&mut self, now_ms: u64) -> Result<Receipt> {
        let gas = self.rolling_gas.clone();
        let change = ChangeEpoch {
            epoch: self.epoch() + 1,
            protocol_version: PROTOCOL_VERSION,
            storage_charge: gas.storage_cost,
            computation_charge: gas.computation_cost,
            storage_rebate: gas.storage_rebate,
            non_refundable_storage_fee: gas.non_refundable_storage_fee,
            epoch_start_timestamp_ms: now_ms,
            system_packages: Vec::new(),
        };
        let kind =
            TransactionKind::EndOfEpoch(vec![EndOfEpochTransactionKind::ChangeEpoch(change)]);
        Run::system(self, system_transaction(kind)).finish()
    }
}

fn system_transaction(kind: TransactionKind) -> Transaction {
    Transaction {
        kind,
        sender: Address::ZERO,
        gas_payment: GasPayment {
            objects: Vec::new(),
            owner: Address::ZERO,
            price: 1,
            budget: 0,
        },
        expiration: TransactionExpiration::None,
    }
}

impl MoveStruct {
    /// As an object holds it.
    pub(crate) fn object_data(&self, version: u64) -> Result<ObjectData> {
        let data = sui_sdk_types::MoveStruct::new(self.tag.clone(), false, version, self.bcs());
        let data = data.ok_or_else(|| anyhow!("{} has no id", self.tag))?;
        Ok(ObjectData::Struct(data))
    }
}
