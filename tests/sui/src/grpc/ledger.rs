//! `LedgerService`: objects, transactions, checkpoints, epochs.

use futures_util::stream;
use sui_rpc::field::{FieldMask, FieldMaskTree};
use sui_rpc::proto::google::rpc::Status as RpcStatus;
use sui_rpc::proto::sui::rpc::v2::get_checkpoint_request::CheckpointId;
use sui_rpc::proto::sui::rpc::v2::ledger_service_server::LedgerService;
use sui_rpc::proto::sui::rpc::v2::{
    BatchGetObjectsRequest, BatchGetObjectsResponse, BatchGetTransactionsRequest,
    BatchGetTransactionsResponse, Checkpoint, Epoch, ExecutedTransaction, GetCheckpointRequest,
    GetCheckpointResponse, GetEpochRequest, GetEpochResponse, GetObjectRequest, GetObjectResponse,
    GetObjectResult, GetServiceInfoRequest, GetServiceInfoResponse, GetTransactionRequest,
    GetTransactionResponse, GetTransactionResult, ListEventsRequest, ListEventsResponse, Object,
    ProtocolConfig, SystemState,
};
use sui_rpc::proto::timestamp_ms_to_proto;
use sui_sdk_types::{Address, Digest};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{Face, field, list, mask, render};
use crate::ledger::{GAS_PRICE, PROTOCOL_VERSION};
use crate::view::View;

const OBJECT_MASK: &str = "object_id,version,digest";
const TRANSACTION_MASK: &str = "digest";
const CHECKPOINT_MASK: &str = "sequence_number,digest";
const EPOCH_MASK: &str = "epoch,first_checkpoint,last_checkpoint,start,end,reference_gas_price,\
                          protocol_config.protocol_version";

#[tonic::async_trait]
impl LedgerService for Face {
    async fn get_service_info(
        &self,
        _: Request<GetServiceInfoRequest>,
    ) -> Result<Response<GetServiceInfoResponse>, Status> {
        self.read(|view| {
            let mut info = GetServiceInfoResponse::default();
            info.chain_id = Some(view.chain_id().to_string());
            info.chain = Some("unknown".to_owned());
            if let Some(latest) = view.checkpoint(view.height()) {
                info.epoch = Some(latest.summary.epoch);
                info.timestamp = Some(timestamp_ms_to_proto(latest.summary.timestamp_ms));
            }
            info.checkpoint_height = Some(view.height());
            info.lowest_available_checkpoint = Some(0);
            info.lowest_available_checkpoint_objects = Some(0);
            info.server = Some(concat!("sui-standin/", env!("CARGO_PKG_VERSION")).to_owned());
            Ok(Response::new(info))
        })
    }

    async fn get_object(
        &self,
        request: Request<GetObjectRequest>,
    ) -> Result<Response<GetObjectResponse>, Status> {
        let request = request.into_inner();
        let mask = mask::<Object>(request.read_mask.clone(), OBJECT_MASK)?;
        self.read(|view| {
            let object = object(view, &request, &mask)?;
            Ok(Response::new(GetObjectResponse::new(object)))
        })
    }

    async fn batch_get_objects(
        &self,
        request: Request<BatchGetObjectsRequest>,
    ) -> Result<Response<BatchGetObjectsResponse>, Status> {
        let request = request.into_inner();
        let mask = mask::<Object>(request.read_mask, OBJECT_MASK)?;
        self.read(|view| {
            let results = request
                .requests
                .iter()
                .map(|one| match object(view, one, &mask) {
                    Ok(object) => GetObjectResult::new_object(object),
                    Err(status) => GetObjectResult::new_error(rpc_status(&status)),
                });
            let response = BatchGetObjectsResponse::new(results.collect());
            Ok(Response::new(response))
        })
    }

    async fn get_transaction(
        &self,
        request: Request<GetTransactionRequest>,
    ) -> Result<Response<GetTransactionResponse>, Status> {
        let request = request.into_inner();
        let mask = transaction_mask(request.read_mask)?;
        self.read(|view| {
            let transaction = transaction(view, request.digest.as_deref(), &mask)?;
            Ok(Response::new(GetTransactionResponse::new(transaction)))
        })
    }

    async fn batch_get_transactions(
        &self,
        request: Request<BatchGetTransactionsRequest>,
    ) -> Result<Response<BatchGetTransactionsResponse>, Status> {
        let request = request.into_inner();
        let mask = transaction_mask(request.read_mask)?;
        self.read(|view| {
            let results = request.digests.iter().map(|digest| {
                match transaction(view, Some(digest.as_str()), &mask) {
                    Ok(transaction) => GetTransactionResult::new_transaction(transaction),
                    Err(status) => GetTransactionResult::new_error(rpc_status(&status)),
                }
            });
            let response = BatchGetTransactionsResponse::new(results.collect());
            Ok(Response::new(response))
        })
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let request = request.into_inner();
        let mask = mask::<Checkpoint>(request.read_mask, CHECKPOINT_MASK)?;
        self.read(|view| {
            let (asked, found) = match request.checkpoint_id {
                Some(CheckpointId::SequenceNumber(number)) => {
                    (number.to_string(), view.checkpoint(number))
                }
                Some(CheckpointId::Digest(digest)) => {
                    let digest: Digest = field("digest", Some(&digest))?;
                    (digest.to_string(), view.checkpoint_by_digest(&digest))
                }
                _ => ("latest".to_owned(), view.checkpoint(view.height())),
            };
            let found = found.ok_or_else(|| not_found("Checkpoint", &asked))?;
            let checkpoint = render::checkpoint(view, found, &mask);
            Ok(Response::new(GetCheckpointResponse::new(checkpoint)))
        })
    }

    async fn get_epoch(
        &self,
        request: Request<GetEpochRequest>,
    ) -> Result<Response<GetEpochResponse>, Status> {
        let request = request.into_inner();
        let mask = mask::<Epoch>(request.read_mask, EPOCH_MASK)?;
        self.read(|view| {
            let epoch = epoch(view, request.epoch, &mask)?;
            Ok(Response::new(GetEpochResponse::new(epoch)))
        })
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<BoxStream<ListEventsResponse>>, Status> {
        let frames = self.read(|view| list::events(view, request.into_inner()))?;
        let frames = stream::iter(frames.into_iter().map(Ok));
        Ok(Response::new(Box::pin(frames)))
    }
}

fn transaction_mask(asked: Option<FieldMask>) -> Result<FieldMaskTree, Status> {
    mask::<ExecutedTransaction>(asked, TRANSACTION_MASK)
}

fn object(
    view: &View<'_>,
    request: &GetObjectRequest,
    mask: &FieldMaskTree,
) -> Result<Object, Status> {
    let id: Address = field("object_id", request.object_id.as_deref())?;
    let found = match request.version {
        Some(version) => view.object_at(id, version),
        None => view.object(id),
    };
    let asked = match request.version {
        Some(version) => format!("{id} with version {version}"),
        None => id.to_string(),
    };
    let live = found.ok_or_else(|| not_found("Object", &asked))?;
    Ok(render::object(&live, mask))
}

fn transaction(
    view: &View<'_>,
    digest: Option<&str>,
    mask: &FieldMaskTree,
) -> Result<ExecutedTransaction, Status> {
    let digest: Digest = field("digest", digest)?;
    let found = view.transaction(&digest);
    let executed = found.ok_or_else(|| not_found("Transaction", &digest.to_string()))?;
    Ok(render::transaction(view, executed, mask))
}

fn epoch(view: &View<'_>, asked: Option<u64>, mask: &FieldMaskTree) -> Result<Epoch, Status> {
    let current = view.checkpoint(view.height()).map_or(0, |latest| {
        latest.summary.epoch + u64::from(latest.summary.end_of_epoch_data.is_some())
    });
    let number = asked.unwrap_or(current);
    let mut message = Epoch::default();
    if mask.contains(Epoch::EPOCH_FIELD) {
        message.epoch = Some(number);
    }
    if mask.contains(Epoch::COMMITTEE_FIELD) {
        let committee = view.committee(number).filter(|_| number <= current);
        let missing = || not_found("Committee for epoch", &number.to_string());
        message.committee = Some(committee.cloned().ok_or_else(missing)?.into());
    }
    let bounds = view.epoch_bounds(number);
    let start_ms = match (number, bounds) {
        (0, _) => Some(view.timestamp_ms(0)),
        // It starts with the checkpoint that ended the one before.
        (_, Some((first, _))) => Some(view.timestamp_ms(first - 1)),
        (_, None) => (number == current).then(|| view.timestamp_ms(view.height())),
    };
    if let Some((first, last)) = bounds {
        if mask.contains(Epoch::FIRST_CHECKPOINT_FIELD) {
            message.first_checkpoint = Some(first);
        }
        if mask.contains(Epoch::LAST_CHECKPOINT_FIELD) {
            message.last_checkpoint = last;
        }
        if mask.contains(Epoch::END_FIELD) {
            message.end = last.map(|last| timestamp_ms_to_proto(view.timestamp_ms(last)));
        }
    }
    let Some(start_ms) = start_ms else {
        return Ok(message);
    };
    if mask.contains(Epoch::START_FIELD) {
        message.start = Some(timestamp_ms_to_proto(start_ms));
    }
    if mask.contains(Epoch::REFERENCE_GAS_PRICE_FIELD) {
        message.reference_gas_price = Some(GAS_PRICE);
    }
    if mask.subtree(Epoch::PROTOCOL_CONFIG_FIELD).is_some() {
        let mut config = ProtocolConfig::default();
        config.protocol_version = Some(PROTOCOL_VERSION);
        message.protocol_config = Some(config);
    }
    if mask.subtree(Epoch::SYSTEM_STATE_FIELD).is_some() {
        let mut state = SystemState::default();
        state.version = Some(2);
        state.epoch = Some(number);
        state.protocol_version = Some(PROTOCOL_VERSION);
        state.reference_gas_price = Some(GAS_PRICE);
        state.epoch_start_timestamp_ms = Some(start_ms);
        message.system_state = Some(Box::new(state));
    }
    Ok(message)
}

fn not_found(what: &str, which: &str) -> Status {
    Status::not_found(format!("{what} {which} not found"))
}

fn rpc_status(status: &Status) -> RpcStatus {
    RpcStatus {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    }
}
