//! One transaction while it is executed: its inputs, what it writes and emits, and the effects that
//! come of it.
//!
//! Invariant: all written objects get one version, above that of every input and of what they were
//! before (Lamport's clock, as on the chain).

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use sui_sdk_types::{
    Address, Argument, ChangedObject, Command, Digest, Event, ExecutionStatus, GasCostSummary,
    GasPayment, IdOperation, Identifier, Input, MoveCall, Mutability, Object, ObjectIn, ObjectOut,
    ObjectReference, Owner, ProgrammableTransaction, SharedInput, Transaction, TransactionEffects,
    TransactionEffectsV2, TransactionEvents, TransactionExpiration, TransactionKind,
};

use crate::layout::package;
use crate::ledger::{Change, Executed, GAS_PRICE, Ledger, Live};
use crate::operation::Receipt;
use crate::value::{MoveStruct, MoveValue};

/// What a transaction may cost at most, in MIST.
const GAS_BUDGET: u64 = 50_000_000;
/// What execution costs, in MIST.
const COMPUTATION_COST: u64 = 1_000_000;
/// Bytes of an object beside its content, roughly.
const OBJECT_OVERHEAD_BYTES: u64 = 100;

/// A call of the package's Move code.
pub(crate) struct Call {
    sender: Address,
    module: String,
    function: &'static str,
    arguments: Vec<Argued>,
}

enum Argued {
    Pure(Vec<u8>),
    Shared(Address),
    Owned(Address),
}

impl Call {
    pub(crate) fn new(sender: Address, module: &str, function: &'static str) -> Self {
        Self {
            sender,
            module: module.to_owned(),
            function,
            arguments: Vec::new(),
        }
    }

    pub(crate) fn text(self, text: &str) -> Self {
        let value = MoveValue::String(text.to_owned());
        self.with(Argued::Pure(value.bcs()))
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.with(Argued::Pure(MoveValue::U64(number).bcs()))
    }

    pub(crate) fn shared(self, id: Address) -> Self {
        self.with(Argued::Shared(id))
    }

    pub(crate) fn owned(self, id: Address) -> Self {
        self.with(Argued::Owned(id))
    }

    fn with(mut self, argument: Argued) -> Self {
        self.arguments.push(argument);
        self
    }
}

/// A transaction that is being executed.
pub(crate) struct Run<'a> {
    ledger: &'a mut Ledger,
    transaction: Transaction,
    digest: Digest,
    /// Ids made so far.
    ids: u64,
    /// The highest version of an input.
    input_version: u64,
    dependencies: Vec<Digest>,
    writes: BTreeMap<Address, Option<(Owner, MoveStruct)>>,
    created: Vec<Address>,
    events: Vec<MoveStruct>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(ledger: &'a mut Ledger, call: Call) -> Result<Self> {
        // A last argument that makes every transaction another one.
        let nonce = ledger.transaction_count();
        let call = call.number(nonce);
        let mut inputs = Vec::with_capacity(call.arguments.len());
        let mut input_version = 0;
        let mut dependencies = Vec::new();
        for argument in call.arguments {
            let id = match &argument {
                Argued::Pure(_) => None,
                Argued::Shared(id) | Argued::Owned(id) => Some(*id),
            };
            let object = match id {
                Some(id) => Some(&ledger.live(id).with_context(|| no_object(id))?.object),
                None => None,
            };
            if let Some(object) = object {
                input_version = input_version.max(object.version());
                dependencies.push(object.previous_transaction());
            }
            inputs.push(input(argument, object)?);
        }
        let arguments = (0..inputs.len()).map(|it| Argument::Input(it as u16));
        let command = Command::MoveCall(MoveCall {
            package: package(),
            module: Identifier::new(&call.module)?,
            function: Identifier::from_static(call.function),
            type_arguments: Vec::new(),
            arguments: arguments.collect(),
        });
        let kind = TransactionKind::ProgrammableTransaction(ProgrammableTransaction {
            inputs,
            commands: vec![command],
        });
        let transaction = Transaction {
            kind,
            sender: call.sender,
            // Gas is paid from the sender's balance, without coins.
            gas_payment: GasPayment {
                objects: Vec::new(),
                owner: call.sender,
                price: GAS_PRICE,
                budget: GAS_BUDGET,
            },
            expiration: TransactionExpiration::None,
        };
        let mut run = Self::system(ledger, transaction);
        run.input_version = input_version;
        dependencies.sort_unstable();
        dependencies.dedup();
        run.dependencies = dependencies;
        Ok(run)
    }

    /// A transaction of the validators' own.
    pub(crate) fn system(ledger: &'a mut Ledger, transaction: Transaction) -> Self {
        Self {
            digest: transaction.digest(),
            ledger,
            transaction,
            ids: 0,
            input_version: 0,
            dependencies: Vec::new(),
            writes: BTreeMap::new(),
            created: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The id of the next object that it creates.
    pub(crate) fn fresh_id(&mut self) -> Address {
        let id = Address::derive_id(self.digest, self.ids);
        self.ids += 1;
        id
    }

    /// Whether there is such an object, with what this transaction wrote.
    pub(crate) fn exists(&self, id: Address) -> bool {
        match self.writes.get(&id) {
            Some(written) => written.is_some(),
            None => self.ledger.live(id).is_some(),
        }
    }

    /// The object as this transaction sees it.
    pub(crate) fn take(&mut self, id: Address) -> Result<(Owner, MoveStruct)> {
        if let Some(written) = self.writes.get(&id) {
            return written.clone().with_context(|| no_object(id));
        }
        let live = self.ledger.live(id).with_context(|| no_object(id))?;
        Ok((*live.object.owner(), live.record.clone()))
    }

    pub(crate) fn create(&mut self, id: Address, owner: Owner, record: MoveStruct) {
        self.created.push(id);
        self.put(id, owner, record);
    }

    pub(crate) fn put(&mut self, id: Address, owner: Owner, record: MoveStruct) {
        self.writes.insert(id, Some((owner, record)));
    }

    pub(crate) fn delete(&mut self, id: Address) {
        self.writes.insert(id, None);
    }

    pub(crate) fn emit_struct(&mut self, event: MoveStruct) {
        self.events.push(event);
    }

    /// Makes the effects and gives all to the ledger.
    pub(crate) fn finish(self) -> Result<Receipt> {
        let before = self.writes.keys().filter_map(|id| self.ledger.live(*id));
        let versions = before.map(|live| live.object.version());
        let version = versions.fold(self.input_version, u64::max) + 1;
        let (checkpoint, place) = self.ledger.position();
        let mut gas = GasCostSummary {
            computation_cost: COMPUTATION_COST,
            ..GasCostSummary::default()
        };
        let mut changes = Vec::with_capacity(self.writes.len());
        let mut objects = Vec::with_capacity(self.writes.len());
        for (id, written) in &self.writes {
            let change = self.write(*id, written.as_ref(), version, &mut gas)?;
            changes.push(change.0);
            objects.push((*id, change.1));
        }
        let events = self.sdk_events();
        let list = TransactionEvents(events.iter().map(|(event, _)| event.clone()).collect());
        let events_digest = (!events.is_empty()).then(|| list.digest());
        let effects = TransactionEffects::V2(Box::new(TransactionEffectsV2 {
            status: ExecutionStatus::Success,
            epoch: self.ledger.epoch(),
            gas_used: gas.clone(),
            transaction_digest: self.digest,
            gas_object_index: None,
            events_digest,
            dependencies: self.dependencies.clone(),
            lamport_version: version,
            changed_objects: changes.iter().map(changed_object).collect(),
            unchanged_consensus_objects: Vec::new(),
            auxiliary_data_digest: None,
        }));
        let receipt = Receipt {
            tx_digest: self.digest,
            checkpoint,
            created: self.created,
        };
        let executed = Executed {
            digest: self.digest,
            epoch: self.ledger.epoch(),
            transaction: self.transaction,
            effects,
            gas,
            dependencies: self.dependencies,
            events_digest,
            events,
            changes,
            checkpoint,
            place,
        };
        self.ledger.commit(executed, objects);
        Ok(receipt)
    }

    fn write(
        &self,
        id: Address,
        written: Option<&(Owner, MoveStruct)>,
        version: u64,
        gas: &mut GasCostSummary,
    ) -> Result<(Change, Option<Live>)> {
        let old = self.ledger.live(id);
        let before = old.map_or(ObjectIn::NotExist, |old| ObjectIn::Exist {
            version: old.object.version(),
            digest: old.object.digest(),
            owner: *old.object.owner(),
        });
        gas.storage_rebate += old.map_or(0, |old| old.object.storage_rebate());
        let Some((owner, record)) = written else {
            let old = old.with_context(|| no_object(id))?;
            let change = Change {
                id,
                record: old.record.clone(),
                owner: *old.object.owner(),
                before,
                digest: None,
                version,
            };
            return Ok((change, None));
        };
        let price = self.ledger.network().storage_price;
        let rebate = price * (record.bcs().len() as u64 + OBJECT_OVERHEAD_BYTES);
        gas.storage_cost += rebate;
        let object = Object::new(record.object_data(version)?, *owner, self.digest, rebate);
        let change = Change {
            id,
            record: record.clone(),
            owner: *owner,
            before,
            digest: Some(object.digest()),
            version,
        };
        let record = record.clone();
        Ok((change, Some(Live { object, record })))
    }

    fn sdk_events(&self) -> Vec<(Event, MoveStruct)> {
        let events = self.events.iter().map(|record| {
            let event = Event {
                package_id: package(),
                module: record.tag.module().clone(),
                sender: self.transaction.sender,
                type_: record.tag.clone(),
                contents: record.bcs(),
            };
            (event, record.clone())
        });
        events.collect()
    }
}

fn input(argument: Argued, object: Option<&Object>) -> Result<Input> {
    match (argument, object) {
        (Argued::Pure(bytes), _) => Ok(Input::Pure(bytes)),
        (Argued::Shared(id), Some(object)) => {
            let Owner::Shared(start) = object.owner() else {
                return Err(anyhow!("{id} is not shared"));
            };
            let shared = SharedInput::new(id, *start, Mutability::Mutable);
            Ok(Input::Shared(shared))
        }
        (Argued::Owned(id), Some(object)) => {
            let reference = ObjectReference::new(id, object.version(), object.digest());
            Ok(Input::ImmutableOrOwned(reference))
        }
        (Argued::Shared(id) | Argued::Owned(id), None) => Err(anyhow!(no_object(id))),
    }
}

fn changed_object(change: &Change) -> ChangedObject {
    let existed = change.before != ObjectIn::NotExist;
    ChangedObject {
        object_id: change.id,
        input_state: change.before.clone(),
        output_state: match change.digest {
            Some(digest) => ObjectOut::ObjectWrite {
                digest,
                owner: change.owner,
            },
            None => ObjectOut::NotExist,
        },
        id_operation: match (existed, change.digest) {
            (_, None) => IdOperation::Deleted,
            (true, Some(_)) => IdOperation::None,
            (false, Some(_)) => IdOperation::Created,
        },
    }
}

fn no_object(id: Address) -> String {
    format!("there is no object {id}")
}
