//! What the Move code of the package does: which objects an operation reads and writes, and which
//! events it emits.
//!
//! Invariant: an operation writes nothing and emits nothing if it fails.

use anyhow::{Context, Result, anyhow, bail};
use sui_sdk_types::{Address, Identifier, Owner, StructTag, TypeTag};

use crate::layout::{
    K8S_SCHEDULER, SEAL_TOKEN, WORKER_REGISTRY, admin, field_struct, owner_field, owners_table,
    package, registry_id, stake_struct, text, token_struct, worker_entry, worker_field,
    workers_table,
};
use crate::ledger::{Call, Ledger, Run};
use crate::operation::{ApiRequest, Operation, Receipt};
use crate::value::{MoveStruct, MoveValue, string_tag, tag};

/// Executes the operation as a transaction of `ledger`; it is in no checkpoint yet.
pub(crate) fn execute(ledger: &mut Ledger, operation: &Operation, now_ms: u64) -> Result<Receipt> {
    match operation {
        Operation::RegisterWorker {
            node_id,
            owner,
            stake,
            seal_token,
        } => register_worker(ledger, now_ms, node_id, *owner, *stake, seal_token),
        Operation::SetStatus { node_id, status } => set_status(ledger, now_ms, node_id, status),
        Operation::SetSealToken {
            node_id,
            seal_token,
        } => {
            let mut change =
                WorkerChange::start(ledger, node_id, by_admin("set_seal_token").text(seal_token))?;
            change.set("seal_token", text(seal_token));
            change.finish()
        }
        Operation::Deposit { node_id, amount } => deposit(ledger, now_ms, node_id, *amount),
        Operation::Withdraw { node_id } => withdraw(ledger, now_ms, node_id),
        Operation::SetJoinToken {
            node_id,
            join_token,
        } => {
            let mut change =
                WorkerChange::start(ledger, node_id, by_admin("set_join_token").text(join_token))?;
            change.set("join_token", text(join_token));
            change.run.emit(
                WORKER_REGISTRY,
                "JoinTokenSetEvent",
                vec![
                    ("node_id", text(node_id)),
                    ("join_token", text(join_token)),
                    ("timestamp", MoveValue::U64(now_ms)),
                ],
            );
            change.finish()
        }
        Operation::Heartbeat { node_id } => {
            let mut change = WorkerChange::start(ledger, node_id, by_admin("heartbeat"))?;
            change.set("last_heartbeat", MoveValue::U64(now_ms));
            change.finish()
        }
        Operation::IssueToken {
            owner,
            stake,
            expires_at_ms,
        } => issue_token(ledger, *owner, *stake, *expires_at_ms),
        Operation::SetStakeStatus { stake, status } => {
            let call = Call::new(admin(), SEAL_TOKEN, "set_stake_status")
                .text(status)
                .owned(*stake);
            let mut run = ledger.run(call)?;
            let (owner, mut record) = run.take(*stake)?;
            record.set("status", text(status));
            run.put(*stake, owner, record);
            run.finish()
        }
        Operation::RevokeToken { token } => {
            let call = Call::new(admin(), SEAL_TOKEN, "revoke").owned(*token);
            let mut run = ledger.run(call)?;
            run.take(*token)?;
            run.delete(*token);
            run.finish()
        }
        Operation::ScheduleApiRequest(request) => schedule(ledger, now_ms, request),
        Operation::RecordApiResult {
            request_id,
            assigned_worker,
            success,
            output,
            error,
            execution_time_ms,
        } => emit(
            ledger,
            admin(),
            "K8sAPIResultEvent",
            vec![
                ("request_id", text(request_id)),
                ("assigned_worker", text(assigned_worker)),
                ("success", MoveValue::Bool(*success)),
                ("output", text(output)),
                ("error", text(error)),
                ("execution_time_ms", MoveValue::U64(*execution_time_ms)),
                ("timestamp", MoveValue::U64(now_ms)),
            ],
        ),
        Operation::AssignWorker {
            request_id,
            worker_id,
            workload_count,
        } => emit(
            ledger,
            admin(),
            "WorkerAssignedEvent",
            vec![
                ("request_id", text(request_id)),
                ("worker_id", text(worker_id)),
                ("workload_count", MoveValue::U64(*workload_count)),
                ("timestamp", MoveValue::U64(now_ms)),
            ],
        ),
        Operation::Emit {
            module,
            name,
            sender,
            fields,
        } => {
            let mut run = ledger.run(Call::new(*sender, module, "emit"))?;
            let record = MoveStruct {
                tag: StructTag::new(
                    package(),
                    Identifier::new(module)?,
                    Identifier::new(name)?,
                    Vec::new(),
                ),
                fields: fields.clone(),
            };
            run.emit_struct(record);
            run.finish()
        }
        Operation::EndEpoch => bail!("an epoch ends by a checkpoint of its own"),
    }
}

fn register_worker(
    ledger: &mut Ledger,
    now_ms: u64,
    node_id: &str,
    owner: Address,
    stake: u64,
    seal_token: &str,
) -> Result<Receipt> {
    let field = worker_field(node_id);
    if ledger.live(field).is_some() {
        bail!("worker {node_id} is registered already");
    }
    let call = Call::new(owner, WORKER_REGISTRY, "register_worker")
        .shared(registry_id())
        .text(node_id)
        .text(seal_token)
        .number(stake);
    let mut run = ledger.run(call)?;
    let entry = worker_entry(node_id, owner, stake, seal_token, now_ms);
    run.create(field, Owner::Object(workers_table()), entry);
    run.add_to_list(owner, node_id)?;
    let proof = run.fresh_id();
    run.create(
        proof,
        Owner::Address(owner),
        MoveStruct::new(
            tag(package(), WORKER_REGISTRY, "StakeProof"),
            vec![
                ("id", MoveValue::Uid(proof)),
                ("node_id", text(node_id)),
                ("stake_amount", MoveValue::U64(stake)),
                ("staked_at", MoveValue::U64(now_ms)),
                ("owner", MoveValue::Address(owner)),
            ],
        ),
    );
    run.update_registry(node_id, "active", i128::from(stake), 1)?;
    run.emit(
        WORKER_REGISTRY,
        "WorkerRegisteredEvent",
        vec![
            ("node_id", text(node_id)),
            ("owner", MoveValue::Address(owner)),
            ("stake_amount", MoveValue::U64(stake)),
            ("seal_token", text(seal_token)),
            ("timestamp", MoveValue::U64(now_ms)),
        ],
    );
    run.emit_deposit(node_id, owner, stake, now_ms);
    run.finish()
}

fn set_status(ledger: &mut Ledger, now_ms: u64, node_id: &str, status: &str) -> Result<Receipt> {
    let mut change = WorkerChange::start(ledger, node_id, by_admin("set_status").text(status))?;
    change.set_status(node_id, status, now_ms)?;
    change.finish()
}

fn deposit(ledger: &mut Ledger, now_ms: u64, node_id: &str, amount: u64) -> Result<Receipt> {
    let mut change = WorkerChange::start(ledger, node_id, by_admin("deposit").number(amount))?;
    let owner = change.owner()?;
    let stake = change.stake()?.saturating_add(amount);
    change.set("stake_amount", MoveValue::U64(stake));
    let status = change.status()?;
    change
        .run
        .update_registry(node_id, &status, i128::from(amount), 0)?;
    change.run.emit_deposit(node_id, owner, amount, now_ms);
    change.finish()
}

fn withdraw(ledger: &mut Ledger, now_ms: u64, node_id: &str) -> Result<Receipt> {
    let proof = ledger.live_where(|record| {
        record.tag.name().as_str() == "StakeProof" && record.text("node_id") == Some(node_id)
    });
    let call = proof.map_or(by_admin("withdraw"), |proof| {
        by_admin("withdraw").owned(proof)
    });
    let mut change = WorkerChange::start(ledger, node_id, call)?;
    let stake = change.stake()?;
    change.set("stake_amount", MoveValue::U64(0));
    change.set_status(node_id, "withdrawn", now_ms)?;
    change
        .run
        .update_registry(node_id, "withdrawn", -i128::from(stake), 0)?;
    if let Some(proof) = proof {
        change.run.take(proof)?;
        change.run.delete(proof);
    }
    change.finish()
}

fn issue_token(ledger: &mut Ledger, owner: Address, stake: u64, expires: u64) -> Result<Receipt> {
    let call = Call::new(owner, SEAL_TOKEN, "issue")
        .number(stake)
        .number(expires);
    let mut run = ledger.run(call)?;
    let (token_id, stake_id) = (run.fresh_id(), run.fresh_id());
    run.create(token_id, Owner::Address(owner), {
        token_struct(token_id, owner, stake_id, expires)
    });
    run.create(stake_id, Owner::Address(owner), {
        stake_struct(stake_id, owner, stake, "active")
    });
    run.finish()
}

fn schedule(ledger: &mut Ledger, now_ms: u64, request: &ApiRequest) -> Result<Receipt> {
    emit(
        ledger,
        request.requester,
        "K8sAPIRequestScheduledEvent",
        vec![
            ("request_id", text(&request.request_id)),
            ("method", text(&request.method)),
            ("resource", text(&request.resource)),
            ("namespace", text(&request.namespace)),
            ("name", text(&request.name)),
            ("payload", text(&request.payload)),
            ("seal_token", text(&request.seal_token)),
            ("requester", MoveValue::Address(request.requester)),
            ("priority", MoveValue::U8(request.priority)),
            ("assigned_worker", text(&request.assigned_worker)),
            ("timestamp", MoveValue::U64(now_ms)),
        ],
    )
}

fn emit(
    ledger: &mut Ledger,
    sender: Address,
    name: &'static str,
    fields: Vec<(&str, MoveValue)>,
) -> Result<Receipt> {
    let mut run = ledger.run(Call::new(sender, K8S_SCHEDULER, "emit"))?;
    run.emit(K8S_SCHEDULER, name, fields);
    run.finish()
}

/// A call of the registry's module.
fn by_admin(function: &'static str) -> Call {
    Call::new(admin(), WORKER_REGISTRY, function)
}

/// A change of one entry of the registry's table.
struct WorkerChange<'a> {
    run: Run<'a>,
    field: Address,
    owner: Owner,
    entry: MoveStruct,
    worker: MoveStruct,
}

impl<'a> WorkerChange<'a> {
    fn start(ledger: &'a mut Ledger, node_id: &str, call: Call) -> Result<Self> {
        let field = worker_field(node_id);
        ledger
            .live(field)
            .with_context(|| format!("no worker {node_id} is registered"))?;
        let mut run = ledger.run(call.shared(registry_id()).text(node_id))?;
        let (owner, entry) = run.take(field)?;
        let Some(MoveValue::Struct(worker)) = entry.get("value").cloned() else {
            bail!("the entry of {node_id} is no worker");
        };
        Ok(Self {
            run,
            field,
            owner,
            entry,
            worker,
        })
    }

    fn owner(&self) -> Result<Address> {
        let owner = self.worker.address("owner");
        owner.ok_or_else(|| anyhow!("a worker without owner"))
    }

    fn stake(&self) -> Result<u64> {
        let stake = self.worker.number("stake_amount");
        stake.ok_or_else(|| anyhow!("a worker without stake"))
    }

    fn status(&self) -> Result<String> {
        let status = self.worker.text("status");
        status
            .map(str::to_owned)
            .ok_or_else(|| anyhow!("a worker without status"))
    }

    fn set(&mut self, name: &str, value: MoveValue) {
        self.worker.set(name, value);
    }

    fn set_status(&mut self, node_id: &str, status: &str, now_ms: u64) -> Result<()> {
        let old = self.status()?;
        self.set("status", text(status));
        self.run.update_registry(node_id, status, 0, 0)?;
        self.run.emit(
            WORKER_REGISTRY,
            "WorkerStatusChangedEvent",
            vec![
                ("node_id", text(node_id)),
                ("old_status", text(&old)),
                ("new_status", text(status)),
                ("timestamp", MoveValue::U64(now_ms)),
            ],
        );
        Ok(())
    }

    fn finish(mut self) -> Result<Receipt> {
        self.entry.set("value", MoveValue::Struct(self.worker));
        self.run.put(self.field, self.owner, self.entry);
        self.run.finish()
    }
}

impl Run<'_> {
    fn emit(&mut self, module: &'static str, name: &'static str, fields: Vec<(&str, MoveValue)>) {
        self.emit_struct(MoveStruct::new(tag(package(), module, name), fields));
    }

    fn emit_deposit(&mut self, node_id: &str, owner: Address, amount: u64, now_ms: u64) {
        self.emit(
            WORKER_REGISTRY,
            "StakeDepositedEvent",
            vec![
                ("node_id", text(node_id)),
                ("owner", MoveValue::Address(owner)),
                ("amount", MoveValue::U64(amount)),
                ("timestamp", MoveValue::U64(now_ms)),
            ],
        );
    }

    /// The registry after a worker's status became `status`, and its totals changed by so much.
    fn update_registry(
        &mut self,
        node_id: &str,
        status: &str,
        stake: i128,
        workers: u64,
    ) -> Result<()> {
        let (owner, mut registry) = self.take(registry_id())?;
        if let Some(MoveValue::Vector(mut active)) = registry.get("active_workers").cloned() {
            active.retain(|worker| *worker != text(node_id));
            if status == "active" {
                active.push(text(node_id));
            }
            registry.set("active_workers", MoveValue::Vector(active));
        }
        let total = i128::from(registry.number("total_stake").unwrap_or_default()) + stake;
        let total = u64::try_from(total).context("the total stake")?;
        registry.set("total_stake", MoveValue::U64(total));
        let count = registry.number("total_workers").unwrap_or_default() + workers;
        registry.set("total_workers", MoveValue::U64(count));
        if let Some(MoveValue::Struct(mut table)) = registry.get("workers").cloned() {
            table.set("size", MoveValue::U64(count));
            registry.set("workers", MoveValue::Struct(table));
        }
        self.put(registry_id(), owner, registry);
        Ok(())
    }

    /// The owner's list of workers, with one more.
    fn add_to_list(&mut self, owner: Address, node_id: &str) -> Result<()> {
        let field = owner_field(owner);
        if self.exists(field) {
            let (holder, mut entry) = self.take(field)?;
            if let Some(MoveValue::Vector(mut list)) = entry.get("value").cloned() {
                list.push(text(node_id));
                entry.set("value", MoveValue::Vector(list));
            }
            self.put(field, holder, entry);
            return Ok(());
        }
        let list = MoveValue::Vector(vec![text(node_id)]);
        let list_tag = TypeTag::Vector(Box::new(string_tag()));
        let name = MoveValue::Address(owner);
        let entry = field_struct(field, TypeTag::Address, name, list_tag, list);
        self.create(field, Owner::Object(owners_table()), entry);
        let (holder, mut registry) = self.take(registry_id())?;
        if let Some(MoveValue::Struct(mut table)) = registry.get("owner_workers").cloned() {
            let size = table.number("size").unwrap_or_default() + 1;
            table.set("size", MoveValue::U64(size));
            registry.set("owner_workers", MoveValue::Struct(table));
        }
        self.put(registry_id(), holder, registry);
        Ok(())
    }
}
