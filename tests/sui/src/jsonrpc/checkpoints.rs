//! Checkpoints, committees, and which chain it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sui_sdk_types::{Digest, ValidatorCommitteeMember};

use super::objects::Number;
use super::{Params, RpcError, RpcResult, page, transactions};
use crate::ledger::Checkpoint;
use crate::view::View;

/// The most checkpoints of a page.
const CHECKPOINTS_LIMIT: usize = 100;

pub(super) fn get(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let id: String = params.required(0)?;
    let found = match (id.parse::<u64>(), id.parse::<Digest>()) {
        (Ok(number), _) => view.checkpoint(number),
        (Err(_), Ok(digest)) => view.checkpoint_by_digest(&digest),
        (Err(_), Err(error)) => return Err(RpcError::invalid(error.to_string())),
    };
    let missing = || {
        let message = format!("Verified checkpoint not found for sequence number {id}");
        RpcError::invalid(message)
    };
    found.map(|it| checkpoint(view, it)).ok_or_else(missing)
}

pub(super) fn list(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let cursor: Option<Number> = params.optional(0)?;
    let limit: Option<usize> = params.optional(1)?;
    let limit = limit
        .unwrap_or(CHECKPOINTS_LIMIT)
        .clamp(1, CHECKPOINTS_LIMIT);
    let descending: bool = params.required(2)?;
    let cursor = cursor.map(|it| it.0);
    let numbers: Vec<u64> = match (cursor, descending) {
        (None, false) => (0..=view.height()).take(limit + 1).collect(),
        (Some(after), false) => (after.saturating_add(1)..=view.height())
            .take(limit + 1)
            .collect(),
        (None, true) => (0..=view.height()).rev().take(limit + 1).collect(),
        (Some(before), true) => (0..before).rev().take(limit + 1).collect(),
    };
    let more = numbers.len() > limit;
    let shown = &numbers[..numbers.len().min(limit)];
    let data = shown.iter().filter_map(|number| view.checkpoint(*number));
    let data: Vec<Value> = data.map(|it| checkpoint(view, it)).collect();
    let next = shown.last().copied().or(cursor);
    Ok(page(&data, more, &json!(next.map(|it| it.to_string()))))
}

/// The first four bytes of the first checkpoint's digest, in hex.
pub(super) fn chain_identifier(view: &View<'_>) -> Value {
    let digest = view.chain_id().into_inner();
    let hex: String = digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!(hex)
}

pub(super) fn committee(view: &View<'_>, params: Params<'_>) -> RpcResult {
    let epoch: Option<Number> = params.optional(0)?;
    let latest = view.checkpoint(view.height());
    let current = latest.map_or(0, |it| it.summary.epoch);
    let epoch = epoch.map_or(current, |it| it.0);
    let missing = || RpcError::failed(format!("Committee not found for epoch {epoch}"));
    let committee = view.committee(epoch).ok_or_else(missing)?;
    Ok(json!({ "epoch": epoch.to_string(), "validators": members(&committee.members) }))
}

fn members(members: &[ValidatorCommitteeMember]) -> Value {
    let members = members.iter().map(|member| {
        let key = STANDARD.encode(member.public_key.inner());
        json!([key, member.stake.to_string()])
    });
    members.collect()
}

fn checkpoint(view: &View<'_>, sealed: &Checkpoint) -> Value {
    let summary = &sealed.summary;
    let contents = view.contents_at(summary.sequence_number);
    let digests = contents.map_or(&[][..], |it| it.transactions.as_slice());
    let mut value = json!({
        "epoch": summary.epoch.to_string(),
        "sequenceNumber": summary.sequence_number.to_string(),
        "digest": sealed.digest.to_string(),
        "networkTotalTransactions": summary.network_total_transactions.to_string(),
        "epochRollingGasCostSummary":
            transactions::gas(&summary.epoch_rolling_gas_cost_summary),
        "timestampMs": summary.timestamp_ms.to_string(),
        "transactions": digests.iter().map(Digest::to_string).collect::<Vec<_>>(),
        "checkpointCommitments": [],
    });
    if let Some(previous) = &summary.previous_digest {
        value["previousDigest"] = json!(previous.to_string());
    }
    if let Some(end) = &summary.end_of_epoch_data {
        value["endOfEpochData"] = json!({
            "nextEpochCommittee": members(&end.next_epoch_committee),
            "nextEpochProtocolVersion": end.next_epoch_protocol_version.to_string(),
            "epochCommitments": [],
        });
    }
    if let Some(signature) = view.signature(sealed) {
        value["validatorSignature"] = json!(STANDARD.encode(signature.signature.inner()));
    }
    value
}
