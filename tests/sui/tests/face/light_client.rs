//! As a light client: nothing of what the node says is believed but what the committee signed.

use nautilus_sui_standin::{Answer, Lies, Link, Standin, layout};
use sui_crypto::bls12381::ValidatorCommitteeSignatureVerifier;
use sui_rpc::field::{FieldMask, FieldMaskUtil};
use sui_rpc::proto::sui::rpc::v2::{
    GetCheckpointRequest, GetEpochRequest, GetObjectRequest, GetTransactionRequest,
};
use sui_sdk_types::{
    Address, CheckpointContents, CheckpointSummary, Object, ObjectOut, TransactionEffects,
    ValidatorAggregatedSignature, ValidatorCommittee,
};

use crate::grpc::client;
use crate::with_worker;

/// Reads an object and everything that proves it, down to the committee's signature.
async fn verified(
    standin: &Standin,
    id: Address,
    committee: &ValidatorCommittee,
) -> Result<Object, String> {
    let mut client = client(standin);
    let mut ledger = client.ledger_client();
    let told = |error: tonic::Status| error.to_string();
    let mask = || FieldMask::from_str("bcs");
    let request = GetObjectRequest::new(&id).with_read_mask(mask());
    let object = ledger.get_object(request).await.map_err(told)?.into_inner();
    let object: Object = object
        .object()
        .bcs()
        .deserialize()
        .map_err(|it| it.to_string())?;

    let transaction = object.previous_transaction();
    let request = GetTransactionRequest::new(&transaction)
        .with_read_mask(FieldMask::from_str("effects.bcs,checkpoint"));
    let executed = ledger
        .get_transaction(request)
        .await
        .map_err(told)?
        .into_inner();
    let executed = executed.transaction();
    let effects: TransactionEffects = {
        let effects = executed.effects().bcs();
        effects.deserialize().map_err(|it| it.to_string())?
    };
    let TransactionEffects::V2(changes) = &effects else {
        return Err("effects of the first version".to_owned());
    };
    let written = changes.changed_objects.iter().any(|change| {
        let ObjectOut::ObjectWrite { digest, .. } = &change.output_state else {
            return false;
        };
        change.object_id == id && *digest == object.digest()
    });
    if !written || changes.lamport_version != object.version() {
        return Err("the effects name another object".to_owned());
    }

    let request = GetCheckpointRequest::by_sequence_number(executed.checkpoint())
        .with_read_mask(FieldMask::from_str("summary.bcs,signature,contents.bcs"));
    let checkpoint = ledger
        .get_checkpoint(request)
        .await
        .map_err(told)?
        .into_inner();
    let checkpoint = checkpoint.checkpoint();
    let contents: CheckpointContents = {
        let contents = checkpoint.contents().bcs();
        contents.deserialize().map_err(|it| it.to_string())?
    };
    let mut infos = contents.transactions().iter();
    if !infos.any(|it| *it.transaction() == transaction && *it.effects() == effects.digest()) {
        return Err("the contents name other effects".to_owned());
    }
    let summary: CheckpointSummary = {
        let summary = checkpoint.summary().bcs();
        summary.deserialize().map_err(|it| it.to_string())?
    };
    if summary.content_digest != contents.digest() {
        return Err("the summary names other contents".to_owned());
    }
    let signature = ValidatorAggregatedSignature::try_from(checkpoint.signature());
    let signature = signature.map_err(|it| it.to_string())?;
    let verifier = ValidatorCommitteeSignatureVerifier::new(committee.clone());
    let verifier = verifier.map_err(|it| it.to_string())?;
    let checked = verifier.verify_checkpoint_summary(&summary, &signature);
    checked.map_err(|_| "the committee signed no such summary".to_owned())?;
    Ok(object)
}

#[tokio::test]
async fn an_object_is_proved_down_to_the_committees_signature() {
    let standin = with_worker().await;
    let committee = standin.chain().committee(0).expect("the first epoch");
    let id = layout::worker_field("w1");
    let object = verified(&standin, id, &committee).await.expect("a proof");
    assert_eq!(object.object_id(), id);
    let (token, stake) = {
        let chain = standin.chain();
        chain
            .issue_token(crate::owner(), 5, u64::MAX)
            .expect("a token")
    };
    for id in [token, stake, layout::registry_id()] {
        verified(&standin, id, &committee).await.expect("a proof");
    }
}

#[tokio::test]
async fn a_full_node_that_says_yes_to_everything_proves_nothing() {
    let standin = with_worker().await;
    let committee = standin.chain().committee(0).expect("the first epoch");
    standin
        .chain()
        .set_status("w1", "slashed")
        .expect("a worker");
    standin.grpc().answer(Answer::Wrong(Lies::default()));
    for id in [layout::worker_field("w1"), Address::from_static("0x70ce")] {
        let refused = verified(&standin, id, &committee).await;
        assert_eq!(
            refused.expect_err("a lie"),
            "the effects name another object"
        );
    }
}

#[tokio::test]
async fn a_fork_is_found_at_the_first_link_that_is_true() {
    let standin = with_worker().await;
    let committee = standin.chain().committee(0).expect("the first epoch");
    let id = layout::worker_field("w1");
    for (link, found) in [
        (Link::Objects, "the effects name another object"),
        (Link::Effects, "the contents name other effects"),
        (Link::Contents, "the summary names other contents"),
        (Link::Summaries, "the committee signed no such summary"),
        (Link::Everything, "the committee signed no such summary"),
    ] {
        standin.grpc().answer(Answer::Forked(link));
        let refused = verified(&standin, id, &committee).await;
        assert_eq!(refused.expect_err("a fork"), found, "{link:?}");
    }
}

#[tokio::test]
async fn committees_follow_each_other_by_signed_checkpoints() {
    let standin = with_worker().await;
    let chain = standin.chain();
    let mut committee = chain.committee(0).expect("the first epoch");
    for epoch in 0..3 {
        let end = chain.end_epoch().expect("an end");
        let mut client = client(&standin);
        let request = GetCheckpointRequest::by_sequence_number(end.checkpoint)
            .with_read_mask(FieldMask::from_str("summary.bcs,signature"));
        let checkpoint = client.ledger_client().get_checkpoint(request).await;
        let checkpoint = checkpoint.expect("it is sealed").into_inner();
        let summary: CheckpointSummary = {
            let summary = checkpoint.checkpoint().summary().bcs();
            summary.deserialize().expect("a summary")
        };
        let signature = checkpoint.checkpoint().signature();
        let signature = ValidatorAggregatedSignature::try_from(signature).expect("a signature");
        let verifier = ValidatorCommitteeSignatureVerifier::new(committee.clone());
        let verifier = verifier.expect("keys");
        let checked = verifier.verify_checkpoint_summary(&summary, &signature);
        checked.expect("the committee signed it");
        let end = summary
            .end_of_epoch_data
            .expect("the epoch's last checkpoint");
        committee = ValidatorCommittee {
            epoch: epoch + 1,
            members: end.next_epoch_committee,
        };
        let request =
            GetEpochRequest::new(epoch + 1).with_read_mask(FieldMask::from_str("epoch,committee"));
        let told = client
            .ledger_client()
            .get_epoch(request)
            .await
            .expect("an epoch");
        let told = told.into_inner().epoch().committee().clone();
        assert_eq!(
            ValidatorCommittee::try_from(&told).expect("keys"),
            committee
        );
    }
    let heartbeat = chain.register_worker("w2", crate::owner(), 1, "seal-2");
    heartbeat.expect("no such worker yet");
    let id = layout::worker_field("w2");
    verified(&standin, id, &committee)
        .await
        .expect("a proof by the fourth committee");
}
